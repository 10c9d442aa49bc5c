//! Why a session brought no answer.

use std::time::Duration;

use crate::identity::PeerId;
use crate::net::StreamError;
use crate::proto::MessageError;

/// Why a peer was not reached or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The peer's key is not in the trusted set.
    #[error("its key is not trusted: {0}")]
    Untrusted(PeerId),
    /// The peer refused this node, for the reason that it gives.
    #[error("it refuses this node: {0:?}")]
    Refused(String),
    /// The peer has no place for this node, which may try again after that time.
    #[error("busy for {0:?}")]
    Busy(Duration),
    /// The peer sends so little that another one is asked in its place.
    #[error("it sends next to nothing")]
    Slow,
    /// The peer lists more than is taken in, in bytes of memory.
    #[error("its listing takes more than {} MiB", .0 >> 20)]
    LongListing(usize),
    /// The session failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The peer broke the protocol.
    #[error("{0}")]
    Protocol(String),
    /// No address of the peer is known.
    #[error("no address")]
    NoAddress,
}

impl AskError {
    /// Whether the peer answered, and the answer is not one of this protocol.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, AskError::Protocol(_) | AskError::Stream(StreamError::Frame(_)))
    }
}

impl From<MessageError> for AskError {
    fn from(e: MessageError) -> Self {
        AskError::Protocol(e.to_string())
    }
}
