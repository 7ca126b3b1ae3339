//! Checks of the architecture: the dependencies between rooms, and code that no crate may contain.
//!
//! A failure here is a design decision in disguise. Change `docs/architecture.md` with it, or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;
use testkit::sources::sources;

/// A room, the rooms it may depend on, and the crates it must never use.
struct Room {
    name: &'static str,
    knows: &'static [&'static str],
    /// Prefixes of the names of forbidden crates.
    never: &'static [&'static str],
}

const ROOMS: &[Room] = &[
    Room {
        name: "gossip",
        knows: &[],
        // Of axum only `axum-core`, the traits behind extractors.
        never: &["tokio", "libp2p", "hyper", "tungstenite", "axum-extra", "tracing", "log"],
    },
    Room {
        name: "runtime",
        knows: &[],
        never: &["libp2p", "hyper", "tungstenite", "tokio-tungstenite", "axum", "log"],
    },
    Room {
        name: "net-http",
        knows: &["gossip", "runtime"],
        never: &["libp2p", "tungstenite", "tokio-tungstenite"],
    },
    Room {
        name: "services",
        knows: &["gossip", "runtime"],
        never: &["libp2p", "hyper", "tungstenite", "tokio-tungstenite"],
    },
    Room {
        name: "mesh",
        knows: &["gossip"],
        never: &["tokio", "libp2p", "hyper", "tungstenite", "axum", "tracing", "log"],
    },
    Room {
        name: "discovery",
        knows: &["gossip", "mesh", "runtime"],
        never: &["libp2p", "hyper", "tungstenite", "tokio-tungstenite", "axum", "log"],
    },
    Room {
        name: "broadcaster",
        knows: &["gossip", "mesh", "runtime"],
        never: &["libp2p", "hyper", "tungstenite", "tokio-tungstenite", "axum", "toml", "serde"],
    },
    Room {
        name: "net-tcp",
        knows: &["mesh", "gossip", "runtime"],
        never: &["libp2p", "hyper", "axum", "log"],
    },
    Room {
        name: "net-ws",
        knows: &["net-http", "net-tcp", "broadcaster", "mesh", "gossip", "runtime"],
        never: &["libp2p"],
    },
    Room {
        name: "net-p2p",
        knows: &["net-http", "net-tcp", "broadcaster", "mesh", "gossip", "runtime"],
        never: &["tungstenite", "tokio-tungstenite", "hyper"],
    },
    Room {
        name: "net-hybrid",
        knows: &[
            "net-ws",
            "net-p2p",
            "net-http",
            "net-tcp",
            "broadcaster",
            "mesh",
            "gossip",
            "runtime",
        ],
        never: &["libp2p", "tungstenite", "tokio-tungstenite", "hyper"],
    },
    Room {
        name: "tandem",
        knows: &[
            "services",
            "discovery",
            "net-ws",
            "net-p2p",
            "net-hybrid",
            "net-http",
            "net-tcp",
            "broadcaster",
            "mesh",
            "gossip",
            "runtime",
        ],
        never: &["libp2p", "tungstenite", "tokio-tungstenite"],
    },
    Room {
        name: "web",
        knows: &["net-p2p", "net-http", "net-tcp", "broadcaster", "mesh", "gossip", "runtime"],
        never: &["tungstenite", "tokio-tungstenite", "axum", "log"],
    },
];

/// Rooms that may depend on every other one.
const SHEDS: &[&str] = &["testkit", "bench", "examples"];

/// Folders at the top level. Source: the plan, and docs/architecture.md.
const FOLDERS: &[&str] = &[
    "gossip",
    "runtime",
    "broadcaster",
    "mesh",
    "discovery",
    "net-http",
    "net-ws",
    "net-p2p",
    "net-tcp",
    "net-hybrid",
    "services",
    "node",
    "tests",
    "bench",
    "examples",
    "web",
    "docs",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for a normal dependency, else `dev` or `build`.
    kind: Option<String>,
    path: Option<PathBuf>,
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the package is in a workspace").to_owned()
}

/// The room of a package: its folder's name, which is the package's name without the project's.
fn room_name(package: &str) -> String {
    package.strip_prefix("tandem-").unwrap_or(package).to_owned()
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Metadata = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let mut packages = metadata.packages;
    for package in &mut packages {
        package.name = room_name(&package.name);
        for dependency in package.dependencies.iter_mut().filter(|other| other.path.is_some()) {
            dependency.name = room_name(&dependency.name);
        }
    }
    packages
}

#[test]
fn dependencies_point_down() {
    let packages = packages();
    for package in &packages {
        let room = ROOMS.iter().find(|room| room.name == package.name);
        assert!(
            room.is_some() || SHEDS.contains(&package.name.as_str()),
            "{} is in no room of the plan",
            package.name
        );
        let Some(room) = room else { continue };
        for dependency in package.dependencies.iter().filter(|other| other.path.is_some()) {
            assert!(
                room.knows.contains(&dependency.name.as_str()),
                "{} must not know {} ({:?})",
                room.name,
                dependency.name,
                dependency.kind
            );
        }
    }
    for room in ROOMS {
        assert!(packages.iter().any(|package| package.name == room.name), "no {}", room.name);
    }
}

#[test]
fn no_room_contains_code_of_another_one() {
    for package in packages() {
        let Some(room) = ROOMS.iter().find(|room| room.name == package.name) else { continue };
        for dependency in package.dependencies.iter().filter(|other| other.kind.is_none()) {
            let never = room.never.iter().find(|never| {
                let rest = dependency.name.strip_prefix(*never);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
            });
            assert!(never.is_none(), "{} must not hold {}", room.name, dependency.name);
        }
    }
}

#[test]
fn every_crate_is_under_the_lints_of_the_house() {
    for package in packages() {
        let manifest = fs::read_to_string(&package.manifest_path).expect("a manifest is text");
        let lints = manifest.lines().skip_while(|line| line.trim() != "[lints]");
        let inherited = lints.skip(1).find(|line| !line.trim().is_empty());
        assert_eq!(
            inherited.map(str::trim),
            Some("workspace = true"),
            "{} has lints of its own",
            package.name
        );
    }
}

#[test]
fn the_folders_are_those_of_the_plan() {
    for folder in FOLDERS {
        assert!(root().join(folder).is_dir(), "there is no folder {folder}");
    }
    assert!(root().join("Cargo.lock").is_file(), "the lock file is not there");
    for package in packages() {
        let folder = package.manifest_path.parent().and_then(Path::file_name);
        let folder = folder.expect("a manifest is in a folder").to_string_lossy();
        assert!(FOLDERS.contains(&&*folder), "{} lies in {folder}", package.name);
    }
}

#[test]
fn no_source_contains_forbidden_code() {
    // Assembled here, so that this file does not contain them.
    let forbidden = [
        concat!("unbounded", "_channel"),
        concat!("tokio::", "spawn("),
        concat!("tokio::task::", "spawn("),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "ignore"),
    ];
    let mut found = Vec::new();
    for folder in FOLDERS.iter().filter(|folder| **folder != "docs") {
        sources(&root().join(folder), &mut found);
    }
    assert!(found.len() > 50, "only {} sources were found", found.len());
    for path in found {
        let source = fs::read_to_string(&path).expect("a source is text");
        for (number, line) in source.lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            for words in forbidden {
                let shown = path.strip_prefix(root()).unwrap_or(&path).display();
                assert!(!code.contains(words), "{shown}:{} has {words}", number + 1);
            }
        }
    }
}
