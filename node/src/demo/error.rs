//! Why a demo failed.

use std::{io, path::PathBuf};

/// Why a demo failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DemoError {
    /// There is no such node to kill.
    #[error("there is no node {name:?} to kill: name one of {known}")]
    NoVictim {
        /// The name as given.
        name: String,
        /// Those there are.
        known: String,
    },
    /// Every node is in the middle.
    #[error("there is no node to kill that the others can do without: start more with --nodes")]
    NoLeaf,
    /// There is no place for the files of the nodes.
    #[error("cannot keep the files of the demo in {}", path.display())]
    Files {
        /// The directory or file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// There is no port for the page.
    #[error("cannot listen on 127.0.0.1 for the page")]
    Page {
        /// The error of the operating system.
        source: io::Error,
    },
    /// The package for the page cannot be used.
    #[error("the package in {} cannot be read: web/node/build makes one", path.display())]
    Package {
        /// The folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A process could not be started.
    #[error("cannot start node {name}")]
    Spawn {
        /// The node.
        name: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A node did not come up in time.
    #[error("node {name} was not ready within {seconds} s: see {}", log.display())]
    NotReady {
        /// The node.
        name: String,
        /// The deadline.
        seconds: u64,
        /// The lines that the node logged.
        log: PathBuf,
    },
    /// A node ended before it was told to.
    #[error("node {name} ended by itself ({status}): see {}", log.display())]
    Died {
        /// The node.
        name: String,
        /// Its exit status.
        status: String,
        /// The lines that the node logged.
        log: PathBuf,
    },
    /// The nodes did not find each other.
    #[error("{missing} pairs of nodes did not hear each other within {seconds} s: see {}", dir.display())]
    NotMeshed {
        /// Pairs that heard nothing on one of the lanes.
        missing: usize,
        /// The deadline.
        seconds: u64,
        /// The files of the nodes.
        dir: PathBuf,
    },
    /// Messages were lost or handled twice.
    #[error("{lost} messages were lost and {duplicated} handled twice")]
    Unsound {
        /// Lost.
        lost: u64,
        /// Handled more than once, counted for each time too many.
        duplicated: u64,
    },
    /// A signal came.
    #[error("the demo was interrupted")]
    Interrupted,
}

impl DemoError {
    /// `true` if the command line has to be changed.
    pub(crate) const fn is_misuse(&self) -> bool {
        matches!(self, Self::NoVictim { .. } | Self::NoLeaf)
    }
}
