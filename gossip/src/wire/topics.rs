//! Topics: the small ordered map of requests, answers and interests.

use bytes::Bytes;

/// An ordered list of keys with data. Keys may repeat; a look-up finds the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topics(pub Vec<(Bytes, Bytes)>);
