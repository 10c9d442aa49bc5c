//! The record of the files that fetches put in place: which content each name got, and the state of
//! the file then. It tells a later fetch what is not the user's.
//!
//! There is one file for each directory that is fetched into, in the state directory, to which any
//! process appends under a lock. A record that is missing, cut or damaged says nothing: then the
//! file counts as the user's. An *intent* is written before a file is placed, and its state after
//! it, so that a process that is killed in between leaves a record that can be checked by hashing.
//!
//! A file of records: magic 8; length at the last compaction 8; length of the directory's path 2,
//! and the path; then frames: length 4, checksum 8, and records one after the other. Integers are
//! little-endian. Of several records of a name the last one with a state counts, and an intent behind
//! it: of a file that was to be replaced it is open which of both came to be. A file that may expire has
//! a further record when it was used, and one when it is gone.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use log::warn;

use crate::chain::Chain;
use crate::store::limits::{
    PLACED_BUFFER_LEN, PLACED_COMPACT_LEN, PLACED_KEPT_LEN_MAX, PLACED_LAST_LOCK_TRIES, PLACED_LEN_MAX,
    PLACED_LOCK_TRIES,
};
use crate::store::storage::{FileLock, Folder, Storage};
use crate::sync::lock;

mod around;
mod expiring;
mod frames;
mod known;
mod layers;
mod record;

use around::RecordsAbove;
pub(crate) use expiring::{ExpiringFile, ExpiringFiles};
use frames::{FRAME_HEAD_LEN, Header, NEW_SUFFIX, end_of_frames, file_name, frame};
pub(crate) use frames::{hash_of, is_record_name};
pub(crate) use known::KnownNames;
pub use record::Life;
pub(crate) use record::{Keeping, PlacedFile, PlacedState};
use record::{RECORD_LEN_MAX, RecordLine, read_record};

/// The records of what was fetched into one directory, and access to the records of others.
#[derive(Debug)]
pub(crate) struct PlacedLog {
    folder: Arc<dyn Folder>,
    /// The directory: absolute, without links.
    root: PathBuf,
    /// Records that are not written yet.
    pending: Mutex<PendingRecords>,
    /// What the records of a directory say, once they were read. `None` if there are none.
    known: Mutex<HashMap<PathBuf, Option<Arc<KnownNames>>>>,
    /// The records of the directory itself and of the ones above, once they were asked for.
    above: Mutex<Option<Arc<[RecordsAbove]>>>,
    /// A directory below, on the way to which no file may expire.
    plain_parent: Mutex<String>,
    /// Records of other directories that were written to.
    others: Mutex<HashMap<PathBuf, Arc<PlacedLog>>>,
    /// Where the last append ended, in which file. It is held, so that no other file gets its inode
    /// number.
    end: Mutex<Option<(Arc<dyn Storage>, u64)>>,
    /// Why nothing is recorded.
    trouble: Mutex<Option<String>>,
}

/// Records that are not written yet.
#[derive(Debug, Default)]
struct PendingRecords {
    bytes: Vec<u8>,
    /// How many of them could not be written since another process had the file.
    kept_len: usize,
    /// Room for one record.
    record: Vec<u8>,
}

impl PlacedLog {
    /// The records of `root`, which is absolute and without links, in `folder`. Nothing is read or
    /// written before it is needed.
    pub(crate) fn new(folder: Arc<dyn Folder>, root: PathBuf) -> Self {
        let (pending, known, others) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (above, plain_parent, end, trouble) = Default::default();
        PlacedLog { folder, root, pending, known, above, plain_parent, others, end, trouble }
    }

    /// Notes what a name is to get, or has got in which state. Written by [`flush`](Self::flush),
    /// and when enough has gathered.
    pub(crate) fn note(&self, name: &str, file: PlacedFile) {
        let line = RecordLine { name, id: file.id, state: file.state, keeping: file.keeping };
        let mut pending = lock(&self.pending);
        let PendingRecords { bytes, record, .. } = &mut *pending;
        record.resize(RECORD_LEN_MAX, 0);
        if let Ok(record) = postcard::to_slice(&line, record) {
            bytes.extend_from_slice(record);
        }
        let is_enough = pending.bytes.len() - pending.kept_len >= PLACED_BUFFER_LEN;
        drop(pending);
        if is_enough {
            self.flush();
        }
    }

    /// Writes what was noted. A failure is logged once: the record only saves questions.
    pub(crate) fn flush(&self) {
        // Another process that had the file for so long may have it for longer.
        let is_kept = lock(&self.pending).kept_len > 0;
        self.flush_trying(if is_kept { 1 } else { PLACED_LOCK_TRIES });
    }

    fn flush_trying(&self, tries: u32) {
        let PendingRecords { bytes: records, kept_len, .. } = std::mem::take(&mut *lock(&self.pending));
        if records.is_empty() || lock(&self.trouble).is_some() {
            return;
        }
        let Err(e) = self.append(&records, tries) else { return };
        let is_held = e.kind() == io::ErrorKind::WouldBlock;
        if is_held && self.keep(&records, kept_len) {
            return;
        }
        let path = self.folder.path_of(&file_name(&self.root));
        let path = path.display();
        warn!("what is fetched is not recorded, so it counts as the user's path={path} error=\"{}\"", Chain(&e));
        if !is_held {
            *lock(&self.trouble) = Some(e.to_string());
        }
    }

    /// Keeps records for the next flush, before those that were noted meanwhile. False if there are
    /// too many: then only the first `kept_len` bytes of them, which were kept before, stay.
    fn keep(&self, records: &[u8], kept_len: usize) -> bool {
        let mut pending = lock(&self.pending);
        let has_room = records.len() + pending.bytes.len() <= PLACED_KEPT_LEN_MAX;
        let kept = if has_room { records } else { &records[..kept_len] };
        pending.bytes.splice(..0, kept.iter().copied());
        pending.kept_len += kept.len();
        has_room
    }

    /// Writes what was noted, makes it durable, and drops what later records replace.
    pub(crate) fn finish(&self, durable: bool) {
        self.flush_trying(PLACED_LAST_LOCK_TRIES);
        // For the records of other directories a flush at the end is enough.
        lock(&self.others).clear();
        let compacted = self.locked(PLACED_LOCK_TRIES, |file| {
            let header = Header::read(&**file, &self.root)?;
            let grown = file.stat()?.len > header.map_or(0, |h| 2 * h.compacted_len) + PLACED_COMPACT_LEN;
            if grown {
                self.compact(file)
            } else if durable {
                file.sync()
            } else {
                Ok(())
            }
        });
        if let Err(e) = compacted {
            log::debug!("record of fetched files not tidied error=\"{}\"", Chain(&e));
        }
    }

    /// All that the records say of the file `path` below the directory: first the records of the
    /// directory itself, then of each directory on the way, into which a part may have been fetched,
    /// and of those above. Nothing tells which of them is the newest, so any of them may be true.
    pub(crate) fn find(&self, path: &str) -> Vec<PlacedFile> {
        // What has expired is gone.
        self.find_each(path).into_iter().flatten().filter(|file| file.keeping != Keeping::Expired).collect()
    }

    /// Whether a fetch put a file at `path` that did not expire since.
    pub(crate) fn was_fetched(&self, path: &str) -> bool {
        let stays = |records: &Vec<PlacedFile>| records.iter().all(|file| file.keeping != Keeping::Expired);
        let is_placed = |records: &Vec<PlacedFile>| records.iter().any(|file| file.state.is_some());
        self.find_each(path).iter().any(|records| stays(records) && is_placed(records))
    }

    /// As [`find`](Self::find), by directory.
    fn find_each(&self, path: &str) -> Vec<Vec<PlacedFile>> {
        self.flush();
        let whole = self.root.join(path);
        let own = std::iter::once(self.root.as_path());
        let others = whole.ancestors().skip(1).filter(|dir| *dir != self.root);
        let found = own.chain(others).filter_map(|dir| {
            let name = whole.strip_prefix(dir).ok()?.to_str()?;
            Some(self.names_of(dir)?.get(name))
        });
        found.collect()
    }

    fn names_of(&self, dir: &Path) -> Option<Arc<KnownNames>> {
        if let Some(known) = lock(&self.known).get(dir) {
            return known.clone();
        }
        let mut names = KnownNames::new(self.folder.clone(), dir);
        let known = names.refresh().is_ok().then(|| Arc::new(names));
        lock(&self.known).insert(dir.to_owned(), known.clone());
        known
    }

    /// Appends one frame of records.
    fn append(&self, records: &[u8], tries: u32) -> io::Result<()> {
        self.locked(tries, |file| {
            let stat = file.stat()?;
            let known_end = match &*lock(&self.end) {
                Some((of, end)) if of.stat()?.stamp.inode == stat.stamp.inode => Some(*end),
                _ => None,
            };
            let begin = match Header::read(&**file, &self.root)? {
                Some(header) => known_end.unwrap_or(header.len).min(stat.len),
                None => Header::write(&**file, &self.root, 0)?,
            };
            let end = end_of_frames(&**file, begin)?;
            if end + (FRAME_HEAD_LEN + records.len()) as u64 > PLACED_LEN_MAX {
                return Err(io::Error::other("the record is too long"));
            }
            file.write_at(end, &frame(records))?;
            // A longer tail of an append that was cut off is not to be read behind this frame.
            let end = end + (FRAME_HEAD_LEN + records.len()) as u64;
            if stat.len > end {
                file.set_len(end)?;
            }
            *lock(&self.end) = Some((file.clone(), end));
            Ok(())
        })
    }

    /// Runs `act` on the file of the directory, under its lock. The file is made if it is missing.
    fn locked(&self, tries: u32, act: impl FnOnce(&Arc<dyn Storage>) -> io::Result<()>) -> io::Result<()> {
        let name = file_name(&self.root);
        for _ in 0..tries {
            let file = match self.folder.open(&name)? {
                Some(file) => file,
                None => match self.folder.create(&name)? {
                    Some(file) => file,
                    None => continue,
                },
            };
            if file.try_lock()? == FileLock::Held {
                std::thread::sleep(LOCK_NAP);
                continue;
            }
            // A compaction may have put another file under the name.
            let is_current = match self.folder.open(&name)? {
                Some(current) => current.stat()?.stamp.inode == file.stat()?.stamp.inode,
                None => false,
            };
            if is_current {
                let done = act(&file);
                file.unlock();
                return done;
            }
            file.unlock();
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Replaces the file by one with the last records of each name that still exists.
    fn compact(&self, file: &Arc<dyn Storage>) -> io::Result<()> {
        let mut known = KnownNames::new(self.folder.clone(), &self.root);
        known.refresh()?;
        let (name, temp) = (file_name(&self.root), format!("{}{NEW_SUFFIX}", file_name(&self.root)));
        self.folder.remove(&temp)?;
        let to = self.folder.create(&temp)?.ok_or(io::ErrorKind::AlreadyExists)?;
        let begin = Header::write(&*to, &self.root, 0)?;
        let (mut end, mut records) = (begin, Vec::new());
        let mut put = |records: &mut Vec<u8>| -> io::Result<()> {
            if !records.is_empty() {
                to.write_at(end, &frame(records))?;
                end += (FRAME_HEAD_LEN + records.len()) as u64;
                records.clear();
            }
            Ok(())
        };
        let mut buffer = vec![0; RECORD_LEN_MAX];
        for at in known.places() {
            let Some(line) = read_record(&**file, at, &mut buffer) else { continue };
            // That a file has expired is worth knowing while it is gone.
            let is_there = self.root.join(line.name).symlink_metadata().is_ok();
            if !is_there && line.keeping != Keeping::Expired {
                continue;
            }
            records.extend(postcard::to_allocvec(&line).map_err(io::Error::other)?);
            if records.len() >= PLACED_BUFFER_LEN {
                put(&mut records)?;
            }
        }
        put(&mut records)?;
        Header::write(&*to, &self.root, end)?;
        to.sync()?;
        self.folder.rename(&temp, &name)?;
        lock(&self.known).remove(&self.root);
        *lock(&self.above) = None;
        self.folder.sync()
    }
}

impl Drop for PlacedLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Between two tries to get the lock.
const LOCK_NAP: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests;
