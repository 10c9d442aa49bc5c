//! The index: a cache of digests, so that no file is hashed twice.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use redb::{Database, Durability, ReadableDatabase};
use rustix::io::retry_on_intr;

use crate::content::{Catalogue, Digest, FileId, Geometry, Marks, RelPath, Stamp};
use crate::store::disk_folder::DiskFolder;
use crate::store::limits::{INDEX_RECORD_DIGESTS, PRUNE_STEP, WRITEBACK_MAX};
use crate::store::storage::Folder;
use crate::sync::{read_lock, write_lock};

mod beside;
mod database;
mod existing;
mod probe;
mod tables;

pub(crate) use database::{DAMAGED_NAME, INDEX_NAME};
use database::{open_lasting, open_temporary, prepare};
use tables::{FILES, IndexResult, LAYERS, OWNERS, Tables, decode, file_key, layer_key, layer_record, owner_key};

/// Maps (directory, path, size, stamp) to identity, and identities to chunk digests; a redb
/// database in the state directory.
///
/// The index is a cache: a file whose record cannot be read or written is hashed again, so only a
/// lookup can fail. Several directories share one database. Each call blocks for disk I/O, and
/// writers wait for each other.
#[derive(Debug)]
pub struct Index {
    open: RwLock<OpenIndex>,
    /// Where a temporary database would lie, and the directory that it would be for.
    state: Option<Arc<dyn Folder>>,
    name: Vec<u8>,
    /// Whether a file was recorded whose bytes may not be on the disk yet.
    has_fresh: AtomicBool,
    /// Whether a temporary database took the place of one that was damaged while it was used.
    replaced: AtomicBool,
    /// Whether a failed write was logged: later ones would only repeat it.
    complained: AtomicBool,
}

#[derive(Debug, Clone)]
struct OpenIndex {
    database: Arc<Database>,
    /// Number of the shared directory, the first half of its keys in `FILES`.
    dir: u32,
    #[cfg(test)]
    lasting: bool,
}

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indexed {
    /// Its content.
    pub id: FileId,
    /// The state in which it was hashed.
    pub stamp: Stamp,
}

/// A file that was hashed, to be remembered.
#[derive(Debug, Clone)]
pub struct Hashed {
    /// Its name.
    pub path: RelPath,
    /// Its content and the state in which it was read.
    pub indexed: Indexed,
    /// What else was found of it. The index does not keep that.
    pub marks: Marks,
    /// The digests of its chunks; empty for a file of at most one chunk.
    pub layer: Vec<Digest>,
}

/// A view of the index as it was at one moment, for many lookups.
pub struct Lookup {
    files: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
    owners: redb::ReadOnlyTable<&'static [u8], u64>,
    dir: u32,
    key: Vec<u8>,
    /// The database turned out to be damaged, so nothing more is found.
    broken: bool,
}

impl Index {
    /// Opens `<state>/index.redb` for the directory `dir`. Where that one is locked or cannot be
    /// used, a temporary one takes its place until the end, and a log line says why.
    ///
    /// The state directory is created (mode 0700) if it is missing. A damaged database is renamed
    /// to `index.redb.damaged` and replaced.
    ///
    /// # Errors
    /// The system's error when not even a temporary database can be made.
    pub fn open(state: &Path, dir: &Path) -> io::Result<Self> {
        let name = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
        Self::open_in(Arc::new(DiskFolder::new(state)), name.as_os_str().as_encoded_bytes())
    }

    /// An index in memory, which ends with the node.
    ///
    /// # Errors
    /// The database cannot be made.
    pub fn in_memory() -> io::Result<Self> {
        let open = OpenIndex::temporary(None, b"").map_err(io::Error::other)?;
        let [has_fresh, replaced, complained] = Default::default();
        Ok(Index { open: RwLock::new(open), state: None, name: Vec::new(), has_fresh, replaced, complained })
    }

    fn open_in(state: Arc<dyn Folder>, name: &[u8]) -> io::Result<Self> {
        let index = |open| Index {
            open: RwLock::new(open),
            state: Some(state.clone()),
            name: name.to_vec(),
            has_fresh: AtomicBool::new(false),
            replaced: AtomicBool::new(false),
            complained: AtomicBool::new(false),
        };
        let lasting = open_lasting(&*state).map_err(redb::Error::from).and_then(|database| {
            let dir = prepare(&database, name)?;
            Ok(OpenIndex {
                database: Arc::new(database),
                dir,
                #[cfg(test)]
                lasting: true,
            })
        });
        match lasting {
            Ok(open) => Ok(index(open)),
            Err(e) => {
                let path = state.path_of("");
                match e {
                    redb::Error::DatabaseAlreadyOpen => log::warn!(
                        "another node uses this state directory, files are hashed again and both have one key; give \
                         each a directory of its own path={}",
                        path.display()
                    ),
                    e => log::warn!("index not usable, files are hashed again path={} error=\"{e}\"", path.display()),
                }
                OpenIndex::temporary(Some(&*state), name).map(index).map_err(io::Error::other)
            }
        }
    }

    /// A view for looking files up; `None` when the database cannot be read. Later records are not
    /// in it.
    pub fn lookup(&self) -> Option<Lookup> {
        self.guarded(|open| {
            let read = open.database.begin_read()?;
            let (files, owners) = (read.open_table(FILES)?, read.open_table(OWNERS)?);
            Ok(Lookup { files, owners, dir: open.dir, key: Vec::new(), broken: false })
        })
        .ok()
    }

    /// Whether the database is the one that stays.
    #[cfg(test)]
    fn is_lasting(&self) -> bool {
        read_lock(&self.open).lasting
    }

    /// Whether, since the last call, a temporary database took the place of a damaged one: the
    /// layers of all files that were hashed before are lost.
    pub fn was_replaced(&self) -> bool {
        self.replaced.swap(false, Ordering::Relaxed)
    }

    /// Records files in one transaction. They are readable at once and durable after the next
    /// [`Index::sync`]. False when that failed, so that the layers of these files are missing; the
    /// first failure is logged.
    pub fn record(&self, files: &[Hashed]) -> bool {
        if files.iter().any(|file| is_fresh(&file.indexed.stamp)) {
            self.has_fresh.store(true, Ordering::Relaxed);
        }
        self.logged("write", || {
            self.write(Durability::None, |tables, dir| files.iter().try_for_each(|file| tables.put(dir, file)))
        })
    }

    /// Forgets one file, and its layer unless another file has it.
    pub fn forget(&self, path: &RelPath) {
        self.logged("write", || {
            self.write(Durability::None, |tables, dir| tables.remove(&file_key(dir, path.as_str())))
        });
    }

    /// Makes the records durable, and before them the bytes of files that were changed shortly
    /// before they were hashed: after a power loss such a file may have its new times and its old
    /// bytes, of which the record would have the wrong root. Blocks until the disk has done it.
    pub fn sync(&self) {
        // What lies in memory outlives nothing.
        if self.state.is_some()
            && self.has_fresh.swap(false, Ordering::Relaxed)
            && !self.logged("sync of the directory", || Ok(sync_file_system(Path::new(OsStr::from_bytes(&self.name)))?))
        {
            self.has_fresh.store(true, Ordering::Relaxed);
            return;
        }
        self.sync_records();
    }

    /// Makes the records durable, as [`sync`](Self::sync), without a wait for the bytes of others:
    /// for the end, after which the system has the time to write them.
    pub fn sync_records(&self) {
        self.logged("sync", || self.write(Durability::Immediate, |_, _| Ok(())));
    }

    /// Looks at up to [`PRUNE_STEP`] files of this directory, in order from the path `from` on, and
    /// forgets each that `keep` does not list. Returns the path to continue from, `None` at the
    /// end.
    ///
    /// `keep` must be complete: a file that it lacks is hashed again when it comes back.
    pub fn prune_from(&self, keep: &Catalogue, from: &str) -> Option<String> {
        let mut next = None;
        self.logged("prune", || {
            let (gone, rest) = self.guarded(|open| Self::unlisted(open, keep, from))?;
            next = rest;
            if gone.is_empty() {
                return Ok(());
            }
            self.write(Durability::None, |tables, _| gone.iter().try_for_each(|key| tables.remove(key)))
        });
        next
    }

    /// Digests `first .. first + count` of a file's layer. `None` if the layer is not known whole,
    /// the range ends beyond it, or a record is damaged, so that the file must be hashed again.
    pub fn layer(&self, id: &FileId, first: u32, count: u32) -> Option<Vec<Digest>> {
        let end = first.checked_add(count)?;
        let geometry = Geometry::new(id.len);
        if !geometry.needs_layer() || end > geometry.chunk_count() {
            return None;
        }
        self.guarded(|open| Self::digests(open, id, first, end)).ok().flatten()
    }

    fn digests(open: &OpenIndex, id: &FileId, first: u32, end: u32) -> IndexResult<Option<Vec<Digest>>> {
        let chunks = Geometry::new(id.len).chunk_count();
        let read = open.database.begin_read()?;
        let table = read.open_table(LAYERS)?;
        let mut digests = Vec::with_capacity((end - first) as usize);
        for record in first / INDEX_RECORD_DIGESTS..end.div_ceil(INDEX_RECORD_DIGESTS) {
            let Some(value) = table.get(layer_key(id, record).as_slice())? else { return Ok(None) };
            let Some(stored) = layer_record(value.value()) else { return Ok(None) };
            let start = record * INDEX_RECORD_DIGESTS;
            let expected = INDEX_RECORD_DIGESTS.min(chunks - start) as usize;
            if stored.len() != expected {
                return Ok(None);
            }
            let from = first.saturating_sub(start) as usize;
            let to = ((end - start) as usize).min(expected);
            digests.extend(stored.get(from..to).unwrap_or_default().iter().map(|d| Digest(*d)));
        }
        Ok(Some(digests))
    }

    /// Runs `run` on the database. redb may panic when another program wrote to its file: a panic,
    /// like any other sign of damage, costs the index and not the thread.
    fn guarded<R>(&self, run: impl FnOnce(&OpenIndex) -> IndexResult<R>) -> IndexResult<R> {
        let open = read_lock(&self.open).clone();
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&open)))
            .unwrap_or_else(|_| Err(redb::Error::Corrupted("panic while in use".into())));
        if let Err(e @ redb::Error::Corrupted(_)) = &outcome {
            self.replace(&open, e);
        }
        outcome
    }

    fn replace(&self, damaged: &OpenIndex, cause: &redb::Error) {
        let mut open = write_lock(&self.open);
        if !Arc::ptr_eq(&open.database, &damaged.database) {
            return;
        }
        match OpenIndex::temporary(self.state.as_deref(), &self.name) {
            Ok(fresh) => {
                let path = self.state.as_ref().map_or_else(|| "memory".into(), |state| state.path_of(INDEX_NAME));
                log::warn!("index damaged, files are hashed again path={} error=\"{cause}\"", path.display());
                // Never dropped: redb would write to the damaged file then, and might panic too.
                std::mem::forget(std::mem::replace(&mut *open, fresh));
                self.replaced.store(true, Ordering::Relaxed);
            }
            Err(e) => log::error!("index damaged, and no temporary one can be made error=\"{e}\""),
        }
    }

    fn write(
        &self,
        durability: Durability,
        run: impl FnOnce(&mut Tables<'_>, u32) -> IndexResult<()>,
    ) -> IndexResult<()> {
        self.guarded(|open| {
            let mut transaction = open.database.begin_write()?;
            transaction.set_durability(durability)?;
            {
                let mut tables = Tables {
                    files: transaction.open_table(FILES)?,
                    layers: transaction.open_table(LAYERS)?,
                    owners: transaction.open_table(OWNERS)?,
                };
                run(&mut tables, open.dir)?;
            }
            transaction.commit()?;
            Ok(())
        })
    }

    /// Runs a step that may fail, and logs the first failure.
    fn logged(&self, what: &str, run: impl FnOnce() -> IndexResult<()>) -> bool {
        let outcome = run();
        if let Err(e) = &outcome
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            log::warn!("index {what} failed, files are hashed again next time error=\"{e}\"");
        }
        outcome.is_ok()
    }

    /// Keys from `from` on that `keep` lacks, and the path to continue from.
    fn unlisted(open: &OpenIndex, keep: &Catalogue, from: &str) -> IndexResult<(Vec<Vec<u8>>, Option<String>)> {
        let read = open.database.begin_read()?;
        let table = read.open_table(FILES)?;
        let mut gone = Vec::new();
        for (seen, row) in table.range(file_key(open.dir, from).as_slice()..)?.enumerate() {
            let row = row?;
            let key = row.0.value();
            let Some(path) = key.strip_prefix(open.dir.to_be_bytes().as_slice()) else { return Ok((gone, None)) };
            match std::str::from_utf8(path) {
                Ok(path) if seen >= PRUNE_STEP => return Ok((gone, Some(path.to_owned()))),
                Ok(path) if keep.get(path).is_some() => {}
                _ => gone.push(key.to_vec()),
            }
        }
        Ok((gone, None))
    }
}

/// Whether the system may not have written the bytes of a file in this state yet.
fn is_fresh(stamp: &Stamp) -> bool {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let changed = Duration::from_nanos(u64::try_from(stamp.mtime_ns.max(stamp.ctime_ns)).unwrap_or(0));
    changed + WRITEBACK_MAX >= now
}

/// Makes everything durable that was written to the file system of `dir`.
fn sync_file_system(dir: &Path) -> io::Result<()> {
    let dir = std::fs::File::open(dir)?;
    Ok(retry_on_intr(|| rustix::fs::syncfs(&dir))?)
}

impl OpenIndex {
    fn temporary(state: Option<&dyn Folder>, name: &[u8]) -> IndexResult<Self> {
        let database = open_temporary(state)?;
        let dir = prepare(&database, name)?;
        Ok(OpenIndex {
            database: Arc::new(database),
            dir,
            #[cfg(test)]
            lasting: false,
        })
    }
}

impl Lookup {
    /// The identity of `path`, if the file had `len` bytes and the state `stamp` when it was
    /// hashed. A file of several chunks is known only with its layer.
    pub fn get(&mut self, path: &str, len: u64, stamp: &Stamp) -> Option<FileId> {
        if self.broken {
            return None;
        }
        let found = catch_unwind(AssertUnwindSafe(|| self.find(path, len, stamp)));
        self.broken = found.is_err();
        found.unwrap_or_default()
    }

    fn find(&mut self, path: &str, len: u64, stamp: &Stamp) -> Option<FileId> {
        self.key.clear();
        self.key.extend_from_slice(&self.dir.to_be_bytes());
        self.key.extend_from_slice(path.as_bytes());
        let known = self.files.get(self.key.as_slice()).ok()?.and_then(|v| decode(v.value()))?;
        if known.stamp != *stamp || known.id.len != len {
            return None;
        }
        if Geometry::new(len).needs_layer() {
            self.owners.get(owner_key(&known.id).as_slice()).ok()??;
        }
        Some(known.id)
    }
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookup").field("dir", &self.dir).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod crash_tests;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::content::{Entry, Root};

    fn hashed(path: &str, chunks: u32, byte: u8) -> Hashed {
        hashed_as(path, chunks, byte as u32)
    }

    /// A file whose root, layer and state say which version it is.
    pub(super) fn hashed_as(path: &str, chunks: u32, version: u32) -> Hashed {
        let byte = version as u8;
        let len = if chunks == 1 { 7 } else { chunks as u64 * 262_144 };
        let layer: Vec<Digest> = if chunks == 1 { Vec::new() } else { (0..chunks).map(|i| digest(byte, i)).collect() };
        let indexed = Indexed {
            id: FileId { root: Root(digest(byte, u32::MAX)), len },
            stamp: Stamp { mtime_ns: -5, ctime_ns: 1 << 60, inode: version as u64 },
        };
        Hashed { path: RelPath::new(path).unwrap(), indexed, marks: Marks::default(), layer }
    }

    fn digest(byte: u8, i: u32) -> Digest {
        let mut d = [byte; 32];
        d[..4].copy_from_slice(&i.to_be_bytes());
        Digest(d)
    }

    pub(super) fn known(index: &Index, h: &Hashed) -> bool {
        let found = index.lookup().unwrap().get(h.path.as_str(), h.indexed.id.len, &h.indexed.stamp);
        assert!(found.is_none_or(|id| id == h.indexed.id));
        found.is_some()
    }

    #[test]
    fn a_file_that_was_just_written_is_fresh() {
        let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
        let at = |mtime_ns, ctime_ns| is_fresh(&Stamp { mtime_ns, ctime_ns, inode: 1 });
        let hour = 3_600_000_000_000;
        assert!(at(now, now) && at(0, now - hour / 100) && at(now + hour, 0), "by either time, and by a clock ahead");
        assert!(!at(now - hour, now - hour) && !at(-5, 0));
    }

    #[test]
    fn what_was_recorded_is_known_after_a_restart() {
        let tmp = tempfile::tempdir().unwrap();
        let state = tmp.path().join("deep/state");
        let files = [hashed("a", 1, 1), hashed("b/c", 2500, 2)];
        let index = Index::open(&state, tmp.path()).unwrap();
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(index.record(&files));
        index.sync();
        drop(index);
        let index = Index::open(&state, tmp.path()).unwrap();
        assert!(files.iter().all(|f| known(&index, f)));
        let id = files[1].indexed.id;
        for (first, count) in [(0, 2500), (0, 1), (999, 2), (1000, 1000), (2499, 1), (100, 0)] {
            let expected = &files[1].layer[first as usize..(first + count) as usize];
            assert_eq!(index.layer(&id, first, count).as_deref(), Some(expected), "{first} {count}");
        }
        assert_eq!(index.layer(&id, 2499, 2), None);
        assert_eq!(index.layer(&id, u32::MAX, 2), None);
        assert_eq!(index.layer(&files[0].indexed.id, 0, 1), None);
        let mut lookup = index.lookup().unwrap();
        let Indexed { id, stamp } = files[0].indexed;
        assert_eq!(lookup.get("a", id.len + 1, &stamp), None);
        assert_eq!(lookup.get("a", id.len, &Stamp { ctime_ns: 0, ..stamp }), None);
        assert_eq!(lookup.get("b", id.len, &stamp), None);
    }

    #[test]
    fn other_directories_do_not_mix() {
        let tmp = tempfile::tempdir().unwrap();
        for dir in ["one", "two"] {
            fs::create_dir(tmp.path().join(dir)).unwrap();
        }
        let index = Index::open(tmp.path(), &tmp.path().join("one")).unwrap();
        index.record(&[hashed("a", 2, 1)]);
        drop(index);
        let index = Index::open(tmp.path(), &tmp.path().join("two")).unwrap();
        assert!(!known(&index, &hashed("a", 2, 1)));
        assert_eq!(index.prune_from(&Catalogue::default(), ""), None);
        drop(index);
        let index = Index::open(tmp.path(), &tmp.path().join("one")).unwrap();
        assert!(known(&index, &hashed("a", 2, 1)));
    }

    #[test]
    fn a_layer_lives_as_long_as_a_file_that_has_it() {
        let tmp = tempfile::tempdir().unwrap();
        let index = Index::open(tmp.path(), tmp.path()).unwrap();
        let (x, y, z) = (hashed("x", 3, 1), hashed("y", 3, 1), hashed("z", 3, 9));
        assert!(index.record(&[x.clone(), y.clone(), z.clone()]));
        let keep = Entry { path: y.path.clone(), id: y.indexed.id, stamp: y.indexed.stamp, marks: Marks::default() };
        assert_eq!(index.prune_from(&Catalogue::new(1, vec![keep]), ""), None);
        assert!(!known(&index, &x) && known(&index, &y) && !known(&index, &z));
        assert!(index.layer(&x.indexed.id, 0, 3).is_some());
        assert!(index.layer(&z.indexed.id, 0, 3).is_none());
        index.record(&[Hashed { path: y.path.clone(), ..z.clone() }]);
        assert!(index.layer(&x.indexed.id, 0, 3).is_none() && index.layer(&z.indexed.id, 0, 3).is_some());
        index.record(&[Hashed { path: y.path.clone(), ..z.clone() }]);
        index.forget(&y.path);
        assert!(index.layer(&z.indexed.id, 0, 3).is_none());
    }

    #[test]
    fn pruning_goes_on_where_it_stopped() {
        let tmp = tempfile::tempdir().unwrap();
        let index = Index::open(tmp.path(), tmp.path()).unwrap();
        let files: Vec<Hashed> = (0..2 * PRUNE_STEP + 3).map(|i| hashed(&format!("{i:06}"), 1, i as u8)).collect();
        assert!(index.record(&files));
        let kept = files.iter().skip(2).step_by(5);
        let entry = |h: &Hashed| Entry {
            path: h.path.clone(),
            id: h.indexed.id,
            stamp: h.indexed.stamp,
            marks: Marks::default(),
        };
        let keep = Catalogue::new(1, kept.map(entry).collect());
        let (mut from, mut steps) = (String::new(), 0);
        while let Some(next) = index.prune_from(&keep, &from) {
            (from, steps) = (next, steps + 1);
        }
        assert_eq!(steps, 2);
        assert!(files.iter().all(|f| known(&index, f) == keep.get(f.path.as_str()).is_some()));
    }

    #[test]
    fn a_locked_index_is_replaced_for_the_time_being() {
        let tmp = tempfile::tempdir().unwrap();
        let first = Index::open(tmp.path(), tmp.path()).unwrap();
        first.record(&[hashed("a", 2, 1)]);
        let second = Index::open(tmp.path(), tmp.path()).unwrap();
        assert!(!known(&second, &hashed("a", 2, 1)));
        assert!(second.record(&[hashed("b", 2, 2)]) && known(&second, &hashed("b", 2, 2)));
        drop((first, second));
        let third = Index::open(tmp.path(), tmp.path()).unwrap();
        assert!(known(&third, &hashed("a", 2, 1)) && !known(&third, &hashed("b", 2, 2)));
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1, "nothing is left of the temporary one");
    }

    #[test]
    fn a_damaged_index_is_made_anew() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("index.redb");
        let files: Vec<Hashed> = (0..200).map(|i| hashed(&format!("f{i}"), 40, i as u8)).collect();
        for damage in ["garbage", "short", "truncated", "flipped"] {
            let index = Index::open(tmp.path(), tmp.path()).unwrap();
            assert!(index.record(&files));
            drop(index);
            let mut bytes = fs::read(&path).unwrap();
            match damage {
                "garbage" => bytes = (0..100_000u32).map(|i| ((i * 31) >> 3) as u8).collect(),
                "short" => bytes.truncate(100),
                "truncated" => bytes.truncate(bytes.len() / 2),
                _ => bytes[8192..].iter_mut().step_by(97).for_each(|b| *b ^= 0x55),
            }
            fs::write(&path, bytes).unwrap();
            let index = Index::open(tmp.path(), tmp.path()).unwrap();
            assert!(files.iter().all(|f| !known(&index, f)), "{damage}");
            assert!(index.record(&files) && files.iter().all(|f| known(&index, f)), "{damage}");
            drop(index);
            let index = Index::open(tmp.path(), tmp.path()).unwrap();
            assert!(files.iter().all(|f| known(&index, f)), "{damage}");
            drop(index);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn damage_while_it_is_used_costs_what_was_known_and_no_thread() {
        let tmp = tempfile::tempdir().unwrap();
        let index = Index::open(tmp.path(), tmp.path()).unwrap();
        let file = hashed("f", 40, 1);
        assert!(index.record(std::slice::from_ref(&file)) && known(&index, &file) && !index.was_replaced());
        let failed: IndexResult<()> = index.guarded(|open| {
            let _transaction = open.database.begin_write()?;
            panic!("as on a damaged page")
        });
        assert!(failed.is_err() && index.was_replaced() && !index.was_replaced());
        assert!(!known(&index, &file) && index.layer(&file.indexed.id, 0, 40).is_none());
        assert!(index.record(std::slice::from_ref(&file)) && known(&index, &file));
        index.sync();
        assert_eq!(index.layer(&file.indexed.id, 0, 40), Some(file.layer));
    }

    #[test]
    fn a_state_directory_that_cannot_be_had_is_no_error() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("file"), "").unwrap();
        let index = Index::open(&tmp.path().join("file/state"), tmp.path()).unwrap();
        assert!(index.record(&[hashed("a", 2, 1)]) && known(&index, &hashed("a", 2, 1)));
    }
}
