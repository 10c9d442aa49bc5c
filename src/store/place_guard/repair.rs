//! Repairing files that the disk has damaged: the state of such a file is the recorded one, its bytes are
//! not.

use rustix::fs::FileType;

use crate::content::RelPath;
use crate::store::place_guard::PlaceGuard;
use crate::store::placed::PlacedState;
use crate::sync::lock;

impl PlaceGuard {
    /// This fetch repairs files: each may be replaced in the state in which it was hashed, and stays as
    /// long, and as much the user's, as before. No recorded state is believed.
    pub(crate) fn repair<'p>(&self, files: impl IntoIterator<Item = (&'p RelPath, PlacedState)>) {
        lock(&self.places).reads_all = true;
        for (path, state) in files {
            let found = self.recorded(path, FileType::RegularFile);
            let own = found.into_iter().find(|file| file.state == Some(state));
            let mut places = lock(&self.places);
            places.replaceable.insert(path.clone(), state);
            places.keepings.insert(path.clone(), own.map(|file| file.keeping));
        }
    }

    /// Whether each file is read, whatever is recorded of it.
    pub(crate) fn reads_all(&self) -> bool {
        lock(&self.places).reads_all
    }

    /// Whether this fetch repairs `path`, which is still in the state in which it was hashed.
    pub(super) fn is_to_be_repaired(&self, path: &RelPath, state: &PlacedState) -> bool {
        let places = lock(&self.places);
        places.reads_all && places.replaceable.get(path) == Some(state)
    }
}
