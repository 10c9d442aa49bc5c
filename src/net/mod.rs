//! Bytes on the wire: datagrams between nodes, TLS sessions. Floor 4.

mod channel;
mod outbox;
mod secure;
mod stream;

pub(crate) use channel::WIRE_RECORD_LEN_MAX;
pub use channel::{Channel, Opened};
pub use outbox::Outbox;
pub use secure::{SecureError, Tls};
pub(crate) use stream::wait_for;
pub use stream::{Dialed, StreamError};
