//! What fetches made besides files: what of it may be replaced or removed.

use rustix::fs::FileType;

use crate::content::{FileId, RelPath};
use crate::store::StoreError;
use crate::store::bare_id::link_id;
use crate::store::disk::Disk;
use crate::store::disk::bare::ToMake;
use crate::store::disk::here::Stop;
use crate::store::storage::OwnBare;

impl Disk {
    /// Whether `path` is a directory that a fetch made as an empty one, and nothing is in it.
    pub fn is_made_dir(&self, path: &RelPath) -> bool {
        let Some((FileType::Directory, state)) = self.volume.state_of(path) else { return false };
        self.volume.guard().is_some_and(|guard| guard.made_dir(path, &state)) && self.volume.is_empty_dir(path)
    }

    /// An error if what has the name of a directory or link to make must stay. What is to be replaced
    /// may be one that a fetch put there and whose state alone has changed, which its bytes or its text
    /// tell.
    pub(super) fn check_taken(&self, to_make: &ToMake<'_>, stop: Stop<'_>) -> Result<(), StoreError> {
        let (Some(guard), OwnBare::Dir { .. } | OwnBare::Link { .. }) = (self.volume.guard(), to_make.what) else {
            return Ok(());
        };
        guard.keep_made(to_make.path);
        match self.volume.look(to_make.path) {
            Ok(Some(FileType::RegularFile | FileType::Symlink)) => {
                self.check_replaceable(to_make.path, &to_make.id, stop)
            }
            // Putting it in place says it better.
            _ => Ok(()),
        }
    }

    /// Whether what lies at `path` has the content `id`; of a link its text counts.
    pub(super) fn has_text_or_content(&self, path: &RelPath, kind: FileType, id: &FileId, stop: Stop<'_>) -> bool {
        match kind {
            FileType::Symlink => self.volume.link_at(path).is_some_and(|(text, _)| link_id(&text) == *id),
            _ => self.has_content(path, id, stop),
        }
    }

    /// Whether what keeps `dir` from being a directory is a file or link that a fetch put there and
    /// nothing changed: a directory replaces it.
    pub(super) fn is_own_on_the_way(&self, dir: &str) -> bool {
        let ends = dir.match_indices('/').map(|(at, _)| at).chain([dir.len()]);
        let parts = ends.map_while(|end| RelPath::new(&dir[..end]).ok());
        let mut states = parts.map_while(|part| self.volume.state_of(&part).map(|found| (part, found)));
        // From the top, so that each part is looked up in a directory that is none by a link.
        let blocking = states.find(|(_, (kind, _))| *kind != FileType::Directory);
        blocking.is_some_and(|(part, found)| self.volume.guard().is_some_and(|guard| guard.is_own(&part, found)))
    }
}
