//! Packed votes against the recordings of existing nodes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use crate::support;
use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;
use tandem_gossip::wire::vote::{
    MAX_PACKED_BYTES, MAX_PLAIN_BYTES, MarkKey, PackedVote, VoteError, VotePacker, VotePackers,
    VoteUnpacker, pack, put_normal, unpack,
};

/// Votes that existing nodes pack and we refuse: their fields are in another order, or one is there twice, so what
/// is unpacked again is another vote or none.
const STRICTER: [&str; 6] = [
    "r_wrong_order_step_first",
    "r_wrong_order_snd_before_rnd",
    "r_duplicate_rnd_missing_snd",
    "r_duplicate_step",
    "prop_wrong_order",
    "prop_duplicate_dig",
];

fn appended(
    append: impl FnOnce(&mut Vec<u8>) -> Result<(), VoteError>,
) -> Result<Vec<u8>, VoteError> {
    let mut out = b"..".to_vec();
    append(&mut out).map(|()| out.split_off(2))
}

fn packed(vote: &[u8]) -> Result<Vec<u8>, VoteError> {
    appended(|out| pack(vote, out))
}

fn unpacked(vote: &[u8]) -> Result<Vec<u8>, VoteError> {
    appended(|out| unpack(vote, out))
}

fn hex(value: &Value) -> Vec<u8> {
    support::from_hex(value.as_str().expect("bytes in hex")).to_vec()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key}"))
}

#[test]
fn recorded_votes_are_packed_and_unpacked_byte_for_byte() {
    let json = support::json_gz("vectors/vpack_stateless.json.gz");
    let valid = list(&json, "valid");
    assert_eq!(valid.len(), 119);
    for case in valid {
        let (plain, small) = (support::bytes(case, "msgpack"), support::bytes(case, "stateless"));
        assert_eq!(packed(&plain).unwrap(), small, "{}", case["name"]);
        assert_eq!(unpacked(&small).unwrap(), plain, "{}", case["name"]);
    }
}

#[test]
fn odd_votes_are_packed_only_if_nothing_of_them_is_lost() {
    let json = support::json_gz("vectors/vpack_stateless.json.gz");
    let cases = list(&json, "compress_cases");
    assert_eq!(cases.len(), 69);
    let mut stricter = Vec::from(STRICTER);
    for case in cases {
        let name = support::text(case, "name");
        let vote = support::bytes(case, "msgpack");
        let ours = packed(&vote);
        if let Some(at) = stricter.iter().position(|strict| *strict == name) {
            assert_ne!(case["roundtrip"], "same");
            assert!(ours.is_err(), "{name}");
            stricter.remove(at);
        } else if support::text(case, "verdict") == "ok" {
            assert_eq!(ours.unwrap(), support::bytes(case, "stateless"), "{name}");
        } else {
            assert!(ours.is_err(), "{name}");
        }
    }
    assert!(stricter.is_empty(), "every exception names a case");
}

#[test]
fn packed_votes_are_unpacked_or_refused_as_recorded() {
    let json = support::json_gz("vectors/vpack_stateless.json.gz");
    let cases = list(&json, "decompress_cases");
    assert_eq!(cases.len(), 62);
    for case in cases {
        let vote = unpacked(&support::bytes(case, "stateless"));
        match support::text(case, "verdict") {
            "ok" => assert_eq!(vote.unwrap(), support::bytes(case, "msgpack"), "{}", case["name"]),
            _ => assert!(vote.is_err(), "{}", case["name"]),
        }
    }
}

fn read(stateless: &[u8]) -> Result<PackedVote, VoteError> {
    let key = MarkKey::new(std::array::from_fn(|at| {
        0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835_u128.wrapping_pow(at as u32 + 1)
    }));
    PackedVote::read(stateless.to_vec().into(), &key)
}

/// Packs a packed vote against the earlier ones of `packer`.
fn against_earlier(packer: &mut VotePacker, stateless: &[u8]) -> Result<Vec<u8>, VoteError> {
    let vote = read(stateless)?;
    let mut out = Vec::new();
    packer.pack(&vote, &mut out);
    Ok(out)
}

/// Every vote of the sequences for tables of so many entries, both ways.
fn check_sequences(entries: usize) -> usize {
    let json = support::json_gz(&format!("vectors/vpack_stateful_{entries:04}.json.gz"));
    assert_eq!(support::size(&json, "table_size"), entries);
    let mut count = 0;
    for sequence in list(&json, "sequences") {
        let mut packer = VotePacker::new(entries).unwrap();
        let mut unpacker = VoteUnpacker::new(entries).unwrap();
        for (number, vote) in list(sequence, "votes").iter().enumerate() {
            let (stateless, stateful) = (hex(&vote[0]), hex(&vote[1]));
            let place = format!("vote {number} of {}", sequence["name"]);
            assert_eq!(against_earlier(&mut packer, &stateless).unwrap(), stateful, "{place}");
            assert_eq!(
                appended(|out| unpacker.unpack(&stateful, out)).unwrap(),
                stateless,
                "{place}"
            );
            count += 1;
        }
    }
    count
}

#[test]
fn recorded_sequences_are_packed_against_earlier_votes_byte_for_byte() {
    let tables = [16, 32, 64, 128, 256, 512, 1_024, 2_048];
    assert_eq!(tables.map(check_sequences).iter().sum::<usize>(), 5_022);
}

/// Every sequence for tables of so many entries, each on a connection of its own, a vote of each in turn. A connection
/// that has none left ends, and another one takes its place.
fn check_connections(entries: usize) -> usize {
    let json = support::json_gz(&format!("vectors/vpack_stateful_{entries:04}.json.gz"));
    let sequences = list(&json, "sequences");
    let packers = VotePackers::default();
    let mut waiting = sequences.iter().cycle().take(3 * sequences.len());
    let open = |sequence| (packers.packer(entries).unwrap(), list(sequence, "votes").iter());
    let mut connections: Vec<_> = waiting.by_ref().take(20).map(open).collect();
    let mut count = 0;
    while !connections.is_empty() {
        connections.retain_mut(|(packer, votes)| {
            let Some(vote) = votes.next() else { return false };
            assert_eq!(against_earlier(packer, &hex(&vote[0])).unwrap(), hex(&vote[1]));
            count += 1;
            true
        });
        let free = 20 - connections.len();
        connections.extend(waiting.by_ref().take(free).map(open));
    }
    count
}

// Issue 10, 7.
#[test]
fn recorded_sequences_are_packed_byte_for_byte_beside_one_another() {
    let tables = [16, 32, 64, 128, 256, 512, 1_024, 2_048];
    assert_eq!(tables.map(check_connections).iter().sum::<usize>(), 3 * 5_022);
}

/// Compares what an unpacker makes of a vote with the record of it.
#[track_caller]
fn check_unpacked(unpacker: &mut VoteUnpacker, case: &Value) {
    let vote = appended(|out| unpacker.unpack(&support::bytes(case, "stateful"), out));
    if support::text(case, "verdict") == "error" {
        assert!(vote.is_err());
        return;
    }
    let vote = vote.unwrap();
    assert_eq!(vote, support::bytes(case, "stateless"));
    match case["stateless_decode_verdict"].as_str() {
        Some("ok") => assert_eq!(unpacked(&vote).unwrap(), support::bytes(case, "msgpack")),
        Some(_) => assert!(unpacked(&vote).is_err()),
        None => {}
    }
}

#[track_caller]
fn check_packed(packer: &mut VotePacker, case: &Value) {
    let stateless = support::bytes(case, "stateless");
    let vote = against_earlier(packer, &stateless);
    match support::text(case, "verdict") {
        "ok" => assert_eq!(vote.unwrap(), support::bytes(case, "stateful")),
        _ => assert!(vote.is_err()),
    }
    // The one that loses its width on the way.
    let loses = support::text(case, "name") == "non_canonical_round_same_as_last";
    if vote_is_well_formed(&stateless) {
        assert_eq!(read(&stateless).unwrap().fits(), !loses);
    }
}

fn vote_is_well_formed(stateless: &[u8]) -> bool {
    unpacked(stateless).is_ok()
}

#[test]
fn malformed_votes_of_a_connection_are_judged_as_recorded() {
    let json = support::json_gz("vectors/vpack_stateful_malformed.json.gz");
    for case in list(&json, "constructor_sizes") {
        let made = VotePacker::new(support::size(case, "size")).is_some();
        assert_eq!(made, support::text(case, "verdict") == "ok", "{case}");
    }
    let mut count = 0;
    for group in list(&json, "groups") {
        let entries = support::size(group, "table_size");
        for case in list(group, "decode_cases") {
            println!("{entries} {}", case["name"]);
            let mut unpacker = VoteUnpacker::new(entries).unwrap();
            if let Some(steps) = case["fresh_decoder_steps"].as_array() {
                steps.iter().for_each(|step| check_unpacked(&mut unpacker, step));
                count += steps.len();
                continue;
            }
            for vote in list(group, "prelude_stateful") {
                appended(|out| unpacker.unpack(&hex(vote), out)).unwrap();
            }
            check_unpacked(&mut unpacker, case);
            count += 1;
        }
        for case in list(group, "encode_cases") {
            println!("{entries} {}", case["name"]);
            let mut packer = VotePacker::new(entries).unwrap();
            for vote in list(group, "prelude_stateless") {
                against_earlier(&mut packer, &hex(vote)).unwrap();
            }
            check_packed(&mut packer, case);
            count += 1;
        }
    }
    assert_eq!(count, 246);
}

/// Values of a vote as a few numbers, so that the same ones come again.
#[derive(Clone, Debug)]
struct Drawn {
    fields: u8,
    numbers: [u64; 4],
    sender: u8,
    keys: [u8; 2],
    proposal: u8,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let number = prop_oneof![0_u64..4, any::<u64>(), Just(u64::MAX), 120_u64..140];
    (0_u8..64, prop::array::uniform4(number), 0_u8..40, prop::array::uniform2(0_u8..40), 0_u8..12)
        .prop_map(|(fields, numbers, sender, keys, proposal)| Drawn {
            fields,
            numbers,
            sender,
            keys,
            proposal,
        })
}

impl Drawn {
    /// The vote in canonical msgpack, written here once more from the facts.
    fn msgpack(&self) -> Vec<u8> {
        let bin = |name: &str, len: u8, with: u8| -> Vec<u8> {
            // Bytes that fall into few buckets of a table.
            let body = (0..len).map(|place| if place % 8 == 0 { with } else { 0 });
            [key(name), vec![0xc4, len], body.collect()].concat()
        };
        let number = |name: &str, value: u64| [key(name), integer(value)].concat();
        let has = |bit: u8| self.fields & 1 << bit != 0;
        let mut proposal = BTreeMap::new();
        for (bit, name) in [(1, "dig"), (2, "encdig"), (4, "oprop")] {
            proposal.extend(has(bit).then(|| (name, bin(name, 32, self.proposal))));
        }
        proposal.extend(has(3).then(|| ("oper", number("oper", self.numbers[1]))));
        let mut fields = BTreeMap::new();
        fields.extend(has(0).then(|| ("per", number("per", self.numbers[0]))));
        if !proposal.is_empty() {
            let len = u8::try_from(proposal.len()).unwrap();
            let entries: Vec<u8> = proposal.into_values().flatten().collect();
            fields.insert("prop", [key("prop"), vec![0x80 | len], entries].concat());
        }
        fields.insert("rnd", number("rnd", self.numbers[2]));
        fields.insert("snd", bin("snd", 32, self.sender));
        fields.extend(has(5).then(|| ("step", number("step", self.numbers[3]))));
        let len = u8::try_from(fields.len()).unwrap();
        let [one, two] = self.keys;
        [
            vec![0x83],
            key("cred"),
            vec![0x81],
            bin("pf", 80, one),
            key("r"),
            vec![0x80 | len],
            fields.into_values().flatten().collect(),
            key("sig"),
            vec![0x86],
            bin("p", 32, one),
            bin("p1s", 64, one),
            bin("p2", 32, two),
            bin("p2s", 64, two),
            bin("ps", 64, 0),
            bin("s", 64, two),
        ]
        .concat()
    }
}

fn key(name: &str) -> Vec<u8> {
    [&[0xa0 | u8::try_from(name.len()).unwrap()], name.as_bytes()].concat()
}

fn integer(value: u64) -> Vec<u8> {
    match value {
        0..=0x7f => vec![value as u8],
        0x80..=0xff => vec![0xcc, value as u8],
        0x100..=0xffff => [&[0xcd][..], &(value as u16).to_be_bytes()].concat(),
        0x1_0000..=0xffff_ffff => [&[0xce][..], &(value as u32).to_be_bytes()].concat(),
        _ => [&[0xcf][..], &value.to_be_bytes()].concat(),
    }
}

proptest! {
    #[test]
    fn every_canonical_vote_survives_both_forms(
        votes in prop::collection::vec(drawn(), 1..80),
        table in 4_u32..12,
    ) {
        let entries = 1 << table;
        let mut packer = VotePacker::new(entries).unwrap();
        let mut unpacker = VoteUnpacker::new(entries).unwrap();
        for vote in votes {
            let vote = vote.msgpack();
            prop_assert!(vote.len() <= MAX_PLAIN_BYTES);
            let stateless = packed(&vote).unwrap();
            prop_assert!(stateless.len() <= MAX_PACKED_BYTES && read(&stateless).unwrap().fits());
            let stateful = against_earlier(&mut packer, &stateless).unwrap();
            prop_assert!(stateful.len() <= stateless.len());
            prop_assert_eq!(&appended(|out| unpacker.unpack(&stateful, out)).unwrap(), &stateless);
            prop_assert_eq!(unpacked(&stateless).unwrap(), vote);
        }
    }

    #[test]
    fn a_vote_with_one_byte_changed_is_refused_or_kept_as_it_is(
        vote in drawn(),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut vote = vote.msgpack();
        let at = at.index(vote.len());
        vote[at] = byte;
        if let Ok(small) = packed(&vote) {
            prop_assert_eq!(unpacked(&small).unwrap(), vote);
        }
    }

    // Issue 10, 7: a relay keeps the form that a vote came in.
    #[test]
    fn the_normal_form_of_a_packed_vote_is_the_one_that_packing_it_again_gives(
        vote in drawn(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        [high_bits, unused]: [u8; 2],
    ) {
        let mut bytes = packed(&vote.msgpack()).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        (bytes[0], bytes[1]) = (bytes[0] | high_bits & 0xc0, unused);
        if let Ok(plain) = unpacked(&bytes) {
            let mut normal = Vec::new();
            put_normal(&bytes, &mut normal);
            prop_assert_eq!(packed(&plain), Ok(normal));
        }
    }

    #[test]
    fn no_bytes_cause_a_panic_or_a_long_output(
        vote in drawn(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut: prop::sample::Index,
        noise: Vec<u8>,
    ) {
        let mut unpacker = VoteUnpacker::new(16).unwrap();
        let mut bytes = packed(&vote.msgpack()).unwrap();
        appended(|out| unpacker.unpack(&bytes, out)).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let shorter = bytes[..cut.index(bytes.len())].to_vec();
        for bytes in [bytes, shorter, noise] {
            let _: Result<_, _> = packed(&bytes);
            prop_assert!(unpacked(&bytes).map_or(0, |vote| vote.len()) <= MAX_PLAIN_BYTES);
            let stateful = appended(|out| unpacker.unpack(&bytes, out));
            prop_assert!(stateful.map_or(0, |vote| vote.len()) <= MAX_PACKED_BYTES + 64 + 41);
            let mut packer = VotePacker::new(16).unwrap();
            let _: Result<_, _> = against_earlier(&mut packer, &bytes);
        }
    }
}
