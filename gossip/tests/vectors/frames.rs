//! The recorded frames, also those that the recordings describe in words.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::support;

/// Largest proposal after decompression, in bytes, when the frames were recorded.
const CAP: usize = 5_250_618;

/// The large inputs, which the vectors describe in words, by the name of their case.
fn described(compress: fn(&[u8]) -> Vec<u8>) -> BTreeMap<&'static str, Vec<u8>> {
    let zeros = |len| compress(&vec![0; len]);
    let json = support::json("vectors/zstd_pp.json");
    let large = support::named(&json["compress"], "block_900_txns");
    let large = support::from_base64(large, "frame_b64").to_vec();
    let good = support::bytes(support::named(&json["decompress"], "good"), "input").to_vec();

    let mut corrupt = large.clone();
    corrupt[36_966] ^= 0xff;
    let mut blocks = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    blocks.extend([0x02, 0x00, 0x10, 0x7a].repeat(1000));
    blocks.extend([0x01, 0x00, 0x00]);
    BTreeMap::from([
        ("large_frame_truncated_half", large[..36_966].to_vec()),
        ("large_frame_truncated_minus_1", large[..large.len() - 1].to_vec()),
        ("large_frame_trailing_1", [&large[..], &[0]].concat()),
        ("large_frame_twice", large.repeat(2)),
        ("large_frame_block_corrupt", corrupt),
        ("bomb_at_cap", zeros(CAP)),
        ("bomb_cap_plus_1", zeros(CAP + 1)),
        ("bomb_64MiB", zeros(64 * 1024 * 1024)),
        ("bomb_in_second_frame", [good, zeros(CAP)].concat()),
        ("bomb_rle_blocks", blocks),
    ])
}

/// Runs `check` on every recorded case and its frame.
#[track_caller]
pub(crate) fn each(compress: fn(&[u8]) -> Vec<u8>, mut check: impl FnMut(&Value, &Bytes)) {
    let mut described = described(compress);
    support::each_case("zstd_pp", "decompress", 51, |case| {
        let frame = match case["input_rule"].as_str() {
            Some(_) => Bytes::from(
                described.remove(support::text(case, "name")).expect("a described frame"),
            ),
            None => support::bytes(case, "input"),
        };
        check(case, &frame);
    });
    assert!(described.is_empty(), "every description names a case");
}
