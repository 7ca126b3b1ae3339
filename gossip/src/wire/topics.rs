//! Topics: the small ordered map of requests, answers and interests.
//!
//! ```text
//!   count │ key length │ key │ data length │ data │ key length │ …
//! ```
//!
//! # Invariants
//!
//! * Decoding copies nothing: keys and data are slices of the payload, and keep it alive.
//! * Every length is checked against its bound and against what is left before it is used.
//! * The text of a [`TopicsError`] is part of the protocol: it is sent back to who sent the topics.

use bytes::{Bytes, BytesMut};

use super::varint;

/// Most topics of one list. Source: wire facts 4.1.
pub const MAX_TOPICS: usize = 32;

/// Longest key, in bytes; an empty key is not allowed. Source: wire facts 4.1.
pub const MAX_KEY_BYTES: usize = 64;

/// Longest data of one topic, in bytes: 6 MiB. Source: wire facts 4.1.
pub const MAX_DATA_BYTES: usize = 6 * 1024 * 1024;

/// Shortest topic there is, in bytes: two lengths and a key of one byte.
const MIN_TOPIC_BYTES: usize = 3;

/// An ordered list of keys with data. Keys may repeat; a look-up finds the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topics(Vec<(Bytes, Bytes)>);

/// Why bytes are not a list of topics, or why a list cannot be sent.
///
/// The texts are those existing nodes answer with, letter by letter. Source: vectors `topics.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicsError {
    /// The payload is empty, or its first number is cut off or too large for 64 bits.
    #[error("UnmarshallTopics: could not read the number of topics")]
    Count,
    /// More than [`MAX_TOPICS`] are announced.
    #[error("UnmarshallTopics: number of topics {count} is greater than {MAX_TOPICS}")]
    TooMany {
        /// The number announced.
        count: u64,
    },
    /// The length of a key is missing or cut off.
    #[error("UnmarshallTopics: could not read the key length")]
    KeyLength,
    /// A key is empty, longer than [`MAX_KEY_BYTES`], or cut off.
    #[error("UnmarshallTopics: could not read the key")]
    Key,
    /// The length of data is missing, cut off, or more than [`MAX_DATA_BYTES`].
    #[error("UnmarshallTopics: could not read the data length")]
    DataLength,
    /// Data is cut off.
    #[error("UnmarshallTopics: data larger than buffer size")]
    Data,
}

impl Topics {
    /// The empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends a topic.
    pub fn push(&mut self, key: impl Into<Bytes>, data: impl Into<Bytes>) {
        self.0.push((key.into(), data.into()));
    }

    /// This list and one more topic.
    #[must_use]
    pub fn with(mut self, key: impl Into<Bytes>, data: impl Into<Bytes>) -> Self {
        self.push(key, data);
        self
    }

    /// The data of the first topic with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.iter().find(|(candidate, _)| *candidate == key).map(|(_, data)| data)
    }

    /// Removes every topic with this key.
    pub fn remove(&mut self, key: &str) {
        self.0.retain(|(candidate, _)| candidate != key);
    }

    /// Every topic, in order.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Bytes, &Bytes)> {
        self.0.iter().map(|(key, data)| (key, data))
    }

    /// Returns the number of topics.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is no topic.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that a reader accepts this list: otherwise the bytes that [`Topics::encode`] writes are refused.
    ///
    /// # Errors
    ///
    /// The error that the reader would give.
    pub fn check(&self) -> Result<(), TopicsError> {
        if self.len() > MAX_TOPICS {
            return Err(TopicsError::TooMany { count: self.len() as u64 });
        }
        for (key, data) in self.iter() {
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                return Err(TopicsError::Key);
            }
            if data.len() > MAX_DATA_BYTES {
                return Err(TopicsError::DataLength);
            }
        }
        Ok(())
    }

    /// Returns the number of bytes that [`Topics::encode`] gives.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let part = |bytes: &Bytes| varint::encoded_len(bytes.len() as u64) + bytes.len();
        let topics: usize = self.iter().map(|(key, data)| part(key) + part(data)).sum();
        varint::encoded_len(self.len() as u64) + topics
    }

    /// The list as bytes, in one allocation. Bounds are the caller's: see [`Topics::check`].
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        varint::put(self.len() as u64, &mut out);
        for (key, data) in self.iter() {
            for part in [key, data] {
                varint::put(part.len() as u64, &mut out);
                out.extend_from_slice(part);
            }
        }
        out.freeze()
    }

    /// Reads a list. Bytes after the last topic are ignored, as existing nodes do.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, in the order of the bytes.
    pub fn decode(payload: &Bytes) -> Result<Self, TopicsError> {
        let mut cursor = Cursor { payload, at: 0 };
        let count = cursor.number().ok_or(TopicsError::Count)?;
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        if wanted > MAX_TOPICS {
            return Err(TopicsError::TooMany { count });
        }
        let mut topics = Vec::with_capacity(wanted.min(cursor.left() / MIN_TOPIC_BYTES));
        for _ in 0..wanted {
            let key_len = cursor.number().ok_or(TopicsError::KeyLength)?;
            let key = match key_len {
                1..=64 => cursor.slice(key_len).ok_or(TopicsError::Key)?,
                _ => return Err(TopicsError::Key),
            };
            let data_len = cursor.number().ok_or(TopicsError::DataLength)?;
            if data_len > MAX_DATA_BYTES as u64 {
                return Err(TopicsError::DataLength);
            }
            let data = cursor.slice(data_len).ok_or(TopicsError::Data)?;
            topics.push((key, data));
        }
        Ok(Self(topics))
    }
}

impl<K: Into<Bytes>, D: Into<Bytes>> FromIterator<(K, D)> for Topics {
    fn from_iter<I: IntoIterator<Item = (K, D)>>(topics: I) -> Self {
        Self(topics.into_iter().map(|(key, data)| (key.into(), data.into())).collect())
    }
}

/// A place in a payload. `at` never passes its end.
struct Cursor<'a> {
    payload: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn left(&self) -> usize {
        self.payload.len() - self.at
    }

    fn number(&mut self) -> Option<u64> {
        let (value, used) = varint::get(self.payload.get(self.at..)?)?;
        self.at += used;
        Some(value)
    }

    fn slice(&mut self, len: u64) -> Option<Bytes> {
        let len = usize::try_from(len).ok().filter(|&len| len <= self.left())?;
        let start = self.at;
        self.at += len;
        Some(self.payload.slice(start..self.at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_look_up_finds_the_first_of_equal_keys() {
        let topics = Topics::new().with("a", "1").with("a", "2");
        assert_eq!(topics.get("a").unwrap(), "1");
        assert_eq!(topics.get("b"), None);
    }

    #[test]
    fn decoded_data_is_a_slice_of_the_payload() {
        let payload = Topics::new().with("key", vec![7; 1000]).encode();
        let data = Topics::decode(&payload).unwrap().get("key").unwrap().clone();
        assert!(payload.as_ptr_range().contains(&data.as_ptr()));
    }

    #[test]
    fn a_list_at_every_bound_survives() {
        let mut topics = Topics::new().with("d", vec![1; MAX_DATA_BYTES]);
        for _ in 1..MAX_TOPICS {
            topics.push(vec![b'k'; MAX_KEY_BYTES], "");
        }
        assert_eq!(topics.check(), Ok(()));
        assert_eq!(Topics::decode(&topics.encode()), Ok(topics));
    }

    #[test]
    fn the_writer_refuses_what_the_reader_refuses() {
        let too_many: Topics = (0..33).map(|_| ("k", "")).collect();
        let lists = [
            too_many,
            Topics::new().with("", ""),
            Topics::new().with(vec![b'k'; 65], ""),
            Topics::new().with("k", vec![0; MAX_DATA_BYTES + 1]),
        ];
        for list in lists {
            let error = list.check().unwrap_err();
            assert_eq!(Topics::decode(&list.encode()), Err(error));
        }
    }

    proptest! {
        #[test]
        fn every_list_survives(
            list in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 1..=64), prop::collection::vec(any::<u8>(), 0..300)),
                0..=32,
            )
        ) {
            let topics: Topics = list.into_iter().collect();
            let payload = topics.encode();
            prop_assert_eq!(payload.len(), topics.encoded_len());
            prop_assert_eq!(Topics::decode(&payload), Ok(topics));
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            let payload = Bytes::from(bytes);
            if let Ok(topics) = Topics::decode(&payload) {
                prop_assert_eq!(topics.check(), Ok(()));
            }
        }
    }
}
