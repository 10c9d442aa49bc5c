//! Files that are read while they are fetched.

use crate::content::Geometry;
use crate::swarm::download::picker::{ReadOrder, ReadWindow};
use crate::swarm::download::state::DownloadState;
use crate::swarm::download::state::file::FilePhase;
use crate::swarm::download::state::layer_asks::LayerAsks;
use crate::swarm::download::task::FileNo;

impl<F: Clone> DownloadState<F> {
    /// The file is read while it is fetched: it comes before all others, and its chunks in the order
    /// in which its readers need them. An order without readers ends that.
    pub fn set_reads(&mut self, file: FileNo, order: ReadOrder) {
        let has_ended = order == ReadOrder::default();
        if !has_ended {
            self.put_first(file);
        }
        match &mut self.files[file as usize].phase {
            FilePhase::Chunks(picker, _) => picker.set_reads(order.clone()),
            FilePhase::Small(slot) => {
                let windows = if has_ended { Vec::new() } else { vec![ReadWindow { first: *slot, len: 1 }] };
                self.small.picker.set_reads(ReadOrder { windows, alone: false });
            }
            _ => {}
        }
        match has_ended {
            true => self.reads.remove(&file),
            false => self.reads.insert(file, order),
        };
    }

    /// Whether nothing is to be fetched until a reader goes on: of each unfinished file only what is
    /// read is fetched, and is there.
    pub fn is_resting(&self) -> bool {
        let serves = |file: FileNo| match &self.files[file as usize].phase {
            FilePhase::Chunks(picker, _) => picker.are_reads_served(),
            FilePhase::Done => true,
            _ => false,
        };
        let rests = self.reads.iter().filter(|(file, order)| order.alone && serves(**file)).count();
        rests > 0 && rests == self.unfinished
    }

    /// Starts a file that waits for its turn, and puts it before the other ones that are active.
    fn put_first(&mut self, file: FileNo) {
        let at = &mut self.files[file as usize];
        if matches!(at.phase, FilePhase::Waiting) {
            at.phase = FilePhase::Layer(LayerAsks::default());
            self.active.chunks += u64::from(Geometry::new(at.id.len).chunk_count());
            self.active.files.insert(0, file);
        } else if let Some(pos) = self.active.files.iter().position(|&f| f == file) {
            self.active.files[..=pos].rotate_right(1);
        }
    }
}
