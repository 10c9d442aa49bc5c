//! Contacts for peer exchange: with the peers that the user named, and with some of the known ones.
//!
//! Without multicast, known peers are contacted at every interval, so that announces reach the
//! whole group. With multicast, they are contacted only in a group that is too large for every node
//! to answer a query.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use rand::seq::IndexedRandom;

use crate::discovery::DiscoveryContext;
use crate::discovery::exchange::contact;
use crate::discovery::limits::{
    CONTACT_RETRY_FIRST, CONTACTS_AT_ONCE, EXCHANGE_AFTER, EXCHANGE_FIRST, EXCHANGE_FROM_NODES,
};
use crate::identity::{NodeId, PeerId};
use crate::limits::{ADDRS_PER_PEER_MAX, ANNOUNCE_INTERVAL, STATIC_PEERS_MAX};
use crate::net::PeerAddr;
use crate::runtime::{Workers, no_thread};
use crate::swarm::PeerTable;
use crate::sync::lock;

/// The thread that decides which peers are contacted when.
pub(super) struct Contacts {
    shared: Arc<DiscoveryContext>,
    named: Vec<NamedPeer>,
    /// Whether there is no multicast. Then this thread also does the housekeeping.
    alone: bool,
    /// When known peers are contacted next, and their number.
    gossip_at: Instant,
    gossip_with: usize,
    jobs: Sender<ContactJob>,
    names: Sender<NameQuery>,
    /// What the resolver needs, until it is started for the first name.
    resolver: Option<(Receiver<NameQuery>, Sender<ContactReport>)>,
    reports: Receiver<ContactReport>,
}

/// A name to look up, and the number of the peer that has it.
type NameQuery = (usize, PeerAddr);

/// Adds peers to the named ones while the threads run.
pub(super) struct NamedPeers {
    known: Mutex<Vec<PeerAddr>>,
    report: Sender<ContactReport>,
}

/// A peer that the user named.
struct NamedPeer {
    peer: PeerAddr,
    /// When to contact it again; `None` while it is being contacted.
    next: Option<Instant>,
    retry: Duration,
    /// Whether the last contact failed, which is logged once.
    failed: bool,
    /// Whether it was neither reached nor given up, so that a search may wait for it.
    awaited: bool,
}

/// A peer to contact, at the first of the addresses where it answers.
struct ContactJob {
    named: Option<usize>,
    addrs: Vec<SocketAddr>,
    /// The node that must answer, if it is known.
    expect: Option<NodeId>,
}

/// What other threads report to this one.
enum ContactReport {
    /// The addresses of a name.
    Resolved(usize, io::Result<Vec<SocketAddr>>),
    /// How a contact ended.
    Contacted(usize, Result<PeerId, String>),
    /// The user named this peer.
    Named(PeerAddr),
    /// The shutdown began.
    Wake,
}

impl NamedPeer {
    fn new(peer: PeerAddr, now: Instant) -> Self {
        NamedPeer { peer, next: Some(now), retry: CONTACT_RETRY_FIRST, failed: false, awaited: true }
    }
}

impl NamedPeers {
    /// Has `peer` contacted at once, and at each interval from then on.
    ///
    /// # Errors
    /// The number of named peers, if that is all that there may be.
    pub(super) fn add(&self, peer: PeerAddr) -> Result<(), usize> {
        let mut known = lock(&self.known);
        let is_known = known.contains(&peer);
        if !is_known && known.len() >= STATIC_PEERS_MAX {
            return Err(known.len());
        }
        if is_known {
            // Full only of contacts that were asked for again and again.
            let _ = self.report.try_send(ContactReport::Named(peer));
        } else {
            known.push(peer.clone());
            let _ = self.report.send(ContactReport::Named(peer));
        }
        Ok(())
    }
}

impl Contacts {
    /// Starts the threads.
    pub(super) fn start(
        shared: &Arc<DiscoveryContext>,
        peers: Vec<PeerAddr>,
        alone: bool,
        workers: &mut Workers,
    ) -> io::Result<NamedPeers> {
        let now = Instant::now();
        let peers: Vec<_> = peers.into_iter().take(STATIC_PEERS_MAX).collect();
        let named: Vec<_> = peers.iter().map(|peer| NamedPeer::new(peer.clone(), now)).collect();
        shared.directory().expect(named.len());
        // Each named peer has at most one entry in each queue.
        let (jobs, job_queue) = bounded::<ContactJob>(STATIC_PEERS_MAX + CONTACTS_AT_ONCE);
        let (names, name_queue) = bounded(STATIC_PEERS_MAX);
        let (report, reports) = bounded(3 * STATIC_PEERS_MAX + 1);
        let threads = if alone { CONTACTS_AT_ONCE } else { named.len().clamp(EXCHANGE_FIRST, CONTACTS_AT_ONCE) };
        for n in 0..threads {
            let (shared, queue, report) = (shared.clone(), job_queue.clone(), report.clone());
            workers.spawn(&format!("gpb-contact-{n}"), move || work(&shared, &queue, &report))?;
        }
        let (wake, resolver) = (report.clone(), Some((name_queue, report.clone())));
        shared.shutdown.on_begin(move || drop(wake.try_send(ContactReport::Wake)));
        let gossip_at = if alone { now } else { now + EXCHANGE_AFTER };
        let gossip_with = if alone { CONTACTS_AT_ONCE } else { EXCHANGE_FIRST };
        let shared = shared.clone();
        let mut contacts = Contacts { shared, named, alone, gossip_at, gossip_with, jobs, names, resolver, reports };
        if contacts.named.iter().any(|n| n.peer.literal().is_none()) {
            contacts.start_resolver()?;
        }
        workers.spawn("gpb-static", move || contacts.run())?;
        Ok(NamedPeers { known: Mutex::new(peers), report })
    }

    /// The body of the thread; ends when the shutdown begins, and the others with it.
    fn run(mut self) {
        while !self.shared.shutdown.has_begun() {
            let now = Instant::now();
            if self.alone {
                self.shared.housekeep(now);
            }
            for index in 0..self.named.len() {
                if self.named[index].next.is_some_and(|at| at <= now) {
                    self.begin(index);
                }
            }
            if now >= self.gossip_at {
                self.gossip(now);
            }
            let named = self.named.iter().filter_map(|n| n.next);
            let soonest = named.chain([self.gossip_at, now + HOUSEKEEP]).min().unwrap_or(now);
            if let Ok(report) = self.reports.recv_deadline(soonest) {
                self.take(report, Instant::now());
            }
        }
    }

    fn start_resolver(&mut self) -> io::Result<()> {
        let Some((queue, report)) = self.resolver.clone() else { return Ok(()) };
        // Not joined: looking up a name has no bound. It ends with its queue.
        let thread = std::thread::Builder::new().name("gpb-resolve".into());
        thread.spawn(move || resolve(&queue, &report)).map_err(|e| no_thread("gpb-resolve", e))?;
        self.resolver = None;
        Ok(())
    }

    /// Contacts `peer` now, and from then on at each interval.
    fn name(&mut self, peer: PeerAddr, now: Instant) {
        if peer.literal().is_none()
            && let Err(e) = self.start_resolver()
        {
            log::warn!("names cannot be looked up host={peer} error=\"{e}\"");
        }
        if let Some(named) = self.named.iter_mut().find(|named| named.peer == peer) {
            // One that is being contacted has no time of its next contact.
            named.next = named.next.map(|_| now);
        } else if self.named.len() < STATIC_PEERS_MAX {
            self.shared.directory().expect(1);
            self.named.push(NamedPeer::new(peer, now));
        }
    }

    fn begin(&mut self, index: usize) {
        let named = &mut self.named[index];
        named.next = None;
        let begun = match named.peer.literal() {
            Some(addr) => {
                self.jobs.try_send(ContactJob { named: Some(index), addrs: vec![addr], expect: None }).is_ok()
            }
            None => self.names.try_send((index, named.peer.clone())).is_ok(),
        };
        if !begun {
            self.rest(index, false);
        }
    }

    fn take(&mut self, report: ContactReport, now: Instant) {
        let (index, result) = match report {
            ContactReport::Wake => return,
            ContactReport::Named(peer) => return self.name(peer, now),
            ContactReport::Resolved(index, Ok(addrs)) if !addrs.is_empty() => {
                if self.jobs.try_send(ContactJob { named: Some(index), addrs, expect: None }).is_err() {
                    self.rest(index, false);
                }
                return;
            }
            ContactReport::Resolved(index, Ok(_)) => (index, Err("the name has no address".to_string())),
            ContactReport::Resolved(index, Err(e)) => (index, Err(e.to_string())),
            ContactReport::Contacted(index, result) => (index, result),
        };
        let Some(named) = self.named.get_mut(index) else { return };
        match &result {
            Ok(peer) if named.failed => log::info!("named peer answers again host={} peer={peer}", named.peer),
            Ok(_) => {}
            Err(e) if !named.failed => log::warn!("named peer cannot be contacted host={} error={e:?}", named.peer),
            Err(e) => log::debug!("named peer cannot be contacted host={} error={e:?}", named.peer),
        }
        // A full link may lose one packet, so only the second failure counts.
        if named.awaited && (result.is_ok() || named.failed) {
            named.awaited = false;
            self.shared.directory().expected_came();
        }
        named.failed = result.is_err();
        self.rest(index, result.is_ok());
        log::trace!("named peer rests index={index} until={:?}", self.named[index].next.map(|at| at - now));
    }

    /// Sets when a named peer is contacted again: an interval after success, a back-off after
    /// failure.
    fn rest(&mut self, index: usize, succeeded: bool) {
        let named = &mut self.named[index];
        let wait = if succeeded { ANNOUNCE_INTERVAL } else { named.retry };
        named.retry = if succeeded { CONTACT_RETRY_FIRST } else { (2 * named.retry).min(ANNOUNCE_INTERVAL) };
        named.next = Some(Instant::now() + wait);
    }

    /// Contacts a few known peers, chosen at random: so announces spread through the group in a few
    /// intervals, as in any gossip. With multicast this happens only in a large group.
    fn gossip(&mut self, now: Instant) {
        if !self.alone && self.shared.directory().read(PeerTable::nodes) <= EXCHANGE_FROM_NODES {
            self.gossip_at = now + HOUSEKEEP;
            return;
        }
        self.gossip_at = now + ANNOUNCE_INTERVAL;
        let count = self.gossip_with;
        if !self.alone {
            self.gossip_with = 1;
        }
        let peers = self.shared.directory().read(|t| t.peers());
        for peer in peers.sample(&mut rand::rng(), count) {
            let job = ContactJob {
                named: None,
                addrs: peer.addrs.clone(),
                expect: Some(NodeId::new(peer.peer, peer.instance)),
            };
            if !job.addrs.is_empty() && self.jobs.try_send(job).is_err() {
                return;
            }
        }
    }
}

/// Contacts peers until the queue ends; the body of a thread.
fn work(shared: &DiscoveryContext, queue: &Receiver<ContactJob>, report: &Sender<ContactReport>) {
    for job in queue {
        if shared.shutdown.has_begun() {
            return;
        }
        let mut result = Err("no address".to_string());
        for addr in job.addrs.into_iter().take(ADDRS_PER_PEER_MAX) {
            result = contact(shared, addr, job.expect.map(|node| node.peer)).map_err(|e| e.to_string());
            if result.is_ok() || shared.shutdown.has_begun() {
                break;
            }
            if let Some(node) = job.expect {
                shared.directory().failed(node, addr, Instant::now());
            }
        }
        match job.named {
            Some(index) => drop(report.send(ContactReport::Contacted(index, result))),
            None => {
                if let Err(e) = result {
                    log::debug!("known peer cannot be contacted error={e:?}");
                }
            }
        }
    }
}

/// Looks up names until the queue ends; the body of a thread that may outlive the node.
fn resolve(queue: &Receiver<NameQuery>, report: &Sender<ContactReport>) {
    for (index, peer) in queue {
        let found = (peer.host(), peer.port()).to_socket_addrs().map(|a| a.take(ADDRS_PER_PEER_MAX).collect());
        if report.send(ContactReport::Resolved(index, found)).is_err() {
            return;
        }
    }
}

const HOUSEKEEP: Duration = Duration::from_secs(1);
