//! Empty directories and symbolic links, which are announced beside the files.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use super::Indexer;
use crate::content::{Bare, FileId, Marks, RelPath};
use crate::share::inspector::Inspection;
use crate::share::scanner::TreeWalk;
use crate::store::Life;

impl Indexer {
    /// Takes note of the link that was found at `name`, or that there is none.
    pub(super) fn note_link(&mut self, name: &RelPath, found: &Inspection, now: Instant) {
        let link = match found {
            Inspection::File { link: Some(link), .. } | Inspection::DirLink(link) => Some(link.clone()),
            _ => None,
        };
        self.note_bare(name, link.map(|to| Bare::Link { to, copy: false }), now);
    }

    /// Announces that `name` is this now, as a copy if a fetch made it.
    fn note_bare(&mut self, name: &RelPath, bare: Option<Bare>, now: Instant) {
        let bare = bare.map(|bare| {
            let is_copy = self.recorder.is_copied_bare(name, &bare, now);
            bare.marked(is_copy)
        });
        if bare.is_some() && self.draft.bare(name).is_none() && !self.draft.has_room() {
            // A list without it is not complete.
            return self.draft.whole.hide(name.as_str(), now);
        }
        self.draft.set_bare(name, bare);
    }

    /// The marks of a file, with whether a fetch put the content `id` at `name`, or made `name` the link
    /// that leads to it.
    pub(super) fn marked(&mut self, name: &RelPath, id: &FileId, marks: Marks, now: Instant) -> Marks {
        let (copy, temporary) = match self.draft.bare(name) {
            Some(link) => (link.is_copy(), false),
            None => match self.recorder.copy_life(name, id, now) {
                None => (false, false),
                Some(life) => (true, life == Life::Temporary),
            },
        };
        Marks { copy, temporary, ..marks }
    }

    /// Takes note of inodes whose other names may have changed with `name`.
    pub(super) fn note_inodes(&mut self, name: &RelPath, found: &Inspection) {
        let before = self.draft.get(name).filter(|entry| entry.marks.link_group != 0);
        let now = match found {
            Inspection::File { state, .. } if state.marks.link_group != 0 => Some(*state),
            _ => None,
        };
        if let (Some(before), Some(now)) = (before, now)
            && now.is_of(before)
        {
            return;
        }
        let inodes = [before.map(|entry| entry.stamp.inode), now.map(|state| state.stamp.inode)];
        inodes.into_iter().flatten().for_each(|inode| self.hints.add_inode(inode));
    }

    /// Inspects the other names of the inodes of which a name changed.
    pub(super) fn inspect_other_names(&mut self, now: Instant) {
        let inodes = self.hints.take_inodes();
        if !inodes.is_empty() {
            let names = self.draft.with_inodes(&inodes);
            names.iter().for_each(|name| self.inspect_name(name.as_str(), false, now));
        }
    }

    /// Looks whether the directory `name` is empty.
    pub(super) fn note_dir(&mut self, name: &RelPath, now: Instant) {
        let empty = self.inspector.empty_dir(&self.inspector.path_of(name.as_str()));
        if empty.is_some() || matches!(self.draft.bare(name), Some(Bare::EmptyDir { .. })) {
            self.note_bare(name, empty, now);
        }
    }

    /// Looks whether the directories above these names have become empty, or are so no longer.
    pub(super) fn note_dirs_above(&mut self, names: &BTreeSet<String>, now: Instant) {
        let above: BTreeSet<&str> = names.iter().filter_map(|name| Some(name.rsplit_once('/')?.0)).collect();
        above.into_iter().filter_map(|dir| RelPath::new(dir).ok()).for_each(|dir| self.note_dir(&dir, now));
    }

    /// A walk went through the directory `path` and found nothing in it.
    pub(super) fn note_walked_empty(&mut self, walk: &mut TreeWalk, path: &Path, now: Instant) {
        let Some(name) = self.inspector.name(path).filter(|name| !name.is_empty()) else { return };
        walk.mark_bare(&name);
        if let Some(name) = self.inspector.valid(&name, path) {
            self.note_dir(&name, now);
        }
    }

    /// Looks at the bare names that a walk did not find.
    pub(super) fn inspect_missed_bare(&mut self, walk: &TreeWalk, now: Instant) {
        for name in walk.missed_bare() {
            match self.inspector.inspect(&self.inspector.path_of(name.as_str())) {
                Inspection::Dir => self.note_dir(&name, now),
                found => self.note_link(&name, &found, now),
            }
        }
    }

    /// Announces no bare name below the directory `dir`; none at all when it is empty.
    pub(super) fn drop_bare_below(&mut self, dir: &str) {
        self.draft.bare_below(dir).iter().for_each(|name| self.draft.set_bare(name, None));
    }
}
