//! Files whose state changes while their content stays: attributes, and further names.

use crate::content::{FileId, RelPath};
use crate::store::place_guard::PlaceGuard;
use crate::store::placed::{PlacedFile, PlacedState};
use crate::sync::lock;

impl PlaceGuard {
    /// What lies at `path` and has the content `id` is in another state, which this fetch made: if an
    /// earlier one put it there, it is still known as such.
    pub(crate) fn restate(&self, path: &RelPath, id: FileId, before: PlacedState, now: PlacedState) {
        if let Some(name) = lock(&self.places).names.get_mut(path).filter(|name| name.id == id) {
            name.state = Some(now);
        }
        let Some(log) = &self.log else { return };
        let found = log.find(path.as_str());
        if let Some(own) = found.iter().find(|file| file.state == Some(before)) {
            log.note(path.as_str(), PlacedFile { state: Some(now), ..*own });
        }
    }

    /// The state in which `path` was put in place or found.
    pub(crate) fn state_of(&self, path: &RelPath) -> Option<PlacedState> {
        lock(&self.places).names.get(path).and_then(|name| name.state)
    }

    /// Whether `path` is known to have the content `id` while it is in this state, however often its
    /// inode got another name.
    pub(crate) fn knows(&self, path: &RelPath, id: FileId, state: PlacedState) -> bool {
        let places = lock(&self.places);
        let is_it = |known: PlacedState| PlacedState { ctime_ns: state.ctime_ns, ..known } == state;
        places.names.get(path).is_some_and(|name| name.here && name.id == id && name.state.is_some_and(is_it))
    }
}
