//! A directory without a network, and announces for it, for tests.

use std::sync::Arc;

use crate::content::Catalogue;
use crate::identity::{Keypair, PeerId};
use crate::limits::WIRE_VERSION;
use crate::peers::{Directory, OwnAnnounce, OwnIdentity};
use crate::proto::{Announce, Flags, Hello, SignedAnnounce};
use crate::runtime::keystore::TrustView;
use crate::runtime::{EventSender, Watch};

/// The network of all announces made here.
const NETWORK: &str = "gpb";

pub(crate) fn directory() -> Arc<Directory> {
    directory_of(Keypair::generate(), 1, TrustView::open())
}

pub(crate) fn directory_of(keypair: Keypair, instance: u64, trust: TrustView) -> Arc<Directory> {
    let (keypair, network) = (Arc::new(keypair), NETWORK.into());
    let identity = OwnIdentity { keypair, instance, network, agent: "test".into(), port: 4000 };
    let own = OwnAnnounce::new(identity, Arc::new(Watch::new(Arc::new(Catalogue::default()))));
    Directory::new(own, Arc::new(trust), EventSender::channel().0)
}

pub(crate) fn keypair_and_id() -> (Keypair, PeerId) {
    let keypair = Keypair::generate();
    let id = keypair.peer_id();
    (keypair, id)
}

pub(crate) fn announce(keypair: &Keypair, instance: u64, seq: u64) -> Announce {
    Announce {
        version: Announce::VERSION,
        network: NETWORK.into(),
        peer: keypair.peer_id(),
        instance,
        seq,
        ttl_s: 30,
        port: 4000,
        revision: 1,
        flags: Flags::default(),
    }
}

pub(crate) fn said(keypair: &Keypair, instance: u64, seq: u64) -> SignedAnnounce {
    SignedAnnounce::seal(&announce(keypair, instance, seq), keypair)
}

pub(crate) fn hello(keypair: &Keypair, instance: u64, seq: u64) -> Hello {
    Hello {
        version: WIRE_VERSION,
        network: NETWORK.into(),
        instance,
        announce: said(keypair, instance, seq).as_bytes().to_vec(),
        agent: "asker".into(),
    }
}
