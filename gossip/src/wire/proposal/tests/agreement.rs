//! The codec in Rust against the one in C.
//!
//! Both read the same bodies. Both refuse the same frames, for the same kind of reason, with these exceptions:
//!
//! * zstd checks the bits inside a block more closely. Some frames that were damaged in a block, and have no checksum,
//!   give a body of the announced length in ruzstd. Nobody takes a body for right because it could be decompressed.
//! * zstd hands on parts of a block, ruzstd whole blocks. A frame that is damaged, or ends, in the block or the checksum
//!   behind the bound is `TooLarge` for zstd, and `Frame` or `Truncated` for ruzstd.
//! * A block whose header is not allowed is refused by ruzstd before it has read the block, so that the frame is
//!   `Frame` also when it ends there.

use std::mem::discriminant;

use super::*;

#[path = "../../../../tests/vectors/frames.rs"]
mod frames;
#[expect(dead_code, reason = "the recordings of other formats are read by the tests beside it")]
#[path = "../../../../tests/vectors/support.rs"]
mod support;

/// The answers of zstd and of ruzstd to the same frame.
fn both(frame: &[u8], limit: usize) -> [Result<Vec<u8>, ProposalError>; 2] {
    [native::decompress(frame, limit), pure::decompress(frame, limit)]
}

/// The same body, or the same kind of refusal.
#[track_caller]
fn check_same(frame: &[u8], limit: usize) {
    let [native, pure] = both(frame, limit);
    match (&native, &pure) {
        (Ok(native), Ok(pure)) => assert!(native == pure, "another body"),
        (Err(native), Err(pure)) => assert_eq!(discriminant(native), discriminant(pure)),
        _ => panic!("zstd: {:?}, ruzstd: {:?}", native.map(|b| b.len()), pure.map(|b| b.len())),
    }
}

#[test]
fn recorded_frames_are_read_and_refused_alike() {
    frames::each(native::compress, |_case, frame| {
        if is_compressed(frame) {
            assert_eq!(pure::announced_len(frame), native::announced_len(frame));
            check_same(frame, MAX_DECOMPRESSED);
            let [native, pure] = both(frame, 64 * 1024);
            assert!(native.ok() == pure.ok());
        }
    });
}

#[test]
fn a_body_of_several_blocks_is_bounded_wherever_the_bound_lies() {
    let body: Vec<u8> = (0..300_000_u32).flat_map(|n| (n / 7).to_be_bytes()).collect();
    for frame in [native::compress(&body), pure::compress(&body)] {
        for limit in [0, 1, 100_000, 131_072, 131_073, 1_199_999, 1_200_000, usize::MAX] {
            let expected = if limit < body.len() {
                Err(ProposalError::TooLarge { limit })
            } else {
                Ok(body.clone())
            };
            assert!(both(&frame, limit).iter().all(|read| *read == expected), "{limit}");
        }
    }
}

#[test]
fn a_bomb_is_given_up_soon_after_the_bound_whatever_window_it_asks_for() {
    // 128 MiB of window, and blocks of 128 KiB of one byte that never end; 100,000 of them are 12 GiB.
    let mut bomb = [&MAGIC[..], &[0, 17 << 3]].concat();
    bomb.extend([0x02, 0x00, 0x10, 0x7a].repeat(100_000));
    check_same(&bomb, MAX_DECOMPRESSED);
    assert_eq!(
        pure::decompress(&bomb, MAX_DECOMPRESSED),
        Err(ProposalError::TooLarge { limit: MAX_DECOMPRESSED })
    );
}

#[test]
fn a_header_that_asks_for_something_forbidden_is_refused() {
    let block = [0x0b, 0x00, 0x00, 0x7a];
    let allowed = [&MAGIC[..], &[0, 0], &block].concat();
    assert_eq!(both(&allowed, 10), [Ok(vec![0x7a]), Ok(vec![0x7a])]);
    // The reserved bit, a dictionary, a window above 128 MiB, one that not even the header may have.
    for header in [&[8, 0][..], &[1, 0, 7], &[0, 17 << 3 | 1], &[0, 0xff]] {
        let frame = [&MAGIC[..], header, &block].concat();
        check_same(&frame, 10);
        assert!(matches!(pure::decompress(&frame, 10), Err(ProposalError::Frame { .. })));
        assert_eq!(pure::announced_len(&frame), native::announced_len(&frame));
    }
}

#[test]
fn a_checksum_is_compared() {
    let mut frame = ruzstd::encoding::compress_to_vec(
        &b"checked"[..],
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    assert_eq!(both(&frame, 10), [Ok(b"checked".to_vec()), Ok(b"checked".to_vec())]);
    *frame.last_mut().unwrap() ^= 1;
    check_same(&frame, 10);
    let [native, pure] = both(&frame, 10);
    assert_eq!(native, pure);
    assert!(matches!(pure, Err(ProposalError::Frame { .. })), "{pure:?}");
}

/// Bytes with repetitions, as a proposal has them.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::collection::vec(any::<u8>(), 0..60);
    let pieces = prop::collection::vec((piece, 1_usize..40), 0..40);
    pieces.prop_map(|pieces| {
        pieces.into_iter().flat_map(|(piece, times)| piece.repeat(times)).collect()
    })
}

proptest! {
    #[test]
    fn each_codec_reads_what_the_other_writes(body in bodies(), repeat in 1_usize..20) {
        let body = body.repeat(repeat);
        for frame in [native::compress(&body), pure::compress(&body)] {
            prop_assert_eq!(native::announced_len(&frame), Some(body.len() as u64));
            prop_assert_eq!(pure::announced_len(&frame), Some(body.len() as u64));
            for read in both(&frame, body.len()) {
                prop_assert_eq!(read.as_ref(), Ok(&body));
            }
        }
    }

    #[test]
    fn a_frame_that_is_cut_or_goes_on_is_refused_alike(
        body in bodies(),
        cut: prop::sample::Index,
        tail in prop::collection::vec(any::<u8>(), 1..50),
    ) {
        let frame = native::compress(&body);
        let shortest = MAGIC.len() + 1;
        let len = shortest + cut.index(frame.len() - shortest);
        let [native, pure] = both(&frame[..len], MAX_DECOMPRESSED);
        prop_assert_eq!(&native, &pure);
        prop_assert_eq!(pure, Err(ProposalError::Truncated));
        let [native, pure] = both(&[frame, tail].concat(), MAX_DECOMPRESSED);
        prop_assert_eq!(native, pure);
    }

    #[test]
    fn damaged_frames_are_read_or_refused_alike(
        body in bodies(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..4),
    ) {
        let mut frame = native::compress(&body);
        for (at, how) in damage {
            let at = at.index(frame.len() - MAGIC.len());
            frame[MAGIC.len() + at] ^= how;
        }
        let [native, pure] = both(&frame, 100_000);
        // Damage that zstd notices and ruzstd does not gives some body.
        if native.is_ok() {
            prop_assert_eq!(native, pure);
        }
        prop_assert_eq!(native::announced_len(&frame), pure::announced_len(&frame));
    }

    #[test]
    fn no_bytes_cause_a_panic_in_rust(mut bytes: Vec<u8>) {
        bytes.splice(..0, MAGIC);
        let [native, pure] = both(&bytes, 10_000);
        if native.is_ok() {
            prop_assert_eq!(native, pure);
        }
    }
}
