//! The running node that a command speaks to, and where its configuration comes from.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use crate::config::{ConfigError, Flags, Layers, Settings};

/// The configuration to print, or what else to do about it.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) what: Option<ConfigCommand>,
    #[command(flatten)]
    pub(crate) source: ConfigSource,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a file with every setting in a comment, to begin with.
    Init {
        /// The file, which must not be there yet. Standard output if left out.
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
    /// Print the JSON schema of configuration files, for editors.
    Schema,
}

/// Where the configuration of a node comes from.
#[derive(Debug, Args)]
pub(crate) struct ConfigSource {
    /// File to read settings from, in TOML [env: TANDEM_CONFIG].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) flags: Flags,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) source: ConfigSource,
}

/// Which running node a command speaks to.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Data directory of the node [default: ~/.local/share/tandem] [env: TANDEM_DATA_DIR].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data_dir: Option<String>,
    /// Configuration file of the node [env: TANDEM_CONFIG].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

impl Target {
    /// The data directory of the node.
    pub(crate) fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        let flags = Flags::data_dir(self.data_dir.as_ref());
        Settings::data_dir(&Layers::gather(self.config.as_deref(), &flags)?)
    }
}

/// The node that a command with subcommands speaks to, or whose files it changes.
#[derive(Debug, Args)]
pub(crate) struct GlobalTarget {
    /// Data directory of the node [default: ~/.local/share/tandem] [env: TANDEM_DATA_DIR].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, global = true)]
    data_dir: Option<String>,
    /// Configuration file of the node [env: TANDEM_CONFIG].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, global = true)]
    config: Option<PathBuf>,
}

impl GlobalTarget {
    /// The settings of the node, as far as a command knows them.
    pub(crate) fn layers(&self) -> Result<Layers, ConfigError> {
        Layers::gather(self.config.as_deref(), &Flags::data_dir(self.data_dir.as_ref()))
    }
}

#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    #[command(flatten)]
    pub(crate) target: Target,
}
