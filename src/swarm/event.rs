//! Facts that services emit; what a user of the library can watch.

use std::net::SocketAddr;

use crate::content::{FileId, RelPath};
use crate::identity::{NodeId, PeerId};
use crate::swarm::KnownPeer;

/// Something that happened in a node.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let node = lan.sharing(&[("docs/a.txt", b"hello")])?;
/// use gpb::Event;
///
/// let events = node.events();
/// node.forget("docs/a.txt")?;
/// for event in events {
///     if let Event::CatalogueChanged { files: 0, bytes, .. } = event {
///         assert_eq!(bytes, 0);
///         break;
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Event {
    /// The first event of each queue: the peers that were there when it began, perhaps none.
    Known(Vec<KnownPeer>),
    /// A peer was seen for the first time, or again after it left.
    PeerJoined {
        /// Its key and instance: one key may run several nodes.
        node: NodeId,
        /// Where it serves.
        addr: SocketAddr,
    },
    /// A peer said goodbye, or its time to live is over.
    PeerLeft {
        /// Its key and instance.
        node: NodeId,
    },
    /// A peer's catalogue has a new revision.
    PeerChanged {
        /// Its key and instance.
        node: NodeId,
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
        /// Its key: a node that is refused is no peer.
        peer: PeerId,
        /// Where it came from.
        addr: SocketAddr,
    },
    /// A peer sent bytes that are not what it said, and is not asked again.
    PeerLied {
        /// Its key: none of its nodes is asked again.
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
    /// A copy has expired and is gone; see [`Config::retain`](crate::Config::retain).
    CopyExpired {
        /// Its name.
        path: RelPath,
        /// Its content.
        id: FileId,
    },
    /// So many events followed here and were not kept, as too many waited to be read: never joins,
    /// leaves and changes of peers, nor the state of the own catalogue.
    Missed(u64),
}
