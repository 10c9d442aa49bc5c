//! What peers asked for: the chunks that were sent, for super-seeding, and the fetchers of each
//! file, for PEX.

use std::collections::VecDeque;

use crate::content::FileId;
use crate::identity::NodeId;
use crate::swarm::random::next_random;
use crate::swarm::upload::limits::{FETCHED_FILES_MAX, FETCHERS_PER_FILE_MAX, SENT_FILES_MAX};

/// The number of times that each chunk was sent, up to 255, for the last [`SENT_FILES_MAX`] files;
/// lost on restart.
///
/// With `AnyOf` a holder sends the chunk that it has sent least, so that peers that ask at the same
/// time receive different chunks and have something to exchange (super-seeding, BEP 16).
#[derive(Debug, Default)]
pub struct Sent {
    /// The file used last is at the front.
    files: VecDeque<(FileId, Vec<u8>)>,
}

impl Sent {
    /// Chunk `index` of `file`, which has `count` chunks, is being sent.
    pub fn count(&mut self, file: &FileId, count: u32, index: u32) {
        self.with(file, count, |sent| {
            if let Some(n) = sent.get_mut(index as usize) {
                *n = n.saturating_add(1);
            }
        });
    }

    /// Of `candidates` the chunk that was sent least; among equals `random` decides. It counts as
    /// sent.
    pub fn choose(
        &mut self,
        file: &FileId,
        count: u32,
        candidates: impl Iterator<Item = u32> + Clone,
        random: u64,
    ) -> Option<u32> {
        self.with(file, count, |sent| {
            if candidates.clone().any(|i| sent.get(i as usize) == Some(&u8::MAX)) {
                // A full count would no longer tell what was sent just now.
                sent.iter_mut().for_each(|n| *n /= 2);
            }
            let times = |i: &u32| sent.get(*i as usize).copied().unwrap_or(u8::MAX);
            let least = candidates.clone().map(|i| times(&i)).min()?;
            let equals = candidates.filter(|i| times(i) == least);
            let pick = (random % equals.clone().count() as u64) as usize;
            let chosen = equals.clone().nth(pick)?;
            if let Some(n) = sent.get_mut(chosen as usize) {
                *n = n.saturating_add(1);
            }
            Some(chosen)
        })
    }

    fn with<R>(&mut self, file: &FileId, count: u32, act: impl FnOnce(&mut [u8]) -> R) -> R {
        let files = &mut self.files;
        let used = match files.iter().position(|(id, _)| id == file) {
            Some(0) => None,
            Some(at) => files.remove(at),
            None => Some((*file, vec![0; count as usize])),
        };
        if let Some(used) = used {
            files.push_front(used);
            files.truncate(SENT_FILES_MAX);
        }
        match files.front_mut() {
            Some((_, sent)) => act(sent),
            None => act(&mut []),
        }
    }
}

/// The last fetchers of the last [`FETCHED_FILES_MAX`] files: what a tracker knows (BEP 3); lost on
/// restart.
#[derive(Debug, Default)]
pub struct Fetchers {
    files: VecDeque<(FileId, VecDeque<NodeId>)>,
}

impl Fetchers {
    /// `peer` fetches `file`.
    pub fn note(&mut self, file: &FileId, peer: NodeId) {
        let files = &mut self.files;
        let mut entry = match files.iter().position(|(id, _)| id == file) {
            // The usual case: the same peer fetches more of the same file.
            Some(0) if files.front().is_some_and(|(_, p)| p.front() == Some(&peer)) => return,
            Some(at) => files.remove(at).unwrap_or((*file, VecDeque::new())),
            None => (*file, VecDeque::new()),
        };
        entry.1.retain(|p| *p != peer);
        entry.1.push_front(peer);
        entry.1.truncate(FETCHERS_PER_FILE_MAX);
        files.push_front(entry);
        files.truncate(FETCHED_FILES_MAX);
    }

    /// At most `max` fetchers of `file`, drawn by `random`, so that not all peers learn of the same
    /// few.
    pub fn some_of(&self, file: &FileId, max: usize, mut random: u64) -> Vec<NodeId> {
        let Some((_, peers)) = self.files.iter().find(|(id, _)| id == file) else { return Vec::new() };
        let mut peers: Vec<NodeId> = peers.iter().copied().collect();
        for at in 0..max.min(peers.len()) {
            let other = at + (next_random(&mut random) % (peers.len() - at) as u64) as usize;
            peers.swap(at, other);
        }
        peers.truncate(max);
        peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};
    use crate::identity::{NodeId, PeerId};

    fn file(byte: u8) -> FileId {
        FileId { root: Root(Digest([byte; 32])), len: 10 << 20 }
    }

    #[test]
    fn every_chunk_is_chosen_once_before_any_twice() {
        let mut sent = Sent::default();
        sent.count(&file(1), 40, 7);
        let mut chosen: Vec<_> = (0..39).map(|_| sent.choose(&file(1), 40, 0..40, 12_345).unwrap()).collect();
        assert!(!chosen.contains(&7));
        chosen.sort_unstable();
        chosen.dedup();
        assert_eq!(chosen.len(), 39);
        assert_eq!(sent.choose(&file(1), 40, std::iter::empty(), 0), None);
    }

    #[test]
    fn a_chunk_that_was_sent_very_often_still_has_its_turn() {
        let mut sent = Sent::default();
        (0..2000).for_each(|_| sent.count(&file(1), 4, 2));
        let chosen: Vec<_> = (0..1200).map(|_| sent.choose(&file(1), 4, 0..4, 5).unwrap()).collect();
        let times = |chunk| chosen.iter().filter(|c| **c == chunk).count();
        assert!((0..4).all(|chunk| times(chunk) > 200), "{:?}", [0, 1, 2, 3].map(times));
        assert!(chosen[1000..].chunks(4).all(|turn| (0..4).all(|chunk| turn.contains(&chunk))), "each in turn");
    }

    #[test]
    fn only_so_many_files_are_remembered() {
        let (mut sent, mut fetchers) = (Sent::default(), Fetchers::default());
        for i in 0..=255 {
            sent.count(&file(i), 40, 0);
            fetchers.note(&file(i), NodeId::new(PeerId([i; 32]), 1));
            fetchers.note(&file(0), NodeId::new(PeerId([0; 32]), i.into()));
            fetchers.note(&file(0), NodeId::new(PeerId([1; 32]), i.into()));
        }
        assert_eq!(sent.files.len(), SENT_FILES_MAX);
        let all = fetchers.some_of(&file(0), 1000, 1);
        assert_eq!(all.len(), FETCHERS_PER_FILE_MAX);
        assert!(
            all.contains(&NodeId::new(PeerId([1; 32]), 255)) && !all.contains(&NodeId::new(PeerId([0; 32]), 0)),
            "the latest"
        );
        let (some, others) = (fetchers.some_of(&file(0), 8, 1), fetchers.some_of(&file(0), 8, 2));
        assert!(some.len() == 8 && some != others && some.iter().all(|p| all.contains(p)));
        assert_eq!(fetchers.some_of(&FileId { len: 1, ..file(0) }, 8, 1), []);
    }
}
