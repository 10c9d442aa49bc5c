//! What a mirror fetches next.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

use crate::content::{FileId, RelPath};
use crate::identity::{NodeId, PeerId};
use crate::swarm::mirror::asking::doubled;
use crate::swarm::mirror::limits::{
    MIRROR_BATCH_FILES, MIRROR_BATCH_LEN, MIRROR_JOBS_MAX, MIRROR_RETRY, MIRROR_RETRY_MAX,
};
use crate::swarm::mirror::offers::{MirrorOffer, MirrorOffers, MirrorVerdict, Replaced};

/// Keeps track of what is offered, what is here and what is being fetched. The caller reads listings,
/// looks at the directory, fetches, and says what came of it.
#[derive(Debug, Default)]
pub struct MirrorPlan {
    offers: MirrorOffers,
    /// Names to judge: something about them changed.
    changed: BTreeSet<RelPath>,
    /// What is to be fetched, and what keeps it from that.
    wanted: BTreeMap<RelPath, WantedFile>,
    /// What is being fetched, by the number of its batch.
    running: HashMap<RelPath, (u64, FileId)>,
    jobs: HashMap<u64, JobSize>,
    next_job: u64,
    counts: MirrorCounts,
    /// The names of which sharers differ, and the names where a file of the user's lies.
    differ: BTreeSet<RelPath>,
    others: BTreeSet<RelPath>,
}

/// What lies in the directory under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnFile {
    /// Nothing, as far as is known.
    Missing,
    /// A copy that a fetch put there.
    Copy(FileId),
    /// A file of the user's, which is not replaced.
    Users(FileId),
    /// Nothing: the copy of this content has expired.
    Expired(FileId),
}

/// Files to fetch at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorBatch {
    /// Its number.
    pub job: u64,
    /// Each file, and the nodes that offer it under that name.
    pub files: Vec<(MirrorOffer, Vec<NodeId>)>,
}

/// Why a file was not fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setback {
    /// It may work later.
    Later,
    /// A file of the user's lies there.
    Users,
}

/// Something to tell of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorNews {
    /// So many sharers' contents differ: what is here stays.
    Differ(RelPath, usize),
    /// A file of the user's has another content than the sharer's, and stays.
    Users(RelPath),
}

/// How far a mirror is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MirrorCounts {
    /// Files that are to be fetched, including those being fetched.
    pub missing: u64,
    /// Files that are being fetched.
    pub fetching: u64,
    /// Names of which sharers offer several contents.
    pub differ: u64,
    /// Names under which a file of the user's lies.
    pub users: u64,
}

#[derive(Debug)]
struct WantedFile {
    id: FileId,
    holders: Vec<NodeId>,
    /// When it was first seen, in seconds since 1970; 0 if it was there before.
    seen_s: u64,
    not_before: Option<Instant>,
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobSize {
    /// One long file.
    Long,
    /// Others.
    Short,
}

impl MirrorPlan {
    /// Takes the listing of `node`; `names` says whether its names count. Returns the nodes of which nothing is known
    /// from now on, as there is no room for their listings.
    pub fn listed(&mut self, node: NodeId, files: Vec<MirrorOffer>, names: bool) -> Vec<NodeId> {
        let Replaced { changed, left_out } = self.offers.replace(node, files, names);
        self.changed.extend(changed);
        left_out
    }

    /// `node` is gone.
    pub fn left(&mut self, node: NodeId) {
        let names = self.offers.remove(node);
        self.changed.extend(names);
    }

    /// Has `path` judged again, where something was removed: what it waits for may have come.
    pub fn look_again(&mut self, path: RelPath) {
        if let Some(file) = self.wanted.get_mut(&path) {
            file.not_before = None;
        }
        self.changed.insert(path);
    }

    /// The time is `now_s`, in seconds since 1970: copies that differ are judged by it.
    pub fn set_time(&mut self, now_s: u64) {
        if self.offers.set_time(now_s) {
            self.changed.extend(self.differ.iter().cloned());
        }
    }

    /// Has the links to these contents judged again.
    pub fn look_at_links(&mut self, contents: &HashSet<FileId>) {
        if !contents.is_empty() {
            self.changed.extend(self.offers.links_to(contents).cloned());
        }
    }

    /// Judges the names of which something changed. `own` tells what lies here; what is new was first
    /// seen at `seen_s`, in seconds since 1970.
    pub fn judge(&mut self, own: impl Fn(&MirrorOffers, &RelPath, &FileId) -> OwnFile, seen_s: u64) -> Vec<MirrorNews> {
        let mut news = Vec::new();
        for path in std::mem::take(&mut self.changed) {
            let verdict = self.offers.verdict(&path);
            let (mut differs, mut is_users) = (false, false);
            match verdict {
                MirrorVerdict::One { id, holders, shared } => {
                    let found = own(&self.offers, &path, &id);
                    is_users = matches!(found, OwnFile::Users(users) if users != id);
                    match found {
                        OwnFile::Missing => self.want(&path, id, holders, seen_s),
                        // Without a sharer the copy that is here is as good as others.
                        OwnFile::Copy(here) if here != id && shared => self.want(&path, id, holders, seen_s),
                        OwnFile::Expired(gone) if gone != id => self.want(&path, id, holders, seen_s),
                        _ => drop(self.wanted.remove(&path)),
                    }
                }
                MirrorVerdict::Differ { contents, shared } => {
                    // What was meant before a copy joined is still meant.
                    let is_meant = !shared && self.wanted.contains_key(&path);
                    if shared {
                        self.wanted.remove(&path);
                    }
                    differs = !is_meant;
                    if differs && !self.differ.contains(&path) {
                        news.push(MirrorNews::Differ(path.clone(), contents));
                    }
                }
                // What is being fetched may still come from nodes that have it under other names.
                MirrorVerdict::Nothing => drop(self.wanted.remove(&path)),
            }
            if is_users && !self.others.contains(&path) {
                news.push(MirrorNews::Users(path.clone()));
            }
            put(&mut self.differ, &path, differs);
            put(&mut self.others, &path, is_users);
        }
        self.count();
        news
    }

    /// The next files to fetch now, if there are any and a fetch more may run. `fits` says whether
    /// there is room for so many bytes at a name, first seen at that time, besides what it said yes to; files
    /// for which there is none wait until `retry_at`.
    pub fn next_batch(
        &mut self,
        mut fits: impl FnMut(&RelPath, u64, u64) -> bool,
        now: Instant,
        retry_at: Instant,
    ) -> Option<MirrorBatch> {
        if self.jobs.len() >= MIRROR_JOBS_MAX {
            return None;
        }
        let may_be_long = self.may_be_long();
        let (mut files, mut len): (Vec<(MirrorOffer, Vec<NodeId>)>, u64) = (Vec::new(), 0);
        let mut lacking = Vec::new();
        for (path, file) in &self.wanted {
            let is_long = file.id.len > MIRROR_BATCH_LEN;
            let waits = file.not_before.is_some_and(|at| at > now) || self.running.contains_key(path);
            if waits || is_long && (!may_be_long || !files.is_empty()) {
                continue;
            }
            if !files.is_empty() && len + file.id.len > MIRROR_BATCH_LEN {
                continue;
            }
            let Some(offered) = self.offers.offered(path, &file.id) else { continue };
            let is_coming = |end: &RelPath| {
                let is_fetched = self.running.contains_key(end) || files.iter().any(|(one, _)| one.path == *end);
                self.wanted.contains_key(end) && !is_fetched
            };
            let takes_room =
                offered.link.is_none() || self.offers.end_of_link(offered).is_none_or(|end| is_coming(&end));
            if !fits(path, if takes_room { file.id.len } else { 0 }, file.seen_s) {
                lacking.push(path.clone());
                continue;
            }
            len += file.id.len;
            files.push((offered.clone(), file.holders.clone()));
            if is_long || files.len() >= MIRROR_BATCH_FILES {
                break;
            }
        }
        for path in lacking {
            if let Some(file) = self.wanted.get_mut(&path) {
                file.not_before = Some(retry_at);
            }
        }
        if files.is_empty() {
            return None;
        }
        let job = self.next_job;
        self.next_job += 1;
        self.jobs.insert(job, if len > MIRROR_BATCH_LEN { JobSize::Long } else { JobSize::Short });
        self.running.extend(files.iter().map(|(file, _)| (file.path.clone(), (job, file.id))));
        self.count();
        Some(MirrorBatch { job, files })
    }

    /// `path` has its content.
    pub fn fetched(&mut self, path: &RelPath, id: &FileId) {
        if self.wanted.get(path).is_some_and(|file| file.id == *id) {
            self.wanted.remove(path);
        }
    }

    /// `path` was not fetched.
    pub fn failed(&mut self, path: &RelPath, setback: Setback, now: Instant) {
        let Some(file) = self.wanted.get_mut(path) else { return };
        match setback {
            Setback::Later => {
                file.not_before = Some(now + doubled(MIRROR_RETRY, file.failures, MIRROR_RETRY_MAX));
                file.failures = file.failures.saturating_add(1);
            }
            Setback::Users => {
                self.wanted.remove(path);
                self.others.insert(path.clone());
            }
        }
    }

    /// The fetch `job` has ended; what came of each file was said before.
    pub fn ended(&mut self, job: u64) {
        self.jobs.remove(&job);
        self.running.retain(|_, (of, _)| *of != job);
        self.count();
    }

    /// The fetch `job` did not begin; its files wait until `until`.
    pub fn put_off(&mut self, job: u64, until: Instant) {
        for (path, _) in self.running.iter().filter(|(_, (of, _))| *of == job) {
            if let Some(file) = self.wanted.get_mut(path) {
                file.not_before = Some(until);
            }
        }
        self.ended(job);
    }

    /// Whether nothing of the fetch `job` is still wanted.
    pub fn is_outdated(&self, job: u64) -> bool {
        let mut files = self.running.iter().filter(|(_, (of, _))| *of == job);
        files.all(|(path, (_, id))| self.wanted.get(path).is_none_or(|file| file.id != *id))
    }

    /// Whether a file waits for nothing but a fetch.
    pub fn has_due(&self, now: Instant) -> bool {
        let len_max = if self.may_be_long() { u64::MAX } else { MIRROR_BATCH_LEN };
        let is_due = |file: &WantedFile| file.id.len <= len_max && file.not_before.is_none_or(|at| at <= now);
        let mut wanted = self.wanted.iter();
        self.jobs.len() < MIRROR_JOBS_MAX && wanted.any(|(path, file)| is_due(file) && !self.running.contains_key(path))
    }

    /// Whether one more long file may be fetched now.
    fn may_be_long(&self) -> bool {
        let long_jobs = self.jobs.values().filter(|size| **size == JobSize::Long).count();
        long_jobs + 1 < MIRROR_JOBS_MAX
    }

    /// When the next file is due that waits now, if nothing happens before.
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        let waiting = self.wanted.iter().filter(|(path, _)| !self.running.contains_key(*path));
        waiting.filter_map(|(_, file)| file.not_before).filter(|at| *at > now).min()
    }

    /// See [`MirrorOffers::is_kept_elsewhere`].
    pub fn is_kept_elsewhere(&self, path: &RelPath, id: &FileId, own: &PeerId) -> bool {
        self.offers.is_kept_elsewhere(path, id, own)
    }

    /// Whether `path` is to be fetched, or is being fetched.
    pub fn is_wanted(&self, path: &RelPath) -> bool {
        self.wanted.contains_key(path)
    }

    /// What the peers offer.
    pub fn offers(&self) -> &MirrorOffers {
        &self.offers
    }

    /// How far it is.
    pub fn counts(&self) -> MirrorCounts {
        self.counts
    }

    fn want(&mut self, path: &RelPath, id: FileId, holders: Vec<NodeId>, seen_s: u64) {
        match self.wanted.get_mut(path).filter(|file| file.id == id) {
            Some(file) => {
                // A new holder may be the one that can be reached.
                if file.holders != holders {
                    (file.holders, file.not_before) = (holders, None);
                }
            }
            None => {
                let file = WantedFile { id, holders, seen_s, not_before: None, failures: 0 };
                self.wanted.insert(path.clone(), file);
            }
        }
    }

    fn count(&mut self) {
        self.counts = MirrorCounts {
            missing: self.wanted.len() as u64,
            fetching: self.running.len() as u64,
            differ: self.differ.len() as u64,
            users: self.others.len() as u64,
        };
    }
}

fn put(set: &mut BTreeSet<RelPath>, path: &RelPath, is_in: bool) {
    if is_in {
        set.insert(path.clone());
    } else {
        set.remove(path);
    }
}

#[cfg(test)]
mod tests;
