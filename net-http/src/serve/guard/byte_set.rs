//! Sets of bytes.

/// A set of bytes, as a table: asking for one costs a load, whatever is in the set.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByteSet([bool; 256]);

impl ByteSet {
    /// Letters, digits and `others`.
    pub(super) const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut table = [false; 256];
        let mut byte: u8 = 0;
        while byte < 128 {
            table[byte as usize] = byte.is_ascii_alphanumeric();
            byte += 1;
        }
        let mut at = 0;
        while at < others.len() {
            table[others[at] as usize] = true;
            at += 1;
        }
        Self(table)
    }

    /// Returns `true` if `byte` is in the set.
    #[inline]
    pub(super) const fn contains(&self, byte: u8) -> bool {
        self.0[byte as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_digits_and_the_others_are_in_the_set_alone() {
        let set = ByteSet::alphanumeric_and(b"-");
        let inside: Vec<u8> = (0..=u8::MAX).filter(|byte| set.contains(*byte)).collect();
        assert_eq!(inside, b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
    }
}
