//! Tests of untried addresses beyond the fan-out.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A schedule whose fan-out of two is reached, with untried addresses besides.
fn full() -> (Bench, Vec<u32>) {
    let mut bench = Bench::with(MeshLimits::default().with_fan_out(2), &[]);
    for number in 1..=5 {
        assert_eq!(bench.learn(number), Added::New);
    }
    let linked = bench.due();
    linked.iter().for_each(|number| {
        bench.schedule.connected(&address(*number), None, bench.now);
    });
    assert_eq!(bench.due(), []);
    (bench, linked)
}

// Issue 10, 5; source: threats and goals, row 23.
#[test]
fn an_untried_address_is_tested_beyond_the_fan_out_every_two_to_four_minutes() {
    let (mut bench, linked) = full();
    let mut tested = Vec::new();
    for _ in 0..3 {
        let before = bench.now;
        let feeler = bench.next();
        assert_eq!(feeler.len(), 1, "one at a time");
        let waited = bench.now - before;
        assert!(waited >= 2 * MINUTE && waited <= 4 * MINUTE, "{waited:?}");
        bench.schedule.connected(&address(feeler[0]), None, bench.now);
        bench.schedule.let_go(None, Some(&address(feeler[0])), bench.now);
        bench.ended(feeler[0]);
        assert_eq!(bench.failures(feeler[0]), 0, "a link that was let go is no failure");
        tested.push(feeler[0]);
    }
    tested.extend(linked);
    tested.sort_unstable();
    assert_eq!(tested, [1, 2, 3, 4, 5], "each is tested once");
    assert_eq!(bench.wait(), None, "nothing is untried any more");
    let worked = bench.schedule.book().records(bench.now).iter().filter(|one| one.worked).count();
    assert_eq!(worked, 3);
}

#[test]
fn an_untried_address_that_fails_its_test_is_put_off_like_any_other() {
    let (mut bench, _) = full();
    let feeler = bench.next()[0];
    bench.failed(feeler, DialFailure::Unreachable);
    assert_eq!(bench.failures(feeler), 1);
    assert!(bench.wait().unwrap() >= 2 * MINUTE);
}

#[test]
fn a_link_that_ends_by_itself_soon_is_a_failure_whatever_the_fan_out_is() {
    let (mut bench, linked) = full();
    bench.ended(linked[0]);
    assert_eq!(bench.failures(linked[0]), 1);
}

#[test]
fn another_address_can_take_a_place_only_if_it_is_due() {
    let (mut bench, _) = full();
    assert!(bench.schedule.has_another(bench.now));
    for number in 1..=5 {
        bench.failed(number, DialFailure::Ourselves);
    }
    assert!(!bench.schedule.has_another(bench.now));
}
