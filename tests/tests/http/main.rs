//! The table of HTTP cases, which runs on every route.
//!
//! ```text
//!   cases ──▶ Route ──┬─▶ TCP
//!                   ├─▶ TLS
//!                   ├─▶ a libp2p stream
//!                   └─▶ tandem forward, then a libp2p stream
//! ```
//!
//! Each case is written once, and runs as a test on each route. Its expectations are the same on every route;
//! where that is impossible, the case gives the reason.
//!
//! # Invariants
//!
//! * Every wait has a deadline, so a wrong answer ends a test and never hangs it.

mod ending;
mod equal;
mod exchange;
mod killed;
mod large;
mod malformed;
mod outcome;
mod raw;
mod scene;
mod streaming;

/// Makes every case a test of one route.
macro_rules! suite {
    ($name:ident, $way:ident) => {
        suite! { @ $name, $way;
            exchange: [
                every_row_of_the_table_has_its_outcome,
                a_handler_knows_its_caller_and_the_transport,
                a_slow_handler_delays_no_other_request,
                a_handler_that_panics_costs_one_request,
                many_callers_at_once_lose_no_request,
            ]
            streaming: [
                a_body_streams_both_ways_at_once,
                trailers_go_both_ways,
                a_body_longer_than_its_limit_is_refused,
                a_client_that_drops_a_download_ends_it,
                a_client_that_drops_an_upload_ends_it,
                a_server_that_reads_no_further_ends_an_upload,
                a_download_waits_for_its_reader,
            ]
            ending: [
                a_deadline_ends_the_wait_for_an_answer,
                a_deadline_before_its_turn_means_that_nothing_was_sent,
                a_deadline_ends_a_body,
                a_body_that_stands_still_is_given_up,
                a_peer_that_is_not_there_was_not_reached,
            ]
            raw: [
                three_hundred_pipelined_requests_are_answered_in_order,
                a_request_in_single_bytes_is_answered,
                a_request_is_answered_after_the_end_of_writing,
                a_client_is_told_to_go_on,
                an_old_client_is_answered_and_the_connection_closed,
                a_head_that_does_not_come_ends_the_connection,
                a_body_that_ends_too_early_is_not_taken_for_whole,
                an_answer_that_breaks_off_cannot_be_read_as_whole,
                an_upgrade_that_is_not_offered_changes_nothing,
            ]
            malformed: [
                every_malformed_request_has_its_verdict,
            ]
            killed: [
                a_peer_killed_in_the_middle_of_a_download_is_an_error,
                a_peer_killed_in_the_middle_of_an_upload_is_an_error,
            ]
            large: [
                a_gibibyte_goes_down_in_little_memory,
                a_gibibyte_goes_up_in_little_memory,
            ]
        }
    };
    (@ $name:ident, $way:ident; $($module:ident: [$($case:ident,)*])*) => {
        mod $name {
            $(mod $module {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        crate::$module::$case(testkit::http::route::Route::$way).await;
                    }
                )*
            })*
        }
    };
}

suite!(tcp, Tcp);
suite!(tls, Tls);
suite!(libp2p, Libp2p);
suite!(forward, Forward);
