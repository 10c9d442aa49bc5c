//! Files that another download of the same node fetches.

use crate::content::{FileId, Geometry};
use crate::swarm::download::state::DownloadState;
use crate::swarm::download::state::file::FilePhase;
use crate::swarm::download::task::FileNo;

impl<F: Clone> DownloadState<F> {
    /// The file is to be had from another download of this node: it is not asked for until
    /// [`checked`](Self::checked) says that it is needed after all.
    pub fn elsewhere(&mut self, file: FileNo) {
        let at = &mut self.files[file as usize];
        if matches!(at.phase, FilePhase::Unchecked | FilePhase::Opening) {
            at.phase = FilePhase::Elsewhere;
            self.deactivate(file);
            self.activate();
        }
    }

    /// Whether the file is in place.
    pub fn is_done(&self, file: FileNo) -> bool {
        matches!(self.files[file as usize].phase, FilePhase::Done)
    }

    /// Bytes of the file that are there, roughly: chunks count as if all had one length.
    pub fn bytes_had(&self, file: FileNo) -> u64 {
        let at = &self.files[file as usize];
        match &at.phase {
            FilePhase::Chunks(picker, _) => {
                (picker.have() as u64 * Geometry::new(at.id.len).chunk_len()).min(at.id.len)
            }
            FilePhase::Finishing | FilePhase::Done => at.id.len,
            _ => 0,
        }
    }

    /// Files that another download may wait for: the active ones, and all unfinished ones if these
    /// are `few` at most.
    pub fn awaitable(&self, few: usize) -> Vec<(FileNo, FileId)> {
        if self.unfinished <= few {
            return self.pending().map(|(file, id, _)| (file, id)).collect();
        }
        self.active.files.iter().map(|&file| (file, self.id(file))).collect()
    }

    /// Takes the file from the ones that are being fetched, if it is one.
    pub(super) fn deactivate(&mut self, file: FileNo) {
        if let Some(pos) = self.active.files.iter().position(|&f| f == file) {
            self.active.files.remove(pos);
            self.active.chunks -= Geometry::new(self.id(file).len).chunk_count() as u64;
        }
    }
}
