//! Names that no file has its content by: empty directories and links that fetches made.

use rustix::fs::FileType;

use crate::content::RelPath;
use crate::store::bare_id::empty_dir_id;
use crate::store::place_guard::{PlaceGuard, PlaceName, file_key};
use crate::store::placed::{Keeping, PlacedState};
use crate::sync::lock;

impl PlaceGuard {
    /// Whether a fetch made the directory at `path`, which has this state, as an empty one. Its times
    /// say nothing: they change with each name that comes and goes in it.
    pub(crate) fn made_dir(&self, path: &RelPath, state: &PlacedState) -> bool {
        let found = self.log.as_ref().map_or(Vec::new(), |log| log.find(path.as_str()));
        let is_it = |made: PlacedState| file_key(&made) == file_key(state);
        found.iter().any(|file| file.id == empty_dir_id() && file.state.is_some_and(is_it))
    }

    /// Whether an earlier fetch put the file or link at `path` there, and nothing changed it. What this one
    /// brings does not make way for other names of it.
    pub(crate) fn is_own(&self, path: &RelPath, (kind, state): (FileType, PlacedState)) -> bool {
        let is_of_this = |name: &PlaceName| name.going || name.here || name.fresh || name.landed;
        if lock(&self.places).names.get(path).is_some_and(is_of_this) {
            return false;
        }
        self.recorded(path, kind).iter().any(|file| file.state == Some(state))
    }

    /// What is made at `path` stays until it is removed by hand, however long files do: it takes no
    /// room, and a link leads to nothing once its file has expired.
    pub(crate) fn keep_made(&self, path: &RelPath) {
        lock(&self.places).keepings.insert(path.clone(), Some(Keeping::Kept));
    }

    /// No link can be made at `path`: what takes its place is kept as other files are.
    pub(crate) fn keep_as_before(&self, path: &RelPath) {
        lock(&self.places).keepings.remove(path);
    }
}
