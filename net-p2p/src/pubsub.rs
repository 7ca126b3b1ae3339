//! The configuration of GossipSub.
//!
//! # Invariants
//!
//! * On topics of the network messages carry their author and a sequence number but no signature; signed messages are
//!   rejected. Source: wire facts 8.6, S-2. Their ID is the hash of their data alone, so one transaction has the same ID at
//!   every node. Topics of the application have policies of their own (`own_topics/policy.rs`).
//! * Only these topics can be subscribed to, by this node and by peers.

use std::{collections::HashSet, time::Duration};

use gossip::{MAX_TOPIC_BYTES, NetworkProfile, Route, Tag};
use libp2p::{
    PeerId,
    gossipsub::{
        self, ConfigBuilder, IdentTopic, MaxCountSubscriptionFilter, MessageAuthenticity,
        MetricsConfig, PeerScoreParams, PeerScoreThresholds, TopicHash, TopicScoreParams,
        ValidationMode,
    },
};

use crate::{
    gated_pubsub::{Behaviour, GatedPubsub},
    own_topics::TopicPolicies,
    topic_filter::KnownTopics,
    topic_gate::{TopicGate, TopicTransform},
};

/// Largest overhead of a message on a topic, in bytes: author, sequence number, topic, lengths.
///
/// Chosen: twice the need of the longest topic name in use. Without this margin the receiver would silently
/// drop a message just under the bound. Source: wire facts 8.6, S-34.
const FRAMING_BYTES: usize = 256;

/// Largest body that fits a topic, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = MAX_TOPIC_BYTES - FRAMING_BYTES;

/// Time for which message IDs are remembered. Source: wire facts 8.6, seen TTL.
const SEEN_TTL: Duration = Duration::from_secs(120);

/// Capacity of the library's queue for one peer, in messages. It is emptied in each turn of the connection's task
/// (`muxer/topic_stream.rs`), and what was published since is bounded in bytes (`topic_debts.rs`). Chosen: twice the
/// burst of the outbox. With 256, the transactions of a block and the answers to IWANT were dropped.
const QUEUE_MESSAGES: usize = 8_192;

/// Largest number of subscriptions in one RPC. Source: wire facts 8.6.
const MAX_SUBSCRIPTIONS: usize = 100;

/// Largest size of the control messages in one RPC, in bytes: 5,000 message IDs, as existing nodes may send.
/// With the library's 16 KiB the whole RPC would be refused. Source: wire facts 8.6, IHAVE.
const MAX_CONTROL_BYTES: usize = 256 * 1024;

/// Number of violations that a peer may commit without a penalty: broken promises, and grafts right after a
/// prune. Chosen: above the number that load alone can cause, which is 5,000 promises per heartbeat, forgotten
/// within [`PENALTY_DECAY`]. A flood of control messages exceeds it.
const PENALTY_THRESHOLD: f64 = 20_000.0;

/// Time after which violations are forgotten. Chosen: a flood counts, and a peer recovers soon after load.
const PENALTY_DECAY: Duration = Duration::from_secs(10);

/// The score below which a peer is not served. Source: wire facts 8.6, thresholds.
pub(crate) const PUBLISH_THRESHOLD: f64 = -1_000.0;

/// The score below which nothing of a peer is heard. Source: wire facts 8.6, thresholds.
pub(crate) const GRAYLIST_THRESHOLD: f64 = -2_500.0;

/// Initial score of every peer, so that a peer without violations leaves with a positive score: the library
/// forgets those at once, and keeps all others. Chosen: far below the effect of any rule.
pub(crate) const CREDIT: f64 = 1e-6;

/// Score that outweighs everything that a peer can earn.
const HIDDEN: f64 = -1e12;

/// Time for which the score of a peer with violations is kept after it has left.
///
/// Chosen: identities cost nothing, so a kept score does not stop a peer that creates a new one; and at
/// the 240 connections a second that the door admits from one subnet, an hour of scores would take 600 MiB.
const RETAIN_SCORE: Duration = Duration::from_secs(60);

/// Longest time for a message in the library's queue for a peer, after which it is dropped for that peer. A connection takes
/// everything from its queue in each of its turns (`topic_debts.rs`), so a message waits there for this node alone, and the
/// peer must not miss it for that. Chosen: longer than a node can stand still and keep its links.
const QUEUE_TIME: Duration = Duration::from_secs(60);

/// The tags that are published on topics, each with its topic.
pub(crate) fn topics(profile: &NetworkProfile) -> Vec<(Tag, IdentTopic)> {
    let rules = profile.tags.rules().iter();
    let on_topic = rules.filter_map(|rule| match rule.route {
        Route::Topic(name) => Some((rule.tag, IdentTopic::new(name))),
        Route::Streams => None,
    });
    on_topic.collect()
}

/// The degrees of the GossipSub mesh for a given fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overlay {
    pub(crate) d: usize,
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) score: usize,
    pub(crate) out: usize,
    pub(crate) lazy: usize,
}

impl Overlay {
    /// Source: wire facts 8.6, table by F.
    pub(crate) const fn of(fanout: usize) -> Self {
        match fanout {
            0 => Self { d: 0, low: 0, high: 0, score: 0, out: 0, lazy: 0 },
            1..=4 => Self { d: 4, low: 2, high: 4, score: 1, out: 1, lazy: 4 },
            5..=11 => {
                let d = fanout - fanout / 3;
                let low = 3 * d / 4;
                Self { d, low, high: fanout, score: low, out: 3 * d / 8, lazy: fanout }
            }
            _ => Self { d: 8, low: 6, high: 12, score: 6, out: 3, lazy: 12 },
        }
    }
}

/// The reason why GossipSub could not be set up. It can only be a mistake in this file, which the tests detect.
#[derive(Debug, thiserror::Error)]
#[error("the settings of gossipsub contradict each other: {0}")]
pub(crate) struct SetupError(String);

/// Builds the GossipSub behaviour of one node, with `gate` before it, and with the application's topics of `policies`.
pub(crate) fn build(
    local: PeerId,
    fanout: usize,
    profile: &NetworkProfile,
    (gate, policies): (TopicGate, TopicPolicies),
) -> Result<GatedPubsub, SetupError> {
    let (overlay, ids) = (Overlay::of(fanout), policies.clone());
    let mut config = ConfigBuilder::default();
    config
        .validation_mode(ValidationMode::Permissive)
        .validate_messages()
        .message_id_fn(move |message| ids.id(message))
        .duplicate_cache_time(SEEN_TTL)
        .max_transmit_size(MAX_TOPIC_BYTES)
        .max_control_message_size(MAX_CONTROL_BYTES)
        .connection_handler_queue_len(QUEUE_MESSAGES)
        .publish_queue_duration(QUEUE_TIME)
        .forward_queue_duration(QUEUE_TIME)
        .flood_publish(true)
        .support_floodsub()
        // Source of the other figures: p2p_params.json, `gossipsub_other`.
        .mesh_n(overlay.d)
        .mesh_n_low(overlay.low)
        .mesh_n_high(overlay.high)
        .retain_scores(overlay.score)
        .mesh_outbound_min(overlay.out)
        .gossip_lazy(overlay.lazy)
        .gossip_factor(0.1)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_secs(1))
        .history_length(10)
        .history_gossip(3)
        .iwant_followup_time(Duration::from_secs(5))
        .idontwant_message_size_threshold(1024);
    let failed = |error: &dyn std::fmt::Display| SetupError(error.to_string());
    let config = config.build().map_err(|error| failed(&error))?;
    let mut allowed: HashSet<TopicHash> =
        topics(profile).iter().map(|(_, topic)| topic.hash()).collect();
    allowed.extend(policies.own().map(|(topic, _)| topic.clone()));
    let filter = MaxCountSubscriptionFilter {
        max_subscribed_topics: allowed.len(),
        max_subscriptions_per_request: MAX_SUBSCRIPTIONS,
        filter: KnownTopics::new(allowed.clone(), gate.clone()),
    };
    let behaviour = Behaviour::new_with_subscription_filter_and_transform(
        MessageAuthenticity::Author(local),
        config,
        filter,
        TopicTransform::new(gate.clone(), policies),
    )
    .map_err(|error| failed(&error))?;
    // Topics that this node does not know have no metrics: their names are the words of peers.
    let names: Vec<_> = allowed.iter().cloned().collect();
    let mut metrics = MetricsConfig {
        max_topics: names.len(),
        max_never_subscribed_topics: 0,
        ..MetricsConfig::default()
    };
    metrics.buckets_using_scoring_thresholds(&thresholds());
    let counts = gate.metrics();
    let mut behaviour =
        counts.library().for_gossipsub(|registry| behaviour.with_metrics(registry, metrics));
    behaviour.register_topics_for_metrics(names);
    behaviour
        .with_peer_score(score_params(allowed), thresholds())
        .map_err(|error| failed(&error))?;
    Ok(GatedPubsub::new(behaviour, gate))
}

/// Gives a newly connected peer its initial score.
pub(crate) fn welcome(gossipsub: &mut Behaviour, peer: &PeerId) {
    rate(gossipsub, peer, CREDIT);
}

/// Sets the part of a peer's score that does not come from its messages.
pub(crate) fn rate(gossipsub: &mut Behaviour, peer: &PeerId, score: f64) {
    // This fails only if scoring is off, and then no scores are kept.
    let _ = gossipsub.set_application_score(peer, score);
}

/// Makes the library publish nothing to a peer until it is rated again. Both must happen in one turn of the swarm's
/// task: the score counts for everything else as well.
pub(crate) fn hide(gossipsub: &mut Behaviour, peer: &PeerId) {
    // As above.
    let _ = gossipsub.set_application_score(peer, HIDDEN);
}

/// The factor by which a counter shrinks per second so that it is forgotten after `time`.
fn decay(time: Duration) -> f64 {
    gossipsub::score_parameter_decay_with_base(time, Duration::from_secs(1), 0.01)
}

/// Source: wire facts 8.6, peer scoring; and threats and goals, rows 17, 19 for the penalty of behaviour,
/// which existing nodes leave out.
fn score_params(topics: HashSet<TopicHash>) -> PeerScoreParams {
    let ten_minutes = Duration::from_secs(600);
    let topic = TopicScoreParams {
        topic_weight: 0.1,
        time_in_mesh_weight: 0.000_277_8,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 1.0,
        first_message_deliveries_weight: 0.5,
        first_message_deliveries_decay: decay(ten_minutes),
        first_message_deliveries_cap: 100.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -1000.0,
        invalid_message_deliveries_decay: decay(Duration::from_secs(3_600)),
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: topics.into_iter().map(|hash| (hash, topic.clone())).collect(),
        topic_score_cap: 0.0,
        app_specific_weight: 1.0,
        retain_score: RETAIN_SCORE,
        // Peers behind one address are served alike: the door already limits connections per address.
        ip_colocation_factor_weight: 0.0,
        // A slow peer loses the messages that its queue cannot take; no further penalty.
        slow_peer_weight: 0.0,
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: PENALTY_THRESHOLD,
        behaviour_penalty_decay: decay(PENALTY_DECAY),
        decay_interval: Duration::from_secs(1),
        decay_to_zero: 0.01,
        ..PeerScoreParams::default()
    }
}

/// Source: wire facts 8.6, thresholds.
fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -500.0,
        publish_threshold: PUBLISH_THRESHOLD,
        graylist_threshold: GRAYLIST_THRESHOLD,
        accept_px_threshold: 1_000.0,
        opportunistic_graft_threshold: 3.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::P2pMetrics;

    fn gate() -> TopicGate {
        TopicGate::new(1 << 20, P2pMetrics::default())
    }

    #[test]
    fn the_overlay_is_that_of_existing_nodes_for_every_recorded_fanout() {
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../testdata/p2p_params.json")).unwrap();
        let cases = recorded["gossipsub_d"].as_array().unwrap();
        assert_eq!(cases.len(), 22);
        for case in cases {
            let number = |key: &str| usize::try_from(case[key].as_i64().unwrap()).unwrap();
            let fanout = usize::try_from(case["fanout"].as_i64().unwrap()).unwrap_or(0);
            let expected = Overlay {
                d: number("D"),
                low: number("Dlo"),
                high: number("Dhi"),
                score: number("Dscore"),
                out: number("Dout"),
                lazy: number("Dlazy"),
            };
            assert_eq!(Overlay::of(fanout), expected, "{case}");
        }
    }

    #[test]
    fn the_settings_are_accepted_by_the_library() {
        for profile in NetworkProfile::ALL {
            for fanout in 0..=20 {
                build(PeerId::random(), fanout, profile, (gate(), TopicPolicies::default()))
                    .unwrap();
            }
        }
    }

    #[test]
    fn counters_decay_as_recorded() {
        assert!((decay(Duration::from_secs(600)) - 0.992_354).abs() < 1e-6);
        assert!((decay(Duration::from_secs(3_600)) - 0.998_721_6).abs() < 1e-7);
    }

    // Issue 8, 11 and 22. Before, nineteen peers behind one address were not served, and a peer whose queue
    // overflowed, or that broke promises under load, was graylisted.
    #[test]
    fn neither_an_address_nor_load_lowers_a_score() {
        let params = score_params(HashSet::new());
        assert!(params.ip_colocation_factor_weight.abs() < f64::EPSILON, "many share an address");
        assert!(params.slow_peer_weight.abs() < f64::EPSILON, "a slow reader");
        // In every heartbeat as many promises are broken as fit into it.
        let broken = 5_000.0 / (1.0 - params.behaviour_penalty_decay);
        assert!(broken < params.behaviour_penalty_threshold, "{broken}");
        // A flood of grafts, each counted twice.
        let grafts = 2.0 * 10_000.0 / (1.0 - params.behaviour_penalty_decay);
        let excess = grafts - params.behaviour_penalty_threshold;
        let score = params.behaviour_penalty_weight * excess * excess;
        assert!(score < thresholds().graylist_threshold, "{score}");
    }
}
