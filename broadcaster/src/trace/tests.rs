//! The choice of messages, and the bound on what is kept of them.

use super::*;

fn name(number: u64) -> Fingerprint {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Fingerprint(bytes)
}

fn tracer(one_in: u64) -> Tracer {
    Tracer::new(one_in, &Environment::system(), &Metrics::default())
}

fn offer(tracer: &Tracer, number: u64) -> Option<Arc<Traced>> {
    tracer.of(Tag::TX, Some(&number.to_le_bytes()), name(number))
}

// Issue 12, 3.
#[tokio::test(start_paused = true)]
async fn the_messages_that_are_kept_are_bounded_and_the_oldest_is_forgotten() {
    let tracer = tracer(1);
    let mut first = None;
    for number in 0..4 * MAX_TRACES as u64 {
        tokio::time::advance(Duration::from_millis(50)).await;
        let traced = offer(&tracer, number).expect("twenty a second are within the rate");
        traced.note(TraceEvent::Submitted, None);
        first.get_or_insert(traced);
    }
    let (traces, first) = (tracer.traces(), first.unwrap());
    assert_eq!((traces.len(), tracer.metrics.traces_left_out()), (MAX_TRACES, 0));
    first.note(TraceEvent::Handled, None);
    assert_eq!(first.trace().steps, [], "it was forgotten");
    assert_eq!(tracer.trace(&first.digest()), None);
    assert_eq!(traces[0].digest, Digest::of(Tag::TX, &(4 * MAX_TRACES as u64 - 1).to_le_bytes()));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_messages_in_the_sample_begins_a_few_a_second() {
    let tracer = tracer(1);
    let begun = (0..10_000).filter(|number| offer(&tracer, *number).is_some()).count();
    assert_eq!(
        (begun, tracer.metrics.traces_left_out()),
        (MAX_BEGUN as usize, 10_000 - u64::from(MAX_BEGUN))
    );
    assert!(offer(&tracer, 0).is_some(), "one that was begun goes on");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(offer(&tracer, 10_000).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_waited_for_is_kept_without_a_sample() {
    let tracer = tracer(0);
    assert!(offer(&tracer, 1).is_none());
    let digest = Digest::of(Tag::TX, &2_u64.to_le_bytes());
    tracer.want(digest, Duration::from_secs(5)).unwrap();
    assert!(offer(&tracer, 1).is_none());
    assert_eq!(offer(&tracer, 2).map(|traced| traced.digest()), Some(digest));
    // A later copy whose body was not unpacked is known by its name.
    assert!(tracer.of(Tag::TX, None, name(2)).is_some());
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(offer(&tracer, 3).is_none());
    assert!(!tracer.wants.load(Ordering::Relaxed), "nothing is hashed for it any more");
    for number in 0..MAX_WANTED as u64 {
        tracer.want(Digest::of(Tag::TX, &number.to_le_bytes()), Duration::from_secs(1)).unwrap();
    }
    assert_eq!(tracer.want(digest, Duration::from_secs(1)), Ok(()), "it is named already");
    assert_eq!(tracer.want(Digest([9; 32]), Duration::from_secs(1)), Err(TooManyWanted));
}

#[test]
fn nodes_with_one_rate_pick_the_same_messages() {
    let (here, there) = (tracer(10), tracer(10));
    let is_picked = |tracer: &Tracer, number: u64, secret: u64| {
        // The names differ from node to node, since they are hashed with a secret.
        let traced = tracer.of(Tag::TX, Some(&number.to_le_bytes()), name(number ^ secret));
        traced.is_some()
    };
    let (mut both, mut one) = (0, 0);
    for number in 0..400 {
        match (is_picked(&here, number, 0), is_picked(&there, number, u64::MAX)) {
            (true, true) => both += 1,
            (false, false) => {}
            _ => one += 1,
        }
    }
    assert!(both > 20 && one == 0, "{both} {one}");
}
