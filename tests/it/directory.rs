//! A directory of peers for tests that put the parts of a node together by hand.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use gpb::internals::content::Catalogue;
use gpb::internals::identity::{Keypair, PeerId};
use gpb::internals::net::{Datagram, LinkId};
use gpb::internals::peers::{Directory, OwnAnnounce, OwnIdentity};
use gpb::internals::proto::{Announce, Flags, SignedAnnounce};
use gpb::internals::runtime::keystore::TrustView;
use gpb::internals::runtime::{EventSender, Watch};
use gpb::internals::swarm::Way;

/// A node of the network `gpb` that serves nothing.
pub fn identity(keypair: &Keypair, instance: u64) -> OwnIdentity {
    OwnIdentity { keypair: Arc::new(keypair.clone()), instance, network: "gpb".into(), agent: "test".into(), port: 0 }
}

pub fn directory(
    identity: OwnIdentity,
    catalogue: &Arc<Watch<Arc<Catalogue>>>,
    trust: TrustView,
    events: &EventSender,
) -> Arc<Directory> {
    Directory::new(OwnAnnounce::new(identity, catalogue.clone()), Arc::new(trust), events.clone())
}

/// What the node of `keypair` announces that serves files at `addr`.
pub fn announce(keypair: &Keypair, instance: u64, addr: SocketAddr) -> Announce {
    Announce {
        version: Announce::VERSION,
        network: "gpb".into(),
        peer: keypair.peer_id(),
        instance,
        seq: unix_ms(),
        ttl_s: 120,
        port: addr.port(),
        revision: 1,
        flags: Flags::default(),
    }
}

/// Lets `directory` hear `announce` from `addr`.
#[track_caller]
pub fn hear(directory: &Directory, announce: &Announce, keypair: &Keypair, addr: SocketAddr) {
    let datagram = Datagram { len: 0, from: addr, link: LinkId(0), way: Way::Group, local: true };
    let sealed = SignedAnnounce::seal(announce, keypair);
    directory.datagram(sealed.as_bytes(), &datagram, Instant::now()).unwrap();
}

pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Lines that the nodes of this binary have logged of `peer` and that begin with `what`. To be called once before what
/// is to be counted.
pub fn warnings(what: &str, peer: PeerId) -> usize {
    lines(what, peer).len()
}

/// The lines that [`warnings`] counts.
pub fn lines(what: &str, peer: PeerId) -> Vec<String> {
    let of = format!("peer={peer} ");
    LINES.lock().unwrap().iter().filter(|line| line.starts_with(what) && line.contains(&of)).cloned().collect()
}

static LINES: LazyLock<Mutex<Vec<String>>> = LazyLock::new(|| {
    log::set_logger(&Capture).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    Mutex::default()
});

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}
