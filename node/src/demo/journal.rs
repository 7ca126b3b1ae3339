//! The deeds of a node, in a file that outlives it.
//!
//! # Invariants
//!
//! * A record is written in one piece and never crosses a page, so a process that is killed leaves
//!   only whole records.
//! * Records are appended; a reader takes each of them once.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use gossip::Transport;

use super::body::{Class, Stamp};

/// Length of a record, in bytes. It divides the size of a page.
const RECORD_BYTES: usize = 32;

/// Records that are read at a time.
const READ_BYTES: usize = 4_096 * RECORD_BYTES;

/// An event in the life of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It is about to be given to the node.
    Sent,
    /// It was never taken by the node, whose queues were full until the end.
    Withdrawn,
    /// A handler got it.
    Heard(Transport),
    /// Nothing more will be sent; the stamp says by whom only.
    Done,
}

/// One line of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) deed: Deed,
    pub(crate) stamp: Stamp,
    /// When it happened, in nanoseconds since 1970.
    pub(crate) at_ns: u64,
}

impl Record {
    fn encode(self) -> [u8; RECORD_BYTES] {
        let Self { deed, stamp, at_ns } = self;
        let deed = match deed {
            Deed::Sent => 1,
            Deed::Withdrawn => 2,
            Deed::Heard(Transport::WebSocket) => 3,
            Deed::Heard(Transport::Libp2p) => 4,
            // A demo has no other transports.
            Deed::Heard(_) => 5,
            Deed::Done => 6,
        };
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(&[deed, stamp.class.code(), stamp.sender, stamp.life]);
        bytes[4..8].copy_from_slice(&stamp.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&stamp.sent_ns.to_le_bytes());
        bytes[16..24].copy_from_slice(&at_ns.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let deed = match bytes[0] {
            1 => Deed::Sent,
            2 => Deed::Withdrawn,
            3 => Deed::Heard(Transport::WebSocket),
            4 => Deed::Heard(Transport::Libp2p),
            5 => Deed::Heard(Transport::Memory),
            6 => Deed::Done,
            _ => return None,
        };
        let stamp = Stamp {
            class: Class::from_code(bytes[1])?,
            sender: bytes[2],
            life: bytes[3],
            number: u32::from_le_bytes(bytes[4..8].try_into().ok()?),
            sent_ns: u64::from_le_bytes(bytes[8..16].try_into().ok()?),
        };
        Some(Self { deed, stamp, at_ns: u64::from_le_bytes(bytes[16..24].try_into().ok()?) })
    }
}

/// Writes a journal.
#[derive(Debug)]
pub(crate) struct Journal(File);

impl Journal {
    /// Starts a journal.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        File::options().create_new(true).append(true).open(path).map(Self)
    }

    /// Adds a record. A journal that cannot be written makes the account wrong, so it ends the node.
    pub(crate) fn note(&self, record: Record) {
        if let Err(error) = (&self.0).write_all(&record.encode()) {
            tracing::error!(%error, "the journal cannot be written");
            std::process::exit(1);
        }
    }
}

/// Reads a journal while it is written.
#[derive(Debug)]
pub(crate) struct Tail {
    file: File,
    /// The beginning of a record that is being written.
    rest: Vec<u8>,
}

impl Tail {
    /// Reads a journal from its beginning.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, rest: Vec::new() })
    }

    /// The records that were added since the last time.
    pub(crate) fn read(&mut self, mut take: impl FnMut(Record)) -> io::Result<()> {
        loop {
            let read = (&self.file).take(READ_BYTES as u64).read_to_end(&mut self.rest)?;
            let (records, rest) = self.rest.as_chunks::<RECORD_BYTES>();
            records.iter().filter_map(Record::decode).for_each(&mut take);
            self.rest = rest.to_vec();
            if read == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_takes_every_record_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::create(&path).unwrap();
        let mut tail = Tail::open(&path).unwrap();
        let record = |number: u32, deed: Deed| Record {
            deed,
            stamp: Stamp { class: Class::Vote, sender: 1, life: 2, number, sent_ns: 3 },
            at_ns: 4,
        };
        let mut read = Vec::new();
        tail.read(|record| read.push(record)).unwrap();
        assert_eq!(read, []);
        let deeds = [
            Deed::Sent,
            Deed::Withdrawn,
            Deed::Heard(Transport::WebSocket),
            Deed::Heard(Transport::Libp2p),
            Deed::Heard(Transport::Memory),
            Deed::Done,
        ];
        let mut written = Vec::new();
        for number in 0..10_000 {
            written.push(record(number, deeds[number as usize % deeds.len()]));
            journal.note(*written.last().unwrap());
            if number % 3_000 == 0 {
                tail.read(|record| read.push(record)).unwrap();
            }
        }
        tail.read(|record| read.push(record)).unwrap();
        assert_eq!(read, written);
    }
}
