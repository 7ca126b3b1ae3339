//! Durations among the limits of the services are bounded where they are set.
//!
//! Issue 9, 11: a time of `Duration::MAX` overflowed a clock, and one of zero ended every transfer at once.

use std::time::Duration;

use gossip::{Durations, LONGEST_LIMIT, LimitError, SHORTEST_LIMIT};
use tandem_services::{
    blocks::{self, BlockProxyLimits},
    files::{self, OpenStoreError, Store, StoreLimits},
};

/// The names and the values of the durations.
fn durations<L: Durations>(limits: &L) -> Vec<(&'static str, Duration)> {
    let mut found = Vec::new();
    limits.clone().each_duration(&mut |name, given| found.push((name, *given)));
    found
}

/// Checks that limits of this kind are judged by every duration, and returns their number.
#[track_caller]
fn bounded<L: Durations + Default>() -> usize {
    let names = durations(&L::default());
    for &(setting, _) in &names {
        for (given, becomes) in [(Duration::ZERO, SHORTEST_LIMIT), (Duration::MAX, LONGEST_LIMIT)] {
            let mut limits = L::default();
            limits.each_duration(&mut |name, value| {
                if name == setting {
                    *value = given;
                }
            });
            assert_eq!(limits.check(), Err(LimitError { setting, given }));
            assert!(durations(&limits.bounded()).contains(&(setting, becomes)), "{setting}");
        }
    }
    names.len()
}

#[test]
fn every_duration_of_the_services_lies_between_a_millisecond_and_a_year() {
    assert_eq!(bounded::<StoreLimits>(), 1);
    assert_eq!(bounded::<files::FetchLimits>(), 2);
    assert_eq!(bounded::<blocks::FetchLimits>(), 2);
    assert_eq!(bounded::<BlockProxyLimits>(), 4);
}

#[tokio::test]
async fn a_store_with_such_a_limit_does_not_open_and_says_which_it_is() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let limits = StoreLimits::default().with_batch_within(Duration::MAX);
    let Err(error) = Store::open(dir.path(), limits).await else { panic!("it opens") };
    assert!(matches!(error, OpenStoreError::Limit(_)), "{error:?}");
    assert!(error.to_string().starts_with("`StoreLimits::batch_within` is "), "{error}");
}
