//! Files that are read while they are fetched.

use crate::content::Geometry;
use crate::swarm::download::picker::{ReadOrder, ReadWindow};
use crate::swarm::download::state::DownloadState;
use crate::swarm::download::state::file::FilePhase;
use crate::swarm::download::state::layer_asks::LayerAsks;
use crate::swarm::download::task::FileNo;

impl<F: Clone> DownloadState<F> {
    /// The file is read while it is fetched, and its readers need these chunks: it comes before all
    /// others, and its chunks in that order. No windows end that.
    pub fn set_windows(&mut self, file: FileNo, windows: Vec<ReadWindow>) {
        let alone = self.reads.get(&file).is_some_and(|order| order.alone);
        self.set_reads(file, ReadOrder { windows, alone });
    }

    /// Whether only what is read is fetched of the file.
    pub fn set_alone(&mut self, file: FileNo, alone: bool) {
        let windows = self.windows(file);
        self.set_reads(file, ReadOrder { windows, alone });
    }

    /// What the readers of the file need.
    pub fn windows(&self, file: FileNo) -> Vec<ReadWindow> {
        self.reads.get(&file).map_or(Vec::new(), |order| order.windows.clone())
    }

    /// The order in which the chunks of the file are asked for.
    pub(super) fn set_reads(&mut self, file: FileNo, order: ReadOrder) {
        if !order.windows.is_empty() {
            self.put_first(file);
        }
        if let FilePhase::Chunks(picker, _) = &mut self.files[file as usize].phase {
            picker.set_reads(order.clone());
        }
        match order == ReadOrder::default() {
            true => self.reads.remove(&file),
            false => self.reads.insert(file, order),
        };
        if matches!(self.files[file as usize].phase, FilePhase::Small(_)) {
            let slot_of = |(file, order): (&FileNo, &ReadOrder)| match self.files[*file as usize].phase {
                FilePhase::Small(slot) if !order.windows.is_empty() => Some(ReadWindow { first: slot, len: 1 }),
                _ => None,
            };
            let windows = self.reads.iter().filter_map(slot_of).collect();
            self.small.picker.set_reads(ReadOrder { windows, alone: false });
        }
    }

    /// The handle of the file, while chunks of it come.
    pub fn open_file(&self, file: FileNo) -> Option<F> {
        match &self.files[file as usize].phase {
            FilePhase::Chunks(_, open) => Some(open.clone()),
            _ => None,
        }
    }

    /// Whether nothing is to be fetched until a reader advances: of each unfinished file only what is
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
