//! Bytes on the wire: datagrams between nodes, TLS sessions. Floor 4.

mod beacon;
mod interfaces;
mod multicast;
mod secure;
mod stream;

pub use beacon::{Beacon, Datagram, Hub, HubBeacon, Link, LinkId, To, Waker};
pub use interfaces::LinkOptions;
pub use multicast::Multicast;
pub use secure::{SecureError, Tls};
pub use stream::{Dialed, StreamError};
