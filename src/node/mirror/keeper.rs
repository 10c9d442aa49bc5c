//! The copies of a directory: what room there is for more, and which expire.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::content::{Catalogue, FileId, RelPath};
use crate::node::limits::{
    EXPIRY_LOOK, FREE_SHARE, LOST_LOOK, LOST_PAUSE, MIRROR_LINES_MAX, QUOTA_LOOK, USE_RECORD_STEP,
    USE_RECORDS_PER_RETAIN,
};
use crate::node::mirror::jobs::MirrorJobs;
use crate::node::mirror::{MirrorLoans, MirrorTerms};
use crate::runtime::LimitedLog;
use crate::store::{Disk, ExpiringDir, RemovedCopies};
use crate::swarm::{Event, ExpiryCandidate, ExpiryRoom, MirrorPlan, Retention};

/// Knows the copies, and removes the expired ones.
pub(super) struct CopyKeeper {
    retention: Retention,
    dir: ExpiringDir,
    disk: Arc<Disk>,
    loans: MirrorLoans,
    clock: UseClock,
    /// When to look for what has expired, and when that was done last.
    look_at: Instant,
    looked_at: Instant,
    /// Copies that could not be removed count as being used until then.
    stuck: HashMap<RelPath, Instant>,
    log: LimitedLog,
    expired: u64,
    /// Contents of which copies have expired since they were asked for last.
    gone: HashSet<FileId>,
    lost: LostCopies,
}

/// What something else removed.
#[derive(Default)]
struct LostCopies {
    /// Files, since they were asked for last.
    paths: Vec<RelPath>,
    /// Whether links or empty directories may be among it: since the last look, and by that.
    has_bare: bool,
    is_bare_due: bool,
    found_at: Option<Instant>,
    /// The numbers of files, and of links and empty directories, that this node offered last.
    offered: (usize, usize),
}

/// The clock of the machine, which may be set meanwhile.
struct UseClock {
    /// When both clocks were looked at last.
    began: (Instant, u64),
    /// When the node was started.
    start: Instant,
}

/// Room for files that are about to be fetched, and what has to go for them.
pub(super) struct MirrorRoom {
    /// Bytes that may still be written, and bytes that the quota leaves.
    free: u64,
    allowed: u64,
    candidates: Vec<(RelPath, ExpiryCandidate)>,
    copies: ExpiryRoom,
    gone: Vec<RelPath>,
    lacking: u64,
    /// The first file that found no room, and whether the quota kept it out.
    first_lacking: Option<(RelPath, bool)>,
}

impl CopyKeeper {
    pub(super) fn new(terms: &MirrorTerms, loans: &MirrorLoans) -> io::Result<Self> {
        let disk = Disk::open(&terms.dir, false).map_err(io::Error::other)?;
        let mut dir = ExpiringDir::open(&terms.state, &terms.dir)?;
        dir.refresh();
        let now = Instant::now();
        Ok(CopyKeeper {
            retention: terms.retention,
            dir,
            disk,
            loans: loans.clone(),
            clock: UseClock { began: (now, unix_s()), start: now },
            look_at: now,
            looked_at: now,
            stuck: HashMap::new(),
            log: LimitedLog::new(MIRROR_LINES_MAX),
            expired: 0,
            gone: HashSet::new(),
            lost: LostCopies::default(),
        })
    }

    /// A fetch has ended: takes over what it recorded.
    pub(super) fn has_news(&mut self) {
        self.dir.refresh();
    }

    /// Seconds since 1970.
    pub(super) fn now_s(&self) -> u64 {
        unix_s()
    }

    /// Whether `id` was at `path` and has expired.
    pub(super) fn has_expired(&self, path: &RelPath, id: &FileId) -> bool {
        self.dir.files().has_expired(path, id)
    }

    /// Copies, their bytes, and how many have expired.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        (self.dir.files().len() as u64, self.dir.files().bytes(), self.expired)
    }

    /// When the copies are looked at.
    pub(super) fn next_at(&self) -> Instant {
        self.look_at
    }

    /// Looks at the copies and removes what has expired, if it is time to. `is_known` says whether it is known
    /// what other nodes have.
    pub(super) fn expire(&mut self, plan: &MirrorPlan, is_known: bool, jobs: &MirrorJobs, now: Instant) {
        self.stuck.retain(|_, until| *until > now);
        // What is used now does not go, so a directory may be over its quota for a while.
        let is_over = now >= self.looked_at + QUOTA_LOOK
            && self.retention.quota.is_some_and(|quota| self.dir.files().bytes() > quota);
        if now < self.look_at && !is_over {
            return;
        }
        self.look(now);
        (self.looked_at, self.look_at) = (now, now + EXPIRY_LOOK);
        if !self.retention.is_on() {
            return;
        }
        let (candidates, now_s) = (self.candidates(plan, is_known, jobs), unix_s());
        let files: Vec<ExpiryCandidate> = candidates.iter().map(|(_, file)| *file).collect();
        let gone = self.retention.expired(&files, now_s);
        let last = gone.iter().filter(|at| files[**at].is_last && self.retention.quota.is_some()).count();
        if last > 0 {
            log::warn!("copies that no other node has expire for the quota files={last}");
        }
        self.remove(gone.into_iter().map(|at| candidates[at].0.clone()).collect(), now);
        let next = self.retention.next_s(&files, now_s).map_or(EXPIRY_LOOK, |at| Duration::from_secs(at - now_s));
        self.look_at = now + next.clamp(Duration::from_secs(1), EXPIRY_LOOK);
    }

    /// The contents of which copies have expired since the last call.
    pub(super) fn take_gone(&mut self) -> HashSet<FileId> {
        std::mem::take(&mut self.gone)
    }

    /// Looks soon if this node offers less than at the last call.
    pub(super) fn note_offered(&mut self, catalogue: &Catalogue, now: Instant) {
        let offered = (catalogue.len(), catalogue.bare().all().len());
        let before = std::mem::replace(&mut self.lost.offered, offered);
        if offered.0 < before.0 || offered.1 < before.1 {
            self.lost.has_bare |= offered.1 < before.1;
            let soon = now + LOST_LOOK;
            let at = self.lost.found_at.map_or(soon, |found| soon.max(found + LOST_PAUSE));
            self.look_at = self.look_at.min(at);
        }
    }

    /// The copies that something else removed since the last call.
    pub(super) fn take_lost(&mut self, catalogue: &Catalogue) -> Vec<RelPath> {
        // What the catalogue still has counts as being here.
        let is_listed = |path: &RelPath| catalogue.get(path.as_str()).is_some();
        let (listed, lost): (Vec<_>, Vec<_>) = std::mem::take(&mut self.lost.paths).into_iter().partition(is_listed);
        self.lost.paths = listed.into_iter().filter(|path| !self.disk.is_file_at(path)).collect();
        lost
    }

    /// Those of `links` where nothing lies any more, if something removed links or empty directories since the last
    /// look, and nothing that is mounted is away.
    pub(super) fn take_lost_links<'l>(&mut self, links: impl Iterator<Item = &'l RelPath>) -> Option<Vec<RelPath>> {
        if !std::mem::take(&mut self.lost.is_bare_due) {
            return None;
        }
        self.dir.is_all_here().then(|| links.filter(|link| self.dir.is_free(link)).cloned().collect())
    }

    /// What room there is for further files.
    pub(super) fn room(&mut self, plan: &MirrorPlan, is_known: bool, jobs: &MirrorJobs) -> MirrorRoom {
        let left = jobs.bytes_left();
        // What is given to others does not go.
        self.dir.used(&self.loans.used.take(), unix_s());
        // Unknown room counts as enough: the fetch finds out.
        let (free, size) = self.disk.room().unwrap_or((u64::MAX, 0));
        let allowed = self.retention.quota.map_or(u64::MAX, |quota| quota.saturating_sub(self.dir.files().bytes()));
        let mut candidates = if self.retention.is_on() { self.candidates(plan, is_known, jobs) } else { Vec::new() };
        // A copy that is to be replaced goes by that alone.
        for (path, file) in &mut candidates {
            file.used_s = if plan.is_wanted(path) { u64::MAX } else { file.used_s };
        }
        let files: Vec<ExpiryCandidate> = candidates.iter().map(|(_, file)| *file).collect();
        MirrorRoom {
            free: free.saturating_sub(size / FREE_SHARE).saturating_sub(left),
            allowed: allowed.saturating_sub(left),
            copies: self.retention.room(&files, unix_s()),
            candidates,
            gone: Vec::new(),
            lacking: 0,
            first_lacking: None,
        }
    }

    /// Removes `gone` for what is fetched next; whether all of them are gone.
    pub(super) fn make_room(&mut self, gone: Vec<RelPath>, now: Instant) -> bool {
        let wanted = gone.len();
        self.remove(gone, now) == wanted
    }

    /// Records what was used.
    pub(super) fn finish(&mut self) {
        self.look(Instant::now());
        self.dir.record_use(1);
    }

    fn look(&mut self, now: Instant) {
        self.dir.refresh();
        if let Some(by_s) = self.clock.leap(now, unix_s()) {
            log::info!("clock set ahead, copies stay as old as they are seconds={by_s}");
            self.dir.leap(by_s, unix_s());
        }
        if self.clock.has_settled(now) {
            self.dir.clamp(unix_s());
        }
        self.dir.used(&self.loans.used.take(), unix_s());
        let lost = self.dir.look(unix_s());
        if let Some(first) = lost.first() {
            let line = format_args!(
                "copies were removed, fetched again if they are mirrored files={} first={first}",
                lost.len()
            );
            self.log.log(log::Level::Warn, now, line);
        }
        self.lost.is_bare_due = std::mem::take(&mut self.lost.has_bare);
        if !lost.is_empty() || self.lost.is_bare_due {
            self.lost.found_at = Some(now);
        }
        self.lost.paths.extend(lost);
        let of_retain = self.retention.retain.map(|retain| retain / USE_RECORDS_PER_RETAIN);
        self.dir.record_use(of_retain.map_or(USE_RECORD_STEP, |step| step.min(USE_RECORD_STEP)).as_secs());
    }

    /// What may expire. Nothing that is being replaced.
    fn candidates(&self, plan: &MirrorPlan, is_known: bool, jobs: &MirrorJobs) -> Vec<(RelPath, ExpiryCandidate)> {
        let all = self.dir.files().iter().filter(|(path, _)| !jobs.is_fetching(path));
        let candidate = |(path, file): (&RelPath, &crate::store::ExpiringFile)| {
            let is_last = file.is_mirrored && !(is_known && plan.is_kept_elsewhere(path, &file.id, &self.loans.own));
            // One that cannot be removed now makes no room, but takes it.
            let used_s = if self.stuck.contains_key(path) { u64::MAX } else { file.used_s };
            (path.clone(), ExpiryCandidate { len: file.id.len, used_s, is_last })
        };
        all.map(candidate).collect()
    }

    /// How many of `paths` it removed.
    fn remove(&mut self, paths: Vec<RelPath>, now: Instant) -> usize {
        if paths.is_empty() {
            return 0;
        }
        let RemovedCopies { gone: removed, failed } = self.dir.remove(&self.disk, &paths);
        if let Some((path, error)) = failed.first() {
            let (files, error) = (failed.len(), crate::chain::Chain(error));
            let line = format_args!("expired copies not removed files={files} path={path} error=\"{error}\"");
            self.log.log(log::Level::Warn, now, line);
        }
        self.stuck.extend(failed.into_iter().map(|(path, _)| (path, now + EXPIRY_LOOK)));
        let bytes: u64 = removed.iter().map(|(_, id)| id.len).sum();
        if !removed.is_empty() {
            log::info!("copies expired files={} bytes={bytes}", removed.len());
        }
        self.expired += removed.len() as u64;
        self.gone.extend(removed.iter().map(|(_, id)| *id));
        for (path, id) in &removed {
            log::debug!("copy expired path={path} file={id}");
            // What was fetched is offered by its identity besides.
            if let Some(fetched) = &self.loans.client.ctx.fetched {
                fetched.remove_at(self.disk.path(), path);
            }
            self.loans.client.ctx.events.emit(Event::CopyExpired { path: path.clone(), id: *id });
        }
        self.loans.sharers.look(paths);
        removed.len()
    }
}

impl MirrorRoom {
    /// Whether there is room for a file of `len` bytes at `path` that was first seen at `seen_s`, besides the
    /// files before. The quota has room for it where a copy lies that it replaces.
    pub(super) fn fits(&mut self, path: &RelPath, len: u64, seen_s: u64) -> bool {
        let replaced = self.candidates.binary_search_by(|(copy, _)| copy.cmp(path)).ok();
        let leaves = replaced.map_or(0, |at| self.candidates[at].1.len);
        self.allowed = self.allowed.saturating_add(leaves);
        let needed = len.saturating_sub(self.free).max(len.saturating_sub(self.allowed));
        if needed > 0 {
            let Some((gone, freed)) = self.copies.take(needed, seen_s) else {
                self.lacking += 1;
                self.first_lacking.get_or_insert_with(|| (path.clone(), len > self.allowed));
                self.allowed = self.allowed.saturating_sub(leaves);
                return false;
            };
            self.gone.extend(gone.iter().map(|&at| self.candidates[at].0.clone()));
            (self.free, self.allowed) = (self.free.saturating_add(freed), self.allowed.saturating_add(freed));
        }
        (self.free, self.allowed) = (self.free - len, self.allowed - len);
        true
    }

    /// What has to go, and how many files found no room, with the first of them and why.
    pub(super) fn end(self) -> (Vec<RelPath>, Option<String>) {
        let told = |(path, is_quota): (RelPath, bool)| {
            let (cause, step) = match is_quota {
                true => ("copies keep to their quota", "a larger one takes it"),
                false => ("a tenth of the disk stays free", "free some space"),
            };
            format!("{cause}; {step} files={} path={path}", self.lacking)
        };
        (self.gone, self.first_lacking.map(told))
    }
}

impl UseClock {
    /// By how many seconds the clock was set ahead since the last call, if it was.
    fn leap(&mut self, now: Instant, now_s: u64) -> Option<u64> {
        let (then, then_s) = std::mem::replace(&mut self.began, (now, now_s));
        let passed = now.saturating_duration_since(then).as_secs();
        let by = now_s.saturating_sub(then_s).saturating_sub(passed);
        (by > LEAP_S).then_some(by)
    }

    /// Whether the clock has been set since the start, if something sets it: a machine may start with any time.
    fn has_settled(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.start).as_secs() > LEAP_S
    }
}

/// Seconds since 1970.
fn unix_s() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

/// A clock that runs ahead by less was not set. What sets a clock does so within this time of the start.
const LEAP_S: u64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_ahead_lets_nothing_expire() {
        let start = Instant::now();
        let mut clock = UseClock { began: (start, 100), start };
        let minute = Duration::from_secs(60);
        assert_eq!(clock.leap(start + minute, 161), None);
        assert_eq!(clock.leap(start + 2 * minute, 1_700_000_000), Some(1_700_000_000 - 161 - 60));
        assert_eq!(clock.leap(start + 3 * minute, 1_700_000_060), None);
        assert_eq!(clock.leap(start + 4 * minute, 5), None, "set back");
        assert!(!clock.has_settled(start + 60 * minute) && clock.has_settled(start + 61 * minute));
    }
}
