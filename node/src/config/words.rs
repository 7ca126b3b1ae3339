//! The values of single settings, read from their text.
//!
//! # Invariants
//!
//! * A value that cannot be used is refused with a word on what would be right.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    os::unix::net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use gossip::{
    Identity, NetworkProfile, NodeAddress,
    wire::features::{MAX_TABLE, MIN_TABLE, VoteCompression},
};
use tandem::{
    Admit, DataDir, DhtMode, DnsServer, LearntHosts, Mode, OwnTopic, RealIpHeader, RelayLimits,
    Security, Signing,
};

use crate::{
    log::{self, LogFormat},
    spans,
};

/// Largest budget, in MiB. Chosen: a terabyte; more is a slip.
const MAX_BUDGET_MIB: usize = 1024 * 1024;

/// Smallest budget, in MiB. Chosen: a few messages of the largest size.
const MIN_BUDGET_MIB: usize = 32;

/// Longest time for which a node is drained before it stops by itself. Chosen: a day; more is a slip.
pub(crate) const MAX_DRAIN: Duration = Duration::from_secs(86_400);

/// A service that a node may offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    /// The state of the node.
    Status,
    /// The blocks it keeps.
    Blocks,
    /// The files it keeps.
    Files,
    /// A small key-value store.
    Kv,
    /// Requests for libp2p peers, passed on.
    Bridge,
    /// Measurements of throughput, over streams of libp2p.
    Perf,
}

pub(super) fn profile(text: &str) -> Result<&'static NetworkProfile, String> {
    NetworkProfile::named(text)
        .ok_or_else(|| format!("{text:?} is no profile: write tandem or algorand"))
}

/// Host and port, neither of them left out.
pub(super) fn host_port(text: &str) -> Result<String, String> {
    let bare = !text.contains('/') && text.rsplit_once(':').is_some();
    let address = bare.then(|| text.parse::<NodeAddress>().ok()).flatten();
    match address.and_then(|address| address.host_port()) {
        Some(address) if address == text => Ok(address),
        _ => Err(format!("{text:?} is not HOST:PORT: write for example 127.0.0.1:4160")),
    }
}

pub(super) fn collector(text: &str) -> Result<NodeAddress, String> {
    if !spans::IS_BUILT {
        return Err("this build exports no spans: build it with the feature otlp".to_owned());
    }
    let is_url = text.starts_with("http://") || text.starts_with("https://");
    let address = is_url.then(|| text.parse::<NodeAddress>().ok()).flatten();
    address.filter(|address| address.host_port().is_some()).ok_or_else(|| {
        format!("{text:?} is no URL of a collector: write for example http://127.0.0.1:4318")
    })
}

pub(super) fn listen_address(text: &str) -> Result<String, String> {
    let parsed = tandem::parse_listen_address(text);
    parsed.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

pub(super) fn announced_address(text: &str) -> Result<String, String> {
    let parsed = tandem::parse_announced_address(text);
    parsed.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// A limit of a relay, whose name is one of [`RelayLimits::NAMES`].
pub(super) fn relay_limit(text: &str) -> Result<(String, u32), String> {
    let names = || RelayLimits::NAMES.join(", ");
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is no limit: write NAME=NUMBER, with {}", names()))?;
    if !RelayLimits::NAMES.contains(&name) {
        return Err(format!("{name:?} is no limit of a relay: write {}", names()));
    }
    let value =
        value.parse().map_err(|_| format!("{value:?} is no number from 0 to {}", u32::MAX))?;
    Ok((name.to_owned(), value))
}

pub(super) fn security(text: &str) -> Result<Security, String> {
    Security::named(text).ok_or_else(|| {
        let names: Vec<_> = Security::ALL.iter().map(|security| security.name()).collect();
        format!("{text:?} is no security protocol of this program: write {}", names.join(" or "))
    })
}

/// A topic, with its rule of signatures behind an equals sign.
pub(super) fn topic(text: &str) -> Result<OwnTopic, String> {
    let (name, rule) = text.rsplit_once('=').unwrap_or((text, "strict"));
    let signing = match rule {
        "strict" => Signing::Strict,
        "author" => Signing::Author,
        "none" => Signing::None,
        _ => {
            return Err(format!(
                "{text:?} has no rule of signatures behind its =: write NAME, NAME=strict, NAME=author or NAME=none"
            ));
        }
    };
    Ok(OwnTopic::new(name).with_signing(signing))
}

pub(super) fn address(text: &str) -> Result<NodeAddress, String> {
    text.parse().map_err(|error: gossip::AddressError| error.to_string())
}

/// A peer that this mode can dial.
pub(super) fn peer(mode: Mode, text: &str) -> Result<NodeAddress, String> {
    let address = address(text)?;
    match (mode, &address) {
        (Mode::WebSocket, NodeAddress::Multiaddr(_)) => {
            Err(format!("{text:?} is a multiaddr, which `mode` ws cannot dial: use hybrid or p2p"))
        }
        (Mode::Libp2p, NodeAddress::WebSocket(_)) => Err(format!(
            "{text:?} is no multiaddr, and `mode` p2p dials no other: use hybrid or ws"
        )),
        _ => match mode.check_peer(&address) {
            Ok(()) => Ok(address),
            Err(error) => Err(error.to_string()),
        },
    }
}

pub(super) fn web_socket(text: &str) -> Result<NodeAddress, String> {
    match address(text)? {
        address @ NodeAddress::WebSocket(_) => Ok(address),
        NodeAddress::Multiaddr(_) => {
            Err(format!("{text:?} is a multiaddr: write host:port or a URL"))
        }
    }
}

/// A directory short enough for the address of the admin socket in it.
pub(super) fn data_dir(path: PathBuf) -> Result<PathBuf, String> {
    match SocketAddr::from_pathname(DataDir::admin_socket(&path)) {
        Ok(_) => Ok(path),
        Err(_) => Err(format!(
            "the path has {} bytes, too many for the admin socket in it: choose a shorter one",
            path.as_os_str().len()
        )),
    }
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        other => Err(format!("{other:?} is neither on nor off")),
    }
}

pub(super) fn admit(text: &str) -> Result<Admit, String> {
    match text {
        "everybody" => Ok(Admit::Everybody),
        "members" => Ok(Admit::MembersOnly),
        other => Err(format!("{other:?} is neither everybody nor members")),
    }
}

pub(super) fn learnt_hosts(text: &str) -> Result<LearntHosts, String> {
    match text {
        "any" => Ok(LearntHosts::Any),
        "public" => Ok(LearntHosts::Public),
        other => Err(format!("{other:?} is neither any nor public")),
    }
}

pub(super) fn dns_server(text: &str) -> Result<DnsServer, String> {
    text.parse().map_err(|error: tandem::DnsServerError| error.to_string())
}

pub(super) fn dht_mode(text: &str) -> Result<DhtMode, String> {
    match text {
        "off" => Ok(DhtMode::Off),
        "auto" => Ok(DhtMode::Auto),
        "client" => Ok(DhtMode::Client),
        "server" => Ok(DhtMode::Server),
        _ => Err(format!("{text:?} is none of off, auto, client and server")),
    }
}

pub(super) fn vote_packing(text: &str) -> Result<VoteCompression, String> {
    let table = MIN_TABLE.into()..=MAX_TABLE.into();
    match (text, text.parse()) {
        ("off", _) => Ok(VoteCompression::Off),
        ("stateless", _) => Ok(VoteCompression::Stateless),
        (_, Ok(entries)) if table.contains(&entries) => Ok(VoteCompression::Stateful(entries)),
        _ => Err(format!(
            "{text:?} is neither off nor stateless, nor a number of entries from {MIN_TABLE} to {MAX_TABLE}"
        )),
    }
}

pub(super) fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| format!("{text:?} is not a whole number from 1"))
}

pub(super) fn budget_bytes(text: &str) -> Result<usize, String> {
    let mib = count(text)?.get();
    if (MIN_BUDGET_MIB..=MAX_BUDGET_MIB).contains(&mib) {
        Ok(mib * 1024 * 1024)
    } else {
        Err(format!("{mib} is not between {MIN_BUDGET_MIB} and {MAX_BUDGET_MIB}"))
    }
}

pub(super) fn drain(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= MAX_DRAIN.as_secs());
    let no = || format!("{text:?} is no whole number of seconds from 0 to {}", MAX_DRAIN.as_secs());
    seconds.map(Duration::from_secs).ok_or_else(no)
}

pub(super) fn one_in(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no whole number"))
}

pub(super) fn service(text: &str) -> Result<Service, String> {
    match text {
        "status" => Ok(Service::Status),
        "blocks" => Ok(Service::Blocks),
        "files" => Ok(Service::Files),
        "kv" => Ok(Service::Kv),
        "bridge" => Ok(Service::Bridge),
        "perf" => Ok(Service::Perf),
        other => {
            Err(format!("{other:?} is no service: write status, blocks, files, kv, bridge or perf"))
        }
    }
}

/// A peer that may put files here; `None` for anyone.
pub(super) fn uploader(text: &str) -> Result<Option<Identity>, String> {
    match text {
        "anyone" => Ok(None),
        id => id.parse().map(Some).map_err(|_| format!("{id:?} is neither a peer ID nor anyone")),
    }
}

/// Requests a second; `None` for any number.
pub(super) fn rate(text: &str) -> Result<Option<NonZeroU32>, String> {
    let rate = text.parse().map(NonZeroU32::new);
    rate.map_err(|_| format!("{text:?} is not a whole number from 0"))
}

pub(super) fn real_ip_header(text: &str) -> Result<RealIpHeader, String> {
    match text.to_ascii_lowercase().as_str() {
        "x-forwarded-for" => Ok(RealIpHeader::XForwardedFor),
        "forwarded" => Ok(RealIpHeader::Forwarded),
        _ => Err(format!("{text:?} is no such header: write x-forwarded-for or forwarded")),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is no form of the log: write text or json")),
    }
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    log::parse_filter(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}
