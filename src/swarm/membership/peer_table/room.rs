//! Who gives way when a key has too many instances, or the table is full.

use crate::identity::NodeId;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::{Heard, PeerTable, Via};
use crate::limits::{INSTANCES_PER_KEY_MAX, PEERS_MAX};
use crate::proto::Announce;
use crate::swarm::membership::admit::Dropped;
use crate::swarm::membership::limits::{ROOM_AT_ONCE, ROOM_RETRY};

impl PeerTable {
    /// Whether another instance of `key`'s peer must give way to the newcomer, and whether there is place for it.
    ///
    /// With eight instances alive, the one without a session whose announce is oldest ends, those that TLS never
    /// proved first. So whoever starts a program again and again is always found, replays of earlier starts end
    /// nobody who is there now, and whoever holds the key can neither squat the eight places nor end an instance
    /// that this node works with.
    pub(super) fn give_way(
        &mut self,
        a: &Announce,
        addr: SocketAddr,
        via: Via,
        unix_ms: u64,
        heard: &mut Heard,
    ) -> Result<(), Dropped> {
        if via != Via::Hint && a.port != 0 {
            // An older announce, which could be a replay of an earlier start, ends nobody.
            let older = self
                .instances(a.peer)
                .find(|(_, e)| e.port == a.port && e.seq < a.seq && e.sessions == 0 && e.addrs.holds_own(addr));
            if let Some(key) = older.map(|(key, _)| *key) {
                self.remove(key, heard);
            }
        }
        if self.instances(a.peer).count() >= INSTANCES_PER_KEY_MAX {
            let idle = self.instances(a.peer).filter(|(_, e)| e.sessions == 0);
            let oldest = idle.min_by_key(|(_, e)| (e.addrs.any_proved(), e.said_unix_ms));
            let older = oldest.filter(|(_, e)| e.said_unix_ms <= a.seq.min(unix_ms)).map(|(key, _)| *key);
            self.remove(older.ok_or(Dropped::Crowded)?, heard);
        }
        Ok(())
    }

    /// Sees to it that there is place for one more, whose announce came from `origin`.
    pub(super) fn make_room(
        &mut self,
        origin: IpAddr,
        via: Via,
        now: Instant,
        heard: &mut Heard,
    ) -> Result<(), Dropped> {
        if self.entries.len() < PEERS_MAX {
            return Ok(());
        }
        // The newcomer may take the place of those who stand behind more of their own origin than it does.
        let rank = if via == Via::Hint { usize::MAX } else { self.origins.get(&origin).copied().unwrap_or(0) };
        if self.full_until.is_some_and(|(until, in_vain)| now < until && rank >= in_vain) {
            return Err(Dropped::Full);
        }
        let mut crowds: HashMap<IpAddr, Vec<(Reverse<Instant>, NodeId)>> = HashMap::new();
        let mut leave: Vec<(usize, Reverse<Instant>, NodeId)> = Vec::new();
        for (key, e) in self.entries.iter().filter(|(_, e)| e.sessions == 0 && !e.addrs.any_proved()) {
            if e.first_hand == 0 {
                leave.push((usize::MAX, Reverse(e.heard), *key));
            } else if via != Via::Hint {
                crowds.entry(e.origin).or_default().push((Reverse(e.heard), *key));
            }
        }
        for crowd in crowds.values_mut() {
            crowd.sort_unstable();
            leave.extend(
                crowd.iter().enumerate().skip(rank.saturating_add(1)).map(|(rank, &(heard, key))| (rank, heard, key)),
            );
        }
        leave.sort_unstable_by(|a, b| b.cmp(a));
        if via == Via::Hint {
            // Hints are many and cheap: each takes the place of one other.
            leave.truncate(1);
        }
        leave.truncate(ROOM_AT_ONCE);
        if leave.is_empty() {
            self.full_until = Some((now + ROOM_RETRY, rank));
            return Err(Dropped::Full);
        }
        for (_, _, key) in leave {
            self.remove(key, heard);
        }
        Ok(())
    }
}
