//! The message of a command that failed, and its exit code.

use std::{error::Error, io, path::PathBuf, process::ExitCode};

use clap::{
    CommandFactory,
    error::{ContextKind, ContextValue, ErrorKind},
};
use gossip::http::{BoxError, HttpAddressError, HttpError};
use http::StatusCode;
use services::files::{FetchError, PutFileError};
use tandem::{Fault, ForwardError, StartError};

use super::{args::Cli, services::ServiceError};
use crate::{
    admin::{AdminError, ClientError},
    config::{ConfigError, MAX_SLIPS, slips},
    demo::DemoError,
};

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// The command line cannot be used.
    #[error("{text}")]
    Usage {
        /// The mistake in it.
        text: String,
    },
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A service cannot use its place in the data directory.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The admin API did not start.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The running node did not do what it was told.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The demo could not be run.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// A peer cannot be called.
    #[error(transparent)]
    Address(#[from] HttpAddressError),
    /// A peer gave no answer.
    #[error("{}", told(.0))]
    Http(HttpError),
    /// A peer answered with an error.
    #[error("the peer answered {status}")]
    Status {
        /// Its answer.
        status: StatusCode,
    },
    /// An answer was not whole.
    #[error("the answer broke off after {received} bytes")]
    Body {
        /// So much of it came.
        received: u64,
        /// The error that ended it.
        source: BoxError,
    },
    /// A file was not put.
    #[error(transparent)]
    Put(#[from] PutFileError),
    /// A file was not got.
    #[error(transparent)]
    Get(#[from] FetchError),
    /// No local port could be had.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// A file that was named could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A message is longer than any may be.
    #[error("the message is too long: at most {max} bytes can be sent")]
    TooLong {
        /// The bound.
        max: usize,
    },
    /// The system did not give what every program gets.
    #[error("the system refused {what}")]
    System {
        /// The thing that was asked for.
        what: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The system lets the process have too few files open.
    #[error(
        "this process may have {allowed} files open, and a node needs {least}: raise the limit, for example with ulimit -n 4096"
    )]
    OpenFiles {
        /// So many.
        allowed: usize,
        /// The fewest with which a node can work.
        least: usize,
    },
    /// A message went to nobody.
    #[error("the node has no peers: nobody received the message")]
    NobodyHeard,
    /// A part of the node ended by itself.
    #[error("the node stopped by itself: {fault}")]
    Died {
        /// The part that ended.
        fault: Fault,
    },
}

/// Exit code of a request that the peer answered with an error. Source: curl, which has it for `--fail` and
/// `--fail-with-body`.
const ERROR_ANSWERED: u8 = 22;

impl Failure {
    /// The exit code of the program.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage { .. }
            | Self::Address(_)
            | Self::Config(_)
            | Self::TooLong { .. }
            | Self::Client(ClientError::BadRequest { .. }) => 2,
            Self::Start(error) if error.is_misconfiguration() => 2,
            Self::Demo(error) if error.is_misuse() => 2,
            Self::Status { .. } => ERROR_ANSWERED,
            Self::Start(_)
            | Self::Service(_)
            | Self::Admin(_)
            | Self::Client(_)
            | Self::Demo(_)
            | Self::Http(_)
            | Self::Body { .. }
            | Self::Put(_)
            | Self::Get(_)
            | Self::Forward(_)
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::System { .. }
            | Self::NobodyHeard
            | Self::OpenFiles { .. }
            | Self::Died { .. } => 1,
        })
    }

    /// `true` if nobody reads the command's output any more, which ends it and is no failure.
    pub(crate) fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The failure and what caused it, in one line.
    pub(crate) fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            line = format!("{line}: {error}");
            cause = error.source();
        }
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

/// Why there is no answer, with what caused it, and whether asking again is safe.
fn told(error: &HttpError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    if error.may_have_reached() {
        text.push_str(" (the request may have reached the peer)");
    }
    text
}

impl From<&clap::Error> for Failure {
    /// The first paragraph of what the parser says and what may have been meant, in one line.
    fn from(error: &clap::Error) -> Self {
        let text = error.to_string();
        let paragraph = text.split("\n\n").next().unwrap_or(&text);
        let words: Vec<&str> = paragraph.split_whitespace().collect();
        let text = words.join(" ");
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let help = command(error).map(|command| format!(" (try {command} --help)"));
        Self::Usage { text: format!("{text}{}{}", meant(error), help.unwrap_or_default()) }
    }
}

/// The command that was tried: the words of its usage before its flags and arguments. The parser leaves the usage out
/// where it says itself which value is right.
fn command(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else { return None };
    let usage = usage.to_string();
    let words = usage.split_whitespace().skip_while(|word| *word != "tandem");
    let is_name = |word: &&str| word.starts_with(|first: char| first.is_ascii_lowercase());
    Some(words.take_while(is_name).collect::<Vec<_>>().join(" "))
}

/// A guess at the meaning, as the end of a sentence.
fn meant(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let wrong = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            let nearest = nearest_command(&wrong);
            nearest.map_or_else(String::new, |nearest| format!(", did you mean '{nearest}'?"))
        }
        ErrorKind::UnknownArgument => match text(ContextKind::SuggestedArg) {
            Some(nearest) => format!(", did you mean '{nearest}'?"),
            // Only a text that is to be sent may begin with a hyphen.
            None => match text(ContextKind::InvalidArg).filter(|wrong| wrong.starts_with('-')) {
                Some(wrong) if command(error).as_deref() == Some("tandem send") => {
                    format!(": if it is no flag, write it behind --, as in -- '{wrong}'")
                }
                _ => String::new(),
            },
        },
        _ => String::new(),
    }
}

/// The command whose name takes the fewest changes, if they are few enough for a slip.
fn nearest_command(wrong: &str) -> Option<String> {
    let program = Cli::command();
    let names = program.get_subcommands().filter(|command| !command.is_hide_set());
    let names = names.map(|command| command.get_name().to_owned());
    names.filter(|name| slips(wrong, name) <= MAX_SLIPS).min_by_key(|name| slips(wrong, name))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[track_caller]
    fn tells(line: &str, expected: &str) {
        let error = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
        assert_eq!(Failure::from(&error).line(), expected);
    }

    #[test]
    fn a_slip_on_the_command_line_is_told_in_one_line() {
        tells(
            "tandem rum",
            "unrecognized subcommand 'rum', did you mean 'run'? (try tandem --help)",
        );
        tells(
            "tandem seend",
            "unrecognized subcommand 'seend', did you mean 'send'? (try tandem --help)",
        );
        // Issue 8, 21: a word that is no slip gets no guess, and help is that of the command.
        tells("tandem version", "unrecognized subcommand 'version' (try tandem --help)");
        tells("tandem -v", "unexpected argument '-v' found (try tandem --help)");
        tells("tandem run x", "unexpected argument 'x' found (try tandem run --help)");
        tells(
            "tandem listen --count x",
            "invalid value 'x' for '--count <COUNT>': write a whole number from 1",
        );
        tells(
            "tandem demo --seconds x",
            "invalid value 'x' for '--seconds <SECONDS>': write a whole number from 1 to 86400",
        );
        tells(
            "tandem file put x",
            "the following required arguments were not provided: <PEER> (try tandem file put --help)",
        );
        tells(
            "tandem run --mod ws",
            "unexpected argument '--mod' found, did you mean '--mode'? (try tandem run --help)",
        );
        // Issue 8, 17: what looks like a flag is never sent.
        tells(
            "tandem send --tag TX --jsn",
            "unexpected argument '--jsn' found, did you mean '--json'? (try tandem send --help)",
        );
        tells(
            "tandem send --datadir x --tag TX hello",
            "unexpected argument '--datadir' found, did you mean '--data-dir'? (try tandem send --help)",
        );
        tells(
            "tandem send --tag TX -5",
            "unexpected argument '-5' found: if it is no flag, write it behind --, as in -- '-5' \
             (try tandem send --help)",
        );
        tells(
            "tandem http -d --include h:1",
            "a value is required for '--data <DATA>' but none was supplied",
        );
        tells(
            "tandem send --tag TXX x",
            "invalid value \"TXX\" for \"--tag <TAG>\": \"TXX\" is not a message tag: \
             a tag is two printable ASCII characters, such as TX",
        );
        tells(
            "tandem send hello",
            "the following required arguments were not provided: --tag <TAG> (try tandem send --help)",
        );
    }
}
