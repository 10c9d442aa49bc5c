//! A peer's secret key: making it, signing with it, and its text form.
//!
//! Owns the PKCS#8 encoding. Key files and their permissions are the key store's.

use std::fmt;

use base64ct::{Base64, Encoding};
use ed25519_dalek::pkcs8::spki::der::Decode;
use ed25519_dalek::pkcs8::spki::der::pem::decode_vec;
use ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing;
use ed25519_dalek::pkcs8::{self, PrivateKeyInfoRef};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand::TryRng;
use rand::rngs::SysRng;

use crate::identity::PeerId;

/// An Ed25519 key pair (RFC 8032). Its secret half is wiped from memory on drop and never shown,
/// not even by `Debug`.
///
/// ```
/// use gpb::Keypair;
///
/// let key = Keypair::try_generate()?;
/// let same = Keypair::from_pem(&key.to_pem())?;
/// assert_eq!(same.peer_id(), key.peer_id());
/// # Ok::<(), gpb::error::KeypairError>(())
/// ```
#[derive(Clone)]
pub struct Keypair {
    signing: SigningKey,
}

/// Why there is no key.
///
/// ```
/// use gpb::{Keypair, error::KeypairError};
///
/// assert!(matches!(Keypair::from_pem("no key"), Err(KeypairError::Malformed(_))));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeypairError {
    /// Not a PKCS#8 PEM of an Ed25519 key; the text says what was found.
    #[error("{0}")]
    Malformed(String),
    /// The operating system gave no random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    NoRandom(String),
}

impl Keypair {
    /// A new key from the operating system's random numbers.
    ///
    /// # Panics
    /// Where the operating system has no random numbers; [`Keypair::try_generate`] reports that
    /// instead.
    pub fn generate() -> Self {
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
        Keypair { signing: SigningKey::from_bytes(&secret) }
    }

    /// A new key from the operating system's random numbers.
    ///
    /// # Errors
    /// [`KeypairError::NoRandom`]
    pub fn try_generate() -> Result<Self, KeypairError> {
        let mut secret = Zeroizing::new([0u8; 32]);
        SysRng.try_fill_bytes(secret.as_mut_slice()).map_err(|e| KeypairError::NoRandom(e.to_string()))?;
        Ok(Keypair { signing: SigningKey::from_bytes(&secret) })
    }

    /// The key of this seed, which is the secret (RFC 8032): the same seed is always the same key.
    ///
    /// ```
    /// use gpb::Keypair;
    ///
    /// let seed = [7; 32]; // 32 bytes that nobody else can guess
    /// assert_eq!(Keypair::from_seed(seed).peer_id(), Keypair::from_seed(seed).peer_id());
    /// ```
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Keypair { signing: SigningKey::from_bytes(&Zeroizing::new(seed)) }
    }

    /// The public half.
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.signing.verifying_key().to_bytes())
    }

    /// Signs `message` (Ed25519, deterministic).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// PKCS#8 version 1 in PEM, without the public key: OpenSSL 3.0 cannot read version 2 (RFC
    /// 5958, RFC 8410). The text is wiped from memory on drop.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let der = Zeroizing::new(self.to_pkcs8_der());
        // 48 bytes are 64 digits, which is one line of PEM.
        let body = Zeroizing::new(Base64::encode_string(&der));
        Zeroizing::new(format!("{BEGIN}{PRIVATE_KEY}{DASHES}\n{}\n{END}{PRIVATE_KEY}{DASHES}\n", body.as_str()))
    }

    /// PKCS#8 version 1 in DER, as TLS libraries take it. The caller owns the secret bytes from
    /// here on.
    pub fn to_pkcs8_der(&self) -> Vec<u8> {
        let mut der = Vec::with_capacity(PKCS8_V1_HEAD.len() + 32);
        der.extend_from_slice(&PKCS8_V1_HEAD);
        der.extend_from_slice(self.signing.as_bytes());
        der
    }

    /// Reads PKCS#8 PEM, version 1 or 2. Text around the PEM block is passed over.
    ///
    /// # Errors
    /// [`KeypairError::Malformed`] says what the text is instead (a public key, an RSA key, no PEM
    /// at all).
    pub fn from_pem(text: &str) -> Result<Self, KeypairError> {
        let malformed = |what: &str| KeypairError::Malformed(what.into());
        let block = pem_block(text)?;
        let (label, der) = decode_vec(block.as_bytes()).map_err(|e| malformed(&format!("damaged PEM: {e}")))?;
        let der = Zeroizing::new(der);
        if label != PRIVATE_KEY {
            return Err(wrong_label(label));
        }
        let info = PrivateKeyInfoRef::from_der(&der).map_err(|e| malformed(&format!("damaged private key: {e}")))?;
        if info.algorithm.oid != pkcs8::ALGORITHM_OID {
            let oid = info.algorithm.oid.to_string();
            let name = ALGORITHMS.iter().find(|(known, _)| *known == oid).map_or(oid.as_str(), |(_, name)| name);
            return Err(malformed(&format!("a private key for {name}, but gpb needs an Ed25519 key")));
        }
        let signing =
            SigningKey::try_from(info).map_err(|_| malformed("an Ed25519 private key whose bytes are damaged"))?;
        Ok(Keypair { signing })
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keypair").field("peer_id", &self.peer_id()).finish_non_exhaustive()
    }
}

impl PeerId {
    /// Whether `signature` is this peer's over `message`. Strict: rejects small-order keys and
    /// malleable signatures.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }
}

/// The first block of `text`, from its BEGIN line to the end of its END line.
fn pem_block(text: &str) -> Result<&str, KeypairError> {
    let malformed = |what: &str| Err(KeypairError::Malformed(what.into()));
    let Some(start) = text.find(BEGIN) else {
        return match text.trim_start() {
            "" => malformed("empty"),
            t if t.starts_with("ed25519:") => malformed("a peer id, which is public; the private key is needed"),
            t if t.starts_with("ssh-") => malformed("an SSH public key, not a private key"),
            _ => malformed("no PEM: there is no line `-----BEGIN PRIVATE KEY-----`"),
        };
    };
    let block = &text[start..];
    let Some(end) = block.find(END) else { return malformed("cut off: the PEM has no END line") };
    let tail = &block[end + END.len()..];
    match tail.find(DASHES) {
        Some(dashes) => Ok(&block[..end + END.len() + dashes + DASHES.len()]),
        None => malformed("cut off: the END line of the PEM is not whole"),
    }
}

fn wrong_label(label: &str) -> KeypairError {
    let what = match label {
        "PUBLIC KEY" => "a public key; the private key is needed",
        "ENCRYPTED PRIVATE KEY" => {
            "an encrypted private key; write it without a password: `openssl pkey -in FILE -out NEW`"
        }
        "RSA PRIVATE KEY" => "an RSA key, but gpb needs an Ed25519 key",
        "EC PRIVATE KEY" => "an EC key, but gpb needs an Ed25519 key",
        "OPENSSH PRIVATE KEY" => "an OpenSSH key, but gpb needs an Ed25519 key in PKCS#8 (`BEGIN PRIVATE KEY`)",
        "CERTIFICATE" => "a certificate, not a private key",
        _ => return KeypairError::Malformed(format!("`{label}`, not `PRIVATE KEY`")),
    };
    KeypairError::Malformed(what.into())
}

const PRIVATE_KEY: &str = "PRIVATE KEY";
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// The part of a version 1 document before the 32 secret bytes (RFC 8410, section 7): a sequence of
/// 46 bytes, version 0, the object identifier 1.3.101.112, and an octet string in an octet string.
const PKCS8_V1_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Names of the other algorithms that key files commonly hold.
const ALGORITHMS: [(&str, &str); 7] = [
    ("1.2.840.113549.1.1.1", "RSA"),
    ("1.2.840.113549.1.1.10", "RSA-PSS"),
    ("1.2.840.10040.4.1", "DSA"),
    ("1.2.840.10045.2.1", "EC"),
    ("1.3.101.110", "X25519"),
    ("1.3.101.111", "X448"),
    ("1.3.101.113", "Ed448"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The private key of RFC 8410, section 10.3, version 1, and its public key as in the same
    /// place.
    const RFC_8410_V1: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    /// The same with attributes and the public key, version 2.
    const RFC_8410_V2: &str = "-----BEGIN PRIVATE KEY-----\n\
        MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\n\
        Z9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PRIVATE KEY-----\n";

    fn found(text: &str) -> String {
        Keypair::from_pem(text).unwrap_err().to_string()
    }

    #[test]
    fn both_versions_of_the_rfc_key_are_read_alike() {
        let one = Keypair::from_pem(RFC_8410_V1).unwrap();
        let two = Keypair::from_pem(RFC_8410_V2).unwrap();
        assert_eq!(one.peer_id(), two.peer_id());
        assert_eq!(one.peer_id().to_string(), "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
        assert_eq!(one.to_pem().as_str(), RFC_8410_V1);
        assert_eq!(one.to_pkcs8_der().len(), 48);
    }

    #[test]
    fn line_ends_and_text_around_the_block_do_not_matter() {
        let crlf = RFC_8410_V1.replace('\n', "\r\n");
        for text in [crlf, format!("lab key\n{RFC_8410_V1}\n\n"), format!("\u{feff}{}", RFC_8410_V1.trim_end())] {
            assert!(Keypair::from_pem(&text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        assert!(found("").contains("empty"));
        assert!(found("hello").contains("no PEM"));
        assert!(found(&PeerId([1; 32]).to_string()).contains("peer id"));
        assert!(found("ssh-ed25519 AAAA").contains("SSH public key"));
        let (head, _) = RFC_8410_V1.split_at(60);
        assert!(found(head).contains("cut off"));
        assert!(found(RFC_8410_V1.trim_end().trim_end_matches('-')).contains("cut off"));
        for (label, what) in [
            ("PUBLIC KEY", "public key"),
            ("RSA PRIVATE KEY", "RSA"),
            ("EC PRIVATE KEY", "EC"),
            ("ENCRYPTED PRIVATE KEY", "encrypted"),
            ("OPENSSH PRIVATE KEY", "OpenSSH"),
            ("CERTIFICATE", "certificate"),
            ("OTHER", "OTHER"),
        ] {
            assert!(found(&RFC_8410_V1.replace("PRIVATE KEY", label)).contains(what), "{label}");
        }
        assert!(found(&RFC_8410_V1.replace("MC4C", "MC5C")).contains("damaged"));
        assert!(found(&RFC_8410_V1.replace("MC4C", "!!!!")).contains("damaged"));
        // 1.3.101.110 instead of .112
        assert!(found(&RFC_8410_V1.replace("K2Vw", "K2Vu")).contains("X25519"));
    }

    #[test]
    fn a_public_half_that_does_not_belong_is_refused() {
        assert!(found(&RFC_8410_V2.replace("Z9w7", "Z9w8")).contains("damaged"));
    }

    #[test]
    fn signatures_verify_only_over_their_message_and_key() {
        let (a, b) = (Keypair::try_generate().unwrap(), Keypair::generate());
        assert_ne!(a.peer_id(), b.peer_id());
        let mut signature = a.sign(b"hello");
        assert!(a.peer_id().verify(b"hello", &signature));
        assert!(!a.peer_id().verify(b"hellO", &signature) && !b.peer_id().verify(b"hello", &signature));
        signature[5] ^= 1;
        assert!(!a.peer_id().verify(b"hello", &signature));
    }

    #[test]
    fn weak_keys_and_malleable_signatures_are_refused() {
        // The neutral element as key: without the strict check, R = neutral and s = 0 "signs" everything.
        let mut neutral = [0u8; 32];
        neutral[0] = 1;
        let mut forged = [0u8; 64];
        forged[0] = 1;
        assert!(!PeerId(neutral).verify(b"anything", &forged));
        // s + L is the same scalar, and no longer canonical.
        let key = Keypair::generate();
        let mut signature = key.sign(b"m");
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0u16;
        for (s, l) in signature[32..].iter_mut().zip(order) {
            carry += u16::from(*s) + u16::from(l);
            *s = carry as u8;
            carry >>= 8;
        }
        assert!(!key.peer_id().verify(b"m", &signature));
    }

    #[test]
    fn debug_shows_the_id_only() {
        let key = Keypair::from_pem(RFC_8410_V1).unwrap();
        assert_eq!(format!("{key:?}"), format!("Keypair {{ peer_id: {}, .. }}", key.peer_id()));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(-----BEGIN )?[ -~\n]{0,80}(-----END )?[ -~\n]{0,20}(-----)?") {
            let _ = Keypair::from_pem(&text);
        }

        #[test]
        fn no_bytes_in_a_pem_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let body = Base64::encode_string(&bytes);
            let lines: Vec<_> = body.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
            let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
            let _ = Keypair::from_pem(&pem);
        }
    }
}
