//! Opening the database of the index: the lasting one, or a temporary one in its place.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Builder, Database, DatabaseError, ReadableTable, StorageError};

use crate::store::index::tables::{DIRS, FILES, IndexResult, LAYERS, OWNERS};
use crate::store::limits::INDEX_CACHE_LEN;

/// Opens or creates the database in the directory `state`. A damaged one is renamed and replaced.
pub(super) fn open_lasting(state: &Path) -> Result<Database, DatabaseError> {
    DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    let path = state.join(INDEX_NAME);
    // redb may panic on a file that it did not write. A check of all pages at the start makes
    // nearly all of these panics errors; the others are caught.
    let open = || {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        builder().set_check_integrity_on_open(true).create_with_backend(FileBackend::new(file)?)
    };
    let guarded = || {
        catch_unwind(AssertUnwindSafe(open))
            .unwrap_or_else(|_| Err(StorageError::Corrupted("panic while opening".into()).into()))
    };
    match guarded() {
        Err(e) if is_damage(&e) => {
            let aside = state.join(DAMAGED_NAME);
            log::warn!("index damaged, replaced path={} kept={} error=\"{e}\"", path.display(), aside.display());
            std::fs::rename(&path, &aside)?;
            guarded()
        }
        opened => opened,
    }
}

/// A database in a file without a name: nothing of it stays behind, however the process ends.
pub(super) fn open_temporary(state: &Path) -> Result<Database, DatabaseError> {
    for dir in [state, &std::env::temp_dir()] {
        match unnamed_file(dir).map_err(DatabaseError::from).and_then(FileBackend::new) {
            Ok(backend) => return builder().create_with_backend(backend),
            Err(e) => log::debug!("no temporary index path={} error=\"{e}\"", dir.display()),
        }
    }
    builder().create_with_backend(InMemoryBackend::new())
}

fn unnamed_file(dir: &Path) -> io::Result<File> {
    let path = dir.join(format!("index-{}-{:016x}.tmp", std::process::id(), rand::random::<u64>()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
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
