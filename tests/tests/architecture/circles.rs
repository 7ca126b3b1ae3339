//! Keeps the files of each crate in an order: no file knows one that knows it.
//!
//! An edge is a `use`, or a path in the code, that leads from one file of a crate to another one; re-exports are
//! followed to the file that defines the name. A submodule may know the modules that it is part of, and tests may
//! know everything. Every other circle fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Crates of which every file is looked at.
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
    "bench",
    "tests",
];

/// The place of a module in its crate; empty for the root.
type Module = Vec<String>;

/// The files of a crate by the module that they hold, without their comments and tests.
type Files = BTreeMap<Module, String>;

/// Which files each file knows.
type Edges = BTreeMap<Module, BTreeSet<Module>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is in a workspace")
        .to_owned()
}

fn collect(folder: &Path, module: &[String], files: &mut Files) {
    for entry in fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("an entry can be read").path();
        let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
        let inner = |name: String| module.iter().cloned().chain([name]).collect::<Module>();
        if path.is_dir() {
            collect(&path, &inner(name), files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests" {
            let module = match &*name {
                "lib" | "main" | "mod" => module.to_vec(),
                _ => inner(name),
            };
            let source = fs::read_to_string(&path).expect("a source is text");
            files.entry(module).or_default().push_str(&code_of(&source));
        }
    }
}

/// A source without comments, and without its tests, which stand at the end.
fn code_of(source: &str) -> String {
    let lines = source.lines().map(|line| line.split("//").next().unwrap_or(line));
    let mut code: Vec<&str> = lines.collect();
    let is_test = |pair: &[&str]| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    };
    if let Some(tests) = code.windows(2).position(is_test) {
        code.truncate(tests);
    }
    code.join("\n")
}

/// The parts of a list that is separated by commas, those in braces left whole.
fn parts(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&list[start..]);
    found
}

/// Every path that a `use` names, each as its segments.
fn expand(prefix: &[String], tree: &str, found: &mut Vec<Module>) {
    let tree = tree.trim();
    let (path, list) = match tree.split_once('{') {
        Some((path, list)) => (path, list.strip_suffix('}')),
        None => (tree.split(" as ").next().unwrap_or_default(), None),
    };
    let segments = path.split("::").map(str::trim).filter(|part| !part.is_empty());
    let path: Module = prefix.iter().cloned().chain(segments.map(str::to_owned)).collect();
    match list {
        Some(list) => parts(list).into_iter().for_each(|part| expand(&path, part, found)),
        None if path.len() > prefix.len() => found.push(path),
        None => {}
    }
}

/// The statements of a source that begin with `use`, without it; `true` for those that export what they name.
fn uses(code: &str) -> Vec<(bool, String)> {
    let statements = code.split(';').filter_map(|statement| {
        let (before, tree) = statement.rsplit_once("use ")?;
        let starts = before.is_empty() || before.ends_with(|c: char| c.is_whitespace());
        let line = before.rsplit('\n').next().unwrap_or(before).trim();
        starts.then(|| (line.starts_with("pub"), tree.to_owned()))
    });
    statements.collect()
}

/// Paths in the code itself that begin with `crate`, `super` or `self`.
fn inline(code: &str) -> Vec<Module> {
    let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    let paths = words.filter(|word| {
        ["crate::", "super::", "self::"].iter().any(|start| word.starts_with(start))
    });
    paths.map(|path| path.split("::").map(str::to_owned).collect()).collect()
}

/// A path as it is from the root of the crate; `None` if it leads into another crate.
fn absolute(from: &Module, path: &[String], files: &Files) -> Option<Module> {
    let mut base = from.clone();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => (base, rest) = (Vec::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        first => {
            let child: Module = from.iter().cloned().chain([first.to_owned()]).collect();
            files.contains_key(&child).then_some(())?;
        }
    }
    Some(base.into_iter().chain(rest.iter().filter(|part| *part != "self").cloned()).collect())
}

/// The file that defines what a path names.
fn defined_in(path: &Module, exports: &BTreeMap<Module, Module>, files: &Files) -> Module {
    let mut path = path.clone();
    // A name is exported through a few modules at most.
    for _ in 0..8 {
        let is_exported = |length: &usize| exports.contains_key(&path[..*length]);
        let Some(length) = (1..=path.len()).rev().find(is_exported) else { break };
        let mut target = exports[&path[..length]].clone();
        target.extend_from_slice(&path[length..]);
        if target == path {
            break;
        }
        path = target;
    }
    while !files.contains_key(&path) && path.pop().is_some() {}
    path
}

fn edges_of(files: &Files) -> Edges {
    let mut exports = BTreeMap::new();
    for (module, code) in files {
        for (_, tree) in uses(code).into_iter().filter(|(exports, _)| *exports) {
            let mut named = Vec::new();
            expand(&[], &tree, &mut named);
            for path in named {
                let (Some(name), Some(target)) = (path.last(), absolute(module, &path, files))
                else {
                    continue;
                };
                let exported: Module = module.iter().cloned().chain([name.clone()]).collect();
                if exported != target {
                    exports.insert(exported, target);
                }
            }
        }
    }
    let mut edges = Edges::new();
    for (module, code) in files {
        let mut paths = inline(code);
        for (_, tree) in uses(code) {
            expand(&[], &tree, &mut paths);
        }
        let known = paths.iter().filter_map(|path| absolute(module, path, files));
        let known = known.map(|path| defined_in(&path, &exports, files));
        // A module is above what it consists of, and both may use each other.
        let known = known.filter(|known| !module.starts_with(known));
        edges.insert(module.clone(), known.collect());
    }
    edges
}

/// The files that a file leads to, by however many edges.
fn reached(from: &Module, edges: &Edges) -> BTreeSet<Module> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        for known in edges.get(next).into_iter().flatten() {
            if reached.insert(known.clone()) {
                open.push(known);
            }
        }
    }
    reached
}

/// Every circle of files, as a whole and named once.
fn circles(edges: &Edges) -> BTreeSet<BTreeSet<Module>> {
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        edges.keys().map(|file| (file, self::reached(file, edges))).collect();
    let on_a_circle = edges.keys().filter(|file| reached[file].contains(*file));
    let circle_of = |file: &Module| {
        let others = reached[file].iter();
        let back = |other: &&Module| reached.get(other).is_some_and(|set| set.contains(file));
        others.filter(back).cloned().collect()
    };
    on_a_circle.map(circle_of).collect()
}

fn shown(module: &Module) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("/") }
}

// Issue 9, 15.
#[test]
fn no_file_knows_one_that_knows_it() {
    let mut failures = Vec::new();
    for name in CRATES {
        let mut files = Files::new();
        collect(&root().join(name).join("src"), &[], &mut files);
        assert!(files.len() > 1, "{name} has {} files", files.len());
        let edges = edges_of(&files);
        for circle in circles(&edges) {
            failures.push(format!("{name}:"));
            for (from, known) in edges.iter().filter(|(from, _)| circle.contains(*from)) {
                let inside = known.iter().filter(|known| circle.contains(*known));
                failures.extend(inside.map(|known| {
                    format!("    {} knows {}", self::shown(from), self::shown(known))
                }));
            }
        }
    }
    assert!(failures.is_empty(), "files in circles:\n{}", failures.join("\n"));
}

#[test]
fn the_check_sees_a_circle_through_a_re_export_and_leaves_a_parent_alone() {
    let module = |path: &str| path.split('/').map(str::to_owned).collect::<Module>();
    let files: Files = [
        ("a", "use crate::{b::{self, Thing}, c};"),
        ("b", "pub use self::{inner::{Name, Thing as Other}}; mod inner;"),
        ("b/inner", "use super::Thing; fn f(_: crate::d::D) {}"),
        ("c", "use crate::b::Name as Other;"),
        ("d", "use super::c::{Deep, deeper::{Er}};"),
    ]
    .into_iter()
    .map(|(path, code)| (module(path), code.to_owned()))
    .collect();
    let found = circles(&edges_of(&files));
    let circle: BTreeSet<Module> = ["b/inner", "c", "d"].into_iter().map(module).collect();
    assert_eq!(found, BTreeSet::from([circle]));
}
