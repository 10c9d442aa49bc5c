//! What the records of a directory, of those above it and of those in it say of one file. Nothing
//! tells which of them is the newest, so any of them may be true.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::content::FileId;
use crate::store::placed::{Keeping, KnownNames, PlacedFile, PlacedLog, PlacedState};
use crate::sync::lock;

/// The records of a directory, or of one above it, that say something.
#[derive(Debug)]
pub(super) struct RecordsAbove {
    dir: PathBuf,
    /// What stands before the name of a file there; empty for the directory itself.
    prefix: String,
    names: Arc<KnownNames>,
}

impl RecordsAbove {
    fn is_of_itself(&self) -> bool {
        self.prefix.is_empty()
    }

    fn has(&self, path: &str, id: &FileId, state: &PlacedState) -> bool {
        match self.is_of_itself() {
            true => self.names.has(path, id, state),
            false => self.names.has(&format!("{}{path}", self.prefix), id, state),
        }
    }
}

impl PlacedLog {
    /// Whether a file of the directory itself may expire, as far as its records were read.
    pub(crate) fn may_expire(&self) -> bool {
        self.above().iter().any(|records| records.is_of_itself() && records.names.may_expire())
    }

    /// Whether something is recorded of the directory, by itself or by those above.
    pub(crate) fn has_records(&self) -> bool {
        !self.above().is_empty()
    }

    /// Has the file `path` kept, if the records of another directory say that it may expire in this
    /// state: the one that lets it expire reads only its own.
    pub(crate) fn keep_elsewhere(&self, path: &str, state: &PlacedState) {
        for records in self.above().iter().filter(|records| !records.is_of_itself()) {
            self.keep_in(&records.dir, &records.names, &format!("{}{path}", records.prefix), state);
        }
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if *lock(&self.plain_parent) == parent {
            return;
        }
        let mut is_plain = true;
        for (dir, name) in self.dirs_on_the_way(path) {
            let Some(names) = self.names_of(&dir).filter(|names| names.may_expire()) else { continue };
            is_plain = false;
            self.keep_in(&dir, &names, name, state);
        }
        if is_plain {
            parent.clone_into(&mut lock(&self.plain_parent));
        }
    }

    fn keep_in(&self, dir: &Path, names: &KnownNames, name: &str, state: &PlacedState) {
        if !names.may_expire() {
            return;
        }
        let may_expire = |file: &PlacedFile| file.keeping.may_expire() && file.state == Some(*state);
        if let Some(own) = names.get(name).into_iter().find(may_expire) {
            let mut others = lock(&self.others);
            let new = || Arc::new(PlacedLog::new(self.folder.clone(), dir.to_owned()));
            let other = others.entry(dir.to_owned()).or_insert_with(new);
            other.note(name, PlacedFile { keeping: Keeping::Kept, ..own });
        }
    }

    /// Whether a fetch put the content `id` at `path`, and left it in this state. Reads nothing once the
    /// records are known.
    pub(crate) fn is_placed(&self, path: &str, id: &FileId, state: &PlacedState) -> bool {
        let is_in = |(dir, name): (PathBuf, &str)| self.names_of(&dir).is_some_and(|names| names.has(name, id, state));
        self.above().iter().any(|records| records.has(path, id, state)) || self.dirs_on_the_way(path).any(is_in)
    }

    /// Names below the directory where a fetch put the content `id`, and the states that it left there;
    /// at most `max` of them. What lies there now may be something else.
    pub(crate) fn places_of(&self, id: &FileId, max: usize) -> Vec<(String, PlacedState)> {
        let mut found = Vec::new();
        // Asked for each file of a fetch, mostly where nothing is known.
        for records in self.above().iter() {
            let below =
                |(name, state): (String, PlacedState)| Some((name.strip_prefix(&records.prefix)?.to_owned(), state));
            found.extend(records.names.places_of(id).into_iter().filter_map(below));
        }
        found.truncate(max);
        found
    }

    /// The directories in this one that lead to `path`, and its name in each: a part of what lies here may
    /// have been fetched there.
    fn dirs_on_the_way<'p>(&self, path: &'p str) -> impl Iterator<Item = (PathBuf, &'p str)> {
        path.match_indices('/').map(|(at, _)| (self.root.join(&path[..at]), &path[at + 1..]))
    }

    /// The directory itself first, then those above, as far as their records say something.
    fn above(&self) -> Arc<[RecordsAbove]> {
        if let Some(above) = &*lock(&self.above) {
            return above.clone();
        }
        let records = |dir: &Path| {
            let names = self.names_of(dir).filter(|names| !names.is_empty())?;
            let below = self.root.strip_prefix(dir).ok()?.to_str()?;
            let prefix = if below.is_empty() { String::new() } else { format!("{below}/") };
            Some(RecordsAbove { dir: dir.to_owned(), prefix, names })
        };
        let above: Arc<[RecordsAbove]> = self.root.ancestors().filter_map(records).collect();
        *lock(&self.above) = Some(above.clone());
        above
    }
}
