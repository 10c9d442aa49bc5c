//! What changes while a node runs.

use crate::content::{FileId, RelPath};
use crate::net::{ParsePeerAddrError, PeerAddr};
use crate::node::{ConfigError, Node};
use crate::share::PublishError;
use crate::store::{FetchedFile, place_of};

impl Node {
    /// Offers a file of the shared directory that its writer has closed, without the half second of
    /// quiet that other files wait for, and returns its identity. Blocks while it is hashed, after
    /// which other nodes find it; what is offered already in this state returns at once.
    ///
    /// Put a file in place with a rename, or publish it after the last write: one that changes while it
    /// is hashed is hashed again twice, and then an error.
    ///
    /// # Errors
    /// [`PublishError`]: the node shares no directory, there is no such file, or it is none that is
    /// shared
    ///
    /// ```
    /// # let lan = gpb::testing::Lan::new()?;
    /// # let node = lan.sharing(&[])?;
    /// # let other = lan.node()?;
    /// # let dir = node.config().dir.clone().unwrap_or_default();
    /// std::fs::write(dir.join("result.csv"), "a,b\n")?;
    /// let id = node.publish("result.csv")?;
    /// assert!(node.is_here(&id));
    /// let report = other.fetch(id)?.wait()?;
    /// assert_eq!(report.fetched[0].path.as_str(), "result.csv");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish(&self, path: impl AsRef<str>) -> Result<FileId, PublishError> {
        self.services.sharers.publish(&named(path.as_ref())?)
    }

    /// Offers a file of the shared directory no longer until it changes, is published or fetched, or
    /// the node starts again; the file stays where it is. Returns whether it was offered. When this
    /// returns, no other node finds it here; chunks that were asked for before may still be sent.
    ///
    /// # Errors
    /// [`PublishError`]: the node shares no directory, or the text is no name
    pub fn forget(&self, path: impl AsRef<str>) -> Result<bool, PublishError> {
        let name = named(path.as_ref())?;
        let was_shared = self.services.sharers.forget(&name)?;
        // What was fetched is offered besides, by its identity.
        let dirs = self.config.places();
        let place = place_of(dirs.iter().map(|(name, _)| name.as_ref()), &name);
        let place = place.and_then(|(number, local)| Some((dirs.get(number)?.1.as_path(), local)));
        let fetched = self.client.ctx.fetched.as_ref().zip(place);
        let was_fetched = fetched.is_some_and(|(fetched, (dir, local))| fetched.remove_at(dir, &local));
        Ok(was_shared || was_fetched)
    }

    /// Whether this node has the whole of a content and offers it: in the shared directory, or
    /// fetched since the start. Does not block.
    pub fn is_here(&self, id: &FileId) -> bool {
        let fetched = self.client.ctx.fetched.as_ref().and_then(|fetched| fetched.get(id));
        self.catalogue.get().find(id).next().is_some() || matches!(fetched, Some(FetchedFile::Whole(..)))
    }

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

fn named(text: &str) -> Result<RelPath, PublishError> {
    RelPath::new(text).map_err(|source| PublishError::Name { text: text.into(), source })
}
