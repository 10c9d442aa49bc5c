//! The thread that decides what is offered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, select};

use crate::content::{Entry, EntryRef, RelPath, RelPathError};
use crate::runtime::{self, Shutdown};
use crate::share::ShareSetup;
use crate::share::hasher::{Hasher, Job, Outcome};
use crate::share::ledger::Ledger;
use crate::share::limits::{
    HASH_BATCH_FILES, INDEX_PRUNE, INDEX_SYNC, LINKS_FOLLOWED_MAX, PRUNE_LATER, RESCAN, ROOT_POLL, SCAN_TURN,
    TREES_MAX, WATCH_DEBOUNCE, WATCH_EVENTS_MAX, WITHDRAWN_MAX,
};
use crate::share::look::{Look, Looker, State};
use crate::share::scan::{Scan, Step};
use crate::share::settle::{Unsettled, Verdict};
use crate::share::sharer::{Command, Ready};
use crate::share::skips::Skips;
use crate::share::watch::{Change, Changes, Watch};
use crate::store::{Beneath, Hashed, Lookup};
use crate::swarm::Event;

/// Every path that may have changed is looked at afresh and judged by what is there now, whatever was said of it: an
/// event is only a hint. So lost, doubled or reordered hints do no harm.
pub(super) struct Keeper {
    setup: ShareSetup,
    looker: Looker,
    /// Opens files for a look at their content.
    reads: Arc<Beneath>,
    own_refresh_at: Instant,
    /// Device and inode of the directory, while it is there.
    root: Option<(u64, u64)>,
    watch: Option<Watch>,
    changes: Changes,
    commands: Receiver<Command>,
    ready: Arc<runtime::Watch<Ready>>,
    ledger: Ledger,
    hasher: Hasher,
    unsettled: Unsettled,
    /// Changed paths and whether a whole tree may be concerned; looked at together, at that time.
    dirty: HashMap<PathBuf, bool>,
    dirty_at: Option<Instant>,
    scan: Option<Scan>,
    /// Directories to walk after the current scan.
    trees: VecDeque<String>,
    rescan_at: Instant,
    scan_begun: Instant,
    scanned_whole: bool,
    root_poll_at: Instant,
    /// Hashed files that are not recorded yet, and when they must be.
    hashed: Vec<Hashed>,
    record_at: Option<Instant>,
    sync_at: Option<Instant>,
    /// From where on the index is pruned, while that is going on, and when it is the next time.
    prune_from: Option<String>,
    prune_at: Instant,
    /// Whether anything was looked at because of a hint since files began to be hashed.
    disturbed: bool,
    lookup: Option<Lookup>,
    /// Links to files inside of the directory, which change when their targets do.
    links: HashSet<RelPath>,
    skips: Skips,
    /// Withdrawn files, in the state in which they are not offered again.
    withdrawn: HashMap<RelPath, State>,
}

impl Keeper {
    pub(super) fn new(
        setup: ShareSetup,
        commands: Receiver<Command>,
        ready: Arc<runtime::Watch<Ready>>,
        hashed_bytes: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let dir = std::fs::canonicalize(&setup.dir)?;
        let reads = Arc::new(Beneath::open(&dir)?);
        let hasher = Hasher::start(reads.clone(), hashed_bytes)?;
        let looker = Looker::new(dir, setup.own_files.clone());
        name_own_files(&looker);
        let now = Instant::now();
        Ok(Keeper {
            looker,
            reads,
            own_refresh_at: now,
            root: None,
            watch: None,
            changes: Changes::new(),
            commands,
            ready,
            ledger: Ledger::new(setup.catalogue.clone(), setup.events.clone(), now),
            hasher,
            unsettled: Unsettled::default(),
            dirty: HashMap::new(),
            dirty_at: None,
            scan: None,
            trees: VecDeque::new(),
            rescan_at: now,
            scan_begun: now,
            scanned_whole: false,
            root_poll_at: now,
            hashed: Vec::new(),
            record_at: None,
            sync_at: None,
            prune_from: None,
            prune_at: now + PRUNE_LATER,
            disturbed: false,
            lookup: None,
            links: HashSet::new(),
            skips: Skips::default(),
            withdrawn: HashMap::new(),
            setup,
        })
    }

    /// Runs until the shutdown begins or the [`Sharer`](crate::share::Sharer) is dropped.
    pub(super) fn run(mut self) {
        let (changes, done, commands) = (self.changes.receiver(), self.hasher.done(), self.commands.clone());
        let shutdown: Shutdown = self.setup.shutdown.clone();
        while !shutdown.has_begun() {
            let now = Instant::now();
            self.work(now);
            self.hasher.pump();
            self.settle_accounts(Instant::now());
            let wait = self.wake_at().map_or(ROOT_POLL, |at| at.saturating_duration_since(Instant::now()));
            select! {
                recv(changes) -> change => self.hear(change.ok().into_iter().chain(changes.try_iter())),
                recv(done) -> outcomes => {
                    for outcomes in outcomes.ok().into_iter().chain(done.try_iter()) {
                        self.hasher.took();
                        outcomes.into_iter().for_each(|o| self.take_outcome(o));
                        self.hasher.pump();
                    }
                }
                recv(commands) -> command => match command {
                    Ok(Command::Withdraw(entry)) => self.withdraw(&entry),
                    Ok(Command::Wake) => {}
                    Err(_) => break,
                },
                default(wait) => {}
            }
        }
        self.record(Instant::now());
        if self.sync_at.is_some() {
            self.setup.index.sync();
        }
    }

    /// What is due, in small portions.
    fn work(&mut self, now: Instant) {
        self.refresh_own_files(now);
        if now >= self.root_poll_at {
            self.check_root(now);
        }
        if self.setup.index.was_replaced() {
            // Without its layer a file cannot be fetched.
            self.ledger.below("").iter().for_each(|path| self.ledger.drop(path));
            self.rescan_at = now;
        }
        if self.changes.take_lost() {
            log::info!("changes lost, scanning again dir={}", self.looker.root().display());
            self.begin_watch();
            self.rescan_at = now;
        }
        if self.dirty_at.is_some_and(|at| now >= at) {
            self.look_at_dirty(now);
        }
        while let Some(path) = self.unsettled.next_due(now) {
            self.look_at_unsettled(&path, now);
        }
        self.go_on_scanning(now);
    }

    /// When there is something to do if nothing happens before.
    fn wake_at(&self) -> Option<Instant> {
        let scans = self.scan.is_some() && !self.hasher.is_full();
        if scans || self.scan.is_none() && !self.trees.is_empty() || self.prune_from.is_some() {
            return Some(Instant::now());
        }
        let rescan = (self.root.is_some() && self.hasher.pending() == 0).then_some(self.rescan_at);
        let publish = self.ledger.due(self.is_busy(), self.is_complete());
        let all = [self.dirty_at, self.unsettled.wake_at(), rescan, self.record_at, self.sync_at, publish];
        all.into_iter().flatten().chain([self.root_poll_at]).min()
    }

    // ---- the directory itself ----

    /// Notices that the directory was removed, exchanged, mounted over or is back.
    fn check_root(&mut self, now: Instant) {
        self.root_poll_at = now + ROOT_POLL;
        let found = std::fs::metadata(&self.setup.dir).ok().filter(|m| m.is_dir()).map(|m| (m.dev(), m.ino()));
        if found == self.root {
            return;
        }
        if self.root.is_some() {
            log::warn!("shared directory is gone or was replaced dir={}", self.setup.dir.display());
            self.scanned_whole &= found.is_none();
            // What is being hashed lies in the old directory: none of it counts without a look at the new one.
            self.disturbed = true;
            self.hashed.clear();
            self.record_at = None;
        }
        self.root = found;
        self.watch = None;
        self.scan = None;
        self.trees.clear();
        self.hasher.clear();
        self.unsettled.clear();
        self.links.clear();
        if found.is_none() {
            self.ledger.below("").iter().for_each(|path| self.ledger.drop(path));
            return;
        }
        if let Ok(dir) = std::fs::canonicalize(&self.setup.dir) {
            self.looker = Looker::new(dir, self.setup.own_files.clone());
        }
        self.begin_watch();
        self.rescan_at = now;
    }

    fn begin_watch(&mut self) {
        match Watch::begin(self.looker.root(), &self.changes, self.looker.own_names()) {
            Ok(watch) => self.watch = Some(watch),
            Err(e) => self.end_watch(&e),
        }
    }

    /// A directory that is going to be read is watched from now on.
    fn watch(&mut self, dir: &Path) {
        if let Some(Err(e)) = self.watch.as_ref().map(|watch| watch.add(dir)) {
            self.end_watch(&e);
        }
    }

    fn end_watch(&mut self, cause: &io::Error) {
        self.watch = None;
        if self.skips.is_new(&"watch") {
            log::warn!(
                "directory not watched, changes are seen every {} s only (raise fs.inotify.max_user_watches) dir={} cause={cause}",
                RESCAN.as_secs(),
                self.looker.root().display()
            );
        }
    }

    // ---- own files ----

    /// Looks at what the own files are now, and again at offered files that turned out to be one.
    fn refresh_own_files(&mut self, now: Instant) {
        if now < self.own_refresh_at {
            return;
        }
        self.own_refresh_at = now + OWN_REFRESH;
        let new = self.setup.own_files.refresh();
        if new.is_empty() {
            return;
        }
        // What is being hashed may be one of them, too.
        self.disturbed = true;
        for name in self.ledger.with_inodes(&new) {
            self.look_at(name.as_str(), false, now);
        }
    }

    /// Whether the file holds a private key. The key files of other programs are found so, and copies of the own one.
    fn is_private_key(&mut self, name: &RelPath) -> bool {
        let mut first = [0; PEM_FIRST_LEN];
        let read = self.reads.open_file(name.as_str()).and_then(|(file, _)| file.read_at(&mut first, 0));
        let is_key = read.is_ok_and(|len| is_private_key(&first[..len]));
        if is_key {
            let path = self.looker.root().join(name.as_str());
            self.skips.once(&path, || "a private key that only its owner may read".into());
        }
        is_key
    }

    // ---- hints of changes ----

    fn hear(&mut self, changes: impl Iterator<Item = Change>) {
        for change in changes.take(WATCH_EVENTS_MAX) {
            *self.dirty.entry(change.path).or_default() |= change.tree;
        }
        if self.dirty.len() > WATCH_EVENTS_MAX {
            self.dirty.clear();
            self.rescan_at = Instant::now();
        }
        if self.dirty_at.is_none() {
            self.dirty_at = Some(Instant::now() + WATCH_DEBOUNCE);
        }
    }

    fn look_at_dirty(&mut self, now: Instant) {
        self.dirty_at = None;
        self.disturbed = true;
        self.lookup = self.setup.index.lookup();
        for (path, tree) in std::mem::take(&mut self.dirty) {
            match self.name(&path) {
                Some(name) if name.is_empty() => {
                    self.root_poll_at = now;
                    if tree {
                        self.rescan_at = now;
                    }
                }
                Some(name) => self.look_at(&name, tree, now),
                None => {}
            }
        }
        // What a link leads to may be among the changes.
        for link in self.links.clone() {
            self.look_at(link.as_str(), false, now);
        }
        self.lookup = None;
    }

    /// Looks at something by name: a file, a directory, or nothing where either was.
    fn look_at(&mut self, name: &str, tree: bool, now: Instant) {
        let path = self.looker.root().join(name);
        let look = self.looker.look(&path);
        if look == Look::Dir {
            // A file that was there before is met by no walk.
            if let Ok(name) = RelPath::new(name) {
                self.ledger.drop(&name);
            }
            if tree && !self.trees.iter().any(|t| t == name) {
                self.trees.push_back(name.into());
            }
            if self.trees.len() > TREES_MAX {
                self.trees.clear();
                self.rescan_at = now;
            }
            return;
        }
        for below in self.ledger.below(name) {
            self.ledger.drop(&below);
        }
        if let Some(name) = self.valid(name, &path) {
            self.judge(&name, &path, look, now);
        }
    }

    fn look_at_unsettled(&mut self, name: &RelPath, now: Instant) {
        let path = self.looker.root().join(name.as_str());
        match self.looker.look(&path) {
            Look::File { state, owner_only, .. } => {
                if self.unsettled.judge(name, state, now) == Verdict::Quiet
                    && !(owner_only && self.is_private_key(name))
                {
                    self.hash(name, state);
                }
            }
            look => {
                self.unsettled.forget(name);
                self.judge(name, &path, look, now);
            }
        }
    }

    // ---- judging what is there ----

    /// Brings the ledger in line with what a look has shown.
    fn judge(&mut self, name: &RelPath, path: &Path, look: Look, now: Instant) {
        let Look::File { state, link, owner_only } = look else {
            self.unsettled.forget(name);
            self.links.remove(name);
            self.withdrawn.remove(name);
            self.ledger.drop(name);
            match look {
                Look::Own => self.skips.once_quietly(path),
                Look::Skip(cause) => self.skips.once(path, || cause),
                _ => {}
            }
            return;
        };
        if link && self.links.len() < LINKS_FOLLOWED_MAX {
            self.links.insert(name.clone());
        }
        if self.ledger.get(name).is_some_and(|e| is_state_of(e, state)) {
            self.unsettled.forget(name);
            return;
        }
        self.ledger.drop(name);
        if self.is_withdrawn(name, state) {
            self.unsettled.forget(name);
            return;
        }
        self.withdrawn.remove(name);
        if owner_only && self.is_private_key(name) {
            self.unsettled.forget(name);
            return;
        }
        let known = self.lookup.as_mut().and_then(|l| l.get(name.as_str(), state.len, &state.stamp));
        if !self.ledger.has_room() {
            self.skips.once(self.looker.root(), || "too many files, the rest is left out".into());
        } else if let Some(id) = known {
            self.unsettled.forget(name);
            self.ledger.put(Entry { path: name.clone(), id, stamp: state.stamp });
        } else if state.is_quiet() {
            self.unsettled.forget(name);
            self.hash(name, state);
        } else if !self.unsettled.see(name, state, now) {
            self.rescan_at = self.rescan_at.min(now + 2 * crate::share::limits::QUIET);
        }
    }

    fn hash(&mut self, name: &RelPath, state: State) {
        if self.is_withdrawn(name, state) {
            return;
        }
        self.hasher.queue(Job { path: name.clone(), len: state.len, stamp: state.stamp });
    }

    fn take_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Hashed(file) => {
                self.hashed.push(file);
                let now = Instant::now();
                self.record_at.get_or_insert(now + WATCH_DEBOUNCE);
                if self.hashed.len() >= HASH_BATCH_FILES {
                    self.record(now);
                }
            }
            Outcome::Changed(name) => self.postpone(&name, Instant::now()),
            Outcome::Unreadable(name, e) => {
                let path = self.looker.root().join(name.as_str());
                self.skips.once(&path, || e.to_string());
            }
        }
    }

    /// The file did not keep still while it was hashed: it is tried again when it is quiet.
    fn postpone(&mut self, name: &RelPath, now: Instant) {
        let path = self.looker.root().join(name.as_str());
        match self.looker.look(&path) {
            Look::File { state, .. } if self.ledger.get(name).is_some_and(|e| is_state_of(e, state)) => {}
            Look::File { state, .. } => {
                self.ledger.drop(name);
                self.unsettled.see(name, state, now);
            }
            look => self.judge(name, &path, look, now),
        }
    }

    /// Writes what was hashed to the index and offers what is still there.
    fn record(&mut self, now: Instant) {
        self.record_at = None;
        if self.hashed.is_empty() {
            return;
        }
        self.refresh_own_files(now);
        let hashed = std::mem::take(&mut self.hashed);
        let recorded = self.setup.index.record(&hashed);
        self.sync_at.get_or_insert(now + INDEX_SYNC);
        for Hashed { path: name, indexed, layer } in hashed {
            // Without its layer nobody could check a chunk.
            if !recorded && !layer.is_empty() {
                continue;
            }
            let path = self.looker.root().join(name.as_str());
            let entry = Entry { path: name, id: indexed.id, stamp: indexed.stamp };
            if self.is_withdrawn(&entry.path, State { len: entry.id.len, stamp: entry.stamp }) {
                self.setup.index.forget(&entry.path);
                continue;
            }
            // Where every change is heard of and nothing was, the file is as it was when it had been hashed.
            if self.watch.is_some() && !self.disturbed {
                self.ledger.put(entry);
                continue;
            }
            match self.looker.look(&path) {
                Look::File { state, .. } if is_state_of(entry.view(), state) => self.ledger.put(entry),
                _ => self.postpone(&entry.path, now),
            }
        }
    }

    fn withdraw(&mut self, entry: &Entry) {
        if self.ledger.get(&entry.path) != Some(entry.view()) {
            return;
        }
        log::warn!(
            "file withdrawn, its bytes are not those that were hashed; offered again only once it is written anew path={} file={}",
            entry.path,
            entry.id
        );
        // With the same name and the same times it would be another content, and those who know the old one would find two under one name.
        if self.withdrawn.len() < WITHDRAWN_MAX {
            self.withdrawn.insert(entry.path.clone(), State { len: entry.id.len, stamp: entry.stamp });
        }
        self.ledger.drop(&entry.path);
        self.setup.index.forget(&entry.path);
        self.setup.events.emit(Event::FileWithdrawn { path: entry.path.clone(), id: entry.id });
    }

    fn is_withdrawn(&self, name: &RelPath, state: State) -> bool {
        self.withdrawn.get(name) == Some(&state)
    }

    // ---- scanning ----

    fn go_on_scanning(&mut self, now: Instant) {
        if self.root.is_none() {
            return;
        }
        if self.scan.is_none() {
            // While files wait to be hashed, a scan would find them all again.
            let whole = now >= self.rescan_at && self.hasher.pending() == 0 && self.hashed.is_empty();
            let below = if whole { Some(String::new()) } else { self.trees.pop_front() };
            let Some(below) = below else { return };
            self.scan = Some(Scan::new(self.looker.root(), &below, self.ledger.published().clone()));
            self.scan_begun = now;
        }
        if self.hasher.is_full() {
            return;
        }
        let Some(mut scan) = self.scan.take() else { return };
        self.lookup = self.setup.index.lookup();
        let mut steps = 0u32;
        loop {
            match scan.step() {
                Step::Entry(found) => self.meet(&mut scan, &found, now),
                Step::Dir(path) => {
                    if self.may_enter(&path) {
                        self.watch(&path);
                    } else {
                        scan.leave();
                    }
                }
                Step::Unreadable(path, cause) => {
                    let path = path.unwrap_or_else(|| self.looker.root().to_path_buf());
                    self.skips.once(&path, || cause);
                }
                Step::End => {
                    self.end_scan(&scan, now);
                    break;
                }
            }
            steps += 1;
            if steps.is_multiple_of(64) && (now.elapsed() >= SCAN_TURN || self.hasher.is_full()) {
                self.scan = Some(scan);
                break;
            }
        }
        self.lookup = None;
    }

    fn may_enter(&mut self, path: &Path) -> bool {
        match self.name(path) {
            Some(name) if name.is_empty() => true,
            Some(name) => self.valid(&name, path).is_some() && self.is_shared_dir(path),
            None => false,
        }
    }

    fn is_shared_dir(&mut self, path: &Path) -> bool {
        match self.looker.look(path) {
            Look::Own => self.skips.once_quietly(path),
            Look::Skip(cause) => self.skips.once(path, || cause),
            Look::Dir => return true,
            Look::File { .. } | Look::Nothing => {}
        }
        false
    }

    fn meet(&mut self, scan: &mut Scan, found: &walkdir::DirEntry, now: Instant) {
        let path = found.path();
        let Some(name) = self.name(path) else { return };
        let look = match found.metadata() {
            Ok(meta) => self.looker.judge(path, &meta),
            Err(_) => self.looker.look(path),
        };
        // The common case first, without making a name: nothing has changed.
        if let Some(entry) = scan.meet(&name)
            && matches!(look, Look::File { state, link: false, .. } if is_state_of(entry, state))
            && self.ledger.is_settled()
        {
            return;
        }
        if let Some(name) = self.valid(&name, path) {
            self.judge(&name, path, look, now);
        }
    }

    fn end_scan(&mut self, scan: &Scan, now: Instant) {
        for entry in scan.missed().map(EntryRef::to_entry) {
            let path = self.looker.root().join(entry.path.as_str());
            // What hides it was logged by the walk: a directory that cannot be read, for example.
            let look = match self.looker.look(&path) {
                Look::Skip(_) => Look::Nothing,
                look => look,
            };
            self.judge(&entry.path, &path, look, now);
        }
        if scan.is_whole() {
            // A directory that takes long to walk is walked less often.
            self.rescan_at = now + RESCAN.max(self.scan_begun.elapsed() * 20);
            self.scanned_whole = true;
        }
    }

    /// The name of a path below the directory; what has none that can be shared is logged.
    fn name(&mut self, path: &Path) -> Option<String> {
        match self.looker.name(path) {
            Ok(name) => Some(name.to_owned()),
            Err(cause) => {
                if let Some(cause) = cause {
                    self.skips.once(path, || cause);
                }
                None
            }
        }
    }

    fn valid(&mut self, name: &str, path: &Path) -> Option<RelPath> {
        match RelPath::new(name) {
            Ok(name) => Some(name),
            Err(RelPathError::Own) => {
                self.skips.once_quietly(path);
                None
            }
            Err(e) => {
                self.skips.once(path, || e.to_string());
                None
            }
        }
    }

    // ---- telling ----

    fn is_busy(&self) -> bool {
        self.scan.is_some() || self.hasher.pending() > 0 || !self.hashed.is_empty()
    }

    fn is_complete(&self) -> bool {
        self.scanned_whole && !self.is_busy() && self.trees.is_empty() && self.unsettled.only_changing()
    }

    fn settle_accounts(&mut self, now: Instant) {
        let idle = self.hasher.pending() == 0;
        if self.record_at.is_some_and(|at| now >= at || idle) {
            self.record(now);
        }
        if self.sync_at.is_some_and(|at| now >= at) {
            self.sync_at = None;
            self.setup.index.sync();
        }
        let complete = self.is_complete();
        if self.ledger.due(self.is_busy(), complete).is_some_and(|at| now >= at) {
            self.ledger.publish(complete);
            // A file that is held open keeps its space on disk, removed or not.
            self.setup.reader.close_stale();
        }
        if complete && self.ledger.is_settled() {
            self.disturbed = false;
            if self.ready.read(Option::is_none) {
                let all = self.ledger.published();
                self.ready.update(|r| *r = Some((all.len() as u64, all.bytes())));
            }
            self.prune(now);
        }
    }

    /// Lets the index forget what is gone, step by step. Where nothing is left, perhaps only a disk is missing.
    fn prune(&mut self, now: Instant) {
        let all = self.ledger.published();
        if now >= self.prune_at && !all.is_empty() {
            self.prune_from = Some(String::new());
            self.prune_at = now + INDEX_PRUNE;
        }
        if let Some(from) = self.prune_from.take() {
            self.prune_from = self.setup.index.prune_from(all, &from);
            self.sync_at.get_or_insert(now + INDEX_SYNC);
        }
    }
}

/// Says what is left out because it belongs to the node.
fn name_own_files(looker: &Looker) {
    let exist = looker.own_names().iter().filter(|name| std::fs::symlink_metadata(looker.root().join(name)).is_ok());
    let names: Vec<&str> = exist.map(String::as_str).collect();
    if !names.is_empty() {
        log::warn!(
            "shared directory holds files of this node itself, which are never offered dir={} left_out=\"{}\"",
            looker.root().display(),
            names.join(", ")
        );
    }
}

/// Whether a file that begins with these bytes is a private key in PEM (RFC 7468), of whatever algorithm.
fn is_private_key(first: &[u8]) -> bool {
    let line = first.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii_end();
    line.starts_with(b"-----BEGIN ") && line.ends_with(b"PRIVATE KEY-----")
}

/// Bytes in which the first line of a PEM file ends.
const PEM_FIRST_LEN: usize = 64;
/// How old the knowledge of the own files may be when a file is judged. Far less than [`QUIET`](crate::share::limits::QUIET),
/// so that no new name of a new own file is hashed before it is known as one.
const OWN_REFRESH: Duration = Duration::from_millis(50);

fn is_state_of(entry: EntryRef<'_>, state: State) -> bool {
    entry.id.len == state.len && entry.stamp == state.stamp
}
