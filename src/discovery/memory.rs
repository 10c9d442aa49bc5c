//! The peers that are remembered from one start to the next, in the file `peers.known` of
//! the state directory.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::chain::Chain;
use crate::peers::Directory;
use crate::runtime::keystore::{KeyError, read_bounded};
use crate::store::{make_dirs, replace_private};
use crate::swarm::{PeerTable, REMEMBERED_TEXT_LEN_MAX, RememberedPeer, RememberedPeers};

/// What is remembered of one network. Processes that share a state directory share the file.
pub(super) struct PeerMemory {
    file: PathBuf,
    network: String,
    peers: RememberedPeers,
    /// Whether there is something to write.
    changed: bool,
    /// Whether the last write failed, which is logged once.
    failed: bool,
}

impl PeerMemory {
    /// Reads the file of the state directory `state`. One that cannot be used counts as empty, with a
    /// line in the log; the next write replaces it.
    pub(super) fn load(state: &Path, network: &str) -> Self {
        let file = state.join(PEERS_NAME);
        let peers = read(&file).unwrap_or_else(|e| {
            log::warn!("remembered peers are not usable and are left out file={} error=\"{e}\"", file.display());
            RememberedPeers::default()
        });
        PeerMemory { file, network: network.into(), peers, changed: false, failed: false }
    }

    /// The peers to dial, the last proved first: their keys are still trusted, and none was proved
    /// too long ago.
    pub(super) fn trusted(&mut self, directory: &Directory) -> Vec<RememberedPeer> {
        self.forget(directory);
        self.peers.of_network(&self.network).into_iter().cloned().collect()
    }

    /// Takes note of the peers that are proved now.
    pub(super) fn collect(&mut self, directory: &Directory) {
        let now_s = unix_s();
        for (peer, addrs) in directory.read(PeerTable::proved_peers) {
            self.changed |= self.peers.note(&self.network, peer, &addrs, now_s);
        }
    }

    /// Writes what is new to the file, with what other processes have written since.
    pub(super) fn save(&mut self, directory: &Directory) {
        if !self.changed {
            return;
        }
        let made = self.file.parent().map_or(Ok(()), |state| make_dirs(state, 0o700));
        let file = self.file.clone();
        let written = made.and_then(|()| {
            replace_private(&file, || {
                self.peers.merge(read(&self.file).unwrap_or_default());
                self.forget(directory);
                self.peers.to_string().into_bytes()
            })
        });
        // The next look tries again; a process that is just writing is no failure.
        let busy = written.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
        self.changed = written.is_err();
        match written {
            Err(e) if !busy && !self.failed => {
                log::warn!("peers cannot be remembered file={} error=\"{e}\"", file.display());
                self.failed = true;
            }
            Err(_) => {}
            Ok(()) => {
                self.failed = false;
                log::debug!("peers remembered file={} peers={}", file.display(), self.peers.len());
            }
        }
    }

    fn forget(&mut self, directory: &Directory) {
        let before = self.peers.len();
        self.peers.forget(&self.network, |peer| directory.trust().allows(peer), unix_s());
        self.changed |= self.peers.len() < before;
    }
}

fn read(file: &Path) -> Result<RememberedPeers, String> {
    let content = match read_bounded(file, REMEMBERED_TEXT_LEN_MAX as u64, |_| Ok(())) {
        Ok((content, _)) => content,
        Err(KeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(RememberedPeers::default());
        }
        Err(e) => return Err(Chain(&e).to_string()),
    };
    let text = std::str::from_utf8(&content).map_err(|_| "it is no text".to_string())?;
    RememberedPeers::parse(text).map_err(|e| e.to_string())
}

fn unix_s() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs())
}

/// The name of the file in the state directory.
const PEERS_NAME: &str = "peers.known";
