//! A control group with a limit on memory, where the system lets this process make one.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
};

/// The hierarchies in which groups are made: version 2, and the one for memory of version 1.
const ROOTS: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];

/// A group, removed when it is dropped. Its processes must have ended by then.
#[derive(Debug)]
pub struct ControlGroup {
    path: PathBuf,
}

impl ControlGroup {
    /// Makes a group whose processes use `bytes` of memory at most; the system kills one that wants more.
    ///
    /// # Errors
    ///
    /// When neither version can be used here.
    pub fn with_memory(bytes: usize) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::Unsupported);
        for (root, limit) in ROOTS {
            let path = Path::new(root).join(format!("tandem-test-{}", process::id()));
            let made = fs::create_dir(&path).and_then(|()| {
                let group = Self { path };
                // The system makes the file. Where it does not, this is a folder like any other.
                let mut limit = File::options().write(true).open(group.path.join(limit))?;
                limit.write_all(bytes.to_string().as_bytes())?;
                Ok(group)
            });
            match made {
                Ok(group) => return Ok(group),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The file that takes the ID of a process which is to join the group.
    #[must_use]
    pub fn processes(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A group with processes stays; the test has failed then.
        let _ = fs::remove_dir(&self.path);
    }
}
