//! Every block of the README and of every page of the manual does what the page says.
//!
//! * `sh` runs as it is pasted ([`stage`]). `sh not-run` does not, for a reason in [`NOT_RUN`].
//! * `text` and `json` behind such a block are what it prints; `json` is compared in shape. `text figure` is a picture.
//! * `rust` compiles and runs as a doctest of the test kit (`tests/src/manual.rs`).
//! * `toml` is a configuration, which the program reads; `toml cargo` is a part of a `Cargo.toml`, which cargo reads.
//! * `nginx` and `haproxy` are run by `proxies.rs`.
//! * `html` and `js` are run by `tests/browser/check`.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

mod page;
mod shown;
mod stage;

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::{
        page::{Block, Page, root},
        shown::{missing_line, missing_value},
        stage::{Ground, Stage},
    };
    use crate::support::{finish, scratch, tandem};

    /// The blocks that are not run: the page, how the block begins, and why.
    const NOT_RUN: [(&str, &str, &str); 7] = [
        ("README.md", "cargo test --workspace", "it takes minutes, and CI runs it"),
        ("docs/first-network.md", "cargo build --release", "the tests have built the program"),
        ("docs/first-network.md", "tandem top", "it needs a terminal; top.rs runs it in one"),
        ("docs/browser.md", "web/node/build", "it takes minutes; tests/browser/check runs it"),
        ("docs/running.md", "dig +short SRV", "it asks the internet"),
        (
            "docs/deployment.md",
            "install -m 755",
            "it changes the machine; deployment.rs tests the unit",
        ),
        ("docs/deployment.md", "docker build", "it asks a registry of images"),
    ];

    fn is_run(block: &Block) -> bool {
        block.language == "sh" && block.mark.is_none()
    }

    // Issue 8, 21.
    #[test]
    fn every_block_of_every_page_is_of_a_kind_that_is_tested() {
        let mut not_run = Vec::new();
        for page in Page::all() {
            let mut behind_commands = false;
            for block in &page.blocks {
                let place = page.place(block);
                match (block.language.as_str(), block.mark.as_deref()) {
                    ("text" | "json", None) => assert!(behind_commands, "{place}: what prints it?"),
                    ("sh", Some("not-run")) => {
                        not_run.push((page.name.clone(), block.text.clone()))
                    }
                    ("sh" | "rust" | "toml", None)
                    | ("toml", Some("cargo"))
                    | ("text", Some("figure")) => {}
                    ("nginx" | "haproxy", None) => {
                        assert_eq!(page.name, "docs/proxies.md", "{place}")
                    }
                    ("html" | "js", None) => assert_eq!(page.name, "docs/browser.md", "{place}"),
                    (language, mark) => panic!("{place}: nothing tests {language} {mark:?}"),
                }
                behind_commands = is_run(block)
                    || (behind_commands && ["text", "json"].contains(&block.language.as_str()));
            }
            let doctests = fs::read_to_string(root().join("tests/src/manual.rs")).unwrap();
            let has_rust = page.blocks.iter().any(|block| block.language == "rust");
            assert_eq!(
                doctests.contains(&format!("../{}\"", page.name)),
                has_rust,
                "{}",
                page.name
            );
        }
        for (page, text) in &not_run {
            let excused =
                |(of, start, _): &(&str, &str, &str)| of == page && text.starts_with(start);
            assert!(
                NOT_RUN.iter().any(excused),
                "{page}: no reason is given for not running {text}"
            );
        }
        assert_eq!(not_run.len(), NOT_RUN.len(), "{not_run:?}");
    }

    /// Runs the commands of a page and compares what it shows.
    fn runs(name: &str, ground: Ground) {
        let page = Page::read(name);
        let blocks: Vec<&Block> = page.blocks.iter().filter(|block| is_run(block)).collect();
        for program in ["bash", "curl", "openssl", "python3"] {
            let is_used = blocks.iter().any(|block| block.text.contains(&format!("{program} ")));
            if is_used && Command::new(program).arg("--help").output().is_err() {
                eprintln!("{name} is not tested: {program} is not installed");
                return;
            }
        }
        let stage = Stage::new(ground, &blocks);
        stage.run(&page, blocks.len());
        let mut ran = 0;
        for block in &page.blocks {
            if is_run(block) {
                ran += 1;
                continue;
            }
            let printed = || stage.printed(ran - 1);
            match (block.language.as_str(), &block.mark) {
                ("text", None) => {
                    let shown = stage.replace(&block.text);
                    let missing = missing_line(&shown, &printed());
                    assert_eq!(missing, None, "{}: {}", page.place(block), printed());
                }
                ("json", None) => {
                    let missing = missing_value(&stage.replace(&block.text), &printed());
                    assert_eq!(missing, None, "{}: {}", page.place(block), printed());
                }
                _ => {}
            }
        }
    }

    #[test]
    fn the_readme_runs_as_pasted() {
        runs("README.md", Ground::best());
    }

    // Issue 12, 9.
    #[test]
    fn the_page_on_a_first_network_runs_as_pasted() {
        runs("docs/first-network.md", Ground::best());
    }

    // Issue 12, 9.
    #[test]
    fn the_page_on_a_first_service_runs_as_pasted() {
        runs("docs/first-service.md", Ground::best());
    }

    // Issue 12, 9.
    #[test]
    fn the_page_on_a_first_engine_runs_as_pasted() {
        runs("docs/first-engine.md", Ground::best());
    }

    // Issue 12, 9.
    #[test]
    fn a_page_that_shows_a_whole_program_shows_the_example() {
        let mut shown = Vec::new();
        for page in Page::all() {
            let Some((_, rest)) = page.text.split_once("The whole program is `") else { continue };
            let (path, _) = rest.split_once('`').unwrap();
            let example = fs::read_to_string(root().join(path)).unwrap();
            let program = page.blocks.iter().find(|block| block.language == "rust").unwrap();
            assert!(example.ends_with(&format!("\n\n{}", program.text)), "{}: {path}", page.name);
            shown.push(path.to_owned());
        }
        shown.sort();
        assert_eq!(shown, ["examples/first_engine.rs", "examples/http_service.rs"]);
    }

    #[test]
    fn the_page_on_running_runs_as_pasted() {
        runs("docs/running.md", Ground::best());
    }

    #[test]
    fn the_page_on_http_runs_as_pasted() {
        runs("docs/http.md", Ground::best());
    }

    // Issue 10, 14.
    #[test]
    fn the_page_on_relays_runs_as_pasted() {
        runs("docs/relay.md", Ground::best());
    }

    #[test]
    fn the_page_on_configuration_runs_as_pasted() {
        runs("docs/configuration.md", Ground::best());
    }

    // Issue 12, 9.
    #[test]
    fn the_page_on_the_admin_api_runs_as_pasted() {
        runs("docs/api.md", Ground::best());
    }

    // Issue 11, 3.
    #[test]
    fn the_page_on_topics_runs_as_pasted() {
        runs("docs/topics.md", Ground::best());
    }

    // Issue 12, 9.
    #[test]
    fn the_page_on_the_dashboard_runs_as_pasted() {
        runs("docs/dashboard.md", Ground::best());
    }

    // Issue 13, 6.
    #[test]
    fn the_page_on_browsers_runs_as_pasted() {
        runs("docs/browser.md", Ground::best());
    }

    // Issue 12, 9.
    #[test]
    fn the_page_on_the_way_of_a_message_runs_as_pasted() {
        runs("docs/trace.md", Ground::best());
    }

    // Issue 12, 7.
    #[test]
    fn the_page_on_applications_runs_as_pasted() {
        runs("docs/applications.md", Ground::best());
    }

    #[test]
    fn the_page_on_finding_peers_runs_as_pasted() {
        runs("docs/peers.md", Ground::best());
    }

    // Where namespaces cannot be had, ports and folders are replaced.
    #[test]
    fn pages_run_on_other_ports_too() {
        runs("docs/http.md", Ground::Shared);
    }

    #[test]
    fn every_page_with_commands_has_a_test() {
        let source = include_str!("mod.rs");
        for page in Page::all().iter().filter(|page| page.blocks.iter().any(is_run)) {
            assert!(
                source.contains(&format!("runs(\"{}\", Ground::best())", page.name)),
                "{}",
                page.name
            );
        }
    }

    #[test]
    fn configurations_are_read_by_the_program() {
        let dir = scratch();
        let file = dir.path().join("tandem.toml");
        let mut read = 0;
        for page in Page::all() {
            for block in
                page.blocks.iter().filter(|block| block.language == "toml" && block.mark.is_none())
            {
                fs::write(&file, &block.text).unwrap();
                let told = finish(tandem().args(["config", "--config"]).arg(&file));
                assert_eq!(told.code, Some(0), "{}: {told:?}", page.place(block));
                let set = block.text.lines().filter(|line| line.contains(" = ")).count();
                let from_file = told.stdout.matches(&format!("{}:", file.display())).count();
                assert_eq!(from_file, set, "{}: {told:?}", page.place(block));
                read += 1;
            }
        }
        assert!(read > 0);
    }

    // The features that the lines name exist, and what they ask for can be had together.
    #[test]
    fn manifests_are_read_by_cargo() {
        let mut read = 0;
        for page in Page::all() {
            for block in page.blocks.iter().filter(|block| block.mark.as_deref() == Some("cargo")) {
                let dir = scratch();
                let app = dir.path().join("app");
                fs::create_dir_all(app.join("src")).unwrap();
                std::os::unix::fs::symlink(root(), dir.path().join("tandem")).unwrap();
                fs::write(app.join("src/main.rs"), "//! A program.\nfn main() {}\n").unwrap();
                fs::copy(root().join("Cargo.lock"), app.join("Cargo.lock")).unwrap();
                let package =
                    "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n";
                fs::write(app.join("Cargo.toml"), format!("{package}{}", block.text)).unwrap();
                let mut cargo =
                    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                let told =
                    finish(cargo.current_dir(&app).args(["tree", "--offline", "--depth", "1"]));
                assert_eq!(told.code, Some(0), "{}: {told:?}", page.place(block));
                assert!(told.stdout.contains("tandem v"), "{}: {told:?}", page.place(block));
                read += 1;
            }
        }
        assert!(read > 0);
    }
}
