//! Contacts for peer exchange: with the peers that the user or the peer file names, with the
//! remembered ones, and with some of the known ones.
//!
//! Without multicast, known peers are contacted at every interval, so that announces reach the
//! whole group. With multicast, they are contacted only in a group that is too large for every node
//! to answer a query, and once each to be remembered.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use rand::seq::IndexedRandom;

use crate::discovery::contact_jobs::{ContactJob, ContactReport, NameQuery, Whom, resolve, work};
use crate::discovery::contact_list::{ContactList, ContactOutcome, PeerFileChange};
use crate::discovery::limits::{
    CONTACTS_AT_ONCE, CONTACTS_QUEUED_MAX, EXCHANGE_AFTER, EXCHANGE_FIRST, EXCHANGE_FROM_NODES,
    OFFERED_CONTACT_INTERVAL, OFFERED_CONTACT_NODES, PEER_FILE_EVERY, REMEMBER_EVERY, REMEMBER_FIRST_AFTER, RESOLVERS,
    SOON_AGAIN_NODES,
};
use crate::discovery::memory::PeerMemory;
use crate::discovery::offers::{OfferEnd, TurnOffers};
use crate::discovery::peer_file::PeerListFile;
use crate::discovery::recall::Recall;
use crate::discovery::{DiscoveryContext, DiscoverySources};
use crate::identity::{NodeId, PeerId};
use crate::limits::{ANNOUNCE_INTERVAL, STATIC_PEERS_MAX};
use crate::net::PeerAddr;
use crate::runtime::{Workers, no_thread};
use crate::swarm::membership::limits::REMEMBERED_MAX;
use crate::swarm::{ContactSource, DistantPeer, PeerRecord, PeerTable};
use crate::sync::lock;

/// The thread that decides which peers are contacted when.
pub(super) struct Contacts {
    shared: Arc<DiscoveryContext>,
    named: ContactList,
    past: Past,
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

/// What is known from earlier runs, and kept for later ones.
struct Past {
    memory: Option<PeerMemory>,
    recall: Recall,
    /// Whether a search waits for the first of them.
    awaited: bool,
    /// When the peers that are proved are written down next.
    collect_at: Instant,
    /// When the next peer that was never dialed is dialed, to prove it, and the nodes already tried.
    prove_at: Instant,
    tried: HashSet<NodeId>,
}

/// Adds peers to the named ones while the threads run.
pub(super) struct NamedPeers {
    known: Mutex<Vec<PeerAddr>>,
    report: Sender<ContactReport>,
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
        sources: DiscoverySources,
        alone: bool,
        workers: &mut Workers,
    ) -> io::Result<NamedPeers> {
        let now = Instant::now();
        let typed: Vec<_> = sources.peers.into_iter().take(STATIC_PEERS_MAX).collect();
        let mut named = ContactList::of(shared.directory().own().node().peer);
        for peer in &typed {
            named.add(peer.clone(), now);
        }
        if let Some(file) = &sources.peer_file {
            named.set_file(file.first.clone(), now);
            shared.in_file.store(named.in_file(), Ordering::Relaxed);
        }
        shared.directory().expect(named.len());
        let past = Past::new(shared, sources.state.as_deref(), alone, now);
        let names_hosts = named.names_hosts();
        let (jobs, job_queue) = bounded::<ContactJob>(CONTACTS_QUEUED_MAX);
        let (names, name_queue) = bounded(2 * STATIC_PEERS_MAX);
        let (report, reports) = bounded(3 * STATIC_PEERS_MAX + 1);
        let many = alone || names_hosts || sources.peer_file.is_some() || !past.recall.is_first_over();
        let threads = if many { CONTACTS_AT_ONCE } else { typed.len().clamp(EXCHANGE_FIRST, CONTACTS_AT_ONCE) };
        for n in 0..threads {
            let (shared, queue, report) = (shared.clone(), job_queue.clone(), report.clone());
            workers.spawn(&format!("gpb-contact-{n}"), move || work(&shared, &queue, &report))?;
        }
        let (wake, resolver) = (report.clone(), Some((name_queue, report.clone())));
        shared.shutdown.on_begin(move || drop(wake.try_send(ContactReport::Wake)));
        let gossip_at = if alone { now } else { now + EXCHANGE_AFTER };
        let gossip_with = if alone { CONTACTS_AT_ONCE } else { EXCHANGE_FIRST };
        if let Some(file) = sources.peer_file {
            let (shared, report) = (shared.clone(), report.clone());
            workers.spawn("gpb-peer-file", move || follow(&shared, &file, &report))?;
        }
        let shared = shared.clone();
        let offers = TurnOffers::new(now);
        let mut contacts =
            Contacts { shared, named, past, alone, gossip_at, gossip_with, offers, jobs, names, resolver, reports };
        if names_hosts {
            contacts.start_resolver()?;
        }
        workers.spawn("gpb-static", move || contacts.run())?;
        Ok(NamedPeers { known: Mutex::new(typed), report })
    }

    /// The body of the thread; ends when the shutdown begins, and the others with it.
    fn run(mut self) {
        while !self.shared.shutdown.has_begun() {
            let now = Instant::now();
            if self.alone {
                self.shared.housekeep(now);
            }
            for (id, peer, source) in self.named.take_due(now) {
                self.begin(id, peer, source);
            }
            self.recall(now);
            if now >= self.past.collect_at {
                self.past.collect_at = now + REMEMBER_EVERY;
                self.past.write_down(&self.shared);
            }
            if now >= self.gossip_at {
                self.gossip(now);
            }
            self.offer(now);
            let recall_at = self.past.recall.next_due().filter(|at| *at > now);
            let due = self.named.next_due().into_iter().chain(recall_at).chain(self.offers.next_look());
            let soonest = due.fold(self.gossip_at.min(now + HOUSEKEEP), Instant::min);
            if let Ok(report) = self.reports.recv_deadline(soonest) {
                self.take(report, Instant::now());
            }
        }
        self.past.write_down(&self.shared);
    }

    fn start_resolver(&mut self) -> io::Result<()> {
        let Some((queue, report)) = self.resolver.clone() else { return Ok(()) };
        for _ in 0..RESOLVERS {
            let (queue, report) = (queue.clone(), report.clone());
            // Not joined: looking up a name has no bound. It ends with its queue.
            let thread = std::thread::Builder::new().name("gpb-resolve".into());
            thread.spawn(move || resolve(&queue, &report)).map_err(|e| no_thread("gpb-resolve", e))?;
        }
        self.resolver = None;
        Ok(())
    }

    fn begin(&mut self, id: u64, peer: PeerAddr, source: ContactSource) {
        if let Some(addr) = peer.literal() {
            return self.queue(id, vec![addr], source);
        }
        if let Err(e) = self.start_resolver() {
            log::warn!("names cannot be looked up host={peer} error=\"{e}\"");
        }
        let (known, look_up) = self.named.look_up(id);
        if !known.is_empty() {
            self.queue(id, known, source);
        }
        if look_up && self.names.try_send((id, peer)).is_err() {
            self.resolved(id, Err("too many names wait to be looked up".into()));
        }
    }

    /// A name was looked up.
    fn resolved(&mut self, id: u64, found: Result<Vec<SocketAddr>, String>) {
        let addrs = found.as_deref().unwrap_or_default();
        if !self.named.resolved(id, addrs, Instant::now()) {
            return;
        }
        match found {
            Ok(addrs) if !addrs.is_empty() => {
                let source = self.named.source(id);
                self.queue(id, addrs, source);
            }
            Ok(_) => self.ended(id, Err("the name has no address".into())),
            Err(e) => self.ended(id, Err(e)),
        }
    }

    /// Has the named peer contacted at each of `addrs`, which may be as many hosts.
    fn queue(&mut self, id: u64, addrs: Vec<SocketAddr>, source: ContactSource) {
        self.named.begun(id, addrs.len());
        for addr in addrs {
            if self.jobs.try_send(ContactJob { whom: Whom::Named(id, source), addrs: vec![addr] }).is_err() {
                self.ended(id, Err("too many contacts wait".into()));
            }
        }
    }

    /// Dials the remembered peers that are due.
    fn recall(&mut self, now: Instant) {
        loop {
            let directory = self.shared.directory();
            let is_wanted =
                |peer: &PeerId| directory.trust().allows(peer) && !directory.read(|table| table.serves(peer));
            let is_empty = directory.read(PeerTable::is_empty);
            let Some(due) = self.past.recall.take_due(is_empty, is_wanted, now) else { break };
            let job = ContactJob { whom: Whom::Remembered(due.peer), addrs: due.addrs };
            if self.jobs.try_send(job).is_err() {
                self.past.recall.ended(&due.peer, false, now);
                break;
            }
        }
        if self.past.awaited && self.past.recall.is_first_over() {
            self.past.awaited = false;
            self.shared.directory().expected_came();
        }
    }

    fn take(&mut self, report: ContactReport, now: Instant) {
        match report {
            ContactReport::Wake => {}
            ContactReport::Offered(node, end) => {
                self.offers.ended(node, end, now);
                if end == OfferEnd::Taken {
                    self.named.hasten_key(node.peer, now + OFFERED_CONTACT_INTERVAL);
                }
            }
            ContactReport::Named(peer) => {
                self.shared.directory().expect(usize::from(self.named.add(peer, now)));
            }
            ContactReport::File(peers) => {
                let PeerFileChange { added, removed, came } = self.named.set_file(peers, now);
                let (directory, peers) = (self.shared.directory(), self.named.in_file());
                directory.expect(added);
                (0..came).for_each(|_| directory.expected_came());
                self.shared.in_file.store(peers, Ordering::Relaxed);
                if added + removed > 0 {
                    log::info!("peer file changed peers={peers} added={added} removed={removed}");
                }
            }
            ContactReport::Resolved(id, found) => self.resolved(id, found.map_err(|e| e.to_string())),
            ContactReport::Contacted(Whom::Named(id, _), result) => self.ended(id, result),
            ContactReport::Contacted(Whom::Remembered(peer), result) => {
                self.past.recall.ended(&peer, result.is_ok(), now);
            }
            ContactReport::Contacted(Whom::Known(_) | Whom::Offered(_), _) => {}
        }
    }

    /// The contact of a named peer at one address has ended, or there is none.
    fn ended(&mut self, id: u64, result: Result<PeerId, String>) {
        let small = self.shared.directory().read(PeerTable::nodes) <= SOON_AGAIN_NODES;
        let outcome = self.named.ended(id, result, small, Instant::now());
        let Some(ContactOutcome { peer, result, failed_before, came }) = outcome else { return };
        // A peer that wants what this node alone has must be found to be offered a session.
        if let Ok(peer) = &result
            && self.shared.directory().turned().is_answered(*peer)
        {
            let nodes = self.shared.directory().read(PeerTable::nodes);
            let share = nodes.max(OFFERED_CONTACT_NODES) as f64 / OFFERED_CONTACT_NODES as f64;
            self.named.hasten(id, Instant::now() + OFFERED_CONTACT_INTERVAL.mul_f64(share));
        }
        match result {
            Ok(id) if failed_before => log::info!("named peer answers again host={peer} peer={id}"),
            Ok(_) => {}
            Err(e) => {
                let level = self.named.failure_level(id, failed_before);
                log::log!(level, "named peer cannot be contacted host={peer} error={e:?}");
            }
        }
        if came {
            self.shared.directory().expected_came();
        }
    }

    /// Offers peers that may be unable to dial this node to answer on sessions that it opens.
    fn offer(&mut self, now: Instant) {
        for DistantPeer { node, addrs, .. } in self.offers.due(&self.shared, now) {
            if self.jobs.try_send(ContactJob { whom: Whom::Offered(node), addrs }).is_err() {
                self.offers.ended(node, OfferEnd::Failed, now);
            }
        }
    }

    /// Contacts a few known peers, chosen at random: so announces spread through the group in a few
    /// intervals, as in any gossip. With multicast this happens only in a large group; in a small one
    /// a peer that was never dialed is, as only a proved address is remembered.
    fn gossip(&mut self, now: Instant) {
        let directory = self.shared.directory();
        if !self.alone && directory.read(PeerTable::nodes) <= EXCHANGE_FROM_NODES {
            self.gossip_at = now + HOUSEKEEP;
            if now >= self.past.prove_at {
                self.past.prove_at = now + ANNOUNCE_INTERVAL;
                // Where multicast is blocked, nothing else keeps remembered peers alive.
                let kept = directory.read(PeerTable::kept_by_contact);
                let kept = kept
                    .sample(&mut rand::rng(), CONTACTS_AT_ONCE)
                    .filter_map(|node| directory.read(|t| t.peer(*node)));
                let unproved = self.past.memory.is_some().then(|| self.past.next_unproved(&self.shared)).flatten();
                for peer in kept.chain(unproved) {
                    self.contact_known(&peer);
                }
            }
            return;
        }
        self.gossip_at = now + ANNOUNCE_INTERVAL;
        let count = self.gossip_with;
        if !self.alone {
            self.gossip_with = 1;
        }
        let peers = directory.read(|t| t.peers());
        for peer in peers.sample(&mut rand::rng(), count) {
            if !self.contact_known(peer) {
                return;
            }
        }
    }

    /// False if too many contacts wait.
    fn contact_known(&self, peer: &PeerRecord) -> bool {
        let whom = Whom::Known(NodeId::new(peer.peer, peer.instance));
        peer.addrs.is_empty() || self.jobs.try_send(ContactJob { whom, addrs: peer.addrs.clone() }).is_ok()
    }
}

impl Past {
    fn new(shared: &DiscoveryContext, state: Option<&Path>, alone: bool, now: Instant) -> Self {
        let directory = shared.directory();
        let mut memory = state.map(|state| PeerMemory::load(state, directory.own().network()));
        let peers = memory.as_mut().map_or_else(Vec::new, |memory| memory.trusted(directory));
        // With multicast others may turn up at any time, so these are not waited for.
        let awaited = alone && !peers.is_empty();
        directory.expect(usize::from(awaited));
        shared.remembered.store(peers.len(), Ordering::Relaxed);
        let (collect_at, prove_at) = (now + REMEMBER_FIRST_AFTER, now + ANNOUNCE_INTERVAL);
        Past { memory, recall: Recall::new(peers, now), awaited, collect_at, prove_at, tried: HashSet::new() }
    }

    /// A peer that was never dialed, each once: it may be one that no node can dial.
    fn next_unproved(&mut self, shared: &DiscoveryContext) -> Option<PeerRecord> {
        let mut unproved = shared.directory().read(PeerTable::unproved);
        unproved.retain(|node| !self.tried.contains(node));
        let node = *unproved.choose(&mut rand::rng()).filter(|_| self.tried.len() < REMEMBERED_MAX)?;
        self.tried.insert(node);
        shared.directory().read(|table| table.peer(node))
    }

    /// Writes down which peers are proved, if that is new.
    fn write_down(&mut self, shared: &DiscoveryContext) {
        if let Some(memory) = &mut self.memory {
            memory.collect(shared.directory());
            memory.save(shared.directory());
            self.recall.learn(memory.trusted(shared.directory()));
        }
    }
}

/// Reads the peer file when it changes; the body of a thread.
fn follow(shared: &DiscoveryContext, file: &PeerListFile, report: &Sender<ContactReport>) {
    while !shared.shutdown.wait(PEER_FILE_EVERY) {
        if let Some(peers) = file.read_again()
            && report.send(ContactReport::File(peers)).is_err()
        {
            return;
        }
    }
}

const HOUSEKEEP: Duration = Duration::from_secs(1);
