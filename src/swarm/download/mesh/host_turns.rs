//! Peers of one host take turns with peers of others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::swarm::download::limits::OFFER_HONOURED_EVERY;
use crate::swarm::download::mesh::{Mesh, MeshPeer};
use crate::swarm::download::picker::PeerHandle;

/// Where a peer stands among the peers that could be dialed; the first ones are dialed.
pub(super) type DialPlace = (u32, u64);

/// The number of peers of each host that are connected, or come before.
///
/// A host can have any number of keys. Where chance alone decides, a thousand of them leave no
/// connection to a peer elsewhere; so each host has a first peer before any has a second one.
#[derive(Debug, Default)]
pub(super) struct HostTurns<'a> {
    counts: HashMap<&'a IpAddr, u32>,
}

impl<'a> HostTurns<'a> {
    /// The connected ones of `peers` count.
    pub(super) fn new<'p: 'a>(peers: impl Iterator<Item = &'p MeshPeer>) -> Self {
        let mut turns = HostTurns::default();
        for host in peers.filter(|p| p.connections > 0).filter_map(|p| p.host.as_ref()) {
            *turns.counts.entry(host).or_default() += 1;
        }
        turns
    }

    /// Puts `candidates`, in the order of chance, into the order of turns.
    pub(super) fn order(
        &mut self,
        candidates: &mut [(DialPlace, PeerHandle)],
        host: impl Fn(PeerHandle) -> Option<&'a IpAddr>,
    ) {
        candidates.sort_unstable();
        for ((turn, _), peer) in candidates.iter_mut() {
            let Some(host) = host(*peer) else { continue };
            let count = self.counts.entry(host).or_default();
            *turn = *count;
            *count += 1;
        }
        candidates.sort_unstable();
    }
}

impl Mesh {
    /// `peer` is at `host`, as far as is known: hosts take turns. Peers whose host is not known are
    /// each on a host of their own.
    pub fn set_host(&mut self, peer: PeerHandle, host: Option<IpAddr>) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.host = host;
        }
    }

    /// `peer` made this number of offers to answer on sessions of its own. After a further one it may be tried at once:
    /// that dials failed before means nothing then, but once in [`OFFER_HONOURED_EVERY`].
    pub fn set_offers(&mut self, peer: PeerHandle, offers: u32, now: Instant) {
        let Some(known) = self.peers.get_mut(&peer).filter(|known| known.offers.0 != offers) else { return };
        if known.connections == 0 {
            if known.offers.1.is_some_and(|at| now.saturating_duration_since(at) < OFFER_HONOURED_EVERY) {
                return;
            }
            known.offers.1 = Some(now);
            known.reputation.succeeded();
        }
        known.offers.0 = offers;
        known.scaler.may_add();
    }
}
