//! Which files of a shared directory are copies: a fetch put them there, and nothing changed them.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::content::{Bare, FileId, RelPath};
use crate::store::Life;
use crate::store::bare_id::bare_id;
use crate::store::disk_folder::DiskFolder;
use crate::store::limits::{COPY_DIRS_MAX, COPY_RECORDS_FRESH};
use crate::store::placed::KnownNames;
use crate::store::storage::Folder;

/// Tells copies from files of the user's by the records of the directory, of those above it, and of
/// those below it into which a part may have been fetched.
///
/// The content decides: a file that was edited has another one. So does an intent, which is written
/// before a file is put in place: a copy is known as one from its first moment.
pub struct Copies {
    folder: Arc<dyn Folder>,
    root: PathBuf,
    dirs: HashMap<PathBuf, FollowedNames>,
    /// The number of the look at the records, and when it began.
    turn: u64,
    fresh_until: Option<Instant>,
}

/// The records of one directory, and the turn in which they were read.
struct FollowedNames {
    names: KnownNames,
    turn: u64,
}

impl Copies {
    /// For the directory `root`, with the records in the directory `state`. Nothing is read yet.
    pub fn new(state: &Path, root: &Path) -> Self {
        Self::over(Arc::new(DiskFolder::new(state)), root)
    }

    fn over(folder: Arc<dyn Folder>, root: &Path) -> Self {
        let root = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_path_buf());
        Copies { folder, root, dirs: HashMap::new(), turn: 0, fresh_until: None }
    }

    /// Another directory has taken the place of the root.
    pub fn set_root(&mut self, root: &Path) {
        *self = Self::over(self.folder.clone(), root);
    }

    /// Has the records read again that are asked for from now on.
    pub fn expect_news(&mut self) {
        self.fresh_until = None;
    }

    /// Whether a fetch put the content `id` at `path`. Reads what is new in the records, at most
    /// every [`COPY_RECORDS_FRESH`] unless news are expected.
    pub fn is_copy(&mut self, path: &RelPath, id: &FileId, now: Instant) -> bool {
        self.life(path, id, now).is_some()
    }

    /// How long the content `id` stays at `path`, if a fetch put it there: as long as the record says by
    /// which it stays longest.
    pub fn life(&mut self, path: &RelPath, id: &FileId, now: Instant) -> Option<Life> {
        if self.fresh_until.is_none_or(|until| now >= until) {
            self.turn += 1;
            self.fresh_until = Some(now + COPY_RECORDS_FRESH);
            if self.dirs.len() > COPY_DIRS_MAX {
                self.dirs.clear();
            }
        }
        let whole = self.root.join(path.as_str());
        let mut found = None;
        for dir in whole.ancestors().skip(1) {
            let Some(name) = whole.strip_prefix(dir).ok().and_then(Path::to_str) else { continue };
            match self.life_in(dir, name, id) {
                None => {}
                Some(Life::Temporary) => found = found.or(Some(Life::Temporary)),
                longer => return longer,
            }
        }
        found
    }

    /// Whether a fetch made the name `path` what it is, a link or an empty directory.
    pub fn is_copied_bare(&mut self, path: &RelPath, bare: &Bare, now: Instant) -> bool {
        self.is_copy(path, &bare_id(bare), now)
    }

    fn life_in(&mut self, dir: &Path, name: &str, id: &FileId) -> Option<Life> {
        if !self.dirs.contains_key(dir) {
            let names = KnownNames::new(self.folder.clone(), dir);
            self.dirs.insert(dir.to_path_buf(), FollowedNames { names, turn: 0 });
        }
        let known = self.dirs.get_mut(dir)?;
        if known.turn != self.turn {
            known.turn = self.turn;
            if let Err(e) = known.names.refresh() {
                log::debug!("record of fetched files not read dir={} error=\"{e}\"", dir.display());
            }
        }
        let lives = known.names.get(name).into_iter().filter(|file| file.id == *id).filter_map(|f| f.keeping.life());
        lives.max_by_key(|life| *life != Life::Temporary)
    }
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies").field("root", &self.root).finish_non_exhaustive()
    }
}

const _: () = assert!(COPY_RECORDS_FRESH.as_millis() < Duration::from_secs(1).as_millis());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};
    use crate::store::placed::{Keeping, PlacedFile, PlacedLog};

    fn id(n: u8) -> FileId {
        FileId { root: Root(Digest([n; 32])), len: 5 }
    }

    #[test]
    fn what_was_fetched_is_a_copy_until_its_content_is_another() {
        let (state, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = std::fs::canonicalize(data.path()).unwrap();
        let mut copies = Copies::new(state.path(), &root);
        let [a, b] = ["sub/a", "sub/b"].map(|name| RelPath::new(name).unwrap());
        let start = Instant::now();
        assert!(!copies.is_copy(&a, &id(1), start));
        let note = |dir: &Path, name: &str, n, keeping| {
            let log = PlacedLog::new(Arc::new(DiskFolder::new(state.path())), dir.to_path_buf());
            log.note(name, PlacedFile { id: id(n), state: None, keeping });
        };
        note(&root, "sub/a", 1, Keeping::Kept);
        note(&root.join("sub"), "b", 2, Keeping::new(Life::Mirrored, 7));
        assert!(!copies.is_copy(&a, &id(1), start), "what was read a moment ago counts");
        let later = start + COPY_RECORDS_FRESH;
        assert!(copies.is_copy(&a, &id(1), later) && !copies.is_copy(&a, &id(3), later), "the content decides");
        assert!(copies.is_copy(&b, &id(2), later), "fetched into a directory below");
        note(&root, "sub/a", 3, Keeping::Kept);
        copies.expect_news();
        assert!(copies.is_copy(&a, &id(3), later));
        note(&root, "sub/a", 3, Keeping::Expired);
        copies.expect_news();
        assert!(!copies.is_copy(&a, &id(3), later), "what came there afterwards is the user's");
        assert_eq!(copies.life(&b, &id(2), later), Some(Life::Mirrored));
        note(&root, "sub/a", 4, Keeping::new(Life::Temporary, 7));
        copies.expect_news();
        assert_eq!(copies.life(&a, &id(4), later), Some(Life::Temporary));
        note(&root.join("sub"), "a", 4, Keeping::Kept);
        copies.expect_news();
        assert_eq!(copies.life(&a, &id(4), later), Some(Life::Kept), "it stays as long as one of the records says");
    }
}
