//! The events that one subscriber has not read. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use crate::identity::NodeId;
use crate::runtime::limits::EVENTS_MAX;
use crate::swarm::{Event, KnownPeer};

/// Events in the order in which they came, bounded.
///
/// What becomes of peers and of the own catalogue is never dropped: of what is not read, the net
/// effect waits, one entry a peer and one for the catalogue. Of other events at most [`EVENTS_MAX`]
/// of files and as many of refusals and lies wait; where further ones are dropped, their number
/// stands in their place.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    /// What waits, by the number of its place.
    waiting: BTreeMap<u64, Waiting>,
    /// The number of the next place.
    next: u64,
    /// The peers that were reported to the subscriber, or are to be.
    peers: HashMap<NodeId, PeerNews>,
    /// The place of the last state of the catalogue, if it waits.
    catalogue: Option<u64>,
    /// The place of the number of dropped events, if that is the last of its kind to wait.
    missed: Option<u64>,
    files: usize,
    others: usize,
}

#[derive(Debug)]
enum Waiting {
    Peer(NodeId),
    File(Event),
    Other(Event),
    Missed(u64),
    /// The first event, and the catalogue.
    State(Event),
}

/// What is to be reported of a peer.
#[derive(Debug, Default)]
struct PeerNews {
    /// Whether it was last reported to be here.
    is_told: bool,
    /// Where it serves, if it is here now.
    here: Option<SocketAddr>,
    /// A revision that was not reported.
    revision: Option<u64>,
    place: Option<u64>,
}

impl EventQueue {
    /// A queue that begins with the peers that are there.
    pub(super) fn begin(known: Vec<KnownPeer>) -> Self {
        let mut queue = Self::default();
        let news =
            |peer: &KnownPeer| PeerNews { is_told: true, here: peer.addrs.first().copied(), ..PeerNews::default() };
        queue.peers = known.iter().map(|peer| (peer.node, news(peer))).collect();
        queue.push_entry(Waiting::State(Event::Known(known)));
        queue
    }

    pub(super) fn push(&mut self, event: Event) {
        match event {
            Event::PeerJoined { node, addr } => self.news(node, |news| news.here = Some(addr)),
            Event::PeerLeft { node } => self.news(node, |news| (news.here, news.revision) = (None, None)),
            Event::PeerChanged { node, revision } => self.news(node, |news| news.revision = Some(revision)),
            Event::CatalogueChanged { .. } => {
                if let Some(place) = self.catalogue.take() {
                    self.waiting.remove(&place);
                }
                self.catalogue = Some(self.push_entry(Waiting::State(event)));
            }
            Event::FileFetched { .. } | Event::FileWithdrawn { .. } | Event::CopyExpired { .. }
                if self.files < EVENTS_MAX =>
            {
                self.files += 1;
                self.push_kept(Waiting::File(event));
            }
            Event::Refused { .. } | Event::PeerLied { .. } if self.others < EVENTS_MAX => {
                self.others += 1;
                self.push_kept(Waiting::Other(event));
            }
            _ => self.miss(),
        }
    }

    /// The next event.
    pub(super) fn pop(&mut self) -> Option<Event> {
        while let Some((place, entry)) = self.waiting.pop_first() {
            match entry {
                Waiting::Peer(node) => {
                    if let Some(event) = self.tell(node, place) {
                        return Some(event);
                    }
                }
                Waiting::State(event) => {
                    self.catalogue.take_if(|at| *at == place);
                    return Some(event);
                }
                Waiting::File(event) => {
                    self.files -= 1;
                    return Some(event);
                }
                Waiting::Other(event) => {
                    self.others -= 1;
                    return Some(event);
                }
                Waiting::Missed(count) => {
                    self.missed.take_if(|at| *at == place);
                    return Some(Event::Missed(count));
                }
            }
        }
        None
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn push_entry(&mut self, entry: Waiting) -> u64 {
        let place = self.next;
        self.next += 1;
        self.waiting.insert(place, entry);
        place
    }

    fn push_kept(&mut self, entry: Waiting) {
        self.missed = None;
        self.push_entry(entry);
    }

    /// Counts an event that is dropped.
    fn miss(&mut self) {
        let place = match self.missed {
            Some(place) => place,
            None => self.push_entry(Waiting::Missed(0)),
        };
        self.missed = Some(place);
        if let Some(Waiting::Missed(count)) = self.waiting.get_mut(&place) {
            *count += 1;
        }
    }

    /// Notes what happened to a peer. One that came and went before it was reported is forgotten.
    fn news(&mut self, node: NodeId, note: impl FnOnce(&mut PeerNews)) {
        let news = self.peers.entry(node).or_default();
        note(news);
        if !news.is_told && news.here.is_none() {
            let place = self.peers.remove(&node).and_then(|news| news.place);
            place.map(|place| self.waiting.remove(&place));
        } else if news.place.is_none() {
            news.place = Some(self.next);
            self.push_entry(Waiting::Peer(node));
        }
    }

    /// The next event of a peer whose entry was at `place`; `None` if nothing is new in the end.
    fn tell(&mut self, node: NodeId, place: u64) -> Option<Event> {
        let news = self.peers.get_mut(&node)?;
        news.place = None;
        match (news.is_told, news.here) {
            (false, Some(addr)) => {
                news.is_told = true;
                if news.revision.is_some() {
                    news.place = Some(place);
                    self.waiting.insert(place, Waiting::Peer(node));
                }
                Some(Event::PeerJoined { node, addr })
            }
            (true, None) => {
                self.peers.remove(&node);
                Some(Event::PeerLeft { node })
            }
            (_, Some(_)) => news.revision.take().map(|revision| Event::PeerChanged { node, revision }),
            (false, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::content::{FileId, RelPath, Root};
    use crate::identity::PeerId;

    fn node(n: u64) -> NodeId {
        NodeId::new(PeerId([1; 32]), n)
    }

    fn addr() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 1))
    }

    fn joined(n: u64) -> Event {
        Event::PeerJoined { node: node(n), addr: addr() }
    }

    fn left(n: u64) -> Event {
        Event::PeerLeft { node: node(n) }
    }

    fn changed(n: u64, revision: u64) -> Event {
        Event::PeerChanged { node: node(n), revision }
    }

    fn fetched() -> Event {
        Event::FileFetched { path: RelPath::new("a").unwrap(), id: FileId { root: Root::EMPTY, len: 0 } }
    }

    fn all(queue: &mut EventQueue) -> Vec<Event> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn files_that_flood_push_out_no_peer() {
        let mut queue = EventQueue::begin(Vec::new());
        for n in 0..10_000 {
            queue.push(fetched());
            // Twenty peers come, and the odd ones go again.
            if n % 500 == 0 {
                queue.push(joined(n / 500));
            }
            if n % 1000 == 999 {
                queue.push(left(n / 500));
            }
        }
        let told = all(&mut queue);
        let peers: Vec<_> =
            told.iter().filter(|e| matches!(e, Event::PeerJoined { .. } | Event::PeerLeft { .. })).collect();
        assert_eq!(peers, (0..20).step_by(2).map(joined).collect::<Vec<_>>().iter().collect::<Vec<_>>());
        assert_eq!(told.iter().filter(|e| **e == fetched()).count(), EVENTS_MAX);
        assert!(told.contains(&Event::Missed(10_000 - EVENTS_MAX as u64)));
        assert_eq!((queue.files, queue.len()), (0, 0));
        queue.push(left(2));
        assert_eq!(all(&mut queue), [left(2)]);
    }

    #[test]
    fn what_is_missed_stands_where_it_was() {
        let mut queue = EventQueue::default();
        (0..EVENTS_MAX + 3).for_each(|_| queue.push(fetched()));
        assert_eq!(queue.pop(), Some(fetched()));
        queue.push(fetched());
        queue.push(fetched());
        let told = all(&mut queue);
        assert_eq!(told[EVENTS_MAX - 1], Event::Missed(3));
        assert_eq!(told[EVENTS_MAX..], [fetched(), Event::Missed(1)]);
    }

    #[test]
    fn a_refusal_has_room_beside_files() {
        let mut queue = EventQueue::default();
        (0..2 * EVENTS_MAX).for_each(|_| queue.push(fetched()));
        let refused = Event::Refused { peer: PeerId([2; 32]), addr: addr() };
        queue.push(refused.clone());
        assert!(all(&mut queue).contains(&refused));
    }

    #[test]
    fn a_peer_and_its_revision_are_told_in_order() {
        let mut queue = EventQueue::default();
        queue.push(joined(1));
        queue.push(changed(1, 2));
        queue.push(changed(1, 3));
        queue.push(joined(2));
        assert_eq!(all(&mut queue), [joined(1), changed(1, 3), joined(2)]);
        queue.push(left(1));
        queue.push(joined(1));
        assert_eq!(all(&mut queue), [], "in the end nothing is new");
        assert_eq!(queue.peers.len(), 2);
    }

    #[test]
    fn of_the_catalogue_the_last_state_waits() {
        let mut queue = EventQueue::default();
        let of = |revision| Event::CatalogueChanged { revision, files: 1, bytes: 1, complete: false };
        (0..100).for_each(|n| queue.push(of(n)));
        assert_eq!(all(&mut queue), [of(99)]);
    }

    proptest! {
        /// However events and reads mix, the reader ends with the peers that are there, never hears
        /// of one twice, and no more waits than there are peers.
        #[test]
        fn the_net_effect_is_told(steps in proptest::collection::vec((0..6_u64, 0..4_u8), 0..200)) {
            let known = |n: u64| KnownPeer { node: node(n), revision: 1, addrs: vec![addr()], last_seen: std::time::Instant::now() };
            let mut queue = EventQueue::begin(vec![known(0), known(1)]);
            let (mut here, mut told) = (HashSet::from([node(0), node(1)]), HashSet::new());
            let read = |queue: &mut EventQueue, told: &mut HashSet<NodeId>| {
                match queue.pop() {
                    Some(Event::Known(peers)) => told.extend(peers.iter().map(|p| p.node)),
                    Some(Event::PeerJoined { node, .. }) => assert!(told.insert(node)),
                    Some(Event::PeerLeft { node }) => assert!(told.remove(&node)),
                    Some(Event::PeerChanged { node, .. }) => assert!(told.contains(&node)),
                    Some(other) => panic!("{other:?}"),
                    None => return false,
                }
                true
            };
            for (n, what) in steps {
                match what {
                    0 if here.insert(node(n)) => queue.push(joined(n)),
                    1 if here.remove(&node(n)) => queue.push(left(n)),
                    2 if here.contains(&node(n)) => queue.push(changed(n, 5)),
                    _ => drop(read(&mut queue, &mut told)),
                }
                prop_assert!(queue.len() <= 7 && queue.peers.len() <= 6);
            }
            while read(&mut queue, &mut told) {}
            prop_assert_eq!(told, here);
        }
    }
}
