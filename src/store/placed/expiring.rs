//! The files of a directory that may expire, followed by its records.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::content::{FileId, RelPath};
use crate::store::limits::EXPIRING_MAX;
use crate::store::placed::frames::hash_of;
use crate::store::placed::known::RecordReader;
use crate::store::placed::record::{Keeping, PlacedState, RecordLine};
use crate::store::storage::Folder;

/// A file that may expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExpiringFile {
    pub(crate) id: FileId,
    /// Its state when it was put in place: in any other it is the user's.
    pub(crate) state: PlacedState,
    /// When it was used last, in seconds since 1970.
    pub(crate) used_s: u64,
    /// The time of the last use that is recorded.
    pub(crate) recorded_s: u64,
    /// Whether a mirror keeps it, rather than a fetch for a while.
    pub(crate) is_mirrored: bool,
}

/// What may expire, and what has. Of more than [`EXPIRING_MAX`] files the ones beyond stay.
pub(crate) struct ExpiringFiles {
    reader: RecordReader,
    files: BTreeMap<RelPath, ExpiringFile>,
    /// The contents that the names had which have expired.
    expired: HashMap<RelPath, FileId>,
    bytes: u128,
}

impl ExpiringFiles {
    /// The files of the directory `root`, absolute and without links, by the records in `folder`.
    pub(crate) fn new(folder: Arc<dyn Folder>, root: &Path) -> Self {
        let reader = RecordReader::new(folder, root);
        ExpiringFiles { reader, files: BTreeMap::new(), expired: HashMap::new(), bytes: 0 }
    }

    /// Takes over what is new in the records.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn refresh(&mut self) -> io::Result<()> {
        let ExpiringFiles { reader, files, expired, bytes } = self;
        let mut table = ExpiringTable { files, expired, bytes };
        reader.read_new(|record| match record {
            None => table.clear(),
            Some((_, line)) => table.take(line),
        })
    }

    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RelPath, &ExpiringFile)> {
        self.files.iter()
    }

    pub(crate) fn get(&self, path: &RelPath) -> Option<&ExpiringFile> {
        self.files.get(path)
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> u64 {
        u64::try_from(self.bytes).unwrap_or(u64::MAX)
    }

    /// Whether `id` was at `path` and has expired.
    pub(crate) fn has_expired(&self, path: &RelPath, id: &FileId) -> bool {
        self.expired.get(path) == Some(id)
    }

    /// Forgets `path`: it is gone, or the user's.
    pub(crate) fn forget(&mut self, path: &RelPath) {
        if let Some(file) = self.files.remove(path) {
            self.bytes -= u128::from(file.id.len);
        }
    }

    /// `path` is in this state, since another name of it was removed.
    pub(crate) fn restate(&mut self, path: &RelPath, state: PlacedState) {
        if let Some(file) = self.files.get_mut(path) {
            file.state = state;
        }
    }

    /// `path` has expired.
    pub(crate) fn expire(&mut self, path: &RelPath) {
        let id = self.files.get(path).map(|file| file.id);
        self.forget(path);
        if let Some(id) = id.filter(|_| self.expired.len() < EXPIRING_MAX) {
            self.expired.insert(path.clone(), id);
        }
    }

    /// The files whose names have these hashes were used at `now_s`.
    pub(crate) fn used(&mut self, names: &HashSet<u64>, now_s: u64) {
        if names.is_empty() {
            return;
        }
        for (path, file) in &mut self.files {
            if names.contains(&hash_of(path.as_str().as_bytes())) {
                file.used_s = file.used_s.max(now_s);
            }
        }
    }

    /// `path` was used at `at_s`.
    pub(crate) fn used_at(&mut self, path: &RelPath, at_s: u64) {
        if let Some(file) = self.files.get_mut(path) {
            file.used_s = file.used_s.max(at_s);
        }
    }

    /// No copy was used later than at `now_s`.
    pub(crate) fn clamp(&mut self, now_s: u64) {
        self.files.values_mut().for_each(|file| file.used_s = file.used_s.min(now_s));
    }

    /// Moves times by `by_s` seconds, as the clock did to `now_s`. A time that was in the future
    /// before is one of a clock that was right, and stays.
    pub(crate) fn leap(&mut self, by_s: u64, now_s: u64) {
        let before_s = now_s.saturating_sub(by_s);
        for file in self.files.values_mut() {
            let moved_s = if file.used_s <= before_s { file.used_s.saturating_add(by_s) } else { file.used_s };
            file.used_s = moved_s.min(now_s);
        }
    }

    /// The files whose last use is later than the recorded one by at least `step_s`, which count as
    /// recorded from now on.
    pub(crate) fn take_unrecorded(&mut self, step_s: u64) -> Vec<(RelPath, ExpiringFile)> {
        let mut due = Vec::new();
        for (path, file) in &mut self.files {
            if file.used_s >= file.recorded_s.saturating_add(step_s.max(1)) {
                file.recorded_s = file.used_s;
                due.push((path.clone(), *file));
            }
        }
        due
    }
}

/// The parts of [`ExpiringFiles`] that records change.
struct ExpiringTable<'a> {
    files: &'a mut BTreeMap<RelPath, ExpiringFile>,
    expired: &'a mut HashMap<RelPath, FileId>,
    bytes: &'a mut u128,
}

impl ExpiringTable<'_> {
    fn clear(&mut self) {
        self.files.clear();
        self.expired.clear();
        *self.bytes = 0;
    }

    fn take(&mut self, line: &RecordLine<'_>) {
        let Ok(path) = RelPath::new(line.name) else { return };
        let (state, used_s, is_mirrored) = match (line.state, line.keeping) {
            (Some(state), Keeping::Temporary { used_s }) => (state, used_s, false),
            (Some(state), Keeping::Mirrored { used_s }) => (state, used_s, true),
            (Some(_), Keeping::Kept) => {
                self.expired.remove(&path);
                return self.remove(&path);
            }
            (_, Keeping::Expired) => {
                self.remove(&path);
                if self.expired.len() < EXPIRING_MAX {
                    self.expired.insert(path, line.id);
                }
                return;
            }
            (None, _) => return,
        };
        self.expired.remove(&path);
        let before = self.files.get(&path).filter(|file| file.state == state).map_or(0, |file| file.used_s);
        self.remove(&path);
        if self.files.len() < EXPIRING_MAX {
            *self.bytes += u128::from(line.id.len);
            let (used_s, recorded_s) = (used_s.max(before), used_s);
            self.files.insert(path, ExpiringFile { id: line.id, state, used_s, recorded_s, is_mirrored });
        }
    }

    fn remove(&mut self, path: &RelPath) {
        if let Some(file) = self.files.remove(path) {
            *self.bytes -= u128::from(file.id.len);
        }
    }
}

impl fmt::Debug for ExpiringFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpiringFiles").field("files", &self.files.len()).field("bytes", &self.bytes).finish()
    }
}
