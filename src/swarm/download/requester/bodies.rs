//! The short bodies of answers, as they are read without the state of the download.

use crate::content::{Bitfield, FileId, Geometry};
use crate::proto::{Delta, Holding, PeerHint};
use crate::swarm::download::picker::PeerHandle;
use crate::swarm::download::state::{Chunks, DownloadState};
use crate::swarm::download::task::FileNo;

/// A short body that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShortBody {
    /// Chunks that a partial holder has.
    Haves(Haves),
    /// At most [`FETCHERS_PER_ANSWER_MAX`](crate::limits::FETCHERS_PER_ANSWER_MAX) peers.
    Peers(Vec<PeerHint>),
    /// How much is held of each file that was asked for.
    Holdings(Vec<Holding>),
    /// Nothing that matters.
    Nothing,
}

/// The chunks that a partial holder says it has, within the chunks of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Haves {
    /// All chunks.
    All,
    /// Exactly these, as of `revision`.
    These {
        /// Names the state of the holder.
        revision: u64,
        /// One bit a chunk.
        bits: Bitfield,
    },
    /// These, too, as of `revision`.
    More {
        /// Names the state of the holder.
        revision: u64,
        /// Numbers of chunks, no more than the file has.
        chunks: Vec<u32>,
    },
}

/// Why there are no such chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HavesError {
    /// The bitfield is for another number of chunks.
    #[error("bitfield of another length")]
    Bitfield,
    /// More new haves than the file has chunks.
    #[error("more new haves than chunks")]
    TooMany,
}

impl Haves {
    /// What `delta` says of the file `id`.
    pub(super) fn of(delta: Delta, id: &FileId) -> Result<Self, HavesError> {
        let chunk_count = Geometry::new(id.len).chunk_count();
        match delta {
            Delta::Whole => Ok(Haves::All),
            Delta::Full { revision, bits } => {
                let bits = Bitfield::from_bytes(&bits, chunk_count).ok_or(HavesError::Bitfield)?;
                Ok(Haves::These { revision, bits })
            }
            Delta::New { chunks, .. } if chunks.len() > chunk_count as usize => Err(HavesError::TooMany),
            Delta::New { revision, chunks } => Ok(Haves::More { revision, chunks }),
        }
    }

    /// The peer says which chunks it has of a file that it fetches, too: work for all of its
    /// connections.
    pub(super) fn note<F: Clone>(&self, state: &mut DownloadState<F>, file: FileNo, peer: PeerHandle) {
        match self {
            Haves::All => state.set_chunks(file, peer, 0, Chunks::All),
            Haves::These { revision, bits } => state.set_chunks(file, peer, *revision, Chunks::These(bits)),
            Haves::More { revision, chunks } => state.set_chunks(file, peer, *revision, Chunks::More(chunks)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};
    use crate::proto::encode_body;
    use crate::swarm::download::task::Task;

    /// Cause: new haves were taken as they came, under the lock of the download. Effect: one answer
    /// of a hostile holder held up all connections with millions of numbers. Mend: there are no more
    /// than the file has chunks, and they are counted before the lock is taken.
    #[test]
    fn new_haves_are_no_more_than_the_chunks() {
        let id = FileId { root: Root(Digest([1; 32])), len: 300 << 18 };
        let new = |count: u32| Haves::of(Delta::New { revision: 1, chunks: (0..count).collect() }, &id);
        assert!(new(300).is_ok());
        assert_eq!(new(301), Err(HavesError::TooMany));
        let (_, body_max) = Task::<()>::Have { file: 0, id, revision: 0 }.expects();
        let largest = encode_body(&Delta::New { revision: u64::MAX, chunks: vec![299; 300] });
        assert!((largest.len()..1000).contains(&body_max), "{body_max}");
    }
}
