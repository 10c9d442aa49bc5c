//! The settings of a node.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::content::{Pattern, RelPath};
use crate::identity::{KeyPrefix, Keypair};
use crate::limits::PROGRESS_TIMEOUT;
use crate::net::{Interface, PeerAddr};
use crate::node::ConfigError;
use crate::proto::DhtSecret;
use crate::runtime::keystore::Trust;

/// The settings of a [`Node`](crate::Node). Every field has a default;
/// [`NodeBuilder`](crate::NodeBuilder) sets them one by one.
///
/// ```no_run
/// use gpb::{Config, Node, Share};
///
/// let config = Config {
///     dir: Some("/data".into()),
///     share: Share::Directory,
///     peers: vec!["lab3".parse()?, "10.0.0.7:27420".parse()?],
///     ..Config::default()
/// };
/// let node = Node::start(config)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory that is shared, and where fetched files go. Default none: then a fetch needs a
    /// place of its own, as [`Get::to_file`](crate::Get::to_file) gives it.
    ///
    /// Unfinished files lie in its subdirectory `.gpb`, which is never shared.
    pub dir: Option<PathBuf>,
    /// Further directories, each under a first component of its own, which is all that its names begin
    /// with: the file `b.bin` of the directory `models` is `models/b.bin` for other nodes, and a fetch
    /// of `models/b.bin` goes there. What `dir` has below that name is hidden. They are shared with
    /// `dir`, with the same limits, own files and state. At most 64. Default none.
    pub dirs: Vec<(String, PathBuf)>,
    /// Whether a start that shares `dir`, or a fetch into it, makes it if it is missing. Default false,
    /// since a missing directory may
    /// be a file system that is not mounted.
    pub create_dir: bool,
    /// What other nodes may have of this one. Default: what it fetches.
    pub share: Share,
    /// The address to listen on; announces go out only on interfaces that it covers. Default: all,
    /// IPv6 and IPv4.
    pub bind: Option<IpAddr>,
    /// The TCP port to listen on, 0 for any free one. Default 0.
    pub port: u16,
    /// Where the index is kept and, by default, the key. Default [`State::User`].
    pub state: State,
    /// Where the key comes from. Default: `key.pem` in `state`, made on first use.
    pub key: KeySource,
    /// The keys that the node talks to, besides its own. They may change while it runs: a change of a
    /// file counts within half a second, see [`Trust::file`]. Default [`Trust::open`]: the
    /// node talks, authenticated, to every node of its network.
    pub trust: Trust,
    /// Further files that are never offered and never overwritten by a fetch, such as the program's
    /// log; a directory stands for all below it. The state directory, the key file and the trusted
    /// file are such files anyway. Default none.
    pub never_share: Vec<PathBuf>,
    /// Peers to contact by address, besides the peers that multicast finds; at most 256. Each tells
    /// of the peers that it knows. Default none.
    pub peers: Vec<PeerAddr>,
    /// A file that names further peers to contact: one `HOST[:PORT]` a line, with comments behind `#`;
    /// at most 256. A name is looked up again at each contact, and all of its addresses are contacted.
    /// The file is looked at every 500 ms; a line that names no peer is logged and left out, and a
    /// file that vanishes or cannot be read leaves its last peers in force. Default none.
    pub peer_file: Option<PathBuf>,
    /// Whether peers that TLS proved are remembered in the state directory, with their addresses, and
    /// contacted at the next start, before any announce arrives: at most 256, each for 30 days.
    /// Nothing is remembered with [`State::Memory`]. Default true.
    pub remember: bool,
    /// Whether peers are sought by multicast. Default true.
    pub multicast: bool,
    /// The interfaces for multicast. One that is missing is logged and waited for. Remembered peers are
    /// dialed only where the way to them leaves by one of these; [`peers`](Self::peers), and peers that
    /// others name, wherever they are. Default: all.
    pub interfaces: Vec<Interface>,
    /// How far announces go by multicast, in hops, 1 to 32: with 1 to the hosts of the link, with N over
    /// N - 1 routers that route multicast. Then a node also speaks to the IPv6 group with site-local
    /// scope, ff05::4750:4231; the IPv4 group is the same. Broadcasts, and answers to one node, stay on
    /// the link. Default 1.
    pub hops: u8,
    /// Whether the node publishes itself, and looks for others, by DNS-SD (`_gpb._tcp` in multicast
    /// DNS), whatever [`multicast`](Self::multicast) says: any host on the link then reads its key,
    /// address and network. Needs the feature `dns-sd`. Default false.
    pub dns_sd: bool,
    /// Whether the node looks for its group in a DHT of BitTorrent (Mainline), and with
    /// [`Share::Directory`] publishes its addresses there. A closed group looks up its keys: a host that
    /// knows a key then learns its addresses. An open group needs a [secret](DhtOptions::secret), and is
    /// open to any node that finds it. The DHT speaks IPv4. Threads and UDP socket of `mainline` are
    /// not joined: they may outlive the node by a call, of some seconds. Needs the feature `dht`. Default none.
    pub dht: Option<DhtOptions>,
    /// The name of the network, 1 to 64 bytes: only nodes of one network see each other. No secret.
    /// Default `gpb`.
    pub network: String,
    /// A fetch fails when it made no progress for this time, more than 0: no verified chunk, and not
    /// 64 KiB. Default 10 s.
    pub timeout: Duration,
    /// Most bytes a second that are sent to all peers together; 0 sends next to nothing, and is not
    /// the same as no limit. Default: no limit.
    pub upload_limit: Option<u64>,
    /// Most bytes a second that are fetched from all peers together; 0 fetches next to nothing, and is
    /// not the same as no limit. Default: no limit.
    pub download_limit: Option<u64>,
    /// What of the files of others this node keeps copies of, each a name, a directory, a glob or a
    /// root: it fetches what matches, and new versions when they are whole. A wildcard takes no leading
    /// dot of a name. Default none.
    ///
    /// A copy is offered as one: what another node shares of its own under the name wins over it. Where
    /// sharers differ, what is here stays, and so does a file of the user's. What its sharer no longer
    /// lists stays until it expires. 10 % of the file system stays free. Needs
    /// [`Share::Directory`], a state directory, and in an open group [`mirror_from`](Self::mirror_from)
    /// and [`quota`](Self::quota).
    pub mirror: Vec<Pattern>,
    /// The peers whose names are mirrored, by key or the beginning of one; their contents come from
    /// all nodes. Default: all peers.
    pub mirror_from: Vec<KeyPrefix>,
    /// Copies that were not used for this time expire: mirrored ones that another node keeps, and copies
    /// of fetches with [`Life::Temporary`](crate::Life). Nothing else does, and none that was changed.
    /// A copy is used when it is fetched, asked for, given to a node, or opened here, as far as the
    /// file system tells. Needs [`Share::Directory`] and a state directory. Default: none expires.
    pub retain: Option<Duration>,
    /// Most bytes of copies that may expire: the ones expire first that were not used for the longest
    /// time. A mirror fetches nothing for which a copy would have to go that was used since, or that
    /// no other node has. Default: no bound.
    pub quota: Option<u64>,
    /// Whether the start raises the soft limit of open files of the whole process to the hard one.
    /// Each connection takes one, so the limit bounds how many peers are served at once. It stays
    /// raised when the node ends, and processes that are started inherit it. Default false.
    pub raise_file_limit: bool,
}

/// How a node uses a DHT; see [`Config::dht`].
///
/// ```
/// use gpb::{Config, DhtOptions};
///
/// let public = Config { dht: Some(DhtOptions::default()), ..Config::default() };
/// let own = DhtOptions { bootstrap: vec!["dht.example.org:6881".parse()?], ..DhtOptions::default() };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DhtOptions {
    /// What the nodes of the group know and others do not: its places in the DHT depend on it. Default
    /// none.
    pub secret: Option<DhtSecret>,
    /// The bootstrap nodes, at most 16. Default: those of the public DHT.
    ///
    /// Only addresses of the Internet are published and dialed. Where all of these nodes have private
    /// addresses, private ones are, too, and where all are on this host, loopback ones alone.
    pub bootstrap: Vec<PeerAddr>,
}

impl Config {
    /// The directories, each with the first component of its names, if they have one. A name of `dirs`
    /// that is none is left out.
    pub(super) fn places(&self) -> Vec<(Option<RelPath>, PathBuf)> {
        let named = self.dirs.iter().filter_map(|(name, dir)| Some((Some(RelPath::new(name).ok()?), dir.clone())));
        self.dir.iter().map(|dir| (None, dir.clone())).chain(named).collect()
    }
}

/// What other nodes may have of a [`Node`](crate::Node).
///
/// ```
/// use gpb::{Config, Share};
///
/// assert_eq!(Config::default().share, Share::Fetched);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Share {
    /// Nothing: the node does not listen.
    Nothing,
    /// What it fetches, from the first chunk until the node ends, and nothing else of the
    /// directory. Only whole files are listed. After a restart nothing is offered: what was fetched
    /// before is shared again by a fetch of it, which finds it in place, or by
    /// [`Directory`](Share::Directory).
    Fetched,
    /// The whole of its directories. The catalogue follows as files appear, change and vanish.
    Directory,
}

/// Where a [`Node`](crate::Node) keeps what it knows from one start to the next: the index of files that
/// were hashed, and its key unless that is given.
///
/// ```no_run
/// use gpb::{Node, Share, State};
///
/// // Leaves nothing behind; each start has a new key.
/// let guest = Node::builder().state(State::Memory).start()?;
/// let app = Node::builder().state("/var/lib/app/gpb").start()?;
/// # Ok::<(), gpb::StartError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum State {
    /// `$XDG_STATE_HOME/gpb`, else `~/.local/state/gpb`: programs that use it are one identity, and
    /// only one of them at a time has the index. Where neither variable is an absolute path, the
    /// start fails with [`ConfigError::NoState`].
    #[default]
    User,
    /// This directory, made on first use with mode 0700.
    Dir(PathBuf),
    /// Nowhere: what is shared is hashed at each start.
    Memory,
}

impl Config {
    /// Whether copies are mirrored, or expire.
    pub(super) fn keeps_copies(&self) -> bool {
        !self.mirror.is_empty() || self.retain.is_some() || self.quota.is_some()
    }
}

impl State {
    /// The directory, if there is one.
    pub(super) fn path(&self) -> Result<Option<PathBuf>, ConfigError> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let of_user = || match (absolute("XDG_STATE_HOME"), absolute("HOME")) {
            (Some(state), _) => Ok(state.join("gpb")),
            (None, Some(home)) => Ok(home.join(".local/state/gpb")),
            (None, None) => Err(ConfigError::NoState),
        };
        match self {
            State::User => of_user().map(Some),
            State::Dir(dir) => Ok(Some(dir.clone())),
            State::Memory => Ok(None),
        }
    }
}

impl From<PathBuf> for State {
    fn from(dir: PathBuf) -> Self {
        State::Dir(dir)
    }
}

impl From<&PathBuf> for State {
    fn from(dir: &PathBuf) -> Self {
        State::Dir(dir.clone())
    }
}

impl From<&Path> for State {
    fn from(dir: &Path) -> Self {
        State::Dir(dir.into())
    }
}

impl From<&str> for State {
    fn from(dir: &str) -> Self {
        State::Dir(dir.into())
    }
}

impl From<String> for State {
    fn from(dir: String) -> Self {
        State::Dir(dir.into())
    }
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
#[non_exhaustive]
pub enum KeySource {
    /// `key.pem` in the state directory, made on first use with mode 0600; a new key for each start
    /// with [`State::Memory`].
    State,
    /// This PKCS#8 PEM file, made on first use with mode 0600.
    File(PathBuf),
    /// This key.
    Key(Keypair),
}

impl Default for Config {
    fn default() -> Self {
        Config {
            dir: None,
            dirs: Vec::new(),
            create_dir: false,
            share: Share::Fetched,
            bind: None,
            port: 0,
            state: State::User,
            key: KeySource::State,
            trust: Trust::open(),
            never_share: Vec::new(),
            peers: Vec::new(),
            peer_file: None,
            remember: true,
            multicast: true,
            interfaces: Vec::new(),
            hops: 1,
            dns_sd: false,
            dht: None,
            network: "gpb".into(),
            timeout: PROGRESS_TIMEOUT,
            upload_limit: None,
            download_limit: None,
            mirror: Vec::new(),
            mirror_from: Vec::new(),
            retain: None,
            quota: None,
            raise_file_limit: false,
        }
    }
}
