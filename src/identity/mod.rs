//! The identity of a peer: an Ed25519 key. Pure; tier 1.

mod key_prefix;
mod keypair;
mod node_id;
mod peer_id;

pub use key_prefix::{KeyPrefix, ParseKeyPrefixError};
pub use keypair::{Keypair, KeypairError};
pub use node_id::NodeId;
pub use peer_id::{ParsePeerIdError, PeerId};
