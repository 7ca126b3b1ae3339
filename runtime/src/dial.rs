//! Racing the addresses of a name, as in RFC 8305.
//!
//! ```text
//!   v6 a ──────────────────────✕ or still waiting
//!        250 ms │ v4 b ─────────▶ connected: the others are given up
//!               250 ms │ v6 c …
//! ```
//!
//! # Invariants
//!
//! * The families take turns, the one that the resolver put first begins, and within a family the
//!   resolver's order stays.
//! * The next address is tried when the one before has failed, or has not answered within
//!   [`CONNECTION_ATTEMPT_DELAY`]; none that was begun is given up before another is connected.
//! * One deadline covers all of them.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};

use crate::time::{self, Instant};

/// Time for which an address is tried alone before the next one is tried too. Source: RFC 8305, section 5 and 8,
/// the recommended connection attempt delay.
pub const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried. Chosen: at four a second they all have their turn within half of
/// what a dial may take.
pub const MAX_DIALLED_ADDRESSES: usize = 16;

/// Why no address of a name was reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The name could not be looked up, or has no address.
    #[error("cannot look up {name}")]
    Unresolved {
        /// Host and port.
        name: String,
        /// The error of the resolver.
        source: io::Error,
    },
    /// The resolver did not answer in time.
    #[error("looking up {name} took too long")]
    LookUpTimedOut {
        /// Host and port.
        name: String,
    },
    /// Every address refused.
    #[error("{}", list(failures))]
    Refused {
        /// The addresses that were tried, and what the system said of each.
        failures: Vec<(SocketAddr, io::Error)>,
    },
    /// Some address did not answer in time, and none that did was reached.
    #[error("no answer in time; tried {}", all_tried(silent, failures))]
    TimedOut {
        /// The addresses that had not answered.
        silent: Vec<SocketAddr>,
        /// Those that had, and what the system said of each.
        failures: Vec<(SocketAddr, io::Error)>,
    },
}

fn list(failures: &[(SocketAddr, io::Error)]) -> String {
    let texts: Vec<_> =
        failures.iter().map(|(address, error)| format!("{address}: {error}")).collect();
    texts.join("; ")
}

fn all_tried(silent: &[SocketAddr], failures: &[(SocketAddr, io::Error)]) -> String {
    let silent = silent.iter().map(|address| format!("{address}: no answer"));
    let failed = failures.iter().map(|(address, error)| format!("{address}: {error}"));
    silent.chain(failed).collect::<Vec<_>>().join("; ")
}

/// Puts the families in turns.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let (ours, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let (mut ours, mut others) = (ours.into_iter(), others.into_iter());
    let mut ordered = Vec::new();
    loop {
        let (one, other) = (ours.next(), others.next());
        if one.is_none() && other.is_none() {
            ordered.truncate(MAX_DIALLED_ADDRESSES);
            return ordered;
        }
        ordered.extend(one);
        ordered.extend(other);
    }
}

/// Connects to whichever address answers first.
pub(crate) async fn race<S, F: Future<Output = io::Result<S>>>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
    deadline: Instant,
) -> Result<S, DialError> {
    let mut waiting = in_turns(addresses).into_iter();
    let (mut silent, mut failures) = (Vec::new(), Vec::new());
    let mut attempts = FuturesUnordered::new();
    loop {
        match waiting.next() {
            Some(address) => {
                let attempt = connect(address);
                silent.push(address);
                attempts.push(async move { (address, attempt.await) });
            }
            None if attempts.is_empty() => return Err(DialError::Refused { failures }),
            None => {}
        }
        let patience = if waiting.len() > 0 {
            deadline.min(Instant::now() + CONNECTION_ATTEMPT_DELAY)
        } else {
            deadline
        };
        match time::timeout_at(patience, attempts.next()).await {
            Ok(Some((_, Ok(stream)))) => return Ok(stream),
            Ok(Some((address, Err(error)))) => {
                silent.retain(|tried| *tried != address);
                failures.push((address, error));
            }
            Ok(None) => {}
            Err(_elapsed) if Instant::now() >= deadline => {
                return Err(DialError::TimedOut { silent, failures });
            }
            Err(_elapsed) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: Duration = Duration::from_millis(30);
    const LIMIT: Duration = Duration::from_secs(10);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// `::dead` refuses, `::bad` never answers, anything else is there after a while.
    async fn connect(to: SocketAddr) -> io::Result<SocketAddr> {
        match to.ip().to_string().as_str() {
            "::dead" => Err(io::ErrorKind::ConnectionRefused.into()),
            "::bad" | "192.0.2.1" => std::future::pending().await,
            _ => {
                time::sleep(LIVE).await;
                Ok(to)
            }
        }
    }

    async fn dial(addresses: &[&str]) -> (Result<SocketAddr, DialError>, Duration) {
        let began = Instant::now();
        let addresses = addresses.iter().map(|text| address(text)).collect();
        let outcome = race(addresses, connect, began + LIMIT).await;
        (outcome, began.elapsed())
    }

    // Issue 9, 10; issue 8, 5.
    #[tokio::test(start_paused = true)]
    async fn a_silent_first_address_costs_a_quarter_of_a_second() {
        let (outcome, took) = dial(&["[::bad]:1", "127.0.0.1:1"]).await;
        assert_eq!(outcome.unwrap(), address("127.0.0.1:1"));
        assert_eq!(took, CONNECTION_ATTEMPT_DELAY + LIVE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_address_that_refuses_costs_nothing() {
        let (outcome, took) = dial(&["[::dead]:1", "[::dead]:2", "127.0.0.1:1"]).await;
        assert_eq!(outcome.unwrap(), address("127.0.0.1:1"));
        assert_eq!(took, LIVE);
    }

    #[tokio::test(start_paused = true)]
    async fn one_deadline_covers_all_addresses() {
        let (outcome, took) = dial(&["[::bad]:1", "192.0.2.1:1", "[::dead]:1"]).await;
        assert_eq!(took, LIMIT);
        let text = outcome.unwrap_err().to_string();
        assert_eq!(
            text,
            "no answer in time; tried [::bad]:1: no answer; 192.0.2.1:1: no answer; [::dead]:1: connection refused"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_refuse_the_dial_ends_at_once_and_names_them() {
        let (outcome, took) = dial(&["[::dead]:1", "[::dead]:2"]).await;
        assert_eq!(took, Duration::ZERO);
        let text = outcome.unwrap_err().to_string();
        assert_eq!(text, "[::dead]:1: connection refused; [::dead]:2: connection refused");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_is_slow_may_still_win() {
        // The first takes longer than the delay; the second never answers.
        let slow = |to: SocketAddr| async move {
            let wait = if to.is_ipv6() { Duration::from_millis(400) } else { LIMIT };
            time::sleep(wait).await;
            Ok(to)
        };
        let began = Instant::now();
        let all = vec![address("[::1]:1"), address("127.0.0.1:1")];
        let won = race(all, slow, began + LIMIT).await.unwrap();
        assert_eq!((won, began.elapsed()), (address("[::1]:1"), Duration::from_millis(400)));
    }

    #[test]
    fn families_take_turns_and_the_first_one_begins() {
        let all = ["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"];
        let turns = ["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"];
        assert_eq!(in_turns(all.map(address).to_vec()), turns.map(address));
        let many = (1..100).map(|port| SocketAddr::new([10, 0, 0, 1].into(), port)).collect();
        assert_eq!(in_turns(many).len(), MAX_DIALLED_ADDRESSES);
    }
}
