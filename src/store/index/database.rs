//! Opening the database of the index: the lasting one, or a temporary one in its place.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, ReadableTable, StorageBackend, StorageError};

use crate::store::disk_folder::DiskFolder;
use crate::store::index::tables::{DIRS, FILES, IndexResult, LAYERS, OWNERS};
use crate::store::limits::{INDEX_CACHE_LEN, PART_OPEN_TRIES};
use crate::store::storage::{FileLock, Folder, Storage};

/// Opens or creates the database in `state`. A damaged one is renamed and replaced.
pub(super) fn open_lasting(state: &dyn Folder) -> Result<Database, DatabaseError> {
    // redb may panic on a file that it did not write. A check of all pages at the start makes
    // nearly all of these panics errors; the others are caught.
    let open = || {
        let file = IndexFile::lock(open_or_create(state)?)?;
        builder().set_check_integrity_on_open(true).create_with_backend(file)
    };
    let guarded = || {
        catch_unwind(AssertUnwindSafe(open))
            .unwrap_or_else(|_| Err(StorageError::Corrupted("panic while opening".into()).into()))
    };
    match guarded() {
        Err(e) if is_damage(&e) => {
            let (path, aside) = (state.path_of(INDEX_NAME), state.path_of(DAMAGED_NAME));
            log::warn!("index damaged, replaced path={} kept={} error=\"{e}\"", path.display(), aside.display());
            state.rename(INDEX_NAME, DAMAGED_NAME)?;
            guarded()
        }
        opened => opened,
    }
}

/// Opens the database in `state`, if there is one, and replaces nothing.
pub(super) fn open_unchanged(state: &dyn Folder) -> io::Result<Option<Database>> {
    let Some(file) = state.open(INDEX_NAME)? else { return Ok(None) };
    if file.stat()?.len == 0 {
        return Ok(None);
    }
    match IndexFile::lock(file).and_then(|file| builder().create_with_backend(file)) {
        Ok(database) => Ok(Some(database)),
        Err(DatabaseError::DatabaseAlreadyOpen) => Err(io::ErrorKind::WouldBlock.into()),
        Err(e) => Err(io::Error::other(e)),
    }
}

fn open_or_create(state: &dyn Folder) -> io::Result<Arc<dyn Storage>> {
    // Other processes may create, rename or remove it meanwhile.
    for _ in 0..PART_OPEN_TRIES {
        if let Some(file) = state.open(INDEX_NAME)? {
            return Ok(file);
        }
        if let Some(file) = state.create(INDEX_NAME)? {
            // A lost name costs what was hashed, and nothing else.
            let _ = state.sync();
            return Ok(file);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A database in a file without a name, or in memory where there is no `state`: nothing of it stays
/// behind, however the process ends.
pub(super) fn open_temporary(state: Option<&dyn Folder>) -> Result<Database, DatabaseError> {
    let temp_dir = DiskFolder::new(&std::env::temp_dir());
    for dir in state.into_iter().flat_map(|state| [state, &temp_dir]) {
        match unnamed_file(dir).map_err(DatabaseError::from).and_then(IndexFile::lock) {
            Ok(file) => return builder().create_with_backend(file),
            Err(e) => log::debug!("no temporary index path={} error=\"{e}\"", dir.path_of("").display()),
        }
    }
    builder().create_with_backend(InMemoryBackend::new())
}

fn unnamed_file(dir: &dyn Folder) -> io::Result<Arc<dyn Storage>> {
    let name = format!("index-{}-{:016x}.tmp", std::process::id(), rand::random::<u64>());
    let file = dir.create(&name)?.ok_or(io::ErrorKind::AlreadyExists)?;
    dir.remove(&name)?;
    Ok(file)
}

/// The file of a database, which one process uses at a time.
#[derive(Debug)]
struct IndexFile(Arc<dyn Storage>);

impl IndexFile {
    fn lock(file: Arc<dyn Storage>) -> Result<Self, DatabaseError> {
        match file.try_lock()? {
            FileLock::Taken | FileLock::Unknown => Ok(IndexFile(file)),
            FileLock::Held => Err(DatabaseError::DatabaseAlreadyOpen),
        }
    }
}

impl StorageBackend for IndexFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.stat()?.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.unlock();
        Ok(())
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(INDEX_CACHE_LEN);
    builder
}

/// Whether the file is not a database of this program, rather than one that is locked or cannot be
/// read now.
fn is_damage(e: &DatabaseError) -> bool {
    match e {
        DatabaseError::UpgradeRequired(_) => true,
        DatabaseError::Storage(StorageError::Io(e)) => {
            matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        DatabaseError::Storage(StorageError::Corrupted(_)) => true,
        _ => false,
    }
}

/// Makes the tables and finds the number of the directory `name`.
pub(super) fn prepare(database: &Database, name: &[u8]) -> IndexResult<u32> {
    let transaction = database.begin_write()?;
    let number = {
        let mut dirs = transaction.open_table(DIRS)?;
        let known = dirs.get(name)?.map(|v| v.value());
        match known {
            Some(number) => number,
            None => {
                let mut next = 0;
                for row in dirs.iter()? {
                    next = next.max(row?.1.value() + 1);
                }
                dirs.insert(name, next)?;
                next
            }
        }
    };
    transaction.open_table(FILES)?;
    transaction.open_table(LAYERS)?;
    transaction.open_table(OWNERS)?;
    transaction.commit()?;
    Ok(number)
}

/// The database's name in the state directory.
pub(crate) const INDEX_NAME: &str = "index.redb";
/// The name that a damaged one gets.
pub(crate) const DAMAGED_NAME: &str = "index.redb.damaged";
