//! Facts that services emit; what a user of the library can watch.

use std::net::SocketAddr;

use crate::content::{FileId, RelPath};
use crate::identity::PeerId;

/// Something that happened in a node.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let node = lan.sharing(&[("docs/a.txt", b"hello")])?;
/// use gpb::Event;
///
/// for event in node.events() {
///     if let Event::CatalogueChanged { files, bytes, complete: true, .. } = event {
///         assert_eq!((files, bytes), (1, 5));
///         break;
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A peer was seen for the first time, or again after it left.
    PeerJoined {
        /// Its key.
        peer: PeerId,
        /// Where it serves.
        addr: SocketAddr,
    },
    /// A peer said goodbye, or its time to live is over.
    PeerLeft {
        /// Its key.
        peer: PeerId,
    },
    /// A peer's catalogue has a new revision.
    PeerChanged {
        /// Its key.
        peer: PeerId,
        /// The new revision.
        revision: u64,
    },
    /// The own catalogue changed.
    CatalogueChanged {
        /// Its new revision.
        revision: u64,
        /// Files in it.
        files: u64,
        /// Bytes in it.
        bytes: u64,
        /// Whether every file that was found is hashed.
        complete: bool,
    },
    /// A file was withdrawn because its bytes no longer match what was hashed.
    FileWithdrawn {
        /// Its name.
        path: RelPath,
        /// The identity that it no longer has.
        id: FileId,
    },
    /// A peer asked for something and was refused.
    Refused {
        /// Its key.
        peer: PeerId,
        /// Where it came from.
        addr: SocketAddr,
    },
    /// A peer sent bytes that are not what it said, and is not asked again.
    PeerLied {
        /// Its key.
        peer: PeerId,
        /// The file.
        id: FileId,
    },
    /// A file of a download is whole, verified and in place.
    FileFetched {
        /// Its name.
        path: RelPath,
        /// Its content.
        id: FileId,
    },
}
