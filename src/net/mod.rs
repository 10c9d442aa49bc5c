//! Bytes on the wire: datagrams between nodes, TLS sessions. Floor 4.

mod secure;
mod stream;

pub use secure::{SecureError, Tls};
pub use stream::{Dialed, StreamError};
