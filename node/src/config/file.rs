//! Reads a configuration file: TOML, one level deep.
//!
//! # Invariants
//!
//! * Nothing in a file is passed over: an unknown key or a value of another kind is an error, with
//!   the file and the line.

use std::{ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    check::ConfigError,
    key::{Key, Kind},
    origin::{Given, Origin, Value},
};

/// Longest configuration file, in bytes. Chosen: a thousand peers fit ten times.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<(Key, Given)>, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE_BYTES {
        return Err(ConfigError::TooLong { path: path.to_owned(), length });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    parse(&path.display().to_string(), &text)
}

/// Reads the text of a file. Of several mistakes the first in the file is told.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<(Key, Given)>, ConfigError> {
    let origin =
        |span: Range<usize>| Origin::File { file: file.to_owned(), line: line(text, span) };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        at: origin(error.span().unwrap_or_default()),
        message: one_line(error.message()),
    })?;
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let mut given = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let at = origin(name.span());
        let Some(key) = Key::named(name.get_ref()) else {
            return Err(ConfigError::unknown_key(at, name.get_ref()));
        };
        let Some(value) = value_of(key.spec().kind, value) else {
            return Err(ConfigError::Kind { at, key });
        };
        given.push((key, Given { value, origin: at }));
    }
    Ok(given)
}

fn value_of(kind: Kind, value: &Spanned<DeValue<'_>>) -> Option<Value> {
    let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned);
    match (kind, value.get_ref()) {
        (Kind::Text | Kind::Switch, value @ DeValue::String(_)) => Some(Value::One(text(value)?)),
        (Kind::Switch, DeValue::Boolean(on)) => {
            Some(Value::One(if *on { "on" } else { "off" }.to_owned()))
        }
        // The only radix that the same text has in a flag.
        (Kind::Number, DeValue::Integer(number)) if number.radix() == 10 => {
            Some(Value::One(number.as_str().to_owned()))
        }
        (Kind::List, DeValue::Array(items)) => {
            let items: Option<_> = items.iter().map(|item| text(item.get_ref())).collect();
            Some(Value::Many(items?))
        }
        _ => None,
    }
}

/// The line a span starts on, counted from one.
fn line(text: &str, span: Range<usize>) -> usize {
    let before = text.get(..span.start).unwrap_or(text);
    before.matches('\n').count() + 1
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
