//! A volume in memory that forgets what was not synced when the power fails. For tests only.
//!
//! It is as unkind as a disk may be: of the unsynced writes of a file any subset survives, each
//! perhaps only in part; of the unsynced changes of names a prefix survives, independently of the
//! content; the time of the last change may be lost; the numbers of removed files are given out
//! again at once.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::content::{RelPath, Stamp};
use crate::store::StoreError;
use crate::store::storage::{Stat, Storage, Volume};
use crate::sync::lock;

mod world;

use world::{FileChange, FileContent, NameChange, World};

/// The volume. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    world: Arc<Mutex<World>>,
}

#[derive(Debug)]
struct MemoryFile {
    world: Arc<Mutex<World>>,
    inode: u64,
}

/// A small generator, so that a seed names a run.
#[derive(Debug, Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }
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
        };
        Memory { world: Arc::new(Mutex::new(world)) }
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

    /// The process is killed: locks end, everything written stays.
    pub(crate) fn after_kill(&self) -> Memory {
        let mut world = self.lock();
        world.steps_left = u64::MAX;
        world.files.values_mut().for_each(|f| f.locked = false);
        drop(world);
        self.clone()
    }

    /// The disk as found after the power failed.
    pub(crate) fn after_power_loss(&self, rng: &mut Rng) -> Memory {
        let world = self.lock();
        let mut names = world.durable_names.clone();
        let survive = rng.below(world.pending_names.len() as u64 + 1) as usize;
        world.pending_names[..survive].iter().for_each(|c| c.apply(&mut names));
        let next = Memory::new();
        let mut new = next.lock();
        for inode in names.values() {
            let file = &world.files[inode];
            let mut bytes = file.durable.clone();
            for change in &file.pending {
                match (rng.below(3), change) {
                    (0, _) => (),
                    (1, FileChange::Write(at, data)) => {
                        let half = rng.below(data.len() as u64 + 1) as usize;
                        FileChange::Write(*at, data[..half].to_vec()).apply(&mut bytes);
                    }
                    _ => change.apply(&mut bytes),
                }
            }
            // The time of the last change may be lost although the change is not.
            let changes = if rng.below(2) == 0 { file.changes } else { file.durable_changes };
            let content = FileContent {
                durable: bytes.clone(),
                bytes,
                changes,
                durable_changes: changes,
                ..FileContent::default()
            };
            new.files.insert(*inode, content);
        }
        (new.names, new.durable_names) = (names.clone(), names);
        drop(new);
        next
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    fn handle(&self, inode: u64) -> Arc<dyn Storage> {
        Arc::new(MemoryFile { world: self.world.clone(), inode })
    }

    fn place_one(&self, own: &str, path: &RelPath) -> io::Result<()> {
        let mut world = self.lock();
        world.step()?;
        world.change(NameChange::Rename(own_name(own), path.as_str().into()))
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

    fn change(&self, change: FileChange) {
        self.with(|f| {
            change.apply(&mut f.bytes);
            f.pending.push(change);
            f.changes += 1;
        });
    }
}

impl Storage for MemoryFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let step = self.step();
        // The power fails in the middle of a write.
        let upto = if step.is_ok() { bytes.len() } else { bytes.len() / 2 };
        self.change(FileChange::Write(offset, bytes[..upto].to_vec()));
        step
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.with(|f| {
            f.reads += 1;
            let bytes = f.bytes.get(offset as usize..).and_then(|b| b.get(..into.len()));
            bytes.map(|b| into.copy_from_slice(b)).ok_or(io::ErrorKind::UnexpectedEof.into())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.step()?;
        if lock(&self.world).fail_syncs {
            // What could not be written back is dropped, and the next sync would not tell.
            self.with(|f| f.pending.clear());
            return Err(rustix::io::Errno::IO.into());
        }
        self.with(|f| {
            f.durable.clone_from(&f.bytes);
            f.durable_changes = f.changes;
            f.pending.clear();
        });
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step()?;
        self.change(FileChange::SetLen(len));
        Ok(())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn stat(&self) -> io::Result<Stat> {
        let (len, changes) = self.with(|f| (f.bytes.len() as u64, f.changes));
        let stamp = Stamp { mtime_ns: changes, ctime_ns: changes, inode: self.inode };
        Ok(Stat { len, allocated: len, stamp })
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(self.with(|f| !std::mem::replace(&mut f.locked, true)))
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
        let inode = self.lock().names.get(&own_name(name)).copied();
        Ok(inode.map(|i| self.handle(i)))
    }

    fn create_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        let name = own_name(name);
        let mut world = self.lock();
        if world.names.contains_key(&name) {
            return Ok(None);
        }
        let inode = world.new_inode();
        let done = world.step().and_then(|()| {
            world.files.insert(inode, FileContent::default());
            world.change(NameChange::Link(name, inode))
        });
        drop(world);
        done.map(|()| Some(self.handle(inode)))
    }

    fn inode_of_own(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.lock().names.get(&own_name(name)).copied())
    }

    fn remove_own(&self, name: &str) -> io::Result<bool> {
        let mut world = self.lock();
        world.step()?;
        match world.change(NameChange::Unlink(own_name(name))) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn sync_own(&self) -> io::Result<()> {
        let mut world = self.lock();
        world.step()?;
        world.sync_names(|c| match c {
            NameChange::Link(n, _) | NameChange::Unlink(n) | NameChange::Rename(n, _) => n.starts_with(OWN),
        });
        Ok(())
    }

    fn sync_files(&self) -> io::Result<()> {
        let mut world = self.lock();
        world.step()?;
        for file in world.files.values_mut() {
            file.durable.clone_from(&file.bytes);
            file.durable_changes = file.changes;
            file.pending.clear();
        }
        Ok(())
    }

    fn place(&self, moves: &[(String, &RelPath)]) -> Vec<Result<(), StoreError>> {
        let done: Vec<_> = moves.iter().map(|(own, path)| self.place_one(own, path)).collect();
        let mut world = self.lock();
        let synced = world.step();
        if synced.is_ok() {
            world.sync_names(|c| matches!(c, NameChange::Rename(..)));
        }
        let again = |e: &io::Error| crate::store::error::again(e);
        done.into_iter()
            .zip(moves)
            .map(|(d, (_, p))| {
                d.and(synced.as_ref().map(|_| ()).map_err(again)).map_err(|e| StoreError::at(p.as_str(), e))
            })
            .collect()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.lock().free)
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
