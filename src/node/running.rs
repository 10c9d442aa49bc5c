//! What changes while a node runs.

use crate::net::{ParsePeerAddrError, PeerAddr};
use crate::node::{ConfigError, Node};

impl Node {
    /// Changes [`Config::upload_limit`](crate::Config::upload_limit): most bytes a second that are
    /// sent to all peers together, `None` for no limit. Running transfers follow within a second.
    /// Does not block.
    pub fn set_upload_limit(&self, bytes_per_s: Option<u64>) {
        self.services.upload.set(bytes_per_s);
    }

    /// Changes [`Config::download_limit`](crate::Config::download_limit): most bytes a second that
    /// are fetched from all peers together, `None` for no limit. Running fetches follow within a
    /// second. Does not block.
    pub fn set_download_limit(&self, bytes_per_s: Option<u64>) {
        self.client.ctx.throttle.set(bytes_per_s);
    }

    /// Adds to [`Config::peers`](crate::Config::peers): `peer` is contacted at once, and again every
    /// interval while the node runs. One that was added before is contacted once more now. Does not
    /// block; a peer that cannot be reached is a line in the log.
    ///
    /// # Errors
    /// - [`ConfigError::Peer`]: the text is no address
    /// - [`ConfigError::TooManyPeers`]: 256 are named already
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let lan = gpb::testing::Lan::new()?;
    /// # let other = lan.start(lan.builder().network("here"))?;
    /// # let elsewhere = gpb::testing::Lan::new()?;
    /// # let node = elsewhere.start(elsewhere.builder().network("here"))?;
    /// # let addr = other.addrs()[0];
    /// // An address that came with an invitation.
    /// node.add_peer(addr)?;
    /// assert_eq!(node.peers(Duration::from_secs(5))?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_peer<P>(&self, peer: P) -> Result<(), ConfigError>
    where
        P: TryInto<PeerAddr>,
        ParsePeerAddrError: From<P::Error>,
    {
        let peer = peer.try_into().map_err(|e| ConfigError::Peer(e.into()))?;
        self.services.discovery.add_peer(peer).map_err(ConfigError::TooManyPeers)
    }
}
