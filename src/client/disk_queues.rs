//! The queues between the threads that receive and the threads that wait for the disk.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::client::joins::WholeFile;
use crate::client::limits::{DISK_THREADS, SMALL_THREADS};
use crate::content::Digest;
use crate::identity::PeerId;
use crate::store::PartialFile;
use crate::swarm::{FileNo, PeerHandle};

/// A job of a disk thread.
pub(crate) enum DiskJob {
    /// Check a layer and open the partial file.
    Open { file: FileNo, layer: Vec<Digest>, from: PeerHandle, peer: PeerId },
    /// Verify some chunks of an earlier run.
    Recheck { file: FileNo, open: Arc<PartialFile> },
    /// Another download has put the file in place: take it over from there.
    TakeOver { file: FileNo, from: WholeFile },
    /// The download that was waited for has ended: fetch the file.
    Own { file: FileNo },
    /// All chunks are written: make the file durable and name it.
    Finish { file: FileNo, open: Arc<PartialFile> },
    /// No more jobs for one thread.
    End,
}

/// A verified one-chunk file to write; `None` ends one writer.
pub(crate) type SmallJob = Option<(FileNo, Vec<u8>)>;

/// The sending ends of the queues. The state of the download bounds what is in them.
pub(crate) struct DiskQueues {
    pub(crate) jobs: Sender<DiskJob>,
    pub(crate) small: Sender<SmallJob>,
    /// Held by the thread that gathers and writes small files, where only one at a time should.
    pub(crate) small_turn: Mutex<()>,
    /// Connections that write to the disk right now.
    pub(crate) writing: AtomicUsize,
}

/// The receiving ends, which the disk threads share.
#[derive(Clone)]
pub(crate) struct DiskReceivers {
    pub(crate) jobs: Receiver<DiskJob>,
    pub(crate) small: Receiver<SmallJob>,
}

impl DiskQueues {
    pub(crate) fn new() -> (Self, DiskReceivers) {
        let (jobs, jobs_received) = unbounded();
        let (small, small_received) = unbounded();
        let queues = DiskQueues { jobs, small, small_turn: Mutex::default(), writing: AtomicUsize::new(0) };
        (queues, DiskReceivers { jobs: jobs_received, small: small_received })
    }

    /// Tells all disk threads to end once they have done what is queued.
    pub(crate) fn end(&self) {
        for _ in 0..DISK_THREADS {
            let _ = self.jobs.send(DiskJob::End);
        }
        for _ in 0..SMALL_THREADS {
            let _ = self.small.send(None);
        }
    }

    /// Whether a connection writes right now.
    pub(crate) fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed) > 0
    }
}
