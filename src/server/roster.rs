//! The peers that askers bring along and are told of.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::identity::{NodeId, PeerId};
use crate::limits::PEERS_PER_ANSWER_MAX;
use crate::proto::{Hello, PeerHint};
use crate::runtime::{Events, Watched};
use crate::swarm::{Dropped, PeerTable, Via};

/// What the handler knows of other peers.
pub(crate) trait Roster: Send + Sync {
    /// `peer`, whose key TLS proved, came from `from` and said `hello`. True if it is known now, and stays so until
    /// [`leave`](Self::leave).
    fn admit(&self, peer: PeerId, hello: &Hello, from: SocketAddr) -> bool;

    /// A session of a peer (key and instance) for which `admit` was true is over.
    fn leave(&self, peer: NodeId);

    /// Whom to tell `asker` (key and instance) at `to` of; only those `among`, if given.
    fn hints(&self, asker: NodeId, to: SocketAddr, among: Option<&[NodeId]>) -> Vec<PeerHint>;
}

/// The node's table of peers.
pub(crate) struct Table {
    pub(crate) peers: Arc<Watched<PeerTable>>,
    pub(crate) network: String,
    pub(crate) events: Events,
}

impl Roster for Table {
    fn admit(&self, peer: PeerId, hello: &Hello, from: SocketAddr) -> bool {
        if hello.announce.is_empty() {
            return false;
        }
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let (node, now) = (NodeId::new(peer, hello.instance), Instant::now());
        // The signature is checked in there, at about 50 us; sessions come far less often than datagrams.
        let heard = self.peers.touch(|table| {
            let heard = table.admit(&hello.announce, &self.network, node, from, Via::Hello, unix_ms, now)?;
            table.session_opened(peer, hello.instance);
            Ok::<_, Dropped>(heard)
        });
        match heard {
            Ok(heard) => {
                if heard.news {
                    self.peers.wake();
                }
                self.events.emit_all(heard.events);
                true
            }
            Err(e) => {
                log::debug!("announce in Hello dropped peer={peer} addr={from} reason=\"{e}\"");
                false
            }
        }
    }

    fn leave(&self, NodeId { peer, instance }: NodeId) {
        let events = self.peers.touch(|table| table.session_closed(peer, instance, Instant::now()));
        if !events.is_empty() {
            self.peers.wake();
            self.events.emit_all(events);
        }
    }

    fn hints(&self, asker: NodeId, to: SocketAddr, among: Option<&[NodeId]>) -> Vec<PeerHint> {
        let Some(some) = among else {
            return self.peers.touch(|table| table.hints(to.ip(), PEERS_PER_ANSWER_MAX));
        };
        let others = some.iter().filter(|node| **node != asker).take(PEERS_PER_ANSWER_MAX);
        self.peers.read(|table| others.filter_map(|n| table.hint(n.peer, n.instance, to.ip())).collect())
    }
}

/// Keeps a peer known while it has a session.
pub(crate) struct Presence {
    roster: Arc<dyn Roster>,
    peer: NodeId,
}

impl Presence {
    /// Takes in `hello`; `None` if it brings nobody to be known.
    pub(crate) fn admit(roster: &Arc<dyn Roster>, peer: PeerId, hello: &Hello, from: SocketAddr) -> Option<Self> {
        roster
            .admit(peer, hello, from)
            .then(|| Presence { roster: roster.clone(), peer: NodeId::new(peer, hello.instance) })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.roster.leave(self.peer);
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("peer", &self.peer).finish_non_exhaustive()
    }
}
