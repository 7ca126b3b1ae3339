//! The files under `deploy`, as far as they can be judged without the programs that use them.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{finish, scratch, tandem};

/// Largest exposure that `systemd-analyze security` may find, of 100. The unit has 13.
const MAX_EXPOSURE: u32 = 15;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap()
}

/// The number behind the first `key` of a text.
fn number(text: &str, key: &str) -> u64 {
    let rest = text.split_once(key).unwrap_or_else(|| panic!("no {key}")).1;
    let digits = |letter: &char| letter.is_ascii_digit();
    let rest = rest.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    rest.chars().take_while(digits).collect::<String>().parse().unwrap()
}

// Issue 12, 8.
#[test]
fn the_settings_of_a_deployment_are_accepted() {
    let dir = scratch();
    let file = project().join("deploy/tandem.toml");
    let ended =
        finish(tandem().arg("config").arg("--config").arg(file).arg("--data-dir").arg(dir.path()));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

// Issue 12, 8.
#[test]
fn every_variable_of_a_deployment_is_a_setting() {
    let settings = read("docs/configuration.md");
    let mut found = BTreeSet::new();
    for file in [
        "deploy/systemd/tandem.service",
        "deploy/docker/Dockerfile",
        "deploy/docker/compose.yml",
        "deploy/kubernetes/tandem.yml",
    ] {
        let text = read(file);
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        found.extend(words.filter(|word| word.starts_with("TANDEM_")).map(str::to_owned));
    }
    assert!(found.len() > 5, "{found:?}");
    let unknown = found.iter().filter(|name| !settings.contains(&format!("`{name}`")));
    assert_eq!(unknown.collect::<Vec<_>>(), [""; 0]);
}

// Issue 12, 8.
#[test]
fn a_manager_waits_for_the_drain_before_it_kills() {
    let kubernetes = read("deploy/kubernetes/tandem.yml");
    let drain = number(&kubernetes, "TANDEM_DRAIN_S");
    assert!(number(&kubernetes, "terminationGracePeriodSeconds") > drain + 5);
    let compose = read("deploy/docker/compose.yml");
    assert!(number(&compose, "stop_grace_period") > number(&compose, "TANDEM_DRAIN_S") + 5);
}

// Issue 12, 8.
#[test]
fn the_unit_is_understood_and_exposes_little() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: this machine has no systemd-analyze");
        return;
    }
    let (dir, program) = (scratch(), env!("CARGO_BIN_EXE_tandem"));
    let unit = dir.path().join("tandem.service");
    let text = read("deploy/systemd/tandem.service");
    fs::write(&unit, text.replace("/usr/bin/tandem", program)).unwrap();
    let analyze = |arguments: &[&str]| {
        finish(Command::new("systemd-analyze").args(arguments).arg(&unit).env("PAGER", "cat"))
    };
    let verified = analyze(&["verify"]);
    assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""));
    let threshold = format!("--threshold={MAX_EXPOSURE}");
    let judged = analyze(&["security", "--offline=true", "--no-pager", &threshold]);
    assert_eq!(judged.code, Some(0), "{}{}", judged.stdout, judged.stderr);
}
