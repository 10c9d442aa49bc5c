//! One file of a download: its phase and its holders.

use std::time::{Duration, Instant};

use crate::content::{FileId, Geometry};
use crate::swarm::download::picker::{ChunkPicker, PeerHandle};
use crate::swarm::download::state::layer_asks::LayerAsks;

/// A file of a download.
pub(super) struct DownloadFile<F> {
    pub(super) id: FileId,
    pub(super) holders: Vec<FileHolder>,
    pub(super) phase: FilePhase<F>,
}

/// How far a file is. It goes through the phases in this order, and skips the ones that it does not
/// need.
pub(super) enum FilePhase<F> {
    /// It may be on the disk already.
    Unchecked,
    /// It is to be fetched.
    Waiting,
    /// Peers are asked for its layer.
    Layer(LayerAsks),
    /// The layer came and is being checked, or the partial file is being opened.
    Opening,
    /// Chunks come.
    Chunks(Box<ChunkPicker>, F),
    /// A one-chunk file, in that slot of [`SmallFiles`](super::small::SmallFiles).
    Small(u32),
    /// All bytes are there; the file is being made durable and named.
    Finishing,
    /// Another download of this node fetches it, and this one waits for the result.
    Elsewhere,
    /// It is in place.
    Done,
}

/// A peer that holds something of a file.
pub(super) struct FileHolder {
    pub(super) peer: PeerHandle,
    pub(super) extent: Extent,
    /// The state of a partial holder that the picker knows; 0 for none.
    pub(super) revision: u64,
    /// When to ask for the layer, and later for what a partial holder has by then.
    pub(super) poll: Backoff,
}

/// How much of a file a peer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Some chunks, and more of them as time passes.
    Partial,
}

/// When to ask again for something that changes without notice: after twice as long each time that
/// nothing changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    /// `None`: at once.
    pub(super) at: Option<Instant>,
    pub(super) wait: Duration,
    min: Duration,
}

impl Backoff {
    /// Due at once, then after `min`.
    pub(super) fn new(min: Duration) -> Self {
        Backoff { at: None, wait: min, min }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    /// The question is on its way. The wait after the next one is twice as long, up to `max`.
    pub(super) fn polled(&mut self, now: Instant, max: Duration) {
        self.at = Some(now + self.wait);
        self.wait = (self.wait * 2).min(max);
    }

    /// Something has changed.
    pub(super) fn reset(&mut self) {
        self.wait = self.min;
    }
}

/// Whether a file is fetched in one request, without a layer.
pub(super) fn is_small(id: &FileId) -> bool {
    !Geometry::new(id.len).needs_layer()
}
