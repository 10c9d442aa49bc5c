//! Finding peers: signed announces by multicast, peers named by the user, and exchange. Tier 6.
//!
//! Threads: `gpb-listen` owns the beacon, hears, answers and announces; `gpb-announce` waits for the catalogue to
//! change and tells it; `gpb-static` contacts the peers named by the user, and some that are known where multicast
//! does not tell of all, with a few `gpb-contact` threads, and `gpb-resolve` looks up their names.
//! What they find goes into the [`PeerTable`]; nobody else is told but by its events.

mod contacts;
mod drops;
mod exchange;
pub mod limits;
mod listener;
mod static_peer;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::content::Catalogue;
use crate::limits::WAIT_MAX;
use crate::net::{Beacon, Link};
use crate::peers::{Dialer, Directory};
use crate::runtime::{Latest, Shutdown, Workers};

pub use drops::Stats;
pub use static_peer::{ParseStaticPeerError, StaticPeer};

use contacts::Contacts;
use drops::Drops;
use listener::Listener;

/// What a node lends its discovery.
pub struct DiscoverySetup {
    /// Opens sessions for peer exchange, and leads to the directory that discovery fills.
    pub dialer: Dialer,
    /// Carries announces; without one, peers are found by contact only.
    pub beacon: Option<Box<dyn Beacon>>,
    /// Peers named by the user; contacted at once and every interval again.
    pub peers: Vec<StaticPeer>,
    /// What the node offers; a new revision is announced.
    pub catalogue: Arc<Latest<Catalogue>>,
}

/// The running discovery of a node. Ends with the node's [`Shutdown`]; dropping it begins that and waits for its
/// threads, at most about [`CONTACT_TIMEOUT`](crate::discovery::limits::CONTACT_TIMEOUT).
pub struct Discovery {
    shared: Arc<Shared>,
    workers: Workers,
}

/// What the threads of discovery share.
struct Shared {
    dialer: Dialer,
    /// Whether the catalogue has a revision that is not announced yet.
    changed: AtomicBool,
    drops: Drops,
    links: Mutex<Vec<Link>>,
    shutdown: Shutdown,
}

impl Discovery {
    /// Starts; the first query goes out at once.
    ///
    /// # Errors
    /// The system has no thread to give. The shutdown has begun then.
    pub fn start(setup: DiscoverySetup) -> io::Result<Self> {
        let DiscoverySetup { dialer, beacon, peers, catalogue } = setup;
        let shutdown = dialer.shutdown().clone();
        let shared = Arc::new(Shared {
            dialer,
            changed: AtomicBool::new(false),
            drops: Drops::default(),
            links: Mutex::new(beacon.as_ref().map(|b| b.links()).unwrap_or_default()),
            shutdown: shutdown.clone(),
        });
        // Made before its threads: should one not start, dropping this ends the others.
        let mut this = Discovery { shared: shared.clone(), workers: Workers::default() };
        let alone = beacon.is_none();
        if let Some(beacon) = beacon {
            let wake = beacon.waker();
            shutdown.on_begin({
                let (wake, catalogue) = (wake.clone(), catalogue.clone());
                move || {
                    wake();
                    catalogue.wake();
                }
            });
            let listener = Listener::new(shared.clone(), beacon, Instant::now());
            this.workers.spawn("gpb-listen", move || listener.run())?;
            let shared = shared.clone();
            this.workers.spawn("gpb-announce", move || shared.watch(&catalogue, &*wake))?;
        }
        Contacts::start(&shared, peers, alone, &mut this.workers)?;
        Ok(this)
    }

    /// What was heard and dropped so far.
    pub fn stats(&self) -> Stats {
        self.shared.drops.stats()
    }

    /// Over what the node sends and hears; up to a second old, empty without multicast.
    pub fn links(&self) -> Vec<Link> {
        self.shared.links.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        // The threads are joined when the field is dropped.
        self.shared.shutdown.begin();
    }
}

impl Shared {
    fn directory(&self) -> &Directory {
        self.dialer.directory()
    }

    /// What must be done about once a second.
    fn housekeep(&self, now: Instant) {
        self.directory().housekeep(now);
        self.drops.log(now);
    }

    /// Waits for new revisions of the catalogue and wakes the listener, which announces them; the body of a thread.
    fn watch(&self, catalogue: &Latest<Catalogue>, wake: &dyn Fn()) {
        let (mut seen, first) = catalogue.numbered();
        let mut revision = first.revision();
        while !self.shutdown.has_begun() {
            // The shutdown wakes it.
            let Some((number, newest)) = catalogue.newer_than(seen, WAIT_MAX) else { continue };
            seen = number;
            if std::mem::replace(&mut revision, newest.revision()) != newest.revision() {
                self.changed.store(true, Ordering::Release);
                wake();
            }
        }
    }
}
