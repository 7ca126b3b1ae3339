//! Tests of the configuration: refusals and their words; which layer wins; a printed configuration reads back the same.

use std::{collections::HashMap, ffi::OsString, io::Write};

use gossip::NodeAddress;
use proptest::{collection::vec, prelude::*, sample::select};
use tandem::{Mode, Relaying};

use super::{
    ConfigError, Flags, Layers, Settings, file,
    key::Key,
    origin::{Origin, Value},
};

fn flags(given: &[(Key, &str)]) -> Flags {
    let given = given.iter().map(|(key, text)| (*key, vec![(*text).to_owned()])).collect();
    Flags { given }
}

fn gather(text: &str, env: &[(&str, &str)], given: &Flags) -> Result<Layers, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let mut env: HashMap<String, OsString> =
        env.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
    env.entry("HOME".to_owned()).or_insert_with(|| OsString::from("/home/me"));
    let names: Vec<String> = env.keys().cloned().collect();
    Layers::gather_from(Some(file.path()), given, names.into_iter(), |name| env.get(name).cloned())
}

#[track_caller]
fn check(text: &str, env: &[(&str, &str)], given: &[(Key, &str)]) -> Settings {
    Settings::check(&gather(text, env, &flags(given)).unwrap()).unwrap()
}

#[track_caller]
fn rejects(text: &str, expected: &str) {
    let error = match file::parse("tandem.toml", text) {
        Err(error) => error,
        Ok(given) => {
            // As `gather` does, under a name that the test knows.
            let mut layers = gather("", &[], &flags(&[])).unwrap();
            layers.extend_for_test(given);
            Settings::check(&layers).unwrap_err()
        }
    };
    let told = error.to_string();
    assert!(told.starts_with(expected), "{told}");
    assert!(!told.contains('\n'), "{told}");
}

#[test]
fn a_mistake_in_a_file_is_told_with_its_line() {
    rejects(
        "# a comment\n\nlistn_ws = \"127.0.0.1:1\"\n",
        "tandem.toml:3: unknown key `listn_ws`, did you mean `listen_ws`?",
    );
    rejects("colour = 1", "tandem.toml:1: unknown key `colour`: `tandem config` lists every key");
    rejects("[listen_ws]\na = 1", "tandem.toml:1: `listen_ws` must be a string");
    rejects("mode = \"ws\"\nmode = \"p2p\"", "tandem.toml:2: ");
    rejects("mode = ", "tandem.toml:1: ");
    rejects("mode = 7", "tandem.toml:1: `mode` must be a string");
    rejects("\npeers = \"h:1\"", "tandem.toml:2: `peers` must be an array of strings");
    rejects("peers = [1]", "tandem.toml:1: `peers` must be an array of strings");
    rejects("relay = 1", "tandem.toml:1: `relay` must be true or false");
    rejects("max_inbound = \"9\"", "tandem.toml:1: `max_inbound` must be a whole number");
    rejects("max_inbound = 0x10", "tandem.toml:1: `max_inbound` must be a whole number");
}

#[test]
fn a_value_that_cannot_be_used_is_told_with_what_can() {
    for (text, expected) in [
        ("profile = \"eth\"", "`profile`: \"eth\" is no profile: write tandem or algorand"),
        // Issue 8, 21: such a node would join nobody.
        (
            "profile = \"algorand\"",
            "`profile`: algorand needs the name of a network: set `network`",
        ),
        ("network = \"a b\"", "`network`: network name \"a b\" is not 1 to 64"),
        ("mode = \"both\"", "`mode`: \"both\" is no mode: write hybrid, ws or p2p"),
        ("listen_ws = \"4160\"", "`listen_ws`: \"4160\" is not HOST:PORT"),
        ("listen_ws = \"http://h:1\"", "`listen_ws`: \"http://h:1\" is not HOST:PORT"),
        ("listen_ws = \"h:99999\"", "`listen_ws`: \"h:99999\" is not HOST:PORT"),
        ("listen_p2p = [\"h:1\"]", "`listen_p2p`: \"h:1\" is no multiaddr"),
        // Issue 11, 1.
        (
            "listen_p2p = [\"/ip6/::/tcp/4190\", \"/dns4/h.example/tcp/1\"]",
            "`listen_p2p`: \"/dns4/h.example/tcp/1\" is no multiaddr that this build listens on: write",
        ),
        ("announce = [\"/ip4/1.2.3.4/tcp/0\"]", "`announce`: \"/ip4/1.2.3.4/tcp/0\" cannot be"),
        ("peers = [\"host\"]", "`peers`: \"host\" is no address: write host:port"),
        (
            "peers = [\"/ip4/1.2.3.4/tcp/1\"]",
            "`peers`: /ip4/1.2.3.4/tcp/1 does not end with /p2p/ID",
        ),
        ("mode = \"p2p\"\npeers = [\"h:1\"]", "`peers`: \"h:1\" is no multiaddr, and `mode` p2p"),
        ("mode = \"ws\"\npeers = [\"/ip4/1.1.1.1/tcp/1/p2p/x\"]", "`peers`: \"/ip4"),
        ("bootstrap = [\"a b.example\"]", "`bootstrap`: \"a b.example\" is no DNS name"),
        (
            "bootstrap = [\"mainnet\"]",
            "`bootstrap`: \"mainnet\" is no public network of this profile",
        ),
        ("bootstrap = [\"\"]", "`bootstrap`: no name is given"),
        ("dns_servers = [\"dns.example\"]", "`dns_servers`: \"dns.example\" is no DNS server"),
        ("dnssec = \"maybe\"", "`dnssec`: \"maybe\" is neither on nor off"),
        ("public_address = \"/dns/x\"", "`public_address`: \"/dns/x\" is a multiaddr: write host"),
        ("data_dir = \"\"", "`data_dir`: the path is empty"),
        ("relay = \"maybe\"", "`relay`: \"maybe\" is neither on nor off"),
        ("vote_packing = \"8\"", "`vote_packing`: \"8\" is neither off nor stateless"),
        (
            "interest = [\"A\"]",
            "`interest`: \"A\" is no tag: write tags, or usual or listeners alone",
        ),
        (
            "interest = [\"zz\"]",
            "`interest`: zz is not a tag of this network: use some of AV, PP, SP, TX, VB",
        ),
        (
            "interest = [\"UE\"]",
            "`interest`: UE belongs to the protocol, which always needs it: use some of AV",
        ),
        ("interest = [\"AV\"]", "`interest`: a relay asks for everything: set `relay` to off"),
        (
            "interest = [\"usual\", \"AV\"]",
            "`interest`: \"usual\" is no tag: write tags, or usual or listeners alone",
        ),
        ("learnt_hosts = \"private\"", "`learnt_hosts`: \"private\" is neither any nor public"),
        ("max_inbound = 0", "`max_inbound`: \"0\" is not a whole number from 1"),
        ("max_inbound_per_ip = -1", "`max_inbound_per_ip`: \"-1\" is not a whole number from 1"),
        // Issue 13, 8.
        (
            "page_origins = [\"app.example\"]",
            "`page_origins`: \"app.example\" is no origin of pages",
        ),
        (
            "page_origins = [\"null\"]",
            "`page_origins`: \"null\" is no origin of pages: write a scheme",
        ),
        (
            "profile = \"algorand\"\nnetwork = \"n\"\npage_origins = [\"*\"]",
            "`page_origins`: pages have no way into a network of this profile",
        ),
        ("budget_mib = 1", "`budget_mib`: 1 is not between 32 and 1048576"),
        ("log = \"a=b=c\"", "`log`: \"a=b=c\" is no log filter"),
    ] {
        let line = text.matches('\n').count() + 1;
        rejects(text, &format!("tandem.toml:{line}: {expected}"));
    }
}

#[test]
fn a_value_from_elsewhere_is_refused_under_the_name_of_where_it_came_from() {
    let told = |env: &[(&str, &str)], given: &[(Key, &str)]| {
        let layers = gather("", env, &flags(given)).unwrap();
        Settings::check(&layers).unwrap_err().to_string()
    };
    assert!(told(&[("TANDEM_MODE", "x")], &[]).starts_with("TANDEM_MODE: \"x\" is no mode"));
    assert!(told(&[], &[(Key::Peers, "x")]).starts_with("--peer: \"x\" is no address"));
    assert!(told(&[("HOME", "")], &[]).contains("use --data-dir DIR"));
}

// Issue 8, 8.
#[test]
fn a_variable_that_is_nearly_a_setting_is_refused_and_others_are_told() {
    for (variable, meant) in [
        ("TANDEM_PEER", "TANDEM_PEERS"),
        ("TANDEM_LISTNE_WS", "TANDEM_LISTEN_WS"),
        ("TANDEM_CONFG", "TANDEM_CONFIG"),
    ] {
        let error = gather("", &[(variable, "x")], &flags(&[])).unwrap_err().to_string();
        let expected = format!("{variable}: there is no such setting, did you mean {meant}?");
        assert_eq!(error, expected);
    }
    // As Kubernetes makes them of a service that is called so.
    let others = [("TANDEM_PORT_4160_TCP_ADDR", "10.0.0.1"), ("TANDEM_SERVICE_HOST", "10.0.0.1")];
    let layers = gather("", &others, &flags(&[])).unwrap();
    assert_eq!(layers.unknown(), ["TANDEM_PORT_4160_TCP_ADDR", "TANDEM_SERVICE_HOST"]);
    assert!(layers.to_string().contains("# TANDEM_SERVICE_HOST is set in the environment"));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = "network = \"file\"\nmode = \"ws\"\nrelay = false\nmax_inbound = 5\n";
    let env = [("TANDEM_NETWORK", "env"), ("TANDEM_MODE", "p2p"), ("TANDEM_PEERS", "")];
    let settings = check(file, &env, &[(Key::Network, "flag")]);
    assert_eq!(settings.network.as_str(), "flag");
    assert_eq!(settings.mode, Mode::Libp2p);
    assert_eq!(settings.relaying, Relaying::Off);
    assert_eq!(settings.max_inbound, 5);
    assert_eq!(settings.profile.name, "tandem");
    assert!(settings.peers.is_empty());
}

#[test]
fn every_origin_is_known() {
    let layers =
        gather("\nmode = \"ws\"", &[("TANDEM_NETWORK", "env")], &flags(&[(Key::Relay, "off")]))
            .unwrap();
    let origin = |key: Key| layers.get(key).unwrap().origin.clone();
    assert!(matches!(origin(Key::Mode), Origin::File { line: 2, .. }));
    assert_eq!(origin(Key::Network), Origin::Env("TANDEM_NETWORK".to_owned()));
    assert_eq!(origin(Key::Relay), Origin::Flag("relay"));
    assert_eq!(origin(Key::Log), Origin::Default);
}

#[test]
fn a_list_comes_from_a_variable_between_commas() {
    let env = [("TANDEM_PEERS", "a.example:1, b.example:2")];
    let expected: Vec<NodeAddress> =
        ["a.example:1", "b.example:2"].iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(check("", &env, &[]).peers, expected);
}

#[test]
fn the_data_directory_is_where_the_system_keeps_the_data_of_programs() {
    let dir = |env: &[(&str, &str)]| check("", env, &[]).data_dir.display().to_string();
    assert_eq!(dir(&[]), "/home/me/.local/share/tandem");
    assert_eq!(dir(&[("XDG_DATA_HOME", "/data")]), "/data/tandem");
    assert_eq!(dir(&[("TANDEM_DATA_DIR", "here")]), "here");
}

// Issue 10, 2: nothing outside is asked unless an operator says so.
#[test]
fn a_bootstrap_has_no_default_and_a_public_one_is_asked_for_by_its_name() {
    let none = check("profile = \"algorand\"\nnetwork = \"mainnet-v1.0\"\n", &[], &[]);
    assert!(none.bootstrap.is_empty() && none.joins_nobody());
    let flags = [(Key::Bootstrap, "mainnet")];
    let asked = check("profile = \"algorand\"\nnetwork = \"mainnet-v1.0\"\n", &[], &flags);
    let names: Vec<String> = asked.bootstrap.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["mainnet.algorand.network"]);
    assert!(!asked.joins_nobody());
    let file = "bootstrap = [\"a.example;b.example\", \"/dnsaddr/c.example\"]\ndns_servers = [\"system\", \"192.0.2.1\"]";
    let settings = check(file, &[("TANDEM_DNSSEC", "on")], &[]);
    let names: Vec<String> = settings.bootstrap.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a.example", "b.example", "/dnsaddr/c.example"]);
    let servers: Vec<String> = settings.dns_servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["system", "192.0.2.1:53"]);
    assert_eq!(settings.dnssec, tandem::Dnssec::Required);
}

#[test]
fn a_printed_configuration_gives_the_same_values() {
    let file = "network = \"a\\\"b\"\npeers = [\"h:1\", \"h:2\"]\nrelay = false\n";
    let layers = gather(file, &[], &flags(&[(Key::BudgetMib, "64")])).unwrap();
    let printed = layers.to_string();
    let again = file::parse("printed", &printed).unwrap();
    for (key, given) in again {
        let before = layers.get(key).map(|given| given.value.clone());
        assert_eq!(before.unwrap_or(Value::Many(Vec::new())), given.value, "{key:?}");
    }
    assert!(printed.contains("budget_mib = 64 # flag --budget-mib"), "{printed}");
    assert!(printed.contains("mode = \"hybrid\" # default"), "{printed}");
    assert!(printed.contains("# key_file is not set"), "{printed}");
}

#[test]
fn an_unreadable_file_is_named() {
    let missing = std::path::Path::new("/nonexistent/tandem.toml");
    let error =
        Layers::gather_from(Some(missing), &flags(&[]), std::iter::empty(), |_| None).unwrap_err();
    let told = error.to_string();
    assert_eq!(told, "cannot read the configuration file /nonexistent/tandem.toml");
}

/// Something that may stand behind a key.
fn any_value() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "\\PC{0,40}",
        select(vec![
            "",
            "on",
            "off",
            "0",
            "127.0.0.1:1",
            "[::1]:1",
            "/ip4/1.2.3.4/tcp/1",
            "ws",
            "~",
            "~/x"
        ])
        .prop_map(str::to_owned),
    ];
    let quoted = text.prop_map(|text| format!("{text:?}")).boxed();
    prop_oneof![
        quoted.clone(),
        vec(quoted, 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
        any::<i128>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        any::<bool>().prop_map(|on| on.to_string()),
        ".{0,30}",
    ]
}

/// Lines with known and unknown keys, and others.
fn any_file() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        9 => select(Key::ALL.to_vec()).prop_map(|key| key.spec().name.to_owned()),
        1 => "[a-z_]{0,12}",
    ];
    let line = prop_oneof![
        9 => (key, any_value()).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => ".{0,60}",
    ];
    vec(line, 0..6).prop_map(|lines| lines.join("\n"))
}

proptest! {
    // Issue 10, 13: the configuration is private to the program, so that no engine reaches it from outside.
    #[test]
    fn any_text_of_a_file_is_a_configuration_or_refused_in_one_line(text in any_file()) {
        let checked = file::parse("tandem.toml", &text).and_then(|given| {
            let mut layers = gather("", &[], &flags(&[])).unwrap();
            layers.extend_for_test(given);
            Settings::check(&layers)
        });
        if let Err(error) = checked {
            let told = error.to_string();
            prop_assert!(!told.chars().any(char::is_control), "{told:?}");
            prop_assert!(told.chars().count() < 1_000, "{told:?}");
        }
    }
}
