//! The client that the page of a demo runs: the node as WebAssembly where its package was built, and the plain one otherwise.
//!
//! # Invariants
//!
//! * Of a package no more is read than one can have: [`MAX_FILES`], [`MAX_BYTES`], [`MAX_DEPTH`].

use std::{
    borrow::Cow,
    fs, io,
    path::{Path, PathBuf},
};

use axum::body::Bytes;

use super::error::DemoError;
use crate::web_page::{File, SCRIPT, WASM};

/// Folder in which `web/node/build` leaves the package, from the root of the repository.
const USUAL: &str = "web/node/pkg";

/// Files of a package. Chosen: several times as many as it has.
const MAX_FILES: usize = 64;
/// Bytes of a package. Chosen: several times those of one without optimisation.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Folders below that of the package. Chosen: twice as many as it has.
const MAX_DEPTH: usize = 2;

/// The client of the page.
#[derive(Clone, Debug)]
pub(super) enum Client {
    /// `web/client/tandem.js`, which is part of the program.
    Plain,
    /// The files of the package `tandem-web`.
    Package(Vec<File>),
}

impl Client {
    /// Reads the package in the folder that was named, or the usual one if there is one here; without it the client is the plain one.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, DemoError> {
        let usual = Path::new(USUAL);
        let folder = named.or_else(|| usual.join("tandem.js").is_file().then_some(usual));
        let Some(folder) = folder else { return Ok(Self::Plain) };
        let failed = |source| DemoError::Package { path: folder.to_owned(), source };
        let mut files = Vec::new();
        read(folder, &mut (MAX_BYTES, PathBuf::new(), &mut files)).map_err(failed)?;
        if !files.iter().any(|file| file.path == "/tandem.js") {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        Ok(Self::Package(files))
    }

    /// The name of the client, for the page.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Package(_) => "wasm",
        }
    }

    /// A line on the client, for the terminal.
    pub(super) const fn told(&self) -> &'static str {
        match self {
            Self::Plain => {
                "the page runs the plain client; with the package that web/node/build makes it runs the node as WebAssembly"
            }
            Self::Package(_) => "the page runs the node as WebAssembly",
        }
    }
}

/// Reads the scripts and the WebAssembly below `folder`, which lies at a path of the package.
fn read(folder: &Path, found: &mut (u64, PathBuf, &mut Vec<File>)) -> io::Result<()> {
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "it is no package of this kind");
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let at = found.1.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if at.components().count() > MAX_DEPTH {
                return Err(too_large());
            }
            let above = std::mem::replace(&mut found.1, at);
            read(&entry.path(), found)?;
            found.1 = above;
            continue;
        }
        let kind = match at.extension().and_then(|end| end.to_str()) {
            Some("js") => SCRIPT,
            Some("wasm") => WASM,
            _ => continue,
        };
        let left = found.0.checked_sub(entry.metadata()?.len()).ok_or_else(too_large)?;
        let (Some(path), true) = (at.to_str(), found.2.len() < MAX_FILES) else {
            return Err(too_large());
        };
        found.0 = left;
        let path = Cow::Owned(format!("/{}", path.replace(std::path::MAIN_SEPARATOR, "/")));
        found.2.push(File { path, kind, content: Bytes::from(fs::read(entry.path())?) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_read_with_its_folders_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        for path in ["tandem.d.ts", "package.json", "wasm/a.wasm", "wasm/a.js"] {
            write(path);
        }
        let refused = Client::find(Some(folder.path())).unwrap_err();
        assert!(matches!(refused, DemoError::Package { .. }), "{refused}");
        write("tandem.js");
        let Ok(Client::Package(files)) = Client::find(Some(folder.path())) else {
            panic!("it is a package")
        };
        let mut found: Vec<_> = files.iter().map(|file| (&*file.path, file.kind)).collect();
        found.sort_unstable();
        assert_eq!(found, [("/tandem.js", SCRIPT), ("/wasm/a.js", SCRIPT), ("/wasm/a.wasm", WASM)]);
        write("one/two/three/a.js");
        assert!(Client::find(Some(folder.path())).is_err(), "it is too deep");
    }

    #[test]
    fn a_folder_that_was_named_and_is_not_there_is_an_error() {
        let missing = Client::find(Some(Path::new("no such folder"))).unwrap_err();
        assert!(missing.to_string().contains("no such folder"), "{missing}");
    }
}
