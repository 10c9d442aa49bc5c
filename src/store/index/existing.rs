//! Looking into the index of another process, which is left as it is.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

use redb::ReadableDatabase;

use super::database::open_unchanged;
use super::tables::{DIRS, decode};
use super::{Index, Indexed, Lookup, OpenIndex};
use crate::store::disk_folder::DiskFolder;

impl Index {
    /// The index of the directory `dir` in the state directory, if there is one. Nothing is made or
    /// mended.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] while another process uses it, or what keeps it from being read.
    pub fn open_existing(state: &Path, dir: &Path) -> io::Result<Option<Self>> {
        let folder = Arc::new(DiskFolder::new(state));
        let open = || -> io::Result<Option<OpenIndex>> {
            let Some(database) = open_unchanged(&*folder)? else { return Ok(None) };
            let name = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
            let read = database.begin_read().map_err(io::Error::other)?;
            let Ok(dirs) = read.open_table(DIRS) else { return Ok(None) };
            let dir = dirs.get(name.as_os_str().as_encoded_bytes()).map_err(io::Error::other)?.map(|v| v.value());
            drop((dirs, read));
            Ok(dir.map(|dir| OpenIndex {
                database: Arc::new(database),
                dir,
                #[cfg(test)]
                lasting: true,
            }))
        };
        let open = catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| Err(io::Error::other("it is damaged")))?;
        Ok(open.map(|open| Index {
            open: RwLock::new(open),
            state: Some(folder),
            name: Vec::new(),
            has_fresh: AtomicBool::new(false),
            replaced: AtomicBool::new(false),
            complained: AtomicBool::new(false),
        }))
    }
}

impl Lookup {
    /// What was recorded of `path` last, in whatever state the file is now.
    pub fn recorded(&mut self, path: &str) -> Option<Indexed> {
        if self.broken {
            return None;
        }
        self.key.clear();
        self.key.extend_from_slice(&self.dir.to_be_bytes());
        self.key.extend_from_slice(path.as_bytes());
        let get = || self.files.get(self.key.as_slice()).ok()?.and_then(|value| decode(value.value()));
        let found = catch_unwind(AssertUnwindSafe(get));
        self.broken = found.is_err();
        found.unwrap_or_default()
    }
}
