//! What a volume in memory holds: as a process sees it, and as the disk would have it after a power
//! loss.

use std::collections::BTreeMap;
use std::io;

#[derive(Debug)]
pub(super) struct World {
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) pending_names: Vec<NameChange>,
    pub(super) files: BTreeMap<u64, FileContent>,
    /// Changes that still succeed; after that the power is gone and everything fails.
    pub(super) steps_left: u64,
    pub(super) fail_syncs: bool,
    pub(super) free: u64,
}

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
}

#[derive(Debug, Default)]
pub(super) struct FileContent {
    pub(super) bytes: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<FileChange>,
    /// How often it was changed, which stands for the time of the last change; as it is, and as the
    /// disk knows it.
    pub(super) changes: i64,
    pub(super) durable_changes: i64,
    /// How often it was read.
    pub(super) reads: u64,
    pub(super) locked: bool,
}

#[derive(Debug, Clone)]
pub(super) enum FileChange {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl World {
    pub(super) fn step(&mut self) -> io::Result<()> {
        self.steps_left = self.steps_left.saturating_sub(1);
        if self.steps_left == 0 { Err(io::Error::other("power is gone")) } else { Ok(()) }
    }

    pub(super) fn new_inode(&self) -> u64 {
        // A number is free once no name, durable or not, means it.
        let used = |n: &u64| self.names.values().chain(self.durable_names.values()).any(|i| i == n);
        (1..).find(|n| !used(n)).unwrap_or_default()
    }

    pub(super) fn change(&mut self, change: NameChange) -> io::Result<()> {
        if let NameChange::Unlink(from) | NameChange::Rename(from, _) = &change
            && !self.names.contains_key(from)
        {
            return Err(io::ErrorKind::NotFound.into());
        }
        change.apply(&mut self.names);
        self.pending_names.push(change);
        Ok(())
    }

    /// A sync of one directory makes durable all changes up to its last one, as file systems with a
    /// journal do.
    pub(super) fn sync_names(&mut self, mut concerns: impl FnMut(&NameChange) -> bool) {
        let upto = self.pending_names.iter().rposition(&mut concerns).map_or(0, |i| i + 1);
        for change in self.pending_names.drain(..upto) {
            change.apply(&mut self.durable_names);
        }
    }
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            NameChange::Unlink(name) => {
                names.remove(name);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

impl FileChange {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            FileChange::Write(at, data) => {
                let end = *at as usize + data.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at as usize..end].copy_from_slice(data);
            }
            FileChange::SetLen(len) => bytes.resize(*len as usize, 0),
        }
    }
}
