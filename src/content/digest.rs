//! Digests, roots and the identity of a file.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A SHA-256 digest: of a 16 KiB block, or of an inner node of a merkle tree.
///
/// ```
/// use gpb::Digest;
///
/// let digest: Digest = "ab".repeat(32).parse()?;
/// assert_eq!(digest, Digest([0xab; 32]));
/// # Ok::<(), gpb::error::ParseDigestError>(())
/// ```
///
/// With `serde` it is its text in readable formats such as JSON, and its 32 bytes in others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The value of a missing leaf: 32 zero bytes (BEP 52).
    pub const ZERO: Digest = Digest([0; 32]);
}

/// The BitTorrent v2 (BEP 52) pieces root of a file's content.
///
/// It identifies content only together with the length, see [`FileId`]. Shown as 64 hex digits.
///
/// ```
/// use gpb::{Digest, Root};
///
/// let root: Root = "ab".repeat(32).parse()?;
/// assert_eq!(root, Root(Digest([0xab; 32])));
/// assert_eq!(root.to_string(), "ab".repeat(32));
/// # Ok::<(), gpb::error::ParseDigestError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Root(pub Digest);

impl Root {
    /// The root of the empty file: 32 zero bytes.
    pub const EMPTY: Root = Root(Digest::ZERO);
}

/// The identity of a file: its root and its length in bytes.
///
/// The length belongs to the identity because BEP 52 does not separate leaves from inner nodes: a
/// 64-byte file made of the two topmost digests of a larger file has that file's root.
///
/// ```
/// use gpb::FileId;
///
/// let id = FileId { root: "ab".repeat(32).parse()?, len: 5 };
/// // The text that a fetch understands, and from which it can be read again.
/// assert_eq!(id.to_string(), format!("{}:5", "ab".repeat(32)));
/// assert_eq!(id.to_string().parse::<FileId>()?, id);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With `serde` it is its text in readable formats such as JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Pieces root of the content.
    pub root: Root,
    /// Length of the content in bytes.
    pub len: u64,
}

/// Not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 64 hexadecimal digits")]
pub struct ParseDigestError;

/// Why a text is no [`FileId`].
///
/// ```
/// use gpb::{FileId, error::ParseFileIdError};
///
/// assert_eq!("..:5".parse::<FileId>(), Err(ParseFileIdError::Root));
/// assert_eq!("ab".repeat(32).parse::<FileId>(), Err(ParseFileIdError::Len));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseFileIdError {
    /// It does not begin with 64 hexadecimal digits.
    #[error("no root: not 64 hexadecimal digits")]
    Root,
    /// No length follows behind a colon.
    #[error("no `:` and length in bytes behind the root")]
    Len,
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            return String::deserialize(from)?.parse().map_err(D::Error::custom);
        }
        <[u8; 32]>::deserialize(from).map(Digest)
    }
}

impl Serialize for FileId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { (self.root, self.len).serialize(to) }
    }
}

impl<'de> Deserialize<'de> for FileId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            return String::deserialize(from)?.parse().map_err(D::Error::custom);
        }
        <(Root, u64)>::deserialize(from).map(|(root, len)| FileId { root, len })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hex = [0u8; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX[(byte >> 4) as usize];
            pair[1] = HEX[(byte & 15) as usize];
        }
        f.pad(std::str::from_utf8(&hex).unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(s: &str) -> Result<Self, ParseDigestError> {
        let s = s.as_bytes();
        if s.len() != 64 {
            return Err(ParseDigestError);
        }
        let mut out = [0u8; 32];
        for (byte, pair) in out.iter_mut().zip(s.chunks_exact(2)) {
            let digit = |c: u8| (c as char).to_digit(16).ok_or(ParseDigestError);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Digest(out))
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Root {
    type Err = ParseDigestError;

    fn from_str(s: &str) -> Result<Self, ParseDigestError> {
        s.parse().map(Root)
    }
}

/// `ROOT:LEN`, which names one content exactly.
impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.root, self.len)
    }
}

impl FromStr for FileId {
    type Err = ParseFileIdError;

    fn from_str(s: &str) -> Result<Self, ParseFileIdError> {
        let (root, len) = s.split_once(':').unwrap_or((s, ""));
        let root = root.parse().map_err(|_| ParseFileIdError::Root)?;
        // `parse` would also take a sign.
        let digits = len.bytes().all(|b| b.is_ascii_digit()).then_some(len).ok_or(ParseFileIdError::Len)?;
        Ok(FileId { root, len: digits.parse().map_err(|_| ParseFileIdError::Len)? })
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_formats_have_the_text_and_others_the_bytes() {
        let id = FileId { root: Root(Digest([0xab; 32])), len: 300 };
        let json = serde_json::to_string(&(id, id.root)).unwrap();
        assert_eq!(json, format!("[\"{id}\",\"{}\"]", id.root));
        assert_eq!(serde_json::from_str::<(FileId, Root)>(&json).unwrap(), (id, id.root));
        assert!(serde_json::from_str::<FileId>("\"ab:5\"").is_err());
        // The root, and the length in seven bits a byte.
        let bytes = postcard::to_stdvec(&id).unwrap();
        assert_eq!(bytes, [&[0xab; 32][..], &[0xac, 2]].concat());
        assert_eq!(postcard::from_bytes(&bytes), Ok(id));
    }

    #[test]
    fn a_digest_survives_its_text_form() {
        let mut bytes = [0u8; 32];
        for (i, b) in bytes.iter_mut().enumerate() {
            *b = (i * 9) as u8;
        }
        let d = Digest(bytes);
        assert_eq!(d.to_string().parse(), Ok(d));
        assert_eq!(d.to_string().to_uppercase().parse(), Ok(d));
    }

    #[test]
    fn other_texts_are_no_digests() {
        for s in ["", "ab", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(s.parse::<Digest>(), Err(ParseDigestError), "{s:?}");
        }
    }
}
