//! HTTP from the command line: `tandem http`, `tandem forward` and `tandem file`, against a node of its own.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

#[cfg(test)]
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{Ended, Node, PATIENCE, Process, finish, finish_with_input, scratch, tandem};

fn http(arguments: &[&str]) -> Ended {
    finish(tandem().arg("http").args(arguments))
}

/// A node that offers everything, and its addresses.
fn offering(dir: &std::path::Path, more: &[&str]) -> (Node, [String; 2]) {
    let all = ["--service", "status", "--service", "files", "--service", "kv"];
    let node = Node::start(dir, &[&all[..], more].concat());
    let addresses = [node.ws().to_owned(), node.p2p().to_owned()];
    (node, addresses)
}

#[test]
fn the_same_is_answered_over_either_transport() {
    let dir = scratch();
    let (_node, addresses) = offering(dir.path(), &[]);
    for peer in &addresses {
        let status = http(&["-i", &format!("{peer}/status")]);
        assert!(status.stdout.starts_with("HTTP/1.1 200 OK"), "{status:?}");
        let put = http(&["PUT", &format!("{peer}/kv/colour"), "-d", "green"]);
        assert_eq!(put.code, Some(0), "{put:?}");
        assert_eq!(http(&[&format!("{peer}/kv/colour")]).stdout, "green");
        // Issue 8, 21: an error is no success, and has the exit code of curl.
        for (flags, body) in [(&[][..], "404 page not found"), (&["-f"], "")] {
            let missing = http(&[flags, &[&format!("{peer}/nothing")]].concat());
            assert_eq!(missing.code, Some(22), "{missing:?}");
            assert_eq!(missing.stdout.trim(), body);
            assert_eq!(missing.stderr, "error: the peer answered 404 Not Found");
        }
        let piping = ["http", "-X", "PUT", "-d", "@-", &format!("{peer}/kv/a")];
        let piped = finish_with_input(tandem().args(piping), b"blue");
        assert_eq!(piped.code, Some(0), "{piped:?}");
        assert_eq!(http(&[&format!("{peer}/kv/a")]).stdout, "blue");
        let gone = http(&["-X", "DELETE", &format!("{peer}/kv/a")]);
        assert_eq!(gone.code, Some(0), "{gone:?}");
        let head = http(&["-I", &format!("{peer}/health")]);
        assert!(head.stdout.contains("content-type: application/json"), "{head:?}");
    }
}

#[test]
fn a_file_is_put_and_got_by_what_is_in_it() {
    let dir = scratch();
    let (_node, addresses) = offering(dir.path(), &["--uploads-from", "anyone"]);
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let file = dir.path().join("content");
    fs::write(&file, &content).unwrap();
    let mut ids = Vec::new();
    for peer in &addresses {
        let put = finish(tandem().args(["file", "put"]).arg(&file).arg(peer));
        assert_eq!(put.code, Some(0), "{put:?}");
        ids.push(put.stdout);
    }
    assert_eq!(ids[0], ids[1]);
    for peer in &addresses {
        let got = dir.path().join("got");
        // Nobody is at the first one, so it goes on to the second.
        let get =
            finish(tandem().args(["file", "get", &ids[0], "127.0.0.1:1", peer, "-o"]).arg(&got));
        assert_eq!(get.code, Some(0), "{get:?}");
        assert!(fs::read(&got).unwrap() == content);
    }
}

// Issue 12, 7.
#[test]
fn a_shared_file_is_got_by_its_link_and_an_interrupted_get_goes_on() {
    let dir = scratch();
    let content: Vec<u8> = (0..5_000_000_u32).map(|number| (number % 251) as u8).collect();
    let (file, got) = (dir.path().join("content"), dir.path().join("got"));
    fs::write(&file, &content).unwrap();
    let mut share = Process::spawn(tandem().args(["file", "share"]).arg(&file));
    assert_eq!(share.line(), format!("sharing {}, 5000000 bytes", file.display()));
    let link = share.line();
    assert_eq!(share.line(), "ready");
    let get = |link: &str| finish(tandem().args(["file", "get", link, "-o"]).arg(&got));
    let (name, addresses) = link.split_once('@').unwrap();
    let addresses: Vec<&str> = addresses.split(',').collect();
    assert_eq!(addresses.len(), 2, "{link}");
    for address in addresses {
        // An interrupted get had two megabytes and a part of the third.
        fs::write(dir.path().join("got.part"), &content[..2_500_000]).unwrap();
        let ended = get(&format!("{name}@{address}"));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let told = format!("{}: 5000000 bytes, 2097152 of which were there already", got.display());
        assert_eq!(ended.stdout, told);
        assert!(fs::read(&got).unwrap() == content);
        fs::remove_file(&got).unwrap();
    }
    assert_eq!(get(&link).code, Some(0));
    // Of several sources one may be gone.
    let other = Process::spawn(tandem().args(["file", "share"]).arg(&file));
    assert!(other.line().starts_with("sharing "));
    let others = other.line();
    for is_there in [true, false] {
        if !is_there {
            other.signal("KILL");
        }
        fs::remove_file(&got).unwrap();
        let ended = get(&format!("{others},{}", link.split_once('@').unwrap().1));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(fs::read(&got).unwrap() == content);
    }
    // A file that changes while it is shared is no longer the one of the link.
    fs::write(&file, vec![0; content.len()]).unwrap();
    let ended = get(&link);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("wrong content"), "{ended:?}");
    for (link, told) in [
        (name.to_owned(), "a link has 1 to 16 addresses behind its @"),
        (format!("{name}@nowhere"), "\"nowhere\" in the link is no address of a peer"),
        (name.replace("tandem:", ""), "no peer is named"),
    ] {
        let ended = get(&link);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
    share.signal("INT");
    assert!(share.wait(PATIENCE).success());
    let ended = finish(tandem().args(["file", "share", "/nonexistent/file"]));
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("cannot read /nonexistent/file"), "{ended:?}");
}

#[test]
fn a_caller_without_the_right_to_put_files_is_told_so() {
    let dir = scratch();
    let (_node, addresses) = offering(dir.path(), &[]);
    let file = dir.path().join("content");
    fs::write(&file, "content").unwrap();
    let put = finish(tandem().args(["file", "put"]).arg(&file).arg(&addresses[0]));
    assert_eq!(put.code, Some(1));
    assert!(put.stderr.starts_with("error: the peer refused it: 403"), "{put:?}");
}

#[test]
fn any_tool_works_through_a_forwarded_port() {
    let dir = scratch();
    let (_node, addresses) = offering(dir.path(), &[]);
    let forward =
        Process::spawn(tandem().args(["forward", "--listen", "127.0.0.1:0", &addresses[1]]));
    let line = forward.line();
    let local = line.strip_prefix("forwarding http://").and_then(|rest| rest.split(' ').next());
    let local = local.unwrap_or_else(|| panic!("{line}"));
    let mut socket = TcpStream::connect(local).unwrap();
    let request = "GET /status HTTP/1.1\r\nHost: any\r\n\r\nGET /nothing HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).unwrap();
    let mut answers = String::new();
    socket.read_to_string(&mut answers).unwrap();
    let statuses: Vec<&str> = answers.lines().filter(|line| line.starts_with("HTTP/1.1")).collect();
    assert_eq!(statuses, ["HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found"], "{answers}");
}

#[test]
fn an_impossible_request_is_told_in_one_line() {
    for (arguments, code, expected) in [
        (&["nowhere"][..], 2, "error: \"nowhere\" is not PEER/path"),
        (&["127.0.0.1:1/x"], 1, "error: the peer cannot be reached"),
        (&["G,T", "127.0.0.1:1/x"], 2, "error: \"G,T\" is no method"),
        (&["-H", "x", "127.0.0.1:1/x"], 2, "error: \"x\" is no header"),
        (&["-d", "@/no/such/file", "127.0.0.1:1/x"], 1, "error: cannot read /no/such/file"),
        (&["--cacert", "/no/such/file", "https://127.0.0.1:1/x"], 2, "error: cannot read"),
    ] {
        let told = http(arguments);
        assert_eq!(told.code, Some(code), "{told:?}");
        assert!(told.stderr.starts_with(expected), "{told:?}");
        assert!(!told.stderr.contains('\n'), "{told:?}");
    }
}

// Issue 9, 8.
#[test]
fn certificates_of_the_system_that_cannot_be_read_in_time_hold_up_nothing_else() {
    let dir = scratch();
    // Nobody writes into it, so that opening it takes for ever.
    let fifo = dir.path().join("certificates");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let began = Instant::now();
    let mut asking = tandem();
    asking.env("SSL_CERT_FILE", &fifo).args(["http", "-m", "1", "https://127.0.0.1:1/"]);
    let ended = finish(&mut asking);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}: {ended:?}", began.elapsed());
}
