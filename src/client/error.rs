//! Why files could not be found or fetched.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::limits::SHOWN_MAX;
use crate::content::{FileId, PatternError, RelPath, RelPathError};
use crate::identity::{KeyPrefix, PeerId};
use crate::proto::Problem;
use crate::store::StoreError;

/// Why files could not be found or fetched.
///
/// Each message names the thing and the cause on one line; the cause that another library or the
/// system gave is the [`source`](std::error::Error::source). Chunks that arrived stay on disk
/// whatever the error is, and the next fetch of the same files continues from them.
///
/// ```no_run
/// use gpb::{FetchError, Node};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder().dir("/data").start()?;
/// match node.fetch("models/weights.bin")?.wait() {
///     Ok(report) => println!("{} bytes", report.bytes),
///     Err(failed) => match &*failed.error {
///         FetchError::NotFound { what, answered } => println!("none of {answered} peers has {what}"),
///         FetchError::Ambiguous { candidates, .. } => {
///             candidates.iter().for_each(|c| println!("{} is {}", c.path, c.id));
///         }
///         FetchError::NoPeer(_) | FetchError::Silent { .. } => println!("try again later"),
///         error => println!("{error}, after {} bytes", failed.report.bytes),
///     },
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The call was given nothing to look for, such as an empty list.
    #[error("nothing was asked for")]
    NothingAsked,
    /// A text is no [`Pattern`](crate::Pattern).
    #[error("`{text}` is no pattern")]
    Pattern {
        /// The text.
        text: String,
        /// What is wrong with it.
        source: PatternError,
    },
    /// No peer could be reached in this time.
    #[error("no peer reachable within {0:?}")]
    NoPeer(Duration),
    /// No peer could be reached in this time. Announces came, but the clock of their sender and
    /// that of this host differ by more than a day.
    #[error("no peer reachable within {0:?}: the clocks of this host and of a peer differ by more than a day")]
    ClocksDiffer(Duration),
    /// Peers answered, and none has it.
    #[error("{what}: no peer has it ({answered} answered)")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Number of peers that answered.
        answered: usize,
    },
    /// The file changed at its source after it was listed, and no other peer has what it was.
    #[error("{what}: changed at the source")]
    Changed {
        /// The file.
        what: String,
    },
    /// One name has several contents; a [`FileId`] in place of the name says which one is meant.
    #[error("{what}: several contents: {}", ShownList(.candidates))]
    Ambiguous {
        /// What was asked for.
        what: String,
        /// The contents that it has.
        candidates: Vec<Candidate>,
    },
    /// No peer that answered has a key that begins so, or several have.
    #[error("{}", UnclearPrefix(.prefix, .found, *.answered))]
    Prefix {
        /// The beginning of the key.
        prefix: KeyPrefix,
        /// Number of peers that answered.
        answered: usize,
        /// The peers that have such a key.
        found: Vec<PeerId>,
    },
    /// Every holder sent wrong bytes.
    #[error("{what}: every holder sent wrong bytes ({})", ShownList(.peers))]
    OnlyLiars {
        /// The file.
        what: String,
        /// The holders.
        peers: Vec<PeerId>,
    },
    /// A place for one file was given, and what was asked for means several.
    #[error("{what}: {files} files do not fit into {}", .path.display())]
    SeveralFiles {
        /// What was asked for.
        what: String,
        /// Number of files that it means.
        files: usize,
        /// The place.
        path: PathBuf,
    },
    /// No place is given for the files, and the node has no directory.
    #[error("no place for the files: the node has no directory, and the fetch names none")]
    NoDirectory,
    /// The place of the file cannot be its name.
    #[error("cannot write to {}", .path.display())]
    Out {
        /// The place.
        path: PathBuf,
        /// What is wrong with it.
        source: RelPathError,
    },
    /// Local storage failed.
    #[error(transparent)]
    Storage(#[from] StoreError),
    /// A holder is connected, and the fetch made no progress for the node's timeout.
    #[error("{what}: connected, but no progress for {wait:?}")]
    Silent {
        /// The file.
        what: String,
        /// The timeout.
        wait: Duration,
    },
    /// Every peer that answered had no place for this node, for as long as it was asked.
    #[error("every peer that answered is full ({full} of them), for {wait:?}")]
    Full {
        /// Number of peers that are full.
        full: usize,
        /// For how long they were asked again and again.
        wait: Duration,
    },
    /// Every peer refused this node's key, network or version.
    #[error("every peer refused this node ({refused} of them{})", Because(.reason))]
    Refused {
        /// Number of peers that refused.
        refused: usize,
        /// The reason that one of them gave; empty if none did.
        reason: String,
    },
    /// The fetch or the call was cancelled; the node goes on.
    #[error("cancelled")]
    Cancelled,
    /// The node ends.
    #[error("the node has been stopped")]
    Stopped,
    /// The system gave no sockets for connections to peers: a limit is reached.
    #[error("cannot open connections")]
    Sockets(#[source] io::Error),
    /// The system gave no thread.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
}

impl FetchError {
    /// The error for dials that got no socket, by the number of the system's error.
    pub(crate) fn no_socket(errno: i32) -> Self {
        FetchError::Sockets(io::Error::from_raw_os_error(errno))
    }

    /// The place among the causes: where several apply, the one with the least stands for all.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            FetchError::NothingAsked
            | FetchError::NoDirectory
            | FetchError::Pattern { .. }
            | FetchError::SeveralFiles { .. }
            | FetchError::Out { .. }
            | FetchError::Prefix { .. } => 0,
            FetchError::Ambiguous { .. } => 1,
            FetchError::OnlyLiars { .. } => 2,
            FetchError::Storage(_) => 3,
            FetchError::Refused { .. } => 4,
            FetchError::NotFound { .. } | FetchError::Changed { .. } => 5,
            FetchError::NoPeer(_) | FetchError::ClocksDiffer(_) => 6,
            FetchError::Silent { .. } | FetchError::Full { .. } => 7,
            FetchError::Threads(_) | FetchError::Sockets(_) => 8,
            FetchError::Cancelled | FetchError::Stopped => 9,
        }
    }
}

/// One of the contents that an ambiguous name has; part of [`FetchError::Ambiguous`].
///
/// ```
/// # fn choose(error: &gpb::FetchError) -> Option<gpb::FileId> {
/// if let gpb::FetchError::Ambiguous { candidates, .. } = error {
///     return candidates.iter().max_by_key(|c| c.holders.len()).map(|c| c.id);
/// }
/// # None }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub path: RelPath,
    /// Its content.
    pub id: FileId,
    /// The peers that hold it.
    pub holders: Vec<PeerId>,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} held by {}", self.path, self.id, ShownList(&self.holders))
    }
}

/// Replaces `kept` by a reason that says more. Another network says least: such a peer was never
/// meant.
pub(crate) fn weigh_refusal(kept: &mut String, reason: String) {
    if kept.is_empty() || kept == Problem::OTHER_NETWORK {
        *kept = reason;
    }
}

/// Displays a reason behind a colon, unless it is empty.
struct Because<'a>(&'a str);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

/// Displays which peers have a key that begins in one way.
struct UnclearPrefix<'a>(&'a KeyPrefix, &'a Vec<PeerId>, usize);

impl fmt::Display for UnclearPrefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnclearPrefix(prefix, found, answered) = self;
        match found.len() {
            0 => write!(f, "{prefix}: no peer with that key answered ({answered} others did)"),
            _ => write!(f, "{prefix}: several peers have such a key: {}", ShownList(found)),
        }
    }
}

/// Displays at most [`SHOWN_MAX`] items of a list on one line.
struct ShownList<'a, T>(&'a Vec<T>);

impl<T: fmt::Display> fmt::Display for ShownList<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().take(SHOWN_MAX).enumerate() {
            write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
        }
        if self.0.len() > SHOWN_MAX {
            write!(f, " and {} more", self.0.len() - SHOWN_MAX)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_that_says_most_is_kept() {
        let said = |reasons: &[&str]| {
            let mut reason = String::new();
            reasons.iter().for_each(|r| weigh_refusal(&mut reason, r.to_string()));
            FetchError::Refused { refused: reasons.len(), reason }.to_string()
        };
        assert_eq!(said(&["another network"]), "every peer refused this node (1 of them: another network)");
        let both = said(&["another network", "key is not trusted"]);
        assert_eq!(both, "every peer refused this node (2 of them: key is not trusted)");
        assert_eq!(said(&[""]), "every peer refused this node (1 of them)");
    }

    #[test]
    fn a_long_list_is_cut() {
        let what = "x".to_string();
        let text = FetchError::OnlyLiars { what, peers: vec![PeerId([0; 32]); SHOWN_MAX + 2] }.to_string();
        assert!(text.ends_with(" and 2 more)"), "{text}");
    }
}
