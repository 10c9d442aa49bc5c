//! Finding peers: signed announces by multicast, peers that the user names, and peer exchange. Tier
//! 6.
//!
//! Threads: `gpb-listen` owns the beacon: it receives, answers and announces. `gpb-static` decides
//! which peers are contacted when: the ones that the user or the peer file names, the remembered
//! ones and, where multicast does not reach all, some of the known ones. A few `gpb-contact`
//! threads make these contacts, `gpb-resolve` looks up names, and `gpb-peer-file` reads the peer file. With
//! DNS-SD, `gpb-dns-sd` publishes and looks, in a DHT `gpb-dht` does, and `gpb-hint` threads dial what they
//! find. All of it goes into the [`Directory`]; other services learn of it there and
//! by its events.

mod contact_jobs;
mod contact_list;
mod contacts;
#[cfg(feature = "dht")]
mod dht;
#[cfg(feature = "dns-sd")]
mod dns_sd;
mod drops;
mod exchange;
#[cfg(any(feature = "dns-sd", feature = "dht"))]
mod hints;
pub mod limits;
mod listener;
mod memory;
mod offers;
mod peer_file;
mod recall;

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::net::{Beacon, Interface, Link, LinkOptions, PeerAddr};
use crate::peers::{Dialer, Directory};
use crate::proto::DhtSecret;
use crate::runtime::{Shutdown, Workers};
use crate::sync::lock;

pub use drops::DiscoveryStats;
pub use peer_file::{PeerLines, PeerListFile};

use contacts::{Contacts, NamedPeers};
use drops::Drops;
use listener::Listener;

/// What a node lends its discovery.
pub struct DiscoverySetup {
    /// Opens sessions for peer exchange, and leads to the directory that discovery fills.
    pub dialer: Dialer,
    /// Carries announces; without one, peers are found by contact only.
    pub beacon: Option<Box<dyn Beacon>>,
    /// Where peers are known from, besides announces and exchange.
    pub sources: DiscoverySources,
}

/// Where a node knows peers from before it hears of any.
#[derive(Debug, Default)]
pub struct DiscoverySources {
    /// Peers named by the user; contacted at once and every interval again.
    pub peers: Vec<PeerAddr>,
    /// A file that names further ones; it is read again when it changes.
    pub peer_file: Option<PeerListFile>,
    /// The directory in which the peers are remembered that TLS proved; none remembers nothing.
    pub state: Option<PathBuf>,
    /// Only over these interfaces are remembered peers dialed; over all if empty.
    pub interfaces: Vec<Interface>,
    /// Where to publish and look by DNS-SD; nothing without the feature `dns-sd`.
    pub dns_sd: Option<LinkOptions>,
    /// How to publish and look in a DHT; nothing without the feature `dht`.
    pub dht: Option<DhtPlan>,
}

/// What a node does in a DHT.
#[derive(Debug)]
pub struct DhtPlan {
    /// What the group knows and others do not; an open group needs one.
    pub secret: Option<DhtSecret>,
    /// The bootstrap nodes; none for those of the public DHT.
    pub bootstrap: Vec<PeerAddr>,
    /// Where the node listens: only addresses there are published.
    pub links: LinkOptions,
    /// Whether it says where it answers.
    pub publishes: bool,
}

/// What came of a [`DHT`](crate::Config::dht) so far.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let node = lan.node()?;
/// assert_eq!(node.stats().dht, gpb::DhtStats::default(), "no node uses one unless told to");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct DhtStats {
    /// Its nodes that this one knows; 0 while none answers.
    pub nodes: usize,
    /// Whether the addresses of this node are published there: they were within the last two hours.
    pub published: bool,
    /// The keys of a closed group that are looked up, without the own one.
    pub keys: usize,
    /// How many of them had an item when they were looked up last; in an open group the addresses
    /// that were found.
    pub found: usize,
    /// The address that its nodes see this one at, as most of them say. Nothing confirms it.
    pub seen_as: Option<Ipv4Addr>,
}

/// What DNS-SD does for a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsSdState {
    /// Whether the node is published.
    pub published: bool,
    /// Nodes of the group that are, without the own one.
    pub found: usize,
    /// Why it cannot be used, at the last try.
    pub error: Option<String>,
}

/// Number of peers that a node knew of before discovery found any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KnownBefore {
    /// Peers of earlier runs whose keys are trusted.
    pub remembered: usize,
    /// Peers that the peer file names now.
    pub in_file: usize,
}

/// The running discovery of a node. Ends with the node's [`Shutdown`]; dropping it begins that and
/// waits for its threads, at most about
/// [`CONTACT_TIMEOUT`](crate::discovery::limits::CONTACT_TIMEOUT).
pub struct Discovery {
    shared: Arc<DiscoveryContext>,
    named: NamedPeers,
    _threads: DiscoveryThreads,
}

/// The threads of discovery. Dropping this begins the shutdown and joins them.
struct DiscoveryThreads {
    shutdown: Shutdown,
    workers: Workers,
}

/// What the threads of discovery share.
struct DiscoveryContext {
    dialer: Dialer,
    /// Opens the sessions that this node offers to answer on.
    offering: Dialer,
    drops: Drops,
    links: Mutex<Vec<Link>>,
    remembered: AtomicUsize,
    /// The interfaces over which remembered peers are dialed; all if empty.
    interfaces: Vec<Interface>,
    in_file: AtomicUsize,
    dht: Mutex<DhtStats>,
    dns_sd: Mutex<DnsSdState>,
    shutdown: Shutdown,
}

impl Discovery {
    /// Starts; the first query goes out at once.
    ///
    /// # Errors
    /// The system has no thread to give. The shutdown has begun then.
    pub fn start(setup: DiscoverySetup) -> io::Result<Self> {
        let DiscoverySetup { dialer, beacon, mut sources } = setup;
        let shutdown = dialer.shutdown().clone();
        let shared = Arc::new(DiscoveryContext {
            offering: dialer.clone(),
            dialer: dialer.handing_over(),
            drops: Drops::default(),
            links: Mutex::new(beacon.as_ref().map(|b| b.links()).unwrap_or_default()),
            remembered: AtomicUsize::new(0),
            interfaces: std::mem::take(&mut sources.interfaces),
            in_file: AtomicUsize::new(0),
            dht: Mutex::default(),
            dns_sd: Mutex::default(),
            shutdown: shutdown.clone(),
        });
        // Should one not start, dropping this ends the others.
        let mut threads = DiscoveryThreads { shutdown: shutdown.clone(), workers: Workers::ending(&shutdown) };
        let alone = beacon.is_none();
        if let Some(beacon) = beacon {
            let wake = beacon.waker();
            shutdown.on_begin(move || wake());
            let listener = Listener::new(shared.clone(), beacon, Instant::now());
            threads.workers.spawn("gpb-listen", move || listener.run())?;
        }
        let (dns_sd, dht) = (sources.dns_sd.take(), sources.dht.take());
        let named = Contacts::start(&shared, sources, alone, &mut threads.workers)?;
        start_hinted(&shared, dns_sd, dht, &mut threads.workers)?;
        Ok(Discovery { shared, named, _threads: threads })
    }

    /// Adds to the peers that the user named: it is contacted at once, and every interval again.
    ///
    /// # Errors
    /// The number of named peers, if that is
    /// [`STATIC_PEERS_MAX`](crate::limits::STATIC_PEERS_MAX) already.
    pub fn add_peer(&self, peer: PeerAddr) -> Result<(), usize> {
        self.named.add(peer)
    }

    /// Numbers of announces that arrived and were dropped.
    pub fn stats(&self) -> DiscoveryStats {
        self.shared.drops.stats()
    }

    /// What came of the DHT; up to a second old.
    pub fn dht(&self) -> DhtStats {
        *lock(&self.shared.dht)
    }

    /// What DNS-SD does.
    pub fn dns_sd(&self) -> DnsSdState {
        lock(&self.shared.dns_sd).clone()
    }

    /// Number of peers that were known of before discovery found any.
    pub fn known_before(&self) -> KnownBefore {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        KnownBefore { remembered: of(&self.shared.remembered), in_file: of(&self.shared.in_file) }
    }

    /// The links that the node announces on; up to a second old, empty without multicast.
    pub fn links(&self) -> Vec<Link> {
        lock(&self.shared.links).clone()
    }
}

/// Starts what finds places that strangers may write to.
#[cfg(any(feature = "dns-sd", feature = "dht"))]
fn start_hinted(
    shared: &Arc<DiscoveryContext>,
    dns_sd: Option<LinkOptions>,
    dht: Option<DhtPlan>,
    workers: &mut Workers,
) -> io::Result<()> {
    if dns_sd.is_none() && dht.is_none() {
        return Ok(());
    }
    let hints = hints::Hints::start(shared, workers)?;
    #[cfg(feature = "dns-sd")]
    if let Some(links) = dns_sd {
        dns_sd::DnsSd::start(shared, hints.clone(), links, workers)?;
    }
    #[cfg(feature = "dht")]
    if let Some(plan) = dht {
        dht::DhtService::start(shared, hints, plan, workers)?;
    }
    Ok(())
}

/// Without these features nothing does.
#[cfg(not(any(feature = "dns-sd", feature = "dht")))]
fn start_hinted(
    _: &Arc<DiscoveryContext>,
    _: Option<LinkOptions>,
    _: Option<DhtPlan>,
    _: &mut Workers,
) -> io::Result<()> {
    Ok(())
}

impl Drop for DiscoveryThreads {
    fn drop(&mut self) {
        // The threads are joined when the field is dropped.
        self.shutdown.begin();
    }
}

impl DiscoveryContext {
    fn directory(&self) -> &Directory {
        self.dialer.directory()
    }

    /// What must be done about once a second.
    fn housekeep(&self, now: Instant) {
        self.directory().housekeep(now);
        self.drops.log(now);
    }
}
