//! The sources of the project, for tests that read them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Adds the Rust sources below a folder to `found`.
///
/// # Panics
///
/// If the folder cannot be read.
pub fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("a folder can be read");
    for entry in entries {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
