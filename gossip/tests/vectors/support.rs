//! Reading the recordings under `testdata`.

use std::{fs, io::Read, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::read::GzDecoder;
use serde_json::Value;

/// The path of a file under `testdata`.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// A file under `testdata`.
pub(crate) fn file(name: &str) -> Bytes {
    fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}")).into()
}

/// A JSON file under `testdata`.
pub(crate) fn json(name: &str) -> Value {
    serde_json::from_slice(&file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A large JSON file under `testdata`, which is kept compressed.
pub(crate) fn json_gz(name: &str) -> Value {
    let mut text = String::new();
    let read = GzDecoder::new(&*file(name)).read_to_string(&mut text);
    read.unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs `check` on every case of a list in a vector file.
///
/// `count` is how many cases there must be, so that a list that was renamed, cut or emptied fails.
#[track_caller]
pub(crate) fn each_case(name: &str, list: &str, count: usize, mut check: impl FnMut(&Value)) {
    let json = json(&format!("vectors/{name}.json"));
    let cases = json[list].as_array().unwrap_or_else(|| panic!("{name}: no list {list}"));
    let mut run = 0;
    for case in cases {
        // Shown only when the check fails: which case it was.
        println!("{name} {list} {}: {}", run, case["name"]);
        check(case);
        run += 1;
    }
    assert_eq!(run, count, "{name}: cases of {list}");
}

/// Text of a case.
#[track_caller]
pub(crate) fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_else(|| panic!("no text {key} in {case}"))
}

/// Bytes of a case, written in hex.
#[track_caller]
pub(crate) fn bytes(case: &Value, key: &str) -> Bytes {
    from_hex(text(case, key))
}

/// Bytes of a case, written in hex, of fixed length.
#[track_caller]
pub(crate) fn array<const N: usize>(case: &Value, key: &str) -> [u8; N] {
    bytes(case, key).as_ref().try_into().unwrap_or_else(|_| panic!("{key} is not {N} bytes"))
}

/// Bytes of a case, written in base64.
#[track_caller]
pub(crate) fn from_base64(case: &Value, key: &str) -> Bytes {
    STANDARD.decode(text(case, key)).unwrap_or_else(|error| panic!("{key}: {error}")).into()
}

/// A number of a case, written as text because it may not fit a float.
#[track_caller]
pub(crate) fn number(case: &Value, key: &str) -> u64 {
    text(case, key).parse().unwrap_or_else(|error| panic!("{key}: {error}"))
}

/// A small number of a case.
#[track_caller]
pub(crate) fn size(case: &Value, key: &str) -> usize {
    let number = case[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {case}"));
    usize::try_from(number).expect("a small number")
}

/// A yes or no of a case.
#[track_caller]
pub(crate) fn flag(case: &Value, key: &str) -> bool {
    case[key].as_bool().unwrap_or_else(|| panic!("no flag {key} in {case}"))
}

/// The case of a list that has this name.
#[track_caller]
pub(crate) fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut cases = list.as_array().into_iter().flatten();
    cases.find(|case| case["name"] == name).unwrap_or_else(|| panic!("no case {name}"))
}

/// Bytes written in hex.
#[track_caller]
pub(crate) fn from_hex(text: &str) -> Bytes {
    hex::decode(text).unwrap_or_else(|error| panic!("{text}: {error}")).into()
}

/// The `X-Algorand-` headers of a recorded request or response head, in the order of the file.
pub(crate) fn algorand_headers(name: &str) -> Vec<(String, String)> {
    let head = file(&format!("corpus/{name}"));
    let head = std::str::from_utf8(&head).expect("an HTTP head is ASCII");
    let lines = head.split("\r\n").filter(|line| line.starts_with("X-Algorand-"));
    let fields = lines.map(|line| line.split_once(": ").expect("a header has a colon"));
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
