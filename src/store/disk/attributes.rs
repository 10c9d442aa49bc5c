//! The attributes of files that are put in place, and of files that are there already.

use crate::chain::Chain;
use crate::content::{Attributes, RelPath};
use crate::store::disk::Disk;
use crate::store::dress::may_run;
use crate::store::inspect::LookedAt;
use crate::store::verify_existing::VerifiedFile;

impl Disk {
    /// Sets what the files that are put in place get besides their contents, and what files get that
    /// are there already. Without it that is nothing.
    pub fn set_attributes(&self, all: Vec<(RelPath, Attributes)>) {
        self.volume.dresses().set(all);
    }

    /// Whether the file at `path` is to be one that can be run.
    pub fn makes_program(&self, path: &RelPath) -> bool {
        self.volume.dresses().get(path).is_some_and(|attributes| attributes.executable)
    }

    /// Whether the attributes of the file at `path` are other ones than it is to have.
    pub(super) fn is_out_of_line(&self, path: &RelPath, there: &LookedAt) -> bool {
        let Some(wanted) = self.volume.dresses().get(path) else { return false };
        let mtime_ns = there.state.mtime_ns;
        let is_in_time = || mtime_ns == wanted.mtime_ns || mtime_ns == self.volume.kept_time(wanted.mtime_ns);
        wanted.executable != may_run(there.mode) || !is_in_time()
    }

    /// Brings the attributes of a file in line that holds its content already. True if that changed
    /// something.
    pub(super) fn bring_in_line(&self, path: &RelPath, file: &mut VerifiedFile) -> bool {
        let Some(wanted) = self.volume.dresses().get(path) else { return false };
        file.bring_in_line(wanted, &|ns| self.volume.kept_time(ns)).unwrap_or_else(|e| {
            log::warn!("attributes not set path={path} error=\"{}\"", Chain(&e));
            false
        })
    }
}
