//! `tandem keygen`: a key for a node.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use gossip::Keypair;
use rand::Rng;
use runtime::Random;

use super::{args::KeygenArgs, failure::Failure, output};
use crate::log;

/// Makes a key, writes it, and tells its public part.
pub(crate) async fn keygen(args: KeygenArgs) -> Result<ExitCode, Failure> {
    let key = Keypair::from_seed(Random::system().random());
    // No key is known that the encoder fails on.
    let text = key.to_pem().map_err(|error| Failure::Usage { text: error.to_string() })?;
    match &args.out {
        Some(path) => {
            write(path, &text)?;
            output::print(&key.identity().to_string()).await?;
        }
        None => {
            output::print(text.trim_end()).await?;
            // Told after the key was written: an identity whose key is lost is of no use.
            log::note(&key.identity().to_string());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An error without the path of the temporary file, which the library adds to that of the operating system.
fn without_path(error: io::Error) -> io::Error {
    if error.get_ref().is_some() { error.kind().into() } else { error }
}

/// Writes a file that only its owner can read, whole or not at all. One that is there stays as it is.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| Failure::Write { path: path.to_owned(), source: without_path(error) };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::metadata(dir).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist_noclobber(path).map_err(|error| failed(error.error))?;
    Ok(())
}
