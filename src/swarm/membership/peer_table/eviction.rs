//! Eviction: which entry ends when a key has too many instances, or the table is full.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use super::PeerTable;
use crate::identity::NodeId;
use crate::limits::{INSTANCES_PER_KEY_MAX, PEERS_MAX};
use crate::swarm::membership::admit::Dropped;
use crate::swarm::membership::limits::{EVICTION_RETRY, EVICTIONS_AT_ONCE};
use crate::swarm::membership::received::{Received, TableChange, Via};

impl PeerTable {
    /// Ends an instance of the newcomer's key, if the newcomer replaces it or the key has too many.
    ///
    /// An older instance that served at the same address and port, without a session, is the same
    /// program before its restart. With [`INSTANCES_PER_KEY_MAX`] instances alive, the one without
    /// a session whose announce is oldest ends, unproved ones first. So a program
    /// that restarts again and again is always found, replays of earlier starts end no live
    /// instance, and the owner of a key can neither occupy all its places nor end an instance that
    /// this node works with.
    pub(super) fn evict_instance(&mut self, received: &Received<'_>, change: &mut TableChange) -> Result<(), Dropped> {
        let a = received.announce;
        if !received.via.is_hint() && a.port != 0 {
            // An older announce may be a replay of an earlier start, and ends none.
            let replaced = self.instances(a.peer).find(|(_, e)| {
                let is_older = e.port == a.port && e.dated.seq < a.seq;
                is_older && e.sessions.live == 0 && e.addrs.holds_own(received.addr)
            });
            if let Some(node) = replaced.map(|(node, _)| *node) {
                self.remove(node, change);
            }
        }
        if self.instances(a.peer).count() >= INSTANCES_PER_KEY_MAX {
            let idle = self.instances(a.peer).filter(|(_, e)| e.sessions.live == 0);
            let oldest = idle.min_by_key(|(_, e)| (e.addrs.any_proved(), e.dated.unix_ms));
            let older = oldest.filter(|(_, e)| e.dated.unix_ms <= received.dated_unix_ms()).map(|(node, _)| *node);
            self.remove(older.ok_or(Dropped::Crowded)?, change);
        }
        Ok(())
    }

    /// Makes sure that a full table has a place for one more node, whose announce came from
    /// `origin`.
    ///
    /// The table is levelled. Entries known by hints alone end first; then entries of the source
    /// addresses that have most, down to the number that `origin` has itself. Entries with a
    /// session or an address that TLS proved stay. So one host with many keys cannot push out the
    /// others. A search that finds none is not repeated for [`EVICTION_RETRY`], as it costs a look
    /// at every entry.
    pub(super) fn evict_for(
        &mut self,
        origin: IpAddr,
        via: Via,
        now: Instant,
        change: &mut TableChange,
    ) -> Result<(), Dropped> {
        if self.entries.len() < PEERS_MAX {
            return Ok(());
        }
        let rank = if via.is_hint() { usize::MAX } else { self.origins.of(origin) };
        if self.full_until.is_some_and(|(until, refused_rank)| now < until && rank >= refused_rank) {
            return Err(Dropped::Full);
        }
        let mut evicted = self.candidates(rank, via);
        evicted.sort_unstable_by(|a, b| b.cmp(a));
        // Hints are many and cheap: each takes the place of one other.
        evicted.truncate(if via.is_hint() { 1 } else { EVICTIONS_AT_ONCE });
        if evicted.is_empty() {
            self.full_until = Some((now + EVICTION_RETRY, rank));
            return Err(Dropped::Full);
        }
        for (_, _, node) in evicted {
            self.remove(node, change);
        }
        Ok(())
    }

    /// The entries that may end for a newcomer: the rank of each among the entries of its source
    /// address, and when its last announce came.
    fn candidates(&self, rank: usize, via: Via) -> Vec<(usize, Reverse<Instant>, NodeId)> {
        let mut by_origin: HashMap<IpAddr, Vec<(Reverse<Instant>, NodeId)>> = HashMap::new();
        let mut candidates = Vec::new();
        for (node, e) in self.entries.iter().filter(|(_, e)| e.sessions.live == 0 && !e.addrs.any_proved()) {
            if e.provenance.first_hand == 0 {
                candidates.push((usize::MAX, Reverse(e.last_seen), *node));
            } else if !via.is_hint() {
                by_origin.entry(e.provenance.origin).or_default().push((Reverse(e.last_seen), *node));
            }
        }
        for of_origin in by_origin.values_mut() {
            of_origin.sort_unstable();
            let ranked = of_origin.iter().enumerate().skip(rank.saturating_add(1));
            candidates.extend(ranked.map(|(rank, &(seen, node))| (rank, seen, node)));
        }
        candidates
    }
}
