//! Setting up a node step by step.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::identity::Keypair;
use crate::net::Beacon;
use crate::node::{Config, KeySource, Node, Share, StartError};

/// Sets the fields of a [`Config`] one by one; what is not set keeps its default.
#[derive(Debug, Clone, Default)]
pub struct NodeBuilder {
    config: Config,
}

impl NodeBuilder {
    /// Directory that is shared, and where fetched files go.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.config.dir = dir.into();
        self
    }

    /// What other peers may have of this node.
    pub fn share(mut self, share: Share) -> Self {
        self.config.share = share;
        self
    }

    /// Address to listen on.
    pub fn bind(mut self, addr: IpAddr) -> Self {
        self.config.bind = Some(addr);
        self
    }

    /// TCP port to listen on, 0 for any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.config.port = port;
        self
    }

    /// Directory of the index cache and, by default, of the key.
    pub fn state(mut self, dir: impl Into<PathBuf>) -> Self {
        self.config.state = dir.into();
        self
    }

    /// PKCS#8 PEM file of the key, made on first use.
    pub fn key_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.config.key = KeySource::File(file.into());
        self
    }

    /// The key itself.
    pub fn key(mut self, keypair: Keypair) -> Self {
        self.config.key = KeySource::Key(keypair);
        self
    }

    /// A further file that is never offered and never overwritten by a fetch, such as the program's log.
    pub fn never_share(mut self, file: impl Into<PathBuf>) -> Self {
        self.config.never_share.push(file.into());
        self
    }

    /// File of trusted keys: makes a closed group.
    pub fn trusted(mut self, file: impl Into<PathBuf>) -> Self {
        self.config.trusted = Some(file.into());
        self
    }

    /// One more peer to contact by address, `HOST[:PORT]`.
    pub fn peer(mut self, peer: impl Into<String>) -> Self {
        self.config.peers.push(peer.into());
        self
    }

    /// Whether peers are sought by multicast.
    pub fn multicast(mut self, multicast: bool) -> Self {
        self.config.multicast = multicast;
        self
    }

    /// One more interface, by name or address; without any, all are used.
    pub fn interface(mut self, interface: impl Into<String>) -> Self {
        self.config.interfaces.push(interface.into());
        self
    }

    /// Name of the network.
    pub fn network(mut self, network: impl Into<String>) -> Self {
        self.config.network = network.into();
        self
    }

    /// A fetch ends when no byte came for so long.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.timeout = timeout;
        self
    }

    /// Most bytes a second that are sent to others.
    pub fn upload_limit(mut self, bytes_per_s: u64) -> Self {
        self.config.upload_limit = Some(bytes_per_s);
        self
    }

    /// Most bytes a second that are fetched.
    pub fn download_limit(mut self, bytes_per_s: u64) -> Self {
        self.config.download_limit = Some(bytes_per_s);
        self
    }

    /// Carries announces instead of multicast, such as one of a [`Hub`](crate::net::Hub) in tests, and starts the node;
    /// see [`Node::start`].
    ///
    /// # Errors
    /// [`StartError`]
    pub fn start_on(self, beacon: impl Beacon + 'static) -> Result<Node, StartError> {
        Node::start_with(self.config, Some(Box::new(beacon)))
    }

    /// Starts the node; see [`Node::start`].
    ///
    /// # Errors
    /// [`StartError`]
    pub fn start(self) -> Result<Node, StartError> {
        Node::start(self.config)
    }
}
