//! A peer as one that answered shows itself.

use std::net::SocketAddr;

use crate::identity::PeerId;

/// A peer that answered.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("docs/a.txt", b"hello")])?;
/// # let node = lan.node()?;
/// for found in node.peers(std::time::Duration::from_secs(2))? {
///     println!("{} at {}: {} files of {} bytes", found.peer, found.addr, found.files, found.bytes);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct FoundPeer {
    /// Its key.
    pub peer: PeerId,
    /// Its instance.
    pub instance: u64,
    /// Where it answered.
    pub addr: SocketAddr,
    /// Number of files that it offers.
    pub files: u64,
    /// Bytes that it offers.
    pub bytes: u64,
    /// Time since its last sign of life, in ms.
    pub age_ms: u64,
}
