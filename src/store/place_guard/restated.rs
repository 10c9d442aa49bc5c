//! Files whose state changes while their content stays: attributes, and further names.

use rustix::fs::FileType;

use crate::content::{FileId, RelPath};
use crate::store::place_guard::{PlaceGuard, Places, file_key};
use crate::store::placed::{PlacedFile, PlacedState};
use crate::sync::lock;

impl PlaceGuard {
    /// What lies at `path` and has the content `id` is in another state, since this fetch gave it further
    /// names or took some: if a fetch put it there, it is still known as such. Anything else that changed is
    /// the work of others, and says that it is theirs.
    pub(crate) fn restate(&self, path: &RelPath, id: FileId, before: PlacedState, now: PlacedState) {
        if now.is_renamed(&before) {
            self.restate_made(path, id, before, now);
        }
    }

    /// The same where the caller knows that all that differs is its work.
    pub(crate) fn restate_made(&self, path: &RelPath, id: FileId, before: PlacedState, now: PlacedState) {
        let mut places = lock(&self.places);
        let keeping = self.keeping(&places, path);
        let mut landed = None;
        if let Some(name) = places.names.get_mut(path).filter(|name| name.id == id) {
            landed = keeping.filter(|_| name.landed && name.state == Some(before));
            name.state = Some(now);
        }
        let renewed = places.renewed.get(path).copied().filter(|file| file.state == Some(before));
        drop(places);
        let Some(log) = &self.log else { return };
        let own = || log.find(path.as_str()).into_iter().find(|file| file.state == Some(before));
        let own = landed.map(|keeping| PlacedFile { id, state: None, keeping }).or(renewed).or_else(own);
        own.into_iter().for_each(|own| log.note(path.as_str(), PlacedFile { state: Some(now), ..own }));
    }

    /// Whether an earlier fetch put the content `id` at `path`, in whatever state it is now.
    pub(crate) fn is_recorded(&self, path: &RelPath, id: &FileId) -> bool {
        self.recorded(path, FileType::RegularFile).iter().any(|file| file.id == *id)
    }

    /// Whether a fetch put the content `id` at `path`, this one or an earlier one, or is to replace whatever
    /// lies there: nothing of the user's gets another name.
    pub(crate) fn owns(&self, path: &RelPath, id: &FileId) -> bool {
        let has_landed = |places: &Places| places.names.get(path).is_some_and(|name| name.id == *id && name.landed);
        self.replaces_all() || has_landed(&lock(&self.places)) || self.is_recorded(path, id)
    }

    /// What lies at `path` was found to have the content `id` in this state: if an earlier fetch put that
    /// there, a later one need not read it.
    pub(crate) fn renew(&self, path: &RelPath, id: &FileId, now: PlacedState) {
        let mut own = self.recorded(path, FileType::RegularFile);
        own.retain(|file| file.id == *id);
        if own.iter().all(|file| file.state != Some(now))
            && let (Some(own), Some(log)) = (own.first(), &self.log)
        {
            let own = PlacedFile { state: Some(now), ..*own };
            log.note(path.as_str(), own);
            lock(&self.places).renewed.insert(path.clone(), own);
        }
    }

    /// What lies at `path` in this state is a file that a fetch put there: it may be replaced.
    pub(crate) fn is_own_in(&self, path: &RelPath, state: PlacedState) {
        lock(&self.places).replaceable.insert(path.clone(), state);
    }

    /// Another name of this fetch that the file in this state has, which was found or put in place.
    pub(crate) fn other_name_of(&self, path: &RelPath, state: &PlacedState) -> Option<RelPath> {
        let found = lock(&self.places).of_file(state);
        found.map(|(other, _)| other).filter(|other| other != path)
    }

    /// A name was taken from the file that was in this state.
    pub(crate) fn took_name(&self, state: &PlacedState) {
        lock(&self.places).unlinked.insert(file_key(state));
    }

    /// Whether a file that is in the state `now` is the one that was in the state `known`. Where this
    /// fetch took one of its names, the time of its last inode change says nothing.
    pub(super) fn is_still(&self, known: Option<PlacedState>, now: &PlacedState) -> bool {
        let Some(known) = known else { return false };
        known == *now || now.is_renamed(&known) && lock(&self.places).unlinked.contains(&file_key(now))
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
