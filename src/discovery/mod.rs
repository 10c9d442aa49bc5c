//! Finding peers: signed announces by multicast, peers named by the user, and exchange. Floor 5.
//!
//! Threads: `gpb-listen` owns the beacon, hears, answers and announces; `gpb-announce` waits for the catalogue to
//! change and tells it; `gpb-static` contacts the peers named by the user (and, without multicast, some that are
//! known) with a few `gpb-contact` threads, and `gpb-resolve` looks up their names.
//! What they find goes into the [`PeerTable`]; nobody else is told but by its events.

mod announcer;
mod contacts;
mod drops;
mod exchange;
mod intake;
mod listener;
mod sources;
mod static_peer;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::content::Catalogue;
use crate::net::{Beacon, Link, Tls, Waker};
use crate::proto::SignedAnnounce;
use crate::runtime::keystore::Trust;
use crate::runtime::{Events, Latest, Shutdown, Watched, Workers};
use crate::swarm::PeerTable;

pub use announcer::Announcer;
pub use drops::Stats;
pub use static_peer::{ParseStaticPeerError, StaticPeer};

use contacts::Contacts;
use drops::Drops;
use intake::Intake;
use listener::Listener;

/// What a node lends its discovery.
pub struct Lent {
    /// Speaks for the node; made by the node, since sessions need it too.
    pub announcer: Arc<Announcer>,
    /// Whom to hear.
    pub trust: Arc<Trust>,
    /// Where peers are noted.
    pub table: Arc<Watched<PeerTable>>,
    /// What is offered; a new revision is announced.
    pub catalogue: Arc<Latest<Catalogue>>,
    /// Where joins and leaves are told.
    pub events: Events,
    /// When to end.
    pub shutdown: Shutdown,
    /// For sessions with the peers named by the user.
    pub tls: Tls,
    /// Carries announces; without one, peers are found by contact only.
    pub beacon: Option<Box<dyn Beacon>>,
    /// Peers named by the user; contacted at once and every interval again.
    pub static_peers: Vec<StaticPeer>,
}

/// The running discovery of a node. Ends with the node's [`Shutdown`], which must have begun before this is dropped;
/// dropping then waits for its threads, at most about [`CONTACT_TIMEOUT`](crate::limits::CONTACT_TIMEOUT).
pub struct Discovery {
    shared: Arc<Shared>,
    wake: Option<Waker>,
    _workers: Workers,
}

/// What the threads of discovery share.
struct Shared {
    announcer: Arc<Announcer>,
    table: Arc<Watched<PeerTable>>,
    intake: Intake,
    drops: Drops,
    links: Mutex<Vec<Link>>,
    shutdown: Shutdown,
}

impl Discovery {
    /// Starts; the first query goes out at once.
    ///
    /// # Errors
    /// The system has no thread to give. Begin the shutdown then.
    pub fn start(lent: Lent) -> io::Result<Self> {
        let Lent { announcer, trust, table, catalogue, events, shutdown, tls, beacon, static_peers } = lent;
        let intake = Intake::new(announcer.clone(), trust, table.clone(), events);
        let shared = Arc::new(Shared {
            announcer,
            table,
            intake,
            drops: Drops::default(),
            links: Mutex::new(beacon.as_ref().map(|b| b.links()).unwrap_or_default()),
            shutdown: shutdown.clone(),
        });
        let mut workers = Workers::default();
        let alone = beacon.is_none();
        let wake = beacon.as_ref().map(|b| b.waker());
        if let (Some(beacon), Some(wake)) = (beacon, &wake) {
            shutdown.on_begin({
                let wake = wake.clone();
                move || wake()
            });
            let listener = Listener::new(shared.clone(), beacon, Instant::now());
            workers.spawn("gpb-listen", move || listener.run())?;
            let (shared, wake) = (shared.clone(), wake.clone());
            workers.spawn("gpb-announce", move || announcer::watch(&shared.announcer, &catalogue, &shutdown, &wake))?;
        }
        if alone || !static_peers.is_empty() {
            Contacts::start(&shared, tls, static_peers, alone, &mut workers)?;
        }
        Ok(Discovery { shared, wake, _workers: workers })
    }

    /// The node's announce as of now, to put into `Hello` and its answer.
    pub fn current_announce(&self) -> SignedAnnounce {
        self.shared.announcer.current()
    }

    /// Announces at once (at most once a second): something that announces say, such as the port, has changed.
    pub fn nudge(&self) {
        self.shared.announcer.note_change();
        if let Some(wake) = &self.wake {
            wake();
        }
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

impl Shared {
    /// What must be done about once a second.
    fn housekeep(&self, now: Instant) {
        self.intake.housekeep(now);
        self.drops.log(now);
    }
}
