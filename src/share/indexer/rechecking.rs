//! Files that a request found changed. Where the system reports no changes (no inotify, a network or
//! FUSE mount, one that was unmounted), nothing else would show them before the next walk.

use std::time::Instant;

use super::Indexer;
use crate::content::{Entry, RelPath};
use crate::share::inspector::{FileState, Inspection};
use crate::store::is_passing;

impl Indexer {
    /// A request found that the file of `entry` is not in that state. It is withdrawn at once, and
    /// hashed again if no hint of the same change is being dealt with.
    ///
    /// A peer decides what it asks for, so this is limited for each file
    /// ([`RECHECK_MIN`](crate::share::limits::RECHECK_MIN)): one that changes all the time is offered
    /// again after the next walk.
    pub(super) fn recheck(&mut self, entry: &Entry) {
        let now = Instant::now();
        // A hint may be on its way through the queue.
        let hints = self.dir.changes();
        self.take_hints(hints.try_iter());
        if self.draft.get(&entry.path) != Some(entry.view()) {
            return;
        }
        let (name, path) = (&entry.path, self.inspector.path_of(entry.path.as_str()));
        let found = self.inspector.inspect(&path);
        if let Inspection::File { state, .. } = found
            && state.is_of(entry.view())
        {
            self.withdraw_unreadable(name, state);
            return;
        }
        if self.hints.has(&path) || !self.hints.may_recheck(name, now) {
            self.take_out(name);
            return;
        }
        let manner = if found == Inspection::Nothing { "is gone" } else { "changed" };
        log::warn!("shared file {manner}, no hint came, a request found it path={} file={}", path.display(), entry.id);
        self.recorder.disturb();
        self.recorder.begin_lookup();
        let is_gone = found == Inspection::Nothing;
        self.apply(name, &path, found, now);
        if is_gone {
            self.recheck_above(name, now);
        }
        self.recorder.end_lookup();
    }

    /// A request could not read a file that is as it was: permissions of a directory, of an ACL or of
    /// the user of this process do not show in the state of the file. Nothing of it can be served.
    fn withdraw_unreadable(&mut self, name: &RelPath, state: FileState) {
        match self.inspector.try_open(name) {
            Err(e) if !is_passing(&e) => {
                log::warn!("shared file cannot be opened, it is offered again when it can path={name} error=\"{e}\"");
                self.withdrawn.add_unreadable(name, state);
                self.take_out(name);
            }
            _ => {}
        }
    }

    /// The file `name` is gone, and perhaps with it the directory or mount that it lay in. A file
    /// that lies in the root itself says nothing of others.
    fn recheck_above(&mut self, name: &RelPath, now: Instant) {
        let mut below = name.as_str();
        while let Some((dir, _)) = below.rsplit_once('/') {
            let is_gone = self.inspector.inspect(&self.inspector.path_of(dir)) == Inspection::Nothing;
            if !is_gone {
                if RelPath::new(dir).is_ok_and(|dir| self.hints.may_recheck(&dir, now)) {
                    self.inspect_name(dir, true, now);
                }
                return;
            }
            self.draft.below(dir).iter().for_each(|path| self.take_out(path));
            self.drop_bare_below(dir);
            below = dir;
        }
    }
}
