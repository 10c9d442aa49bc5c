//! Names of a volume in memory, and a directory of the node's own files among them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::store::memory::Memory;
use crate::store::memory::world::{CallKind, FileContent, NameChange};
use crate::store::storage::{Folder, Storage};

/// A directory of the node's own files.
#[derive(Debug)]
pub(crate) struct MemoryFolder(pub(crate) Memory);

/// Names anywhere on the volume, as the system's calls take them.
impl Memory {
    pub(crate) fn open_name(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        let mut world = self.lock();
        world.attempt(CallKind::Look)?;
        let inode = world.names.get(name).copied();
        drop(world);
        Ok(inode.map(|i| self.handle(i)))
    }

    pub(crate) fn create_name(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        let mut world = self.lock();
        world.attempt(CallKind::Grow)?;
        if world.names.contains_key(name) {
            return Ok(None);
        }
        let inode = world.new_inode();
        let done = world.step().and_then(|()| {
            world.files.insert(inode, FileContent::default());
            world.change(NameChange::Link(name.into(), inode))
        });
        drop(world);
        done.map(|()| Some(self.handle(inode)))
    }

    /// Makes the directory `name`, which ends with a slash; false if it exists.
    pub(crate) fn make_dir(&self, name: &str) -> io::Result<bool> {
        let mut world = self.lock();
        world.attempt(CallKind::Grow)?;
        let above = name.trim_end_matches('/').rfind('/').map(|i| &name[..=i]);
        if above.is_some_and(|above| !world.names.contains_key(above)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if world.names.contains_key(name) {
            return Ok(false);
        }
        world.step()?;
        world.change(NameChange::Link(name.into(), DIRECTORY))?;
        Ok(true)
    }

    /// A further name for a file.
    pub(crate) fn link_name(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.lock();
        world.attempt(CallKind::Grow)?;
        let inode = world.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        if world.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.step()?;
        world.change(NameChange::Link(to.into(), inode))
    }

    pub(crate) fn rename_name(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.lock();
        world.attempt(CallKind::Grow)?;
        world.step()?;
        world.change(NameChange::Rename(from.into(), to.into()))
    }

    pub(crate) fn remove_name(&self, name: &str) -> io::Result<bool> {
        let mut world = self.lock();
        world.attempt(CallKind::Remove)?;
        world.step()?;
        match world.change(NameChange::Unlink(name.into())) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Makes the names in `dir`, which ends with a slash, durable.
    pub(crate) fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut world = self.lock();
        world.attempt(CallKind::Sync)?;
        world.step()?;
        world.sync_names(|change| change.dir() == dir);
        Ok(())
    }
}

impl Folder for MemoryFolder {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        self.0.open_name(&state_name(name))
    }

    fn create(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        self.0.create_name(&state_name(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename_name(&state_name(from), &state_name(to))
    }

    fn remove(&self, name: &str) -> io::Result<bool> {
        self.0.remove_name(&state_name(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_dir(STATE)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        state_name(name).into()
    }
}

fn state_name(name: &str) -> String {
    format!("{STATE}{name}")
}

const STATE: &str = "state/";
/// Stands for the inode of a directory.
const DIRECTORY: u64 = 0;
