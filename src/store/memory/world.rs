//! What a volume in memory holds: as a process sees it, and as the disk would have it after a power
//! loss.

use std::collections::BTreeMap;
use std::io;

use rustix::io::Errno;

use crate::store::memory::rng::Rng;
use crate::store::storage::FileDress;

/// What a disk writes at once.
const SECTOR_LEN: usize = 512;

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
    pub(super) free_files: Option<u64>,
    /// Calls of any kind so far.
    pub(super) calls: u64,
    pub(super) fault: Option<DiskFault>,
    /// Whether a fault has struck.
    pub(super) struck: bool,
    /// Whether the sync of a directory makes its own names durable and no others.
    pub(super) strict: bool,
}

/// How a file takes the place of another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PlaceManner {
    /// By a rename.
    #[default]
    Over,
    /// By an exchange of the names, after a look.
    Exchange,
    /// As well, and the other one is kept.
    Keep,
}

/// What goes wrong at one call, or from one call on.
#[derive(Debug, Clone, Copy)]
pub(super) struct DiskFault {
    pub(super) at: u64,
    pub(super) lasts: bool,
    pub(super) kind: FaultKind,
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The disk is full: calls that need room fail.
    Full,
    /// The file system is read-only: calls that change something fail.
    ReadOnly,
    /// Nothing can be read, written or looked at.
    Broken,
    /// No name can be made: the process has no descriptor left.
    TooManyOpen,
    /// A read or write does a part of what was asked for.
    Short,
    /// A read or write is interrupted before it did anything.
    Interrupted,
    /// A sync drops what was written and says nothing, as a full disk may.
    Losing,
}

/// What a call wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    Look,
    Read,
    Write,
    /// Takes room: a name, a length.
    Grow,
    Remove,
    Sync,
}

impl FaultKind {
    pub(super) fn error(self) -> Option<Errno> {
        match self {
            FaultKind::Full => Some(Errno::NOSPC),
            FaultKind::ReadOnly => Some(Errno::ROFS),
            FaultKind::Broken => Some(Errno::IO),
            FaultKind::Interrupted => Some(Errno::INTR),
            FaultKind::TooManyOpen => Some(Errno::MFILE),
            FaultKind::Short | FaultKind::Losing => None,
        }
    }

    fn strikes(self, call: CallKind) -> bool {
        match self {
            FaultKind::Full => matches!(call, CallKind::Write | CallKind::Grow | CallKind::Sync),
            FaultKind::ReadOnly => !matches!(call, CallKind::Look | CallKind::Read),
            FaultKind::TooManyOpen => call == CallKind::Grow,
            FaultKind::Losing => call == CallKind::Sync,
            FaultKind::Broken => true,
            FaultKind::Short | FaultKind::Interrupted => matches!(call, CallKind::Read | CallKind::Write),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
    Exchange(String, String),
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
    /// What [`Storage::dress`](crate::store::storage::Storage::dress) set, as it is and as the disk
    /// knows it.
    pub(super) dress: FileDress,
    pub(super) durable_dress: FileDress,
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

    /// Counts a call and says what goes wrong with it.
    pub(super) fn call(&mut self, call: CallKind) -> Option<FaultKind> {
        self.calls += 1;
        let fault = self.fault.filter(|f| self.calls == f.at || f.lasts && self.calls > f.at)?;
        let kind = Some(fault.kind).filter(|kind| kind.strikes(call))?;
        self.struck = true;
        Some(kind)
    }

    /// A call that does all or nothing.
    pub(super) fn attempt(&mut self, call: CallKind) -> io::Result<()> {
        self.call(call).and_then(FaultKind::error).map_or(Ok(()), |e| Err(e.into()))
    }

    /// A sync of this file, or of all of them, which may lose what was written.
    pub(super) fn attempt_sync(&mut self, inode: Option<u64>) -> io::Result<()> {
        let fault = self.call(CallKind::Sync);
        if fault == Some(FaultKind::Losing) {
            let synced = self.files.iter_mut().filter(|(of, _)| inode.is_none_or(|inode| inode == **of));
            synced.for_each(|(_, file)| file.lose());
        }
        fault.and_then(FaultKind::error).map_or(Ok(()), |e| Err(e.into()))
    }

    pub(super) fn new_inode(&self) -> u64 {
        // A number is free once no name, durable or not, means it.
        let used = |n: &u64| self.names.values().chain(self.durable_names.values()).any(|i| i == n);
        (1..).find(|n| !used(n)).unwrap_or_default()
    }

    pub(super) fn change(&mut self, change: NameChange) -> io::Result<()> {
        if let NameChange::Unlink(from) | NameChange::Rename(from, _) | NameChange::Exchange(from, _) = &change
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
        let (strict, durable) = (self.strict, &mut self.durable_names);
        let mut at = 0;
        self.pending_names.retain(|change| {
            at += 1;
            let done = at <= upto && (!strict || concerns(change));
            if done {
                change.apply(durable);
            }
            !done
        });
    }

    /// The names after a power loss: of the unsynced changes a prefix survives, of each directory
    /// for itself where the syncs are strict. What lies in a directory whose name is lost is lost.
    pub(super) fn surviving_names(&self, rng: &mut Rng) -> BTreeMap<String, u64> {
        let mut names = self.durable_names.clone();
        let all = self.pending_names.len();
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        let survive = rng.below(all as u64 + 1) as usize;
        for (at, change) in self.pending_names.iter().enumerate() {
            let upto = if self.strict {
                *last.entry(change.dir()).or_insert_with(|| rng.below(all as u64 + 1) as usize)
            } else {
                survive
            };
            if at < upto {
                change.apply(&mut names);
            }
        }
        let lost: Vec<&String> = self.names.keys().filter(|n| n.ends_with('/') && !names.contains_key(*n)).collect();
        names.retain(|name, _| !lost.iter().any(|dir| name.starts_with(*dir)));
        names
    }
}

impl NameChange {
    /// The directory that it changes, with its slash; empty for the top.
    pub(super) fn dir(&self) -> &str {
        let (NameChange::Link(name, _)
        | NameChange::Unlink(name)
        | NameChange::Rename(_, name)
        | NameChange::Exchange(_, name)) = self;
        let end = name.trim_end_matches('/').rfind('/').map_or(0, |i| i + 1);
        &name[..end]
    }

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
            NameChange::Exchange(one, other) => {
                if let (Some(first), Some(second)) = (names.get(one).copied(), names.get(other).copied()) {
                    names.extend([(one.clone(), second), (other.clone(), first)]);
                }
            }
        }
    }
}

impl FileContent {
    /// Drops what was written and not synced.
    fn lose(&mut self) {
        for change in self.pending.drain(..) {
            if let FileChange::Write(at, data) = change {
                FileChange::Write(at, vec![0; data.len()]).apply(&mut self.bytes);
            }
        }
    }
}

impl FileChange {
    /// Applies what a power loss leaves of the change. The disk writes sectors, in any order.
    pub(super) fn apply_torn(&self, bytes: &mut Vec<u8>, rng: &mut Rng) {
        match self {
            FileChange::Write(at, data) => {
                let mut done = 0;
                while done < data.len() {
                    let sector = (SECTOR_LEN - (*at as usize + done) % SECTOR_LEN).min(data.len() - done);
                    if rng.below(2) == 0 {
                        FileChange::Write(at + done as u64, data[done..done + sector].to_vec()).apply(bytes);
                    }
                    done += sector;
                }
            }
            FileChange::SetLen(_) => self.apply(bytes),
        }
    }

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
