//! Which connections of a full set give way to peers that were not tried.

use std::time::Instant;

use crate::limits::DOWNLOAD_CONNECTIONS_MAX;
use crate::swarm::download::limits::{DROPPED_REST, MESH_ROTATE, ROTATE_MAX};
use crate::swarm::download::mesh::{Mesh, MeshPeer};
use crate::swarm::download::picker::PeerHandle;
use crate::swarm::random::next_random;

impl Mesh {
    /// The peers of a full set whose connections are dropped for other peers, every
    /// [`MESH_ROTATE`].
    ///
    /// These are the peer that gave least since the last rotation, since otherwise no peer would
    /// fetch from the ones that came when all sets were full, and up to [`ROTATE_MAX`] that gave
    /// less than a quarter of the mean. A peer that has more of the wanted chunks than the others
    /// is kept, however little it gives: a thousand peers may share the first holder. `read` is the
    /// number of bytes that came from a peer, `backlog` what it could still be asked for.
    pub fn rotate(
        &mut self,
        read: impl Fn(PeerHandle) -> u64,
        backlog: impl Fn(PeerHandle) -> u64,
        holds: impl Fn(PeerHandle) -> bool,
        now: Instant,
    ) -> Vec<PeerHandle> {
        if now.saturating_duration_since(self.rotated) < MESH_ROTATE {
            return Vec::new();
        }
        self.rotated = now;
        let is_next = |(&peer, p): (&PeerHandle, &MeshPeer)| {
            p.is_free(now) && !p.rests(now) && (holds(peer) || p.locate_is_due(now))
        };
        let is_full = self.connections >= DOWNLOAD_CONNECTIONS_MAX;
        let others = if is_full { self.peers.iter().filter(|p| is_next(*p)).take(ROTATE_MAX).count() } else { 0 };
        let (mut gains, mut sum, mut lacked) = (Vec::new(), 0, 0);
        for (&peer, known) in self.peers.iter_mut().filter(|(_, p)| p.connections > 0) {
            let came = read(peer);
            let gain = came - std::mem::replace(&mut known.read, came);
            let has = backlog(peer);
            (sum, lacked) = (sum + gain, lacked + has);
            // A peer that has just come had no time to give anything.
            if now.saturating_duration_since(known.since) >= MESH_ROTATE && !known.rests(now) {
                gains.push((gain, next_random(&mut self.random), peer, has));
            }
        }
        let all = self.connections as u64;
        gains.retain(|&(.., has)| has * all <= lacked);
        gains.sort_unstable();
        let poor = gains.iter().take_while(|(gain, ..)| gain * POOR < sum / all.max(1)).count();
        let dropped: Vec<PeerHandle> =
            gains.into_iter().take(poor.max(1).min(others)).map(|(_, _, peer, _)| peer).collect();
        for peer in &dropped {
            if let Some(known) = self.peers.get_mut(peer) {
                known.rests_until = Some(now + DROPPED_REST);
            }
        }
        dropped
    }
}

/// A peer that gives less than the mean divided by this gives little.
const POOR: u64 = 4;
