//! The identity of a peer: an Ed25519 key. Pure; tier 1.

mod keypair;
mod node_id;
mod peer_id;

pub use keypair::{Keypair, KeypairError};
pub use node_id::NodeId;
pub use peer_id::{ParsePeerIdError, PeerId};
