//! The rules, call by call, and against a plain count of what is open.

use std::time::Duration;

use gossip::LoopbackRule;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Loopback counts unless a test says otherwise, and no rate is in the way.
fn limits() -> InboundLimits {
    InboundLimits { loopback: LoopbackRule::Counted, ..InboundLimits::default() }
}

fn unrated() -> InboundLimits {
    let off = RateWindow::OFF;
    InboundLimits { rate: off, subnet_rate: off, ..limits() }
}

fn serve(rules: &mut Rules, from: &str, now: Instant) -> (Ticket, Option<Ticket>) {
    match rules.knock(ip(from), now) {
        Ruling::Serve { guest, evicted } => (guest, evicted),
        other => panic!("{from} was not served: {other:?}"),
    }
}

/// Accepts a socket and, if it is served, reads its head.
fn arrive(rules: &mut Rules, from: &str, now: Instant) -> Ruling {
    let ruling = rules.knock(ip(from), now);
    if let Ruling::Serve { guest, .. } = ruling {
        rules.headed(guest);
    }
    ruling
}

/// A peer of an address, and whom it took the place of.
fn peer(rules: &mut Rules, from: &str, now: Instant) -> Result<(Ticket, Option<Ticket>), Refusal> {
    let (guest, _) = serve(rules, from, now);
    let admitted = rules.admit(guest, None, now);
    if let Err(why) = admitted {
        rules.note(why);
        rules.gone(guest);
    }
    admitted.map(|evicted| (guest, evicted))
}

fn identity(number: u8) -> Identity {
    Identity::from_ed25519([number; 32])
}

#[test]
fn from_the_61st_on_connections_of_a_second_are_drained_and_from_the_121st_on_closed() {
    let (mut rules, now) = (Rules::new(limits()), Instant::now());
    for number in 1..=200 {
        let ruling = arrive(&mut rules, "192.0.2.1", now);
        match number {
            ..=60 => assert!(matches!(ruling, Ruling::Serve { evicted: None, .. }), "{number}"),
            61..=120 => assert!(matches!(ruling, Ruling::Drain { .. }), "{number}"),
            _ => assert_eq!(ruling, Ruling::Close(Refusal::HostRate), "{number}"),
        }
    }
    serve(&mut rules, "192.0.2.2", now);
    let before = now + SECOND - Duration::from_millis(1);
    assert_eq!(arrive(&mut rules, "192.0.2.1", before), Ruling::Close(Refusal::HostRate));
    serve(&mut rules, "192.0.2.1", now + SECOND);
    assert_eq!((rules.sockets(), rules.refused_in_all(Refusal::HostRate)), (122, 141));
}

#[test]
fn a_subnet_of_many_hosts_has_a_rate_of_its_own() {
    let (mut rules, now) = (Rules::new(limits()), Instant::now());
    for number in 0..240 {
        let ruling = arrive(&mut rules, &format!("192.0.2.{number}"), now);
        assert!(matches!(ruling, Ruling::Serve { .. }), "{number}: {ruling:?}");
    }
    assert_eq!(arrive(&mut rules, "192.0.2.250", now), Ruling::Close(Refusal::SubnetRate));
    serve(&mut rules, "192.0.3.1", now);
    serve(&mut rules, "192.0.2.250", now + SECOND);
}

#[test]
fn requests_beyond_the_rate_are_told_to_come_back_after_the_window() {
    let (mut rules, now) = (Rules::new(limits()), Instant::now());
    let from = ip("192.0.2.1");
    for _ in 0..60 {
        assert_eq!(rules.request(from, now), Ok(()));
    }
    assert_eq!(rules.request(from, now), Err(TooMany { retry_after: SECOND }));
    assert_eq!(rules.refused_in_all(Refusal::RequestRate), 1);
    assert_eq!(rules.request(from, now + SECOND), Ok(()));
    serve(&mut rules, "192.0.2.1", now); // connections are counted apart
}

#[test]
fn loopback_is_exempt_from_what_is_counted_by_host_but_for_the_number_of_its_peers() {
    let exempt = InboundLimits {
        half_open_total: 500,
        per_subnet: 1,
        loopback: LoopbackRule::Exempt,
        ..limits()
    };
    let (mut rules, now) = (Rules::new(exempt), Instant::now());
    for host in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        for _ in 0..150 {
            assert_eq!(serve(&mut rules, host, now).1, None, "{host}");
            assert_eq!(rules.request(ip(host), now), Ok(()), "{host}");
        }
    }
    for _ in 0..8 {
        assert!(peer(&mut rules, "127.0.0.1", now).is_ok());
    }
    assert_eq!(peer(&mut rules, "127.0.0.1", now), Err(Refusal::PerIp));

    let mut counted = Rules::new(limits());
    for _ in 0..60 {
        assert!(matches!(arrive(&mut counted, "::1", now), Ruling::Serve { .. }));
    }
    assert!(matches!(arrive(&mut counted, "::1", now), Ruling::Drain { .. }));
}

#[test]
fn a_rate_with_a_zero_is_off() {
    let rate = RateWindow::default();
    for rate in [RateWindow { count: 0, ..rate }, RateWindow { window: Duration::ZERO, ..rate }] {
        let mut rules = Rules::new(InboundLimits { rate, subnet_rate: rate, ..limits() });
        for _ in 0..500 {
            let ruling = arrive(&mut rules, "192.0.2.1", Instant::now());
            assert!(matches!(ruling, Ruling::Serve { .. }));
            assert_eq!(rules.request(ip("192.0.2.1"), Instant::now()), Ok(()));
        }
    }
}

#[test]
fn sockets_end_ten_above_the_number_of_peers_whatever_became_of_them() {
    let (mut rules, now) = (Rules::new(InboundLimits { total: 2, ..limits() }), Instant::now());
    let mut guests = Vec::new();
    for number in 0..12 {
        guests.push(serve(&mut rules, &format!("192.0.{number}.1"), now).0);
        rules.headed(guests[number]);
    }
    // None of them comes from a more crowded part of the network than the newcomer.
    assert_eq!(rules.knock(ip("198.51.100.1"), now), Ruling::Close(Refusal::Sockets));
    rules.gone(guests[3]);
    serve(&mut rules, "198.51.100.1", now);
    assert_eq!((rules.sockets(), rules.half_open()), (12, 1));
}

#[test]
fn a_socket_makes_room_for_one_of_a_less_crowded_subnet_and_for_no_other() {
    let (mut rules, now) = (Rules::new(InboundLimits { total: 2, ..unrated() }), Instant::now());
    let mut guests: Vec<Ticket> = Vec::new();
    for number in 0..12 {
        guests.push(serve(&mut rules, "192.0.2.1", now).0);
        if number < 10 {
            rules.headed(guests[number]);
        }
    }
    // Its own host is the most crowded: refused as by existing nodes.
    assert_eq!(rules.knock(ip("192.0.2.1"), now), Ruling::Close(Refusal::Sockets));
    let evictions = ["198.51.100.1", "192.0.2.2", "203.0.113.1"];
    let evicted = evictions.map(|from| serve(&mut rules, from, now).1.unwrap());
    // Unfinished handshakes first, then the newest that is served.
    assert_eq!(evicted, [guests[10], guests[11], guests[9]]);
    assert_eq!((rules.sockets(), rules.refused_in_all(Refusal::SocketEvicted)), (12, 3));
}

// Issue 8, 27: "150 silent sockets of one address", and "ten addresses".
#[test]
fn an_unfinished_handshake_never_keeps_a_newer_one_out() {
    let (mut rules, now) = (Rules::new(unrated()), Instant::now());
    let honest = serve(&mut rules, "203.0.113.1", now).0;
    let mut silent = Vec::new();
    for number in 0..2_000 {
        let from = format!("192.0.{}.{}", number % 2 + 2, number % 10);
        let (guest, evicted) = serve(&mut rules, &from, now);
        assert_ne!(evicted, Some(honest));
        silent.push(guest);
        assert!(rules.half_open() <= 128);
    }
    let (newcomer, evicted) = serve(&mut rules, "203.0.113.2", now);
    assert!(evicted.is_some_and(|evicted| silent.contains(&evicted)));
    // Both get as far as they like.
    assert_eq!(rules.admit(honest, None, now), Ok(None));
    assert_eq!(rules.admit(newcomer, None, now), Ok(None));
}

#[test]
fn a_host_with_too_many_unfinished_handshakes_gives_up_its_oldest_one() {
    let (mut rules, now) = (Rules::new(limits()), Instant::now());
    let guests: Vec<_> = (0..33).map(|_| serve(&mut rules, "192.0.2.1", now)).collect();
    assert!(guests[..32].iter().all(|(_, evicted)| evicted.is_none()));
    assert_eq!(guests[32].1, Some(guests[0].0));
    assert_eq!((rules.half_open(), rules.refused_in_all(Refusal::HalfOpen)), (32, 1));
}

#[test]
fn peers_are_bounded_by_host_by_subnet_and_in_all_and_a_place_given_back_is_free() {
    let few = InboundLimits { total: 11, per_subnet: 9, ..limits() };
    let (mut rules, now) = (Rules::new(few), Instant::now());
    let mut peers: Vec<Ticket> =
        (0..8).map(|_| peer(&mut rules, "192.0.2.1", now).unwrap().0).collect();
    assert_eq!(peer(&mut rules, "192.0.2.1", now), Err(Refusal::PerIp));
    peers.push(peer(&mut rules, "192.0.2.2", now).unwrap().0);
    assert_eq!(peer(&mut rules, "192.0.2.3", now), Err(Refusal::PerSubnet));
    rules.gone(peers.remove(0));
    peers.push(peer(&mut rules, "192.0.2.1", now).unwrap().0);
    peers.into_iter().for_each(|guest| rules.gone(guest));
    assert_eq!((rules.places(), rules.sockets()), (0, 0));
}

#[test]
fn a_full_node_refuses_who_comes_from_its_most_crowded_part() {
    let (mut rules, now) = (Rules::new(InboundLimits { total: 2, ..limits() }), Instant::now());
    peer(&mut rules, "192.0.2.1", now).unwrap();
    peer(&mut rules, "192.0.2.1", now).unwrap();
    assert_eq!(peer(&mut rules, "192.0.2.1", now), Err(Refusal::Total));
    // One place each is no crowd.
    let mut rules = Rules::new(InboundLimits { total: 1, ..limits() });
    peer(&mut rules, "192.0.2.1", now).unwrap();
    assert_eq!(peer(&mut rules, "198.51.100.1", now), Err(Refusal::Total));
    assert_eq!(rules.refused_in_all(Refusal::Total), 1);
}

// Issue 8, 27: "2,600 whole connections with free identities take all 2,400 places".
#[test]
fn a_full_node_finds_places_for_newcomers_in_its_most_crowded_subnets() {
    let (mut rules, mut now) = (Rules::new(unrated()), Instant::now());
    let early: Vec<_> = (0..10)
        .map(|number| peer(&mut rules, &format!("198.51.{number}.1"), now).unwrap().0)
        .collect();
    now += LONG;
    for host in 0..2_600_u32 {
        let from = format!("10.0.{}.{}", host % 20, host / 20 % 250);
        let _ = peer(&mut rules, &from, now);
    }
    assert_eq!(rules.places(), 2_400);
    for number in 0..10 {
        let (_, evicted) = peer(&mut rules, &format!("203.0.{number}.1"), now).unwrap();
        assert!(evicted.is_some_and(|evicted| !early.contains(&evicted)));
    }
    assert_eq!((rules.places(), rules.refused_in_all(Refusal::PeerEvicted)), (2_400, 10));
}

#[test]
fn of_a_crowd_the_newest_stranger_goes_and_who_is_tried_or_there_for_long_stays() {
    let small = InboundLimits { total: 5, ..unrated() };
    let (mut rules, began) = (Rules::new(small), Instant::now());
    let mut known = Vec::new();
    for number in 0..2 {
        let (guest, _) = serve(&mut rules, "192.0.2.1", began);
        rules.admit(guest, Some(identity(number)), began).unwrap();
        known.push(guest);
    }
    // The first one was there for long and comes again: tried.
    let now = began + LONG;
    let (again, _) = serve(&mut rules, "192.0.2.1", now);
    rules.gone(known[0]);
    rules.admit(again, Some(identity(0)), now).unwrap();
    let (stranger, _) = serve(&mut rules, "192.0.2.1", now);
    rules.admit(stranger, Some(identity(7)), now).unwrap();
    let (newest, _) = serve(&mut rules, "192.0.2.1", now);
    rules.admit(newest, None, now).unwrap();
    let (fifth, _) = serve(&mut rules, "192.0.2.2", now);
    rules.admit(fifth, None, now).unwrap();
    let mut gone = Vec::new();
    for subnet in 0..2 {
        gone.push(peer(&mut rules, &format!("198.51.{subnet}.1"), now).unwrap().1.unwrap());
    }
    // The second one has been there for long by now.
    assert_eq!(gone, [newest, stranger]);
    assert!(rules.guests.contains_key(&again) && rules.guests.contains_key(&known[1]));
}

// Issue 9, 5: "useful" peers in the order of eviction.
#[test]
fn of_a_crowd_whoever_brought_new_messages_of_late_goes_after_whoever_did_not() {
    let (mut rules, began) = (Rules::new(InboundLimits { total: 4, ..unrated() }), Instant::now());
    let peers: Vec<_> = (0..4).map(|_| peer(&mut rules, "192.0.2.1", began).unwrap().0).collect();
    // All are there for long; the newest two brought something, one of them long ago.
    let now = began + 2 * LONG;
    rules.merit(peers[2]).unwrap().delivered(began);
    rules.merit(peers[3]).unwrap().delivered(now - SECOND);
    let evicted = |rules: &mut Rules, subnet: u8| {
        peer(rules, &format!("198.51.{subnet}.1"), now).unwrap().1.unwrap()
    };
    assert_eq!(evicted(&mut rules, 0), peers[2]);
    assert_eq!(evicted(&mut rules, 1), peers[1]);
    assert!(rules.merit(peers[1]).is_none());
    assert!(rules.guests.contains_key(&peers[3]) && rules.guests.contains_key(&peers[0]));
}

#[test]
fn the_merit_of_an_identity_is_that_of_its_newest_place() {
    let (mut rules, now) = (Rules::new(limits()), Instant::now());
    let (guest, _) = serve(&mut rules, "192.0.2.1", now);
    assert!(rules.merit_of(&identity(1)).is_none() && rules.merit(guest).is_none());
    rules.admit(guest, Some(identity(1)), now).unwrap();
    rules.merit_of(&identity(1)).unwrap().delivered(now);
    assert_eq!(rules.merit(guest).unwrap().idle(now), Some(Duration::ZERO));
    rules.gone(guest);
    assert!(rules.merit_of(&identity(1)).is_none());
}

#[test]
fn configured_peers_get_a_place_and_keep_it() {
    let (mut rules, now) = (Rules::new(InboundLimits { total: 4, ..limits() }), Instant::now());
    rules.configure(identity(1));
    rules.configure_host(ip("198.51.100.1"));
    for _ in 0..4 {
        peer(&mut rules, "192.0.2.1", now).unwrap();
    }
    let (named, _) = serve(&mut rules, "192.0.2.1", now);
    assert!(rules.admit(named, Some(identity(1)), now).unwrap().is_some());
    let host = peer(&mut rules, "198.51.100.1", now).unwrap();
    assert!(host.1.is_some());
    // Two strangers are left of the crowd; strangers of other subnets take one of their places.
    assert!(peer(&mut rules, "203.0.113.1", now).unwrap().1.is_some());
    assert_eq!(peer(&mut rules, "203.0.114.1", now), Err(Refusal::Total));
    // A peer known by its key is let in whatever host it comes from; a host keeps its own bound.
    let mut rules = Rules::new(InboundLimits { per_ip: 1, ..limits() });
    rules.configure(identity(1));
    rules.configure_host(ip("198.51.100.1"));
    assert!(peer(&mut rules, "198.51.100.1", now).is_ok());
    assert_eq!(peer(&mut rules, "198.51.100.1", now), Err(Refusal::PerIp));
    let (named, _) = serve(&mut rules, "198.51.100.1", now);
    assert_eq!(rules.admit(named, Some(identity(1)), now), Ok(None));
}

#[test]
fn an_evicted_guest_is_forgotten_at_once_whatever_comes_of_its_ticket() {
    let (mut rules, now) =
        (Rules::new(InboundLimits { half_open_total: 1, ..limits() }), Instant::now());
    let (first, _) = serve(&mut rules, "192.0.2.1", now);
    let (second, evicted) = serve(&mut rules, "198.51.100.1", now);
    assert_eq!(evicted, Some(first));
    assert_eq!(rules.admit(first, None, now), Err(Refusal::SocketEvicted));
    rules.headed(first);
    rules.leave(first);
    rules.gone(first);
    assert_eq!((rules.sockets(), rules.half_open(), rules.places()), (1, 1, 0));
    rules.gone(second);
    assert_eq!((rules.sockets(), rules.half_open()), (0, 0));
}

/// The state of a guest of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Open {
    guest: Ticket,
    half_open: bool,
    place: bool,
}

proptest! {
    #[test]
    fn the_counts_are_those_of_what_is_open(
        steps in proptest::collection::vec((0_u8..6, 0_u8..8), 0..300),
    ) {
        let small = InboundLimits {
            total: 6,
            per_ip: 3,
            per_subnet: 4,
            half_open_total: 8,
            half_open_per_ip: 4,
            rate: RateWindow { count: 50, window: SECOND },
            ..limits()
        };
        let (mut rules, now) = (Rules::new(small), Instant::now());
        let mut open: Vec<Open> = Vec::new();
        for (step, pick) in steps {
            let from = IpAddr::from([192, 0, pick / 4, pick % 4]);
            let index = usize::from(pick) % open.len().max(1);
            match step {
                0 | 1 => match rules.knock(from, now) {
                    Ruling::Serve { guest, evicted } => {
                        open.retain(|known| Some(known.guest) != evicted);
                        open.push(Open { guest, half_open: true, place: false });
                    }
                    Ruling::Drain { guest } => {
                        open.push(Open { guest, half_open: false, place: false });
                    }
                    Ruling::Close(_) => {}
                },
                2 => if let Some(known) = open.get_mut(index) {
                    rules.headed(known.guest);
                    known.half_open = false;
                },
                3 => if let Some(known) = open.get(index).copied().filter(|known| !known.place)
                    && let Ok(evicted) = rules.admit(known.guest, None, now)
                {
                    prop_assert_ne!(evicted, Some(known.guest));
                    open.retain(|known| Some(known.guest) != evicted);
                    let admitted = open.iter_mut().find(|one| one.guest == known.guest).unwrap();
                    (admitted.half_open, admitted.place) = (false, true);
                },
                4 => if let Some(known) = open.get_mut(index) {
                    rules.leave(known.guest);
                    known.place = false;
                },
                _ => if !open.is_empty() {
                    rules.gone(open.remove(index).guest);
                },
            }
            let count = |is: fn(&Open) -> bool| open.iter().filter(|known| is(known)).count();
            let (half_open, places) = (count(|known| known.half_open), count(|known| known.place));
            prop_assert_eq!(
                (rules.sockets(), rules.half_open(), rules.places()),
                (open.len(), half_open, places)
            );
            prop_assert!(open.len() <= 16 && half_open <= 8 && places <= 6);
        }
        open.into_iter().for_each(|known| rules.gone(known.guest));
        prop_assert_eq!((rules.sockets(), rules.half_open(), rules.places()), (0, 0, 0));
        prop_assert_eq!(rules.half_open_hosts.total() + rules.place_subnets.total(), 0);
    }
}

/// A socket of a proxy.
fn proxied(rules: &mut Rules, now: Instant) -> (Ticket, Option<Ticket>) {
    match rules.knock_of_proxy(now) {
        Ruling::Serve { guest, evicted } => (guest, evicted),
        other => panic!("the proxy was not served: {other:?}"),
    }
}

// Issue 10, 6; threats and goals, row 32.
#[test]
fn a_proxy_is_not_limited_as_one_host_and_its_clients_are() {
    let (mut rules, now) = (Rules::new(limits()), Instant::now());
    for number in 0..100_u8 {
        let (guest, evicted) = proxied(&mut rules, now);
        assert_eq!(evicted, None, "{number}");
        assert_eq!(rules.introduce(guest, ip(&format!("192.0.{number}.1")), now), Ok(None));
        rules.headed(guest);
        assert_eq!(rules.admit(guest, None, now), Ok(None));
    }
    // One client through the proxy meets the same bounds as without it.
    for number in 1..=61 {
        let (guest, _) = proxied(&mut rules, now);
        let introduced = rules.introduce(guest, ip("198.51.100.1"), now);
        assert_eq!(introduced.is_ok(), number <= 60, "{number}");
        let admitted = rules.admit(guest, None, now);
        match number {
            ..=8 => assert_eq!(admitted, Ok(None)),
            9..=60 => assert_eq!(admitted, Err(Refusal::PerIp), "{number}"),
            _ => assert_eq!(admitted, Err(Refusal::SocketEvicted)),
        }
        if admitted.is_err() {
            rules.gone(guest);
        }
    }
    assert_eq!((rules.places(), rules.refused_in_all(Refusal::HostRate)), (108, 1));
    assert_eq!((rules.half_open(), rules.half_open_hosts.total()), (0, 0));
}

// Issue 10, 6.
#[test]
fn half_open_sockets_of_a_proxy_are_bounded_in_all_and_by_client() {
    let few = InboundLimits { half_open_total: 4, half_open_per_ip: 2, ..unrated() };
    let (mut rules, now) = (Rules::new(few), Instant::now());
    let unknown: Vec<_> = (0..4).map(|_| proxied(&mut rules, now).0).collect();
    // None of them has a host yet, so the oldest goes.
    let (fifth, evicted) = proxied(&mut rules, now);
    assert_eq!(evicted, Some(unknown[0]));
    for guest in [unknown[1], unknown[2]] {
        assert_eq!(rules.introduce(guest, ip("192.0.2.1"), now), Ok(None));
    }
    assert_eq!(rules.introduce(fifth, ip("192.0.2.1"), now), Ok(Some(unknown[1])));
    // A socket that a proxy uses for several clients counts for the latest.
    rules.comes_from(fifth, ip("192.0.2.2"));
    assert_eq!(rules.half_open_hosts.of(Host::of(ip("192.0.2.1"))), 1);
    assert_eq!(rules.half_open_hosts.of(Host::of(ip("192.0.2.2"))), 1);
    for guest in [unknown[2], unknown[3], fifth] {
        rules.gone(guest);
    }
    assert_eq!((rules.sockets(), rules.half_open_hosts.total()), (0, 0));
}

// Issue 10, 6: a proxy that uses one connection for many clients cannot move a peer to another host.
#[test]
fn the_host_of_a_place_stays() {
    let (mut rules, now) = (Rules::new(unrated()), Instant::now());
    let (guest, _) = proxied(&mut rules, now);
    assert_eq!(rules.admit(guest, None, now), Err(Refusal::SocketEvicted), "it has no host yet");
    rules.comes_from(guest, ip("192.0.2.1"));
    assert_eq!(rules.admit(guest, None, now), Ok(None));
    rules.comes_from(guest, ip("192.0.2.2"));
    rules.leave(guest);
    assert_eq!(rules.places(), 0);
    assert_eq!(rules.place_hosts.of(Host::of(ip("192.0.2.1"))), 0);
}

// Issue 10, 6.
#[test]
fn a_full_node_gives_sockets_of_a_crowd_up_for_a_client_behind_a_proxy() {
    let (mut rules, now) = (Rules::new(InboundLimits { total: 2, ..unrated() }), Instant::now());
    for number in 0..2 + SOCKET_RESERVE {
        arrive(&mut rules, "192.0.2.1", now + Duration::from_millis(number as u64));
    }
    let (_, evicted) = proxied(&mut rules, now);
    assert!(evicted.is_some());
    assert_eq!(rules.sockets(), 2 + SOCKET_RESERVE);
}

// Issue 12, 6.
#[test]
fn bounds_change_for_newcomers_and_those_who_are_in_stay() {
    let now = Instant::now();
    let mut rules = Rules::new(InboundLimits { total: 3, ..limits() });
    let hosts = ["192.0.2.1", "198.51.100.1", "203.0.113.1"];
    let places: Vec<_> = hosts.iter().map(|host| peer(&mut rules, host, now).unwrap().0).collect();
    rules.resize(InboundLimits { total: 1, ..limits() });
    assert_eq!(rules.places(), 3);
    assert_eq!(peer(&mut rules, "203.0.114.1", now), Err(Refusal::Total));
    for place in &places[..2] {
        rules.leave(*place);
    }
    assert_eq!(peer(&mut rules, "203.0.114.1", now), Err(Refusal::Total));
    rules.resize(InboundLimits { total: 2, ..limits() });
    assert!(peer(&mut rules, "203.0.114.1", now).is_ok());
}
