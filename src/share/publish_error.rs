//! Why a program's word about a file is not followed.

use crate::content::{RelPath, RelPathError};

/// Why a file is not published, or not forgotten.
///
/// ```
/// use gpb::error::PublishError;
///
/// # let lan = gpb::testing::Lan::new()?;
/// let node = lan.sharing(&[("a.txt", b"hello")])?;
/// assert!(matches!(node.publish("b.txt"), Err(PublishError::NotFound(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The node does not share a directory.
    #[error("the node shares no directory")]
    NotSharing,
    /// The text cannot be the name of a shared file.
    #[error("`{}` cannot be the name of a shared file", .text.escape_debug())]
    Name {
        /// The text.
        text: String,
        /// What is wrong with it.
        source: RelPathError,
    },
    /// Nothing is there.
    #[error("{0}: there is no such file")]
    NotFound(RelPath),
    /// What is there is not shared.
    #[error("{path} is not shared: {cause}")]
    NotShared {
        /// Its name.
        path: RelPath,
        /// Why.
        cause: String,
    },
    /// The file changed while it was hashed. It is offered when it has been left alone for half a
    /// second, or published again.
    #[error("{0} changed while it was hashed")]
    Changed(RelPath),
    /// The node ends.
    #[error("the node ends")]
    Stopped,
}
