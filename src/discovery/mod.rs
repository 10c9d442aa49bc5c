//! Finding peers: signed announces by multicast, peers named by the user, and exchange. Tier 6.
//!
//! Threads: `gpb-listen` owns the beacon, hears, answers and announces; `gpb-announce` waits for the catalogue to
//! change and tells it; `gpb-static` contacts the peers named by the user, and some that are known where multicast
//! does not tell of all, with a few `gpb-contact` threads, and `gpb-resolve` looks up their names.
//! What they find goes into the [`PeerTable`]; nobody else is told but by its events.

mod announcer;
mod contacts;
mod drops;
mod exchange;
mod intake;
pub mod limits;
mod listener;
mod sources;
mod static_peer;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::content::Catalogue;
use crate::identity::{Keypair, NodeId};
use crate::net::{Beacon, Link, Tls};
use crate::proto::{PeerHint, SignedAnnounce};
use crate::runtime::keystore::Trust;
use crate::runtime::{Events, Latest, Shutdown, Watched, Workers};
use crate::swarm::PeerTable;

pub use drops::Stats;
pub use static_peer::{ParseStaticPeerError, StaticPeer};

use announcer::Announcer;
use contacts::Contacts;
use drops::Drops;
use intake::Intake;
use listener::Listener;

/// What a node lends its discovery.
pub struct DiscoverySetup {
    /// Signs what the node says of itself.
    pub keypair: Arc<Keypair>,
    /// The node's instance: random per start.
    pub instance: u64,
    /// The network that it belongs to, a [network name](crate::proto::Announce::is_network_name).
    pub network: String,
    /// Program and version, for the logs of others.
    pub agent: String,
    /// TCP port where it serves; 0 if it serves nothing.
    pub port: u16,
    /// Carries announces; without one, peers are found by contact only.
    pub beacon: Option<Box<dyn Beacon>>,
    /// Peers named by the user; contacted at once and every interval again.
    pub peers: Vec<StaticPeer>,
    /// For sessions with them.
    pub tls: Tls,
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
}

/// The running discovery of a node. Ends with the node's [`Shutdown`]; dropping it begins that and waits for its
/// threads, at most about [`CONTACT_TIMEOUT`](crate::discovery::limits::CONTACT_TIMEOUT).
pub struct Discovery {
    shared: Arc<Shared>,
    workers: Workers,
}

/// What the threads of discovery share.
struct Shared {
    announcer: Arc<Announcer>,
    agent: String,
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
    /// The system has no thread to give. The shutdown has begun then.
    pub fn start(setup: DiscoverySetup) -> io::Result<Self> {
        let DiscoverySetup { keypair, instance, network, agent, port, beacon, peers, tls, .. } = setup;
        let DiscoverySetup { trust, table, catalogue, events, shutdown, .. } = setup;
        let announcer = Arc::new(Announcer::new(keypair, network, instance, port, catalogue.clone()));
        let intake = Intake::new(announcer.clone(), trust, table.clone(), events);
        let shared = Arc::new(Shared {
            announcer,
            agent,
            table,
            intake,
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
            let watch = move || announcer::watch(&shared.announcer, &catalogue, &shutdown, &wake);
            this.workers.spawn("gpb-announce", watch)?;
        }
        Contacts::start(&shared, tls, peers, alone, &mut this.workers)?;
        Ok(this)
    }

    /// The node's announce as of now, newer than any before, to put into `Hello` and its answer. Costs a signature.
    pub fn announce(&self) -> SignedAnnounce {
        self.shared.announcer.current()
    }

    /// Takes in what the peer at `teller` said of others, each word checked by its own signature, and returns whom it was
    /// good for. Costs a check of a signature for each that is not known.
    pub fn take_hints(&self, hints: &[PeerHint], teller: IpAddr) -> Vec<NodeId> {
        self.shared.intake.hints(hints, teller, Instant::now())
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
    /// What must be done about once a second.
    fn housekeep(&self, now: Instant) {
        self.intake.housekeep(now);
        self.drops.log(now);
    }
}
