//! What came of a download.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::info;

use crate::client::coordinator::{Coordinator, DownloadPeer};
use crate::client::{DownloadEnd, FailedFile, FetchError, Report};
use crate::content::FileId;
use crate::peers::Hindrance;
use crate::store::PartialFile;
use crate::swarm::{ConnectionEnd, FileNo, PeerHandle};

/// Why nothing comes of a file.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NothingComes {
    OnlyLiars,
    /// All holders refuse.
    Refused,
    /// So many holders have no seat free.
    Full(usize),
    /// So many peers answered, none of which holds it.
    NotHeld(usize),
    /// A holder found it changed on its disk.
    Changed,
    /// The system gives no socket, because of this error.
    NoSocket(i32),
    /// The peers that gave something have left.
    HolderLeft,
    NoPeer,
    Silent,
}

impl Coordinator {
    /// Nothing further comes: each file that is not in place fails for a cause of its own.
    pub(super) fn give_up(&self) {
        let mut causes: BTreeMap<NothingComes, Vec<FileNo>> = BTreeMap::new();
        for (file, cause) in self.causes() {
            causes.entry(cause).or_default().push(file);
        }
        for (cause, files) in causes {
            let first = files.first().map(|&no| &self.shared.files[no as usize]);
            let more = if files.len() > 1 { format!(" and {} more files", files.len() - 1) } else { String::new() };
            let what = first.map_or(String::new(), |f| format!("{} ({}){more}", f.path, f.id));
            let error = Arc::new(self.error_of(&cause, what, &files));
            files.into_iter().for_each(|file| self.shared.note_failed(file, &error));
        }
    }

    /// Why each file that is not in place does not come.
    fn causes(&self) -> Vec<(FileNo, NothingComes)> {
        let state = self.shared.state();
        let has_liars = !self.shared.liars().is_empty();
        let holders: Vec<&DownloadPeer> =
            self.peers.iter().filter(|(h, _)| state.useful(**h) > 0).map(|(_, k)| k).collect();
        let connected = self.shared.sessions.peers();
        let answers = |k: &DownloadPeer| k.has_answered() || connected.contains(&k.record.peer);
        let reachable: HashSet<PeerHandle> = self.peers.iter().filter(|(_, k)| answers(k)).map(|(h, _)| *h).collect();
        let (refusing, others): (HashSet<PeerHandle>, HashSet<PeerHandle>) =
            self.peers.keys().partition(|h| self.peers[*h].last == Some(ConnectionEnd::Refused));
        let answered = reachable.len();
        let has_given = self.shared.stats.bytes.load(Ordering::Relaxed) > 0;
        let is_full = |k: &&DownloadPeer| matches!(k.last, Some(ConnectionEnd::Busy(_)));
        let full = holders.len();
        let all_full = full > 0 && connected.is_empty() && holders.iter().all(is_full);
        let no_socket = match self.shared.ctx.peers.hindrance() {
            Some(Hindrance::NoSocket(errno)) => Some(errno),
            // A later dial may have found a descriptor, and its session none.
            _ => self.peers.values().find_map(|k| k.exhausted),
        };
        let all_refuse =
            !refusing.is_empty() && holders.iter().all(|k| k.last == Some(ConnectionEnd::Refused)) && answered == 0;
        // Others of the group may answer: they do not have it.
        let refuse = |file| state.is_held_by(file, &refusing) && !state.is_held_by(file, &others);
        let cause = |(file, _, holders): (FileNo, FileId, usize)| {
            let cause = if has_liars && holders == 0 {
                NothingComes::OnlyLiars
            } else if all_refuse || refuse(file) {
                NothingComes::Refused
            } else if all_full {
                NothingComes::Full(full)
            } else if !state.is_held_by(file, &reachable) && self.shared.is_changed_at_source(file) {
                NothingComes::Changed
            } else if let Some(errno) = no_socket.filter(|_| answered == 0 || state.is_held_by(file, &reachable)) {
                NothingComes::NoSocket(errno)
            } else if answered == 0 && has_given {
                NothingComes::HolderLeft
            } else if answered == 0 {
                NothingComes::NoPeer
            } else if state.is_held_by(file, &reachable) {
                NothingComes::Silent
            } else {
                NothingComes::NotHeld(answered)
            };
            (file, cause)
        };
        state.pending().map(cause).collect()
    }

    /// Makes durable what came of a file that is not whole. Of one that is gone it need not stay for long.
    pub(super) fn suspend(&self, file: &PartialFile) {
        file.suspend();
        if self.is_gone(&file.manifest().id()) {
            file.let_go();
        }
    }

    /// Whether the source of a content has another one by now, and nobody else was found who has it.
    fn is_gone(&self, id: &FileId) -> bool {
        let failed = self.shared.failed();
        let is_changed = |f: &FailedFile, path| f.path == path && matches!(*f.error, FetchError::Changed { .. });
        let mut names = self.shared.files.iter().filter(|file| file.id == *id).map(|file| file.path.as_str());
        names.any(|path| failed.iter().any(|f| is_changed(f, path)))
    }

    fn error_of(&self, cause: &NothingComes, what: String, files: &[FileNo]) -> FetchError {
        let wait = self.shared.ctx.timeout;
        match *cause {
            NothingComes::OnlyLiars => FetchError::OnlyLiars { what, peers: self.shared.liars() },
            NothingComes::Refused => FetchError::Refused { peers: self.refusals.clone().into_iter().collect() },
            NothingComes::HolderLeft => {
                let state = self.shared.state();
                let had = files.iter().map(|&file| state.bytes_had(file)).sum();
                let of = files.iter().map(|&file| state.id(file).len).sum();
                FetchError::HolderLeft { what, had, of }
            }
            NothingComes::Full(full) => FetchError::Full { full, wait },
            NothingComes::NotHeld(answered) => FetchError::NotFound { what, answered },
            NothingComes::Changed => FetchError::Changed { what },
            NothingComes::NoSocket(errno) => FetchError::no_socket(errno),
            NothingComes::NoPeer => FetchError::NoPeer(wait),
            NothingComes::Silent => FetchError::Silent { what, wait },
        }
    }

    /// What came of it. An error in `result` is the cause for the files that are `pending`, unless
    /// it is an interruption.
    pub(super) fn end(&self, pending: Vec<FileNo>, result: Result<(), Arc<FetchError>>) -> DownloadEnd {
        let ended = result.err();
        let is_interrupted = ended.as_deref().is_some_and(|e| matches!(e, FetchError::Cancelled | FetchError::Stopped));
        if let Some(error) = ended.as_ref().filter(|_| !is_interrupted) {
            pending.into_iter().for_each(|file| self.shared.note_failed(file, error));
        }
        let report = self.report();
        let error = if is_interrupted { ended } else { FailedFile::gravest(&report.failed).cloned().or(ended) };
        DownloadEnd { report, error }
    }

    fn report(&self) -> Report {
        let report = self.shared.stats.report(self.shared.disk.path().to_path_buf(), self.shared.failed());
        let tag = self.shared.ctx.peers.own().tag();
        info!(
            "download done files={} failed={} bytes={} seconds={:.3} retries={} redirects={} wasted={} rehashed={} reused={} \
             holes={}{tag}",
            report.files,
            report.failed.len(),
            report.bytes,
            report.seconds,
            report.retries,
            report.redirects,
            report.wasted,
            report.local.rehashed,
            report.local.reused,
            report.local.holes
        );
        for (peer, bytes) in &report.peers {
            info!("download source peer={peer} bytes={bytes}{tag}");
        }
        report
    }
}

impl DownloadPeer {
    /// Whether its last connection was one that it answered on.
    pub(super) fn has_answered(&self) -> bool {
        use ConnectionEnd::{Busy, Cut, Failed, Idle, Lied, Slow, Stale};
        matches!(self.last, Some(Idle { .. } | Cut | Lied | Busy(_) | Stale | Slow | Failed))
    }
}
