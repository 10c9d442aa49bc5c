//! The merkle tree of BitTorrent v2 (BEP 52): SHA-256 over 16 KiB blocks, a binary tree above them.
//!
//! Blocks are independent messages, so `tape-sha256` hashes them side by side in SIMD lanes (or
//! with SHA instructions, where they are faster). Its first use is checked against known answers;
//! `sha2` replaces it if that fails. Everything here runs on the calling thread. Callers with
//! several threads hash one chunk on each.

use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

use crate::content::Digest;
use crate::limits::BLOCK_LEN;

/// Hashes consecutive bytes as they arrive, for a tree that is read only once.
///
/// One value can be used for many trees, one after the other; it keeps its memory (32 bytes a
/// block).
#[derive(Debug, Default)]
pub struct Blocks {
    leaves: Vec<NodeDigest>,
    closed: bool,
}

impl Blocks {
    /// A hasher that has seen no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hashes the next bytes. Their number must be a multiple of [`BLOCK_LEN`] in every call but
    /// the last: only the last block of a tree may be short.
    pub fn push(&mut self, bytes: &[u8]) {
        debug_assert!(!self.closed || bytes.is_empty(), "bytes after a short block");
        self.closed |= !bytes.len().is_multiple_of(BLOCK_LEN);
        let mut digests = [[0; 32]; LANES];
        for group in bytes.chunks(LANES * BLOCK_LEN) {
            let count = hash_group(group.chunks(BLOCK_LEN), &mut digests);
            self.leaves.extend_from_slice(&digests[..count]);
        }
    }

    /// Ends a chunk: the root of a subtree of `height` whose missing leaves are zero. Ready for the
    /// next tree.
    pub fn finish_chunk(&mut self, height: u32) -> Digest {
        let root = fold(&mut self.leaves, 0, height);
        self.clear();
        root
    }

    /// Ends a whole content: the root of the tree padded to its own power of two. Ready for the
    /// next tree.
    pub fn finish_root(&mut self) -> Digest {
        if self.leaves.is_empty() {
            return Digest::ZERO;
        }
        self.finish_chunk(height_over(self.leaves.len()))
    }

    /// Forgets what was pushed.
    pub fn clear(&mut self) {
        self.leaves.clear();
        self.closed = false;
    }
}

/// The root of a file whose whole content is `bytes`: the tree is padded with zero leaves to its
/// own power of two. 32 zero bytes for no content.
pub fn root_of_bytes(bytes: &[u8]) -> Digest {
    let mut blocks = Blocks::new();
    blocks.leaves.reserve_exact(bytes.len().div_ceil(BLOCK_LEN) + 1);
    blocks.push(bytes);
    blocks.finish_root()
}

/// The roots of several contents, hashed side by side: far quicker than one after the other where
/// they are small. Best when they have some dozens of blocks in all.
pub fn roots_of(contents: &[&[u8]]) -> Vec<Digest> {
    let blocks: Vec<&[u8]> = contents.iter().flat_map(|c| c.chunks(BLOCK_LEN)).collect();
    // All lanes of a pass take as long as the longest one, so like lengths go together.
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_unstable_by_key(|&i| blocks[i].len());
    let mut nodes = vec![[0; 32]; blocks.len()];
    let mut digests = [[0; 32]; LANES];
    for group in order.chunks(LANES) {
        hash_group(group.iter().map(|&i| blocks[i]), &mut digests);
        for (&i, digest) in group.iter().zip(&digests) {
            nodes[i] = *digest;
        }
    }
    let mut leaves = Vec::new();
    let mut rest = nodes.as_slice();
    let root = |content: &&[u8]| {
        let (own, others) = rest.split_at(content.len().div_ceil(BLOCK_LEN));
        rest = others;
        match own {
            [] => Digest::ZERO,
            [only] => Digest(*only),
            _ => {
                leaves.clear();
                leaves.extend_from_slice(own);
                fold(&mut leaves, 0, height_over(own.len()))
            }
        }
    };
    contents.iter().map(root).collect()
}

/// The digest of a chunk of a file of several chunks: the root of a subtree of `height`, whose
/// missing leaves are zero. `bytes` is at most `2^height` blocks.
pub fn chunk_digest(bytes: &[u8], height: u32) -> Digest {
    let mut blocks = Blocks::new();
    blocks.leaves.reserve_exact(bytes.len().div_ceil(BLOCK_LEN) + 1);
    blocks.push(bytes);
    blocks.finish_chunk(height)
}

/// The root above a layer of chunk digests, each the root of a subtree of `height`; missing digests
/// are the roots of zero-leaf subtrees.
pub fn root_of_layer(layer: &[Digest], height: u32) -> Digest {
    if layer.is_empty() {
        return Digest::ZERO;
    }
    let top = height + height_over(layer.len());
    // The first level is read from the layer itself, so that a layer of 16 MiB is not copied but
    // halved.
    if layer.len() == 1 {
        return layer[0];
    }
    let mut above = Vec::with_capacity(layer.len() / 2 + 2);
    let mut digests = [[0; 32]; LANES];
    let mut joined = [[0; 64]; LANES];
    for group in layer.chunks(2 * LANES) {
        let pairs = group.chunks(2);
        let count = pairs.len();
        for (both, pair) in joined.iter_mut().zip(pairs) {
            both[..32].copy_from_slice(&pair[0].0);
            both[32..].copy_from_slice(pair.get(1).map_or(&zero_leaves(height).0, |d| &d.0));
        }
        hash_group(joined[..count].iter().map(|b| b.as_slice()), &mut digests);
        above.extend_from_slice(&digests[..count]);
    }
    fold(&mut above, height + 1, top)
}

/// The digest of a full chunk of a tree of `height` whose bytes are all zero: what a hole in a
/// sparse file has. `height` is at most 31.
pub fn zero_chunk_digest(height: u32) -> Digest {
    static TABLE: OnceLock<[NodeDigest; 32]> = OnceLock::new();
    let table = TABLE.get_or_init(|| doubled(Sha256::digest([0; BLOCK_LEN]).into()));
    Digest(table[height.min(31) as usize])
}

type NodeDigest = [u8; 32];

/// Messages that are hashed together: a whole number of passes for every lane count (4, 8, 16 and
/// 32).
const LANES: usize = 32;

/// Replaces `level`, the nodes of height `from`, by the levels above it up to height `to`; returns
/// the only node there. What is missing on the right is the root of a subtree of zero leaves.
fn fold(level: &mut Vec<NodeDigest>, from: u32, to: u32) -> Digest {
    let mut digests = [[0; 32]; LANES];
    for height in from..to {
        if level.is_empty() {
            break;
        }
        if level.len() % 2 == 1 {
            level.push(zero_leaves(height).0);
        }
        let pairs = level.len() / 2;
        for first in (0..pairs).step_by(LANES) {
            let count = LANES.min(pairs - first);
            let children = level[2 * first..2 * (first + count)].as_flattened();
            hash_group(children.chunks(64), &mut digests);
            level[first..first + count].copy_from_slice(&digests[..count]);
        }
        level.truncate(pairs);
    }
    debug_assert!(level.len() <= 1, "more blocks than the tree has leaves");
    level.first().map_or_else(|| zero_leaves(to), |node| Digest(*node))
}

/// The root of a subtree of `height` without any leaf.
pub(super) fn zero_leaves(height: u32) -> Digest {
    static TABLE: OnceLock<[NodeDigest; 64]> = OnceLock::new();
    Digest(TABLE.get_or_init(|| doubled([0; 32]))[height.min(63) as usize])
}

/// `leaf`, and the roots of ever higher trees that have it everywhere.
fn doubled<const N: usize>(leaf: NodeDigest) -> [NodeDigest; N] {
    let mut table = [leaf; N];
    for height in 1..N {
        table[height] = Sha256::new().chain_update(table[height - 1]).chain_update(table[height - 1]).finalize().into();
    }
    table
}

/// Height of the smallest tree with at least `leaves` leaves.
fn height_over(leaves: usize) -> u32 {
    leaves.max(1).next_power_of_two().trailing_zeros()
}

/// Hashes at most [`LANES`] messages into the front of `digests`; returns their number.
fn hash_group<'a>(messages: impl Iterator<Item = &'a [u8]>, digests: &mut [NodeDigest; LANES]) -> usize {
    let mut lanes: [&[u8]; LANES] = [&[]; LANES];
    let mut count = 0;
    for (lane, message) in lanes.iter_mut().zip(messages) {
        *lane = message;
        count += 1;
    }
    static LANES_WORK: OnceLock<bool> = OnceLock::new();
    if *LANES_WORK.get_or_init(lanes_agree_with_sha2) {
        hash_in_lanes(&lanes[..count], &mut digests[..count]);
    } else {
        for (digest, lane) in digests.iter_mut().zip(&lanes[..count]) {
            *digest = Sha256::digest(lane).into();
        }
    }
    count
}

/// With no prefix, but one that has an address: it is compared for each message with a masked load,
/// and where nothing is mapped that load takes a hundred times as long on some processors.
fn hash_in_lanes(messages: &[&[u8]], digests: &mut [NodeDigest]) {
    #[repr(align(64))]
    struct Line([u8; 64]);
    static NOWHERE: Line = Line([0; 64]);
    tape_sha256::hash_many_prefixed(&NOWHERE.0[..0], messages, digests);
}

/// The known-answer check: every lane, the two lengths that trees are made of, and the ends of a
/// padded message.
fn lanes_agree_with_sha2() -> bool {
    let mut bytes = [0; BLOCK_LEN];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = (i * 7 + i / 251) as u8;
    }
    let mut messages: [&[u8]; LANES] = [&[]; LANES];
    for (i, message) in messages.iter_mut().enumerate() {
        *message = match i {
            0 => &bytes,
            1 => &bytes[..BLOCK_LEN - 1],
            i if i % 2 == 0 => &bytes[i..i + 64],
            i => &bytes[i..i + 53 + i % 8],
        };
    }
    let mut digests = [[0; 32]; LANES];
    hash_in_lanes(&messages, &mut digests);
    let known = [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea];
    let mut abc = [[0; 32]];
    hash_in_lanes(&[b"abc"], &mut abc);
    abc[0][..8] == known && messages.iter().zip(digests).all(|(m, d)| Sha256::digest(m)[..] == d)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::content::{FileId, Geometry, Manifest, Root};
    use crate::limits::MIB;

    /// BEP 52 in its plainest form: all leaves padded to a power of two, then pair by pair.
    fn naive(bytes: &[u8], leaves: usize) -> NodeDigest {
        let mut level: Vec<NodeDigest> = bytes.chunks(BLOCK_LEN).map(|b| Sha256::digest(b).into()).collect();
        level.resize(leaves, [0; 32]);
        while level.len() > 1 {
            level = level.chunks(2).map(|p| Sha256::digest(p.concat()).into()).collect();
        }
        level[0]
    }

    fn naive_root(bytes: &[u8]) -> NodeDigest {
        naive(bytes, bytes.len().div_ceil(BLOCK_LEN).max(1).next_power_of_two())
    }

    fn bytes(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            out.extend_from_slice(&state.to_le_bytes());
        }
        out.truncate(len);
        out
    }

    fn layer_of(content: &[u8]) -> (Geometry, Vec<Digest>) {
        let g = Geometry::new(content.len() as u64);
        (g, content.chunks(g.chunk_len() as usize).map(|c| chunk_digest(c, g.chunk_height())).collect())
    }

    fn check(content: &[u8]) {
        let expected = Digest(naive_root(content));
        assert_eq!(root_of_bytes(content), expected, "length {}", content.len());
        let (g, layer) = layer_of(content);
        if !g.needs_layer() {
            return;
        }
        assert_eq!(root_of_layer(&layer, g.chunk_height()), expected, "length {}", content.len());
        for (chunk, digest) in content.chunks(g.chunk_len() as usize).zip(&layer) {
            assert_eq!(digest.0, naive(chunk, 1 << g.chunk_height()));
        }
    }

    #[test]
    fn roots_at_the_boundaries_are_those_of_the_plain_tree() {
        for len in [0, 1, 16383, 16384, 16385, 262143, 262144, 262145, MIB, MIB + 1, 5 * MIB + 7] {
            check(&bytes(len, 0x9e37_79b9_7f4a_7c15));
        }
    }

    #[test]
    fn this_cpu_passes_the_known_answer_check() {
        assert!(lanes_agree_with_sha2(), "backend {}", tape_sha256::backend());
    }

    #[test]
    fn zero_chunks_need_no_reading() {
        for height in 0..5 {
            assert_eq!(zero_chunk_digest(height), chunk_digest(&vec![0; BLOCK_LEN << height], height));
        }
        assert_ne!(zero_chunk_digest(4), chunk_digest(&[], 4), "missing leaves are not blocks of zeros");
    }

    /// Why a file's identity has a length: nothing in the tree tells a leaf from an inner node.
    #[test]
    fn the_two_top_digests_are_a_file_with_the_same_root() {
        let content = bytes(2 * BLOCK_LEN, 5);
        let mut twin = [0; 64];
        for (half, block) in twin.chunks_mut(32).zip(content.chunks(BLOCK_LEN)) {
            half.copy_from_slice(&Sha256::digest(block));
        }
        assert_eq!(root_of_bytes(&twin), root_of_bytes(&content));
    }

    #[test]
    fn a_manifest_takes_only_the_chunks_of_its_file() {
        let content = bytes(3 * 262_144 + 100, 11);
        let (g, layer) = layer_of(&content);
        let id = FileId { root: Root(root_of_bytes(&content)), len: content.len() as u64 };
        let manifest = Manifest::new(id, layer.clone()).unwrap();
        for (index, chunk) in g.chunks().zip(content.chunks(g.chunk_len() as usize)) {
            assert!(manifest.verify(index, chunk));
            let mut flipped = chunk.to_vec();
            flipped[chunk.len() / 2] ^= 1;
            assert!(!manifest.verify(index, &flipped));
            assert!(!manifest.verify(index, &chunk[1..]));
        }
        let mut swapped = layer;
        swapped.swap(0, 1);
        assert!(Manifest::new(id, swapped).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn roots_of_random_lengths_are_those_of_the_plain_tree(len in 0usize..3 * MIB, seed: u64) {
            check(&bytes(len, seed));
        }

        #[test]
        fn contents_side_by_side_have_their_own_roots(lens in proptest::collection::vec(0usize..70_000, 0..80)) {
            let contents: Vec<Vec<u8>> = lens.iter().enumerate().map(|(i, len)| bytes(*len, i as u64)).collect();
            let slices: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
            let expected: Vec<Digest> = slices.iter().map(|c| Digest(naive_root(c))).collect();
            prop_assert_eq!(roots_of(&slices), expected);
        }

        #[test]
        fn bytes_may_arrive_in_any_run_of_blocks(len in 1usize..MIB, run in 1usize..40, seed: u64) {
            let content = bytes(len, seed);
            let mut blocks = Blocks::new();
            for _ in 0..2 {
                content.chunks(run * BLOCK_LEN).for_each(|b| blocks.push(b));
                prop_assert_eq!(blocks.finish_root(), root_of_bytes(&content));
            }
            content.chunks(run * BLOCK_LEN).for_each(|b| blocks.push(b));
            prop_assert_eq!(blocks.finish_chunk(9), chunk_digest(&content, 9));
        }
    }
}
