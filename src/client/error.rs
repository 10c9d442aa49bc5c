//! Why files could not be found or fetched.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::limits::SHOWN_MAX;
use crate::content::{FileId, PatternError, RelPath, RelPathError};
use crate::identity::PeerId;
use crate::store::StoreError;

/// Why files could not be found or fetched. Whatever it is, what is needed to resume is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// What was asked for is no pattern.
    #[error("`{text}`: {source}; give a name, a directory, a pattern or a root")]
    Pattern {
        /// As typed.
        text: String,
        /// What is wrong with it.
        source: PatternError,
    },
    /// No peer could be reached.
    #[error("no peer reachable within {0:?}; check that a server runs in this network, or name one with --peer")]
    NoPeer(Duration),
    /// Peers answered, and none has it.
    #[error("{what}: no peer has it ({answered} answered); see what there is with `gpb-client list`")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Peers that answered.
        answered: usize,
    },
    /// One name, several contents.
    #[error("{what}: several contents, ask for one by its root: {}", Listed(.candidates))]
    Ambiguous {
        /// What was asked for.
        what: String,
        /// All that it could be.
        candidates: Vec<Candidate>,
    },
    /// Everyone who holds it sent wrong bytes.
    #[error("{what}: every holder sent wrong bytes ({}); find another source", Listed(.peers))]
    OnlyLiars {
        /// The file.
        what: String,
        /// Who lied.
        peers: Vec<PeerId>,
    },
    /// What was given as the place of the file cannot be its name.
    #[error("cannot write to {}: {source}; choose another name with --out", .path.display())]
    Out {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        source: RelPathError,
    },
    /// The own disk failed.
    #[error(transparent)]
    Storage(#[from] StoreError),
    /// Connected, but nothing comes.
    #[error("{what}: connected, but no byte received for {wait:?}; try again, or raise --timeout")]
    Silent {
        /// The file.
        what: String,
        /// How long nothing came.
        wait: Duration,
    },
    /// Every holder refused this node.
    #[error("every peer refused this node ({refused} of them{}); {}", Because(.reason), refusal_advice(.reason))]
    Refused {
        /// Peers that refused.
        refused: usize,
        /// What one of them said; empty if that is not known.
        reason: String,
    },
    /// Cancelled, or the node ends.
    #[error("interrupted; run it again to continue")]
    Interrupted,
    /// The system gave no thread.
    #[error("cannot start threads: {0}; raise the limit of processes")]
    Threads(String),
}

/// One of several contents that a name could mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub path: RelPath,
    /// Its content.
    pub id: FileId,
    /// Who holds it.
    pub holders: Vec<PeerId>,
}

impl FetchError {
    /// The exit code of the programs.
    pub fn exit_code(&self) -> u8 {
        match self {
            FetchError::Pattern { .. } | FetchError::Out { .. } => 2,
            FetchError::NoPeer(_) => 3,
            FetchError::NotFound { .. } => 4,
            FetchError::Ambiguous { .. } => 5,
            FetchError::OnlyLiars { .. } => 6,
            FetchError::Storage(_) => 7,
            FetchError::Silent { .. } => 8,
            FetchError::Refused { .. } => 9,
            FetchError::Interrupted => 130,
            FetchError::Threads(_) => 1,
        }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} held by {}", self.path, self.id, Listed(&self.holders))
    }
}

/// Keeps the reason that tells more: a peer of another network is no peer to begin with.
pub(crate) fn weigh_refusal(kept: &mut String, reason: String) {
    if kept.is_empty() || kept == OTHER_NETWORK {
        *kept = reason;
    }
}

/// The next step after a refusal.
fn refusal_advice(reason: &str) -> &'static str {
    match reason {
        OTHER_NETWORK => "name the network that they are in with --network",
        UNKNOWN_VERSION => "use the same version as they do",
        _ => "have this node's key added to their trusted file",
    }
}

/// Shows a reason that is known.
struct Because<'a>(&'a str);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

/// Shows a list on one line.
struct Listed<'a, T>(&'a Vec<T>);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
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

/// What a server says to those whose network has another name.
const OTHER_NETWORK: &str = "another network";
/// What a server says to those whose protocol it does not speak.
const UNKNOWN_VERSION: &str = "unknown version";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_fits_the_refusal() {
        let said = |reasons: &[&str]| {
            let mut reason = String::new();
            reasons.iter().for_each(|r| weigh_refusal(&mut reason, r.to_string()));
            FetchError::Refused { refused: reasons.len(), reason }.to_string()
        };
        assert!(said(&["another network"]).contains("--network"));
        for reasons in [&["key is not trusted"][..], &["another network", "key is not trusted"], &[""]] {
            let said = said(reasons);
            assert!(said.contains("trusted file") && !said.contains("--network"), "{said}");
        }
    }
}
