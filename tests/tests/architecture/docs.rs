//! Keeps the documentation of public functions whole: one that is awaited says what dropping its future does.

use std::{
    fs,
    path::{Path, PathBuf},
};

use testkit::sources::sources;

/// Crates with public functions.
const CRATES: &[&str] = &[
    "runtime",
    "gossip",
    "mesh",
    "discovery",
    "broadcaster",
    "net-http",
    "net-ws",
    "net-p2p",
    "net-tcp",
    "net-hybrid",
    "services",
    "node",
];

/// A public function of a source.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    line: usize,
    name: String,
    is_awaited: bool,
    /// Its documentation and attributes.
    above: String,
}

/// The public functions of a source, without those of its tests, which stand at the end.
fn functions(source: &str) -> Vec<Function> {
    let lines: Vec<&str> = source.lines().collect();
    let is_test = |pair: &[&str]| pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod ");
    let end = lines.windows(2).position(is_test).unwrap_or(lines.len());
    let found = lines[..end].iter().enumerate().filter_map(|(at, line)| {
        let (is_async, rest) = match line.trim_start().strip_prefix("pub async fn ") {
            Some(rest) => (true, rest),
            None => (false, line.trim_start().strip_prefix("pub fn ")?),
        };
        let mut signature = String::new();
        for line in &lines[at..end] {
            signature.push_str(line);
            if line.ends_with('{') || line.ends_with(';') {
                break;
            }
        }
        let returned = signature.rsplit_once("->").map_or("", |(_, returned)| returned);
        let is_future = returned.contains("BoxFuture<") || returned.contains("impl Future");
        let above = lines[..at].iter().rev().map_while(|line| {
            let line = line.trim_start();
            (line.starts_with("//") || line.starts_with("#[")).then_some(line)
        });
        Some(Function {
            line: at + 1,
            name: rest.split(['(', '<']).next().unwrap_or(rest).to_owned(),
            is_awaited: is_async || is_future,
            above: above.collect::<Vec<_>>().join("\n"),
        })
    });
    found.collect()
}

// Issue 9, 14.
#[test]
fn a_public_function_that_is_awaited_tells_its_cancel_safety() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is in a workspace");
    let (mut silent, mut awaited) = (Vec::new(), 0);
    for name in CRATES {
        let mut found: Vec<PathBuf> = Vec::new();
        sources(&root.join(name).join("src"), &mut found);
        assert!(!found.is_empty(), "{name} has no sources");
        for path in found.iter().filter(|path| !path.iter().any(|part| part == "tests")) {
            let source = fs::read_to_string(path).expect("a source is text");
            for function in functions(&source).into_iter().filter(|function| function.is_awaited) {
                awaited += 1;
                if !function.above.contains("ancel safety") {
                    let shown = path.strip_prefix(root).unwrap_or(path).display();
                    silent.push(format!("{shown}:{} {}", function.line, function.name));
                }
            }
        }
    }
    assert!(awaited > 50, "only {awaited} functions are awaited");
    assert!(silent.is_empty(), "without cancel safety:\n{}", silent.join("\n"));
}

#[test]
fn the_check_sees_functions_that_return_futures_and_leaves_tests_alone() {
    let source = "/// Waits.\n#[must_use]\npub async fn wait() {}\n    pub fn late(\n        &self,\n    ) -> \
                  BoxFuture<'_, ()> {\npub fn soon() {}\n#[cfg(test)]\nmod tests {\npub async fn t() {}";
    let found = functions(source);
    let seen: Vec<_> =
        found.iter().map(|each| (each.line, &*each.name, each.is_awaited, &*each.above)).collect();
    assert_eq!(
        seen,
        [
            (3, "wait", true, "#[must_use]\n/// Waits."),
            (4, "late", true, ""),
            (7, "soon", false, ""),
        ]
    );
}
