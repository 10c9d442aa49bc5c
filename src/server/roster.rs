//! The peers that askers bring along and are told of.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::identity::PeerId;
use crate::limits::{ANNOUNCE_LEN_MAX, PEERS_PER_ANSWER_MAX};
use crate::proto::{Hello, PeerHint, SignedAnnounce};
use crate::runtime::keystore::Trust;
use crate::runtime::{Events, Watched};
use crate::swarm::{PeerTable, Via};

/// What the handler knows of other peers.
pub(crate) trait Roster: Send + Sync {
    /// `peer`, whose key TLS proved, came from `from` and said `hello`.
    fn admit(&self, peer: PeerId, hello: &Hello, from: SocketAddr);

    /// Whom to tell `asker` at `to` of; only those `among`, if given.
    fn hints(&self, asker: PeerId, to: SocketAddr, among: Option<&[PeerId]>) -> Vec<PeerHint>;
}

/// The node's table of peers.
pub(crate) struct Table {
    pub(crate) peers: Arc<Watched<PeerTable>>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) network: String,
    pub(crate) events: Events,
}

impl Roster for Table {
    fn admit(&self, peer: PeerId, hello: &Hello, from: SocketAddr) {
        if hello.announce.is_empty() || hello.announce.len() > ANNOUNCE_LEN_MAX {
            return;
        }
        let Ok((signed, announce)) = SignedAnnounce::parse(&hello.announce) else { return };
        let own = announce.peer == peer && announce.instance == hello.instance && announce.network == self.network;
        // It serves nothing with port 0, and then nobody has to know it.
        if !own || announce.port == 0 || signed.verify().is_err() {
            return;
        }
        // Its key is proved, but not that it listens at that port.
        let addr = SocketAddr::new(from.ip().to_canonical(), announce.port);
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let now = Instant::now();
        let heard = self.peers.update(|table| table.upsert(&signed, &announce, addr, Via::Hello, unix_ms, now));
        self.events.emit_all(heard.unwrap_or_default().events);
    }

    fn hints(&self, asker: PeerId, to: SocketAddr, among: Option<&[PeerId]>) -> Vec<PeerHint> {
        let records = self.peers.read(PeerTable::peers);
        let wanted = |peer: &PeerId| {
            *peer != asker && self.trust.allows(peer) && among.is_none_or(|some| some.contains(peer))
        };
        records
            .into_iter()
            .filter(|record| wanted(&record.peer))
            .filter_map(|record| {
                let addrs: Vec<_> = record.addrs.iter().copied().filter(|a| is_for(a.ip(), to.ip())).collect();
                let announce = record.announce.as_bytes().to_vec();
                (!addrs.is_empty()).then_some(PeerHint { announce, addrs })
            })
            .take(PEERS_PER_ANSWER_MAX)
            .collect()
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
