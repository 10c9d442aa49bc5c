//! A peer's secret key.

use crate::identity::PeerId;

/// An Ed25519 key pair (RFC 8032). Its secret half is wiped from memory on drop and never shown, not even by `Debug`.
#[derive(Clone)]
pub struct Keypair {
    signing: ed25519_dalek::SigningKey,
}

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeypairError {
    /// Not a PKCS#8 PEM of an Ed25519 key; the text says what was found.
    #[error("{0}")]
    Malformed(String),
}

impl Keypair {
    /// A new key from the operating system's random numbers.
    pub fn generate() -> Self {
        todo!()
    }

    /// The public half.
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.signing.verifying_key().to_bytes())
    }

    /// Signs `message` (Ed25519, deterministic).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        todo!("{}", message.len())
    }

    /// PKCS#8 version 1 in PEM, without the public key: OpenSSL 3.0 cannot read version 2 (RFC 5958, RFC 8410).
    pub fn to_pem(&self) -> String {
        todo!()
    }

    /// PKCS#8 version 1 in DER, as TLS libraries take it.
    pub fn to_pkcs8_der(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads PKCS#8 PEM, version 1 or 2.
    ///
    /// # Errors
    /// [`KeypairError::Malformed`] says what the text is instead (a public key, an RSA key, no PEM at all).
    pub fn from_pem(pem: &str) -> Result<Self, KeypairError> {
        todo!("{}", pem.len())
    }
}

impl PeerId {
    /// Whether `signature` is this peer's over `message`. Strict: rejects small-order keys and malleable signatures.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        todo!("{} {}", message.len(), signature.len())
    }
}
