//! The conformance suite: the behaviour that every network must have.
//!
//! ```text
//!   cases ──▶ Harness ──┬─▶ memory links, on a paused clock
//!                       ├─▶ WsNetwork
//!                       ├─▶ P2pNetwork, over TCP with Noise and with TLS, QUIC, WebSocket and secure WebSocket
//!                       └─▶ HybridNetwork
//! ```
//!
//! Each case is written once; each network runs each case as a test of its own.

mod control;
mod delivery;
mod ending;
mod pressure;
mod relaying;
mod requests;
mod scene;

/// Makes every case of the suite a test of one network.
macro_rules! suite {
    ($network:ident, $harness:ty, $test:meta) => {
        suite! { @ $network, $harness, $test;
            delivery: [
                a_broadcast_reaches_every_peer_once,
                a_transaction_reaches_every_node_once,
                a_proposal_is_compressed_once_and_arrives_as_it_was,
                a_broadcast_may_leave_out_its_sender,
                a_broadcast_may_be_for_one_peer,
                messages_of_a_lane_arrive_in_order,
                a_broadcast_that_is_waited_for_is_written_to_every_peer,
                a_broadcast_that_is_waited_for_gives_up_a_peer_that_dies,
                a_broadcast_whose_caller_gives_up_is_written_all_the_same,
                a_message_at_the_bound_of_its_tag_arrives_and_a_longer_one_is_refused,
            ]
            relaying: [
                a_relay_passes_messages_on,
                a_node_that_does_not_relay_passes_nothing_on,
                a_handler_may_ask_for_a_message_to_be_passed_on,
                an_ignored_message_is_not_passed_on,
                a_rejected_message_ends_the_connection,
                a_message_heard_from_two_sides_is_passed_on_once,
                a_message_comes_back_to_nobody_who_sent_it,
                a_newcomer_gets_a_duplicate_within_the_window,
                an_old_vote_is_heard_again_after_its_window,
            ]
            requests: [
                a_request_gets_its_answer,
                a_request_to_nobody_fails_at_once,
                a_request_that_is_too_long_is_refused,
                a_request_that_is_not_answered_times_out,
                a_request_fails_when_the_peer_leaves,
                an_answer_that_comes_too_late_is_dropped,
                an_answer_that_nobody_asked_for_ends_the_connection,
                requests_under_way_hold_up_no_vote,
            ]
            control: [
                a_peer_gets_only_the_tags_it_asked_for,
                a_list_of_tags_that_cannot_be_read_ends_the_connection,
                an_unknown_tag_is_passed_over,
                a_message_past_the_bound_of_its_tag_ends_the_connection,
                a_large_message_that_a_peer_has_is_not_sent_to_it,
                a_small_message_is_sent_to_a_peer_that_has_it,
                a_large_message_is_announced_to_the_others,
                a_proposal_that_cannot_be_decompressed_ends_the_connection,
            ]
            pressure: [
                a_peer_that_stops_reading_is_cut_off_and_the_others_do_not_notice,
                a_priority_message_overtakes_waiting_bulk,
                bulk_is_not_starved_by_priority,
                a_flood_stays_within_the_budget_and_every_drop_is_counted,
                a_flood_stays_within_the_queue_of_a_peer_and_every_drop_is_counted,
                a_flood_from_a_peer_stays_within_the_budget,
                messages_that_never_end_cost_their_senders_and_nobody_else,
                a_handler_that_stalls_delays_no_vote,
                a_message_that_waits_for_a_stalled_peer_is_heard_from_another,
                a_peer_whose_messages_wait_too_long_is_cut_off,
                a_handler_that_panics_loses_one_message,
                a_handler_that_panics_before_its_first_await_loses_one_message,
            ]
            ending: [
                a_peer_that_dies_within_a_message_delivers_nothing_of_it,
                a_peer_can_be_disconnected,
                a_peer_is_known_by_its_identity,
                a_stopped_node_has_no_task_left,
                a_node_with_stalled_peers_stops_within_the_grace,
            ]
        }
    };
    (@ $network:ident, $harness:ty, $test:meta; $($module:ident: [$($case:ident,)*])*) => {
        mod $network {
            $(mod $module {
                $(
                    #[$test]
                    async fn $case() {
                        crate::$module::$case::<$harness>().await;
                    }
                )*
            })*
        }
    };
}

suite!(memory, testkit::networks::Memory, tokio::test(start_paused = true));
suite!(ws, testkit::networks::Ws, tokio::test(flavor = "multi_thread", worker_threads = 2));
suite!(p2p, testkit::networks::P2p, tokio::test(flavor = "multi_thread", worker_threads = 2));
suite!(
    p2p_over_tls,
    testkit::networks::Libp2pOver<testkit::networks::Tls>,
    tokio::test(flavor = "multi_thread", worker_threads = 2)
);
suite!(
    p2p_over_quic,
    testkit::networks::Libp2pOver<testkit::networks::Quic>,
    tokio::test(flavor = "multi_thread", worker_threads = 2)
);
suite!(
    p2p_over_webrtc,
    testkit::networks::Libp2pOver<testkit::networks::WebRtc>,
    tokio::test(flavor = "multi_thread", worker_threads = 2)
);
suite!(
    p2p_over_web_socket,
    testkit::networks::Libp2pOver<testkit::networks::WebSocket>,
    tokio::test(flavor = "multi_thread", worker_threads = 2)
);
suite!(
    p2p_over_secure_web_socket,
    testkit::networks::Libp2pOver<testkit::networks::SecureWebSocket>,
    tokio::test(flavor = "multi_thread", worker_threads = 2)
);
suite!(hybrid, testkit::networks::Hybrid, tokio::test(flavor = "multi_thread", worker_threads = 2));
