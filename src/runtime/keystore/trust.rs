//! The keys that a node talks to: all, a set that the program changes, or the keys of a file.

use std::collections::HashSet;
use std::fmt;
use std::net::{Shutdown as Close, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use crate::identity::PeerId;
use crate::runtime::keystore::KeyError;
use crate::runtime::limits::TRUSTED_KEYS_MAX;
use crate::runtime::{Subscription, Watch};
use crate::sync::{read_lock, write_lock};
use file::TrustedFile;
#[cfg(feature = "cli")]
pub(crate) use file::trusted_line;

mod file;

/// The keys that a [`Node`](crate::Node) talks to. Clones share them, so a clone that is kept changes
/// the group of every node that was given another one.
///
/// A node trusts its own key, too, whether it is listed or not. A key that is removed is cut off at
/// once: within milliseconds all sessions with it end, whichever side opened them, and a fetch goes
/// on with the other holders. What the other host has received by then is not called back.
///
/// ```
/// use gpb::{Keypair, Trust};
///
/// # let lan = gpb::testing::Lan::new()?;
/// let (ana, bo) = (Keypair::generate(), Keypair::generate());
/// let trust = Trust::keys([ana.peer_id(), bo.peer_id()])?;
/// // let node = Node::builder().key(ana).trust(trust.clone()).start()?;
/// # let node = lan.start(lan.builder().key(ana).trust(trust.clone()))?;
/// trust.remove(&bo.peer_id())?;
/// assert!(!trust.contains(&bo.peer_id()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Trust(Arc<Group>);

struct Group {
    kind: GroupKind,
    keys: RwLock<HashSet<PeerId>>,
    generation: AtomicU64,
    changes: Watch<()>,
}

/// What decides about the keys.
enum GroupKind {
    Open,
    Program,
    File(TrustedFile),
}

/// Why the keys of a [`Trust`] cannot be changed so.
///
/// ```
/// use gpb::{Keypair, Trust, error::TrustError};
///
/// let refused = Trust::open().remove(&Keypair::generate().peer_id());
/// assert_eq!(refused, Err(TrustError::Open));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// [`Trust::open`] trusts every key.
    #[error("the group is open: it trusts every key")]
    Open,
    /// [`Trust::file`] trusts the keys of this file, which is to be changed instead.
    #[error("the trusted keys are those of {}", .0.display())]
    File(PathBuf),
    /// More keys than a node can hold.
    #[error("more than {TRUSTED_KEYS_MAX} trusted keys")]
    TooMany,
}

impl Trust {
    /// An open group: every key, authenticated. The default of a node.
    #[must_use]
    pub fn open() -> Self {
        Self::new(GroupKind::Open, HashSet::new())
    }

    /// A closed group of these keys, which the program may change at any time.
    ///
    /// # Errors
    /// [`TrustError::TooMany`]: more than 16,384.
    pub fn keys(keys: impl IntoIterator<Item = PeerId>) -> Result<Self, TrustError> {
        Ok(Self::new(GroupKind::Program, bounded(keys)?))
    }

    /// A closed group of the keys in `file`: one `ed25519:<base64> comment` a line; blank lines and
    /// lines that begin with `#` are skipped. Blocks while the file is read.
    ///
    /// While a node runs with it, the file is looked at every 500 ms, so a changed file counts
    /// within half a second and the time to read it. A file that vanishes or breaks leaves the last
    /// good keys in force, with one line in the log.
    ///
    /// # Errors
    /// [`KeyError`]: the file is missing or a line is malformed; the message names file and line.
    pub fn file(file: impl AsRef<Path>) -> Result<Self, KeyError> {
        let (file, keys) = TrustedFile::open(file.as_ref())?;
        Ok(Self::new(GroupKind::File(file), keys))
    }

    fn new(kind: GroupKind, keys: HashSet<PeerId>) -> Self {
        let (keys, generation, changes) = (RwLock::new(keys), AtomicU64::new(0), Watch::new(()));
        Trust(Arc::new(Group { kind, keys, generation, changes }))
    }

    /// Whether `peer` is trusted. Cheap: it waits for no file.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.is_open() || read_lock(&self.0.keys).contains(peer)
    }

    /// Whether every key is trusted.
    pub fn is_open(&self) -> bool {
        matches!(self.0.kind, GroupKind::Open)
    }

    /// The trusted keys, in no order; none for an open group.
    pub fn members(&self) -> Vec<PeerId> {
        read_lock(&self.0.keys).iter().copied().collect()
    }

    /// Trusts `peer` from now on; true if it was not trusted before.
    ///
    /// # Errors
    /// [`TrustError`]: the keys are not the program's to change, or too many.
    pub fn insert(&self, peer: PeerId) -> Result<bool, TrustError> {
        self.change(|keys| {
            let all = keys.iter().copied().chain([peer]);
            bounded(all)
        })
    }

    /// Trusts `peer` no longer, and cuts it off in every node of the group; true if it was trusted
    /// before. A node whose own key it is continues to trust it.
    ///
    /// # Errors
    /// [`TrustError`]: the keys are not the program's to change.
    pub fn remove(&self, peer: &PeerId) -> Result<bool, TrustError> {
        self.change(|keys| Ok(keys.iter().filter(|key| *key != peer).copied().collect()))
    }

    /// Trusts exactly these keys from now on, and cuts off the others; true if that changed
    /// anything.
    ///
    /// # Errors
    /// [`TrustError`]: the keys are not the program's to change, or too many; they stay as they are.
    pub fn replace(&self, keys: impl IntoIterator<Item = PeerId>) -> Result<bool, TrustError> {
        let new = bounded(keys)?;
        self.change(|_| Ok(new))
    }

    fn change(
        &self,
        change: impl FnOnce(&HashSet<PeerId>) -> Result<HashSet<PeerId>, TrustError>,
    ) -> Result<bool, TrustError> {
        match &self.0.kind {
            GroupKind::Open => Err(TrustError::Open),
            GroupKind::File(file) => Err(TrustError::File(file.path().into())),
            GroupKind::Program => self.take_over(change),
        }
    }

    /// Reads the file of the group if its stamp changed; true if that changed the keys.
    fn reload(&self) -> bool {
        let GroupKind::File(file) = &self.0.kind else { return false };
        file.read_again().is_some_and(|new| self.take_over(|_| Ok::<_, TrustError>(new)).unwrap_or(false))
    }

    /// Replaces the keys, and calls all nodes of the group if that changed any.
    fn take_over<E>(&self, change: impl FnOnce(&HashSet<PeerId>) -> Result<HashSet<PeerId>, E>) -> Result<bool, E> {
        let mut keys = write_lock(&self.0.keys);
        let new = change(&keys)?;
        if *keys == new {
            return Ok(false);
        }
        let old = std::mem::replace(&mut *keys, new.clone());
        self.0.generation.fetch_add(1, Ordering::Release);
        drop(keys);
        self.0.changes.wake();
        old.difference(&new).for_each(|peer| log::info!("trust removed peer={peer}"));
        new.difference(&old).for_each(|peer| log::info!("trust added peer={peer}"));
        Ok(true)
    }

    /// The file of the group, if it has one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.0.kind {
            GroupKind::File(file) => Some(file.path()),
            GroupKind::Open | GroupKind::Program => None,
        }
    }
}

fn bounded(keys: impl IntoIterator<Item = PeerId>) -> Result<HashSet<PeerId>, TrustError> {
    let mut set = HashSet::new();
    for key in keys {
        set.insert(key);
        if set.len() > TRUSTED_KEYS_MAX {
            return Err(TrustError::TooMany);
        }
    }
    Ok(set)
}

impl Default for Trust {
    fn default() -> Self {
        Self::open()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            GroupKind::Open => f.write_str("Trust::open"),
            GroupKind::Program => write!(f, "Trust::keys({} keys)", read_lock(&self.0.keys).len()),
            GroupKind::File(file) => write!(f, "Trust::file({:?})", file.path()),
        }
    }
}

/// What one node makes of a [`Trust`]: its own key is trusted, too.
#[derive(Debug, Clone)]
pub struct TrustView {
    trust: Trust,
    own: PeerId,
}

impl TrustView {
    /// The view of the node with the key `own`.
    pub fn new(trust: Trust, own: PeerId) -> Self {
        TrustView { trust, own }
    }

    /// A view of an open group.
    pub fn open() -> Self {
        Self::new(Trust::open(), PeerId([0; 32]))
    }

    /// A view of the group of `file`.
    ///
    /// # Errors
    /// As [`Trust::file`].
    pub fn closed(file: &Path, own: PeerId) -> Result<Self, KeyError> {
        Ok(Self::new(Trust::file(file)?, own))
    }

    /// Whether `peer` may talk to this node, and this node to it.
    pub fn allows(&self, peer: &PeerId) -> bool {
        self.trust.contains(peer) || *peer == self.own
    }

    /// The keys of a closed group, in no order, without the own one unless that is listed.
    pub fn members(&self) -> Vec<PeerId> {
        self.trust.members()
    }

    /// Whether every key is trusted.
    pub fn is_open(&self) -> bool {
        self.trust.is_open()
    }

    /// Whether the keys come from a file, which [`reload`](Self::reload) reads.
    pub fn follows_file(&self) -> bool {
        self.trust.path().is_some()
    }

    /// Grows whenever the set changes, so that a long session knows when to check its peer again.
    pub fn generation(&self) -> u64 {
        self.trust.0.generation.load(Ordering::Acquire)
    }

    /// Reads the trusted file, if there is one, when its stamp changed; true if that changed the
    /// set. A vanished or broken file leaves the last good set and is logged once. The node calls
    /// this every 500 ms.
    pub fn reload(&self) -> bool {
        self.trust.reload()
    }

    /// Calls `wake` after each later change of the set, on the thread that makes it; `wake` must
    /// not block.
    pub fn subscribe(&self, wake: impl Fn() + Send + 'static) -> Subscription {
        self.trust.0.changes.subscribe(wake)
    }

    /// Shuts `socket` down when `peer` loses trust, unless the guard is dropped before. `None` in an
    /// open group, where no key does.
    pub fn cuts(&self, peer: PeerId, socket: TcpStream) -> Option<Subscription> {
        let view = self.clone();
        let cut = move || {
            if !view.allows(&peer) {
                let _ = socket.shutdown(Close::Both);
            }
        };
        (!self.is_open()).then(|| self.subscribe(cut))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn id(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn closed(content: &str) -> (tempfile::TempDir, PathBuf, TrustView) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trusted");
        fs::write(&file, content).unwrap();
        let trust = TrustView::closed(&file, id(0)).unwrap();
        (dir, file, trust)
    }

    #[test]
    fn an_open_group_is_everyone() {
        let trust = TrustView::open();
        assert!(trust.is_open() && trust.allows(&id(9)) && !trust.reload() && !trust.follows_file());
        let open = Trust::open();
        assert_eq!(open.insert(id(1)), Err(TrustError::Open));
        assert_eq!(open.replace([]), Err(TrustError::Open));
        assert!(open.contains(&id(7)) && open.members().is_empty());
    }

    #[test]
    fn clones_share_the_keys_and_each_change_is_told_once() {
        let trust = Trust::keys([id(1), id(2)]).unwrap();
        let (view, calls) = (TrustView::new(trust.clone(), id(0)), Arc::new(AtomicUsize::new(0)));
        let (counter, seen) = (calls.clone(), view.clone());
        let _subscription = view.subscribe(move || {
            // The new set counts when the nodes are called.
            assert!(!seen.allows(&id(2)));
            counter.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(trust.remove(&id(2)), Ok(true));
        assert_eq!((trust.remove(&id(2)), view.generation()), (Ok(false), 1));
        assert!(view.allows(&id(0)) && view.allows(&id(1)) && !view.allows(&id(2)));
        assert_eq!(trust.remove(&id(0)), Ok(false), "the own key is trusted without being listed");
        assert_eq!(trust.insert(id(3)), Ok(true));
        assert_eq!(trust.insert(id(3)), Ok(false));
        assert_eq!(trust.replace([id(4)]), Ok(true));
        assert_eq!((trust.members(), calls.load(Ordering::SeqCst)), (vec![id(4)], 3));
        assert!(!view.follows_file() && !view.reload());
    }

    #[test]
    fn a_set_that_is_too_large_changes_nothing() {
        let many = || {
            (0..=TRUSTED_KEYS_MAX as u32).map(|n| {
                let mut key = [0; 32];
                key[..4].copy_from_slice(&n.to_le_bytes());
                PeerId(key)
            })
        };
        assert_eq!(Trust::keys(many()).unwrap_err(), TrustError::TooMany);
        let trust = Trust::keys(many().skip(1)).unwrap();
        assert_eq!(trust.insert(PeerId([0; 32])), Err(TrustError::TooMany));
        assert_eq!(trust.replace(many()), Err(TrustError::TooMany));
        assert_eq!(trust.members().len(), TRUSTED_KEYS_MAX);
    }

    #[test]
    fn the_socket_of_a_removed_key_is_cut() {
        use std::io::Read;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut dialed = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = listener.accept().unwrap().0;
        let view = TrustView::new(Trust::keys([id(1), id(2)]).unwrap(), id(0));
        let _held = view.cuts(id(1), socket).unwrap();
        assert_eq!(view.trust.remove(&id(1)), Ok(true));
        assert_eq!(dialed.read(&mut [0]).unwrap(), 0);
        assert!(TrustView::open().cuts(id(1), dialed).is_none());
    }

    #[test]
    fn added_and_removed_keys_take_effect() {
        let (_dir, file, trust) = closed(&format!("{}\n{}\n", id(1), id(2)));
        assert!(!trust.reload() && trust.follows_file());
        let before = trust.generation();
        fs::write(&file, format!("{}\n{}\n", id(1), id(3))).unwrap();
        assert!(trust.reload() && trust.generation() > before);
        assert!(trust.allows(&id(0)) && trust.allows(&id(1)) && !trust.allows(&id(2)) && trust.allows(&id(3)));
        let before = trust.generation();
        fs::write(&file, format!("# only words\n{}\n{}\n", id(3), id(1))).unwrap();
        assert!(!trust.reload() && trust.generation() == before);
        assert_eq!(trust.trust.insert(id(9)), Err(TrustError::File(file)));
    }

    #[test]
    fn an_empty_file_is_nobody_else() {
        let (_dir, _, trust) = closed("");
        assert!(trust.allows(&id(0)) && !trust.allows(&id(1)) && !trust.is_open());
    }

    /// Same length, same inode, and perhaps the same tick of the file system's clock.
    #[test]
    fn changes_in_quick_succession_are_all_seen() {
        let (_dir, file, trust) = closed(&format!("{}\n", id(1)));
        for n in 2..50 {
            fs::write(&file, format!("{}\n", id(n))).unwrap();
            assert!(trust.reload(), "{n}");
            assert!(trust.allows(&id(n)) && !trust.allows(&id(n - 1)));
        }
    }

    #[test]
    fn a_broken_or_vanished_file_leaves_the_last_good_set() {
        let (_dir, file, trust) = closed(&format!("{}\n", id(1)));
        fs::write(&file, "nonsense\n").unwrap();
        assert!(!trust.reload() && !trust.reload() && trust.allows(&id(1)));
        fs::remove_file(&file).unwrap();
        assert!(!trust.reload() && trust.allows(&id(1)) && trust.generation() == 0);
        fs::write(&file, format!("{}\n", id(2))).unwrap();
        assert!(trust.reload() && !trust.allows(&id(1)) && trust.allows(&id(2)));
    }
}
