//! Who a peer is: an Ed25519 key. Pure; tier 1.

mod keypair;
mod peer_id;

pub use keypair::{Keypair, KeypairError};
pub use peer_id::{ParsePeerIdError, PeerId};
