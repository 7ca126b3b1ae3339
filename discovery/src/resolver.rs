//! Asks DNS servers, one after the other.
//!
//! # Invariants
//!
//! * Only records that answer the question count: those of its name, and of names that CNAME records lead to from it.
//! * With DNSSEC only records count that are proved from the anchors down; a name without signatures has none.
//! * Nothing is asked before [`Servers::open`], and what was opened ends with it: sockets and tasks.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        dnssec::TrustAnchors,
        rr::{Name, RData, Record, RecordType},
    },
};
use tokio::time::{Instant, timeout_at};

use crate::limits::DnsLimits;

/// The port of DNS servers. Source: RFC 1035, section 4.2.
const DNS_PORT: u16 = 53;

/// CNAME records that are followed. Chosen: as resolvers usually do.
const MAX_ALIASES: usize = 8;

/// Tries of one question at one server. Chosen: a lost datagram is asked for once more.
const TRIES: usize = 2;

/// A server to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Server {
    /// Those that the system asks (`/etc/resolv.conf`), as they are when a look begins.
    #[default]
    System,
    /// The one at this address, over UDP and TCP.
    At(SocketAddr),
}

/// A text that names no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no DNS server: write system, or an IP address with or without a port")]
pub struct ServerError {
    /// The text as given, cut to a bounded length.
    pub text: String,
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "system" {
            return Ok(Self::System);
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let at = text.parse().ok().or_else(|| {
            let ip: IpAddr = bare.parse().ok()?;
            Some(SocketAddr::new(ip, DNS_PORT))
        });
        let at = at.filter(|at| at.port() != 0);
        at.map(Self::At).ok_or_else(|| ServerError { text: text.chars().take(80).collect() })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::At(address) => fmt::Display::fmt(address, f),
        }
    }
}

/// The proof that is asked of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Dnssec {
    /// None.
    #[default]
    Off,
    /// Signatures from the root of DNS down.
    Required,
    /// Signatures from the keys in this file down: DNSKEY records of the root or of other names.
    From(PathBuf),
}

/// The servers to ask, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    pub(crate) servers: Vec<Server>,
    pub(crate) dnssec: Dnssec,
}

/// The reason why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The name does not exist, or has no such records.
    #[error("there is no record")]
    NoRecord,
    /// No answer came in time.
    #[error("no answer came in time")]
    TimedOut,
    /// The answer is not signed as it has to be.
    #[error("the answer is not proved by DNSSEC")]
    Unproved,
    /// The server cannot be asked, or answers with an error.
    #[error("{reason}")]
    Failed {
        /// One line, of a bounded length.
        reason: String,
    },
}

/// Records that answer a question.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) records: Vec<RData>,
    /// Time for which they are good.
    pub(crate) ttl: Duration,
    /// Records beyond the bound, which are not looked at.
    pub(crate) cut: usize,
}

/// Open servers, for one look.
pub(crate) struct Open {
    chain: Vec<TokioResolver>,
    pub(crate) limits: DnsLimits,
    is_proof_needed: bool,
}

impl Servers {
    /// Reads the system's configuration, if it is asked for, and the keys. A server that cannot be set up is left
    /// out, and told. Blocks for two small files.
    pub(crate) fn open(&self, limits: DnsLimits) -> (Open, Vec<AskError>) {
        let (mut chain, mut problems) = (Vec::new(), Vec::new());
        let is_proof_needed = self.dnssec != Dnssec::Off;
        match self.anchors() {
            Ok(anchors) => {
                for server in &self.servers {
                    match resolver(*server, anchors.clone(), limits) {
                        Ok(resolver) => chain.push(resolver),
                        Err(error) => problems.push(failed(&error)),
                    }
                }
            }
            Err(reason) => problems.push(AskError::Failed { reason }),
        }
        (Open { chain, limits, is_proof_needed }, problems)
    }

    fn anchors(&self) -> Result<Option<Arc<TrustAnchors>>, String> {
        match &self.dnssec {
            Dnssec::Off => Ok(None),
            Dnssec::Required => Ok(Some(Arc::new(TrustAnchors::default()))),
            Dnssec::From(path) => match TrustAnchors::from_file(path) {
                Ok(anchors) => Ok(Some(Arc::new(anchors))),
                Err(error) => Err(one_line(&format!("{}: {error}", path.display()))),
            },
        }
    }
}

fn resolver(
    server: Server,
    anchors: Option<Arc<TrustAnchors>>,
    limits: DnsLimits,
) -> Result<TokioResolver, NetError> {
    let mut builder = match server {
        Server::System => TokioResolver::builder_tokio()?,
        Server::At(address) => {
            let mut config = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut config.connections {
                connection.port = address.port();
            }
            let config = ResolverConfig::from_name_servers(vec![config]);
            let provider = TokioRuntimeProvider::default();
            TokioResolver::builder_with_config(config, provider)
        }
    };
    set(builder.options_mut(), limits);
    if let Some(anchors) = anchors {
        builder = builder.with_trust_anchor(anchors);
    }
    builder.build()
}

fn set(options: &mut ResolverOpts, limits: DnsLimits) {
    options.timeout = limits.question_timeout / u32::try_from(TRIES).unwrap_or(1);
    options.attempts = TRIES - 1;
    options.try_tcp_on_error = true;
    // A name that is asked for ends with a dot, and names of hosts are looked up elsewhere.
    options.use_hosts_file = ResolveHosts::Never;
}

impl Open {
    /// No server.
    pub(crate) const fn none(limits: DnsLimits) -> Self {
        Self { chain: Vec::new(), limits, is_proof_needed: false }
    }

    /// Asks one server after the other until one has records.
    pub(crate) async fn ask(
        &self,
        name: &str,
        kind: RecordType,
        deadline: Instant,
    ) -> Result<Answer, AskError> {
        let asked = Name::from_ascii(name).map_err(|error| failed(&error.into()))?;
        let deadline = deadline.min(Instant::now() + self.limits.question_timeout);
        let mut told = AskError::Failed { reason: "there is no server to ask".to_owned() };
        for (left, resolver) in (1..=self.chain.len()).rev().zip(&self.chain) {
            // Each server has an equal part of the time that is left.
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / u32::try_from(left).unwrap_or(1);
            told = match timeout_at(now + share, self.ask_one(resolver, &asked, kind)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_elapsed) => AskError::TimedOut,
            };
        }
        Err(told)
    }

    /// Asks one server, and follows aliases: the library follows none that lead to SRV records.
    async fn ask_one(
        &self,
        resolver: &TokioResolver,
        asked: &Name,
        kind: RecordType,
    ) -> Result<Answer, AskError> {
        let (mut name, mut longest) = (asked.clone(), Duration::MAX);
        for _ in 0..=MAX_ALIASES {
            match self.look_up(resolver, &name, kind).await {
                Ok(answer) => return Ok(Answer { ttl: answer.ttl.min(longest), ..answer }),
                Err(AskError::NoRecord) => {}
                Err(error) => return Err(error),
            }
            let alias = self.look_up(resolver, &name, RecordType::CNAME).await?;
            let target = alias.records.into_iter().find_map(|record| match record {
                RData::CNAME(target) => Some(target.0),
                _ => None,
            });
            longest = longest.min(alias.ttl);
            name = target.ok_or(AskError::NoRecord)?;
        }
        Err(AskError::NoRecord)
    }

    async fn look_up(
        &self,
        resolver: &TokioResolver,
        name: &Name,
        kind: RecordType,
    ) -> Result<Answer, AskError> {
        match resolver.lookup(name.clone(), kind).await {
            Ok(found) => self.answer(name, kind, found.answers()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// The records that answer the question.
    fn answer(&self, asked: &Name, kind: RecordType, all: &[Record]) -> Result<Answer, AskError> {
        let (all, rest) = all.split_at(all.len().min(self.limits.records.get()));
        let mut names = vec![asked.clone()];
        while let Some(next) = alias(all, names.last()) {
            if names.len() > MAX_ALIASES || names.contains(next) {
                break;
            }
            names.push(next.clone());
        }
        let (mut records, mut ttl, mut unproved) = (Vec::new(), u32::MAX, 0_usize);
        for record in all.iter().filter(|record| names.contains(&record.name)) {
            let is_asked_for = record.record_type() == kind;
            if !is_asked_for && record.record_type() != RecordType::CNAME {
                continue;
            }
            if self.is_proof_needed && !record.proof.is_secure() {
                unproved += 1;
                continue;
            }
            ttl = ttl.min(record.ttl);
            if is_asked_for {
                records.push(record.data.clone());
            }
        }
        match (records.is_empty(), unproved) {
            (_, 1..) => Err(AskError::Unproved),
            (true, 0) => Err(AskError::NoRecord),
            (false, 0) => {
                let ttl = Duration::from_secs(ttl.into());
                Ok(Answer { records, ttl, cut: rest.len() })
            }
        }
    }
}

/// The name that another one stands for.
fn alias<'a>(records: &'a [Record], name: Option<&Name>) -> Option<&'a Name> {
    let name = name?;
    records.iter().filter(|record| record.name == *name).find_map(|record| match &record.data {
        RData::CNAME(target) => Some(&target.0),
        _ => None,
    })
}

fn failed(error: &NetError) -> AskError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(_)) => AskError::NoRecord,
        NetError::Dns(DnsError::Nsec { proof, .. }) if proof.is_secure() => AskError::NoRecord,
        NetError::Dns(DnsError::Nsec { .. } | DnsError::DnssecBogus) => AskError::Unproved,
        NetError::Timeout => AskError::TimedOut,
        error => AskError::Failed { reason: one_line(&error.to_string()) },
    }
}

/// One line of a text that a stranger may have had a hand in.
fn one_line(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_default).collect()
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("servers", &self.chain.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_the_system_or_an_address() {
        for (text, shown) in [
            ("system", "system"),
            ("9.9.9.9", "9.9.9.9:53"),
            ("127.0.0.1:5353", "127.0.0.1:5353"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[::1]:54", "[::1]:54"),
        ] {
            let server: Server = text.parse().unwrap();
            assert_eq!(server.to_string(), shown);
            assert_eq!(shown.parse(), Ok(server));
        }
        for text in ["", "System", "dns.example", "1.2.3.4:0", "1.2.3.4:99999", "[1.2.3.4", "::1:x"]
        {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
