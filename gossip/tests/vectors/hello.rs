//! Versions, features and handshake headers against the recordings of existing nodes.

use crate::support;
use std::collections::BTreeMap;

use serde_json::Value;
use tandem_gossip::{
    NetworkProfile,
    wire::{
        features::{self, Features, VoteCompression},
        hello::{self, Header, Hello, VersionMismatch},
        metainfo,
    },
};

const PROFILE: &NetworkProfile = &NetworkProfile::ALGORAND;

/// A list of texts, or none.
fn texts(value: &Value) -> Vec<&str> {
    let list = value.as_array().into_iter().flatten();
    list.map(|text| text.as_str().expect("a list of texts")).collect()
}

#[test]
fn versions_are_negotiated_as_recorded() {
    support::each_case("version_features", "negotiation", 16, |case| {
        let accepted = texts(&case["accept_version_lines"]);
        let version = texts(&case["version_lines"]).first().copied();
        let ours = texts(&case["ours"]);
        let selected = hello::select(accepted.iter().copied(), version, &ours);
        match support::text(case, "matched") {
            "" => {
                let theirs = support::text(case, "other_version_reported").to_owned();
                assert_eq!(selected, Err(VersionMismatch { theirs }));
            }
            matched => assert_eq!(selected, Ok(matched)),
        }
        if let [ours] = ours[..] {
            let negotiated = hello::negotiate(accepted.into_iter(), version, ours);
            assert_eq!(negotiated, selected.map(|_| ()));
        }
    });
}

#[test]
fn a_mismatch_is_refused_in_the_recorded_words() {
    let cases = [
        (None, "Requested version  not in [2.2] mismatches server version"),
        (Some("2.1"), "Requested version 2.1 not in [2.2] mismatches server version"),
    ];
    for (version, text) in cases {
        let mismatch = hello::negotiate(std::iter::empty(), version, "2.2").unwrap_err();
        assert_eq!(mismatch.refusal("2.2"), text);
    }
    // The form of a byte that is no text, which no `&str` can show.
    let theirs = hello::printable(b"2.\xc3\xa9x\xff");
    let text = "Requested version 2.\u{25af}x\u{25af} not in [2.2] mismatches server version";
    assert_eq!(VersionMismatch { theirs }.refusal("2.2"), text);
}

#[test]
fn versions_are_parsed_as_recorded() {
    support::each_case("version_features", "versions", 23, |case| {
        let version = support::text(case, "version");
        let part = |key: &str| i8::try_from(case[key].as_i64().unwrap()).unwrap();
        let expected = match support::text(case, "parse") {
            "ok" => Some((part("major"), part("minor"))),
            "error" => None,
            other => panic!("verdict {other}"),
        };
        assert_eq!(features::parse_version(version), expected);
        let honoured = Features::parse("ppzstd", version).proposal_zstd();
        assert_eq!(honoured, support::flag(case, "features_honoured"));
    });
}

#[test]
fn features_are_understood_as_recorded() {
    let mut sizes = 0;
    support::each_case("version_features", "features", 25, |case| {
        let theirs = Features::parse(support::text(case, "header"), "2.2");
        assert_eq!(theirs.tokens().collect::<Vec<_>>(), texts(&case["features"]));
        let stateless = support::flag(case, "stateless_receive_enabled");
        assert_eq!(theirs.stateless_votes(), stateless);
        for (ours, shared) in case["negotiated_table_size_by_our_size"].as_object().unwrap() {
            let ours = VoteCompression::Stateful(ours.parse().unwrap());
            let table = Features::announcing(ours).shared_table(theirs).unwrap_or(0);
            assert_eq!(u64::from(table), shared.as_u64().unwrap());
            sizes += 1;
        }
        let off = Features::announcing(VoteCompression::Off);
        assert_eq!(off.shared_table(theirs), None);
        assert_eq!(case["when_our_vote_compression_off"]["stateful"], false);
        assert_eq!(case["when_our_vote_compression_off"]["stateless"], false);
    });
    assert_eq!(sizes, 25 * 5);
}

#[test]
fn features_are_announced_as_recorded() {
    support::each_case("version_features", "announced", 19, |case| {
        let wanted = u32::try_from(support::size(case, "table_size_config")).unwrap();
        let table = features::table_size(wanted).unwrap_or(0);
        assert_eq!(usize::from(table), support::size(case, "normalised_table_size"));
        let votes = match support::flag(case, "vote_compression") {
            true => VoteCompression::Stateful(wanted),
            false => VoteCompression::Off,
        };
        assert_eq!(Features::announcing(votes).to_header(), support::text(case, "header"));
    });
}

#[test]
fn headers_of_a_stream_are_written_byte_for_byte() {
    support::each_case("metainfo", "encode", 8, |case| {
        let mut headers: Vec<(String, Vec<String>)> =
            serde_json::from_value(case["headers"].clone()).unwrap();
        let message = support::bytes(case, "message");
        assert_eq!(metainfo::encode(&headers).unwrap(), message);
        headers.reverse();
        assert_eq!(metainfo::encode(&headers).unwrap(), message);
        let body = &message[metainfo::HEADER_BYTES..];
        let expected: BTreeMap<_, _> = headers.into_iter().collect();
        assert_eq!(metainfo::decode_body(body), Ok(expected));
    });
}

#[test]
fn our_hello_on_a_stream_is_the_recorded_one() {
    let json = support::json("vectors/metainfo.json");
    let hello = Hello {
        genesis: "test-v1".into(),
        features: "ppzstd,avvpack,avvpack2048".into(),
        version: "2.2".into(),
        ..Hello::default()
    };
    let message = metainfo::encode(&metainfo::from_hello(&hello, PROFILE)).unwrap();
    let case = support::named(&json["encode"], "default_test_v1");
    assert_eq!(message, support::bytes(case, "message"));
}

/// The message of a case, which is given as bytes or, for one, as a rule in words.
fn message(case: &Value) -> Vec<u8> {
    if case["message_rule"].is_null() {
        return support::bytes(case, "message").to_vec();
    }
    assert_eq!(case["name"], "value_60000_bytes");
    let version = b"\xb2X-Algorand-Version\x91\xa32.2";
    let mut body = b"\x82\xa1K\x91\xda\xea\x60".to_vec();
    body.resize(body.len() + 60_000, b'x');
    body.extend(version);
    [u16::try_from(body.len()).expect("60 KB fit").to_be_bytes().to_vec(), body].concat()
}

/// The hello of a stream as a reader takes it: a length, so many bytes, a version of ours.
fn read(message: &[u8]) -> Option<(Hello, usize)> {
    let (header, rest) = message.split_first_chunk()?;
    let (body, unread) = rest.split_at_checked(metainfo::body_len(*header).ok()?)?;
    let headers = metainfo::decode_body(body).ok()?;
    metainfo::check_version(&headers, PROFILE).ok()?;
    Some((metainfo::to_hello(&headers, PROFILE), unread.len()))
}

#[test]
fn headers_of_a_stream_are_read_or_refused_as_recorded() {
    support::each_case("metainfo", "decode", 44, |case| {
        let read = read(&message(case));
        match support::text(case, "verdict") {
            "ok" => {
                let (hello, unread) = read.unwrap();
                if case["name"] == "value_60000_bytes" {
                    return; // nothing more is recorded of it
                }
                assert_eq!(hello.features, case["features"]);
                assert_eq!(hello.telemetry_id, case["telemetry_id"]);
                assert_eq!(hello.instance, case["instance"]);
                assert_eq!(unread, support::size(case, "left_unread"));
                // The version that the peers agreed on, which a peer of ours would be told.
                assert_eq!(PROFILE.version, case["version"]);
            }
            "error" => assert_eq!(read, None),
            other => panic!("verdict {other}"),
        }
    });
}

#[test]
fn requests_of_live_nodes_are_rebuilt_header_by_header() {
    for name in ["", "-av", "-av-stateless", "-identity"] {
        let recorded = support::algorand_headers(&format!("upgrade-request{name}.txt"));
        assert!(recorded.len() >= 7, "{name}");
        let first = |header: Header| {
            let wanted = header.name(PROFILE);
            let found = recorded.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.as_bytes())
        };
        assert_eq!(Hello::read(first).headers(PROFILE), recorded, "{name}");
    }
}

#[test]
fn responses_of_live_nodes_hold_the_headers_we_know_and_no_others() {
    for name in ["", "-av", "-av-stateless", "-identity"] {
        let recorded = support::algorand_headers(&format!("upgrade-response{name}.txt"));
        assert!(recorded.len() >= 8, "{name}");
        for (found, _) in recorded {
            let known = Header::ALL.into_iter().any(|header| header.name(PROFILE) == found);
            assert!(known, "{name}: {found}");
        }
    }
}
