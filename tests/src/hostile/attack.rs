//! Every attack by its name.

use gossip::Tag;

use super::{
    Tally, Target, bombs, control, crowd, deaf, endless,
    flood::{self, Stuff},
    line::Carrier::{Libp2p, WebSocket},
    sockets::{self, Opening},
    storm,
    topic::{self, Published},
};

/// A tag that no network has.
const UNKNOWN: Tag = Tag(*b"ZZ");

/// The attack that an attacker repeats until it is disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// 600,000 votes a second of ten bytes, over a WebSocket.
    VotesWs,
    /// The same over libp2p.
    VotesP2p,
    /// 600,000 transactions a second of ten bytes, over a WebSocket.
    TransactionsWs,
    /// The same over a libp2p stream.
    TransactionsP2p,
    /// 100,000 transactions a second, published on their topic.
    TransactionsTopic,
    /// 100,000 messages a second on the topic that everybody rejects: their sender is graylisted, and goes on.
    GraylistedTopic,
    /// 600,000 messages a second with a tag that no network has, over a WebSocket.
    UnknownWs,
    /// The same over libp2p.
    UnknownP2p,
    /// 100,000 block requests a second, over a WebSocket.
    RequestsWs,
    /// The same over libp2p.
    RequestsP2p,
    /// 260 frames a second of 200 bytes that become 5.25 MB each, over a WebSocket.
    BombsWs,
    /// The same over libp2p.
    BombsP2p,
    /// 100,000 pings of 125 bytes a second, over a WebSocket that is never read.
    Pings,
    /// A message in pieces of one byte, 100,000 a second, over a WebSocket.
    Pieces,
    /// 8 peers that ask for everything and read nothing, half of them over each transport.
    Deaf,
    /// 64 hosts that become peers, leave at once and come again, by turns over either transport.
    Storm,
    /// 150 handshakes of one address that go on by a byte each second, half of them on each port.
    Slow,
    /// 40 libp2p identities that announce 6 MiB each and send a byte every three seconds.
    Endless,
    /// 150 sockets of one address that say nothing, half of them on each port.
    Silent,
    /// 2,000 half handshakes of one address, half of them on each port.
    HalfOpen,
    /// 2,600 whole connections with free identities, from 325 addresses, half of them over each transport.
    Crowd,
}

impl Attack {
    /// Every one.
    pub const ALL: [Self; 21] = [
        Self::VotesWs,
        Self::VotesP2p,
        Self::TransactionsWs,
        Self::TransactionsP2p,
        Self::TransactionsTopic,
        Self::GraylistedTopic,
        Self::UnknownWs,
        Self::UnknownP2p,
        Self::RequestsWs,
        Self::RequestsP2p,
        Self::BombsWs,
        Self::BombsP2p,
        Self::Pings,
        Self::Pieces,
        Self::Deaf,
        Self::Storm,
        Self::Slow,
        Self::Endless,
        Self::Silent,
        Self::HalfOpen,
        Self::Crowd,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VotesWs => "votes-ws",
            Self::VotesP2p => "votes-p2p",
            Self::TransactionsWs => "transactions-ws",
            Self::TransactionsP2p => "transactions-p2p",
            Self::TransactionsTopic => "transactions-topic",
            Self::GraylistedTopic => "graylisted-topic",
            Self::UnknownWs => "unknown-ws",
            Self::UnknownP2p => "unknown-p2p",
            Self::RequestsWs => "requests-ws",
            Self::RequestsP2p => "requests-p2p",
            Self::BombsWs => "bombs-ws",
            Self::BombsP2p => "bombs-p2p",
            Self::Pings => "pings",
            Self::Pieces => "pieces",
            Self::Deaf => "deaf",
            Self::Storm => "storm",
            Self::Slow => "slow",
            Self::Endless => "endless",
            Self::Silent => "silent",
            Self::HalfOpen => "half-open",
            Self::Crowd => "crowd",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|attack| attack.name() == name)
    }

    /// Connections that it keeps open at one time.
    #[must_use]
    pub const fn connections(self) -> u16 {
        match self {
            Self::Endless => 40,
            Self::Silent | Self::Slow => 150,
            Self::Deaf => 8,
            Self::Storm => 64,
            Self::HalfOpen => 2_000,
            Self::Crowd => 2_600,
            _ => 1,
        }
    }

    /// Attacks for as long as it is polled, with at most so many connections.
    pub async fn run(self, target: &Target, most: u16, tally: &Tally) {
        let messages = |tag| Stuff::Messages(tag);
        let connections = self.connections().min(most);
        match self {
            Self::VotesWs => flood::run(messages(Tag::AV), target, WebSocket, tally).await,
            Self::VotesP2p => flood::run(messages(Tag::AV), target, Libp2p, tally).await,
            Self::TransactionsWs => flood::run(messages(Tag::TX), target, WebSocket, tally).await,
            Self::TransactionsP2p => flood::run(messages(Tag::TX), target, Libp2p, tally).await,
            Self::TransactionsTopic => topic::run(Published::InOrder, target, tally).await,
            Self::GraylistedTopic => topic::run(Published::Rejected, target, tally).await,
            Self::UnknownWs => flood::run(messages(UNKNOWN), target, WebSocket, tally).await,
            Self::UnknownP2p => flood::run(messages(UNKNOWN), target, Libp2p, tally).await,
            Self::RequestsWs => flood::run(Stuff::Requests, target, WebSocket, tally).await,
            Self::RequestsP2p => flood::run(Stuff::Requests, target, Libp2p, tally).await,
            Self::BombsWs => bombs::run(target, WebSocket, tally).await,
            Self::BombsP2p => bombs::run(target, Libp2p, tally).await,
            Self::Pings => control::pings(target, tally).await,
            Self::Pieces => control::pieces(target, tally).await,
            Self::Deaf => deaf::run(target, tally).await,
            Self::Storm => storm::run(target, tally).await,
            Self::Slow => sockets::run(connections, Opening::Slow, target, tally).await,
            Self::Endless => endless::run(target, tally).await,
            Self::Silent => sockets::run(connections, Opening::Nothing, target, tally).await,
            Self::HalfOpen => sockets::run(connections, Opening::Half, target, tally).await,
            Self::Crowd => crowd::run(connections, target, tally).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_is_found_by_its_name() {
        for attack in Attack::ALL {
            assert_eq!(Attack::named(attack.name()), Some(attack));
        }
    }
}
