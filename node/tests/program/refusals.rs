//! Bad input: one line on standard error that says what to do, and an exit code.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

#[cfg(test)]
use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::support::{self, Node, Process, finish, finish_with_input, run, scratch, tandem};

/// The configuration, or the command, has to be changed.
const USAGE: i32 = 2;
/// It may work another time.
const RUNTIME: i32 = 1;

/// A peer, behind an address.
const ID: &str = "/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

#[track_caller]
fn refuses(command: &mut Command, code: i32, parts: &[&str]) {
    refuses_input(command, b"", code, parts);
}

#[track_caller]
fn refuses_input(command: &mut Command, input: &[u8], code: i32, parts: &[&str]) {
    let ended = finish_with_input(command.env("RUST_BACKTRACE", "1"), input);
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert_eq!(ended.stdout, "", "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "one line: {ended:?}");
    assert!(ended.stderr.starts_with("error: "), "{ended:?}");
    for part in parts {
        assert!(ended.stderr.contains(part), "{part:?} is missing: {ended:?}");
    }
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_with_its_line() {
    let dir = scratch();
    let file = dir.path().join("tandem.toml");
    let with = |text: &str| {
        fs::write(&file, text).unwrap();
        let mut command = run(dir.path());
        command.arg("--config").arg(&file);
        command
    };
    let place = |line: u32| format!("{}:{line}: ", file.display());
    refuses(
        &mut with("\n\nlistn_ws = \"127.0.0.1:1\"\n"),
        USAGE,
        &[&place(3), "unknown key `listn_ws`, did you mean `listen_ws`?"],
    );
    refuses(&mut with("mode = \"ws\"\nmode = 1"), USAGE, &[&place(2)]);
    refuses(&mut with("[peers]"), USAGE, &[&place(1), "`peers` must be an array of strings"]);
    refuses(&mut with("\u{0}"), USAGE, &[&place(1)]);
    refuses(
        run(dir.path()).args(["--config", "/nonexistent.toml"]),
        USAGE,
        &["cannot read the configuration file /nonexistent.toml: No such file or directory"],
    );
    fs::write(&file, b"\xff\xfe").unwrap();
    refuses(run(dir.path()).arg("--config").arg(&file), USAGE, &["did not contain valid UTF-8"]);
    refuses(run(dir.path()).arg("--config").arg(dir.path()), USAGE, &["Is a directory"]);
}

#[test]
fn a_setting_that_cannot_be_used_is_refused_with_what_can() {
    let dir = scratch();
    for (flag, value, expected) in [
        ("--peer", "nonsense", "--peer: \"nonsense\" is no address: write host:port"),
        ("--peer", "/ip4/127.0.0.1/tcp/1", "does not end with /p2p/ID"),
        ("--peer", "/ip4/127.0.0.1/tcp/1/p2p/nobody", "/p2p/nobody\" cannot be read"),
        ("--peer", "wss://relay..example", "no certificate can be for its host"),
        ("--listen-ws", "4160", "--listen-ws: \"4160\" is not HOST:PORT"),
        ("--listen-p2p", "127.0.0.1:1", "--listen-p2p: \"127.0.0.1:1\" is no multiaddr"),
        // Issue 8, 6.
        ("--listen-p2p", "/ip4/127.0.0.1/udp/1/quic", "is no multiaddr that this build listens"),
        ("--peer", &format!("/ip4/127.0.0.1/udp/1/quic{ID}"), "because of /udp/1"),
        ("--peer", &format!("/ip4/127.0.0.1/udp/1/webrtc-direct{ID}"), "this build dials /ip4"),
        ("--peer", &format!("/ip4/127.0.0.1/tcp/1/http{ID}"), "because of /http"),
        // Issue 11, 6: a circuit over a circuit.
        (
            "--peer",
            &format!("/ip4/127.0.0.1/tcp/1{ID}/p2p-circuit{ID}/p2p-circuit{ID}"),
            "because of /p2p-circuit",
        ),
        (
            "--reachability",
            "tunnel",
            "write relay, autonat, auto-relay, hole-punching, port-mapping",
        ),
        ("--relay-limit", "circuits=1", "set `reachability` to relay too"),
        ("--relay-limit", "circuits", "write NAME=NUMBER"),
        ("--relay-limit", "bytes=1", "is no limit of a relay: write places, places-per-subnet"),
        ("--relay-limit", "circuits=-1", "is no number from 0 to 4294967295"),
        ("--listen-p2p", "/ip4/999.0.0.1/tcp/1", "is no multiaddr that this build listens"),
        ("--network", "a/b", "--network: network name \"a/b\""),
        ("--profile", "eth", "--profile: \"eth\" is no profile"),
        ("--relay", "yes", "--relay: \"yes\" is neither on nor off"),
        ("--log", "a=b=c", "--log: \"a=b=c\" is no log filter"),
        ("--service", "mail", "--service: \"mail\" is no service: write status"),
        ("--uploads-from", "me", "--uploads-from: \"me\" is neither a peer ID nor anyone"),
        ("--http-rate", "many", "is not a whole number from 0"),
        // Issue 10, 6.
        ("--proxy-protocol", "on", "--proxy-protocol: `trusted_proxies` is needed with it"),
        ("--trusted-proxy", "10/8", "--trusted-proxy: \"10/8\" is no range of addresses"),
        ("--trusted-proxy", "10.0.0.1/8", "write 10.0.0.0/8 for all of it"),
        ("--real-ip-header", "x-real-ip", "write x-forwarded-for or forwarded"),
        ("--tls-cert", "cert.pem", "--tls-cert: `tls_key` is needed with it"),
        ("--tls-client-key", "key.pem", "--tls-client-key: `tls_client_cert` is needed with it"),
        (
            "--key-file",
            "~other/key.pem",
            "begins with ~: write the whole path, or ./~other/key.pem",
        ),
    ] {
        let mut command = tandem();
        command.arg("run").arg("--data-dir").arg(dir.path()).arg(flag).arg(value);
        refuses(&mut command, USAGE, &[expected]);
        // `config` judges as `run` does.
        let mut command = tandem();
        command.arg("config").arg("--data-dir").arg(dir.path()).arg(flag).arg(value);
        refuses(&mut command, USAGE, &[expected]);
    }
    refuses(
        tandem().arg("run").env("TANDEM_MODE", "both"),
        USAGE,
        &["TANDEM_MODE: \"both\" is no mode: write hybrid, ws or p2p"],
    );
}

#[test]
fn a_slip_on_the_command_line_is_one_line() {
    refuses(tandem().arg("rum"), USAGE, &["unrecognized subcommand 'rum', did you mean 'run'?"]);
    refuses(tandem().args(["run", "--mod", "ws"]), USAGE, &["unexpected argument '--mod'"]);
    refuses(tandem().args(["send", "--tag", "TXX", "x"]), USAGE, &["is not a message tag"]);
    refuses(tandem().args(["listen", "--tags", "A"]), USAGE, &["is not a message tag"]);
    // Issue 8, 17.
    refuses(
        tandem().args(["send", "--tag", "TX", "--jsn"]),
        USAGE,
        &["unexpected argument '--jsn' found, did you mean '--json'?"],
    );
    refuses(
        tandem().args(["send", "--datadir", "x", "--tag", "TX", "hello"]),
        USAGE,
        &["unexpected argument '--datadir' found, did you mean '--data-dir'?"],
    );
    refuses(
        tandem().args(["demo", "--seconds", "0"]),
        USAGE,
        &["write a whole number from 1 to 86400"],
    );
    refuses(tandem().args(["demo", "--rate", "0"]), USAGE, &["--rate"]);
    refuses(tandem().args(["demo", "--nodes", "x"]), USAGE, &["write for example ws=2"]);
    refuses(tandem().args(["demo", "--chaos=hybrid-1"]), USAGE, &["name one of ws-1, ws-2"]);
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (ws, p2p) = (format!("127.0.0.1:{port}"), format!("/ip4/127.0.0.1/tcp/{port}"));
    for mode in ["hybrid", "ws"] {
        let dir = scratch();
        let mut command = tandem();
        command.arg("run").arg("--data-dir").arg(dir.path()).args(["--mode", mode]);
        command.args(["--listen-p2p", "/ip4/127.0.0.1/tcp/0", "--listen-ws", &ws]);
        refuses(&mut command, RUNTIME, &[&ws, "choose another port"]);
        assert!(!dir.path().join("admin.sock").exists());
    }
    for mode in ["hybrid", "p2p"] {
        let dir = scratch();
        let mut command = tandem();
        command.arg("run").arg("--data-dir").arg(dir.path()).args(["--mode", mode]);
        command.args(["--listen-ws", "127.0.0.1:0", "--listen-p2p", &p2p]);
        refuses(&mut command, RUNTIME, &[&p2p, "choose another port"]);
    }
}

#[test]
fn a_key_that_cannot_be_used_is_refused() {
    let dir = scratch();
    let key = dir.path().join("identity.pem");
    fs::write(&key, "hello").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let told = format!("chmod 600 {}", key.display());
    refuses(&mut run(dir.path()), RUNTIME, &["can be read by others", &told]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    refuses(&mut run(dir.path()), RUNTIME, &["is no PKCS#8 PEM file", "restore it from a copy"]);
    // Issue 8, 7.
    let with = |file: &Path| {
        let mut command = run(&dir.path().join("d"));
        command.arg("--key-file").arg(file);
        command
    };
    refuses(&mut with(dir.path()), USAGE, &["is no file: name the file of the key itself"]);
    refuses(&mut with(Path::new("/dev/null")), USAGE, &["is no file"]);
    // Issue 8, 19: a node that is asked to be somebody is nobody else.
    let typo = dir.path().join("typo.pem");
    let told = format!("make one with tandem keygen --out {}", typo.display());
    refuses(&mut with(&typo), USAGE, &["there is no key file", &told]);
    assert!(!typo.exists());
}

// Issue 8, 7.
#[test]
fn a_key_with_a_blank_line_behind_it_is_a_key() {
    let dir = scratch();
    let key = dir.path().join("key.pem");
    let made = finish(tandem().arg("keygen").arg("--out").arg(&key));
    let text = fs::read_to_string(&key).unwrap();
    fs::write(&key, format!("{}\r\n\r\n", text.trim_end().replace('\n', "\r\n"))).unwrap();
    let node = Node::start(&dir.path().join("d"), &["--key-file", key.to_str().unwrap()]);
    assert_eq!(node.ready["peer_id"], made.stdout);
}

// Issue 8, 7.
#[test]
fn a_tilde_is_the_home_directory() {
    let home = scratch();
    let mut command = tandem();
    command.args(["run", "--data-dir=~/data", "--mode", "ws", "--listen-ws", "127.0.0.1:0"]);
    command.env("HOME", home.path()).current_dir(home.path());
    let process = Process::spawn(&mut command);
    assert!(process.line().starts_with("listening ws"));
    assert_eq!(process.line(), "ready");
    assert!(home.path().join("data").join("identity.pem").exists());
    assert!(!home.path().join("~").exists());
}

#[test]
fn a_wrong_file_for_https_is_named() {
    let dir = scratch();
    let (empty, missing) = (dir.path().join("empty.pem"), dir.path().join("missing.pem"));
    fs::write(&empty, "").unwrap();
    for (file, expected) in [(&empty, "holds no certificates in PEM"), (&missing, "No such file")] {
        let name = file.display().to_string();
        let mut command = run(dir.path());
        command.arg("--tls-cert").arg(file).arg("--tls-key").arg(file);
        refuses(&mut command, USAGE, &["cannot serve HTTPS", &name, expected]);
    }
}

#[test]
fn a_data_directory_in_use_is_refused_and_its_node_goes_on() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[]);
    refuses(
        &mut run(dir.path()),
        RUNTIME,
        &["is in use by another node: stop that one, or choose another with --data-dir"],
    );
    assert_eq!(finish(&mut node.command("status")).code, Some(0));
}

#[test]
fn a_data_directory_that_cannot_be_made_or_used_is_refused() {
    let dir = scratch();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    refuses(&mut run(&file.join("d")), RUNTIME, &["cannot create the data directory"]);
    refuses(&mut run(&file), RUNTIME, &["data directory"]);
    // Issue 8, 7: a socket's address has at most 107 bytes.
    let at_most = 107 - "/admin.sock".len();
    let of_length =
        |length: usize| dir.path().join("d".repeat(length - dir.path().as_os_str().len() - 1));
    for length in at_most + 1..at_most + 8 {
        let told = format!("--data-dir: the path has {length} bytes");
        refuses(&mut run(&of_length(length)), USAGE, &[&told, "choose a shorter one"]);
    }
    assert!(!of_length(at_most + 1).exists());
    let node = Node::start(&of_length(at_most), &[]);
    assert_eq!(finish(&mut node.command("status")).code, Some(0));
}

// Issue 8, 21: the manual's command joined nobody, and said nothing.
#[test]
fn a_network_of_others_has_to_be_named() {
    let dir = scratch();
    refuses(
        run(dir.path()).args(["--profile", "algorand"]),
        USAGE,
        &["--profile: algorand needs the name of a network", "--network testnet-v1.0"],
    );
    let alone = ["--profile", "algorand", "--network", "testnet-v1.0"];
    let node = Node::start(dir.path(), &alone);
    let line = node.process.stderr.recv_timeout(support::PATIENCE).unwrap();
    assert!(line.contains("no peer is configured"), "{line}");
}

// Issue 8, 21: as a newcomer makes a certificate.
#[test]
fn a_plain_certificate_of_openssl_is_refused_with_the_command_that_mends_it() {
    let dir = scratch();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&cert);
    if !openssl.output().is_ok_and(|made| made.status.success()) {
        eprintln!("not tested: openssl is not installed");
        return;
    }
    let files = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let node = Node::start(&dir.path().join("d"), &files);
    let url = format!("https://localhost:{}/health", node.ws().rsplit_once(':').unwrap().1);
    let parts = ["CaUsedAsEndEntity", "-addext basicConstraints=critical,CA:FALSE"];
    refuses(tandem().args(["http", &url, "--cacert"]).arg(&cert), RUNTIME, &parts);
}

// Issue 8, 21.
#[test]
fn a_file_that_cannot_be_read_or_written_is_named_as_it_was_given() {
    let mut put = tandem();
    put.args(["file", "put", "/nonexistent/file", "127.0.0.1:1"]);
    refuses(&mut put, RUNTIME, &["cannot read /nonexistent/file: No such file or directory"]);
    let ended = finish(tandem().args(["keygen", "--out", "/nonexistent/key"]));
    let expected = "error: cannot write /nonexistent/key: No such file or directory (os error 2)";
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(RUNTIME), expected));
}

#[test]
fn a_command_without_a_node_says_so() {
    let dir = scratch();
    let speak = |name: &str| {
        let mut command = tandem();
        command.arg(name).arg("--data-dir").arg(dir.path());
        command
    };
    let told = ["no node runs on the data directory", "start one with tandem run"];
    refuses(speak("send").args(["--tag", "TX", "x"]), RUNTIME, &told);
    refuses(&mut speak("listen"), RUNTIME, &told);
    refuses(&mut speak("peers"), RUNTIME, &told);
}

#[test]
fn a_message_that_cannot_be_sent_is_refused() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[]);
    let send = |tag: &str| {
        let mut command = node.command("send");
        command.args(["--tag", tag]);
        command
    };
    refuses(send("UE").arg("x"), USAGE, &["UE cannot be sent in this network: use one of AV"]);
    refuses(send("ZZ").arg("x"), USAGE, &["ZZ cannot be sent in this network"]);
    let long = vec![b'x'; 1_229];
    refuses_input(
        send("AV").arg("-"),
        &long,
        USAGE,
        &["the body has 1229 bytes: AV takes at most 1228"],
    );
    let huge = dir.path().join("huge");
    fs::write(&huge, vec![0; 7 * 1024 * 1024]).unwrap();
    refuses(send("VB").arg("--file").arg(&huge), USAGE, &["at most 6291454 bytes can be sent"]);
    refuses(send("VB").args(["--file", "/nonexistent"]), RUNTIME, &["cannot read /nonexistent"]);
    refuses(send("AV").arg("x"), RUNTIME, &["the node has no peers"]);
    // Issue 8, 17.
    refuses(send("AV").args(["--", "--jsn"]), RUNTIME, &["the node has no peers"]);
    let mut listen = node.command("listen");
    refuses(
        listen.args(["--tags", "TX,ZZ"]),
        USAGE,
        &["ZZ is no tag of this network: use some of"],
    );
}

// Issue 8, 5: a second node with the same name took the address of it that was left, and both were "ready".
#[test]
fn a_name_is_listened_on_at_all_its_addresses_or_not_at_all() {
    let dirs = [scratch(), scratch()];
    let first = ["run", "--json", "--mode", "ws", "--listen-ws", "localhost:0", "--data-dir"];
    let node = Process::spawn(tandem().args(first).arg(dirs[0].path()));
    let ready = node.json();
    let url = ready["ws"].as_str().unwrap();
    let port = url.rsplit(':').next().unwrap();
    let name = format!("localhost:{port}");
    for address in std::net::ToSocketAddrs::to_socket_addrs(&name).unwrap() {
        let reached = std::net::TcpStream::connect(address);
        assert!(reached.is_ok(), "{address}: {reached:?}");
    }
    let second = ["run", "--mode", "ws", "--listen-ws", &name, "--data-dir"];
    refuses(tandem().args(second).arg(dirs[1].path()), RUNTIME, &[&name]);
    refuses(tandem().args(["forward", "--listen", &name, url]), RUNTIME, &[&name]);
}
