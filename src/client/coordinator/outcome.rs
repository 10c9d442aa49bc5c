//! What came of a download.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use log::info;

use crate::client::coordinator::{Coordinator, DownloadPeer};
use crate::client::{FetchError, Report};
use crate::peers::Hindrance;
use crate::swarm::{ConnectionEnd, PeerHandle};
use crate::sync::lock;

impl Coordinator {
    /// Why nothing comes.
    pub(super) fn verdict(&self) -> FetchError {
        let state = self.shared.state();
        let pending: Vec<_> = state.pending().collect();
        let what = pending.first().map_or(String::new(), |(no, id, _)| {
            let more = if pending.len() > 1 { format!(" and {} more files", pending.len() - 1) } else { String::new() };
            format!("{} ({id}){more}", self.shared.files[*no as usize].path)
        });
        let liars = self.shared.liars();
        let holders: Vec<&DownloadPeer> =
            self.peers.iter().filter(|(h, _)| state.useful(**h) > 0).map(|(_, k)| k).collect();
        let connected = self.shared.sessions.peers();
        let answers = |k: &DownloadPeer| k.has_answered() || connected.contains(&k.record.peer);
        let reachable: HashSet<PeerHandle> = self.peers.iter().filter(|(_, k)| answers(k)).map(|(h, _)| *h).collect();
        let refused = self.peers.values().filter(|k| k.last == Some(ConnectionEnd::Refused)).count();
        let answered = reachable.len();
        let mut lost = pending.iter().filter(|p| !state.is_held_by(p.0, &reachable));
        if !liars.is_empty() && holders.is_empty() {
            FetchError::OnlyLiars { what, peers: liars }
        } else if refused > 0 && holders.iter().all(|k| k.last == Some(ConnectionEnd::Refused)) && answered == 0 {
            FetchError::Refused { refused, reason: self.refusal.clone() }
        } else if let Some((no, id, _)) = lost.clone().find(|p| self.shared.is_changed_at_source(p.0)) {
            FetchError::Changed { what: format!("{} ({id})", self.shared.files[*no as usize].path) }
        } else if answered > 0 && lost.next().is_some() {
            FetchError::NotFound { what, answered }
        } else if let Some(Hindrance::NoSocket(errno)) = self.shared.ctx.peers.hindrance() {
            FetchError::no_socket(errno)
        } else if answered > 0 {
            FetchError::Silent { what, wait: self.shared.ctx.timeout }
        } else {
            FetchError::NoPeer(self.shared.ctx.timeout)
        }
    }

    /// What was reached; logged if it is all.
    pub(super) fn report(&self, whole: bool) -> Report {
        let stats = &self.shared.stats;
        let fetched = lock(&stats.reports).clone();
        let report = Report {
            dir: self.shared.disk.path().to_path_buf(),
            files: fetched.len(),
            skipped: fetched.iter().filter(|f| f.skipped).count(),
            bytes: stats.bytes.load(Ordering::Relaxed),
            seconds: stats.begun.elapsed().as_secs_f64(),
            retries: stats.retries.load(Ordering::Relaxed),
            wasted: stats.wasted.load(Ordering::Relaxed),
            redirects: stats.redirects.load(Ordering::Relaxed),
            rehashed: stats.rehashed.load(Ordering::Relaxed),
            peers: stats.by_key(),
            fetched,
        };
        if !whole {
            return report;
        }
        info!(
            "download done files={} bytes={} seconds={:.3} retries={} redirects={} wasted={} rehashed={}",
            report.files,
            report.bytes,
            report.seconds,
            report.retries,
            report.redirects,
            report.wasted,
            report.rehashed
        );
        for (peer, bytes) in &report.peers {
            info!("download source peer={peer} bytes={bytes}");
        }
        report
    }
}

impl DownloadPeer {
    /// Whether its last connection was one that it answered on.
    fn has_answered(&self) -> bool {
        use ConnectionEnd::{Busy, Cut, Failed, Idle, Lied, Slow, Stale};
        matches!(self.last, Some(Idle { .. } | Cut | Lied | Busy(_) | Stale | Slow | Failed))
    }
}
