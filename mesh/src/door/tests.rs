//! Passes and places of a door, from outside.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{
    bans::Bans,
    members::{Admit, Member, Members},
};

fn knock(door: &Door, from: &str, evicted: &Arc<AtomicUsize>) -> Pass {
    let (evicted, asked) = (Arc::clone(evicted), door.clone());
    let evict = move || {
        evicted.fetch_add(1, Ordering::Relaxed);
        // A callback may ask the door: no lock is held.
        let _ = asked.sockets();
    };
    match door.knock(from.parse().unwrap(), Instant::now(), evict) {
        Knock::Serve(pass) => pass,
        other => panic!("{from} was not served: {other:?}"),
    }
}

// Issue 10, 4.
#[test]
fn a_refusal_is_counted_once_and_a_member_is_let_in_on_its_word() {
    let (doors, now) = (Doors::default(), Instant::now());
    let door = Door::new(InboundLimits::default().with_total(1));
    doors.add(&door, now);
    let member = Identity::from_ed25519([1; 32]);
    let mut members = Members::default();
    members.set(1, [Member::new(member, [])]).unwrap();
    let bans = Bans::new(now, std::time::SystemTime::UNIX_EPOCH);
    let access = AccessList::new(1, &bans, (&members, Admit::MembersOnly), now);
    doors.follow(access, now);
    let evicted = Arc::default();
    let stranger = knock(&door, "192.0.2.1", &evicted);
    for claimed in [None, Some(Identity::from_ed25519([2; 32]))] {
        let refused = stranger.admit_unproved(|| claimed, now).err();
        assert_eq!(refused, Some(Refusal::NotMember));
    }
    assert_eq!(stranger.admit(None, now).err(), Some(Refusal::NotMember));
    assert_eq!(door.refused(Refusal::NotMember), 3);
    let place = stranger.admit_unproved(|| Some(member), now).unwrap();
    assert!(!place.is_proved());
    assert_eq!(place.prove(member, now), Ok(()));
    assert!(place.is_proved());
    assert_eq!((door.refused(Refusal::NotMember), door.peers()), (3, 1));
    // A list without members ends it, by the callback.
    doors.follow(AccessList::new(2, &bans, (&Members::default(), Admit::MembersOnly), now), now);
    assert_eq!((evicted.load(Ordering::Relaxed), door.peers()), (1, 0));
    drop(place);
}

#[test]
fn dropping_a_pass_gives_back_everything_it_counted_for() {
    let (door, evicted) = (Door::default(), Arc::default());
    let pass = knock(&door, "192.0.2.1", &evicted);
    assert_eq!((door.sockets(), door.half_open(), door.peers()), (1, 1, 0));
    let place = pass.admit(None, Instant::now()).unwrap();
    assert_eq!((door.sockets(), door.half_open(), door.peers()), (1, 0, 1));
    drop(place);
    assert_eq!((door.sockets(), door.peers()), (1, 0));
    drop(pass);
    assert_eq!(door.sockets(), 0);
    assert!(door.shared().evict.is_empty());
    assert_eq!(evicted.load(Ordering::Relaxed), 0);
}

#[test]
fn pages_of_one_origin_have_a_bound_of_their_own() {
    let (door, evicted) = (Door::new(InboundLimits::default().with_per_origin(2)), Arc::default());
    let passes: Vec<Pass> =
        (1..=4).map(|host| knock(&door, &format!("192.0.2.{host}"), &evicted)).collect();
    let mut places: Vec<PeerPlace> =
        passes.iter().map(|pass| pass.admit(None, Instant::now()).unwrap()).collect();
    assert_eq!(places[0].is_page_of("https://a.example"), Ok(()));
    assert_eq!(places[1].is_page_of("https://a.example"), Ok(()));
    assert_eq!(places[2].is_page_of("https://a.example"), Err(Refusal::PerOrigin));
    assert_eq!(places[3].is_page_of("https://b.example"), Ok(()));
    assert_eq!(door.refused(Refusal::PerOrigin), 1);
    // A place that is given back counts no more.
    drop(places.remove(0));
    assert_eq!(places[1].is_page_of("https://a.example"), Ok(()));
    // Pages that speak another protocol count beside them.
    assert_eq!(door.page_of("https://a.example").unwrap_err(), Refusal::PerOrigin);
    assert_eq!(door.refused(Refusal::PerOrigin), 2);
    drop(places.remove(0));
    let page = door.page_of("https://a.example").unwrap();
    assert_eq!(door.page_of("https://a.example").unwrap_err(), Refusal::PerOrigin);
    drop(page);
    assert!(door.page_of("https://a.example").is_ok());
    drop(places);
    drop(passes);
    assert_eq!(door.sockets(), 0);
}

#[test]
fn a_connection_that_makes_room_is_told_once_and_its_pass_counts_no_more() {
    let limits = InboundLimits { half_open_total: 1, ..InboundLimits::default() };
    let (door, evicted) = (Door::new(limits), Arc::default());
    let first = knock(&door, "192.0.2.1", &evicted);
    let second = knock(&door, "198.51.100.1", &evicted);
    assert_eq!(evicted.load(Ordering::Relaxed), 1);
    assert_eq!((door.sockets(), door.half_open()), (1, 1));
    assert!(first.admit(None, Instant::now()).is_err());
    drop(first);
    assert_eq!((door.sockets(), door.refused(Refusal::HalfOpen)), (1, 1));
    drop(second);
    assert_eq!((door.sockets(), evicted.load(Ordering::Relaxed)), (0, 1));
}

#[test]
fn outbound_connections_are_bounded_and_given_back() {
    let door = Door::new(InboundLimits { outbound: 1, ..InboundLimits::default() });
    let first = door.depart().unwrap();
    assert_eq!(door.depart().unwrap_err(), Refusal::Outbound);
    drop(first);
    assert!(door.depart().is_ok());
    assert_eq!((door.outbound(), door.refused(Refusal::Outbound)), (0, 1));
}

// Issue 12, 2.
#[test]
fn a_drained_door_keeps_its_peers_and_takes_no_others() {
    let (door, now) = (Door::default(), Instant::now());
    let knock = || match door.knock("192.0.2.1".parse().unwrap(), now, || {}) {
        Knock::Serve(pass) => pass,
        other => panic!("{other:?}"),
    };
    let before = knock();
    let place = before.admit(None, now).unwrap();
    door.drain();
    let after = knock();
    assert_eq!(after.admit(None, now).unwrap_err(), Refusal::Draining);
    assert_eq!(door.depart().unwrap_err(), Refusal::Draining);
    assert_eq!((door.peers(), door.refused(Refusal::Draining)), (1, 2));
    drop(place);
    assert_eq!(door.peers(), 0);
}

// Issue 9, 5: counters of refusals carried no transport.
#[test]
fn refusals_are_counted_by_the_transport_that_asked() {
    let door = Door::new(InboundLimits { outbound: 1, ..InboundLimits::default() });
    let (ws, p2p) = (door.over(Transport::WebSocket), door.over(Transport::Libp2p));
    let _only = ws.depart().unwrap();
    for handle in [&ws, &p2p, &p2p] {
        assert_eq!(handle.depart().unwrap_err(), Refusal::Outbound);
    }
    let of = |transport| door.refused_over(Refusal::Outbound, transport);
    let counts = [Transport::WebSocket, Transport::Libp2p, Transport::Memory].map(of);
    assert_eq!((counts, door.refused(Refusal::Outbound)), ([1, 2, 0], 3));
}

#[test]
fn every_refusal_has_its_own_counter() {
    for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!(refusal as usize, index, "{}", refusal.label());
    }
}
