//! A local network in memory.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::identity::Keypair;
use crate::net::{Beacon, Hub, To};
use crate::node::{Node, NodeBuilder, Share, StartError};
use crate::sync::lock;
use crate::testing::peer::FaultyPeer;

/// A local network in memory: its nodes find each other at once, without multicast.
///
/// Announces go through memory, files through TCP on `127.0.0.1`. The nodes keep their files in a
/// temporary directory, which is removed when the LAN is dropped; declare it before its nodes.
///
/// ```
/// use std::time::Duration;
/// use gpb::testing::Lan;
///
/// let lan = Lan::new()?;
/// let nodes = lan.nodes(2)?;
/// assert_eq!(nodes[0].peers(Duration::from_secs(20))?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Lan {
    hub: Hub,
    dir: PathBuf,
    nodes: AtomicU64,
    /// The datagrams that announce the faulty peers, for nodes that start later.
    announces: Mutex<Vec<Vec<u8>>>,
}

impl Lan {
    /// A network that loses nothing.
    ///
    /// # Errors
    /// The temporary directory cannot be made.
    pub fn new() -> io::Result<Self> {
        Self::on(Hub::new())
    }

    /// A network that loses each announce on its way to each node with this probability, by dice
    /// that `seed` determines.
    ///
    /// # Errors
    /// The temporary directory cannot be made.
    ///
    /// ```
    /// use std::time::Duration;
    /// use gpb::testing::Lan;
    ///
    /// let lan = Lan::lossy(0.2, 7)?;
    /// let nodes = lan.nodes(2)?;
    /// assert_eq!(nodes[0].peers(Duration::from_secs(60))?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lossy(probability: f64, seed: u64) -> io::Result<Self> {
        Self::on(Hub::lossy(probability, seed))
    }

    fn on(hub: Hub) -> io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("lan.gpb.{:016x}", rand::random::<u64>()));
        fs::create_dir(&dir)?;
        Ok(Lan { hub, dir, nodes: AtomicU64::new(0), announces: Mutex::default() })
    }

    /// A builder for one more node: with a key, a state directory and an empty directory of its
    /// own, on `127.0.0.1`, in the network `gpb`. It shares what it fetches.
    pub fn builder(&self) -> NodeBuilder {
        let home = self.dir.join(self.nodes.fetch_add(1, Ordering::Relaxed).to_string());
        Node::builder()
            .dir(home.join("dir"))
            .create_dir(true)
            .state(home.join("state"))
            .key(Keypair::generate())
            .bind(LOCALHOST)
    }

    /// Starts a node in this network.
    ///
    /// # Errors
    /// As [`NodeBuilder::start`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use gpb::testing::Lan;
    ///
    /// let lan = Lan::new()?;
    /// let node = lan.start(lan.builder().timeout(Duration::from_millis(100)))?;
    /// assert!(node.fetch("a")?.wait().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start(&self, builder: NodeBuilder) -> Result<Node, StartError> {
        let node = builder.start_on(self.hub.join(LOCALHOST))?;
        let mut beacon = self.hub.join(LOCALHOST);
        lock(&self.announces).iter().for_each(|announce| beacon.send(announce, To::Group));
        Ok(node)
    }

    /// Starts a node with an empty directory, which fetches and shares what it fetched.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn node(&self) -> Result<Node, StartError> {
        self.start(self.builder())
    }

    /// Starts `count` nodes with empty directories.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn nodes(&self, count: usize) -> Result<Vec<Node>, StartError> {
        (0..count).map(|_| self.node()).collect()
    }

    /// Starts a node that shares a directory with these files, each a path and its bytes, and waits
    /// until it offers them: half a second, and at most 30.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`StartError::Dir`] also when a file cannot be written.
    pub fn sharing(&self, files: &[(&str, &[u8])]) -> Result<Node, StartError> {
        let dir = self.dir.join(format!("shared-{}", self.nodes.fetch_add(1, Ordering::Relaxed)));
        write(&dir, files).map_err(|source| StartError::Dir { path: dir.clone(), source })?;
        let node = self.start(self.builder().dir(&dir).share(Share::Directory))?;
        node.wait_ready(READY_MAX);
        Ok(node)
    }

    /// Announces `peer` to the nodes of this network, and to nodes that start later.
    pub fn join(&self, peer: &FaultyPeer) {
        let mut beacon = self.hub.join(LOCALHOST);
        for announce in peer.announces() {
            beacon.send(announce.as_bytes(), To::Group);
            lock(&self.announces).push(announce.as_bytes().to_vec());
        }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // What is left is a temporary directory.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn write(dir: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (path, bytes) in files {
        let file = dir.join(path);
        fs::create_dir_all(file.parent().unwrap_or(dir))?;
        fs::write(file, bytes)?;
    }
    Ok(())
}

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longest wait for the files of a sharing node to be hashed.
const READY_MAX: Duration = Duration::from_secs(30);
