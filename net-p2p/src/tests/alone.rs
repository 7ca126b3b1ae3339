//! Tests that measure the memory of their process, and therefore run in one of their own.

use std::{env, fs, process::Command};

/// The environment variable that makes a test do the work itself.
const CHILD: &str = "TANDEM_TEST_ALONE";

/// Returns `true` in the process of one test.
pub(super) fn is_alone() -> bool {
    env::var_os(CHILD).is_some()
}

/// Runs a test by its full name in a process of its own, and returns the output.
pub(super) fn run(name: &str) -> String {
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{told}{}", String::from_utf8_lossy(&child.stderr));
    told
}

/// The memory of this process, in bytes.
pub(super) fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1024
}
