//! Why files could not be found or fetched.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::limits::SHOWN_MAX;
use crate::content::{FileId, PatternError, RelPath, RelPathError};
use crate::identity::{KeyPrefix, PeerId};
use crate::store::StoreError;
use crate::swarm::RefusalCause;

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
    #[error("no peer reachable within {} s", .0.as_secs_f64())]
    NoPeer(Duration),
    /// No peer could be reached in this time. Announces came, but the clock of their sender and
    /// that of this host differ by more than a day.
    #[error(
        "no peer reachable within {} s: the clocks of this host and of a peer differ by more than a day",
        .0.as_secs_f64()
    )]
    ClocksDiffer(Duration),
    /// Peers answered, and none has it.
    #[error("{what}: no peer has it ({answered} answered)")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Number of peers that answered.
        answered: usize,
    },
    /// A link without a content, of which nothing that it leads to is fetched.
    #[error("{what}: a link to {target:?}, which was not asked for")]
    LinkAlone {
        /// What was asked for.
        what: String,
        /// The text of the link.
        target: String,
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
    /// The files belong into several directories of the node, and a fetch has one. Each part can be
    /// fetched alone, or all of it to a place that is given.
    #[error("{what}: the files belong into {} directories", .dirs.len())]
    SeveralDirs {
        /// What was asked for.
        what: String,
        /// The directories.
        dirs: Vec<PathBuf>,
    },
    /// One file is to be read, and what was asked for means several.
    #[error("{what}: {files} files, and one is to be read")]
    NotOneFile {
        /// What was asked for.
        what: String,
        /// Number of files that it means.
        files: usize,
    },
    /// More is open for reading than a node allows at once.
    #[error("{0} readers already")]
    TooManyReaders(usize),
    /// The writer that takes the bytes failed.
    #[error("cannot pass on what was fetched")]
    Writer(#[source] io::Error),
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
    /// What was given as a file or directory below the node's directory cannot be there.
    #[error("{} is no name below the directory", .path.display())]
    Name {
        /// What was given.
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
    /// Every peer that was reached refused this node, or is refused by it. A download ends so as
    /// soon as all known holders of what is left said it.
    #[error("{}", ShownRefusals(.peers))]
    Refused {
        /// The peers, each once, and why.
        peers: Vec<(PeerId, RefusalCause)>,
    },
    /// Some of it came, and then the last peer that had the rest left. No other came in the node's
    /// timeout.
    #[error("{what}: the last holder left, after {had} of {of} bytes")]
    HolderLeft {
        /// The file.
        what: String,
        /// Bytes of it that are there, and stay.
        had: u64,
        /// Bytes in all.
        of: u64,
    },
    /// A peer lists more than is taken in, so that what it has may be missing from what a pattern
    /// means.
    #[error("{what}: the listing of {peer} takes more than {} MiB", .len_max >> 20)]
    LongListing {
        /// What was asked for.
        what: String,
        /// The peer.
        peer: PeerId,
        /// Memory in bytes that a listing may take.
        len_max: usize,
    },
    /// The fetch or the call was cancelled; the node keeps running.
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

    /// The names of the kinds, by [`rank`](Self::rank).
    pub(crate) const KINDS: [&str; 10] =
        ["request", "ambiguous", "lies", "storage", "refused", "not found", "no peer", "silent", "system", "ended"];

    /// The place among the causes: where several apply, the one with the least stands for all.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            FetchError::NothingAsked
            | FetchError::NoDirectory
            | FetchError::Pattern { .. }
            | FetchError::SeveralFiles { .. }
            | FetchError::SeveralDirs { .. }
            | FetchError::NotOneFile { .. }
            | FetchError::Out { .. }
            | FetchError::Name { .. }
            | FetchError::Prefix { .. } => 0,
            FetchError::Ambiguous { .. } => 1,
            FetchError::OnlyLiars { .. } => 2,
            FetchError::Storage(_) => 3,
            FetchError::Refused { .. } => 4,
            FetchError::NotFound { .. }
            | FetchError::LinkAlone { .. }
            | FetchError::Changed { .. }
            | FetchError::LongListing { .. } => 5,
            FetchError::NoPeer(_) | FetchError::ClocksDiffer(_) | FetchError::HolderLeft { .. } => 6,
            FetchError::Silent { .. } | FetchError::Full { .. } => 7,
            FetchError::Threads(_) | FetchError::Sockets(_) | FetchError::TooManyReaders(_) | FetchError::Writer(_) => {
                8
            }
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
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
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

/// Displays why peers cannot be asked.
struct ShownRefusals<'a>(&'a [(PeerId, RefusalCause)]);

impl fmt::Display for ShownRefusals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes: BTreeSet<RefusalCause> = self.0.iter().map(|(_, cause)| *cause).collect();
        let here = causes.contains(&RefusalCause::NotTrustedHere);
        let who = match (here, causes.len()) {
            (true, 1) => "this node refuses every peer",
            (true, _) => "every peer refuses this node or is refused by it",
            (false, _) => "every peer refused this node",
        };
        write!(f, "{who} ({} of them: ", self.0.len())?;
        for (i, cause) in causes.iter().enumerate() {
            write!(f, "{}{cause}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str(")")
    }
}

/// Displays which peers have a key that begins in one way.
struct UnclearPrefix<'a>(&'a KeyPrefix, &'a Vec<PeerId>, usize);

impl fmt::Display for UnclearPrefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnclearPrefix(prefix, found, answered) = self;
        match found.len() {
            0 if *answered == 1 => write!(f, "{prefix}: no peer with that key answered (1 other did)"),
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
    fn each_cause_of_a_refusal_is_said_once() {
        use RefusalCause::{NotTrustedHere, NotTrustedThere, OtherNetwork};
        let said = |causes: &[RefusalCause]| {
            FetchError::Refused { peers: causes.iter().map(|c| (PeerId([0; 32]), *c)).collect() }.to_string()
        };
        assert_eq!(said(&[OtherNetwork]), "every peer refused this node (1 of them: they are in another network)");
        assert_eq!(said(&[NotTrustedHere]), "this node refuses every peer (1 of them: it does not trust their key)");
        let both = said(&[OtherNetwork, NotTrustedThere, OtherNetwork]);
        assert_eq!(
            both,
            "every peer refused this node (3 of them: they do not trust its key, they are in another network)"
        );
        assert!(said(&[NotTrustedHere, OtherNetwork]).starts_with("every peer refuses this node or is refused by it"));
    }

    #[test]
    fn a_long_list_is_cut() {
        let what = "x".to_string();
        let text = FetchError::OnlyLiars { what, peers: vec![PeerId([0; 32]); SHOWN_MAX + 2] }.to_string();
        assert!(text.ends_with(" and 2 more)"), "{text}");
    }
}
