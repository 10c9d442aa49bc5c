//! What a download came to.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use log::info;

use crate::client::driver::{Driver, Known, Last};
use crate::client::{FetchError, Report};
use crate::identity::PeerId;
use crate::swarm::PeerHandle;

impl Driver {
    /// Why nothing comes any more.
    pub(super) fn verdict(&self) -> FetchError {
        let state = self.shared.state();
        let pending: Vec<_> = state.pending().collect();
        let what = pending.first().map_or(String::new(), |(no, id, _)| {
            let more = if pending.len() > 1 { format!(" and {} more files", pending.len() - 1) } else { String::new() };
            format!("{} ({id}){more}", self.shared.files[*no as usize].path)
        });
        let liars = self.shared.liars();
        let holders: Vec<&Known> = self.peers.iter().filter(|(h, _)| state.useful(**h) > 0).map(|(_, k)| k).collect();
        let connected = self.shared.connected();
        let answers = |k: &Known| k.last == Last::Answered || connected.contains(&k.record.peer);
        let reachable: HashSet<PeerHandle> = self.peers.iter().filter(|(_, k)| answers(k)).map(|(h, _)| *h).collect();
        let refused = self.peers.values().filter(|k| k.last == Last::Refused).count();
        let answered = reachable.len();
        if !liars.is_empty() && holders.is_empty() {
            FetchError::OnlyLiars { what, peers: liars }
        } else if refused > 0 && holders.iter().all(|k| k.last == Last::Refused) && answered == 0 {
            FetchError::Refused { refused, reason: self.refusal.clone() }
        } else if answered > 0 && pending.iter().any(|p| !state.is_held_by(p.0, &reachable)) {
            FetchError::NotFound { what, answered }
        } else if answered > 0 {
            FetchError::Silent { what, wait: self.shared.ctx.timeout }
        } else {
            FetchError::NoPeer(self.shared.ctx.timeout)
        }
    }

    pub(super) fn report(&self) -> Report {
        let tally = &self.shared.tally;
        let mut by_key: HashMap<PeerId, u64> = HashMap::new();
        for (peer, bytes) in tally.of_peers.lock().unwrap_or_else(PoisonError::into_inner).values() {
            *by_key.entry(*peer).or_default() += bytes;
        }
        let mut peers: Vec<_> = by_key.into_iter().collect();
        peers.sort_unstable_by_key(|&(peer, bytes)| (std::cmp::Reverse(bytes), peer));
        let fetched = tally.reports.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let report = Report {
            files: fetched.len(),
            skipped: fetched.iter().filter(|f| f.skipped).count(),
            bytes: tally.bytes.load(Ordering::Relaxed),
            seconds: tally.begun.elapsed().as_secs_f64(),
            retries: tally.retries.load(Ordering::Relaxed),
            wasted: tally.wasted.load(Ordering::Relaxed),
            redirects: tally.redirects.load(Ordering::Relaxed),
            rehashed: tally.rehashed.load(Ordering::Relaxed),
            peers,
            fetched,
        };
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
