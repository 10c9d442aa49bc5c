//! TLS 1.3, mutual, raw public keys (RFC 8446, RFC 7250): the certificate of each side is its
//! Ed25519 key.
//!
//! Owns the configuration and the checks of keys. Records are moved by
//! [`Channel`](crate::net::Channel). Trust is not decided here: any valid key passes, unless the
//! dialer expects one.

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group, sign};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, ServerConfig, SignatureScheme, version::TLS13,
};

use crate::identity::{Keypair, PeerId};
use crate::limits::ALPN;

/// A node's TLS identity, made once from its key. Cloning shares it.
#[derive(Clone)]
pub struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// Why a session is not secure.
#[derive(Debug, thiserror::Error)]
pub enum SecureError {
    /// TLS failed; the message says at what.
    #[error("{0}")]
    Tls(#[source] Error),
    /// The other side does not speak `gpb/2`.
    #[error("peer does not speak gpb/2")]
    Alpn,
    /// The other side has another key than the one that was dialed.
    #[error("peer has another key: {0}")]
    OtherKey(PeerId),
}

impl Tls {
    /// Configurations for both sides: TLS 1.3 only, AES-128-GCM first where there is AES hardware,
    /// no resumption, no tickets, no 0-RTT, ALPN `gpb/2`.
    ///
    /// # Errors
    /// [`SecureError::Tls`]: the key cannot be used.
    pub fn new(keypair: &Keypair) -> Result<Self, SecureError> {
        let provider = Arc::new(provider());
        let key = sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(keypair.to_pkcs8_der()))?;
        let identity = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki(&keypair.peer_id()))], key));

        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(RawKey::new(&provider, None)))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity.clone())));
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.enable_early_data = false;

        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(RawKey::new(&provider, None)))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity)));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        Ok(Tls { client: Arc::new(client), server: Arc::new(server) })
    }

    /// The same identity, speaking other protocols.
    #[cfg(test)]
    pub(crate) fn with_alpn_for_test(mut self, protocols: Vec<Vec<u8>>) -> Self {
        Arc::make_mut(&mut self.client).alpn_protocols = protocols;
        self
    }

    /// The state of a session that this node dials; with `expect`, the handshake fails for any
    /// other key.
    ///
    /// # Errors
    /// [`SecureError::Tls`]
    pub(crate) fn dial(&self, expect: Option<PeerId>) -> Result<UnbufferedClientConnection, SecureError> {
        let mut config = self.client.clone();
        if expect.is_some() {
            let verifier = RawKey::new(config.crypto_provider(), expect);
            Arc::make_mut(&mut config).dangerous().set_certificate_verifier(Arc::new(verifier));
        }
        // Neither sent, since SNI is off, nor compared: the key is the name.
        let name = ServerName::try_from("gpb").map_err(|_| Error::General("server name".into()))?;
        Ok(UnbufferedClientConnection::new(config, name)?)
    }

    /// The state of a session that this node accepts.
    ///
    /// # Errors
    /// [`SecureError::Tls`]
    pub(crate) fn accept(&self) -> Result<UnbufferedServerConnection, SecureError> {
        Ok(UnbufferedServerConnection::new(self.server.clone())?)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl From<Error> for SecureError {
    fn from(e: Error) -> Self {
        match &e {
            Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                SecureError::Alpn
            }
            Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
                match inner.downcast_ref::<OtherKey>() {
                    Some(OtherKey(peer)) => SecureError::OtherKey(*peer),
                    None => SecureError::Tls(e),
                }
            }
            _ => SecureError::Tls(e),
        }
    }
}

/// The key of the peer of a session whose handshake is over and agreed on `gpb/2`.
///
/// # Errors
/// [`SecureError::Alpn`]: no or another protocol was agreed on; [`SecureError::Tls`]: no key was
/// shown.
pub(crate) fn proved_peer(state: &CommonState) -> Result<PeerId, SecureError> {
    if state.alpn_protocol() != Some(ALPN) {
        return Err(SecureError::Alpn);
    }
    let key = state.peer_certificates().and_then(|c| c.first()).ok_or(Error::NoCertificatesPresented)?;
    Ok(peer_of_spki(key)?)
}

/// Accepts any Ed25519 raw public key whose holder proves it, or only that of `expect`.
#[derive(Debug)]
struct RawKey {
    algorithms: WebPkiSupportedAlgorithms,
    expect: Option<PeerId>,
}

/// The key that was shown instead of the expected one.
#[derive(Debug, thiserror::Error)]
#[error("peer has another key: {0}")]
struct OtherKey(PeerId);

impl RawKey {
    fn new(provider: &CryptoProvider, expect: Option<PeerId>) -> Self {
        RawKey { algorithms: provider.signature_verification_algorithms, expect }
    }

    fn check_key(&self, key: &CertificateDer<'_>) -> Result<(), Error> {
        let peer = peer_of_spki(key)?;
        match self.expect {
            Some(expect) if expect != peer => {
                Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(OtherKey(peer))))))
            }
            _ => Ok(()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if dss.scheme != SignatureScheme::ED25519 {
            return Err(Error::InvalidCertificate(CertificateError::BadSignature));
        }
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(key.as_ref()),
            dss,
            &self.algorithms,
        )
    }
}

impl ServerCertVerifier for RawKey {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check_key(key).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is refused".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check_key(key).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is refused".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The fastest cipher of this machine comes first; each side offers and accepts all three.
fn provider() -> CryptoProvider {
    let aes = [cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384];
    let chacha = [cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    let cipher_suites = if has_aes() { [&aes[..], &chacha].concat() } else { [&chacha[..], &aes].concat() };
    CryptoProvider { cipher_suites, kx_groups: vec![kx_group::X25519], ..default_provider() }
}

fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// The SubjectPublicKeyInfo of an Ed25519 key (RFC 8410): a fixed prefix and the key.
fn spki(peer: &PeerId) -> Vec<u8> {
    [&SPKI_PREFIX[..], &peer.0].concat()
}

fn peer_of_spki(der: &CertificateDer<'_>) -> Result<PeerId, Error> {
    let key: Option<[u8; 32]> = der.strip_prefix(&SPKI_PREFIX).and_then(|k| k.try_into().ok());
    // Anyone can make signatures that a key of small order accepts.
    let key = key.filter(|k| VerifyingKey::from_bytes(k).is_ok_and(|k| !k.is_weak()));
    key.map(PeerId).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// SEQUENCE(42) { SEQUENCE(5) { OID 1.3.101.112 } BIT STRING(33) { 0 unused bits, the key follows }
/// }
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_der_form_and_nothing_else_passes() {
        let id = Keypair::generate().peer_id();
        let der = spki(&id);
        assert_eq!(der.len(), 44);
        assert_eq!(peer_of_spki(&CertificateDer::from(der.clone())).unwrap(), id);
        for bad in [&der[..43], &[&der[..], &[0]].concat(), &[], &[&[0x31], &der[1..]].concat()] {
            assert!(peer_of_spki(&CertificateDer::from(bad.to_vec())).is_err());
        }
    }

    #[test]
    fn keys_that_anybody_can_sign_for_are_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        for weak in [[0; 32], one, minus_one] {
            assert!(VerifyingKey::from_bytes(&weak).unwrap().is_weak());
            assert!(peer_of_spki(&CertificateDer::from(spki(&PeerId(weak)))).is_err(), "{weak:?}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", Tls::new(&Keypair::generate()).unwrap()), "Tls");
    }
}
