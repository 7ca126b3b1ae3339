//! Compares the output that a page shows with that of a command.
//!
//! `…` stands for what differs from run to run: identities, ports, times. Numbers in JSON do so without it.

use serde_json::Value;

/// `true` if a line is what a page shows, in which every `…` stands for one or more characters.
pub(crate) fn line_matches(shown: &str, line: &str) -> bool {
    let Some((start, rest)) = shown.split_once('…') else { return shown == line };
    let Some(line) = line.strip_prefix(start) else { return false };
    let next = rest.split('…').next().unwrap_or_default();
    let mut ends = line.char_indices().map(|(at, letter)| at + letter.len_utf8());
    ends.any(|at| line[at..].starts_with(next) && line_matches(rest, &line[at..]))
}

/// `true` if a value has the shape that a page shows: the same keys and kinds, and the same texts but for their
/// `…`. The items of a list have the shape of the first one that is shown.
pub(crate) fn shape_matches(shown: &Value, value: &Value) -> bool {
    match (shown, value) {
        (Value::Object(shown), Value::Object(value)) => {
            shown.len() == value.len()
                && shown.iter().all(|(key, shown)| {
                    value.get(key).is_some_and(|value| shape_matches(shown, value))
                })
        }
        (Value::Array(shown), Value::Array(value)) => match shown.first() {
            None => value.is_empty(),
            Some(shown) => {
                !value.is_empty() && value.iter().all(|value| shape_matches(shown, value))
            }
        },
        (Value::String(shown), Value::String(value)) => line_matches(shown, value),
        (Value::Number(_), Value::Number(_)) => true,
        (shown, value) => shown == value,
    }
}

/// The first line that a page shows and that was not printed, in the order of the page. Other lines may stand
/// between those.
pub(crate) fn missing_line<'a>(shown: &'a str, printed: &str) -> Option<&'a str> {
    let mut lines = printed.lines();
    shown.lines().find(|shown| !lines.any(|line| line_matches(shown.trim_end(), line.trim_end())))
}

/// The first value of a block of JSON that no printed line has the shape of.
pub(crate) fn missing_value(shown: &str, printed: &str) -> Option<Value> {
    let mut printed = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut shown = serde_json::Deserializer::from_str(shown).into_iter::<Value>();
    shown.find_map(|shown| {
        let shown = shown.expect("the page shows JSON");
        (!printed.any(|value| shape_matches(&shown, &value))).then_some(shown)
    })
}

#[test]
fn placeholders_stand_for_what_differs() {
    for (shown, line, expected) in [
        ("ready", "ready", true),
        ("ready", "already", false),
        ("port …", "port 4160", true),
        ("port …", "port ", false),
        ("…:… says hello", "127.0.0.1:80 says hello", true),
        ("…:… says hello", "127.0.0.1:80 says good-bye", false),
        ("a … c … c", "a b c b c", true),
    ] {
        assert_eq!(line_matches(shown, line), expected, "{shown:?} {line:?}");
    }
}

#[test]
fn json_is_compared_in_shape() {
    let value: Value =
        serde_json::from_str(r#"{"event":"ready","n":5,"list":["a1","a2"],"no":null}"#).unwrap();
    for (shown, expected) in [
        (r#"{"event":"ready","n":1,"list":["a…"],"no":null}"#, true),
        (r#"{"event":"gone","n":1,"list":["a…"],"no":null}"#, false),
        (r#"{"event":"ready","n":"1","list":["a…"],"no":null}"#, false),
        (r#"{"event":"ready","n":1,"list":["b…"],"no":null}"#, false),
        (r#"{"event":"ready","n":1,"list":["a…"]}"#, false),
        (r#"{"event":"ready","n":1,"list":["a…"],"no":null,"more":1}"#, false),
    ] {
        assert_eq!(
            shape_matches(&serde_json::from_str(shown).unwrap(), &value),
            expected,
            "{shown}"
        );
    }
}
