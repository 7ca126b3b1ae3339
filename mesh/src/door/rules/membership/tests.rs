//! Bans and members at the door, call by call, and against a plain list of who is there.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use gossip::LoopbackRule;
use proptest::prelude::*;

use super::*;
use crate::{
    bans::{BanCause, Bans},
    door::{
        limits::{InboundLimits, RateWindow, SOCKET_RESERVE},
        rules::Ruling,
    },
    members::{Member, Members},
};

const HOUR: Duration = Duration::from_secs(3_600);

fn identity(number: u8) -> Identity {
    Identity::from_ed25519([number; 32])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn limits(total: usize) -> InboundLimits {
    let off = RateWindow { count: 0, ..RateWindow::default() };
    InboundLimits {
        total,
        rate: off,
        subnet_rate: off,
        loopback: LoopbackRule::Counted,
        ..InboundLimits::default()
    }
}

/// A list of bans by operators and of members.
fn list(
    version: u64,
    banned: &[&str],
    members: &[u8],
    admit: Admit,
    now: Instant,
) -> Arc<AccessList> {
    let mut bans = Bans::new(now, SystemTime::UNIX_EPOCH);
    for subject in banned {
        bans.ban(subject.parse().unwrap(), HOUR, (BanCause::Operator, ""), now).unwrap();
    }
    let mut set = Members::default();
    set.set(1, members.iter().map(|number| Member::new(identity(*number), []))).unwrap();
    Arc::new(AccessList::new(version, &bans, (&set, admit), now))
}

fn serve(rules: &mut Rules, from: &str, now: Instant) -> Ticket {
    match rules.knock(ip(from), now) {
        Ruling::Serve { guest, .. } => guest,
        other => panic!("{from} was not served: {other:?}"),
    }
}

fn peer(
    rules: &mut Rules,
    (from, who): (&str, Option<u8>),
    now: Instant,
) -> Result<(Ticket, Option<Ticket>), Refusal> {
    let guest = serve(rules, from, now);
    let admitted = rules.admit(guest, who.map(identity), now);
    if admitted.is_err() {
        rules.gone(guest);
    }
    Ok((guest, admitted?))
}

// Issue 10, 4.
#[test]
fn a_ban_closes_the_door_and_ends_those_that_are_inside() {
    let (mut rules, now) = (Rules::new(limits(20)), Instant::now());
    let (by_host, _) = peer(&mut rules, ("192.0.2.1", None), now).unwrap();
    let (by_name, _) = peer(&mut rules, ("198.51.100.1", Some(1)), now).unwrap();
    let (other, _) = peer(&mut rules, ("198.51.100.2", Some(2)), now).unwrap();
    let half_open = serve(&mut rules, "192.0.2.9", now);
    let one = identity(1).to_string();
    let banned = list(1, &["192.0.2.0/24", &one, "a.example:1"], &[], Admit::Everybody, now);
    let mut gone = rules.apply(&banned, now);
    gone.sort();
    assert_eq!(gone, [by_host, by_name, half_open]);
    assert_eq!((rules.sockets(), rules.places()), (1, 1));
    assert_eq!(rules.knock(ip("192.0.2.77"), now), Ruling::Close(Refusal::Banned));
    assert_eq!(peer(&mut rules, ("198.51.100.3", Some(1)), now), Err(Refusal::Banned));
    // A proxy's socket is never the banned one's; its client is.
    let Ruling::Serve { guest, .. } = rules.knock_of_proxy(now) else { panic!("not served") };
    assert_eq!(rules.introduce(guest, ip("192.0.2.5"), now), Err(Refusal::Banned));
    rules.comes_from(guest, ip("192.0.2.5"));
    assert_eq!(rules.admit(guest, None, now), Err(Refusal::Banned));
    // A peer that proves its identity later is refused then.
    let (late, _) = peer(&mut rules, ("203.0.113.1", None), now).unwrap();
    assert_eq!(rules.prove(late, identity(1), now), Err(Refusal::Banned));
    assert_eq!(rules.prove(late, identity(2), now), Ok(()));
    let address = "a.example:1".parse().unwrap();
    assert!(rules.lets_in_announced(None, Some(&address), now).is_err());
    assert!(rules.lets_in_announced(Some(identity(1)), None, now).is_err());
    assert!(rules.lets_in_announced(Some(identity(2)), None, now).is_ok());
    // All of it ends with the bans.
    let later = now + HOUR;
    assert!(peer(&mut rules, ("192.0.2.1", Some(1)), later).is_ok());
    assert!(rules.lets_in_announced(Some(identity(1)), Some(&address), later).is_ok());
    rules.gone(other);
}

#[test]
fn a_ban_by_an_address_that_names_an_identity_bans_the_identity() {
    let (mut rules, now) = (Rules::new(limits(20)), Instant::now());
    let address = format!("/ip4/192.0.2.1/tcp/1/p2p/{}", identity(1));
    rules.apply(&list(1, &[&address], &[], Admit::Everybody, now), now);
    assert_eq!(peer(&mut rules, ("198.51.100.3", Some(1)), now), Err(Refusal::Banned));
    assert!(peer(&mut rules, ("192.0.2.1", Some(2)), now).is_ok());
}

#[test]
fn an_older_list_changes_nothing() {
    let (mut rules, now) = (Rules::new(limits(20)), Instant::now());
    rules.apply(&list(2, &["192.0.2.1"], &[], Admit::Everybody, now), now);
    rules.apply(&list(1, &[], &[], Admit::Everybody, now), now);
    assert_eq!(rules.knock(ip("192.0.2.1"), now), Ruling::Close(Refusal::Banned));
}

// Issue 10, 4.
#[test]
fn places_are_kept_for_members() {
    let (mut rules, now) = (Rules::new(limits(4)), Instant::now());
    rules.apply(&list(1, &[], &[1, 2], Admit::Everybody, now), now);
    // Two places of four are for others, one subnet each.
    for number in 0..2 {
        assert!(peer(&mut rules, (&format!("192.0.{number}.1"), None), now).is_ok());
    }
    assert_eq!(peer(&mut rules, ("198.51.100.1", None), now), Err(Refusal::Total));
    // Members come from wherever they are, and nobody gives way.
    for who in [1, 2] {
        assert_eq!(peer(&mut rules, ("192.0.0.1", Some(who)), now).map(|(_, out)| out), Ok(None));
    }
    assert_eq!(rules.places(), 4);
    // A second connection of a member takes the place of somebody else, never that of a member.
    let (_, out) = peer(&mut rules, ("192.0.0.1", Some(1)), now).unwrap();
    assert!(out.is_some());
    let (_, out) = peer(&mut rules, ("192.0.0.1", Some(1)), now).unwrap();
    assert!(out.is_some());
    assert_eq!((rules.place_hosts.total(), rules.member_places), (0, 4));
    // Members that left are peers like others.
    rules.apply(&list(2, &[], &[2], Admit::Everybody, now), now);
    assert_eq!((rules.place_hosts.total(), rules.member_places), (3, 1));
}

#[test]
fn members_only_are_let_in_besides_peers_that_an_operator_named() {
    let (mut rules, now) = (Rules::new(limits(20)), Instant::now());
    rules.configure(identity(9));
    let (old, _) = peer(&mut rules, ("192.0.2.1", Some(1)), now).unwrap();
    let (stranger, _) = peer(&mut rules, ("192.0.2.1", None), now).unwrap();
    let (named, _) = peer(&mut rules, ("192.0.2.1", Some(9)), now).unwrap();
    let gone = rules.apply(&list(1, &[], &[1], Admit::MembersOnly, now), now);
    assert_eq!(gone, [stranger]);
    assert_eq!(peer(&mut rules, ("192.0.2.1", None), now), Err(Refusal::NotMember));
    assert_eq!(peer(&mut rules, ("192.0.2.1", Some(2)), now), Err(Refusal::NotMember));
    assert!(peer(&mut rules, ("192.0.2.1", Some(9)), now).is_ok());
    // HTTP is for everybody: a socket alone is no peer.
    serve(&mut rules, "192.0.2.1", now);
    let gone = rules.apply(&list(2, &[], &[2], Admit::MembersOnly, now), now);
    assert_eq!(gone, [old]);
    rules.gone(named);
}

#[test]
fn a_claim_gets_a_place_until_it_is_proved_and_makes_room_until_then() {
    let (mut rules, now) = (Rules::new(limits(20)), Instant::now());
    rules.apply(&list(1, &[], &[1], Admit::MembersOnly, now), now);
    let claim = |rules: &mut Rules, who| {
        let guest = serve(rules, "192.0.2.1", now);
        rules.admit_member(guest, identity(who), now).map(|out| (guest, out))
    };
    assert_eq!(claim(&mut rules, 2), Err(Refusal::NotMember));
    let first = claim(&mut rules, 1).unwrap().0;
    assert!(!rules.is_proved(first));
    assert_eq!(rules.prove(first, identity(1), now), Ok(()));
    assert!(rules.is_proved(first));
    let claims: Vec<Ticket> = (0..3).map(|_| claim(&mut rules, 1).unwrap().0).collect();
    // Its places are taken, so the oldest claim gives way, and never the member itself.
    for oldest in claims {
        assert_eq!(claim(&mut rules, 1).unwrap().1, Some(oldest));
    }
    assert_eq!(rules.member_places, PLACES_OF_MEMBER);
    // A peer that claims a member and proves another identity gets no place.
    let liar = claim(&mut rules, 1).unwrap().0;
    assert_eq!(rules.prove(liar, identity(2), now), Err(Refusal::NotMember));
}

#[test]
fn a_peer_that_shows_to_be_a_member_gets_the_place_of_one() {
    let (mut rules, now) = (Rules::new(limits(20)), Instant::now());
    let (guest, _) = peer(&mut rules, ("192.0.2.1", None), now).unwrap();
    rules.apply(&list(1, &[], &[1], Admit::Everybody, now), now);
    assert_eq!(rules.prove(guest, identity(1), now), Ok(()));
    assert_eq!((rules.place_hosts.total(), rules.member_places), (0, 1));
    // And one that showed it before it became one.
    let (early, _) = peer(&mut rules, ("192.0.2.1", None), now).unwrap();
    assert_eq!(rules.prove(early, identity(2), now), Ok(()));
    rules.apply(&list(2, &[], &[1, 2], Admit::Everybody, now), now);
    assert_eq!((rules.place_hosts.total(), rules.member_places), (0, 2));
}

#[test]
fn a_host_of_a_member_finds_a_socket_whoever_took_all() {
    let (mut rules, now) = (Rules::new(limits(2)), Instant::now());
    let mut set = Members::default();
    let member = Member::new(identity(1), ["203.0.113.9:1".parse().unwrap()]);
    set.set(1, [member]).unwrap();
    let bans = Bans::new(now, SystemTime::UNIX_EPOCH);
    let access = AccessList::new(1, &bans, (&set, Admit::Everybody), now);
    rules.apply(&Arc::new(access), now);
    // Sockets of idle clients, none of two in one subnet.
    for number in 0..2 + SOCKET_RESERVE {
        let guest = serve(&mut rules, &format!("192.0.{number}.1"), now);
        rules.headed(guest);
    }
    assert_eq!(rules.knock(ip("198.51.100.1"), now), Ruling::Close(Refusal::Sockets));
    let member = serve(&mut rules, "203.0.113.9", now);
    assert!(rules.admit(member, Some(identity(1)), now).is_ok());
}

proptest! {
    // Issue 10, 4.
    #[test]
    fn a_member_finds_a_place_whatever_others_do(
        calls in proptest::collection::vec((0_u8..6, 0_u8..6, 0_u8..12), 0..80),
    ) {
        const TOTAL: usize = 6;
        let (mut rules, now) = (Rules::new(limits(TOTAL)), Instant::now());
        let mut members: BTreeSet<u8> = BTreeSet::new();
        let mut inside: Vec<(Ticket, Option<u8>)> = Vec::new();
        let mut version = 0;
        for (what, who, pick) in calls {
            let from = format!("192.0.{}.{pick}", pick % 3);
            let mut came = None;
            match what {
                0 => {
                    members = (0..6).filter(|number| (pick ^ who) >> (number % 4) & 1 == 1).collect();
                    version += 1;
                    let set: Vec<u8> = members.iter().copied().collect();
                    let admit = if pick < 6 { Admit::Everybody } else { Admit::MembersOnly };
                    let gone = rules.apply(&list(version, &[], &set, admit, now), now);
                    inside.retain(|(guest, _)| !gone.contains(guest));
                }
                1 if !inside.is_empty() => {
                    let (guest, _) = inside.remove(usize::from(pick) % inside.len());
                    rules.gone(guest);
                }
                2 => came = Some((rules.knock(ip(&from), now), None)),
                _ => came = Some((rules.knock(ip(&from), now), Some(who))),
            }
            if let Some((ruling, who)) = came {
                let Ruling::Serve { guest, evicted } = ruling else { continue };
                inside.retain(|(known, _)| Some(*known) != evicted);
                let is_member = who.is_some_and(|who| members.contains(&who));
                let has_place = inside.iter().any(|(_, known)| *known == who);
                let admitted = match what {
                    3 if is_member => rules.admit_member(guest, identity(who.unwrap_or(0)), now),
                    _ => rules.admit(guest, who.map(identity), now),
                };
                prop_assert!(admitted.is_ok() || !is_member || has_place, "{admitted:?}");
                match admitted {
                    Ok(evicted) => {
                        inside.retain(|(known, _)| Some(*known) != evicted);
                        inside.push((guest, who));
                    }
                    Err(_) => rules.gone(guest),
                }
            }
            prop_assert_eq!(rules.places(), inside.len());
            prop_assert!(rules.places() <= TOTAL);
            for member in &members {
                let theirs = rules.places_of(Some(identity(*member)));
                prop_assert!(theirs <= PLACES_OF_MEMBER);
            }
        }
        let guests: Vec<Ticket> = rules.guests.keys().copied().collect();
        guests.into_iter().for_each(|guest| rules.gone(guest));
        prop_assert_eq!((rules.places(), rules.place_subnets.total()), (0, 0));
    }
}
