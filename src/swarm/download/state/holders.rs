//! Which peer holds what: what peers say of themselves and of each other, and when they are asked
//! again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::content::{Bitfield, FileId};
use crate::limits::LOCATE_FILES_MAX;
use crate::swarm::download::limits::{
    HAVE_POLL_MIN, LAYER_BUSY_MAX, LOCATE_POLL_MAX, LOCATE_POLL_MIN, PEERS_POLL_SOON_MAX,
};
use crate::swarm::download::picker::PeerHandle;
use crate::swarm::download::state::file::{Backoff, Extent, FileHolder, FilePhase, is_small};
use crate::swarm::download::state::{DownloadState, GrowingPeer};
use crate::swarm::download::task::FileNo;

/// The chunks that a partial holder says it has.
pub enum Chunks<'a> {
    /// All chunks, by now.
    All,
    /// Exactly these.
    These(&'a Bitfield),
    /// These, too.
    More(&'a [u32]),
}

impl<F: Clone> DownloadState<F> {
    /// `peer` says how much it holds of a file. Partial holders are asked for details in time.
    pub fn set_held(&mut self, file: FileNo, peer: PeerHandle, extent: Extent) {
        let Some(at) = self.files.get_mut(file as usize) else { return };
        if matches!(at.phase, FilePhase::Done | FilePhase::Finishing) || (is_small(&at.id) && extent != Extent::Whole) {
            return;
        }
        match at.holders.iter_mut().find(|h| h.peer == peer) {
            Some(holder) if holder.extent == extent => return,
            Some(holder) => holder.extent = extent,
            None => {
                // Most files have few holders, and there may be millions of files.
                if at.holders.is_empty() {
                    at.holders.reserve_exact(1);
                }
                at.holders.push(FileHolder { peer, extent, revision: 0, poll: Backoff::new(HAVE_POLL_MIN) });
                self.peers.useful[peer.0 as usize] += 1;
                if let Some(growing) = self.growing.get_mut(&peer) {
                    growing.poll.reset();
                }
            }
        }
        match (&mut at.phase, extent) {
            (FilePhase::Small(slot), _) => self.small.picker.add_have(peer, *slot),
            (FilePhase::Chunks(picker, _), Extent::Whole) => picker.add_complete(peer),
            _ => {}
        }
    }

    /// Another peer says that `peer` fetches a file: it is asked what it has, unless more is known.
    pub fn named(&mut self, file: FileNo, peer: PeerHandle) {
        if self.files.get(file as usize).is_some_and(|at| at.holders.iter().all(|h| h.peer != peer)) {
            self.set_held(file, peer, Extent::Partial);
        }
    }

    /// `peer` sends the layer of a file to many others and asks to wait. Other holders are asked
    /// for it meanwhile.
    pub fn layer_busy(&mut self, file: FileNo, peer: PeerHandle, wait: Duration, now: Instant) {
        let at = &mut self.files[file as usize];
        let FilePhase::Layer(asks) = &mut at.phase else { return };
        asks.withdraw(peer);
        if let Some(holder) = at.holders.iter_mut().find(|h| h.peer == peer) {
            let at = Some(now + wait.clamp(HAVE_POLL_MIN, LAYER_BUSY_MAX));
            holder.poll.at = at;
            // By then the peer may know others that have got the layer from it.
            if let Some(poll) = self.peer_polls.get_mut(&peer).filter(|poll| poll.wait <= PEERS_POLL_SOON_MAX) {
                poll.at = poll.at.min(at);
            }
        }
    }

    /// A partial holder says which chunks it has, as of `revision` of its file.
    pub fn set_chunks(&mut self, file: FileNo, peer: PeerHandle, revision: u64, chunks: Chunks<'_>) {
        let at = &mut self.files[file as usize];
        let is_partial = |h: &&mut FileHolder| h.peer == peer && h.extent == Extent::Partial;
        let Some(holder) = at.holders.iter_mut().find(is_partial) else { return };
        let FilePhase::Chunks(picker, _) = &mut at.phase else { return };
        match chunks {
            Chunks::All => {
                picker.add_complete(peer);
                holder.extent = Extent::Whole;
                return;
            }
            Chunks::These(bits) => picker.add_partial(peer, bits),
            // Answers may come on several connections: an older one says nothing new.
            Chunks::More(_) if revision <= holder.revision => return,
            Chunks::More(new) => new.iter().for_each(|&c| picker.add_have(peer, c)),
        }
        holder.revision = revision;
        holder.poll.reset();
    }

    /// `peer` does not hold the file (any longer). What it was asked for is asked of others.
    pub fn not_held(&mut self, file: FileNo, peer: PeerHandle) {
        let at = &mut self.files[file as usize];
        let Some(pos) = at.holders.iter().position(|h| h.peer == peer) else { return };
        at.holders.swap_remove(pos);
        if !matches!(at.phase, FilePhase::Done) {
            self.peers.useful[peer.0 as usize] -= 1;
        }
        match &mut at.phase {
            FilePhase::Small(slot) => self.small.picker.reject(*slot, peer),
            FilePhase::Chunks(picker, _) => picker.remove_peer(peer),
            FilePhase::Layer(asks) => asks.withdraw(peer),
            _ => {}
        }
    }

    /// `peer` holds nothing for this download: it lied, left, or lost trust.
    pub fn forget(&mut self, peer: PeerHandle) {
        for file in 0..self.files.len() as FileNo {
            self.not_held(file, peer);
        }
        self.small.picker.remove_peer(peer);
    }

    /// `peer` fetches files itself and does not announce the ones that it comes to hold: it is
    /// asked from time to time.
    pub fn grows(&mut self, peer: PeerHandle, now: Instant) {
        self.growing.entry(peer).or_insert_with(|| {
            // It has just been asked for all files.
            let mut poll = Backoff::new(LOCATE_POLL_MIN);
            poll.polled(now, LOCATE_POLL_MAX);
            GrowingPeer { poll, from: 0 }
        });
    }

    /// The files to ask `peer` for again, once that is due: one request of files that it did not
    /// hold, in turn.
    pub fn relocate(&mut self, peer: PeerHandle, now: Instant) -> Option<Vec<(FileNo, FileId)>> {
        let from = self.growing.get(&peer).filter(|g| g.poll.is_due(now))?.from;
        let len = self.files.len() as FileNo;
        let is_open = |&no: &FileNo| {
            let file = &self.files[no as usize];
            let wanted = file.id.len > 0 && !matches!(file.phase, FilePhase::Finishing | FilePhase::Done);
            wanted && file.holders.iter().all(|h| h.peer != peer)
        };
        let files: Vec<_> = (from..len).chain(0..from.min(len)).filter(is_open).take(LOCATE_FILES_MAX).collect();
        if let Some(growing) = self.growing.get_mut(&peer) {
            growing.poll.polled(now, LOCATE_POLL_MAX);
            growing.from = files.last().map_or(0, |last| last + 1);
        }
        let files: Vec<_> = files.into_iter().map(|no| (no, self.id(no))).collect();
        (!files.is_empty()).then_some(files)
    }

    /// Unfinished files that `peer` holds something of.
    pub fn useful(&self, peer: PeerHandle) -> u32 {
        self.peers.useful.get(peer.0 as usize).copied().unwrap_or(0)
    }

    /// Peers that hold something of unfinished files.
    pub fn holders(&self) -> Vec<PeerHandle> {
        (0..).zip(&self.peers.useful).filter(|(_, n)| **n > 0).map(|(at, _)| PeerHandle(at)).collect()
    }

    /// Whether another peer than `peer` holds the whole file, or `chunk` of it.
    pub fn is_held_elsewhere(&self, file: FileNo, chunk: Option<u32>, peer: PeerHandle) -> bool {
        let at = &self.files[file as usize];
        let has_chunk = |other: PeerHandle| match (&at.phase, chunk) {
            (FilePhase::Chunks(picker, _), Some(chunk)) => picker.holds(other, chunk),
            _ => false,
        };
        at.holders.iter().any(|h| h.peer != peer && (h.extent == Extent::Whole || has_chunk(h.peer)))
    }

    /// Whether any of `peers` holds something of an unfinished file.
    pub fn is_held_by(&self, file: FileNo, peers: &HashSet<PeerHandle>) -> bool {
        self.files[file as usize].holders.iter().any(|h| peers.contains(&h.peer))
    }
}
