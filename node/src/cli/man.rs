//! `tandem man`: the manual pages, made from the same description as the help.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::CommandFactory;
use clap_mangen::Man;

use super::{Cli, failure::Failure, output};

/// Prints the page of the program, or writes those of all commands into a folder.
pub(crate) async fn man(out: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let Some(dir) = out else {
        // As the generator of all pages sees it.
        let mut program = Cli::command().disable_help_subcommand(true);
        program.build();
        let mut page = Vec::new();
        // Nothing fails that writes into memory.
        let _ = Man::new(program).render(&mut page);
        output::print(String::from_utf8_lossy(&page).trim_end()).await?;
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(&dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &dir))
        .map_err(|source| Failure::Write { path: dir, source })?;
    Ok(ExitCode::SUCCESS)
}
