//! A volume in memory that forgets what was not synced when the power fails. For tests only.
//!
//! It is as unkind as a disk may be: of the unsynced writes of a file any subset survives, each
//! perhaps only in part; of the unsynced changes of names a prefix survives, independently of the
//! content; the time of the last change may be lost; the numbers of removed files are given out
//! again at once.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::content::{RelPath, Stamp};
use crate::store::StoreError;
pub(crate) use crate::store::storage::Storage;
use crate::store::storage::{FileDress, FileLock, OwnBare, Stat, Volume};
use crate::store::swap::SAVED_SUFFIX;
use crate::sync::lock;

mod bare;
mod folder;
mod names;
mod power;
mod rng;
mod world;

pub(crate) use bare::{EMPTY_DIR, dress_for};
pub(crate) use folder::MemoryFolder;
pub(crate) use rng::Rng;
pub(crate) use world::FaultKind;
pub(crate) use world::PlaceManner;
use world::{CallKind, DiskFault, FileChange, FileContent, NameChange, World};

/// The volume. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    world: Arc<Mutex<World>>,
    /// How a file takes the place of another one.
    pub(crate) manner: PlaceManner,
}

#[derive(Debug)]
struct MemoryFile {
    world: Arc<Mutex<World>>,
    inode: u64,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let world = World {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            files: BTreeMap::new(),
            steps_left: u64::MAX,
            fail_syncs: false,
            free: u64::MAX,
            free_files: None,
            calls: 0,
            fault: None,
            struck: false,
            strict: false,
        };
        Memory { world: Arc::new(Mutex::new(world)), manner: PlaceManner::Over }
    }

    /// A volume whose directories are made durable one by one, as POSIX allows.
    pub(crate) fn strict() -> Self {
        let volume = Self::new();
        volume.lock().strict = true;
        volume
    }

    /// Lets call `at`, counted from 1, go wrong, and the later ones too if that `lasts`.
    pub(crate) fn fault_at(&self, at: u64, kind: FaultKind, lasts: bool) {
        let mut world = self.lock();
        (world.calls, world.struck, world.fault) = (0, false, Some(DiskFault { at, lasts, kind }));
    }

    /// Calls since the last [`fault_at`](Self::fault_at).
    pub(crate) fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Ends the fault; whether a call went wrong.
    pub(crate) fn mend(&self) -> bool {
        let mut world = self.lock();
        world.fault = None;
        world.struck
    }

    /// Lets the power fail after `steps` more changes.
    pub(crate) fn cut_after(&self, steps: u64) {
        self.lock().steps_left = steps;
    }

    /// Whether from now on every sync of a file fails, as on a broken disk.
    pub(crate) fn break_syncs(&self, broken: bool) {
        self.lock().fail_syncs = broken;
    }

    pub(crate) fn set_free(&self, bytes: u64) {
        self.lock().free = bytes;
    }

    pub(crate) fn set_free_files(&self, files: u64) {
        self.lock().free_files = Some(files);
    }

    /// Puts a durable file there.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let mut world = self.lock();
        let inode = world.new_inode();
        let content = FileContent { bytes: bytes.to_vec(), durable: bytes.to_vec(), ..FileContent::default() };
        world.files.insert(inode, content);
        world.names.insert(name.into(), inode);
        world.durable_names.insert(name.into(), inode);
    }

    /// Changes a byte as another program would.
    pub(crate) fn flip(&self, name: &str, at: usize) {
        let inode = self.lock().names[name];
        let byte = self.lock().files[&inode].bytes[at];
        let file = MemoryFile { world: self.world.clone(), inode };
        file.change(FileChange::Write(at as u64, vec![byte ^ 1]));
    }

    /// Sets the time of the last change, in ns since 1970.
    pub(crate) fn set_changed(&self, name: &str, ns: i64) {
        let mut world = self.lock();
        let inode = world.names[name];
        world.files.entry(inode).or_default().changes = ns;
    }

    /// How often the file was read.
    pub(crate) fn reads(&self, name: &str) -> u64 {
        let world = self.lock();
        world.files[&world.names[name]].reads
    }

    /// What lies under a name, as a process sees it.
    pub(crate) fn content(&self, name: &str) -> Option<Vec<u8>> {
        let world = self.lock();
        world.names.get(name).map(|inode| world.files[inode].bytes.clone())
    }

    pub(crate) fn own_names(&self) -> Vec<String> {
        self.lock().names.keys().filter(|n| n.starts_with(OWN)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    fn handle(&self, inode: u64) -> Arc<dyn Storage> {
        Arc::new(MemoryFile { world: self.world.clone(), inode })
    }
}

impl MemoryFile {
    fn with<R>(&self, act: impl FnOnce(&mut FileContent) -> R) -> R {
        let mut world = lock(&self.world);
        act(world.files.entry(self.inode).or_default())
    }

    fn step(&self) -> io::Result<()> {
        lock(&self.world).step()
    }

    fn attempt(&self, call: CallKind) -> io::Result<()> {
        lock(&self.world).attempt(call)
    }

    /// How many of `len` bytes a call reads or writes.
    fn part(&self, call: CallKind, len: usize) -> io::Result<usize> {
        match lock(&self.world).call(call) {
            Some(FaultKind::Short) => Ok((len / 2).max(1).min(len)),
            Some(kind) => Err(kind.error().unwrap_or(rustix::io::Errno::IO).into()),
            None => Ok(len),
        }
    }

    fn change(&self, change: FileChange) {
        self.with(|f| {
            change.apply(&mut f.bytes);
            f.pending.push(change);
            f.changes += 1;
        });
    }
}

impl Storage for MemoryFile {
    fn write_some(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..self.part(CallKind::Write, bytes.len())?];
        let step = self.step();
        // The power fails in the middle of a write.
        let upto = if step.is_ok() { bytes.len() } else { bytes.len() / 2 };
        self.change(FileChange::Write(offset, bytes[..upto].to_vec()));
        step.map(|()| bytes.len())
    }

    fn read_some(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let want = self.part(CallKind::Read, into.len())?;
        Ok(self.with(|f| {
            f.reads += 1;
            let bytes = f.bytes.get(offset as usize..).unwrap_or_default();
            let n = want.min(bytes.len());
            into[..n].copy_from_slice(&bytes[..n]);
            n
        }))
    }

    fn sync(&self) -> io::Result<()> {
        self.step()?;
        let broken = lock(&self.world).fail_syncs;
        let failed = lock(&self.world).attempt_sync(Some(self.inode));
        if broken || failed.is_err() {
            // What could not be written back is dropped, and the next sync would not tell.
            self.with(|f| f.pending.clear());
            return failed.and(Err(rustix::io::Errno::IO.into()));
        }
        self.with(|f| {
            f.durable.clone_from(&f.bytes);
            f.durable_changes = f.changes;
            f.durable_dress = f.dress;
            f.pending.clear();
        });
        Ok(())
    }

    fn dress(&self, dress: FileDress) -> io::Result<()> {
        self.attempt(CallKind::Remove)?;
        self.step()?;
        self.with(|f| {
            f.dress = dress;
            f.changes += 1;
        });
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.attempt(CallKind::Grow)?;
        self.step()?;
        self.change(FileChange::SetLen(len));
        Ok(())
    }

    fn reserve(&self, len: u64, _: &[Range<u64>]) -> io::Result<bool> {
        self.set_len(len).map(|()| false)
    }

    fn stat(&self) -> io::Result<Stat> {
        self.attempt(CallKind::Look)?;
        let (len, changes) = self.with(|f| (f.bytes.len() as u64, f.changes));
        let stamp = Stamp { mtime_ns: changes, ctime_ns: changes, inode: self.inode };
        let links = lock(&self.world).names.values().filter(|inode| **inode == self.inode).count() as u64;
        Ok(Stat { len, allocated: len, links, stamp })
    }

    fn try_lock(&self) -> io::Result<FileLock> {
        self.attempt(CallKind::Look)?;
        let held = self.with(|f| std::mem::replace(&mut f.locked, true));
        Ok(if held { FileLock::Held } else { FileLock::Taken })
    }

    fn unlock(&self) {
        self.with(|f| f.locked = false);
    }
}

impl Volume for Memory {
    fn make_own(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn open_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        let names_of = |world: &World, inode: u64| world.names.values().filter(|other| **other == inode).count();
        let has_more =
            |world: &World| world.names.get(&own_name(name)).is_some_and(|inode| names_of(world, *inode) > 1);
        let has_more = has_more(&self.lock());
        if has_more {
            self.remove_own(name)?;
        }
        self.open_name(&own_name(name))
    }

    fn create_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        self.create_name(&own_name(name))
    }

    fn own_names(&self) -> io::Result<Vec<String>> {
        let mut world = self.lock();
        world.attempt(CallKind::Look)?;
        Ok(world.names.keys().filter_map(|name| name.strip_prefix(OWN)).map(Into::into).collect())
    }

    fn inode_of_own(&self, name: &str) -> io::Result<Option<u64>> {
        self.lock().attempt(CallKind::Look)?;
        Ok(self.lock().names.get(&own_name(name)).copied())
    }

    fn remove_own(&self, name: &str) -> io::Result<bool> {
        self.remove_name(&own_name(name))
    }

    fn set_aside_own(&self, name: &str) -> io::Result<String> {
        let free = |aside: &String| self.state_at(&own_name(aside)).is_none();
        let aside = (1..).map(|n| format!("{name}.{n}{SAVED_SUFFIX}")).find(free).unwrap_or_default();
        self.rename_name(&own_name(name), &own_name(&aside)).map(|()| aside)
    }

    fn sync_own(&self) -> io::Result<()> {
        let mut world = self.lock();
        world.attempt(CallKind::Sync)?;
        world.step()?;
        world.sync_names(|c| match c {
            NameChange::Link(n, _) | NameChange::Unlink(n) | NameChange::Rename(n, _) | NameChange::Exchange(n, _) => {
                n.starts_with(OWN)
            }
        });
        Ok(())
    }

    fn sync_files(&self) -> io::Result<()> {
        let mut world = self.lock();
        world.step()?;
        if let Err(e) = world.attempt_sync(None) {
            world.files.values_mut().for_each(|f| f.pending.clear());
            return Err(e);
        }
        for file in world.files.values_mut() {
            file.durable.clone_from(&file.bytes);
            file.durable_changes = file.changes;
            file.durable_dress = file.dress;
            file.pending.clear();
        }
        Ok(())
    }

    fn place(&self, moves: &[(String, &RelPath)]) -> Vec<Result<(), StoreError>> {
        let done: Vec<_> = moves.iter().map(|(own, path)| self.place_one(own, path)).collect();
        let mut world = self.lock();
        let synced = world.attempt(CallKind::Sync).and_then(|()| world.step());
        if synced.is_ok() {
            world.sync_names(|c| matches!(c, NameChange::Rename(..) | NameChange::Exchange(..)));
        }
        let again = |e: &io::Error| crate::store::error::again(e);
        done.into_iter()
            .zip(moves)
            .map(|(d, (_, p))| {
                d.and(synced.as_ref().map(|_| ()).map_err(again)).map_err(|e| StoreError::at(p.as_str(), e))
            })
            .collect()
    }

    fn create_own_bare(&self, name: &str, what: &OwnBare<'_>) -> io::Result<()> {
        self.create_bare(name, what)
    }

    fn is_taken(&self, path: &RelPath) -> bool {
        self.state_at(path.as_str()).is_some()
    }

    fn dress_of(&self, path: &RelPath) -> Option<FileDress> {
        Some(dress_for(path.as_str()))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.lock().attempt(CallKind::Look)?;
        Ok(self.lock().free)
    }

    fn free_files(&self) -> io::Result<Option<u64>> {
        Ok(self.lock().free_files)
    }

    fn tidy(&self) {}

    fn path_of_own(&self, name: &str) -> PathBuf {
        own_name(name).into()
    }

    fn path_of(&self, path: &RelPath) -> PathBuf {
        path.as_str().into()
    }
}

/// What the name of an own file is in the flat list of names.
pub(crate) fn own_name(name: &str) -> String {
    format!("{OWN}{name}")
}

const OWN: &str = ".gpb/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_content_under_a_synced_name_survives_and_nothing_else_must() {
        let (mut lost_content, mut lost_name) = (false, false);
        for seed in 0..50 {
            let volume = Memory::new();
            let file = volume.create_own("a").unwrap().unwrap();
            file.write_at(0, b"durable").unwrap();
            file.sync().unwrap();
            volume.sync_own().unwrap();
            file.write_at(7, b"+more").unwrap();
            volume.create_own("b").unwrap();
            let after = volume.after_power_loss(&mut Rng(seed));
            let content = after.content(".gpb/a").unwrap();
            assert!(content.starts_with(b"durable"), "seed {seed}");
            lost_content |= content.len() < 12;
            lost_name |= after.content(".gpb/b").is_none();
        }
        assert!(lost_content && lost_name);
    }
}
