//! How a file of a volume in memory takes the place of another one: by the steps that a disk takes.

use std::io;

use crate::content::{RelPath, dirs_above};
use crate::store::memory::bare::EMPTY_DIR;
use crate::store::memory::world::{CallKind, NameChange, PlaceManner};
use crate::store::memory::{Memory, own_name};
use crate::store::placed::PlacedState;
use crate::store::swap::{self, SAVED_SUFFIX, SwapNames, Swapped};

/// An own name and a final one.
pub(super) struct MemoryNames<'a> {
    pub(super) volume: &'a Memory,
    pub(super) own: String,
    pub(super) name: String,
}

impl Memory {
    pub(super) fn place_one(&self, own: &str, path: &RelPath) -> io::Result<()> {
        // A file that a fetch put there goes where a directory is needed.
        for dir in dirs_above(path.as_str()) {
            if let Some(found) = self.state_at(dir) {
                self.remove_final(dir, &found)?;
            }
        }
        let names = MemoryNames { volume: self, own: own_name(own), name: path.as_str().into() };
        let is_dir = |name: &str| self.content(name).is_some_and(|bytes| bytes == EMPTY_DIR);
        if is_dir(path.as_str()) && !is_dir(&names.own) {
            self.remove_name(path.as_str())?;
            return names.move_in();
        }
        let swapped = match (self.manner, names.final_state()) {
            (PlaceManner::Over, _) | (_, None) => return names.rename(),
            (PlaceManner::Exchange, Some(found)) => swap::replace(&names, &found)?,
            (PlaceManner::Keep, Some(found)) => swap::replace_and_keep(&names, &found)?,
        };
        if swapped == Swapped::Done { Ok(()) } else { Err(io::Error::other("nothing else changes the volume")) }
    }

    /// Removes the final name `path` as a disk does.
    pub(crate) fn remove_final(&self, path: &str, found: &PlacedState) -> io::Result<Swapped> {
        let names = MemoryNames { volume: self, own: own_name("removed.tmp"), name: path.into() };
        swap::remove(&names, found)
    }

    /// The state of what lies at a name. Changes of the name count in none of its times.
    pub(crate) fn state_at(&self, name: &str) -> Option<PlacedState> {
        let world = self.lock();
        let inode = *world.names.get(name)?;
        let file = world.files.get(&inode)?;
        let (len, changes) = (file.bytes.len() as u64, file.changes);
        Some(PlacedState { device: 1, inode, len, mtime_ns: changes, ctime_ns: changes })
    }

    fn change_names(&self, call: CallKind, change: NameChange) -> io::Result<()> {
        let mut world = self.lock();
        world.attempt(call)?;
        world.step()?;
        world.change(change)
    }
}

impl SwapNames for MemoryNames<'_> {
    fn exchange(&self) -> io::Result<()> {
        self.volume.change_names(CallKind::Grow, NameChange::Exchange(self.own.clone(), self.name.clone()))
    }

    fn rename(&self) -> io::Result<()> {
        self.volume.change_names(CallKind::Grow, NameChange::Rename(self.own.clone(), self.name.clone()))
    }

    fn move_in(&self) -> io::Result<()> {
        if self.final_state().is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.rename()
    }

    fn link(&self, kept: &str) -> io::Result<()> {
        self.volume.link_name(&self.name, kept)
    }

    fn move_out(&self) -> io::Result<()> {
        self.volume.change_names(CallKind::Remove, NameChange::Rename(self.name.clone(), self.own.clone()))
    }

    fn keep_own(&self, kept: &str) -> io::Result<()> {
        if self.kept_state(kept).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.volume.change_names(CallKind::Grow, NameChange::Rename(self.own.clone(), kept.into()))
    }

    fn set_aside(&self) -> io::Result<String> {
        let aside = format!("{}{SAVED_SUFFIX}", self.own);
        self.volume.change_names(CallKind::Grow, NameChange::Rename(self.own.clone(), aside.clone()))?;
        Ok(aside)
    }

    fn move_away(&self, kept: &str) -> io::Result<()> {
        self.volume.change_names(CallKind::Grow, NameChange::Rename(self.name.clone(), kept.into()))
    }

    fn move_back(&self, kept: &str) -> io::Result<()> {
        self.volume.change_names(CallKind::Grow, NameChange::Rename(kept.into(), self.name.clone()))
    }

    fn remove_own(&self) -> io::Result<()> {
        self.volume.remove_name(&self.own).map(drop)
    }

    fn remove_kept(&self, kept: &str) -> io::Result<()> {
        self.volume.remove_name(kept).map(drop)
    }

    fn own_state(&self) -> Option<PlacedState> {
        self.volume.state_at(&self.own)
    }

    fn final_state(&self) -> Option<PlacedState> {
        self.volume.state_at(&self.name)
    }

    fn kept_state(&self, kept: &str) -> Option<PlacedState> {
        self.volume.state_at(kept)
    }

    fn name(&self) -> &str {
        &self.name
    }
}
