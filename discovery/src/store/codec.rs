//! The bytes of one record and of one ban.
//!
//! ```text
//!   record: flags ‖ failures ‖ [len ‖ identity] ‖ [last seen, s] ‖ [not before, s] ‖ [round trip, µs]
//!           ‖ count ‖ count × (len ‖ kind ‖ len ‖ name ‖ count ‖ count × (len ‖ role))
//!   ban:    until, s ‖ len ‖ cause ‖ len ‖ reason
//! ```
//!
//! Numbers are those of `gossip::wire::varint`, times are seconds of Unix time, and what stands in brackets is there if
//! its flag is set. The address of a record and the subject of a ban are the keys of the file.
//!
//! # Invariants
//!
//! * A record decodes to itself, down to the second or the microsecond.
//! * Decoding panics on no input, takes memory for what is there alone, and refuses bytes that nothing needs.

use std::time::{Duration, SystemTime};

use gossip::{Identity, NodeAddress, wire::varint};
use mesh::{Ban, BanCause, BanSubject, Record, Role, RoleSet, SourceId, SourceKind};

const WORKED: u8 = 1;
const ANCHOR: u8 = 1 << 1;
const IDENTITY: u8 = 1 << 2;
const LAST_SEEN: u8 = 1 << 3;
const RETRY_AT: u8 = 1 << 4;
const RTT: u8 = 1 << 5;
const KNOWN: u8 = WORKED | ANCHOR | IDENTITY | LAST_SEEN | RETRY_AT | RTT;

/// Encodes all of a record but its address.
#[must_use]
pub fn encode_record(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    out.push(
        flag(record.worked, WORKED)
            | flag(record.anchor, ANCHOR)
            | flag(record.identity.is_some(), IDENTITY)
            | flag(record.last_seen.is_some(), LAST_SEEN)
            | flag(record.retry_at.is_some(), RETRY_AT)
            | flag(record.rtt.is_some(), RTT),
    );
    varint::put(record.failures.into(), &mut out);
    if let Some(identity) = &record.identity {
        put_bytes(identity.peer_id_bytes(), &mut out);
    }
    for time in [record.last_seen, record.retry_at].into_iter().flatten() {
        varint::put(seconds(time), &mut out);
    }
    if let Some(rtt) = record.rtt {
        varint::put(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX), &mut out);
    }
    put_count(record.listings.len(), &mut out);
    for (source, roles) in &record.listings {
        put_bytes(source.kind().label().as_bytes(), &mut out);
        put_bytes(source.name().as_bytes(), &mut out);
        put_count(roles.iter().count(), &mut out);
        for role in roles.iter() {
            put_bytes(role.as_str().as_bytes(), &mut out);
        }
    }
    out
}

/// Decodes the record of an address; `None` if the bytes are no record.
#[must_use]
pub fn decode_record(address: NodeAddress, bytes: &[u8]) -> Option<Record> {
    let mut rest = Reader(bytes);
    let flags = rest.byte()?;
    let has = |flag| flags & flag != 0;
    if flags & !KNOWN != 0 {
        return None;
    }
    let failures = u32::try_from(rest.number()?).ok()?;
    let identity = match has(IDENTITY) {
        true => Some(Identity::from_peer_id_bytes(rest.bytes()?)?),
        false => None,
    };
    let last_seen = if has(LAST_SEEN) { Some(rest.time()?) } else { None };
    let retry_at = if has(RETRY_AT) { Some(rest.time()?) } else { None };
    let rtt = if has(RTT) { Some(Duration::from_micros(rest.number()?)) } else { None };
    let mut listings = Vec::new();
    for _ in 0..rest.number()? {
        let kind = SourceKind::from_label(rest.text()?)?;
        let name = rest.text()?;
        let mut roles = RoleSet::new();
        for _ in 0..rest.number()? {
            roles.insert(rest.text()?.parse::<Role>().ok()?).then_some(())?;
        }
        listings.push((SourceId::named(kind, name), roles));
    }
    let mut record = Record::new(address);
    record.listings = listings;
    (record.worked, record.anchor) = (has(WORKED), has(ANCHOR));
    (record.identity, record.failures) = (identity, failures);
    (record.last_seen, record.retry_at, record.rtt) = (last_seen, retry_at, rtt);
    rest.is_empty().then_some(record)
}

/// Encodes all of a ban but its subject.
#[must_use]
pub fn encode_ban(ban: &Ban) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    varint::put(seconds(ban.until), &mut out);
    put_bytes(ban.cause.label().as_bytes(), &mut out);
    put_bytes(ban.reason.as_bytes(), &mut out);
    out
}

/// Decodes the ban of a subject; `None` if the bytes are no ban.
#[must_use]
pub fn decode_ban(subject: BanSubject, bytes: &[u8]) -> Option<Ban> {
    let mut rest = Reader(bytes);
    let until = rest.time()?;
    let label = rest.text()?;
    let causes = [BanCause::Misbehaviour, BanCause::Operator];
    let cause = causes.into_iter().find(|cause| cause.label() == label)?;
    let reason = rest.text()?.to_owned();
    rest.is_empty().then_some(Ban { subject, until, cause, reason })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    varint::put(count as u64, out);
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_count(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Bytes that are not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let (number, length) = varint::get(self.0)?;
        self.0 = self.0.get(length..)?;
        Some(number)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn time(&mut self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.number()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn any_time() -> impl Strategy<Value = SystemTime> {
        (0..10_000_000_000_u64).prop_map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s))
    }

    fn any_identity() -> impl Strategy<Value = Identity> {
        any::<[u8; 32]>().prop_map(Identity::from_ed25519)
    }

    fn any_listing() -> impl Strategy<Value = (SourceId, RoleSet)> {
        let kind = proptest::sample::select(SourceKind::ALL.to_vec());
        let roles = vec("[a-z0-9-]{1,32}", 0..8);
        (kind, "[^\\x00-\\x1f\\x7f-\\x9f]{0,60}", roles).prop_map(|(kind, name, roles)| {
            let roles = roles.iter().map(|role| role.parse::<Role>().unwrap()).collect();
            (SourceId::named(kind, &name), roles)
        })
    }

    prop_compose! {
        fn any_record()(
            (worked, anchor, failures) in any::<(bool, bool, u32)>(),
            identity in option::of(any_identity()),
            last_seen in option::of(any_time()),
            retry_at in option::of(any_time()),
            rtt in option::of(any::<u64>()),
            listings in vec(any_listing(), 0..8),
        ) -> Record {
            let mut record = Record::new("a.example:1".parse().unwrap());
            (record.worked, record.anchor, record.failures) = (worked, anchor, failures);
            (record.identity, record.last_seen, record.retry_at) = (identity, last_seen, retry_at);
            (record.rtt, record.listings) = (rtt.map(Duration::from_micros), listings);
            record
        }
    }

    proptest! {
        #[test]
        fn a_record_decodes_to_itself(record in any_record()) {
            let bytes = encode_record(&record);
            prop_assert_eq!(decode_record(record.address.clone(), &bytes), Some(record.clone()));
            for length in 0..bytes.len() {
                prop_assert_eq!(decode_record(record.address.clone(), &bytes[..length]), None);
            }
            let longer = [&bytes[..], &[0]].concat();
            prop_assert_eq!(decode_record(record.address.clone(), &longer), None);
        }

        #[test]
        fn a_ban_decodes_to_itself(
            identity in any_identity(),
            until in any_time(),
            is_operator in any::<bool>(),
            reason in ".{0,120}",
        ) {
            let cause = if is_operator { BanCause::Operator } else { BanCause::Misbehaviour };
            let subject = BanSubject::Identity(identity);
            let ban = Ban { subject: subject.clone(), until, cause, reason };
            let bytes = encode_ban(&ban);
            prop_assert_eq!(decode_ban(subject.clone(), &bytes), Some(ban));
            prop_assert_eq!(decode_ban(subject, &bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
            let address: NodeAddress = "a.example:1".parse().unwrap();
            // Bytes that are a record are as good as those that it is encoded to.
            if let Some(record) = decode_record(address.clone(), &bytes) {
                let again = decode_record(address.clone(), &encode_record(&record));
                prop_assert_eq!(again, Some(record));
            }
            let _ = decode_ban(BanSubject::Address(address), &bytes);
        }
    }
}
