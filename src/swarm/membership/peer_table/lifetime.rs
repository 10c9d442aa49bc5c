//! How long nodes stay in the table without a sign of life.

use std::time::{Duration, Instant};

use super::PeerTable;
use super::entry::PeerEntry;
use crate::identity::NodeId;
use crate::limits::{TTL_INTERVALS, TTL_MAX};
use crate::swarm::Event;
use crate::swarm::membership::group_size::announce_interval;
use crate::swarm::membership::received::TableChange;

impl PeerTable {
    /// Ends nodes whose time to live is over. Costs nothing while none has expired.
    pub fn expire(&mut self, now: Instant) -> Vec<Event> {
        let mut change = TableChange::default();
        while let Some(&(deadline, node)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            match self.entries.get(&node) {
                Some(entry) if entry.sessions.live > 0 => self.alive(node, now),
                // The group may have grown since, and longer times are believed.
                Some(entry) if self.deadline(entry) > now => self.set_deadline(node),
                Some(_) => self.remove(node, &mut change),
                None => drop(self.deadlines.remove(&(deadline, node))),
            }
        }
        change.events
    }

    /// When the next node expires, unless it gives a sign of life before.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// `node` gave a sign of life.
    pub(super) fn alive(&mut self, node: NodeId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.alive_at = now;
            self.set_deadline(node);
        }
    }

    /// When `entry` expires, as far as its time to live is believed now.
    fn deadline(&self, entry: &PeerEntry) -> Instant {
        entry.alive_at + entry.ttl.min(self.longest_ttl())
    }

    fn set_deadline(&mut self, node: NodeId) {
        let Some(deadline) = self.entries.get(&node).map(|entry| self.deadline(entry)) else { return };
        if let Some(entry) = self.entries.get_mut(&node) {
            self.deadlines.remove(&(entry.deadline, node));
            entry.deadline = deadline;
            self.deadlines.insert((deadline, node));
        }
    }

    /// The longest time to live that is believed: that of the largest group that the source
    /// addresses known here can be.
    ///
    /// Nodes that announced themselves once count here. In a large group announces are minutes apart,
    /// and a newcomer that counted members alone would forget each node before its next announce.
    fn longest_ttl(&self) -> Duration {
        (announce_interval(self.origins.counted + 1) * TTL_INTERVALS).min(TTL_MAX)
    }
}
