//! The tasks that a download gives to its connections, and the request that each becomes.

use crate::content::{ChunkIndex, Digest, FileId, Geometry};
use crate::limits::{LAYER_DIGESTS_PER_ANSWER_MAX, LOCATE_FILES_MAX, PEERS_ANSWER_LEN_MAX, RESPONSE_BODY_LEN_MAX};
use crate::proto::{ChunkAsk, ChunkRef, Kind, LayerRange, Request, Since};

/// Number of a file in a download.
pub type FileNo = u32;

/// What one request asks of one peer. `F` is the handle of an open file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task<F> {
    /// A chunk of a file that has several.
    Chunk(ChunkTask<F>),
    /// One of several chunks of such a file; the holder chooses which.
    AnyOf(AnyOfTask<F>),
    /// A file of one chunk.
    Small(SmallTask),
    /// The next part of a layer.
    Layer(LayerTask),
    /// The peers that fetch a file, too.
    Peers {
        /// Its number.
        file: FileNo,
        /// Its identity.
        id: FileId,
    },
    /// The chunks that a partial holder has by now.
    Have {
        /// Its number.
        file: FileNo,
        /// Its identity.
        id: FileId,
        /// The last state of the holder that is known; 0 for none.
        revision: u64,
    },
    /// How much the peer holds of each of these files; of none to measure the round trip.
    Locate(Vec<(FileNo, FileId)>),
}

/// See [`Task::Chunk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkTask<F> {
    /// Number of the file.
    pub file: FileNo,
    /// Its identity.
    pub id: FileId,
    /// The chunk.
    pub index: ChunkIndex,
    /// Bytes of the chunk.
    pub len: u32,
    /// The last state of a partial holder that is known; 0 for a complete one, whose answer carries
    /// no new haves.
    pub since: u64,
    /// The open file.
    pub open: F,
}

/// See [`Task::AnyOf`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnyOfTask<F> {
    /// Number of the file.
    pub file: FileNo,
    /// Its identity.
    pub id: FileId,
    /// The chunks to choose from.
    pub chunks: Vec<u32>,
    /// The open file.
    pub open: F,
}

/// See [`Task::Small`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmallTask {
    /// Number of the file.
    pub file: FileNo,
    /// Its identity.
    pub id: FileId,
    /// The only chunk.
    pub index: ChunkIndex,
    /// Bytes of the file.
    pub len: u32,
}

/// See [`Task::Layer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerTask {
    /// Number of the file.
    pub file: FileNo,
    /// Its identity.
    pub id: FileId,
    /// The part that came already.
    pub digests: Vec<Digest>,
}

impl LayerTask {
    /// The next part to ask for.
    pub fn range(&self) -> LayerRange {
        let first = self.digests.len() as u32;
        let count = LAYER_DIGESTS_PER_ANSWER_MAX.min(self.chunk_count().saturating_sub(first));
        LayerRange { file: self.id, first, count }
    }

    /// Whether all parts came.
    pub fn is_whole(&self) -> bool {
        self.digests.len() as u32 >= self.chunk_count()
    }

    fn chunk_count(&self) -> u32 {
        Geometry::new(self.id.len).chunk_count()
    }
}

impl<F> Task<F> {
    /// The request on the wire.
    pub fn request(&self) -> Request {
        match self {
            Task::Chunk(ChunkTask { id, index, since, .. }) => {
                Request::Chunk(ChunkAsk { chunk: ChunkRef { file: *id, index: index.get() }, since: *since })
            }
            Task::Small(SmallTask { id, index, .. }) => {
                Request::Chunk(ChunkAsk { chunk: ChunkRef { file: *id, index: index.get() }, since: 0 })
            }
            Task::AnyOf(task) => Request::AnyOf(Since { file: task.id, revision: 0 }, task.chunks.clone()),
            Task::Layer(task) => Request::Layer(task.range()),
            Task::Peers { id, .. } => Request::Peers(Some(*id)),
            Task::Have { id, revision, .. } => Request::Have(Since { file: *id, revision: *revision }),
            Task::Locate(files) => Request::Locate(files.iter().map(|file| file.1).collect()),
        }
    }

    /// The kind of the answer, and the most bytes that its body may have.
    pub fn expects(&self) -> (Kind, usize) {
        match self {
            Task::Chunk(ChunkTask { len, .. }) | Task::Small(SmallTask { len, .. }) => (Kind::Chunk, *len as usize + 1),
            Task::AnyOf(task) => (Kind::AnyOf, Geometry::new(task.id.len).chunk_len() as usize + 1),
            Task::Layer(task) => (Kind::Layer, task.range().count as usize * 32),
            Task::Peers { .. } => (Kind::Peers, PEERS_ANSWER_LEN_MAX),
            Task::Have { id, .. } => (Kind::Have, have_len_max(Geometry::new(id.len).chunk_count())),
            Task::Locate(_) => (Kind::Locate, LOCATE_FILES_MAX * HOLDING_LEN_MAX + 8),
        }
    }

    /// Bytes of chunks that the answer brings; of a chunk that the holder chooses, the most that it
    /// can have.
    pub fn chunk_bytes(&self) -> u64 {
        match self {
            Task::Chunk(ChunkTask { len, .. }) | Task::Small(SmallTask { len, .. }) => u64::from(*len),
            Task::AnyOf(task) => Geometry::new(task.id.len).chunk_len(),
            Task::Layer(_) | Task::Peers { .. } | Task::Have { .. } | Task::Locate(_) => 0,
        }
    }

    /// The file that it is about; none for [`Locate`](Task::Locate), which is about many.
    pub fn file(&self) -> Option<(FileNo, FileId)> {
        match self {
            Task::Chunk(ChunkTask { file, id, .. })
            | Task::AnyOf(AnyOfTask { file, id, .. })
            | Task::Small(SmallTask { file, id, .. })
            | Task::Layer(LayerTask { file, id, .. })
            | Task::Peers { file, id }
            | Task::Have { file, id, .. } => Some((*file, *id)),
            Task::Locate(_) => None,
        }
    }

    /// Whether the answer may wait in a line for an upload slot.
    pub fn waits_for_slot(&self) -> bool {
        self.is_chunk() || matches!(self, Task::Layer(_))
    }

    /// Whether the answer brings a chunk.
    pub fn is_chunk(&self) -> bool {
        matches!(self, Task::Chunk(_) | Task::AnyOf(_) | Task::Small(_))
    }
}

/// Longest postcard form of a [`Holding`](crate::proto::Holding) in bytes.
const HOLDING_LEN_MAX: usize = 6;

/// Most bytes of an answer to `Have` for a file of that many chunks: each may be a number of its
/// own.
fn have_len_max(chunks: u32) -> usize {
    (chunks as usize * NUMBER_LEN_MAX + 32).min(RESPONSE_BODY_LEN_MAX)
}

/// Longest postcard form of a chunk's number in bytes: there are at most 2^19.
const NUMBER_LEN_MAX: usize = 3;
