//! The limit on open files of this process, and the connection limits that follow from it.
//!
//! # Invariants
//!
//! * A node never has so many connections that no descriptor is left for its admin socket and its files.
//! * Where that takes from what was configured, one line says so.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tandem::{InboundLimits, MIN_OPEN_FILES};

use super::failure::Failure;

/// Raises the soft limit on open files to the hard one, and fits `limits` to it.
pub(super) fn fit(limits: InboundLimits) -> Result<InboundLimits, Failure> {
    let allowed = raise();
    let Some(fitted) = limits.fitted_to(allowed) else {
        return Err(Failure::OpenFiles { allowed, least: MIN_OPEN_FILES });
    };
    if fitted != limits {
        tracing::warn!(
            open_files = allowed,
            max_inbound = fitted.total,
            configured = limits.total,
            max_outbound = fitted.outbound,
            "fewer connections than configured: this process may have no more files open"
        );
    }
    Ok(fitted)
}

/// Fits other limits of a node that runs: there were enough files when it started.
pub(super) fn refit(limits: InboundLimits) -> InboundLimits {
    fit(limits).unwrap_or(limits)
}

/// The limit on open files, raised as far as it can be.
fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
    let allowed = if raised.is_ok() { maximum } else { current };
    // Without a limit there are more than any node needs.
    allowed.map_or(usize::MAX, |allowed| usize::try_from(allowed).unwrap_or(usize::MAX))
}
