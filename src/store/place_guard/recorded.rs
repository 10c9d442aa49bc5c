//! What is recorded of the names that fetches have put files at.

use crate::content::{FileId, Manifest, RelPath};
use crate::store::limits::REUSE_SOURCES_MAX;
use crate::store::place_guard::PlaceGuard;
use crate::store::placed::{PlacedLog, PlacedState};

impl PlaceGuard {
    /// Whether a fetch put the content `id` at `path`, and left it in this state: then it need not be
    /// read. As with the index of a shared directory, a state stands for the bytes, except in a repair.
    pub(crate) fn is_placed(&self, path: &RelPath, id: &FileId, state: &PlacedState) -> bool {
        !self.reads_all() && self.log.as_ref().is_some_and(|log| log.is_placed(path.as_str(), id, state))
    }

    /// Whether a fetch put another content than `id` at `path`, and left it in this state: then it need
    /// not be read to know that it is not `id`.
    pub(crate) fn is_other(&self, path: &RelPath, id: &FileId, state: &PlacedState) -> bool {
        let is_other = |(other, left): &(FileId, Option<PlacedState>)| other != id && left.as_ref() == Some(state);
        !self.reads_all() && self.known(path).iter().any(is_other)
    }

    /// Names where fetches put the content `id`, and the states that they left there. What lies there now
    /// may be something else; names that are to be repaired are left out.
    pub(crate) fn places_of(&self, id: &FileId) -> Vec<(RelPath, PlacedState)> {
        let found = self.log.as_ref().map_or(Vec::new(), |log| log.places_of(id, REUSE_SOURCES_MAX));
        let named = found.into_iter().filter_map(|(name, state)| Some((RelPath::new(&name).ok()?, state)));
        named.filter(|(path, state)| !self.is_to_be_repaired(path, state)).collect()
    }

    /// Keeps the layer of a content that this fetch put in place.
    pub(crate) fn keep_layer(&self, manifest: &Manifest) {
        if let Some(log) = &self.log {
            log.keep_layer(manifest);
        }
    }

    /// The layer of what a fetch put at `path` and left in this state, if it is kept: the state stands
    /// for the bytes, except in a repair.
    pub(crate) fn layer_at(&self, path: &RelPath, state: &PlacedState) -> Option<Manifest> {
        let log = self.log.as_ref().filter(|_| !self.reads_all())?;
        let left = self.known(path).into_iter().find(|(_, left)| left.as_ref() == Some(state));
        log.layer_of(&left?.0)
    }

    /// Whether fetches have put anything into the directory before.
    pub(crate) fn has_records(&self) -> bool {
        self.log.as_ref().is_some_and(PlacedLog::has_records)
    }

    /// Whether a fetch put a file at `path` that did not expire since.
    pub(crate) fn was_fetched(&self, path: &RelPath) -> bool {
        self.log.as_ref().is_some_and(|log| log.was_fetched(path.as_str()))
    }

    /// What fetches are known to have put at `path`, and in which states.
    pub(crate) fn known(&self, path: &RelPath) -> Vec<(FileId, Option<PlacedState>)> {
        let found = self.log.as_ref().map_or(Vec::new(), |log| log.find(path.as_str()));
        found.into_iter().map(|file| (file.id, file.state)).collect()
    }
}
