//! What the threads of contacts do: dial peers, and look up names.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender};

use crate::discovery::DiscoveryContext;
use crate::discovery::exchange::contact;
use crate::discovery::limits::{ADDRS_PER_NAME_MAX, CONTACT_TIMEOUT};
use crate::discovery::offers::{OfferEnd, offer};
use crate::identity::{NodeId, PeerId};
use crate::limits::ADDRS_PER_PEER_MAX;
use crate::net::{PeerAddr, leads_over};
use crate::peers::limits::DIAL_QUICK;
use crate::swarm::ContactSource;

/// A name to look up, and the number of the peer that has it.
pub(super) type NameQuery = (u64, PeerAddr);

/// A peer to contact, at the first of the addresses where it answers.
pub(super) struct ContactJob {
    pub(super) whom: Whom,
    pub(super) addrs: Vec<SocketAddr>,
}

/// Which peer is contacted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whom {
    /// The named peer of this number, whichever key answers.
    Named(u64, ContactSource),
    /// A remembered key.
    Remembered(PeerId),
    /// A node of the table.
    Known(NodeId),
    /// A node of the table, which is offered a session to ask on.
    Offered(NodeId),
}

/// What other threads report to `gpb-static`.
pub(super) enum ContactReport {
    /// The addresses of a name.
    Resolved(u64, io::Result<Vec<SocketAddr>>),
    /// How a contact ended: of a named peer at one address, of others at all of theirs.
    Contacted(Whom, Result<PeerId, String>),
    /// How an offer to this node ended.
    Offered(NodeId, OfferEnd),
    /// The user named this peer.
    Named(PeerAddr),
    /// The peer file names these peers now.
    File(Vec<PeerAddr>),
    /// The shutdown began.
    Wake,
}

/// Contacts peers until the queue ends; the body of a thread.
pub(super) fn work(shared: &DiscoveryContext, queue: &Receiver<ContactJob>, report: &Sender<ContactReport>) {
    for job in queue {
        if shared.shutdown.has_begun() {
            return;
        }
        if let Whom::Offered(node) = job.whom {
            let end = offer(shared, node, &job.addrs);
            let _ = report.send(ContactReport::Offered(node, end));
            continue;
        }
        let result = reach(shared, &job);
        if let (Err(e), Whom::Known(_) | Whom::Remembered(_)) = (&result, job.whom) {
            log::debug!("known peer cannot be contacted error={e:?}");
        }
        if !matches!(job.whom, Whom::Known(_)) {
            let _ = report.send(ContactReport::Contacted(job.whom, result));
        }
    }
}

/// Contacts one peer. With more than one address, each gets a short time first, so that one that
/// leads nowhere does not hold up the others.
fn reach(shared: &DiscoveryContext, job: &ContactJob) -> Result<PeerId, String> {
    let (expect, source) = match job.whom {
        Whom::Named(_, source) => (None, Some(source)),
        Whom::Remembered(peer) => (Some(peer), Some(ContactSource::Memory)),
        Whom::Known(node) | Whom::Offered(node) => (Some(node.peer), None),
    };
    let mut addrs = job.addrs.clone();
    addrs.truncate(ADDRS_PER_PEER_MAX);
    if matches!(job.whom, Whom::Remembered(_)) {
        // Nobody named them for this run, and those elsewhere are not meant where interfaces were chosen.
        addrs.retain(|addr| leads_over(&shared.interfaces, *addr));
    }
    let quick = (addrs.len() > 1).then_some(DIAL_QUICK);
    let mut last = "no address".to_string();
    for time in quick.into_iter().chain([CONTACT_TIMEOUT]) {
        for &addr in &addrs {
            match contact(shared, addr, expect, source, time) {
                Ok(peer) => return Ok(peer),
                Err(e) => last = e.to_string(),
            }
            if shared.shutdown.has_begun() {
                return Err(last);
            }
            if let Whom::Known(node) = job.whom {
                shared.directory().failed(node, addr, Instant::now());
            }
        }
    }
    Err(last)
}

/// Looks up names until the queue ends; the body of a thread that may outlive the node.
pub(super) fn resolve(queue: &Receiver<NameQuery>, report: &Sender<ContactReport>) {
    for (id, peer) in queue {
        let found = (peer.host(), peer.port()).to_socket_addrs().map(distinct).map_err(|e| of_zone(peer.host(), e));
        if report.send(ContactReport::Resolved(id, found)).is_err() {
            return;
        }
    }
}

/// The error for an address with an interface: it is no name that a server of names could know.
fn of_zone(host: &str, e: io::Error) -> io::Error {
    match host.split_once('%') {
        Some((_, interface)) => io::Error::new(e.kind(), format!("no interface {interface} for this address")),
        None => e,
    }
}

/// The first addresses, each once.
fn distinct(addrs: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for addr in addrs {
        if !all.contains(&addr) {
            all.push(addr);
        }
        if all.len() == ADDRS_PER_NAME_MAX {
            break;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An interface that is not there was reported as "Name or service not known".
    #[test]
    fn an_address_whose_interface_is_not_there_names_it() {
        let unknown = || io::Error::other("Name or service not known");
        assert_eq!(of_zone("fe80::1%nope", unknown()).to_string(), "no interface nope for this address");
        assert_eq!(of_zone("lab3", unknown()).to_string(), unknown().to_string());
    }
}
