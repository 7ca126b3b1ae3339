//! Compressed proposals against the recordings of existing nodes.

use crate::{frames, support};
use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use tandem_gossip::{
    Tag,
    wire::{
        digest::Digest,
        proposal::{MAX_DECOMPRESSED, ProposalError, compress, decompress},
    },
};

/// Cases that existing nodes let pass and we refuse. All are frames that end early or go on after their
/// end: nobody sends them, and what existing nodes hand on of them is a part of a proposal, or two.
const STRICTER: [(&str, ProposalError); 11] = [
    ("truncated_to_5", ProposalError::Truncated),
    ("truncated_to_6", ProposalError::Truncated),
    ("truncated_to_7", ProposalError::Truncated),
    ("truncated_to_8", ProposalError::Truncated),
    ("truncated_to_14", ProposalError::Truncated),
    ("truncated_to_28", ProposalError::Truncated),
    // The frame says that a checksum follows, and none does.
    ("checksum_missing", ProposalError::Truncated),
    // The frame says that another block follows, and none does.
    ("last_block_flag_missing", ProposalError::Truncated),
    ("large_frame_truncated_half", ProposalError::Truncated),
    ("large_frame_truncated_minus_1", ProposalError::Truncated),
    ("large_frame_twice", ProposalError::Trailing { bytes: 73_933 }),
];

/// Compares an accepted body with what is recorded of it.
#[track_caller]
fn check_output(body: &Bytes, case: &Value) {
    assert_eq!(body.len(), support::size(case, "output_len"));
    if !case["output"].is_null() {
        assert_eq!(*body, support::bytes(case, "output"));
    }
}

#[test]
fn proposals_are_decompressed_or_refused_as_recorded() {
    let mut stricter = BTreeMap::from(STRICTER);
    frames::each(compress, |case, payload| {
        let name = support::text(case, "name");
        let body = decompress(payload, MAX_DECOMPRESSED);
        if let Some(error) = stricter.remove(name) {
            assert_eq!(case["verdict"], "ok");
            assert_eq!(body, Err(error));
            return;
        }
        match support::text(case, "verdict") {
            "ok" => check_output(&body.unwrap(), case),
            "passed_through" => {
                let body = body.unwrap();
                check_output(&body, case);
                assert_eq!(body.as_ptr(), payload.as_ptr());
            }
            "error" => assert!(body.is_err()),
            other => panic!("verdict {other}"),
        }
    });
    assert!(stricter.is_empty(), "every exception names a case");
}

#[test]
fn recorded_frames_are_read_and_ours_are_of_the_same_make() {
    support::each_case("zstd_pp", "compress", 10, |case| {
        let body = support::from_base64(case, "payload_b64");
        let frame = support::from_base64(case, "frame_b64");
        assert_eq!(decompress(&frame, MAX_DECOMPRESSED).unwrap(), body);
        // The same library at the same level: the very bytes. Should a newer library differ, the
        // descriptor must still be the same: single segment, content size, no checksum.
        let ours = compress(&body);
        assert_eq!(hex::encode([ours[4]]), support::text(&case["frame_header"], "descriptor_byte"));
        assert_eq!(ours, frame);
    });
}

#[test]
fn proposals_of_live_nodes_are_read_and_named_by_their_digest() {
    let index = support::json("corpus/proposals/index.json");
    let entries = index.as_array().unwrap();
    assert_eq!(entries.len(), 7);
    for entry in entries {
        let frame = support::file(&format!("corpus/proposals/{}", support::text(entry, "file")));
        let body = format!("corpus/proposals/{}", support::text(entry, "decompressed"));
        let body = support::file(&body);
        assert_eq!(decompress(&frame, MAX_DECOMPRESSED).unwrap(), body);
        assert_eq!(compress(&body), frame);
        assert_eq!(Digest::of(Tag::PP, &body).to_string(), support::text(entry, "ms_digest"));
    }
}
