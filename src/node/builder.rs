//! The settings of a node, step by step.

use std::path::PathBuf;
use std::time::Duration;

use crate::content::Pattern;
use crate::identity::{KeyPrefix, Keypair};
use crate::net::{Beacon, BindAddr, Interface, ParseBindAddrError, ParseInterfaceError, ParsePeerAddrError, PeerAddr};
use crate::node::parts::NodeParts;
use crate::node::{Config, ConfigError, DhtOptions, KeySource, Node, Share, StartError, State};
use crate::runtime::keystore::Trust;

/// Sets the fields of a [`Config`] one by one; what is not set keeps its default.
///
/// A text that is no peer, no interface or no address is an error of [`start`](Self::start).
///
/// ```no_run
/// use gpb::{Node, Share, Trust};
///
/// let node = Node::builder()
///     .dir("/data")
///     .share(Share::Directory)
///     .trust(Trust::file("/etc/gpb/trusted")?)
///     .peer("lab3")
///     .upload_limit(10_000_000)
///     .start()?;
/// # Ok::<(), gpb::StartError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "it begins with `start`"]
pub struct NodeBuilder {
    config: Config,
    /// The first text that could not be read.
    error: Option<ConfigError>,
}

impl NodeBuilder {
    /// [`Config::dir`]: the directory that is shared, and where fetched files go.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.config.dir = Some(dir.into());
        self
    }

    /// Adds to [`Config::dirs`]: a directory whose names begin with `name`.
    ///
    /// ```
    /// # let lan = gpb::testing::Lan::new()?;
    /// # let home = std::env::temp_dir().join(format!("dir-as-{}", std::process::id()));
    /// # let (models, notes) = (home.join("models"), home.join("notes"));
    /// # std::fs::create_dir_all(&models)?;
    /// # std::fs::create_dir_all(&notes)?;
    /// # std::fs::write(models.join("a.bin"), "a")?;
    /// # std::fs::write(notes.join("b.txt"), "b")?;
    /// use gpb::Share;
    ///
    /// # let builder = gpb::Node::builder().state(gpb::State::Memory).bind("127.0.0.1");
    /// let builder = builder.dir_as("models", &models).dir_as("notes", &notes).share(Share::Directory);
    /// # let node = lan.start(builder)?;
    /// # node.wait_ready(std::time::Duration::from_secs(20));
    /// let catalogue = node.catalogue();
    /// let names: Vec<&str> = catalogue.iter().map(|file| file.path).collect();
    /// assert_eq!(names, ["models/a.bin", "notes/b.txt"]);
    /// # drop(node);
    /// # std::fs::remove_dir_all(&home)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dir_as(mut self, name: impl Into<String>, dir: impl Into<PathBuf>) -> Self {
        self.config.dirs.push((name.into(), dir.into()));
        self
    }

    /// [`Config::create_dir`]: whether the directory is made if it is missing.
    pub fn create_dir(mut self, create: bool) -> Self {
        self.config.create_dir = create;
        self
    }

    /// [`Config::share`]: what other nodes may have of this one.
    pub fn share(mut self, share: Share) -> Self {
        self.config.share = share;
        self
    }

    /// [`Config::bind`]: the address to listen on, such as `"127.0.0.1"` or an
    /// [`IpAddr`](std::net::IpAddr).
    pub fn bind<A>(mut self, addr: A) -> Self
    where
        A: TryInto<BindAddr>,
        ParseBindAddrError: From<A::Error>,
    {
        match addr.try_into() {
            Ok(BindAddr(addr)) => self.config.bind = Some(addr),
            Err(e) => self.note(ConfigError::Bind(e.into())),
        }
        self
    }

    /// [`Config::port`]: the TCP port to listen on, 0 for any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.config.port = port;
        self
    }

    /// [`Config::state`]: the directory of the index and, by default, of the key, or
    /// [`State::Memory`].
    pub fn state(mut self, state: impl Into<State>) -> Self {
        self.config.state = state.into();
        self
    }

    /// [`KeySource::File`]: the PKCS#8 PEM file of the key, made on first use.
    pub fn key_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.config.key = KeySource::File(file.into());
        self
    }

    /// [`KeySource::Key`]: the key.
    pub fn key(mut self, keypair: Keypair) -> Self {
        self.config.key = KeySource::Key(keypair);
        self
    }

    /// [`Config::trust`]: the keys that the node talks to. Keep a clone to change them later.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.config.trust = trust;
        self
    }

    /// Adds to [`Config::never_share`]: a file that is never offered and never overwritten.
    pub fn never_share(mut self, file: impl Into<PathBuf>) -> Self {
        self.config.never_share.push(file.into());
        self
    }

    /// Adds to [`Config::peers`]: a peer to contact by address, such as `"lab3"`,
    /// `"10.0.0.7:27420"` or a [`SocketAddr`](std::net::SocketAddr).
    pub fn peer<P>(mut self, peer: P) -> Self
    where
        P: TryInto<PeerAddr>,
        ParsePeerAddrError: From<P::Error>,
    {
        match peer.try_into() {
            Ok(peer) => self.config.peers.push(peer),
            Err(e) => self.note(ConfigError::Peer(e.into())),
        }
        self
    }

    /// [`Config::peer_file`]: a file that names further peers, such as `"/etc/gpb/peers"`.
    pub fn peer_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.config.peer_file = Some(file.into());
        self
    }

    /// [`Config::remember`]: whether proved peers are remembered for the next start.
    pub fn remember(mut self, remember: bool) -> Self {
        self.config.remember = remember;
        self
    }

    /// [`Config::multicast`]: whether peers are sought by multicast.
    pub fn multicast(mut self, multicast: bool) -> Self {
        self.config.multicast = multicast;
        self
    }

    /// Adds to [`Config::interfaces`]: an interface for multicast, such as `"eth0"` or
    /// `"10.0.0.1"`.
    pub fn interface<I>(mut self, interface: I) -> Self
    where
        I: TryInto<Interface>,
        ParseInterfaceError: From<I::Error>,
    {
        match interface.try_into() {
            Ok(interface) => self.config.interfaces.push(interface),
            Err(e) => self.note(ConfigError::Interface(e.into())),
        }
        self
    }

    /// [`Config::hops`]: how far announces go by multicast.
    pub fn hops(mut self, hops: u8) -> Self {
        self.config.hops = hops;
        self
    }

    /// [`Config::dns_sd`]: whether the node publishes itself and looks for others by DNS-SD.
    pub fn dns_sd(mut self, dns_sd: bool) -> Self {
        self.config.dns_sd = dns_sd;
        self
    }

    /// [`Config::dht`]: whether the node looks for its group in a DHT, and publishes itself there.
    pub fn dht(mut self, dht: DhtOptions) -> Self {
        self.config.dht = Some(dht);
        self
    }

    /// [`Config::network`]: the name of the network.
    pub fn network(mut self, network: impl Into<String>) -> Self {
        self.config.network = network.into();
        self
    }

    /// [`Config::timeout`]: a fetch fails when it made no progress for this time: no verified chunk, and not 64 KiB.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.timeout = timeout;
        self
    }

    /// [`Config::upload_limit`]: most bytes a second that are sent.
    pub fn upload_limit(mut self, bytes_per_s: u64) -> Self {
        self.config.upload_limit = Some(bytes_per_s);
        self
    }

    /// [`Config::download_limit`]: most bytes a second that are fetched.
    pub fn download_limit(mut self, bytes_per_s: u64) -> Self {
        self.config.download_limit = Some(bytes_per_s);
        self
    }

    /// Adds to [`Config::mirror`]: what of the files of others is kept here, such as `"models/**"`.
    pub fn mirror(mut self, what: impl AsRef<str>) -> Self {
        let text = what.as_ref();
        match Pattern::parse(text) {
            Ok(pattern) => self.config.mirror.push(pattern),
            Err(source) => self.note(ConfigError::Mirror { text: text.into(), source }),
        }
        self
    }

    /// Adds to [`Config::mirror_from`]: a peer whose names are mirrored.
    pub fn mirror_from(mut self, peer: impl Into<KeyPrefix>) -> Self {
        self.config.mirror_from.push(peer.into());
        self
    }

    /// [`Config::retain`]: how long copies stay that are not used.
    pub fn retain(mut self, time: Duration) -> Self {
        self.config.retain = Some(time);
        self
    }

    /// [`Config::quota`]: most bytes of copies.
    pub fn quota(mut self, bytes: u64) -> Self {
        self.config.quota = Some(bytes);
        self
    }

    /// [`Config::raise_file_limit`]: whether the start raises the limit of open files.
    pub fn raise_file_limit(mut self, raise: bool) -> Self {
        self.config.raise_file_limit = raise;
        self
    }

    /// Starts the node; see [`Node::start`].
    ///
    /// # Errors
    /// [`StartError`]: the setting, file or port that cannot be used, and why.
    pub fn start(self) -> Result<Node, StartError> {
        self.run(None)
    }

    /// Starts the node over `beacon`, which carries the announces in place of multicast.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[doc(hidden)]
    pub fn start_on(self, beacon: impl Beacon + 'static) -> Result<Node, StartError> {
        self.run(Some(Box::new(beacon)))
    }

    fn run(self, beacon: Option<Box<dyn Beacon>>) -> Result<Node, StartError> {
        match self.error {
            Some(error) => Err(error.into()),
            None => Node::run(NodeParts::open(self.config, beacon)?),
        }
    }

    fn note(&mut self, error: ConfigError) {
        self.error.get_or_insert(error);
    }
}
