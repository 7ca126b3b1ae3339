//! Frames through zstd, and through the other codec where the two might differ.

mod agreement;

use proptest::prelude::*;

use super::*;

fn compressed(body: &[u8]) -> Bytes {
    Bytes::from(compress(body))
}

#[test]
fn a_frame_announces_the_length_of_its_body_and_holds_no_more() {
    let frame = compressed(&[7; 100_000]);
    assert_eq!(announced_len(&frame), Some(100_000));
    assert_eq!(announced_len(&frame[..4]), None);
    assert_eq!(announced_len(b"no frame"), None);
    // The descriptor says that four bytes of length follow.
    assert_eq!(frame[4] >> 6, 2);
    let mut lying = frame.to_vec();
    lying[5..9].copy_from_slice(&99_999_u32.to_le_bytes());
    assert_eq!(announced_len(&lying), Some(99_999));
    let refused = decompress(&Bytes::from(lying), MAX_DECOMPRESSED);
    assert!(matches!(refused, Err(ProposalError::Frame { .. })), "{refused:?}");
}

#[test]
fn a_body_at_the_limit_passes_and_one_byte_more_does_not() {
    let limit = MAX_DECOMPRESSED;
    let at_limit = vec![7; limit];
    assert_eq!(decompress(&compressed(&at_limit), limit).unwrap(), at_limit);
    let above = compressed(&vec![7; limit + 1]);
    assert_eq!(decompress(&above, limit), Err(ProposalError::TooLarge { limit }));
}

#[test]
fn an_empty_body_survives_even_a_limit_of_nothing() {
    assert_eq!(decompress(&compressed(b""), 0).unwrap(), Bytes::new());
    assert_eq!(decompress(&compressed(b"x"), 0), Err(ProposalError::TooLarge { limit: 0 }));
}

#[test]
fn a_plain_payload_is_not_copied() {
    let plain = Bytes::from(vec![1; 100]);
    assert_eq!(decompress(&plain, 10).unwrap().as_ptr(), plain.as_ptr());
}

#[test]
fn a_small_result_does_not_keep_a_large_buffer() {
    let body = decompress(&compressed(b"short"), MAX_DECOMPRESSED).unwrap();
    let owned: Vec<u8> = body.into();
    assert!(owned.capacity() <= 2 * owned.len() + 1, "{}", owned.capacity());
}

proptest! {
    #[test]
    fn every_body_survives(body: Vec<u8>, repeat in 1_usize..200) {
        let body = body.repeat(repeat);
        prop_assert_eq!(decompress(&compressed(&body), body.len()).unwrap(), body);
    }

    #[test]
    fn a_frame_cut_anywhere_is_refused(body: Vec<u8>, cut: prop::sample::Index) {
        let frame = compressed(&body);
        let len = cut.index(frame.len());
        prop_assume!(len > MAGIC.len());
        prop_assert_eq!(
            decompress(&frame.slice(..len), MAX_DECOMPRESSED),
            Err(ProposalError::Truncated)
        );
    }

    #[test]
    fn anything_after_a_frame_is_refused(body: Vec<u8>, tail in prop::collection::vec(any::<u8>(), 1..50)) {
        let payload = Bytes::from([compress(&body), tail.clone()].concat());
        prop_assert_eq!(
            decompress(&payload, MAX_DECOMPRESSED),
            Err(ProposalError::Trailing { bytes: tail.len() })
        );
    }

    #[test]
    fn no_bytes_cause_a_panic(mut bytes: Vec<u8>, body: Vec<u8>, flip: prop::sample::Index) {
        bytes.splice(..0, MAGIC);
        let _: Result<_, _> = decompress(&Bytes::from(bytes), 10_000);
        let mut frame = compress(&body);
        let at = flip.index(frame.len());
        frame[at] ^= 0x55;
        let _: Result<_, _> = decompress(&Bytes::from(frame), 10_000);
    }
}
