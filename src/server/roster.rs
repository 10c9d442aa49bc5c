//! The peers that askers bring along and are told of.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::identity::PeerId;
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
    fn leave(&self, peer: (PeerId, u64));

    /// Whom to tell `asker` (key and instance) at `to` of; only those `among`, if given.
    fn hints(&self, asker: (PeerId, u64), to: SocketAddr, among: Option<&[(PeerId, u64)]>) -> Vec<PeerHint>;
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
        let (node, now) = ((peer, hello.instance), Instant::now());
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

    fn leave(&self, (peer, instance): (PeerId, u64)) {
        let events = self.peers.touch(|table| table.session_closed(peer, instance, Instant::now()));
        if !events.is_empty() {
            self.peers.wake();
            self.events.emit_all(events);
        }
    }

    fn hints(&self, asker: (PeerId, u64), to: SocketAddr, among: Option<&[(PeerId, u64)]>) -> Vec<PeerHint> {
        let Some(some) = among else {
            return self.peers.touch(|table| table.hints(to.ip(), PEERS_PER_ANSWER_MAX));
        };
        let others = some.iter().filter(|node| **node != asker).take(PEERS_PER_ANSWER_MAX);
        let records: Vec<_> = self.peers.read(|table| others.filter_map(|(p, i)| table.peer(*p, *i)).collect());
        records
            .into_iter()
            .map(|r| PeerHint {
                announce: r.announce.as_bytes().to_vec(),
                addrs: r.addrs.into_iter().filter(|a| is_for(a.ip(), to.ip())).collect(),
            })
            .filter(|hint| !hint.addrs.is_empty())
            .collect()
    }
}

/// Keeps a peer known while it has a session.
pub(crate) struct Presence {
    roster: Arc<dyn Roster>,
    peer: (PeerId, u64),
}

impl Presence {
    /// Takes in `hello`; `None` if it brings nobody to be known.
    pub(crate) fn admit(roster: &Arc<dyn Roster>, peer: PeerId, hello: &Hello, from: SocketAddr) -> Option<Self> {
        roster.admit(peer, hello, from).then(|| Presence { roster: roster.clone(), peer: (peer, hello.instance) })
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

/// Whether `addr` means the same host to the one at `to` as it does here.
fn is_for(addr: IpAddr, to: IpAddr) -> bool {
    let link_local = match addr.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let here = addr.to_canonical().is_loopback() || link_local;
    !addr.is_unspecified() && (!here || to.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_mean_another_host_elsewhere_stay_here() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        for local in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.1.1", "fe80::1"] {
            assert!(!is_for(ip(local), ip("10.0.0.2")) && is_for(ip(local), ip("::ffff:127.0.0.1")), "{local}");
        }
        assert!(is_for(ip("10.0.0.1"), ip("10.0.0.2")) && !is_for(ip("0.0.0.0"), ip("127.0.0.1")));
    }
}
