//! What a download knows and decides: files, who holds them, what is asked of whom.
//!
//! `F` is whatever goes with an open file (tests use nothing). Files of several chunks each have a picker; the
//! one-chunk files are together the "chunks" of one further picker.

use crate::identity::NodeId;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::content::{Bitfield, FileId, Geometry};
use crate::limits::LOCATE_FILES_MAX;
use crate::swarm::download::limits::{
    ACTIVE_CHUNKS_MAX, ACTIVE_FILES_MAX, HAVE_POLL_MAX, HAVE_POLL_MIN, LIST_BUSY_MAX, LOCATE_POLL_MAX, LOCATE_POLL_MIN,
    PEERS_POLL_SOON_MAX,
};
use crate::swarm::download::picker::numbers::NumberMap;
use crate::swarm::download::task::FileNo;
use crate::swarm::{ChunkPicker, ChunkState, PeerHandle};

mod work;

/// The state of a download.
pub struct DownloadState<F> {
    files: Vec<File<F>>,
    by_key: HashMap<NodeId, PeerHandle>,
    /// Unfinished files that each peer holds something of.
    useful: Vec<u32>,
    /// Peers that come to hold more without a word.
    growing: NumberMap<PeerHandle, Growing>,
    /// When to ask a peer whom else it knows to fetch.
    naming: NumberMap<PeerHandle, Backoff>,
    /// One-chunk files that are not written yet; slots of finished and unchecked ones count as had.
    small: ChunkPicker,
    small_files: Vec<FileNo>,
    /// Bytes of one-chunk files asked for or waiting to be written.
    small_len: u64,
    /// One-chunk and empty files that wait to be written.
    writing: usize,
    /// Files of several chunks that are being fetched, in order.
    active: Vec<FileNo>,
    active_chunks: u64,
    /// Files before this one were activated, are small, or are done.
    next: FileNo,
    unfinished: usize,
    /// When a chunk of a file of several came last, and the usual time between two.
    came: Option<Instant>,
    gap: Duration,
    seed: u64,
}

struct File<F> {
    id: FileId,
    holders: Vec<Holder>,
    phase: Phase<F>,
}

/// A peer that holds something of a file.
struct Holder {
    peer: PeerHandle,
    held: Held,
    /// The state of it that the picker knows; 0 for none.
    revision: u64,
    /// When to ask for the list of digests, or then what it has by now, unless that shows otherwise.
    poll: Backoff,
}

/// How much of a file a peer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// All of it.
    Whole,
    /// Some chunks, and more of them as time passes.
    Partial,
}

/// A peer that comes to hold more without a word.
struct Growing {
    poll: Backoff,
    /// The file to ask for next.
    from: FileNo,
}

/// When to ask for something again that changes by itself.
#[derive(Debug, Clone, Copy)]
struct Backoff {
    at: Option<Instant>,
    wait: Duration,
    min: Duration,
}

impl Backoff {
    /// At once, then after `min`.
    fn new(min: Duration) -> Self {
        Backoff { at: None, wait: min, min }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    /// It is being asked; the next time after that twice as long, up to `max`.
    fn asked(&mut self, now: Instant, max: Duration) {
        self.at = Some(now + self.wait);
        self.wait = (self.wait * 2).min(max);
    }

    /// There was something new.
    fn news(&mut self) {
        self.wait = self.min;
    }
}

enum Phase<F> {
    /// Not known yet whether it is there already.
    Unchecked,
    /// To be fetched.
    Waiting,
    /// Its list of digests is asked for: of whom, since when.
    Layer(Vec<(PeerHandle, Instant)>),
    /// The list came and is checked, or the partial file is being opened.
    Opening,
    /// Chunks come.
    Chunks(Box<ChunkPicker>, F),
    /// A one-chunk file, in that slot.
    Small(u32),
    /// All bytes are there; being made durable and named.
    Finishing,
    Done,
}

impl<F: Clone> DownloadState<F> {
    /// A download of `ids`, which are all different. Nothing is asked before [`checked`](Self::checked).
    pub fn new(ids: &[FileId], seed: u64) -> Self {
        let files = ids.iter().map(|&id| File { id, holders: Vec::new(), phase: Phase::Unchecked });
        let small_files: Vec<FileNo> = (0..).zip(ids).filter(|(_, id)| is_small(id)).map(|(no, _)| no).collect();
        // Everything counts as had until it is known to be wanted.
        let slots = small_files.len() as u32;
        let small = ChunkPicker::resuming(&Bitfield::full(slots), &Bitfield::empty(slots), seed).in_runs();
        DownloadState {
            files: files.collect(),
            by_key: HashMap::new(),
            useful: Vec::new(),
            growing: NumberMap::default(),
            naming: NumberMap::default(),
            small,
            small_files,
            small_len: 0,
            writing: 0,
            active: Vec::new(),
            active_chunks: 0,
            next: 0,
            unfinished: ids.len(),
            came: None,
            gap: HAVE_POLL_MAX,
            seed,
        }
    }

    /// The number of a peer; `None` when there are too many.
    pub fn peer(&mut self, key: NodeId) -> Option<PeerHandle> {
        if let Some(&handle) = self.by_key.get(&key) {
            return Some(handle);
        }
        let handle = PeerHandle(u16::try_from(self.useful.len()).ok().filter(|&n| n < u16::MAX)?);
        self.useful.push(0);
        self.by_key.insert(key, handle);
        Some(handle)
    }

    /// The identity of a file.
    pub fn id(&self, file: FileNo) -> FileId {
        self.files[file as usize].id
    }

    /// The file is there already (`here`), or is to be fetched; an empty one is only to be written.
    pub fn checked(&mut self, file: FileNo, here: bool) {
        let at = &mut self.files[file as usize];
        if !matches!(at.phase, Phase::Unchecked) {
            return;
        }
        if here {
            self.finished(file);
        } else if at.id.len == 0 {
            at.phase = Phase::Finishing;
            self.writing += 1;
        } else if is_small(&at.id) {
            let slot = self.small_files.binary_search(&file).unwrap_or(0) as u32;
            at.phase = Phase::Small(slot);
            let holders: Vec<PeerHandle> = at.holders.iter().map(|h| h.peer).collect();
            self.small.want(slot);
            holders.into_iter().for_each(|peer| self.small.add_have(peer, slot));
        } else {
            at.phase = Phase::Waiting;
        }
        self.activate();
    }

    /// What `peer` holds of a file, as it says itself. Partial holders are asked for details in time.
    pub fn set_held(&mut self, file: FileNo, peer: PeerHandle, held: Held) {
        let Some(at) = self.files.get_mut(file as usize) else { return };
        if matches!(at.phase, Phase::Done | Phase::Finishing) || (is_small(&at.id) && held != Held::Whole) {
            return;
        }
        match at.holders.iter_mut().find(|h| h.peer == peer) {
            Some(holder) if holder.held == held => return,
            Some(holder) => holder.held = held,
            None => {
                // Most files have few holders, and there may be millions of files.
                if at.holders.is_empty() {
                    at.holders.reserve_exact(1);
                }
                at.holders.push(Holder { peer, held, revision: 0, poll: Backoff::new(HAVE_POLL_MIN) });
                self.useful[peer.0 as usize] += 1;
                if let Some(growing) = self.growing.get_mut(&peer) {
                    growing.poll.news();
                }
            }
        }
        match (&mut at.phase, held) {
            (Phase::Small(slot), _) => self.small.add_have(peer, *slot),
            (Phase::Chunks(picker, _), Held::Whole) => picker.add_complete(peer),
            _ => {}
        }
    }

    /// Somebody says that `peer` fetches a file: it is asked what it has, unless more is known.
    pub fn named(&mut self, file: FileNo, peer: PeerHandle) {
        if self.files.get(file as usize).is_some_and(|at| at.holders.iter().all(|h| h.peer != peer)) {
            self.set_held(file, peer, Held::Partial);
        }
    }

    /// `peer` sends the list of digests to so many that it asks to wait that long; others may have it as well.
    pub fn layer_busy(&mut self, file: FileNo, peer: PeerHandle, wait: Duration, now: Instant) {
        let at = &mut self.files[file as usize];
        let Phase::Layer(asked) = &mut at.phase else { return };
        asked.retain(|a| a.0 != peer);
        if let Some(holder) = at.holders.iter_mut().find(|h| h.peer == peer) {
            let at = Some(now + wait.clamp(HAVE_POLL_MIN, LIST_BUSY_MAX));
            holder.poll.at = at;
            // By then it may know whom it has sent the list.
            if let Some(naming) = self.naming.get_mut(&peer).filter(|naming| naming.wait <= PEERS_POLL_SOON_MAX) {
                naming.at = naming.at.min(at);
            }
        }
    }

    /// A partial holder told which chunks it has.
    pub fn set_chunks(&mut self, file: FileNo, peer: PeerHandle, revision: u64, chunks: Chunks<'_>) {
        let at = &mut self.files[file as usize];
        let Some(holder) = at.holders.iter_mut().find(|h| h.peer == peer && h.held == Held::Partial) else { return };
        let Phase::Chunks(picker, _) = &mut at.phase else { return };
        match chunks {
            Chunks::All => {
                picker.add_complete(peer);
                holder.held = Held::Whole;
                return;
            }
            Chunks::These(bits) => picker.add_partial(peer, bits),
            // Answers may come on several connections: an older one says nothing new.
            Chunks::More(_) if revision <= holder.revision => return,
            Chunks::More(new) => new.iter().for_each(|&c| picker.add_have(peer, c)),
        }
        holder.revision = revision;
        holder.poll.news();
    }

    /// `peer` does not hold the file (any more). What was asked of it is asked of others.
    pub fn not_held(&mut self, file: FileNo, peer: PeerHandle) {
        let at = &mut self.files[file as usize];
        let Some(pos) = at.holders.iter().position(|h| h.peer == peer) else { return };
        at.holders.swap_remove(pos);
        if !matches!(at.phase, Phase::Done) {
            self.useful[peer.0 as usize] -= 1;
        }
        match &mut at.phase {
            Phase::Small(slot) => self.small.reject(*slot, peer),
            Phase::Chunks(picker, _) => picker.remove_peer(peer),
            Phase::Layer(asked) => asked.retain(|a| a.0 != peer),
            _ => {}
        }
    }

    /// `peer` holds nothing any more: it lied, left, or is not trusted any more.
    pub fn forget(&mut self, peer: PeerHandle) {
        for file in 0..self.files.len() as FileNo {
            self.not_held(file, peer);
        }
        self.small.remove_peer(peer);
    }

    /// Whether a chunk is still wanted, as others may have been quicker.
    pub fn is_wanted(&self, file: FileNo, chunk: u32) -> bool {
        match &self.files[file as usize].phase {
            Phase::Chunks(picker, _) => !matches!(picker.state(chunk), Some(ChunkState::Have | ChunkState::Checking)),
            Phase::Small(slot) => self.small.state(*slot) != Some(ChunkState::Have),
            _ => false,
        }
    }

    /// A whole list of digests came. True for the first one: it is to be checked and the file to be opened.
    pub fn layer_came(&mut self, file: FileNo) -> bool {
        let at = &mut self.files[file as usize];
        let first = matches!(at.phase, Phase::Layer(_));
        if first {
            at.phase = Phase::Opening;
        }
        first
    }

    /// The list of digests was wrong.
    pub fn layer_was_wrong(&mut self, file: FileNo) {
        self.files[file as usize].phase = Phase::Layer(Vec::new());
    }

    /// The partial file is open and has the chunks `have`; those in `checking` are being verified, each until
    /// [`rechecked`](Self::rechecked). True when it is whole already and only to be finished.
    pub fn opened(&mut self, file: FileNo, open: F, have: &Bitfield, checking: &Bitfield) -> bool {
        let at = &mut self.files[file as usize];
        self.seed = self.seed.wrapping_add(1);
        let mut picker = ChunkPicker::resuming(have, checking, self.seed);
        for holder in &mut at.holders {
            match holder.held {
                Held::Whole => picker.add_complete(holder.peer),
                Held::Partial => (holder.revision, holder.poll) = (0, Backoff::new(HAVE_POLL_MIN)),
            }
        }
        let whole = picker.is_done();
        at.phase = if whole { Phase::Finishing } else { Phase::Chunks(Box::new(picker), open) };
        whole
    }

    /// A chunk of an earlier run was verified, and is right or is to be fetched. True when the file is now whole and to
    /// be finished.
    pub fn rechecked(&mut self, file: FileNo, chunk: u32, right: bool) -> bool {
        let at = &mut self.files[file as usize];
        let Phase::Chunks(picker, _) = &mut at.phase else { return false };
        picker.checked(chunk, right);
        let whole = picker.is_done();
        if whole {
            at.phase = Phase::Finishing;
        }
        whole
    }

    /// A verified chunk was written.
    pub fn chunk_came(&mut self, file: FileNo, chunk: u32, peer: PeerHandle, now: Instant) -> ChunkCame {
        let at = &mut self.files[file as usize];
        let Phase::Chunks(picker, _) = &mut at.phase else { return ChunkCame::default() };
        let fresh = picker.complete(chunk, peer, now).fresh;
        let gap = self.came.replace(now).map_or(self.gap, |at| now.saturating_duration_since(at));
        self.gap = (self.gap * 15 + gap.min(HAVE_POLL_MAX)) / 16;
        let whole = picker.is_done();
        if whole {
            at.phase = Phase::Finishing;
        }
        ChunkCame { fresh, whole }
    }

    /// A verified one-chunk file came. True if it was still wanted and is to be written; its bytes are given back by
    /// [`small_written`](Self::small_written), those of a surplus one here.
    pub fn small_came(&mut self, file: FileNo, peer: PeerHandle, now: Instant) -> bool {
        let at = &mut self.files[file as usize];
        let fresh = match at.phase {
            Phase::Small(slot) => self.small.complete(slot, peer, now).fresh,
            _ => false,
        };
        if fresh {
            at.phase = Phase::Finishing;
            self.writing += 1;
        } else {
            self.small_len -= small_weight(at.id.len);
        }
        fresh
    }

    /// A one-chunk or empty file was written.
    pub fn small_written(&mut self, file: FileNo) {
        if self.id(file).len > 0 {
            self.small_len -= small_weight(self.id(file).len);
        }
        self.writing -= 1;
        self.finished(file);
    }

    /// The file is whole and in place.
    pub fn finished(&mut self, file: FileNo) {
        let at = &mut self.files[file as usize];
        if matches!(at.phase, Phase::Done) {
            return;
        }
        at.phase = Phase::Done;
        self.unfinished -= 1;
        for holder in std::mem::take(&mut at.holders) {
            self.useful[holder.peer.0 as usize] -= 1;
        }
        if let Some(pos) = self.active.iter().position(|&f| f == file) {
            self.active.remove(pos);
            self.active_chunks -= Geometry::new(self.files[file as usize].id.len).chunk_count() as u64;
        }
        self.activate();
    }

    /// Starts files in order while the bounds allow.
    fn activate(&mut self) {
        while let Some(at) = self.files.get_mut(self.next as usize) {
            match at.phase {
                Phase::Unchecked => return,
                Phase::Waiting => {
                    let chunks = Geometry::new(at.id.len).chunk_count() as u64;
                    let room = self.active_chunks + chunks <= ACTIVE_CHUNKS_MAX && self.active.len() < ACTIVE_FILES_MAX;
                    if !room && !self.active.is_empty() {
                        return;
                    }
                    at.phase = Phase::Layer(Vec::new());
                    self.active.push(self.next);
                    self.active_chunks += chunks;
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

    /// Unfinished files that `peer` holds something of.
    pub fn useful(&self, peer: PeerHandle) -> u32 {
        self.useful.get(peer.0 as usize).copied().unwrap_or(0)
    }

    /// Unfinished files, and who holds each.
    pub fn pending(&self) -> impl Iterator<Item = (FileNo, FileId, usize)> + '_ {
        (0..)
            .zip(&self.files)
            .filter(|(_, f)| !matches!(f.phase, Phase::Done))
            .map(|(no, f)| (no, f.id, f.holders.len()))
    }

    /// Unfinished files of some bytes from the one with number `from` on: what a peer may be asked about.
    pub fn pending_from(&self, from: FileNo) -> impl Iterator<Item = (FileNo, FileId)> + '_ {
        let rest = self.files.get(from as usize..).unwrap_or_default();
        let wanted = (from..).zip(rest).filter(|(_, f)| f.id.len > 0 && !matches!(f.phase, Phase::Done));
        wanted.map(|(no, f)| (no, f.id))
    }

    /// Peers that hold something of unfinished files.
    pub fn holders(&self) -> Vec<PeerHandle> {
        (0..).zip(&self.useful).filter(|(_, n)| **n > 0).map(|(at, _)| PeerHandle(at)).collect()
    }

    /// Whether others fetch some of the files, too.
    pub fn is_shared(&self) -> bool {
        self.active.iter().any(|&f| match &self.files[f as usize].phase {
            Phase::Chunks(picker, _) => picker.is_shared(),
            _ => false,
        })
    }

    /// Whether any of `peers` holds something of an unfinished file.
    pub fn is_held_by(&self, file: FileNo, peers: &HashSet<PeerHandle>) -> bool {
        self.files[file as usize].holders.iter().any(|h| peers.contains(&h.peer))
    }

    /// `peer` fetches files itself and does not announce those that it comes to hold: it is asked from time to time.
    pub fn grows(&mut self, peer: PeerHandle, now: Instant) {
        self.growing.entry(peer).or_insert_with(|| {
            // It was just asked for all.
            let mut poll = Backoff::new(LOCATE_POLL_MIN);
            poll.asked(now, LOCATE_POLL_MAX);
            Growing { poll, from: 0 }
        });
    }

    /// Which files to ask `peer` for once more, if it is time to: one request of those that it did not hold, in turn.
    pub fn relocate(&mut self, peer: PeerHandle, now: Instant) -> Option<Vec<(FileNo, FileId)>> {
        let from = self.growing.get(&peer).filter(|g| g.poll.is_due(now))?.from;
        let len = self.files.len() as FileNo;
        let lacking = |&no: &FileNo| {
            let file = &self.files[no as usize];
            let wanted = file.id.len > 0 && !matches!(file.phase, Phase::Finishing | Phase::Done);
            wanted && file.holders.iter().all(|h| h.peer != peer)
        };
        let files: Vec<_> = (from..len).chain(0..from.min(len)).filter(lacking).take(LOCATE_FILES_MAX).collect();
        if let Some(growing) = self.growing.get_mut(&peer) {
            growing.poll.asked(now, LOCATE_POLL_MAX);
            growing.from = files.last().map_or(0, |last| last + 1);
        }
        let files: Vec<_> = files.into_iter().map(|no| (no, self.id(no))).collect();
        (!files.is_empty()).then_some(files)
    }

    /// Lets go of the files that are open, and returns them.
    pub fn close_all(&mut self) -> Vec<F> {
        let open = self.files.iter_mut().filter(|f| matches!(f.phase, Phase::Chunks(..)));
        let taken = open.filter_map(|f| match std::mem::replace(&mut f.phase, Phase::Waiting) {
            Phase::Chunks(_, open) => Some(open),
            _ => None,
        });
        taken.collect()
    }

    /// Chunks and layers that `peer` is asked for.
    #[cfg(test)]
    pub(in crate::swarm) fn in_flight_of(&self, peer: PeerHandle) -> usize {
        let of_file = |file: &File<F>| match &file.phase {
            Phase::Chunks(picker, _) => picker.in_flight_of(peer),
            Phase::Layer(asked) => asked.iter().filter(|a| a.0 == peer).count(),
            _ => 0,
        };
        self.files.iter().map(of_file).sum::<usize>() + self.small.in_flight_of(peer)
    }

    /// Whether the disk still works on something: files to check, to open or to finish, chunks to verify again.
    pub fn disk_is_busy(&self) -> bool {
        self.writing > 0
            || self.next < self.files.len() as FileNo
                && matches!(self.files[self.next as usize].phase, Phase::Unchecked)
            || self.active.iter().any(|&f| match &self.files[f as usize].phase {
                Phase::Opening | Phase::Finishing => true,
                Phase::Chunks(picker, _) => picker.is_checking(),
                _ => false,
            })
    }
}

/// What a verified chunk was to the download.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChunkCame {
    /// It was still wanted.
    pub fresh: bool,
    /// The file is whole now and to be finished.
    pub whole: bool,
}

/// What a partial holder says it has.
pub enum Chunks<'a> {
    /// Everything by now.
    All,
    /// Exactly these.
    These(&'a Bitfield),
    /// These too.
    More(&'a [u32]),
}

/// Whether a file is fetched in one request, without a list of digests.
fn is_small(id: &FileId) -> bool {
    !Geometry::new(id.len).needs_layer()
}

/// What a one-chunk file counts for in the memory that such files may take.
fn small_weight(len: u64) -> u64 {
    len + SMALL_OVERHEAD
}

/// Memory and work that a file costs beside its bytes.
const SMALL_OVERHEAD: u64 = 4 << 10;
#[cfg(test)]
mod tests;
