//! What a download knows and decides: its files, their holders, and the next task of each peer.
//!
//! `F` is the handle of an open file; tests and simulations use `()`. Each file of several chunks
//! has a picker of its own; all one-chunk files share another one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::content::{Bitfield, FileId, Geometry};
use crate::identity::NodeId;
use crate::swarm::download::limits::{ACTIVE_CHUNKS_MAX, ACTIVE_FILES_MAX, HAVE_POLL_MAX, HAVE_POLL_MIN};
use crate::swarm::download::number_map::NumberMap;
use crate::swarm::download::picker::{ChunkPicker, ChunkState, PeerHandle, ReadOrder};
use crate::swarm::download::state::file::{Backoff, DownloadFile, FilePhase, is_small};
use crate::swarm::download::state::layer_asks::LayerAsks;
use crate::swarm::download::state::small::SmallFiles;
use crate::swarm::download::task::FileNo;

mod elsewhere;
mod file;
mod holders;
mod layer_asks;
mod reads;
mod small;
mod tasks;

pub use file::Extent;
pub use holders::Chunks;

/// The state of a download.
pub struct DownloadState<F> {
    files: Vec<DownloadFile<F>>,
    peers: PeerNumbers,
    /// Peers that come to hold more without notice.
    growing: NumberMap<PeerHandle, GrowingPeer>,
    /// When to ask each peer for the other peers that fetch a file.
    peer_polls: NumberMap<PeerHandle, Backoff>,
    small: SmallFiles,
    active: ActiveFiles,
    /// All files before this one are active, small or done.
    next: FileNo,
    unfinished: usize,
    arrivals: ArrivalGap,
    /// The files that are read meanwhile.
    reads: HashMap<FileNo, ReadOrder>,
    seed: u64,
}

/// The numbers of all peers that the download has met.
#[derive(Default)]
struct PeerNumbers {
    by_node: HashMap<NodeId, PeerHandle>,
    /// Unfinished files that each peer holds something of.
    useful: Vec<u32>,
    /// Whether each peer has given a wanted chunk.
    gave: Vec<bool>,
    /// The round trip to each peer.
    paths: Vec<Duration>,
}

/// A peer that comes to hold more without notice.
struct GrowingPeer {
    poll: Backoff,
    /// The file to ask for next.
    from: FileNo,
}

/// Files of several chunks that are being fetched, in their order.
#[derive(Default)]
struct ActiveFiles {
    files: Vec<FileNo>,
    /// Chunks of all of them.
    chunks: u64,
}

/// The usual time between two chunks of files of several.
struct ArrivalGap {
    last: Option<Instant>,
    mean: Duration,
}

/// What a verified chunk was to the download.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChunkCame {
    /// It was still wanted.
    pub fresh: bool,
    /// The file is whole now and to be finished.
    pub whole: bool,
}

impl<F: Clone> DownloadState<F> {
    /// A download of `ids`, which are all different. No file is asked for before
    /// [`checked`](Self::checked).
    pub fn new(ids: &[FileId], seed: u64) -> Self {
        let files = ids.iter().map(|&id| DownloadFile { id, holders: Vec::new(), phase: FilePhase::Unchecked });
        DownloadState {
            files: files.collect(),
            peers: PeerNumbers::default(),
            growing: NumberMap::default(),
            peer_polls: NumberMap::default(),
            small: SmallFiles::new(ids, seed),
            active: ActiveFiles::default(),
            next: 0,
            unfinished: ids.len(),
            arrivals: ArrivalGap { last: None, mean: HAVE_POLL_MAX },
            reads: HashMap::new(),
            seed,
        }
    }

    /// The number of a peer; `None` when there are too many.
    pub fn peer(&mut self, node: NodeId) -> Option<PeerHandle> {
        if let Some(&handle) = self.peers.by_node.get(&node) {
            return Some(handle);
        }
        let handle = PeerHandle(u16::try_from(self.peers.useful.len()).ok().filter(|&n| n < u16::MAX)?);
        self.peers.useful.push(0);
        self.peers.gave.push(false);
        self.peers.paths.push(Duration::ZERO);
        self.peers.by_node.insert(node, handle);
        Some(handle)
    }

    /// A request to `peer` and its answer travel that long: no chunk of it is late before.
    pub fn set_round_trip(&mut self, peer: PeerHandle, round_trip: Duration) {
        if let Some(path) = self.peers.paths.get_mut(peer.0 as usize) {
            *path = round_trip;
        }
    }

    /// The round trip to `peer`; zero before its first connection.
    pub fn round_trip(&self, peer: PeerHandle) -> Duration {
        self.peers.paths.get(peer.0 as usize).copied().unwrap_or_default()
    }

    /// The identity of a file.
    pub fn id(&self, file: FileNo) -> FileId {
        self.files[file as usize].id
    }

    /// The file is on the disk already (`here`), or is to be fetched. An empty one is only to be
    /// written.
    pub fn checked(&mut self, file: FileNo, here: bool) {
        let at = &mut self.files[file as usize];
        if !matches!(at.phase, FilePhase::Unchecked | FilePhase::Elsewhere) {
            return;
        }
        // It may lie before the files that are active.
        self.next = self.next.min(file);
        if here {
            self.finished(file);
        } else if at.id.len == 0 {
            at.phase = FilePhase::Finishing;
            self.small.writing += 1;
        } else if is_small(&at.id) {
            let slot = self.small.slot_of(file);
            at.phase = FilePhase::Small(slot);
            self.small.picker.want(slot);
            at.holders.iter().for_each(|holder| self.small.picker.add_have(holder.peer, slot));
        } else {
            at.phase = FilePhase::Waiting;
        }
        if let Some(order) = self.reads.get(&file).cloned() {
            self.set_reads(file, order);
        }
        self.activate();
    }

    /// Whether a chunk is still wanted: another peer may have been quicker.
    pub fn is_wanted(&self, file: FileNo, chunk: u32) -> bool {
        match &self.files[file as usize].phase {
            FilePhase::Chunks(picker, _) => {
                !matches!(picker.state(chunk), Some(ChunkState::Have | ChunkState::Checking))
            }
            FilePhase::Small(slot) => self.small.picker.state(*slot) != Some(ChunkState::Have),
            _ => false,
        }
    }

    /// A whole layer came. True for the first one: it is to be checked and the file to be opened.
    pub fn layer_came(&mut self, file: FileNo) -> bool {
        let at = &mut self.files[file as usize];
        let first = matches!(at.phase, FilePhase::Layer(_));
        if first {
            at.phase = FilePhase::Opening;
        }
        first
    }

    /// The layer does not match the root of the file.
    pub fn layer_was_wrong(&mut self, file: FileNo) {
        self.files[file as usize].phase = FilePhase::Layer(LayerAsks::default());
    }

    /// The partial file is open and has the chunks `have`; the ones in `checking` are being
    /// verified, each until [`rechecked`](Self::rechecked). True when the file is whole already and
    /// only to be finished.
    pub fn opened(&mut self, file: FileNo, open: F, have: &Bitfield, checking: &Bitfield) -> bool {
        let at = &mut self.files[file as usize];
        self.seed = self.seed.wrapping_add(1);
        let mut picker = ChunkPicker::resuming(have, checking, self.seed);
        picker.set_reads(self.reads.get(&file).cloned().unwrap_or_default());
        for holder in &mut at.holders {
            match holder.extent {
                Extent::Whole => picker.add_complete(holder.peer),
                Extent::Partial => (holder.revision, holder.poll) = (0, Backoff::new(HAVE_POLL_MIN)),
            }
        }
        let whole = picker.is_done();
        at.phase = if whole { FilePhase::Finishing } else { FilePhase::Chunks(Box::new(picker), open) };
        whole
    }

    /// A chunk of an earlier run was verified, and is right or is to be fetched. True when the file
    /// is now whole and to be finished.
    pub fn rechecked(&mut self, file: FileNo, chunk: u32, right: bool) -> bool {
        let at = &mut self.files[file as usize];
        let FilePhase::Chunks(picker, _) = &mut at.phase else { return false };
        picker.checked(chunk, right);
        let whole = picker.is_done();
        if whole {
            at.phase = FilePhase::Finishing;
        }
        whole
    }

    /// A verified chunk was written.
    pub fn chunk_came(&mut self, file: FileNo, chunk: u32, peer: PeerHandle, now: Instant) -> ChunkCame {
        let at = &mut self.files[file as usize];
        let FilePhase::Chunks(picker, _) = &mut at.phase else { return ChunkCame::default() };
        let fresh = picker.complete(chunk, peer, now).fresh;
        self.peers.gives(peer, fresh);
        self.arrivals.note(now);
        let whole = picker.is_done();
        if whole {
            at.phase = FilePhase::Finishing;
        }
        ChunkCame { fresh, whole }
    }

    /// A verified one-chunk file came. True if it was still wanted and is to be written: its bytes
    /// count as held until [`small_written`](Self::small_written).
    pub fn small_came(&mut self, file: FileNo, peer: PeerHandle, now: Instant) -> bool {
        let at = &mut self.files[file as usize];
        let fresh = match at.phase {
            FilePhase::Small(slot) => self.small.came(slot, peer, now),
            _ => false,
        };
        self.peers.gives(peer, fresh);
        if fresh {
            at.phase = FilePhase::Finishing;
        } else {
            self.small.release(at.id.len);
        }
        fresh
    }

    /// A one-chunk or empty file was written.
    pub fn small_written(&mut self, file: FileNo) {
        let len = self.id(file).len;
        if len > 0 {
            self.small.release(len);
        }
        self.small.writing -= 1;
        self.finished(file);
    }

    /// The file is whole and in place.
    pub fn finished(&mut self, file: FileNo) {
        let at = &mut self.files[file as usize];
        if matches!(at.phase, FilePhase::Done) {
            return;
        }
        at.phase = FilePhase::Done;
        self.reads.remove(&file);
        self.unfinished -= 1;
        for holder in std::mem::take(&mut at.holders) {
            self.peers.useful[holder.peer.0 as usize] -= 1;
        }
        self.deactivate(file);
        self.activate();
    }

    /// Starts files in their order while the bounds allow. A single file is started whatever its
    /// size.
    fn activate(&mut self) {
        let active = &mut self.active;
        while let Some(at) = self.files.get_mut(self.next as usize) {
            match at.phase {
                FilePhase::Unchecked => return,
                FilePhase::Waiting => {
                    let chunks = Geometry::new(at.id.len).chunk_count() as u64;
                    let room = active.chunks + chunks <= ACTIVE_CHUNKS_MAX && active.files.len() < ACTIVE_FILES_MAX;
                    if !room && !active.files.is_empty() {
                        return;
                    }
                    at.phase = FilePhase::Layer(LayerAsks::default());
                    active.files.push(self.next);
                    active.chunks += chunks;
                }
                _ => {}
            }
            self.next += 1;
        }
    }

    /// Files that are not done.
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Unfinished files, with the number of their holders.
    pub fn pending(&self) -> impl Iterator<Item = (FileNo, FileId, usize)> + '_ {
        (0..)
            .zip(&self.files)
            .filter(|(_, f)| !matches!(f.phase, FilePhase::Done))
            .map(|(no, f)| (no, f.id, f.holders.len()))
    }

    /// Unfinished files that are not empty, from number `from` on: the ones to ask a peer about.
    pub fn pending_from(&self, from: FileNo) -> impl Iterator<Item = (FileNo, FileId)> + '_ {
        let rest = self.files.get(from as usize..).unwrap_or_default();
        let wanted = (from..).zip(rest).filter(|(_, f)| f.id.len > 0 && !matches!(f.phase, FilePhase::Done));
        wanted.map(|(no, f)| (no, f.id))
    }

    /// Whether other nodes fetch some of the files, too.
    pub fn is_shared(&self) -> bool {
        self.active.files.iter().any(|&f| match &self.files[f as usize].phase {
            FilePhase::Chunks(picker, _) => picker.is_shared(),
            _ => false,
        })
    }

    /// Ends all files that are open, and returns their handles.
    pub fn close_all(&mut self) -> Vec<F> {
        let open = self.files.iter_mut().filter(|f| matches!(f.phase, FilePhase::Chunks(..)));
        let taken = open.filter_map(|f| match std::mem::replace(&mut f.phase, FilePhase::Waiting) {
            FilePhase::Chunks(_, open) => Some(open),
            _ => None,
        });
        taken.collect()
    }

    /// Whether files are still to be looked for on the disk before they are asked for.
    pub fn is_checking(&self) -> bool {
        self.files.get(self.next as usize).is_some_and(|at| matches!(at.phase, FilePhase::Unchecked))
    }

    /// Whether the disk still works on something: files to check, to open or to finish, chunks to
    /// verify again.
    pub fn disk_is_busy(&self) -> bool {
        self.small.writing > 0
            || self.is_checking()
            || self.active.files.iter().any(|&f| match &self.files[f as usize].phase {
                FilePhase::Opening | FilePhase::Finishing => true,
                FilePhase::Chunks(picker, _) => picker.is_checking(),
                _ => false,
            })
    }

    /// Chunks and layers that `peer` is asked for.
    #[cfg(test)]
    pub(in crate::swarm) fn in_flight_of(&self, peer: PeerHandle) -> usize {
        let of_file = |file: &DownloadFile<F>| match &file.phase {
            FilePhase::Chunks(picker, _) => picker.in_flight_of(peer),
            FilePhase::Layer(asks) => usize::from(asks.is_asked(peer)),
            _ => 0,
        };
        self.files.iter().map(of_file).sum::<usize>() + self.small.picker.in_flight_of(peer)
    }
}

impl PeerNumbers {
    fn gives(&mut self, peer: PeerHandle, fresh: bool) {
        if let Some(gave) = self.gave.get_mut(peer.0 as usize) {
            *gave |= fresh;
        }
    }

    fn has_given(&self, peer: PeerHandle) -> bool {
        self.gave.get(peer.0 as usize).is_some_and(|&gave| gave)
    }
}

impl ArrivalGap {
    /// A chunk came. The mean looks back over about 16 chunks.
    fn note(&mut self, now: Instant) {
        let gap = self.last.replace(now).map_or(self.mean, |at| now.saturating_duration_since(at));
        self.mean = (self.mean * 15 + gap.min(HAVE_POLL_MAX)) / 16;
    }

    /// The usual gap, or the present one if that is longer already; at most [`HAVE_POLL_MAX`].
    fn usual(&self, now: Instant) -> Duration {
        let since = self.last.map_or(HAVE_POLL_MAX, |at| now.saturating_duration_since(at));
        self.mean.max(since).min(HAVE_POLL_MAX)
    }
}

#[cfg(test)]
mod tests;
