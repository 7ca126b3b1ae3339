//! Claims of links, and who wins them.

use proptest::prelude::*;

use super::*;

const US: Identity = Identity::from_ed25519([1; 32]);
const THEM: Identity = Identity::from_ed25519([2; 32]);

fn link(number: u64, transport: Transport, dialer: Identity) -> LinkClaim {
    let (link, tie) = (LinkId(number), [0; 32]);
    let path = LinkPath::Direct;
    LinkClaim { link, identity: THEM, transport, path, dialer, session: None, run: None, tie }
}

/// Claims both links, in both orders, and checks that `better` holds the identity.
#[track_caller]
fn wins(better: &LinkClaim, worse: &LinkClaim) {
    let mut ledger = Ledger::new(ClaimRule::Ranked);
    assert_eq!(ledger.claim(worse.clone()), Ruling::Keep);
    assert_eq!(ledger.claim(better.clone()), Ruling::Replace { loser: worse.link });
    assert_eq!(ledger.holder(&THEM), Some(better.link));

    let mut ledger = Ledger::new(ClaimRule::Ranked);
    assert_eq!(ledger.claim(better.clone()), Ruling::Keep);
    let refused = ledger.claim(worse.clone());
    assert!(matches!(refused, Ruling::Refuse { winner, .. } if winner == better.link));
    assert_eq!(ledger.holder(&THEM), Some(better.link));
}

#[test]
fn libp2p_beats_websocket_beats_memory_whoever_dialled() {
    for dialer in [US, THEM] {
        let websocket = link(2, Transport::WebSocket, dialer);
        wins(&link(1, Transport::Libp2p, THEM), &websocket);
        wins(&websocket, &link(3, Transport::Memory, US));
    }
}

// Issue 11, 2.
#[test]
fn of_one_transport_the_direct_link_stays_whoever_dialled() {
    for dialer in [US, THEM] {
        let circuit = LinkClaim { path: LinkPath::Relayed, ..link(1, Transport::Libp2p, US) };
        wins(&link(2, Transport::Libp2p, dialer), &circuit);
        wins(&circuit, &link(3, Transport::WebSocket, dialer));
    }
}

// Issue 11, 2.
#[test]
fn first_verified_moves_from_a_circuit_to_a_direct_link_and_not_back() {
    let direct = LinkClaim { session: Some(1), ..link(1, Transport::Libp2p, US) };
    let circuit =
        LinkClaim { path: LinkPath::Relayed, session: Some(2), ..link(2, Transport::Libp2p, US) };
    let mut ledger = Ledger::new(ClaimRule::FirstVerified);
    assert_eq!(ledger.claim(circuit.clone()), Ruling::Keep);
    assert_eq!(ledger.claim(direct.clone()), Ruling::Replace { loser: circuit.link });
    assert_eq!(ledger.patience(&THEM), SETTLE_PATIENCE);
    let mut ledger = Ledger::new(ClaimRule::FirstVerified);
    assert_eq!(ledger.claim(direct), Ruling::Keep);
    assert!(matches!(ledger.claim(circuit), Ruling::Refuse { .. }));
}

#[test]
fn of_one_transport_the_link_dialled_by_the_smaller_key_stays() {
    for transport in [Transport::Libp2p, Transport::WebSocket] {
        wins(&link(1, transport, US), &link(2, transport, THEM));
    }
}

#[test]
fn a_restarted_dialer_replaces_its_old_link_and_a_late_claim_of_the_old_one_is_refused() {
    let run = |number, session, tie| LinkClaim {
        session,
        tie: [tie; 32],
        ..link(number, Transport::WebSocket, THEM)
    };
    wins(&run(8, Some(3), 9), &run(7, Some(5), 0));
    wins(&run(8, Some(5), 9), &run(7, Some(3), 0));
}

#[test]
fn between_two_dials_of_one_run_or_of_unknown_runs_the_smaller_tie_stays() {
    for (one, other) in [(None, None), (Some(3), None), (None, Some(3)), (Some(3), Some(3))] {
        let base = link(1, Transport::Libp2p, US);
        let better = LinkClaim { session: one, tie: [4; 32], ..base.clone() };
        let worse = LinkClaim { link: LinkId(2), session: other, tie: [5; 32], ..base };
        wins(&better, &worse);
    }
}

#[test]
fn first_verified_keeps_the_first_until_it_is_released() {
    let mut ledger = Ledger::new(ClaimRule::FirstVerified);
    let (first, second) = (link(1, Transport::Memory, THEM), link(2, Transport::Libp2p, US));
    assert_eq!(ledger.claim(first), Ruling::Keep);
    let (winner, doubt, standing) = (LinkId(1), Doubt::Pings, Standing::Equal);
    let refused = Ruling::Refuse { winner, doubt, standing };
    assert_eq!(ledger.claim(second.clone()), refused);
    assert_eq!(ledger.release(LinkId(2)), None);
    assert_eq!(ledger.holder(&THEM), Some(LinkId(1)));
    assert_eq!(ledger.release(LinkId(1)), None);
    assert_eq!(ledger.claim(second), Ruling::Keep);
    assert_eq!(ledger.closer(&THEM), Some(Closer::ThisEnd));
}

#[test]
fn first_verified_lets_a_peer_come_back_on_another_libp2p_connection() {
    let mut ledger = Ledger::new(ClaimRule::FirstVerified);
    let on = |number, connection, transport| LinkClaim {
        session: Some(connection),
        ..link(number, transport, THEM)
    };
    assert_eq!(ledger.claim(on(1, 1, Transport::Libp2p)), Ruling::Keep);
    let refused = |winner, standing| Ruling::Refuse { winner, doubt: Doubt::Pings, standing };
    let same = ledger.claim(on(2, 1, Transport::Libp2p));
    assert_eq!(same, refused(LinkId(1), Standing::Equal));
    let other = ledger.claim(on(3, 2, Transport::Libp2p));
    assert_eq!(other, Ruling::Replace { loser: LinkId(1) });
    let claimed = ledger.claim(on(4, 3, Transport::WebSocket));
    assert_eq!(claimed, refused(LinkId(3), Standing::Lower));
}

#[test]
fn the_release_of_a_replaced_link_does_not_free_the_identity() {
    let mut ledger = Ledger::new(ClaimRule::Ranked);
    assert_eq!(ledger.claim(link(1, Transport::WebSocket, US)), Ruling::Keep);
    let ruling = ledger.claim(link(2, Transport::Libp2p, US));
    assert_eq!(ruling, Ruling::Replace { loser: LinkId(1) });
    assert_eq!(ledger.release(LinkId(1)), None);
    assert_eq!((ledger.holder(&THEM), ledger.len()), (Some(LinkId(2)), 1));
}

#[test]
fn a_loser_that_is_still_open_takes_over_when_the_winner_is_released() {
    let mut ledger = Ledger::new(ClaimRule::Ranked);
    assert_eq!(ledger.claim(link(1, Transport::WebSocket, US)), Ruling::Keep);
    let ruling = ledger.claim(link(2, Transport::Libp2p, US));
    assert_eq!(ruling, Ruling::Replace { loser: LinkId(1) });
    assert_eq!(ledger.release(LinkId(2)), Some(LinkId(1)));
    assert_eq!((ledger.holder(&THEM), ledger.benched(&THEM)), (Some(LinkId(1)), vec![]));
    assert_eq!(ledger.release(LinkId(1)), None);
    assert!(ledger.is_empty());
    assert_eq!((ledger.holder(&THEM), ledger.closer(&THEM)), (None, None));
}

#[test]
fn the_best_of_the_losers_takes_over() {
    let mut ledger = Ledger::new(ClaimRule::Ranked);
    assert_eq!(ledger.claim(link(1, Transport::Libp2p, US)), Ruling::Keep);
    for number in 2..=5 {
        let tie = [9 - number as u8; 32];
        let claim = LinkClaim { tie, ..link(number, Transport::WebSocket, THEM) };
        assert!(matches!(ledger.claim(claim), Ruling::Refuse { .. }));
    }
    assert_eq!(ledger.benched(&THEM), [2, 3, 4, 5].map(LinkId));
    assert_eq!(ledger.release(LinkId(1)), Some(LinkId(5)), "the smallest tie");
    assert_eq!(ledger.release(LinkId(3)), None);
    assert_eq!(ledger.release(LinkId(5)), Some(LinkId(4)));
}

#[test]
fn a_claim_over_plain_websocket_has_a_lower_standing_than_a_proven_identity() {
    use Transport::{Libp2p, WebSocket};
    for rule in [ClaimRule::Ranked, ClaimRule::FirstVerified] {
        for (holder, newcomer, expected) in [
            (Libp2p, WebSocket, Standing::Lower),
            (WebSocket, WebSocket, Standing::Equal),
            (Libp2p, Libp2p, Standing::Equal),
        ] {
            let mut ledger = Ledger::new(rule);
            assert_eq!(ledger.claim(link(1, holder, US)), Ruling::Keep);
            let newcomer = LinkClaim { tie: [9; 32], ..link(2, newcomer, THEM) };
            let (winner, doubt, standing) = (LinkId(1), Doubt::Pings, expected);
            let refused = Ruling::Refuse { winner, doubt, standing };
            assert_eq!(ledger.claim(newcomer), refused);
        }
    }
}

// Issue 8, 8.
#[test]
fn a_newcomer_of_another_session_is_a_rival_where_the_first_link_stays() {
    let of = |number, session, dialer| LinkClaim {
        session: Some(session),
        ..link(number, Transport::WebSocket, dialer)
    };
    let mut ledger = Ledger::new(ClaimRule::FirstVerified);
    assert_eq!(ledger.claim(of(1, 1, THEM)), Ruling::Keep);
    for (claim, doubt) in [
        (of(2, 2, THEM), Doubt::Rivals),
        (of(3, 1, THEM), Doubt::Pings),
        (of(4, 2, US), Doubt::Pings),
    ] {
        let (winner, standing) = (LinkId(1), Standing::Equal);
        assert_eq!(ledger.claim(claim), Ruling::Refuse { winner, doubt, standing });
    }
}

// Issue 8, 8. Before, two nodes with one key on different transports shadowed each other in silence.
#[test]
fn runs_are_compared_over_all_transports_and_dialers_where_both_are_known() {
    use Transport::{Libp2p, WebSocket};
    let of = |number, transport, dialer, run, session| LinkClaim {
        run,
        session: Some(session),
        ..link(number, transport, dialer)
    };
    for (rule, newcomer, expected) in [
        (ClaimRule::Ranked, of(2, WebSocket, THEM, Some(2), 0), Doubt::Rivals),
        (ClaimRule::Ranked, of(2, WebSocket, US, Some(2), 0), Doubt::Rivals),
        (ClaimRule::Ranked, of(2, WebSocket, THEM, Some(1), 0), Doubt::Pings),
        (ClaimRule::Ranked, of(2, WebSocket, THEM, None, 0), Doubt::Pings),
        (ClaimRule::FirstVerified, of(2, WebSocket, THEM, Some(2), 0), Doubt::Rivals),
        (ClaimRule::FirstVerified, of(2, WebSocket, US, None, 7), Doubt::Pings),
    ] {
        let mut ledger = Ledger::new(rule);
        assert_eq!(ledger.claim(of(1, Libp2p, THEM, Some(1), 0)), Ruling::Keep);
        let is_other = expected == Doubt::Rivals;
        assert_eq!(ledger.is_of_another_session(&newcomer), is_other, "{newcomer:?}");
        let ruling = ledger.claim(newcomer.clone());
        assert!(matches!(ruling, Ruling::Refuse { doubt, .. } if doubt == expected), "{ruling:?}");
    }
    // A dialer that dials again within its run has no rival, although its dials are numbered.
    let mut ledger = Ledger::new(ClaimRule::Ranked);
    assert_eq!(ledger.claim(of(1, Libp2p, THEM, Some(1), 1)), Ruling::Keep);
    assert!(!ledger.is_of_another_session(&of(2, Libp2p, THEM, Some(1), 2)));
}

// Issue 8, 8.
#[test]
fn sessions_are_compared_where_both_links_are_of_one_transport_and_one_dialer() {
    let of = |session, transport, dialer| LinkClaim { session, ..link(2, transport, dialer) };
    let mut ledger = Ledger::new(ClaimRule::Ranked);
    let holder = of(Some(1), Transport::Libp2p, THEM);
    assert!(!ledger.is_of_another_session(&holder), "nobody holds it");
    assert_eq!(ledger.claim(holder), Ruling::Keep);
    for (claim, expected) in [
        (of(Some(2), Transport::Libp2p, THEM), true),
        (of(Some(1), Transport::Libp2p, THEM), false),
        (of(None, Transport::Libp2p, THEM), false),
        (of(Some(2), Transport::WebSocket, THEM), false),
        (of(Some(2), Transport::Libp2p, US), false),
    ] {
        assert_eq!(ledger.is_of_another_session(&claim), expected, "{claim:?}");
    }
}

#[test]
fn claiming_twice_for_one_link_changes_nothing() {
    let mut ledger = Ledger::new(ClaimRule::Ranked);
    for _ in 0..2 {
        assert_eq!(ledger.claim(link(1, Transport::WebSocket, US)), Ruling::Keep);
    }
    assert_eq!(ledger.len(), 1);
}

#[test]
fn a_link_holds_one_identity_only() {
    let mut ledger = Ledger::new(ClaimRule::Ranked);
    let claim = link(1, Transport::WebSocket, US);
    assert_eq!(ledger.claim(claim.clone()), Ruling::Keep);
    let other = Identity::from_ed25519([3; 32]);
    assert_eq!(ledger.claim(LinkClaim { identity: other, ..claim }), Ruling::Keep);
    assert_eq!((ledger.holder(&THEM), ledger.holder(&other)), (None, Some(LinkId(1))));
}

#[test]
fn the_end_that_listened_on_the_winner_closes_the_loser() {
    let mut ledger = Ledger::new(ClaimRule::Ranked);
    assert_eq!(ledger.claim(link(1, Transport::WebSocket, THEM)), Ruling::Keep);
    assert_eq!(ledger.closer(&THEM), Some(Closer::ThisEnd));
    let ruling = ledger.claim(link(2, Transport::Libp2p, US));
    assert_eq!(ruling, Ruling::Replace { loser: LinkId(1) });
    assert_eq!(ledger.closer(&THEM), Some(Closer::Peer));
}

fn claims() -> impl Strategy<Value = Vec<LinkClaim>> {
    let transport =
        prop_oneof![Just(Transport::Libp2p), Just(Transport::WebSocket), Just(Transport::Memory)];
    let claim = (transport, prop_oneof![Just(US), Just(THEM)], any::<[u8; 32]>());
    proptest::collection::vec(claim, 1..8).prop_map(|claims| {
        let number = |(at, (transport, dialer, tie)): (usize, _)| LinkClaim {
            tie,
            ..link(at as u64, transport, dialer)
        };
        claims.into_iter().enumerate().map(number).collect()
    })
}

proptest! {
    #[test]
    fn the_holder_does_not_depend_on_the_order_of_the_claims(
        (sorted, shuffled) in claims()
            .prop_flat_map(|claims| (Just(claims.clone()), Just(claims).prop_shuffle())),
    ) {
        let holder = |claims: Vec<LinkClaim>| {
            let mut ledger = Ledger::new(ClaimRule::Ranked);
            for claim in claims {
                // Only where they end up matters here.
                let _ = ledger.claim(claim);
            }
            ledger.holder(&THEM)
        };
        prop_assert_eq!(holder(sorted), holder(shuffled));
    }

    #[test]
    fn an_identity_is_held_exactly_until_the_last_of_its_links_is_released(
        steps in proptest::collection::vec((0_u64..6, any::<bool>()), 0..40),
        rule in prop_oneof![Just(ClaimRule::Ranked), Just(ClaimRule::FirstVerified)],
    ) {
        let mut ledger = Ledger::new(rule);
        let mut expected = None;
        for (number, claims) in steps {
            if claims {
                let tie = [number as u8; 32];
                let claim = LinkClaim { tie, ..link(number, Transport::Libp2p, US) };
                match ledger.claim(claim) {
                    Ruling::Keep => {
                        prop_assert!(expected.is_none() || expected == Some(LinkId(number)));
                        expected = Some(LinkId(number));
                    }
                    Ruling::Replace { loser } => {
                        prop_assert_eq!(expected, Some(loser));
                        expected = Some(LinkId(number));
                    }
                    Ruling::Refuse { winner, .. } => prop_assert_eq!(expected, Some(winner)),
                }
            } else {
                let successor = ledger.release(LinkId(number));
                if expected == Some(LinkId(number)) {
                    expected = successor;
                } else {
                    prop_assert_eq!(successor, None);
                }
            }
            prop_assert_eq!(ledger.holder(&THEM), expected);
            prop_assert_eq!(ledger.len(), usize::from(expected.is_some()));
            let benched = ledger.benched(&THEM).len();
            prop_assert!(benched == 0 || expected.is_some());
            prop_assert_eq!(ledger.held.len() + benched, ledger.claimed.len());
        }
    }
}
