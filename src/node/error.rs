//! Why a node does not start.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::content::PatternError;
use crate::limits::{DHT_BOOTSTRAP_MAX, HOPS_MAX, NETWORK_LEN_MAX, STATIC_PEERS_MAX};
use crate::net::{ParseBindAddrError, ParseInterfaceError, ParsePeerAddrError};
use crate::node::limits::DIRS_MAX;
use crate::runtime::keystore::KeyError;
use crate::server::ServerError;

/// Why a node does not start.
///
/// Each message names the thing and the cause on one line; the cause that another library or the
/// system gave is the [`source`](std::error::Error::source).
///
/// ```
/// use gpb::{Node, StartError, error::ConfigError};
///
/// let error = Node::builder().network("").start().unwrap_err();
/// assert!(matches!(error, StartError::Config(ConfigError::Network(_))));
/// assert_eq!(error.to_string(), "`` is no name of a network: it has 1 to 64 bytes");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key file, the trusted file or the peer file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key cannot be used for TLS.
    #[error("cannot use the key for TLS")]
    Tls(#[source] Box<dyn Error + Send + Sync>),
    /// The shared directory cannot be used.
    #[error("cannot use directory {}", .path.display())]
    Dir {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The state directory cannot be used.
    #[error("cannot use state directory {}", .path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The TCP port cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ServerError),
    /// The system does not give what multicast needs. An interface that cannot be used is no error.
    #[error("multicast cannot be used")]
    Multicast(#[source] io::Error),
    /// The system gave no thread or no socket.
    #[error("cannot start")]
    System(#[from] io::Error),
}

/// A setting of [`Config`](crate::Config) that cannot be used.
///
/// ```
/// use gpb::{Node, StartError, error::ConfigError};
/// use std::time::Duration;
///
/// let error = Node::builder().timeout(Duration::ZERO).start().unwrap_err();
/// assert!(matches!(error, StartError::Config(ConfigError::Timeout(_))));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No name of a network.
    #[error("`{}` is no name of a network: it has 1 to {NETWORK_LEN_MAX} bytes", .0.escape_debug())]
    Network(String),
    /// A timeout that would end every fetch at once.
    #[error("a timeout of {0:?} would end every fetch")]
    Timeout(Duration),
    /// A directory is to be shared, and none is named.
    #[error("no directory is named that could be shared")]
    NoDir,
    /// No name of a directory: one component, without `/`.
    #[error("`{}` is no name of a directory: it is one component of a path", .0.escape_debug())]
    DirName(String),
    /// Two directories have one name.
    #[error("two directories are named `{}`", .0.escape_debug())]
    SameDir(String),
    /// More named directories than a node takes.
    #[error("{0} directories are named, more than {DIRS_MAX}")]
    TooManyDirs(usize),
    /// There is no place for key and index: [`State::User`](crate::State::User) without a user.
    #[error("no place for key and index: neither HOME nor XDG_STATE_HOME is an absolute path")]
    NoState,
    /// What is to be mirrored is no pattern.
    #[error("`{}` cannot be mirrored", .text.escape_debug())]
    Mirror {
        /// The text.
        text: String,
        /// What is wrong with it.
        source: PatternError,
    },
    /// Copies are kept or expire only where a directory is shared, and recorded.
    #[error("copies are kept only in a shared directory, by a node with a state directory")]
    MirrorPlace,
    /// In an open group any host can offer any name and any number of files.
    #[error("a mirror in an open group needs the peers whose names it mirrors, and a quota")]
    MirrorOpen,
    /// No address of a peer.
    #[error(transparent)]
    Peer(#[from] ParsePeerAddrError),
    /// No address to listen on.
    #[error(transparent)]
    Bind(#[from] ParseBindAddrError),
    /// No interface.
    #[error(transparent)]
    Interface(#[from] ParseInterfaceError),
    /// No number of hops.
    #[error("{0} hops are not between 1 and {HOPS_MAX}")]
    Hops(u8),
    /// In a DHT an open group without a secret would meet all others of its name.
    #[error("an open group meets in the DHT only under a secret")]
    DhtOpen,
    /// More nodes of a DHT to begin with than a node takes.
    #[error("{0} nodes of the DHT are named, more than {DHT_BOOTSTRAP_MAX}")]
    TooManyDhtNodes(usize),
    /// What this feature of the crate brings, which is not built in.
    #[error("this program is built without the feature {0}")]
    NotBuilt(&'static str),
    /// More named peers than a node contacts.
    #[error("{0} peers are named, more than {STATIC_PEERS_MAX}")]
    TooManyPeers(usize),
}
