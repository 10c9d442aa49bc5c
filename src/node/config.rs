//! The settings of a node.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::identity::Keypair;
use crate::limits::PROGRESS_TIMEOUT;
use crate::net::{Interface, PeerAddr};
use crate::runtime::keystore::Trust;

/// The settings of a [`Node`](crate::Node). Every field has a default;
/// [`NodeBuilder`](crate::NodeBuilder) sets them one by one.
///
/// ```no_run
/// use gpb::{Config, Node, Share};
///
/// let config = Config {
///     dir: "/data".into(),
///     share: Share::Directory,
///     peers: vec!["lab3".parse()?, "10.0.0.7:27420".parse()?],
///     ..Config::default()
/// };
/// let node = Node::start(config)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory that is shared, and where fetched files go. Default `/tmp/dataset`.
    ///
    /// Unfinished files lie in its subdirectory `.gpb`, which is never shared.
    pub dir: PathBuf,
    /// Whether a fetch makes `dir` if it is missing. Default false, since a missing directory may
    /// be a file system that is not mounted.
    pub create_dir: bool,
    /// What other nodes may have of this one. Default: what it fetches.
    pub share: Share,
    /// The address to listen on; announces go out only on interfaces that it covers. Default: all,
    /// IPv6 and IPv4.
    pub bind: Option<IpAddr>,
    /// The TCP port to listen on, 0 for any free one. Default 0.
    pub port: u16,
    /// The directory of the index and, by default, of the key. Default `$XDG_STATE_HOME/gpb`, else
    /// `~/.local/state/gpb`.
    pub state: PathBuf,
    /// Where the key comes from. Default: `key.pem` in `state`, made on first use.
    pub key: KeySource,
    /// The keys that the node talks to, besides its own. They may change while it runs: those of a
    /// file count within half a second of a change, see [`Trust::file`]. Default [`Trust::open`]: the
    /// node talks, authenticated, to every node of its network.
    pub trust: Trust,
    /// Further files that are never offered and never overwritten by a fetch, such as the program's
    /// log; a directory stands for all below it. The state directory, the key file and the trusted
    /// file are such files anyway. Default none.
    pub never_share: Vec<PathBuf>,
    /// Peers to contact by address, besides the peers that multicast finds; at most 256. Each tells
    /// of the peers that it knows. Default none.
    pub peers: Vec<PeerAddr>,
    /// Whether peers are sought by multicast. Default true.
    pub multicast: bool,
    /// The interfaces for multicast. One that is missing is logged and waited for. Default: all.
    pub interfaces: Vec<Interface>,
    /// The name of the network, 1 to 64 bytes: only nodes of one network see each other. No secret.
    /// Default `gpb`.
    pub network: String,
    /// A fetch fails when it made no progress for this time, more than 0: no verified chunk, and not
    /// 64 KiB. Default 10 s.
    pub timeout: Duration,
    /// Most bytes a second that are sent to all peers together; 0 sends none. Default: no limit.
    pub upload_limit: Option<u64>,
    /// Most bytes a second that are fetched from all peers together; 0 fetches none. Default: no
    /// limit.
    pub download_limit: Option<u64>,
}

/// What other nodes may have of a [`Node`](crate::Node).
///
/// ```
/// use gpb::{Config, Share};
///
/// assert_eq!(Config::default().share, Share::Fetched);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Nothing: the node does not listen.
    Nothing,
    /// What it fetches, from the first chunk until the node ends, and nothing else of the
    /// directory. Only whole files are listed.
    Fetched,
    /// The whole directory. The catalogue follows as files appear, change and vanish.
    Directory,
}

/// Where the key of a [`Node`](crate::Node) comes from.
///
/// ```
/// use gpb::{Config, KeySource, Keypair};
///
/// let key = Keypair::generate();
/// let config = Config { key: KeySource::Key(key), ..Config::default() };
/// ```
#[derive(Debug, Clone)]
pub enum KeySource {
    /// `key.pem` in the state directory, made on first use with mode 0600.
    State,
    /// This PKCS#8 PEM file, made on first use with mode 0600.
    File(PathBuf),
    /// This key.
    Key(Keypair),
}

impl Default for Config {
    fn default() -> Self {
        Config {
            dir: PathBuf::from("/tmp/dataset"),
            create_dir: false,
            share: Share::Fetched,
            bind: None,
            port: 0,
            state: default_state(),
            key: KeySource::State,
            trust: Trust::open(),
            never_share: Vec::new(),
            peers: Vec::new(),
            multicast: true,
            interfaces: Vec::new(),
            network: "gpb".into(),
            timeout: PROGRESS_TIMEOUT,
            upload_limit: None,
            download_limit: None,
        }
    }
}

/// `$XDG_STATE_HOME/gpb`, else `~/.local/state/gpb`, else a temporary directory.
fn default_state() -> PathBuf {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    match (absolute("XDG_STATE_HOME"), absolute("HOME")) {
        (Some(state), _) => state.join("gpb"),
        (None, Some(home)) => home.join(".local/state/gpb"),
        (None, None) => std::env::temp_dir().join("gpb-state"),
    }
}
