//! The hashes of a file's groups, from which its name follows.
//!
//! ```text
//!   wire: length in bytes, u64 little endian ‖ 32 bytes for each group, none if there is one at most
//!
//!             id = root            a group is a subtree of 1024 chunks, the last one as it comes;
//!            /         \           its hash is the chaining value of that subtree
//!       parent        group 2
//!      /      \
//!  group 0   group 1
//! ```
//!
//! # Invariants
//!
//! * An [`Outline`] has as many hashes as its length asks for, and they merge to the name.
//! * Its *length* is a claim until the last group was verified. A list that starts at another level of
//!   the tree merges to the name too, so what was verified against one outline has to be in the next.
//! * A group that [`Outline::holds`] truly is the content of the file at that place: chunks are hashed
//!   with their number, so no list can vouch for content that lies elsewhere.

use blake3::{
    Hasher,
    hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use super::FileId;

/// Bytes in a group, except in the last one of a file: 1 MiB.
///
/// Chosen: a power of two of chunks, as the tree asks for; an outline of 32 KiB per GiB, and as much to
/// hold and to lose at most as a group.
pub const GROUP_BYTES: u64 = 1024 * 1024;

/// The length of a file and the hashes of its groups, which merge to its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    id: FileId,
    bytes: u64,
    /// None if the file is one group: then the name is its hash.
    groups: Vec<ChainingValue>,
}

/// Why bytes are no outline of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutlineError {
    /// There is no length in it, or it has not the hashes that the length asks for.
    #[error("the outline has not the size that its length asks for")]
    Size,
    /// The hashes do not merge to the name.
    #[error("the hashes of the outline do not merge to the name of the file")]
    OtherFile,
}

impl Outline {
    /// Bytes of the outline of a file of `bytes`.
    #[must_use]
    pub const fn wire_bytes(bytes: u64) -> u64 {
        8 + 32 * hashes(bytes)
    }

    /// Reads an outline and verifies that it belongs to the file `id`.
    ///
    /// # Errors
    ///
    /// [`OutlineError`] when `wire` is no outline, or one of another file.
    pub fn parse(id: FileId, wire: &[u8]) -> Result<Self, OutlineError> {
        let (length, hashes) = wire.split_first_chunk().ok_or(OutlineError::Size)?;
        let bytes = u64::from_le_bytes(*length);
        if wire.len() as u64 != Self::wire_bytes(bytes) {
            return Err(OutlineError::Size);
        }
        let groups: Vec<ChainingValue> = hashes.as_chunks().0.to_vec();
        let whole = match merged(&groups) {
            Some(root) => root == id,
            // A file of one group is verified with that group; there is nothing to an empty one.
            None => bytes > 0 || FileId::of(b"") == id,
        };
        if whole { Ok(Self { id, bytes, groups }) } else { Err(OutlineError::OtherFile) }
    }

    /// Writes the outline as [`Outline::parse`] reads it.
    #[must_use]
    pub fn to_wire(&self) -> Vec<u8> {
        [self.bytes.to_le_bytes().as_slice(), self.groups.as_flattened()].concat()
    }

    /// The name of the file.
    #[must_use]
    pub const fn id(&self) -> FileId {
        self.id
    }

    /// Length of the file in bytes; a claim until the last group was verified.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of groups of the file; the last one may be short.
    #[must_use]
    pub const fn groups(&self) -> u64 {
        self.bytes.div_ceil(GROUP_BYTES)
    }

    /// Bytes of a group; none if there is no such group.
    #[must_use]
    pub const fn group_bytes(&self, group: u64) -> u64 {
        let left = self.bytes.saturating_sub(group.saturating_mul(GROUP_BYTES));
        if left < GROUP_BYTES { left } else { GROUP_BYTES }
    }

    /// `true` if `content` is this group of the file.
    #[must_use]
    pub fn holds(&self, group: u64, content: &[u8]) -> bool {
        if content.is_empty() || content.len() as u64 != self.group_bytes(group) {
            return false;
        }
        if self.groups.is_empty() {
            return FileId::of(content) == self.id;
        }
        let Some(hash) = self.hash(group) else { return false };
        Hasher::new()
            .set_input_offset(group * GROUP_BYTES)
            .update(content)
            .finalize_non_root()
            .eq(hash)
    }

    /// `true` if the first `groups` groups are the same here and there, so that content verified against
    /// one is verified against the other.
    #[must_use]
    pub fn agrees(&self, other: &Self, groups: u64) -> bool {
        groups == 0
            || self.id == other.id
                && self.groups.is_empty() == other.groups.is_empty()
                && (0..groups).all(|group| {
                    self.group_bytes(group) == other.group_bytes(group)
                        && self.group_bytes(group) > 0
                        && self.hash(group) == other.hash(group)
                })
    }

    fn hash(&self, group: u64) -> Option<&ChainingValue> {
        self.groups.get(usize::try_from(group).ok()?)
    }
}

/// Hashes in the outline of a file of `bytes`.
const fn hashes(bytes: u64) -> u64 {
    if bytes <= GROUP_BYTES { 0 } else { bytes.div_ceil(GROUP_BYTES) }
}

/// The name of the file with these groups; `None` if they are fewer than two.
fn merged(groups: &[ChainingValue]) -> Option<FileId> {
    let (last, whole) = groups.split_last()?;
    // The roots of the complete subtrees to the left, the largest first.
    let mut roots: Vec<ChainingValue> = Vec::new();
    for (index, group) in whole.iter().enumerate() {
        let mut root = *group;
        for _ in 0..(index + 1).trailing_zeros() {
            root = merge_subtrees_non_root(&roots.pop()?, &root, Mode::Hash);
        }
        roots.push(root);
    }
    let mut right = *last;
    while roots.len() > 1 {
        right = merge_subtrees_non_root(&roots.pop()?, &right, Mode::Hash);
    }
    Some(FileId(merge_subtrees_root(&roots.pop()?, &right, Mode::Hash).into()))
}

/// Hashes content as it passes, in one go for the name and the outline.
#[derive(Clone, Debug, Default)]
pub struct Hashing {
    bytes: u64,
    /// The group under way.
    hasher: Hasher,
    /// The groups that ended because another one began.
    groups: Vec<ChainingValue>,
}

impl Hashing {
    /// Takes the next bytes.
    pub fn update(&mut self, mut content: &[u8]) {
        while !content.is_empty() {
            if self.hasher.count() == GROUP_BYTES {
                self.groups.push(self.hasher.finalize_non_root());
                self.hasher = Hasher::new();
                self.hasher.set_input_offset(self.bytes);
            }
            let room = usize::try_from(GROUP_BYTES - self.hasher.count()).unwrap_or(usize::MAX);
            let (now, later) = content.split_at(room.min(content.len()));
            self.hasher.update(now);
            self.bytes += now.len() as u64;
            content = later;
        }
    }

    /// The outline of the content that has passed, and with it the file's name.
    #[must_use]
    pub fn finish(mut self) -> Outline {
        let mut id = FileId([0; 32]);
        if !self.groups.is_empty() {
            self.groups.push(self.hasher.finalize_non_root());
        }
        match merged(&self.groups) {
            Some(root) => id = root,
            None => id.0 = self.hasher.finalize().into(),
        }
        Outline { id, bytes: self.bytes, groups: self.groups }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Content in which no group is like another.
    fn content(bytes: u64) -> Vec<u8> {
        let mut content = vec![0; bytes as usize];
        Hasher::new().update(b"content").finalize_xof().fill(&mut content);
        content
    }

    fn outline(content: &[u8]) -> Outline {
        let mut hashing = Hashing::default();
        hashing.update(content);
        hashing.finish()
    }

    #[track_caller]
    fn check(bytes: u64) {
        let content = content(bytes);
        let outline = outline(&content);
        assert_eq!(outline.id(), FileId::of(&content), "{bytes} bytes");
        assert_eq!(outline.to_wire().len() as u64, Outline::wire_bytes(bytes));
        assert_eq!(Outline::parse(outline.id(), &outline.to_wire()), Ok(outline.clone()));
        let mut at = 0;
        for (group, content) in content.chunks(GROUP_BYTES as usize).enumerate() {
            assert_eq!(outline.group_bytes(group as u64), content.len() as u64);
            assert!(outline.holds(group as u64, content));
            assert!(!outline.holds(group as u64 + 1, content));
            let mut bad = content.to_vec();
            bad[content.len() / 2] ^= 1;
            assert!(!outline.holds(group as u64, &bad));
            assert!(!outline.holds(group as u64, &content[1..]));
            at += 1;
        }
        assert_eq!(outline.groups(), at);
    }

    #[test]
    fn the_outline_leads_to_the_name_whatever_the_length() {
        for groups in 0..=9 {
            for more in [0, 1, 1023, 1024, 1025, GROUP_BYTES - 1] {
                check(groups * GROUP_BYTES + more);
            }
        }
    }

    #[test]
    fn a_list_of_another_level_of_the_tree_holds_no_group_and_agrees_with_no_outline() {
        let content = content(3 * GROUP_BYTES);
        let honest = outline(&content);
        let [a, b, c] = honest.groups[..] else { panic!("three groups") };
        let parent = merge_subtrees_non_root(&a, &b, Mode::Hash);
        let wire = [&(2 * GROUP_BYTES).to_le_bytes()[..], &parent, &c].concat();
        let lie = Outline::parse(honest.id(), &wire).unwrap();
        assert!(!lie.holds(0, &content[..GROUP_BYTES as usize]));
        assert!(!lie.holds(1, &content[2 * GROUP_BYTES as usize..]));
        assert!(honest.agrees(&lie, 0) && !honest.agrees(&lie, 1) && !honest.agrees(&lie, 2));
        let small = Outline::parse(honest.id(), &GROUP_BYTES.to_le_bytes()).unwrap();
        assert!(!small.holds(0, &content[..GROUP_BYTES as usize]) && !honest.agrees(&small, 1));
        assert!(honest.agrees(&honest, 3) && !honest.agrees(&honest, 4));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_does_not_matter_in_what_pieces_content_passes(
            bytes in 0..3 * GROUP_BYTES,
            piece in 1..2 * GROUP_BYTES as usize,
        ) {
            let content = content(bytes);
            let mut hashing = Hashing::default();
            content.chunks(piece).for_each(|piece| hashing.update(piece));
            prop_assert_eq!(hashing.finish(), outline(&content));
        }

        #[test]
        fn a_changed_outline_is_refused(at in 8_usize..8 + 32 * 3, bit in 0..8_u8) {
            let honest = outline(&content(2 * GROUP_BYTES + 5));
            let mut wire = honest.to_wire();
            wire[at] ^= 1_u8 << bit;
            prop_assert_eq!(Outline::parse(honest.id(), &wire), Err(OutlineError::OtherFile));
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_refused(wire: Vec<u8>, id: [u8; 32]) {
            if let Ok(outline) = Outline::parse(FileId(id), &wire) {
                prop_assert_eq!(outline.to_wire(), wire);
            }
        }
    }
}
