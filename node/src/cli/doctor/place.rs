//! The place where a node runs: its directory, its descriptors, its clock.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::process::{Resource, getrlimit};
use tandem::MIN_OPEN_FILES;

use super::Finding;
use crate::config::Settings;

/// Free bytes below which a node is in danger. Chosen: the peer store, a log of some days, and room to stop in order.
const LEAST_FREE: u64 = 64 * 1024 * 1024;

/// Free bytes below which it is time to look. Chosen: ten times that.
const LITTLE_FREE: u64 = 640 * 1024 * 1024;

/// A time before which no clock is right, in seconds of Unix time: 2025.
const EARLIEST: u64 = 1_735_689_600;

/// The file that systemd makes once the clock follows a server. Source: systemd-timesyncd.service(8).
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";

/// The data directory, or the place where it would be made.
pub(super) fn data_dir(dir: &Path) -> Vec<Finding> {
    const CHECK: &str = "data directory";
    let shown = dir.display();
    let Ok(about) = fs::metadata(dir) else {
        let above = dir.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("/"));
        let made = match writable(above) {
            Ok(()) => Finding::ok(CHECK, format!("{shown} is made when a node starts")),
            Err(error) => Finding::failure(
                CHECK,
                format!("{shown} cannot be made: {error}"),
                "choose another one with --data-dir, or make it for this user",
            ),
        };
        return vec![made, space(above)];
    };
    if !about.is_dir() {
        let advice = "choose another one with --data-dir";
        return vec![Finding::failure(CHECK, format!("{shown} is no directory"), advice)];
    }
    let mut findings = Vec::new();
    if let Err(error) = writable(dir) {
        let advice =
            format!("give it to this user: chown {} {shown}", rustix::process::getuid().as_raw());
        findings.push(Finding::failure(
            CHECK,
            format!("{shown} cannot be written: {error}"),
            advice,
        ));
    } else if about.permissions().mode() & 0o077 != 0 {
        let says = format!("others can look into {shown}, which belongs to user {}", about.uid());
        findings.push(Finding::warning(CHECK, says, format!("chmod 700 {shown}")));
    } else {
        findings.push(Finding::ok(CHECK, format!("{shown} belongs to its owner alone")));
    }
    findings.push(space(dir));
    findings
}

/// Makes a file there, and takes it away.
fn writable(dir: &Path) -> std::io::Result<()> {
    tempfile::tempfile_in(dir).map(drop)
}

fn space(dir: &Path) -> Finding {
    const CHECK: &str = "space";
    let Ok(about) = rustix::fs::statvfs(dir) else {
        let says = format!("the file system of {} does not tell its space", dir.display());
        return Finding::warning(CHECK, says, "look at it with df");
    };
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    let says = format!("{} MiB are free in {}", free / 1024 / 1024, dir.display());
    let advice = "make room, or choose another directory with --data-dir";
    match free {
        ..LEAST_FREE => Finding::failure(CHECK, says, advice),
        LEAST_FREE..LITTLE_FREE => Finding::warning(CHECK, says, advice),
        _ => Finding::ok(CHECK, says),
    }
}

/// The files that the process may have open.
pub(super) fn descriptors(settings: &Settings) -> Finding {
    const CHECK: &str = "descriptors";
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    // Each peer has a socket; the rest is what a node keeps back.
    let wanted = (settings.max_inbound + MIN_OPEN_FILES) as u64;
    let says = format!("{limit} files may be open");
    if limit < MIN_OPEN_FILES as u64 {
        let advice =
            format!("raise the limit to {wanted}: ulimit -n {wanted}, or LimitNOFILE= of systemd");
        Finding::failure(CHECK, format!("{says}, and a node needs {MIN_OPEN_FILES}"), advice)
    } else if limit < wanted {
        let says = format!("{says}, and {} inbound peers want {wanted}", settings.max_inbound);
        let advice = "raise the limit, or lower max_inbound; the node lowers it by itself";
        Finding::warning(CHECK, says, advice)
    } else {
        Finding::ok(CHECK, says)
    }
}

/// The clock, as far as it can be judged without asking anybody.
pub(super) fn clock() -> Finding {
    let now = runtime::WallClock::system()
        .now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    judge_clock(now.as_secs(), PathBuf::from(SYNCHRONIZED).exists())
}

fn judge_clock(now: u64, is_synchronized: bool) -> Finding {
    const CHECK: &str = "clock";
    let advice = "start a time service, such as systemd-timesyncd or chrony";
    match (now, is_synchronized) {
        (..EARLIEST, _) => Finding::failure(CHECK, "it shows a time before 2025", advice),
        (_, true) => Finding::ok(CHECK, "it follows a time server"),
        (_, false) => {
            let says = "nobody says that it follows a time server (another service may set it)";
            Finding::warning(CHECK, says, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn a_directory_that_others_see_and_one_that_is_none_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let state = |path: &Path| data_dir(path)[0].state;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(state(dir.path()), State::Ok);
        assert_eq!(state(&dir.path().join("new").join("er")), State::Ok);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(state(dir.path()), State::Warning);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(state(&file), State::Failure);
    }

    #[test]
    fn a_clock_is_judged_by_its_year_and_its_service() {
        assert_eq!(judge_clock(0, true).state, State::Failure);
        assert_eq!(judge_clock(EARLIEST, true).state, State::Ok);
        assert_eq!(judge_clock(EARLIEST, false).state, State::Warning);
    }
}
