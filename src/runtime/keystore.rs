//! Key files and the file of trusted keys.

use std::path::{Path, PathBuf};

use crate::identity::{Keypair, PeerId};

/// Why a key file or a trusted file cannot be used. Each message names the file, the cause and the next step.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// To be split up.
    #[error("{0}")]
    Other(String),
}

/// Reads a key file; refuses one that others can read (`chmod 600 FILE`).
///
/// # Errors
/// [`KeyError`]
pub fn load_key(path: &Path) -> Result<Keypair, KeyError> {
    todo!("{path:?}")
}

/// Reads a key file, or makes it (0600, atomic, directories 0700) when there is none. True if it was made.
///
/// # Errors
/// [`KeyError`]
pub fn load_or_create_key(path: &Path) -> Result<(Keypair, bool), KeyError> {
    todo!("{path:?}")
}

/// Whom a node talks to. Reading is cheap and never blocks on I/O.
#[derive(Debug)]
pub struct Trust {
    file: Option<PathBuf>,
}

impl Trust {
    /// Everyone, authenticated.
    pub fn open() -> Self {
        Trust { file: None }
    }

    /// The keys in `file` and `own`.
    ///
    /// # Errors
    /// [`KeyError`]: the file is missing or a line is malformed; the message names file and line.
    pub fn closed(file: &Path, own: PeerId) -> Result<Self, KeyError> {
        todo!("{file:?} {own}")
    }

    /// Whether `peer` may talk to this node, and this node to it.
    pub fn allows(&self, peer: &PeerId) -> bool {
        todo!("{peer}")
    }

    /// Whether everyone is allowed.
    pub fn is_open(&self) -> bool {
        self.file.is_none()
    }

    /// Grows whenever the set changes, so that long sessions know when to ask `allows` again.
    pub fn generation(&self) -> u64 {
        todo!()
    }

    /// Looks at the file again and takes it over if it changed; a vanished or broken one leaves the last good set and
    /// is logged once. True if the set changed. Called about once a second by the node.
    pub fn reload(&self) -> bool {
        todo!()
    }
}
