//! One look at what a node does.

use std::sync::Arc;

use crate::client::Progress;
use crate::content::{FileId, RelPath};
use crate::discovery::{DhtStats, DiscoveryStats};
use crate::identity::PeerId;
use crate::node::fetch_state::FetchState;
use crate::node::open_files::OpenContent;
use crate::node::{MirrorStats, Node};
use crate::peers::{TrafficStats, TurnedStats};
use crate::swarm::{PeerCounts, PeerTable};

/// What a [`Node`] knows, has and does, as of one call of [`Node::stats`]. Counters begin with the node.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("a.bin", &[7; 300_000])])?;
/// # let node = lan.node()?;
/// node.fetch("a.bin")?.wait()?;
/// let stats = node.stats();
/// assert_eq!((stats.peers.serving, stats.traffic.bytes_received), (1, 300_000));
/// assert_eq!(stats.traffic.received_from, [(server.id(), 300_000)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct NodeStats {
    /// The peers that are there, and how they were found.
    pub peers: PeerCounts,
    /// What was sent and received, in all and by peer.
    pub traffic: TrafficStats,
    /// What is offered.
    pub share: ShareStats,
    /// The copies of the files of others; all 0 without [`Config::mirror`](crate::Config::mirror) and
    /// expiry.
    pub mirror: MirrorStats,
    /// The fetches that run, the oldest first.
    pub fetches: Vec<FetchStats>,
    /// The files that are open for readers, by name.
    pub open: Vec<OpenStats>,
    /// How fetches failed, by kind: `"request"`, `"ambiguous"`, `"lies"`, `"storage"`, `"refused"`,
    /// `"not found"`, `"no peer"`, `"silent"`, `"system"`, `"ended"`. Kinds that did not come are left
    /// out; later versions may add some.
    pub failures: Vec<(&'static str, u64)>,
    /// The sessions by which nodes behind a NAT or a firewall give.
    pub turned: TurnedStats,
    /// Announces that were sent, received and dropped.
    pub announces: DiscoveryStats,
    /// What came of the DHT; all 0 without [`Config::dht`](crate::Config::dht).
    pub dht: DhtStats,
    /// Most bytes a second that are sent now; none is no limit.
    pub upload_limit: Option<u64>,
    /// Most bytes a second that are fetched now; none is no limit.
    pub download_limit: Option<u64>,
}

/// What a [`Node`] offers; part of [`NodeStats`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ShareStats {
    /// Revision of the catalogue; 0 while nothing is offered.
    pub revision: u64,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were hashed since the start.
    pub hashed_bytes: u64,
    /// Files that are known and wait to be hashed, or are being hashed.
    pub hashing_left: u64,
    /// Files that are left out because their names cannot be shared: not UTF-8, or too long. A
    /// directory with such a name counts once.
    pub unnamed: u64,
}

/// A running fetch; part of [`NodeStats`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct FetchStats {
    /// What was asked for.
    pub what: String,
    /// How far it is.
    pub progress: Progress,
    /// Verified bytes from each key, most first.
    pub peers: Vec<(PeerId, u64)>,
}

/// A file that is open for readers; part of [`NodeStats`]. A fetch of it that runs besides counts what
/// it brings itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct OpenStats {
    /// The name that it was opened by first.
    pub path: RelPath,
    /// What it is.
    pub id: FileId,
    /// Readers of it; 0 for a moment after the last one.
    pub readers: usize,
    /// Verified bytes from each key that were fetched for readers, most first.
    pub peers: Vec<(PeerId, u64)>,
}

impl Node {
    /// One look at what the node knows, has and does. Costs far less than a millisecond, and does not
    /// block.
    pub fn stats(&self) -> NodeStats {
        let catalogue = self.catalogue();
        let sharers = &self.services.sharers;
        let fetch = |fetch: &Arc<FetchState>| FetchStats {
            what: fetch.what.clone(),
            progress: fetch.progress(),
            peers: fetch.stats.by_key(),
        };
        let open = |content: &Arc<OpenContent>| OpenStats {
            path: content.found.path.clone(),
            id: content.found.id,
            readers: content.reading.readers(),
            peers: content.stats.by_key(),
        };
        let mut open: Vec<_> = self.fetches.open_files.contents().iter().map(open).collect();
        open.sort_unstable_by(|a, b| (&a.path, a.id).cmp(&(&b.path, b.id)));
        NodeStats {
            peers: self.peers.read(PeerTable::counts),
            traffic: self.peers.traffic().stats(),
            share: ShareStats {
                revision: catalogue.revision(),
                files: catalogue.len() as u64,
                bytes: catalogue.bytes(),
                hashed_bytes: sharers.hashed_bytes(),
                hashing_left: sharers.hashing_left(),
                unnamed: catalogue.notes().unnamed,
            },
            mirror: self.services.mirror.as_ref().map_or_else(MirrorStats::default, |mirror| mirror.stats()),
            fetches: self.fetches.running.states().iter().map(fetch).collect(),
            open,
            failures: self.client.failures.all(),
            turned: self.peers.turned().stats(),
            announces: self.discovery_stats(),
            dht: self.services.discovery.dht(),
            upload_limit: self.services.upload.limit(),
            download_limit: self.client.ctx.throttle.limit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::content::{Catalogue, Entry, Marks, Root, Stamp};
    use crate::identity::{Keypair, NodeId};
    use crate::node::{Share, State};
    use crate::peers::fake::said;

    #[test]
    fn a_look_at_a_large_group_and_a_large_catalogue_is_cheap() {
        let node = Node::builder().share(Share::Nothing).multicast(false).state(State::Memory).start().unwrap();
        let (key, now) = (Keypair::generate(), std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64);
        for n in 0..1000_u64 {
            let key = if n % 8 == 0 { Keypair::generate() } else { key.clone() };
            let at = NodeId::new(key.peer_id(), n);
            let addr = ([10, 1, (n / 250) as u8, (n % 250) as u8], 4000).into();
            let _ = node.peers.welcome(at, said(&key, n, now).as_bytes(), addr, Instant::now());
            node.peers.traffic().sent(key.peer_id(), n);
        }
        let entry = |n: usize| {
            let (path, id) = (RelPath::new(&format!("d/{n:06}")).unwrap(), FileId { root: Root::EMPTY, len: 0 });
            Entry { path, id, stamp: Stamp::default(), marks: Marks::default() }
        };
        node.catalogue.publish(Catalogue::new(7, (0..100_000).map(entry).collect()));
        let took = |_| {
            let began = Instant::now();
            let stats = node.stats();
            (began.elapsed(), stats)
        };
        let looks: Vec<_> = (0..50).map(took).collect();
        let (fastest, stats) = looks.into_iter().min_by_key(|look| look.0).unwrap();
        println!("one look took {fastest:?}");
        assert!(fastest < Duration::from_millis(10), "{fastest:?}");
        assert!(stats.peers.known > 100 && stats.peers.by_contact == stats.peers.known, "{:?}", stats.peers);
        assert_eq!((stats.share.revision, stats.share.files), (7, 100_000));
        assert_eq!(stats.traffic.bytes_sent, 999 * 1000 / 2);
    }
}
