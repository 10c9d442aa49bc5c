//! How many nodes of which kind there are.

use super::PeerTable;
use crate::swarm::membership::received::{ContactSource, Via};

/// The peers that a node knows, and how it came to know them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PeerCounts {
    /// Nodes that are there, without this one.
    pub known: usize,
    /// Nodes of them that serve something.
    pub serving: usize,
    /// Nodes of them that offer files.
    pub offering: usize,
    /// Nodes of them that have proved themselves: in a session, or by announces over some time.
    pub proved: usize,
    /// Nodes that were found by multicast.
    pub by_multicast: usize,
    /// Nodes that another peer named (PEX).
    pub by_exchange: usize,
    /// Nodes that this one contacted: peers that the user named, or that DNS-SD or a DHT did.
    pub by_contact: usize,
    /// Nodes that this one contacted since they were proved in an earlier run.
    pub by_memory: usize,
    /// Nodes that this one contacted since the peer file names them.
    pub by_peer_file: usize,
    /// Nodes that contacted this one.
    pub by_session: usize,
    /// Open sessions with them, whichever side opened them.
    pub sessions: usize,
}

impl PeerTable {
    /// The numbers as of now.
    pub fn counts(&self) -> PeerCounts {
        let mut counts = PeerCounts { known: self.entries.len(), serving: self.serving, ..PeerCounts::default() };
        for entry in self.entries.values() {
            counts.offering += usize::from(entry.revision > 0);
            counts.proved += usize::from(entry.provenance.member_from.is_some());
            counts.sessions += entry.sessions.live as usize;
            *match entry.provenance.found {
                Via::Datagram => &mut counts.by_multicast,
                Via::Hint | Via::FarHint => &mut counts.by_exchange,
                Via::Session => match entry.provenance.contact {
                    Some(ContactSource::Memory) => &mut counts.by_memory,
                    Some(ContactSource::File) => &mut counts.by_peer_file,
                    Some(ContactSource::Named | ContactSource::Directory) | None => &mut counts.by_contact,
                },
                Via::Hello => &mut counts.by_session,
            } += 1;
        }
        counts
    }
}
