//! Nodes behind routers that translate addresses, in network namespaces of the test's own: they find relays by the DHT, are
//! reached through one, and meet directly where the routers let them.

#[cfg(test)]
use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Process, eventually, finish, scratch, tandem};

/// Makes a public network with the addresses .1 to .4 of `$PUBLIC`, and two hosts, `a` and `b`, each behind a router that
/// translates addresses and drops what comes unasked, and maps ports if `$MAPPER` says by which protocol. Then it starts and
/// ends nodes, and counts mapped ports, as it is told.
const SETUP: &str = r#"
fail() { echo "skipped: $1"; exit 0; }
command -v iptables >/dev/null || fail 'there is no iptables'
{ mount -t tmpfs none /run && mkdir -p /run/netns; } 2>/dev/null || fail 'nothing can be mounted'
maps() {
    command -v nft >/dev/null && miniupnpd --version | grep -q nftables || fail 'there is no miniupnpd with nftables'
    ip netns exec $1 nft -f - <<'END' || fail 'nftables translates no addresses here'
table inet filter {
    chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -100; policy accept; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority 100; policy accept; jump postrouting_miniupnpd; }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
END
    local natpmp=no upnp=no
    eval $MAPPER=yes
    printf '%s\n' ext_ifname=wan listening_ip=lan secure_mode=yes system_uptime=yes enable_natpmp=$natpmp \
        enable_upnp=$upnp uuid=5e69f045-525e-4cb5-8a9c-687354c7711a 'allow 1024-65535 10.0.0.0/24 1024-65535' \
        'deny 0-65535 0.0.0.0/0 0-65535' >"/run/$1.conf"
    ip netns exec $1 miniupnpd -d -f "/run/$1.conf" -P "/run/$1.pid" </dev/null >"$DIR/$1.mapper" 2>&1 &
    for try in $(seq 100); do
        grep -qE 'HTTP listening|Listening for NAT-PMP' "$DIR/$1.mapper" && return
        sleep 0.1
    done
    fail 'miniupnpd does not start'
}
for n in pub na nb a b; do
    ip netns add $n 2>/dev/null || fail 'this machine makes no network namespaces'
    ip -n $n link set lo up
done
set -e
ip -n pub link add name br0 type bridge
ip -n pub link set br0 up
for n in 1 2 3 4; do ip -n pub addr add $PUBLIC.$n/24 dev br0; done
at=11
for x in a b; do
    ip link add name wan type veth peer name pub$x
    ip link set wan netns n$x
    ip link set pub$x netns pub
    ip -n pub link set pub$x master br0 up
    ip -n n$x addr add $PUBLIC.$at/24 dev wan
    ip -n n$x link set wan up
    ip link add name lan type veth peer name eth
    ip link set lan netns n$x
    ip link set eth netns $x
    ip -n n$x addr add 10.0.0.1/24 dev lan
    ip -n n$x link set lan up
    ip -n $x addr add 10.0.0.2/24 dev eth
    ip -n $x link set eth up
    ip -n $x route add default via 10.0.0.1
    ip netns exec n$x sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
    ip netns exec n$x iptables -t nat -A POSTROUTING -o wan -j MASQUERADE $NAT || fail 'iptables translates no addresses here'
    ip netns exec n$x iptables -A INPUT -i wan -p tcp -j DROP
    [ -z "$MAPPER" ] || maps n$x
    at=$((at + 1))
done
echo made
declare -A pids
while read -r verb name ns arguments; do
    case $verb in
    run)
        ip netns exec "$ns" "$TANDEM" run --data-dir "$DIR/$name" --mode p2p $arguments </dev/null >"$DIR/$name.out" 2>&1 &
        pids[$name]=$!
        ;;
    kill) kill -9 "${pids[$name]}" ;;
    stop) kill -TERM "${pids[$name]}" ;;
    count) ip netns exec "$name" nft list chain inet filter prerouting_miniupnpd | grep -c dnat ;;
    esac
done
"#;

/// The ports that a router gives to connections.
#[derive(Clone, Copy)]
enum Nat {
    /// The same as inside, for every peer.
    KeepsPorts,
    /// Another one for each peer.
    Symmetric,
    /// The same as inside, and a port is mapped if it is asked for by this protocol.
    Maps(&'static str),
}

/// The public network of most tests.
const DOCUMENTATION: &str = "198.51.100";

/// The public network where routers map ports: they do so only if they have an address of the internet.
const INTERNET: &str = "9.9.9";

/// The network.
struct Net {
    shell: Process,
    dir: TempDir,
}

impl Net {
    /// `None` where there can be none.
    fn new(nat: Nat) -> Option<Self> {
        let dir = scratch();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork"]);
        command.args(["--kill-child", "--", "bash", "-c", SETUP]).stdin(Stdio::piped());
        command.env("TANDEM", env!("CARGO_BIN_EXE_tandem")).env("DIR", dir.path());
        command.env("NAT", if matches!(nat, Nat::Symmetric) { "--random-fully" } else { "" });
        let (public, mapper) = match nat {
            Nat::KeepsPorts | Nat::Symmetric => (DOCUMENTATION, ""),
            Nat::Maps(protocol) => (INTERNET, protocol),
        };
        command.env("PUBLIC", public).env("MAPPER", mapper);
        let tried = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "true"])
            .stderr(Stdio::null())
            .status();
        if !tried.is_ok_and(|status| status.success()) {
            eprintln!("skipped: this machine makes no network namespaces");
            return None;
        }
        let shell = Process::spawn(&mut command);
        match shell.line() {
            line if line == "made" => Some(Self { shell, dir }),
            why => {
                eprintln!("{why}");
                None
            }
        }
    }

    fn tell(&mut self, line: &str) {
        let stdin = self.shell.child.stdin.as_mut().expect("it is a pipe");
        writeln!(stdin, "{line}").expect("the shell reads");
    }

    /// Starts a node in a namespace, and returns its addresses.
    fn run(&mut self, name: &str, namespace: &str, arguments: &str) -> Vec<String> {
        self.tell(&format!("run {name} {namespace} {arguments}"));
        eventually("the node runs", || Some(self.addresses(name)).filter(|all| !all.is_empty()))
    }

    fn ask(&self, name: &str, what: &[&str]) -> Option<Value> {
        let mut command = tandem();
        command.args(what).arg("--json").arg("--data-dir").arg(self.dir.path().join(name));
        let ended = finish(&mut command);
        (ended.code == Some(0)).then(|| serde_json::from_str(&ended.stdout).expect("it is JSON"))
    }

    /// The words of `tandem doctor` about a node.
    fn doctor(&self, name: &str) -> String {
        let mut command = tandem();
        let arguments = ["doctor", "--mode", "p2p", "--reachability", "port-mapping"];
        command.args(arguments).arg("--data-dir").arg(self.dir.path().join(name));
        finish(&mut command).stdout
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        let state = self.ask(name, &["status"]).unwrap_or_default();
        let listed = state["p2p"].as_array().cloned().unwrap_or_default();
        listed.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// The addresses of a node that lead through relays.
    fn circuits(&self, name: &str) -> Vec<String> {
        let mut all = self.addresses(name);
        all.retain(|address| address.contains("/p2p-circuit/"));
        all
    }

    /// The relays, by their number, at which a node has a place.
    fn relays(&self, name: &str) -> Vec<usize> {
        let relay = |number: &usize| {
            let host = format!("/ip4/198.51.100.{}/", number + 1);
            self.circuits(name).iter().any(|address| address.starts_with(&host))
        };
        (1..=3).filter(relay).collect()
    }

    /// The number of ports that a router has mapped.
    fn mapped(&mut self, router: &str) -> usize {
        self.tell(&format!("count {router}"));
        self.shell.line().parse().expect("it is a number")
    }

    /// The way of a link to a peer.
    fn way(&self, name: &str, peer: &str) -> Option<String> {
        let peers = self.ask(name, &["peers"])?;
        let of_peer = |known: &&Value| known["peer_id"] == *peer;
        let found = peers.as_array()?.iter().find(of_peer)?.clone();
        found["path"].as_str().map(str::to_owned)
    }
}

const BEHIND: &str = "--listen-p2p /ip4/0.0.0.0/tcp/4190 --dht client --reachability auto-relay --reachability hole-punching";

/// Two nodes that know nobody but a bootstrap node find relays, and the second one dials the first through one.
fn meet(nat: Nat) -> Option<(Net, String)> {
    let mut net = Net::new(nat)?;
    let boot =
        net.run("boot", "pub", "--listen-p2p /ip4/198.51.100.1/tcp/4001 --dht server")[0].clone();
    for relay in 1..=3 {
        let arguments = format!(
            "--listen-p2p /ip4/198.51.100.{}/tcp/4001 --dht server --reachability relay --peer {boot}",
            relay + 1
        );
        net.run(&format!("r{relay}"), "pub", &arguments);
    }
    net.run("a", "a", &format!("{BEHIND} --peer {boot}"));
    eventually("there are two places", || (net.relays("a").len() == 2).then_some(()));
    let circuit = net.circuits("a")[0].clone();
    let peer = circuit.rsplit('/').next().expect("an address ends with an ID").to_owned();
    net.run("b", "b", &format!("{BEHIND} --peer {boot} --peer {circuit}"));
    Some((net, peer))
}

// Issue 11, 6.
#[test]
fn two_nodes_behind_routers_meet_through_a_relay_and_another_relay_takes_over_within_10_s() {
    let Some((mut net, a)) = meet(Nat::KeepsPorts) else { return };
    eventually("the link is direct", || {
        (net.way("b", &a).as_deref() == Some("direct")).then_some(())
    });
    let dead = net.relays("a")[0];
    net.tell(&format!("kill r{dead}"));
    let began = Instant::now();
    eventually("another relay took over", || {
        let relays = net.relays("a");
        (relays.len() == 2 && !relays.contains(&dead)).then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(net.way("b", &a).as_deref(), Some("direct"), "which needs no relay");
}

// Issue 11, 6.
#[test]
fn two_nodes_behind_symmetric_routers_stay_relayed() {
    let Some((net, a)) = meet(Nat::Symmetric) else { return };
    eventually("there is a link", || net.way("b", &a));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(net.way("b", &a).as_deref(), Some("relayed"));
}

/// A node behind a router asks it for its port by one protocol; another one outside finds it in the DHT, and dials it there.
#[track_caller]
fn is_dialled_at_a_mapped_port(protocol: &'static str) {
    let Some(mut net) = Net::new(Nat::Maps(protocol)) else { return };
    let boot =
        format!("--listen-p2p /ip4/{INTERNET}.1/tcp/4001 --dht server --reachability autonat");
    let boot = net.run("boot", "pub", &boot)[0].clone();
    let inside = "--listen-p2p /ip4/0.0.0.0/tcp/4190 --dht server --reachability port-mapping";
    let inside = net.run("a", "a", &format!("{inside} --peer {boot}"));
    let peer = inside[0].rsplit('/').next().expect("an address ends with an ID").to_owned();
    let there = format!("/ip4/{INTERNET}.11/tcp/4190/p2p/{peer}");
    // It is told once the first node has dialled it there.
    eventually("the DHT names the mapped port", || {
        let found = net.ask("boot", &["dht", "find", "gossip"])?;
        found.to_string().contains(&there).then_some(())
    });
    let outside = format!("--listen-p2p /ip4/{INTERNET}.2/tcp/4001 --dht client --peer {boot}");
    net.run("out", "pub", &outside);
    eventually("the node outside has dialled the mapped port", || {
        let peers = net.ask("out", &["peers"])?;
        let is_it = |known: &Value| known["peer_id"] == *peer && known["address"] == *there;
        peers.as_array()?.iter().any(is_it).then_some(())
    });
    assert_eq!(net.way("out", &peer).as_deref(), Some("direct"));
    assert_eq!(net.mapped("na"), 1);
    let state = net.ask("a", &["status"]).expect("the node runs");
    let port = &state["mapped_ports"][0];
    assert_eq!(port["transport"], "tcp", "{state}");
    assert_eq!(port["outside"], format!("{INTERNET}.11:4190"));
    assert_eq!(port["inside"], "10.0.0.2:4190");
    assert_eq!(port["gateway"], "10.0.0.1");
    assert_eq!(port["protocol"], if protocol == "upnp" { "upnp" } else { "nat-pmp" });
    let left = port["lifetime_ms"].as_u64().expect("it is a number");
    assert!((1_000..=1_200_000).contains(&left), "{left}");
    let said = net.doctor("a");
    assert!(
        said.contains(&format!("{INTERNET}.11:4190 (tcp) leads to 10.0.0.2:4190, by ")),
        "{said}"
    );
    // The port is given back in time.
    net.tell("stop a");
    eventually("the router has the port back", || (net.mapped("na") == 0).then_some(()));
}

// Issue 11, 6.
#[test]
fn a_node_behind_a_router_is_dialled_at_a_port_that_it_got_by_nat_pmp() {
    is_dialled_at_a_mapped_port("natpmp");
}

// Issue 11, 6.
#[test]
fn a_node_behind_a_router_is_dialled_at_a_port_that_it_got_by_upnp() {
    is_dialled_at_a_mapped_port("upnp");
}
