//! Why a node does not start.

use std::io;
use std::path::PathBuf;

use crate::net::SecureError;
use crate::runtime::keystore::KeyError;
use crate::server::ServerError;

/// Why a node does not start. Each message is one line with the thing, the cause and the next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting that cannot be used.
    #[error("{0}")]
    Config(String),
    /// The key file or the trusted file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key cannot be used for TLS.
    #[error("cannot use the key for TLS: {0}")]
    Tls(#[from] SecureError),
    /// The shared directory.
    #[error("cannot use directory {path}: {source}; create it, or name another one with --dir")]
    Dir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The state directory.
    #[error("cannot use state directory {path}: {source}; name another one with --state")]
    State {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The TCP port.
    #[error(transparent)]
    Listen(#[from] ServerError),
    /// No thread, no socket.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}
