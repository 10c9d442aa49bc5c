//! Bytes on the wire: datagrams between nodes, TLS sessions. Tier 4.

mod beacon;
mod bind_addr;
mod channel;
mod error;
mod incoming;
mod interface;
mod interfaces;
pub mod limits;
mod multicast;
mod outbox;
mod peer_addr;
mod pipe;
mod secure;
mod sockets;
mod stream;
mod troubles;
mod turned;

pub use beacon::{Beacon, Datagram, Hub, HubBeacon, Link, LinkError, LinkId, To, Waker};
pub use bind_addr::{BindAddr, ParseBindAddrError};
pub(crate) use channel::WIRE_RECORD_LEN_MAX;
pub use channel::{Channel, Opened};
pub use error::StreamError;
pub use interface::{Interface, ParseInterfaceError};
pub use interfaces::LinkOptions;
#[cfg(feature = "dns-sd")]
pub(crate) use interfaces::is_on_link;
pub(crate) use interfaces::leads_over;
pub(crate) use interfaces::own_addrs;
pub use multicast::Multicast;
pub use outbox::Outbox;
pub use peer_addr::{ParsePeerAddrError, PeerAddr};
pub(crate) use pipe::wait_for;
pub use secure::{SecureError, Tls};
pub use stream::{Dialed, Greeting};
pub use turned::TurnedEnd;
