//! Bytes on the wire: datagrams between nodes, TLS sessions. Tier 4.

mod beacon;
mod channel;
mod interfaces;
pub mod limits;
mod multicast;
mod outbox;
mod secure;
mod stream;

pub use beacon::{Beacon, Datagram, Hub, HubBeacon, Link, LinkId, To, Waker};
pub(crate) use channel::WIRE_RECORD_LEN_MAX;
pub use channel::{Channel, Opened};
pub use interfaces::LinkOptions;
pub use multicast::Multicast;
pub use outbox::Outbox;
pub use secure::{SecureError, Tls};
pub(crate) use stream::wait_for;
pub use stream::{Dialed, StreamError};
