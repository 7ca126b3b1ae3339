//! Masking of WebSocket payloads: exclusive-or with a repeated key of four bytes.

/// Masks or unmasks `bytes`, whose first byte is at `offset` of the payload.
pub fn apply(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    if key == [0; 4] {
        return;
    }
    let mut turned = key;
    turned.rotate_left(offset % 4);
    let word = u64::from_ne_bytes(doubled(turned));
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(doubled(turned)) {
        *byte ^= key;
    }
}

fn doubled([a, b, c, d]: [u8; 4]) -> [u8; 8] {
    [a, b, c, d, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_by_words_is_masking_byte_by_byte() {
        let key = [0x11, 0x22, 0x33, 0x44];
        for len in 0..40 {
            for offset in 0..9 {
                let plain: Vec<u8> = (0..len).collect();
                let mut masked = plain.clone();
                apply(&mut masked, key, offset);
                for (index, (masked, plain)) in masked.iter().zip(&plain).enumerate() {
                    assert_eq!(masked ^ plain, key[(index + offset) % 4], "{len} {offset} {index}");
                }
                apply(&mut masked, key, offset);
                assert_eq!(masked, plain);
            }
        }
    }
}
