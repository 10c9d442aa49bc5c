//! What a node is told before it starts.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::identity::Keypair;
use crate::limits::PROGRESS_TIMEOUT;

/// The settings of a [`Node`](crate::Node). Every field has a default; the [builder](crate::NodeBuilder) sets them one by one.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory that is shared, and where fetched files go. Default `/tmp/dataset`.
    pub dir: PathBuf,
    /// What other peers may have of this node. Default: what it fetches.
    pub share: Share,
    /// Address to listen on; announces go out only on interfaces that it covers. Default: all, IPv6 and IPv4.
    pub bind: Option<IpAddr>,
    /// TCP port to listen on, 0 for any free one. Default 0.
    pub port: u16,
    /// Directory of the index cache and, by default, of the key. Default `$XDG_STATE_HOME/gpb`, or
    /// `~/.local/state/gpb`.
    pub state: PathBuf,
    /// Where the key comes from. Default: `key.pem` in the state directory, made on first use.
    pub key: KeySource,
    /// File of trusted keys, one `ed25519:<base64> comment` a line. Set, it makes a closed group: only these keys and the
    /// own one are talked to. Default: everyone is talked to, authenticated.
    pub trusted: Option<PathBuf>,
    /// Further files of the program around the node that are never offered and never overwritten by a fetch, such as
    /// its log and its configuration; a directory stands for all below it. The state directory, the key file and the
    /// trusted file are such files anyway. Default none.
    pub never_share: Vec<PathBuf>,
    /// Peers to contact by address, `HOST[:PORT]`, besides those that discovery finds; at most
    /// [`STATIC_PEERS_MAX`](crate::limits::STATIC_PEERS_MAX). Default none.
    pub peers: Vec<String>,
    /// Whether peers are sought by multicast. Default true.
    pub multicast: bool,
    /// Names or addresses of the interfaces to announce on. Default: all.
    pub interfaces: Vec<String>,
    /// Only nodes of the same network see each other. Not a secret. Default `gpb`.
    pub network: String,
    /// A fetch ends when no byte came for so long, at most [`WAIT_MAX`](crate::limits::WAIT_MAX). Default 10 s.
    pub timeout: Duration,
    /// Most bytes a second that are sent to others, all together. Default: no limit.
    pub upload_limit: Option<u64>,
    /// Most bytes a second that are fetched, all together. Default: no limit.
    pub download_limit: Option<u64>,
}

/// What other peers may have of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Nothing: the node does not listen.
    Nothing,
    /// What it fetches, while it fetches it and afterwards; nothing else of the directory. What is whole is listed.
    Fetched,
    /// The whole directory, kept true as files come, change and go.
    Directory,
}

/// Where a node's key comes from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// `key.pem` in the state directory, made on first use (mode 0600).
    State,
    /// This PKCS#8 PEM file, made on first use (mode 0600).
    File(PathBuf),
    /// This key.
    Key(Keypair),
}

impl Default for Config {
    fn default() -> Self {
        Config {
            dir: PathBuf::from("/tmp/dataset"),
            share: Share::Fetched,
            bind: None,
            port: 0,
            state: default_state(),
            key: KeySource::State,
            trusted: None,
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

/// `$XDG_STATE_HOME/gpb`, `~/.local/state/gpb`, or a directory of the temporary one when there is no home.
fn default_state() -> PathBuf {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    match (absolute("XDG_STATE_HOME"), absolute("HOME")) {
        (Some(state), _) => state.join("gpb"),
        (None, Some(home)) => home.join(".local/state/gpb"),
        (None, None) => std::env::temp_dir().join("gpb-state"),
    }
}
