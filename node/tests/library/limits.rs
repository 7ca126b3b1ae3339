//! Durations among the limits of a node are checked where they are set.
//!
//! Issue 9, 11: a limit of zero ended every peer at once, and one of `Duration::MAX` overflowed a clock.

use std::time::Duration;

use axum::Router;
use gossip::{Durations, LONGEST_LIMIT, LimitError, NetworkId, SHORTEST_LIMIT};
use tandem::{
    AcceptLimits, ClientLimits, InboundLimits, Limits, MeshLimits, NodeBuilder, PeerStream,
    Protection, ServeLimits, StartError,
};
use tokio_util::sync::CancellationToken;

fn node() -> NodeBuilder {
    NodeBuilder::new(NetworkId::new("limits").expect("a name"))
}

/// The limits with the duration of this name.
fn with<L: Durations>(limits: &L, setting: &str, duration: Duration) -> L {
    let mut limits = limits.clone();
    limits.each_duration(&mut |name, given| {
        if name == setting {
            *given = duration;
        }
    });
    limits
}

/// The limit that an error is about.
fn wrong(error: &StartError) -> Option<LimitError> {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    if let StartError::Limit(limit) = error {
        return Some(*limit);
    }
    while let Some(error) = cause {
        if let Some(limit) = error.downcast_ref::<LimitError>() {
            return Some(*limit);
        }
        cause = error.source();
    }
    None
}

/// Checks every duration of some limits, which `set` gives to a node, and returns how many there are.
#[track_caller]
fn bounded<L: Durations + Default>(set: impl Fn(L) -> NodeBuilder) -> usize {
    let limits = L::default();
    let mut names = Vec::new();
    limits.clone().each_duration(&mut |name, _| names.push(name));
    let nano = Duration::from_nanos(1);
    for &setting in &names {
        for given in [nano, SHORTEST_LIMIT - nano, LONGEST_LIMIT + nano, Duration::MAX] {
            let refused = set(with(&limits, setting, given)).check();
            let refused = refused.expect_err(setting);
            assert_eq!(wrong(&refused), Some(LimitError { setting, given }), "{refused:?}");
            assert!(refused.is_misconfiguration(), "{refused:?}");
        }
        for given in [SHORTEST_LIMIT, LONGEST_LIMIT] {
            assert!(set(with(&limits, setting, given)).check().is_ok(), "{setting}");
        }
        // Where there is no error to return, a limit that is out of bounds is brought into them.
        for (given, becomes) in [(nano, SHORTEST_LIMIT), (Duration::MAX, LONGEST_LIMIT)] {
            let mut brought = with(&limits, setting, given).bounded();
            brought.each_duration(&mut |name, found| {
                assert!(name != setting || *found == becomes, "{name}: {found:?}");
            });
        }
    }
    names.len()
}

#[test]
fn every_duration_lies_between_a_millisecond_and_a_year() {
    assert_eq!(bounded(|limits: Limits| node().limits(limits)), 13);
    assert_eq!(bounded(|limits: MeshLimits| node().mesh_limits(limits)), 12);
    assert_eq!(bounded(|limits: InboundLimits| node().inbound_limits(limits)), 3);
    assert_eq!(bounded(|limits: ClientLimits| node().client_limits(limits)), 5);
    assert_eq!(bounded(|limits: ServeLimits| node().serve_limits(limits)), 6);
    assert_eq!(bounded(|limits: Protection| node().http_with(Router::new(), &limits)), 2);
    let accept = |limits: AcceptLimits| {
        node().accept_with("/limits/1", limits, |_: PeerStream| std::future::ready(()))
    };
    assert_eq!(bounded(accept), 1);
}

#[tokio::test]
async fn a_node_with_such_a_limit_does_not_start_and_says_which_it_is() {
    let limits = Limits::default().with_write_timeout(Duration::ZERO);
    let refused = node().limits(limits).start(&CancellationToken::new()).await;
    let told = refused.expect_err("it cannot be waited for").to_string();
    assert_eq!(told, "`Limits::write_timeout` is 0ns: it must be between 1 ms and 365 days");
    // No length at all switches a rate off.
    let off = mesh::RateWindow::new(1, Duration::ZERO);
    let limits = InboundLimits::default().with_rate(off).with_subnet_rate(off);
    assert!(node().inbound_limits(limits).check().is_ok());
}
