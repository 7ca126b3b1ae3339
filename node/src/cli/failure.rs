//! The message of a command that failed, and its exit code.

use std::{error::Error, io, path::PathBuf, process::ExitCode};

use gossip::{
    NodeAddress,
    http::{BoxError, HttpAddressError, HttpError},
};
use http::StatusCode;
use services::{
    files::{FetchError, PutFileError},
    perf::PerfError,
};
use tandem::{
    DataDirError, Fault, ForwardError, OpenError, PeerFileError, StartError, TooManyBans,
};

use super::services::ServiceError;
use crate::spans::SpanError;
use crate::{
    admin::{AdminError, ClientError, ExporterError, RemoteError, TokenError},
    config::ConfigError,
    demo::DemoError,
    log,
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
    /// Spans cannot be exported.
    #[error(transparent)]
    Spans(#[from] SpanError),
    /// The admin API did not start.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The admin API cannot be had over TCP.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// There is no token for it.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The port for collectors cannot be had.
    #[error(transparent)]
    Exporter(#[from] ExporterError),
    /// The peer store of a node that does not run cannot be used.
    #[error("{0}: a node that starts puts a damaged one aside")]
    Store(#[from] PeerFileError),
    /// The data directory of a node cannot be used.
    #[error(transparent)]
    Dir(#[from] DataDirError),
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
    /// No stream to a peer was opened.
    #[error("cannot measure to {peer}")]
    Open {
        /// Its address.
        peer: NodeAddress,
        /// The reason.
        source: Box<OpenError>,
    },
    /// A measurement came to nothing.
    #[error(transparent)]
    Perf(#[from] PerfError),
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
    /// Addresses that were to be removed were not there.
    #[error("{count} of the addresses are not in the phonebook")]
    NotKnown {
        /// Their number.
        count: usize,
    },
    /// Bans that were to be ended were not there.
    #[error("{count} of them are not banned: tandem peer list shows those that are")]
    NotBanned {
        /// Their number.
        count: usize,
    },
    /// No node has seen a message.
    #[error(
        "none of the nodes that answered keeps the way of this message: it is not in their sample (trace_one_in), was forgotten, or did not come; tandem trace --watch DIGEST keeps the next one"
    )]
    NoTrace,
    /// No node could be asked.
    #[error("none of the nodes answered")]
    NobodyAnswered,
    /// There is no room for a ban.
    #[error(transparent)]
    TooManyBans(#[from] TooManyBans),
    /// Addresses that were to be added found no place.
    #[error("{count} of the addresses found no place: the phonebook is full, remove some first")]
    PhonebookFull {
        /// Their number.
        count: usize,
    },
    /// A message went to nobody.
    #[error("the node has no peers: nobody received the message")]
    NobodyHeard,
    /// A message on a topic went to nobody.
    #[error("no peer is subscribed to {topic}: nobody received the message")]
    NobodySubscribed {
        /// The topic.
        topic: String,
    },
    /// A value went to nobody.
    #[error("no other node of the DHT took the value; this node has it under {key}")]
    NobodyStored {
        /// Its key.
        key: String,
    },
    /// There is no value of a key.
    #[error("no node of the DHT that was reached has a value of this key")]
    NoValue,
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
            Self::Open { source, .. } if matches!(**source, OpenError::Address(_)) => 2,
            Self::Status { .. } => ERROR_ANSWERED,
            Self::Start(_)
            | Self::Service(_)
            | Self::Spans(_)
            | Self::Admin(_)
            | Self::Exporter(_)
            | Self::Remote(_)
            | Self::Token(_)
            | Self::Store(_)
            | Self::Dir(_)
            | Self::NotKnown { .. }
            | Self::NotBanned { .. }
            | Self::NoTrace
            | Self::NobodyAnswered
            | Self::TooManyBans(_)
            | Self::PhonebookFull { .. }
            | Self::Client(_)
            | Self::Demo(_)
            | Self::Http(_)
            | Self::Body { .. }
            | Self::Put(_)
            | Self::Get(_)
            | Self::Open { .. }
            | Self::Perf(_)
            | Self::Forward(_)
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::System { .. }
            | Self::NobodyHeard
            | Self::NobodySubscribed { .. }
            | Self::NobodyStored { .. }
            | Self::NoValue
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
        log::in_one_line(self)
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
