//! Bytes on the wire: datagrams between nodes, TLS sessions. Floor 4.

mod channel;
mod secure;
mod stream;

pub(crate) use channel::{RECORD_LEN_MAX, WIRE_RECORD_LEN_MAX};
pub use channel::{Channel, Opened};
pub use secure::{SecureError, Tls};
pub use stream::{Dialed, StreamError};
