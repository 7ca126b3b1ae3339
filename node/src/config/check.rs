//! Why a configuration is refused. Every text names the place and says what to write instead.

use std::{io, path::PathBuf};

use super::{
    key::{Key, Kind},
    origin::Origin,
};

/// Largest distance at which one word is taken for a slip in another. Chosen: two letters.
pub(crate) const MAX_SLIPS: usize = 2;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file is longer than any configuration.
    #[error("the configuration file {} has {length} bytes: it must have at most 1 MiB", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: u64,
    },
    /// The file is not TOML.
    #[error("{at}: {message}")]
    Syntax {
        /// Where it stops being TOML.
        at: Origin,
        /// The words of the parser.
        message: String,
    },
    /// A key that there is not.
    #[error("{at}: unknown key `{name}`{}", hint(*meant))]
    UnknownKey {
        /// Where it stands.
        at: Origin,
        /// The key as written.
        name: String,
        /// The key that may have been meant.
        meant: Option<Key>,
    },
    /// A value of another kind.
    #[error("{} must be {}", place(at, *key), kind(*key))]
    Kind {
        /// Where it stands.
        at: Origin,
        /// The setting that has the value.
        key: Key,
    },
    /// An environment variable that is nearly that of a setting.
    #[error("{variable}: there is no such setting, did you mean {meant}?")]
    UnknownVariable {
        /// The variable.
        variable: String,
        /// The variable that was meant.
        meant: String,
    },
    /// An environment variable that is not Unicode.
    #[error("{variable}: the value is not valid UTF-8")]
    NotText {
        /// The variable.
        variable: String,
    },
    /// A value that cannot be used.
    #[error("{}: {problem}", place(at, *key))]
    Value {
        /// Where it comes from.
        at: Origin,
        /// The setting that has the value.
        key: Key,
        /// The mistake, and what would be right.
        problem: String,
    },
    /// Neither a data directory nor a home directory is set.
    #[error("there is no home directory to keep the node's data in: use --data-dir DIR")]
    NoDataDir,
}

impl ConfigError {
    /// The error for a key that there is not.
    pub(crate) fn unknown_key(at: Origin, name: &str) -> Self {
        let distance = |key: &Key| slips(name, key.spec().name);
        let nearest = Key::ALL.into_iter().min_by_key(distance);
        let meant = nearest.filter(|key| distance(key) <= MAX_SLIPS);
        // A file can hold anything, and an error is one short line.
        let name = name.chars().take(60).flat_map(char::escape_default).collect();
        Self::UnknownKey { at, name, meant }
    }
}

/// Text by which an error names the place of a value.
fn place(at: &Origin, key: Key) -> String {
    let name = key.spec().name;
    match at {
        Origin::Default => format!("default of `{name}`"),
        Origin::File { .. } => format!("{at}: `{name}`"),
        Origin::Env(variable) => variable.clone(),
        Origin::Flag(flag) => format!("--{flag}"),
    }
}

fn hint(meant: Option<Key>) -> String {
    match meant {
        Some(key) => format!(", did you mean `{}`?", key.spec().name),
        None => ": `tandem config` lists every key".to_owned(),
    }
}

const fn kind(key: Key) -> &'static str {
    match key.spec().kind {
        Kind::Text => "a string",
        Kind::List => "an array of strings",
        Kind::Number => "a whole number",
        Kind::Switch => "true or false",
    }
}

/// Letters to insert, delete or replace to make one word of the other.
pub(crate) fn slips(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, other) in b.iter().enumerate() {
            let replaced = row[j] + usize::from(letter != other);
            next.push(replaced.min(row[j + 1] + 1).min(next[j] + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_counted() {
        for (a, b, expected) in [
            ("listen_ws", "listen_ws", 0),
            ("listn_ws", "listen_ws", 1),
            ("lisetn_ws", "listen_ws", 2),
            ("", "log", 3),
            ("log", "", 3),
            ("peer", "peers", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(slips(a, b), expected, "{a} {b}");
        }
    }
}
