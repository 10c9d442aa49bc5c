//! What peers asked for: the chunks that were sent, for super-seeding, and the fetchers of each
//! file, for PEX.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::{Duration, Instant};

use crate::content::FileId;
use crate::identity::NodeId;
use crate::swarm::random::next_random;
use crate::swarm::upload::limits::{FETCHED_FILES_MAX, FETCHERS_PER_FILE_MAX, ON_ITS_WAY, SENT_FILES_MAX};

/// The number of times that each chunk was sent, up to 255, and to whom last, for the last
/// [`SENT_FILES_MAX`] files; lost on restart.
///
/// With `AnyOf` a holder sends the chunk that it has sent least, so that peers that ask at the same
/// time receive different chunks and have something to exchange (super-seeding, BEP 16).
///
/// A node may ask on several sessions, and each of its requests lists chunks that come to it on another one
/// before the turn of that request. So what it was sent last comes after all else that it lists, and what is
/// on its way to it is not sent at all.
#[derive(Debug, Default)]
pub struct Sent {
    /// The file used last is at the front.
    files: VecDeque<(FileId, Vec<SentChunk>)>,
    /// What the times of [`SentChunk`] count from.
    began: Option<Instant>,
}

/// Who is sent a chunk.
#[derive(Debug, Clone, Copy)]
pub struct SentTo {
    /// The node.
    pub node: NodeId,
    /// The number of its session.
    pub session: usize,
    /// When.
    pub at: Instant,
}

/// Which chunk answers an `AnyOf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnyOfChoice {
    /// This one.
    Chunk(u32),
    /// None: each was sent to the node on another session within [`ON_ITS_WAY`]. It asks again.
    OnTheirWay,
    /// None is held.
    Nothing,
}

/// How a chunk was sent. Nodes whose hashes begin alike, and sessions 256 apart, are taken for one: then another
/// chunk comes first, or none for a moment.
#[derive(Debug, Clone, Copy, Default)]
struct SentChunk {
    times: u8,
    last: Sending,
}

/// The last time that a chunk was sent. The default is of no node.
#[derive(Debug, Clone, Copy, Default)]
struct Sending {
    node: u16,
    session: u8,
    /// In tenths of a second.
    at: u8,
}

impl Sent {
    /// Chunk `index` of `file`, which has `count` chunks, is being sent.
    pub fn count(&mut self, file: &FileId, count: u32, index: u32, to: &SentTo) {
        let sending = self.sending(to);
        self.with(file, count, |sent| note(sent, index, sending));
    }

    /// Of `candidates` the chunk that was sent least, and not to this node last; among equals `random`
    /// decides. It counts as sent.
    pub fn choose(
        &mut self,
        file: &FileId,
        count: u32,
        candidates: impl Iterator<Item = u32> + Clone,
        to: &SentTo,
        random: u64,
    ) -> AnyOfChoice {
        let now = self.sending(to);
        self.with(file, count, |sent| {
            if candidates.clone().any(|i| sent.get(i as usize).is_some_and(|chunk| chunk.times == u8::MAX)) {
                // A full count would no longer tell what was sent just now.
                sent.iter_mut().for_each(|chunk| chunk.times /= 2);
            }
            let of = |i: &u32| sent.get(*i as usize).copied().unwrap_or_default();
            let rank = |i: &u32| (of(i).last.is_on_its_way(&now), of(i).last.node == now.node, of(i).times);
            let Some(least) = candidates.clone().map(|i| rank(&i)).min() else { return AnyOfChoice::Nothing };
            if least.0 {
                return AnyOfChoice::OnTheirWay;
            }
            let equals = candidates.filter(|i| rank(i) == least);
            let pick = (random % equals.clone().count() as u64) as usize;
            let Some(chosen) = equals.clone().nth(pick) else { return AnyOfChoice::Nothing };
            note(sent, chosen, now);
            AnyOfChoice::Chunk(chosen)
        })
    }

    fn sending(&mut self, to: &SentTo) -> Sending {
        let since = to.at.saturating_duration_since(*self.began.get_or_insert(to.at));
        let node = (BuildHasherDefault::<DefaultHasher>::default().hash_one(to.node) as u16).max(1);
        Sending { node, session: to.session as u8, at: (since.as_millis() / STEP.as_millis()) as u8 }
    }

    fn with<R>(&mut self, file: &FileId, count: u32, act: impl FnOnce(&mut [SentChunk]) -> R) -> R {
        let files = &mut self.files;
        let used = match files.iter().position(|(id, _)| id == file) {
            Some(0) => None,
            Some(at) => files.remove(at),
            None => Some((*file, vec![SentChunk::default(); count as usize])),
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

impl Sending {
    /// Whether it goes to the node of `now` on another session, and may not be there yet.
    fn is_on_its_way(self, now: &Sending) -> bool {
        let steps = (ON_ITS_WAY.as_millis() / STEP.as_millis()) as u8;
        self.node == now.node && self.session != now.session && now.at.wrapping_sub(self.at) < steps
    }
}

fn note(sent: &mut [SentChunk], index: u32, last: Sending) {
    if let Some(chunk) = sent.get_mut(index as usize) {
        *chunk = SentChunk { times: chunk.times.saturating_add(1), last };
    }
}

/// The unit of the times of [`Sending`].
const STEP: Duration = Duration::from_millis(100);

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
    use std::sync::LazyLock;

    use super::*;
    use crate::content::{Digest, Root};
    use crate::identity::{NodeId, PeerId};

    fn file(byte: u8) -> FileId {
        FileId { root: Root(Digest([byte; 32])), len: 10 << 20 }
    }

    fn to(instance: u64) -> SentTo {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        SentTo { node: NodeId::new(PeerId([3; 32]), instance), session: 0, at: *BEGAN }
    }

    #[test]
    fn every_chunk_is_chosen_once_before_any_twice() {
        let mut sent = Sent::default();
        sent.count(&file(1), 40, 7, &to(1));
        let mut choose = |_| match sent.choose(&file(1), 40, 0..40, &to(2), 12_345) {
            AnyOfChoice::Chunk(index) => index,
            other => panic!("{other:?}"),
        };
        let mut chosen: Vec<_> = (0..39).map(&mut choose).collect();
        assert!(!chosen.contains(&7));
        chosen.sort_unstable();
        chosen.dedup();
        assert_eq!(chosen.len(), 39);
        assert_eq!(sent.choose(&file(1), 40, std::iter::empty(), &to(2), 0), AnyOfChoice::Nothing);
    }

    #[test]
    fn a_chunk_that_was_sent_very_often_still_has_its_turn() {
        let mut sent = Sent::default();
        (0..2000).for_each(|_| sent.count(&file(1), 4, 2, &to(1)));
        let chosen: Vec<_> = (0..1200).map(|i| sent.choose(&file(1), 4, 0..4, &to(i % 8), 5)).collect();
        let times = |chunk| chosen.iter().filter(|c| **c == AnyOfChoice::Chunk(chunk)).count();
        assert!((0..4).all(|chunk| times(chunk) > 200), "{:?}", [0, 1, 2, 3].map(times));
        let mut turns = chosen[1000..].chunks(4);
        assert!(turns.all(|turn| (0..4).all(|chunk| turn.contains(&AnyOfChoice::Chunk(chunk)))), "each in turn");
    }

    /// Cause: the chunks that a request lists came on another session of the node before its turn, which no session
    /// knew of another. Effect: the last requests of the slower of two sessions brought chunks again, 0.25 to 1.5 MiB
    /// of a GiB. Mend: the holder knows what it has just sent to the node.
    #[test]
    fn what_is_on_its_way_to_a_node_is_not_sent_on_another_session() {
        let (mut sent, [first, second]) = (Sent::default(), [0, 1].map(|session| SentTo { session, ..to(1) }));
        sent.count(&file(1), 40, 5, &first);
        sent.count(&file(1), 40, 6, &to(2));
        let mut choose = |chunks: &[u32], to: &SentTo| sent.choose(&file(1), 40, chunks.iter().copied(), to, 0);
        assert_eq!(choose(&[5, 6], &second), AnyOfChoice::Chunk(6), "it was sent to another node");
        assert_eq!(choose(&[5], &second), AnyOfChoice::OnTheirWay);
        assert_eq!(
            choose(&[5, 6], &first),
            AnyOfChoice::Chunk(5),
            "on its own session it is lost, or it would not ask"
        );
        // It may be lost with the session that it was sent on.
        let later = |after| SentTo { at: second.at + after, ..second };
        assert_eq!(choose(&[5], &later(ON_ITS_WAY - STEP)), AnyOfChoice::OnTheirWay);
        assert_eq!(choose(&[5], &later(ON_ITS_WAY)), AnyOfChoice::Chunk(5));
        assert_eq!(choose(&[5], &SentTo { session: 9, ..to(3) }), AnyOfChoice::Chunk(5), "another node");
    }

    #[test]
    fn only_so_many_files_are_remembered() {
        let (mut sent, mut fetchers) = (Sent::default(), Fetchers::default());
        for i in 0..=255 {
            sent.count(&file(i), 40, 0, &to(i.into()));
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
