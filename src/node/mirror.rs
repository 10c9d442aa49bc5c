//! Keeps copies of what others share, and lets copies expire. Its thread is `gpb-mirror`.
//!
//! What is fetched when, and what expires, is decided in [`mirror`](crate::swarm::mirror), without
//! I/O. `listings` reads what peers offer, `jobs` runs the fetches, and `keeper` knows the copies.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::client::{Client, Doorbell};
use crate::content::{Catalogue, FileId, Pattern, RelPath};
use crate::identity::{KeyPrefix, PeerId};
use crate::limits::WAIT_MAX;
use crate::node::limits::{MIRROR_LINES_MAX, MIRROR_READY_LOOK, MIRROR_ROOM_RETRY, MIRROR_ROOM_TRIES, QUOTA_LOOK};
use crate::node::sharers::Sharers;
use crate::node::{Config, ConfigError, StartError};
use crate::runtime::{LimitedLog, Watch, Workers};
use crate::store::{OwnFiles, UsedNames};
use crate::swarm::{MirrorNews, MirrorOffers, MirrorPlan, OwnFile, Retention};
use crate::sync::lock;

mod jobs;
mod keeper;
mod links;
mod listings;
mod tree;

use jobs::MirrorJobs;
use keeper::CopyKeeper;
use listings::Listings;
use tree::{MirrorTree, OwnNames};

/// What a node mirrors, and how long copies stay.
#[derive(Debug, Clone)]
pub(super) struct MirrorTerms {
    /// What is mirrored; nothing if copies only expire.
    pub(super) patterns: Vec<Pattern>,
    /// The keys whose names count; all without any.
    pub(super) from: Vec<KeyPrefix>,
    pub(super) retention: Retention,
    /// The shared directory.
    pub(super) dir: PathBuf,
    /// Names below these belong to other directories of the node.
    pub(super) elsewhere: Vec<RelPath>,
    /// Where is recorded what was put in place.
    pub(super) state: PathBuf,
}

/// What the node lends the mirror.
#[derive(Clone)]
pub(super) struct MirrorLoans {
    pub(super) own: PeerId,
    pub(super) client: Client,
    pub(super) sharers: Arc<Sharers>,
    pub(super) catalogue: Arc<Watch<Arc<Catalogue>>>,
    pub(super) own_files: Arc<OwnFiles>,
    /// What is read for other nodes.
    pub(super) used: Arc<UsedNames>,
}

/// What a [`Node`](crate::Node) has of the files of others; part of [`NodeStats`](crate::NodeStats).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct MirrorStats {
    /// Copies that may expire.
    pub copies: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are mirrored and not here yet.
    pub missing: u64,
    /// Missing files that are being fetched.
    pub fetching: u64,
    /// Names under which sharers offer different contents: what is here stays.
    pub differ: u64,
    /// Names under which a file of the user's lies, which stays.
    pub users: u64,
    /// Copies that have expired since the start.
    pub expired: u64,
}

/// The service. Dropping it ends its fetches, with everything kept.
pub(super) struct MirrorService {
    stats: Arc<Mutex<MirrorStats>>,
    _workers: Workers,
}

impl MirrorService {
    /// The service that `config` asks for, if it does.
    ///
    /// # Errors
    /// [`StartError::Dir`] and [`StartError::System`].
    pub(super) fn of(config: &Config, loans: MirrorLoans) -> Result<Option<Self>, StartError> {
        if !config.keeps_copies() {
            return Ok(None);
        }
        let (Some(dir), Some(state)) = (config.dir.clone(), config.state.path()?) else {
            return Err(ConfigError::MirrorPlace.into());
        };
        for root in loans.sharers.roots.all().filter(|root| root.name.is_none()) {
            root.reader.note_use(loans.used.clone());
        }
        let retention = Retention { retain: config.retain, quota: config.quota };
        let (patterns, from) = (config.mirror.clone(), config.mirror_from.clone());
        let elsewhere = loans.sharers.roots.all().filter_map(|root| root.name.clone()).collect();
        let terms = MirrorTerms { patterns, from, retention, dir: dir.clone(), elsewhere, state };
        let of_dir = |source: io::Error| match source.kind() {
            io::ErrorKind::WouldBlock => StartError::System(source),
            _ => StartError::Dir { path: dir, source },
        };
        MirrorService::start(terms, loans).map(Some).map_err(of_dir)
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The directory cannot be opened, or the system has no thread to give.
    fn start(terms: MirrorTerms, loans: MirrorLoans) -> io::Result<Self> {
        let (stats, mut workers) = (Arc::default(), Workers::ending(&loans.client.ctx.shutdown));
        let thread = MirrorThread::new(terms, loans, Arc::clone(&stats))?;
        workers.spawn("gpb-mirror", move || thread.run())?;
        Ok(MirrorService { stats, _workers: workers })
    }

    /// What it has. Does not block.
    pub(super) fn stats(&self) -> MirrorStats {
        *lock(&self.stats)
    }
}

struct MirrorThread {
    loans: MirrorLoans,
    plan: MirrorPlan,
    listings: Listings,
    jobs: MirrorJobs,
    tree: MirrorTree,
    keeper: CopyKeeper,
    bell: Doorbell,
    /// Whether all listings were read once: what appears from then on is new.
    has_seen_all: bool,
    log: LimitedLog,
    stats: Arc<Mutex<MirrorStats>>,
}

impl MirrorThread {
    fn new(terms: MirrorTerms, loans: MirrorLoans, stats: Arc<Mutex<MirrorStats>>) -> io::Result<Self> {
        let bell = Doorbell::new();
        Ok(MirrorThread {
            listings: Listings::new(&terms, loans.client.clone(), bell.clone()),
            jobs: MirrorJobs::new(&terms, &loans, bell.clone()),
            keeper: CopyKeeper::new(&terms, &loans)?,
            plan: MirrorPlan::default(),
            tree: MirrorTree::default(),
            loans,
            bell,
            has_seen_all: false,
            log: LimitedLog::new(MIRROR_LINES_MAX),
            stats,
        })
    }

    fn run(mut self) {
        let rings = |bell: &Doorbell| {
            let bell = bell.clone();
            move || bell.ring()
        };
        let client = self.loans.client.clone();
        let _stop = client.ctx.shutdown.while_held(rings(&self.bell));
        let _peers = client.ctx.peers.subscribe(rings(&self.bell));
        let _catalogue = self.loans.catalogue.subscribe(rings(&self.bell));
        while !client.ctx.shutdown.has_begun() {
            let next = self.turn(Instant::now());
            self.bell.wait(next.saturating_duration_since(Instant::now()));
        }
        self.keeper.finish();
    }

    /// Does what is due; when it is due again if nothing happens before.
    fn turn(&mut self, now: Instant) -> Instant {
        self.listings.turn(&mut self.plan, &mut self.tree, now);
        // What is here is not known before it is hashed.
        if !self.loans.sharers.are_ready() {
            return now + MIRROR_READY_LOOK;
        }
        self.take_fetched(now);
        self.keeper.expire(&self.plan, self.listings.are_read(), &self.jobs, now);
        self.plan.look_at_links(&self.keeper.take_gone());
        self.look_for_lost(now);
        self.judge(now);
        let again = self.start_fetches(now);
        let has_expired = |path: &RelPath, id: &FileId| self.keeper.has_expired(path, id);
        let own = OwnNames { catalogue: &self.loans.catalogue.get(), has_expired: &has_expired };
        let made = self.tree.turn(&self.plan, &mut self.jobs, &own, &self.log, now);
        if !made.is_empty() {
            self.loans.sharers.look(made);
        }
        self.count();
        let all = [
            self.listings.next_at(now),
            self.plan.next_at(now),
            Some(self.keeper.next_at()),
            self.tree.next_at(),
            again,
        ];
        all.into_iter().flatten().fold(now + WAIT_MAX, Instant::min)
    }

    /// Has what something removed fetched and made again.
    fn look_for_lost(&mut self, now: Instant) {
        let catalogue = self.loans.catalogue.get();
        self.keeper.note_offered(&catalogue, now);
        let mut lost = self.keeper.take_lost(&catalogue);
        if let Some(links) = self.keeper.take_lost_links(self.plan.offers().links()) {
            self.tree.has_news();
            lost.extend(links);
        }
        for path in lost {
            self.jobs.forget(&path);
            self.plan.look_again(path);
        }
    }

    fn take_fetched(&mut self, now: Instant) {
        let before = self.jobs.running();
        let placed = self.jobs.take_news(&mut self.plan, &self.log, now);
        let has_ended = self.jobs.running() < before;
        if !placed.is_empty() {
            self.loans.sharers.look(placed);
        }
        if has_ended {
            self.tree.has_news();
            // The last records of a fetch are written at its end.
            self.keeper.has_news();
        }
    }

    fn judge(&mut self, now: Instant) {
        self.has_seen_all |= self.listings.are_read();
        let seen_s = if self.has_seen_all { self.keeper.now_s() } else { 0 };
        let catalogue = self.loans.catalogue.get();
        self.jobs.forget_offered(&catalogue);
        let (jobs, keeper) = (&self.jobs, &self.keeper);
        // A link goes with the file that it leads to: it would bring that back.
        let has_expired = |offers: &MirrorOffers, path: &RelPath, id: &FileId| {
            let end = || self.tree.links(offers).end_of(path, id);
            keeper.has_expired(path, id) || end().is_some_and(|end| keeper.has_expired(&end, id))
        };
        let own = |offers: &MirrorOffers, path: &RelPath, id: &FileId| match (
            jobs.placed(path),
            catalogue.get(path.as_str()),
        ) {
            (Some(placed), _) => OwnFile::Copy(placed),
            (None, Some(entry)) if entry.marks.copy => OwnFile::Copy(entry.id),
            (None, Some(entry)) => OwnFile::Users(entry.id),
            (None, None) if has_expired(offers, path, id) => OwnFile::Expired(*id),
            (None, None) => OwnFile::Missing,
        };
        self.plan.set_time(self.keeper.now_s());
        for news in self.plan.judge(own, seen_s) {
            let line = match news {
                MirrorNews::Differ(path, contents) => {
                    format!("not mirrored, several contents are shared path={path} contents={contents}")
                }
                MirrorNews::Users(path) => format!("not mirrored, a file of the user's lies there path={path}"),
            };
            self.log.log(log::Level::Warn, now, format_args!("{line}"));
        }
        self.jobs.end_outdated(&self.plan);
    }

    /// Starts what is due. Returns when to try again if too much could not be removed for it.
    fn start_fetches(&mut self, now: Instant) -> Option<Instant> {
        let mut without_room = 0;
        while self.plan.has_due(now) && !self.loans.client.ctx.shutdown.has_begun() {
            let mut room = self.keeper.room(&self.plan, self.listings.are_read(), &self.jobs);
            let batch =
                self.plan.next_batch(|path, len, seen_s| room.fits(path, len, seen_s), now, now + MIRROR_ROOM_RETRY);
            let (gone, lacking) = room.end();
            if let Some(lacking) = lacking {
                self.log.log(log::Level::Warn, now, format_args!("no room for mirrored files: {lacking}"));
            }
            let batch = batch?;
            if self.keeper.make_room(gone, now) {
                self.jobs.start(batch, &self.tree.links(self.plan.offers()));
                continue;
            }
            // Others may go instead of what could not be removed.
            without_room += 1;
            let is_last_try = without_room == MIRROR_ROOM_TRIES;
            self.plan.put_off(batch.job, if is_last_try { now + MIRROR_ROOM_RETRY } else { now });
            if is_last_try {
                return Some(now + QUOTA_LOOK);
            }
        }
        None
    }

    fn count(&self) {
        let counts = self.plan.counts();
        let (copies, bytes, expired) = self.keeper.counts();
        *lock(&self.stats) = MirrorStats {
            copies,
            bytes,
            missing: counts.missing,
            fetching: counts.fetching,
            differ: counts.differ,
            users: counts.users,
            expired,
        };
    }
}

const _: () =
    assert!(MIRROR_ROOM_RETRY.as_secs() > 0 && MIRROR_READY_LOOK.as_nanos() < Duration::from_secs(1).as_nanos());

#[cfg(test)]
mod tests;
