//! What faulty peers announce, of themselves and of others.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::identity::Keypair;
use crate::proto::{Announce, Flags, PeerHint, SignedAnnounce};

/// A sealed announce of a node of the network `gpb`, as of now.
pub(super) fn sealed(keypair: &Keypair, instance: u64, port: u16, revision: u64, flags: Flags) -> SignedAnnounce {
    let announce = Announce {
        version: Announce::VERSION,
        network: "gpb".into(),
        peer: keypair.peer_id(),
        instance,
        seq: unix_ms(),
        ttl_s: TTL_S,
        port,
        revision,
        flags,
    };
    SignedAnnounce::seal(&announce, keypair)
}

/// A peer that does not exist, at a port of this host where nothing listens.
pub(super) fn made_up_peer() -> PeerHint {
    let announce = sealed(&Keypair::generate(), 1, DISCARD_PORT, 1, Flags::default());
    PeerHint { announce: announce.as_bytes().to_vec(), addrs: vec![(Ipv4Addr::LOCALHOST, DISCARD_PORT).into()] }
}

/// How others name the peer of `announce` at `addr`.
pub(super) fn hint(announce: &SignedAnnounce, addr: SocketAddr) -> PeerHint {
    PeerHint { announce: announce.as_bytes().to_vec(), addrs: vec![addr] }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// Time to live of the announces in seconds.
const TTL_S: u16 = 120;
/// The port of the discard service (RFC 863), which hosts do not run.
const DISCARD_PORT: u16 = 9;
