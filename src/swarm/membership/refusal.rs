//! Why two nodes that reach each other do not talk.

use std::fmt;

use crate::proto::Problem;

/// Why a peer that was reached cannot be asked; part of
/// [`FetchError::Refused`](crate::FetchError::Refused). Each has a remedy of its own.
///
/// ```
/// use gpb::RefusalCause;
///
/// fn remedy(cause: RefusalCause) -> &'static str {
///     match cause {
///         RefusalCause::NotTrustedThere => "give them this node's key",
///         RefusalCause::NotTrustedHere => "trust their key",
///         RefusalCause::OtherNetwork => "choose the network that they are in",
///         RefusalCause::OtherVersion => "use the version that they use",
///         _ => "see their log",
///     }
/// }
/// # assert_eq!(remedy(RefusalCause::NotTrustedHere), "trust their key");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RefusalCause {
    /// The peer does not trust the key of this node.
    NotTrustedThere,
    /// This node does not trust the key of the peer.
    NotTrustedHere,
    /// The peer is in a network of another name.
    OtherNetwork,
    /// The peer does not speak this version of the protocol.
    OtherVersion,
    /// The peer gave no reason, or one that this version does not know.
    Unstated,
}

impl RefusalCause {
    /// The cause that a peer gives as `reason`.
    pub fn of_reason(reason: &str) -> Self {
        match reason {
            Problem::UNTRUSTED => RefusalCause::NotTrustedThere,
            Problem::OTHER_NETWORK => RefusalCause::OtherNetwork,
            Problem::UNKNOWN_VERSION => RefusalCause::OtherVersion,
            _ => RefusalCause::Unstated,
        }
    }
}

impl fmt::Display for RefusalCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RefusalCause::NotTrustedThere => "they do not trust its key",
            RefusalCause::NotTrustedHere => "it does not trust their key",
            RefusalCause::OtherNetwork => "they are in another network",
            RefusalCause::OtherVersion => "they speak another version of the protocol",
            RefusalCause::Unstated => "they give no reason",
        })
    }
}
