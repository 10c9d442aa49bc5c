//! The connections with which a download begins at a far peer.

use std::time::{Duration, Instant};

use crate::swarm::download::limits::{FAR, TOGETHER, TOGETHER_LEN_MIN};
use crate::swarm::download::mesh::{Dial, Mesh};
use crate::swarm::download::picker::PeerHandle;

impl Mesh {
    /// Further connections to the only peer there is, once, if it is [`FAR`] away and much is to come from it: what its
    /// connections bring in the rounds of their slow start is added up, as with browsers. One-chunk files do not count: the
    /// listing of many has opened the window of the first connection, and the others would bring their part last. Where
    /// other peers are, [`grow`](Self::grow) decides what each connection is worth.
    ///
    /// `left` is what the peer has of that in bytes, `None` until it is known to have something and that a dial reaches
    /// it; `round_trip` the way to it. The connections count as open until [`ended`](Self::ended).
    pub fn begin_together(
        &mut self,
        left: impl Fn(PeerHandle) -> Option<u64>,
        round_trip: impl Fn(PeerHandle) -> Duration,
        now: Instant,
    ) -> Vec<Dial> {
        let mut peers = self.peers.iter_mut();
        let (Some((&peer, known)), None) = (peers.next(), peers.next()) else { return Vec::new() };
        if known.connections != 1 || !known.scaler.begins() {
            return Vec::new();
        }
        let (Some(left), path) = (left(peer), round_trip(peer)) else { return Vec::new() };
        let is_worth = path >= FAR && left >= TOGETHER_LEN_MIN;
        known.scaler.begun(if is_worth { TOGETHER } else { 1 }, path, now);
        let further = if is_worth { TOGETHER - 1 } else { 0 };
        (0..further).filter_map(|_| self.open(peer, false, now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::download::mesh::ConnectionEnd;

    const FIRST: PeerHandle = PeerHandle(0);

    fn dialed(now: Instant) -> (Mesh, Dial) {
        let mut mesh = Mesh::new(7, now);
        mesh.meet(FIRST, 1, true, now);
        let dials = mesh.dial(|_| true, now);
        (mesh, dials[0])
    }

    #[test]
    fn a_lone_far_holder_of_much_is_asked_on_several_connections_once() {
        let now = Instant::now();
        let (mut mesh, first) = dialed(now);
        assert!(mesh.begin_together(|_| None, |_| FAR, now).is_empty(), "what it has is not known");
        let further = mesh.begin_together(|_| Some(TOGETHER_LEN_MIN), |_| FAR, now);
        assert_eq!(further.len(), TOGETHER - 1);
        assert!(further.iter().all(|dial| dial.peer == FIRST && !dial.locate));
        for dial in further.into_iter().chain([first]) {
            mesh.ended(dial, ConnectionEnd::Failed, (false, true), now, 0.0);
        }
        let later = now + Duration::from_secs(60);
        assert_eq!(mesh.dial(|_| true, later).len(), 1);
        assert!(mesh.begin_together(|_| Some(TOGETHER_LEN_MIN), |_| FAR, later).is_empty(), "it has begun");
    }

    #[test]
    fn near_holders_little_and_others_keep_one_connection() {
        let now = Instant::now();
        for (left, path) in [(TOGETHER_LEN_MIN - 1, FAR), (u64::MAX, FAR / 2)] {
            let (mut mesh, _) = dialed(now);
            assert!(mesh.begin_together(|_| Some(left), |_| path, now).is_empty());
        }
        let (mut mesh, _) = dialed(now);
        mesh.meet(PeerHandle(1), 1, false, now);
        assert!(mesh.begin_together(|_| Some(u64::MAX), |_| FAR, now).is_empty(), "it is not alone");
    }
}
