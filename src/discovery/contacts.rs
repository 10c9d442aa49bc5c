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
use crate::discovery::contact_list::{ContactList, ContactOutcome};
use crate::discovery::exchange::contact;
use crate::discovery::limits::{
    ADDRS_PER_NAME_MAX, CONTACTS_AT_ONCE, CONTACTS_QUEUED_MAX, EXCHANGE_AFTER, EXCHANGE_FIRST, EXCHANGE_FROM_NODES,
    OFFERED_CONTACT_INTERVAL, SOON_AGAIN_NODES,
};
use crate::discovery::offers::{OfferEnd, TurnOffers, offer};
use crate::identity::{NodeId, PeerId};
use crate::limits::{ADDRS_PER_PEER_MAX, ANNOUNCE_INTERVAL, STATIC_PEERS_MAX};
use crate::net::PeerAddr;
use crate::runtime::{Workers, no_thread};
use crate::swarm::PeerTable;
use crate::sync::lock;

/// The thread that decides which peers are contacted when.
pub(super) struct Contacts {
    shared: Arc<DiscoveryContext>,
    named: ContactList,
    /// Whether there is no multicast. Then this thread also does the housekeeping.
    alone: bool,
    /// When known peers are contacted next, and their number.
    gossip_at: Instant,
    gossip_with: usize,
    offers: TurnOffers,
    jobs: Sender<ContactJob>,
    names: Sender<NameQuery>,
    /// What the resolver needs, until it is started for the first name.
    resolver: Option<(Receiver<NameQuery>, Sender<ContactReport>)>,
    reports: Receiver<ContactReport>,
}

/// A name to look up, and the number of the peer that has it.
type NameQuery = (u64, PeerAddr);

/// Adds peers to the named ones while the threads run.
pub(super) struct NamedPeers {
    known: Mutex<Vec<PeerAddr>>,
    report: Sender<ContactReport>,
}

/// A peer to contact, at the first of the addresses where it answers.
struct ContactJob {
    /// The number of the named peer that it is.
    named: Option<u64>,
    addrs: Vec<SocketAddr>,
    /// The node that must answer, if it is known.
    expect: Option<NodeId>,
    /// It is offered a session to ask on.
    is_offer: bool,
}

/// What other threads report to this one.
enum ContactReport {
    /// The addresses of a name.
    Resolved(u64, io::Result<Vec<SocketAddr>>),
    /// How a contact at one address ended.
    Contacted(u64, Result<PeerId, String>),
    /// How an offer to this node ended.
    Offered(NodeId, OfferEnd),
    /// The user named this peer.
    Named(PeerAddr),
    /// The shutdown began.
    Wake,
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
        let mut named = ContactList::default();
        shared.directory().expect(peers.iter().filter(|peer| named.add((*peer).clone(), now)).count());
        let (jobs, job_queue) = bounded::<ContactJob>(CONTACTS_QUEUED_MAX);
        let (names, name_queue) = bounded(STATIC_PEERS_MAX);
        let (report, reports) = bounded(3 * STATIC_PEERS_MAX + 1);
        let names_hosts = peers.iter().any(|peer| peer.literal().is_none());
        let all = alone || names_hosts;
        let threads = if all { CONTACTS_AT_ONCE } else { peers.len().clamp(EXCHANGE_FIRST, CONTACTS_AT_ONCE) };
        for n in 0..threads {
            let (shared, queue, report) = (shared.clone(), job_queue.clone(), report.clone());
            workers.spawn(&format!("gpb-contact-{n}"), move || work(&shared, &queue, &report))?;
        }
        let (wake, resolver) = (report.clone(), Some((name_queue, report.clone())));
        shared.shutdown.on_begin(move || drop(wake.try_send(ContactReport::Wake)));
        let gossip_at = if alone { now } else { now + EXCHANGE_AFTER };
        let gossip_with = if alone { CONTACTS_AT_ONCE } else { EXCHANGE_FIRST };
        let shared = shared.clone();
        let offers = TurnOffers::new(now);
        let mut contacts =
            Contacts { shared, named, alone, gossip_at, gossip_with, offers, jobs, names, resolver, reports };
        if names_hosts {
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
            for (id, peer) in self.named.take_due(now) {
                self.begin(id, peer);
            }
            if now >= self.gossip_at {
                self.gossip(now);
            }
            self.offer(now);
            let soonest = self.named.next_due().into_iter().fold(self.gossip_at.min(now + HOUSEKEEP), Instant::min);
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
        if self.named.add(peer, now) {
            self.shared.directory().expect(1);
        }
    }

    fn begin(&mut self, id: u64, peer: PeerAddr) {
        match peer.literal() {
            Some(addr) => self.queue(id, vec![addr]),
            None if self.names.try_send((id, peer)).is_ok() => {}
            None => self.ended(id, Err("too many names wait to be looked up".into())),
        }
    }

    /// Has the named peer contacted at each of `addrs`, which may be as many hosts.
    fn queue(&mut self, id: u64, addrs: Vec<SocketAddr>) {
        self.named.begun(id, addrs.len());
        for addr in addrs {
            let job = ContactJob { named: Some(id), addrs: vec![addr], expect: None, is_offer: false };
            if self.jobs.try_send(job).is_err() {
                self.ended(id, Err("too many contacts wait".into()));
            }
        }
    }

    fn take(&mut self, report: ContactReport, now: Instant) {
        match report {
            ContactReport::Wake => {}
            ContactReport::Offered(node, end) => self.offers.ended(node, end, now),
            ContactReport::Named(peer) => self.name(peer, now),
            ContactReport::Resolved(id, Ok(addrs)) if !addrs.is_empty() => self.queue(id, addrs),
            ContactReport::Resolved(id, Ok(_)) => self.ended(id, Err("the name has no address".into())),
            ContactReport::Resolved(id, Err(e)) => self.ended(id, Err(e.to_string())),
            ContactReport::Contacted(id, result) => self.ended(id, result),
        }
    }

    /// The contact of a named peer at one address has ended, or there is none.
    fn ended(&mut self, id: u64, result: Result<PeerId, String>) {
        let small = self.shared.directory().read(PeerTable::nodes) <= SOON_AGAIN_NODES;
        let outcome = self.named.ended(id, result, small, Instant::now());
        let Some(ContactOutcome { peer, result, failed_before, came }) = outcome else { return };
        // Whoever asks for what this node alone has must be found to be offered a session.
        if let Ok(peer) = &result
            && small
            && self.shared.directory().turned().is_answered(*peer)
        {
            self.named.hasten(id, Instant::now() + OFFERED_CONTACT_INTERVAL);
        }
        match result {
            Ok(id) if failed_before => log::info!("named peer answers again host={peer} peer={id}"),
            Ok(_) => {}
            Err(e) if !failed_before => log::warn!("named peer cannot be contacted host={peer} error={e:?}"),
            Err(e) => log::debug!("named peer cannot be contacted host={peer} error={e:?}"),
        }
        if came {
            self.shared.directory().expected_came();
        }
    }

    /// Offers peers that may be unable to dial this node to answer on sessions that it opens.
    fn offer(&mut self, now: Instant) {
        for peer in self.offers.due(&self.shared, now) {
            let node = peer.node();
            let job = ContactJob { named: None, addrs: peer.addrs, expect: Some(node), is_offer: true };
            if self.jobs.try_send(job).is_err() {
                self.offers.ended(node, OfferEnd::Failed, now);
            }
        }
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
                is_offer: false,
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
        if let (true, Some(node)) = (job.is_offer, job.expect) {
            let end = offer(shared, node, &job.addrs);
            let _ = report.send(ContactReport::Offered(node, end));
            continue;
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
            Some(id) => drop(report.send(ContactReport::Contacted(id, result))),
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
    for (id, peer) in queue {
        let found = (peer.host(), peer.port()).to_socket_addrs().map(distinct);
        if report.send(ContactReport::Resolved(id, found)).is_err() {
            return;
        }
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

const HOUSEKEEP: Duration = Duration::from_secs(1);
