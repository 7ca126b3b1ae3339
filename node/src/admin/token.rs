//! The bearer token of the admin API over TCP, and the hosts that have named wrong ones.
//!
//! # Invariants
//!
//! * A token is compared in a time that does not depend on how much of it is right.
//! * The file belongs to its owner alone from the moment it has its name. One that others can read is refused.
//! * A host that named [`MAX_WRONG`] wrong tokens is not heard for the rest of [`WINDOW`], whatever it names then.
//! * At most [`MAX_HOSTS`] hosts are remembered.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Write},
    net::IpAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use gossip::Host;
use rand::Rng;
use subtle::ConstantTimeEq;
use tandem::Random;

use super::problem::refuse;

/// Name of the file in the data directory.
const FILE: &str = "admin.token";

/// Bytes of a new token, each two letters of its text. Chosen: nobody guesses 256 bits.
const TOKEN_BYTES: usize = 32;

/// Shortest token of an operator's own, in letters. Chosen: 128 bits of hex.
const MIN_LETTERS: usize = 32;

/// Longest one. Chosen: what fits in a header.
const MAX_LETTERS: usize = 1_024;

/// Wrong tokens of one host in a [`WINDOW`] after which it is not heard. Chosen: a person tries a few times.
const MAX_WRONG: u32 = 10;

/// Time after which the wrong tokens of a host are forgotten. Chosen: 14,400 guesses a day, of 2^256.
const WINDOW: Duration = Duration::from_secs(60);

/// Hosts that are remembered. Chosen: 64 KiB.
const MAX_HOSTS: usize = 1_024;

/// The reason why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// The file could not be read or made.
    #[error("cannot use the file of the admin token {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Others than its owner may read it.
    #[error("others can read the admin token {}: run chmod 600 on it, and change the token if somebody may have read it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no token.
    #[error("the file {} holds no token: {MIN_LETTERS} to {MAX_LETTERS} letters and digits; a node makes a new one if there is no file", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// A secret that opens the admin API. Its text is in no output but that of `tandem dashboard`.
pub(crate) struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Reads the token of a data directory, and makes one if there is none.
    pub(crate) fn of(dir: &Path, random: &mut Random) -> Result<Self, TokenError> {
        let path = dir.join(FILE);
        match read(&path) {
            Err(TokenError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let bytes: [u8; TOKEN_BYTES] = random.random();
                let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                make(&path, &text).map_err(|source| TokenError::File { path, source })?;
                Ok(Self(text))
            }
            other => other.map(Self),
        }
    }

    /// Reads the token of a data directory.
    pub(crate) fn kept(dir: &Path) -> Result<Self, TokenError> {
        read(&dir.join(FILE)).map(Self)
    }

    /// Its text, for its owner.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    fn is(&self, named: &str) -> bool {
        // Of different lengths they differ; the length is no secret.
        self.0.as_bytes().ct_eq(named.as_bytes()).into()
    }
}

/// Writes the file beside its place, and moves it there.
fn make(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("token.new");
    // A node that was killed may have left it.
    let _ = fs::remove_file(&beside);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

fn read(path: &Path) -> Result<String, TokenError> {
    let failed = |source| TokenError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
        return Err(TokenError::Open { path: path.to_owned() });
    }
    let mut text = String::new();
    file.take(2 * MAX_LETTERS as u64).read_to_string(&mut text).map_err(failed)?;
    let text = text.trim();
    let is_token = (MIN_LETTERS..=MAX_LETTERS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_token {
        Ok(text.to_owned())
    } else {
        Err(TokenError::Malformed { path: path.to_owned() })
    }
}

/// Requests that named no right token, for a metric.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    token: AtomicU64,
    rate: AtomicU64,
}

impl Refused {
    /// Requests without the token, or with a wrong one.
    pub(crate) fn token(&self) -> u64 {
        self.token.load(Ordering::Relaxed)
    }

    /// Requests of hosts that had named too many wrong tokens.
    pub(crate) fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }
}

/// The one who looks at tokens.
#[derive(Debug)]
pub(super) struct Gatekeeper {
    token: Token,
    wrong: Mutex<HashMap<Host, Wrong>>,
}

/// The wrong tokens of a host.
#[derive(Clone, Copy, Debug)]
struct Wrong {
    since: Instant,
    count: u32,
}

impl Gatekeeper {
    pub(super) fn new(token: Token) -> Self {
        Self { token, wrong: Mutex::default() }
    }

    /// Lets a request in that names the token.
    pub(super) fn admits(
        &self,
        headers: &HeaderMap,
        (from, now): (IpAddr, Instant),
        refused: &Refused,
    ) -> Result<(), Response> {
        let host = Host::of(from);
        let mut wrong = self.wrong();
        let is_recent = |wrong: &Wrong| now.saturating_duration_since(wrong.since) < WINDOW;
        let before = wrong.get(&host).copied().filter(is_recent);
        if before.is_some_and(|wrong| wrong.count >= MAX_WRONG) {
            refused.rate.fetch_add(1, Ordering::Relaxed);
            let text = "too many wrong tokens came from this host: wait a minute";
            return Err(refuse(StatusCode::TOO_MANY_REQUESTS, text));
        }
        if named(headers).is_some_and(|named| self.token.is(named)) {
            return Ok(());
        }
        refused.token.fetch_add(1, Ordering::Relaxed);
        let count = before.map_or(0, |wrong| wrong.count) + 1;
        let since = before.map_or(now, |wrong| wrong.since);
        if wrong.len() >= MAX_HOSTS && !wrong.contains_key(&host) {
            wrong.retain(|_, wrong| is_recent(wrong));
            if wrong.len() >= MAX_HOSTS {
                let oldest =
                    wrong.iter().min_by_key(|(_, wrong)| wrong.since).map(|(host, _)| *host);
                oldest.and_then(|oldest| wrong.remove(&oldest));
            }
        }
        wrong.insert(host, Wrong { since, count });
        drop(wrong);
        let text =
            "name the token of the data directory's file admin.token: Authorization: Bearer TOKEN";
        let mut response = refuse(StatusCode::UNAUTHORIZED, text);
        let bearer = HeaderValue::from_static("Bearer realm=\"tandem\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        Err(response)
    }

    fn wrong(&self) -> MutexGuard<'_, HashMap<Host, Wrong>> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token that a request names. Source: RFC 6750, 2.1.
fn named(headers: &HeaderMap) -> Option<&str> {
    let mut named = headers.get_all(header::AUTHORIZATION).iter();
    let text = named.next()?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    // Of two headers nobody knows which one a proxy has looked at.
    let is_alone = named.next().is_none() && scheme.eq_ignore_ascii_case("bearer");
    is_alone.then(|| token.trim_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeper() -> (Gatekeeper, Refused) {
        (Gatekeeper::new(Token("right".repeat(8))), Refused::default())
    }

    fn headers(text: &str) -> HeaderMap {
        [(header::AUTHORIZATION, text.parse().unwrap())].into_iter().collect()
    }

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(0xC000_0200 + number))
    }

    #[track_caller]
    fn answers(keeper: &(Gatekeeper, Refused), text: &str, at: (IpAddr, Instant), status: u16) {
        let answer = keeper.0.admits(&headers(text), at, &keeper.1);
        assert_eq!(answer.map_or_else(|no| no.status().as_u16(), |()| 200), status, "{text}");
    }

    #[test]
    fn only_the_token_itself_opens() {
        let (keeper, now) = (keeper(), Instant::now());
        let right = "right".repeat(8);
        answers(&keeper, &format!("Bearer {right}"), (ip(1), now), 200);
        answers(&keeper, &format!("bearer  {right}"), (ip(1), now), 200);
        let wrong = [
            String::new(),
            right.clone(),
            format!("Basic {right}"),
            format!("Bearer {right}x"),
            format!("Bearer {}", &right[1..]),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
        ];
        for text in &wrong {
            answers(&keeper, text, (ip(1), now), 401);
        }
        let none = keeper.0.admits(&HeaderMap::new(), (ip(1), now), &keeper.1).unwrap_err();
        assert_eq!(none.status(), StatusCode::UNAUTHORIZED);
        assert!(none.headers().contains_key(header::WWW_AUTHENTICATE));
        let mut twice = headers(&format!("Bearer {right}"));
        twice.append(header::AUTHORIZATION, "Bearer x".parse().unwrap());
        assert!(keeper.0.admits(&twice, (ip(1), now), &keeper.1).is_err());
        assert_eq!(keeper.1.token(), wrong.len() as u64 + 2);
    }

    #[test]
    fn a_host_that_guesses_is_not_heard_for_a_while() {
        let (keeper, now) = (keeper(), Instant::now());
        let right = format!("Bearer {}", "right".repeat(8));
        for _ in 0..MAX_WRONG {
            answers(&keeper, "Bearer wrong", (ip(1), now), 401);
        }
        answers(&keeper, &right, (ip(1), now), 429);
        answers(&keeper, &right, (ip(2), now), 200);
        answers(&keeper, &right, (ip(1), now + WINDOW), 200);
        assert_eq!((keeper.1.token(), keeper.1.rate()), (u64::from(MAX_WRONG), 1));
    }

    #[test]
    fn hosts_that_guess_are_remembered_within_a_bound() {
        let (keeper, now) = (keeper(), Instant::now());
        for number in 0..2 * MAX_HOSTS as u32 {
            answers(&keeper, "Bearer wrong", (ip(number), now), 401);
        }
        assert_eq!(keeper.0.wrong().len(), MAX_HOSTS);
    }

    #[test]
    fn a_token_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let token = || Token::of(dir.path(), &mut Random::system());
        let first = token().unwrap();
        assert_eq!((first.0.len(), token().unwrap().0), (2 * TOKEN_BYTES, first.0.clone()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(&first.0));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let told = token().unwrap_err().to_string();
        assert!(told.contains("chmod 600") && !told.contains(&first.0), "{told}");
        for text in ["", "short", "with a space in it, and long enough"] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(token(), Err(TokenError::Malformed { .. })), "{text}");
        }
    }
}
