//! TLS 1.3, mutual, raw public keys (RFC 8446, RFC 7250): the certificate of each side is its Ed25519 key.

use std::sync::Arc;

use rustls::{ClientConnection, ServerConnection};

use crate::identity::{Keypair, PeerId};

/// A node's TLS identity, made once from its key.
#[derive(Clone)]
pub struct Tls {
    client: Arc<rustls::ClientConfig>,
    server: Arc<rustls::ServerConfig>,
}

/// Why a session is not secure.
#[derive(Debug, thiserror::Error)]
pub enum SecureError {
    /// The library refused; the message says what.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The other side does not speak `gpb/1`.
    #[error("peer does not speak gpb/1")]
    Alpn,
    /// The other side has another key than the one that was dialed.
    #[error("peer has another key: {0}")]
    OtherKey(PeerId),
}

impl Tls {
    /// Configurations for both sides: TLS 1.3 only, AES-128-GCM first where there is AES hardware, no resumption,
    /// no tickets, no 0-RTT, ALPN `gpb/1`.
    ///
    /// # Errors
    /// [`SecureError::Tls`]: the key cannot be used.
    pub fn new(keypair: &Keypair) -> Result<Self, SecureError> {
        todo!("{}", keypair.peer_id())
    }

    /// The state of a session that this node dials; with `expect`, the handshake fails for any other key.
    ///
    /// # Errors
    /// [`SecureError::Tls`]
    pub fn dial(&self, expect: Option<PeerId>) -> Result<ClientConnection, SecureError> {
        todo!("{expect:?} {}", Arc::strong_count(&self.client))
    }

    /// The state of a session that this node accepts.
    ///
    /// # Errors
    /// [`SecureError::Tls`]
    pub fn accept(&self) -> Result<ServerConnection, SecureError> {
        todo!("{}", Arc::strong_count(&self.server))
    }
}
