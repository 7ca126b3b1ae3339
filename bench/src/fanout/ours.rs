//! A Tandem node.

use super::race::{Publish, Stage};
use crate::error::Failure;

pub(super) async fn ws(_stage: Stage) -> Result<Publish, Failure> {
    Err("net-ws has not landed".into())
}

pub(super) async fn p2p(_stage: Stage) -> Result<Publish, Failure> {
    Err("net-p2p has not landed".into())
}
