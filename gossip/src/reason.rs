//! Why a connection ended.

use std::fmt;

/// Why a connection ended. A closed set, so that it can label a metric.
///
/// Local knowledge: no reason is ever sent to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The local node is stopping.
    LocalShutdown,
    /// The application, or an operator, asked for it.
    Requested,
    /// The peer closed the connection in an orderly way.
    RemoteClosed,
    /// The connection broke: reset, end of stream in the middle of a message, or an error of the system.
    Transport,
    /// The peer broke the rules of the transport: a bad frame, a text message, a message without a tag.
    Protocol,
    /// A message was longer than the bound of its tag, or than any message may be.
    Oversized,
    /// A message could not be decoded, or its handler called it malformed.
    BadData,
    /// An answer came to a request that was never made.
    UnexpectedResponse,
    /// The identity exchange failed.
    BadIdentity,
    /// Another link to the same peer was kept instead.
    Duplicate,
    /// A write outlived its deadline, or a queued message its age limit: the peer reads too slowly.
    Slow,
    /// The peer's messages waited too long for a handler.
    Stalled,
    /// Nothing was heard of the peer for too long.
    Silent,
    /// The peer sent more than its share for longer than any honest peer does: messages beyond the rate of their tag,
    /// control frames, unknown tags, or little that unpacks to much.
    Flood,
    /// The node was full, and its place was needed for a peer of a less crowded part of the network.
    Evicted,
    /// An operator banned the peer, or it misbehaved a short while ago.
    Banned,
    /// The node admits members only, and the peer is none, or none any more; or it got the place of a member and did not
    /// show in time that it is that member.
    NotMember,
    /// A better performing peer was preferred.
    LeastPerforming,
    /// There were more outgoing links than the node keeps: its dial was answered late, or tested an address.
    Surplus,
    /// No message went over the link for long, while others carried some.
    Idle,
    /// The peers around were suspected to be a clique.
    CliqueResolving,
    /// The application ended it for a reason of its own, which it says.
    Application(&'static str),
    /// This node made a mistake while it read from the connection or wrote to it: a bug, which ended the
    /// connection and nothing else.
    Internal,
}

impl DisconnectReason {
    /// Returns `true` if the peer did what no honest one does, so that it pays for it when it comes again.
    #[must_use]
    pub const fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::Flood | Self::BadData | Self::Oversized | Self::Protocol)
    }

    /// Every label that there is, in the order of the reasons.
    pub const LABELS: [&'static str; 23] = [
        Self::LocalShutdown.label(),
        Self::Requested.label(),
        Self::RemoteClosed.label(),
        Self::Transport.label(),
        Self::Protocol.label(),
        Self::Oversized.label(),
        Self::BadData.label(),
        Self::UnexpectedResponse.label(),
        Self::BadIdentity.label(),
        Self::Duplicate.label(),
        Self::Slow.label(),
        Self::Stalled.label(),
        Self::Silent.label(),
        Self::Flood.label(),
        Self::Evicted.label(),
        Self::Banned.label(),
        Self::NotMember.label(),
        Self::LeastPerforming.label(),
        Self::Surplus.label(),
        Self::Idle.label(),
        Self::CliqueResolving.label(),
        Self::Application("").label(),
        Self::Internal.label(),
    ];

    /// Label used in metrics, logs and output for programs. Part of the operator-facing interface.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::LocalShutdown => "local_shutdown",
            Self::Requested => "requested",
            Self::RemoteClosed => "remote_closed",
            Self::Transport => "transport",
            Self::Protocol => "protocol",
            Self::Oversized => "oversized",
            Self::BadData => "bad_data",
            Self::UnexpectedResponse => "unexpected_response",
            Self::BadIdentity => "bad_identity",
            Self::Duplicate => "duplicate",
            Self::Slow => "slow",
            Self::Stalled => "stalled",
            Self::Silent => "silent",
            Self::Flood => "flood",
            Self::Evicted => "evicted",
            Self::Banned => "banned",
            Self::NotMember => "not_member",
            Self::LeastPerforming => "least_performing",
            Self::Surplus => "surplus",
            Self::Idle => "idle",
            Self::CliqueResolving => "clique_resolving",
            Self::Application(_) => "application",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Application(text) => write!(f, "{} ({text})", self.label()),
            _ => f.write_str(self.label()),
        }
    }
}

/// Why an application ends a connection. What the node finds out by itself, such as a broken frame or a
/// peer that reads too slowly, is not its to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ApplicationReason {
    /// It, or an operator, wants the connection ended.
    Requested,
    /// A message of the peer was malformed, or broke a rule of the application.
    BadData,
    /// A better performing peer was preferred.
    LeastPerforming,
    /// The peers around were suspected to be a clique.
    CliqueResolving,
    /// Another reason, in the application's own words, such as `"equivocated"`. The words are logged and
    /// come with the event; all of them are counted as `application`. They are never sent.
    Own(&'static str),
}

impl From<ApplicationReason> for DisconnectReason {
    fn from(reason: ApplicationReason) -> Self {
        match reason {
            ApplicationReason::Requested => Self::Requested,
            ApplicationReason::BadData => Self::BadData,
            ApplicationReason::LeastPerforming => Self::LeastPerforming,
            ApplicationReason::CliqueResolving => Self::CliqueResolving,
            ApplicationReason::Own(text) => Self::Application(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_applications_own_words_are_shown_and_are_no_label() {
        let reason = DisconnectReason::from(ApplicationReason::Own("equivocated"));
        assert_eq!(reason.label(), "application");
        assert_eq!(reason.to_string(), "application (equivocated)");
        assert_eq!(DisconnectReason::from(ApplicationReason::Requested).to_string(), "requested");
    }

    #[test]
    fn every_reason_has_its_label_among_all() {
        // A new reason does not compile until it has a place here.
        let place = |reason: DisconnectReason| match reason {
            DisconnectReason::LocalShutdown => 0,
            DisconnectReason::Requested => 1,
            DisconnectReason::RemoteClosed => 2,
            DisconnectReason::Transport => 3,
            DisconnectReason::Protocol => 4,
            DisconnectReason::Oversized => 5,
            DisconnectReason::BadData => 6,
            DisconnectReason::UnexpectedResponse => 7,
            DisconnectReason::BadIdentity => 8,
            DisconnectReason::Duplicate => 9,
            DisconnectReason::Slow => 10,
            DisconnectReason::Stalled => 11,
            DisconnectReason::Silent => 12,
            DisconnectReason::Flood => 13,
            DisconnectReason::Evicted => 14,
            DisconnectReason::Banned => 15,
            DisconnectReason::NotMember => 16,
            DisconnectReason::LeastPerforming => 17,
            DisconnectReason::Surplus => 18,
            DisconnectReason::Idle => 19,
            DisconnectReason::CliqueResolving => 20,
            DisconnectReason::Application(_) => 21,
            DisconnectReason::Internal => 22,
        };
        let last = DisconnectReason::Internal;
        assert_eq!(place(last) + 1, DisconnectReason::LABELS.len());
        assert_eq!(DisconnectReason::LABELS.get(place(last)), Some(&last.label()));
        let different: std::collections::BTreeSet<_> = DisconnectReason::LABELS.iter().collect();
        assert_eq!(different.len(), DisconnectReason::LABELS.len());
    }
}
