//! What goes wrong with key files and trusted files.

use std::io;
use std::path::PathBuf;

use crate::identity::KeypairError;
use crate::runtime::limits::TRUSTED_KEYS_MAX;

/// Why a key file or a trusted file cannot be used. Each message names the file and the cause.
///
/// ```
/// use gpb::{Trust, error::KeyError};
///
/// let error = Trust::file("/no/such/file").unwrap_err();
/// assert!(matches!(error, KeyError::TrustedNotFound { .. }));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No key file there.
    #[error("key file {} not found", .file.display())]
    KeyNotFound {
        /// The file asked for.
        file: PathBuf,
    },
    /// No trusted file there.
    #[error("trusted file {} not found", .file.display())]
    TrustedNotFound {
        /// The file asked for.
        file: PathBuf,
    },
    /// The key file can be read or written by others than its owner.
    #[error("key file {} is open to others (mode {mode:03o})", .file.display())]
    Exposed {
        /// The key file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A directory or a special file.
    #[error("{} is {what}, not a file", .file.display())]
    NotAFile {
        /// The path.
        file: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// Longer than any such file is.
    #[error("{} is longer than {max} bytes, so it is no such file", .file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
        /// The bound in bytes.
        max: u64,
    },
    /// The content of a key file is no Ed25519 private key.
    #[error("key file {} is no usable key", .file.display())]
    Malformed {
        /// The key file.
        file: PathBuf,
        /// What was found.
        source: KeypairError,
    },
    /// The operating system gave no random numbers for a new key.
    #[error("cannot make a key")]
    Generate {
        /// What the operating system said.
        source: KeypairError,
    },
    /// There is a file already, and it is not to be overwritten.
    #[error("{} exists and is not overwritten", .file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// A line of a trusted file is no peer id.
    #[error("{}:{line}: `{found}` is no peer id of the form ed25519:<base64>", .file.display())]
    TrustedLine {
        /// The trusted file.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The beginning of what stands there, printable.
        found: String,
    },
    /// More keys than a node can hold.
    #[error("{} has more than {TRUSTED_KEYS_MAX} keys", .file.display())]
    TooManyKeys {
        /// The trusted file.
        file: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file or its directory cannot be written: a trouble of storage rather than of keys.
    #[error("cannot write {}", .file.display())]
    Write {
        /// The file or directory.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
}
