//! `tandem config`: the configuration that a node would run with, a file to begin with, and the schema of such files.

use std::{fs::File, io::Write, process::ExitCode};

use super::{
    args::{ConfigArgs, ConfigCommand, ConfigSource},
    failure::Failure,
    memory, output, run,
};
use crate::config::{self, Layers, Settings};

/// Prints it, or writes a file.
pub(crate) async fn config(args: ConfigArgs) -> Result<ExitCode, Failure> {
    match args.what {
        None => in_force(args.source).await?,
        Some(ConfigCommand::Schema) => {
            let schema = serde_json::to_string_pretty(&config::schema());
            output::print(&schema.unwrap_or_default()).await?;
        }
        Some(ConfigCommand::Init { file: None }) => {
            output::print(config::commented().trim_end()).await?;
        }
        Some(ConfigCommand::Init { file: Some(path) }) => {
            // A file that is there is somebody's work.
            let written = File::create_new(&path)
                .and_then(|mut file| file.write_all(config::commented().as_bytes()));
            written.map_err(|source| Failure::Write { path, source })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the configuration that a node would run with.
async fn in_force(source: ConfigSource) -> Result<(), Failure> {
    let layers = Layers::gather(source.config.as_deref(), &source.flags)?;
    let settings = Settings::check(&layers)?;
    run::describe(&settings).check()?;
    let memory = memory::Bounds::of(&settings);
    output::print(&format!("{layers}# {memory}")).await
}
