//! Digests of zeros: a chunk that holds nothing else is known by its digest, and never has to be
//! read or sent.

use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

use crate::content::{Digest, FileId, merkle};
use crate::limits::BLOCK_LEN;

impl FileId {
    /// Whether the content holds nothing but zeros, as its root says. True for the empty one.
    pub fn is_zeros(&self) -> bool {
        root_of_zeros(self.len) == self.root.0
    }
}

/// The digest of a chunk of `len` zero bytes, the root of a subtree of `height`, which has at least
/// as many leaves as the chunk has blocks. Takes two hashes a level, whatever the length.
pub fn chunk_of_zeros(len: u64, height: u32) -> Digest {
    // At each level there are some nodes above full blocks of zeros, which are all equal, perhaps
    // one node at the edge that differs, and nodes without any block.
    let (mut full, rest) = (len / BLOCK_LEN as u64, (len % BLOCK_LEN as u64) as usize);
    let mut edge = (rest > 0).then(|| short_block(rest));
    for level in 0..height {
        let is_odd = full % 2 == 1;
        full /= 2;
        edge = match (is_odd, edge) {
            (true, edge) => {
                Some(above(merkle::zero_chunk_digest(level), edge.unwrap_or_else(|| merkle::zero_leaves(level))))
            }
            (false, edge) => edge.map(|edge| above(edge, merkle::zero_leaves(level))),
        };
    }
    let inner = || if full > 0 { merkle::zero_chunk_digest(height) } else { merkle::zero_leaves(height) };
    edge.unwrap_or_else(inner)
}

/// The root of a content of `len` zero bytes.
pub fn root_of_zeros(len: u64) -> Digest {
    match len.div_ceil(BLOCK_LEN as u64) {
        0 => Digest::ZERO,
        blocks => chunk_of_zeros(len, blocks.next_power_of_two().trailing_zeros()),
    }
}

/// The digest of a block of fewer than [`BLOCK_LEN`] zero bytes. A state for each length in words of
/// 64 bytes makes that one step or two: a directory may have thousands of small files.
fn short_block(len: usize) -> Digest {
    static STATES: OnceLock<Vec<Sha256>> = OnceLock::new();
    let states = STATES.get_or_init(|| {
        let mut state = Sha256::new();
        let next = |_| {
            let here = state.clone();
            state.update([0; STEP]);
            here
        };
        (0..BLOCK_LEN / STEP).map(next).collect()
    });
    Digest(states[len / STEP].clone().chain_update(&[0; STEP][..len % STEP]).finalize().into())
}

fn above(left: Digest, right: Digest) -> Digest {
    Digest(Sha256::new().chain_update(left.0).chain_update(right.0).finalize().into())
}

/// Bytes that SHA-256 takes in at once.
const STEP: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Geometry;

    #[test]
    fn zeros_of_any_length_have_the_digest_that_hashing_gives() {
        let block = BLOCK_LEN as u64;
        let near = |n: u64| [n - 1, n, n + 1];
        let lens = (1..12).flat_map(|n| near(n * block)).chain([1, 63, 64, 65, 4096, 100_000, 262_144, 262_145]);
        for len in lens {
            let bytes = vec![0; len as usize];
            assert_eq!(root_of_zeros(len), merkle::root_of_bytes(&bytes), "{len} bytes");
            for height in [4, 5, 7].into_iter().filter(|height| len <= block << height) {
                assert_eq!(
                    chunk_of_zeros(len, height),
                    merkle::chunk_digest(&bytes, height),
                    "{len} bytes in {height}"
                );
            }
        }
        assert_eq!(root_of_zeros(0), merkle::root_of_bytes(b""));
    }

    #[test]
    fn a_file_of_several_chunks_has_the_root_above_their_digests() {
        for len in [300_000, 1 << 20, (5 << 20) + 77] {
            let geometry = Geometry::new(len);
            let digest = |c| chunk_of_zeros(geometry.span(c).len.into(), geometry.chunk_height());
            let layer: Vec<Digest> = geometry.chunks().map(digest).collect();
            assert_eq!(merkle::root_of_layer(&layer, geometry.chunk_height()), root_of_zeros(len), "{len} bytes");
        }
    }
}
