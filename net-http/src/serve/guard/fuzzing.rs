//! The checks that fuzz targets run, compiled for them alone.

use super::{
    chunks::Chunks,
    head::{Judged, Length, judge, parse},
};
use crate::serve::UpgradeOffer;

/// Judges the head at the start of any bytes.
///
/// # Panics
///
/// If the verdict is about bytes that are not there, changes when more bytes follow, or is another one than that of the
/// parser.
pub fn head(bytes: &[u8]) {
    for offer in [UpgradeOffer::Offered, UpgradeOffer::Refused] {
        let judge = |bytes: &[u8]| match judge(bytes, offer) {
            Judged::Plain(len) => {
                Judged::Complete { len, body: Length::Known(0), version_at: None }
            }
            judged => judged,
        };
        let judged = judge(bytes);
        assert_eq!(judged, parse(bytes, offer), "the quick check and the parser differ");
        let Judged::Complete { len, version_at, .. } = &judged else { continue };
        assert!(*len <= bytes.len(), "the head is longer than what came");
        assert!(version_at.is_none_or(|at| at < *len), "the version is behind the head");
        let longer = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(judge(&longer), judged, "what follows a head changes it");
    }
}

/// Passes a chunked body whole and byte by byte.
///
/// # Panics
///
/// If the two differ.
pub fn chunks(bytes: &[u8]) {
    let mut whole = Chunks::new();
    let passed = whole.pass(bytes);
    let mut cut = Chunks::new();
    let mut passed_so_far = 0;
    let mut refused = false;
    for byte in bytes.chunks(1) {
        match cut.pass(byte) {
            Ok(count) => passed_so_far += count,
            Err(_) => refused = true,
        }
        if refused || cut.is_over() {
            break;
        }
    }
    match passed {
        Ok(passed) => assert_eq!((passed, refused), (passed_so_far, false)),
        Err(_) => assert!(refused, "a body that is refused whole passes in bytes"),
    }
    assert_eq!(whole.is_over(), cut.is_over());
}
