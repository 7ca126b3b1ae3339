//! The terms between a race and its contenders.

use std::sync::Arc;

use bytes::Bytes;
use runtime::TaskSet;

use crate::{error::Failure, meter::Meter};

/// Hands a message to a contender, without waiting.
pub(super) type Publish = Box<dyn FnMut(Bytes) -> Result<(), Failure> + Send>;

/// The parts from which a contender is set up.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) peers: usize,
    pub(super) meter: Arc<Meter>,
    pub(super) tasks: TaskSet,
}
