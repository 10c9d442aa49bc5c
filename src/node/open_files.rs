//! The contents that a node has open for readers: starts and ends their downloads, and removes what
//! is left of them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use log::debug;

use crate::client::{
    Client, Download, DownloadEnd, DownloadOptions, DownloadPlan, EnteredReader, Failed, FetchError, FoundFile,
    Reading, Stats, Target,
};
use crate::content::{ChunkIndex, FileId};
use crate::limits::WAIT_MAX;
use crate::node::Config;
use crate::node::limits::{READ_CLOSE_WAIT_MAX, READ_FILES_MAX, READ_LINGER, READERS_MAX};
use crate::runtime::{Watch, Workers, deadline};
use crate::store::{Disk, FetchedFile, ReadParts};
use crate::sync::{lock, wait_timeout};

/// The contents that are open for readers. The thread `gpb-open` starts with the first of them.
pub(super) struct OpenFiles {
    client: Client,
    /// The directory of the node, and whether it is made if it is missing.
    dir: Option<(PathBuf, bool)>,
    state: Mutex<OpenState>,
    /// A content was let go.
    closed: Condvar,
    /// Wakes the thread.
    bell: Watch<()>,
}

#[derive(Default)]
struct OpenState {
    /// Made with the first open file.
    parts: Option<Arc<ReadParts>>,
    contents: HashMap<FileId, Arc<OpenContent>>,
    /// Contents without readers, which are being let go.
    closing: HashSet<FileId>,
    /// Contents without readers, and when their parts go; the oldest first.
    left: Vec<(FileId, Instant)>,
    thread: Workers,
    is_running: bool,
    is_over: bool,
}

/// A content that is open, and a reader of it.
pub(super) type Entered = (Arc<OpenContent>, EnteredReader);

/// A content that is open.
pub(super) struct OpenContent {
    pub(super) found: FoundFile,
    pub(super) reading: Arc<Reading>,
    pub(super) options: DownloadOptions,
    pub(super) stats: Arc<Stats>,
    /// Brings what is missing; none once all is there, and after a failure.
    download: Mutex<Option<Download>>,
}

impl OpenFiles {
    pub(super) fn new(client: Client, config: &Config) -> Self {
        let dir = config.dir.clone().map(|dir| (dir, config.create_dir));
        OpenFiles { client, dir, state: Mutex::default(), closed: Condvar::new(), bell: Watch::new(()) }
    }

    /// Opens a content for one more reader. A content that is open already is not fetched
    /// twice, whichever download brings it. `stats` count for a download that begins with this.
    pub(super) fn open(
        self: &Arc<Self>,
        found: FoundFile,
        options: DownloadOptions,
        stats: Arc<Stats>,
    ) -> Result<Entered, FetchError> {
        let is_full = |state: &OpenState| state.contents.len() + state.closing.len() >= READ_FILES_MAX;
        let is_open = |state: &OpenState| state.contents.contains_key(&found.id);
        // Its part is locked until it is let go; of other contents only those being read count.
        let mut state = self.wait_for_closing(|state| {
            state.closing.contains(&found.id) || !is_open(state) && is_full(state) && state.is_letting_go()
        });
        if state.is_over || self.client.ctx.shutdown.has_begun() {
            return Err(FetchError::Stopped);
        }
        if state.contents.contains_key(&found.id) {
            return enter(state, &found.id);
        }
        if is_full(&state) {
            return Err(FetchError::TooManyReaders(READ_FILES_MAX));
        }
        self.start_thread(&mut state)?;
        let reading = Arc::new(Reading::new(found.id, self.parts(&mut state)?));
        let reader = reading.enter();
        self.client.readings.add(&reading);
        let content = Arc::new(OpenContent { found, reading, options, stats, download: Mutex::new(None) });
        state.contents.insert(content.found.id, content.clone());
        drop(state);
        if content.found.id.len > 0
            && let Err(error) = self.fetch(&content)
        {
            self.leave(&content, reader.number);
            return Err(error);
        }
        Ok((content, reader))
    }

    /// What is open.
    pub(super) fn contents(&self) -> Vec<Arc<OpenContent>> {
        lock(&self.state).contents.values().cloned().collect()
    }

    /// One more reader of a content that is open.
    pub(super) fn enter(&self, content: &OpenContent) -> Result<Entered, FetchError> {
        enter(lock(&self.state), &content.found.id)
    }

    /// Starts the download of what is missing of a content, unless one runs.
    pub(super) fn fetch(self: &Arc<Self>, content: &Arc<OpenContent>) -> Result<(), FetchError> {
        self.make_room(&content.found.id);
        let mut download = lock(&content.download);
        if download.is_some() {
            return Ok(());
        }
        if self.client.ctx.shutdown.has_begun() {
            return Err(FetchError::Stopped);
        }
        let found = &content.found;
        let disk = match &self.dir {
            Some((dir, create)) => Disk::open(dir, *create)?,
            // Nothing is put there: the part lies in memory.
            None => Disk::open(Path::new("/"), false)?,
        };
        let (path, holders) = (found.path.clone(), found.holders.clone());
        let target = Target { path: path.clone(), id: found.id, out: path, holders };
        let plan = DownloadPlan::new(vec![target], disk, content.options.clone());
        let plan = plan.read_by(content.reading.clone()).watched(content.stats.clone(), Arc::new(self.waker()));
        content.reading.begun();
        match Download::start(plan, &self.client) {
            Ok(started) => *download = Some(started),
            Err(error) => {
                content.reading.ended(None);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits while `is_waiting`, at most [`READ_CLOSE_WAIT_MAX`]; the thread lets go meanwhile of what has
    /// no readers.
    fn wait_for_closing(&self, is_waiting: impl Fn(&OpenState) -> bool) -> MutexGuard<'_, OpenState> {
        let until = deadline(READ_CLOSE_WAIT_MAX);
        let mut state = lock(&self.state);
        while is_waiting(&state) && !state.is_over {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = wait_timeout(&self.closed, state, left);
        }
        state
    }

    /// Makes room in memory for `id`: what is no longer read goes before its time, the oldest first. Not
    /// under the lock of a download.
    fn make_room(&self, id: &FileId) {
        let Some(parts) = lock(&self.state).parts.clone() else { return };
        while parts.lacks_memory(id.len) {
            let mut state = self.wait_for_closing(|state| state.left.is_empty() && state.is_letting_go());
            if state.left.is_empty() {
                return;
            }
            let (oldest, _) = state.left.remove(0);
            let is_read = state.contents.contains_key(&oldest);
            drop(state);
            if !is_read {
                parts.discard(&oldest);
            }
        }
    }

    /// A reader goes. What was fetched for it stays for a while.
    pub(super) fn leave(&self, content: &OpenContent, reader: u64) {
        let was_last = content.reading.leave(reader);
        content.tell_windows();
        if was_last {
            self.bell.wake();
        }
    }

    /// The node ends: waits until all downloads for readers have ended.
    pub(super) fn join(&self) {
        let thread = std::mem::take(&mut lock(&self.state).thread);
        drop(thread);
    }

    fn parts(&self, state: &mut OpenState) -> Result<Arc<ReadParts>, FetchError> {
        if let Some(parts) = &state.parts {
            return Ok(parts.clone());
        }
        let parts = match &self.dir {
            Some((dir, create)) => ReadParts::in_dir(dir, *create)?,
            None => ReadParts::in_memory(),
        };
        let parts = Arc::new(parts.alarmed(self.client.ctx.shutdown.alarm()));
        Ok(state.parts.insert(parts).clone())
    }

    fn start_thread(self: &Arc<Self>, state: &mut OpenState) -> Result<(), FetchError> {
        if !state.is_running {
            state.thread = Workers::ending(&self.client.ctx.shutdown);
            let files = self.clone();
            state.thread.spawn("gpb-open", move || files.run()).map_err(FetchError::Threads)?;
            state.is_running = true;
        }
        Ok(())
    }

    /// Ends what has no readers, until the node ends.
    fn run(self: &Arc<Self>) {
        let shutdown = &self.client.ctx.shutdown;
        let _stop = shutdown.while_held(self.waker());
        loop {
            let seen = self.bell.changes();
            let is_over = shutdown.has_begun();
            self.take_ends();
            self.close_unread(is_over);
            let wait = self.discard_old();
            if is_over {
                return;
            }
            self.bell.wait_beyond(seen, wait);
        }
    }

    /// Tells readers of downloads that have ended.
    fn take_ends(&self) {
        for content in self.contents() {
            let mut download = lock(&content.download);
            let Some(end) = download.as_ref().and_then(Download::end) else { continue };
            let ended = download.take();
            content.reading.ended(failure(end));
            drop(download);
            // Without the lock: its threads are joined.
            drop(ended);
        }
    }

    /// Ends the downloads of contents that are no longer read, or of all.
    fn close_unread(&self, all: bool) {
        let closed: Vec<_> = {
            let mut state = lock(&self.state);
            state.is_over |= all;
            let is_unread = |content: &Arc<OpenContent>| all || content.reading.readers() == 0;
            let closed: Vec<_> = state.contents.values().filter(|content| is_unread(content)).cloned().collect();
            for content in &closed {
                state.contents.remove(&content.found.id);
                state.closing.insert(content.found.id);
            }
            closed
        };
        let downloads: Vec<_> = closed.iter().map(|content| lock(&content.download).take()).collect();
        // All of them end at the same time.
        downloads.iter().flatten().for_each(Download::cancel);
        for (content, download) in closed.iter().zip(downloads) {
            drop(download);
            self.close(content);
            let (id, until) = (content.found.id, Instant::now() + READ_LINGER);
            let mut state = lock(&self.state);
            state.left.retain(|(other, _)| *other != id);
            state.left.push((id, until));
            state.closing.remove(&id);
            drop(state);
            self.closed.notify_all();
        }
    }

    /// Lets go of the part, which becomes durable, and of what is shared of it.
    fn close(&self, content: &OpenContent) {
        let id = content.found.id;
        let stopped = self.client.ctx.shutdown.has_begun().then(|| Arc::new(FetchError::Stopped));
        content.reading.ended(stopped.map(|error| Failed { error, report: Arc::default() }));
        self.client.readings.remove(&content.reading);
        let part = content.reading.close();
        if let (Some(part), Some(fetched)) = (&part, &self.client.ctx.fetched)
            && matches!(fetched.get(&id), Some(FetchedFile::Partial(shared)) if Arc::ptr_eq(&shared, part))
        {
            fetched.remove(&id);
        }
        debug!("no longer read file={id}");
    }

    /// Wakes the thread.
    fn waker(self: &Arc<Self>) -> impl Fn() + Send + Sync + use<> {
        let files = Arc::downgrade(self);
        move || files.upgrade().into_iter().for_each(|files| files.bell.wake())
    }

    /// Removes the parts whose time is over. The time until the next one.
    fn discard_old(&self) -> Duration {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let is_due = |at: &Instant| *at <= now;
        let mut due: Vec<FileId> = state.left.iter().filter(|(_, at)| is_due(at)).map(|(id, _)| *id).collect();
        state.left.retain(|(_, at)| !is_due(at));
        // What is read again goes 60 s after its next last reader.
        due.retain(|id| !state.contents.contains_key(id));
        let next = state.left.iter().map(|(_, at)| at.saturating_duration_since(now)).min();
        let parts = state.parts.clone();
        drop(state);
        due.iter().for_each(|id| parts.iter().for_each(|parts| parts.discard(id)));
        next.unwrap_or(WAIT_MAX).min(WAIT_MAX)
    }
}

impl OpenState {
    /// Whether contents without readers are let go, now or soon.
    fn is_letting_go(&self) -> bool {
        !self.closing.is_empty() || self.contents.values().any(|content| content.reading.readers() == 0)
    }
}

impl OpenContent {
    /// A reader is at `chunk` now: what it needs next is asked for.
    pub(super) fn go(&self, reader: u64, chunk: ChunkIndex) {
        if self.reading.go(reader, chunk) {
            self.tell_windows();
        }
    }

    fn tell_windows(&self) {
        // Under the lock, so that the newest ones come last.
        if let Some(download) = &*lock(&self.download) {
            download.set_windows(self.reading.windows());
        }
    }
}

/// One more reader of a content that is open. Its download may have passed the beginning by, where the
/// reader is.
fn enter(state: MutexGuard<'_, OpenState>, id: &FileId) -> Result<Entered, FetchError> {
    let content = state.contents.get(id).cloned().ok_or(FetchError::Stopped)?;
    if content.reading.readers() >= READERS_MAX {
        return Err(FetchError::TooManyReaders(READERS_MAX));
    }
    let entered = content.reading.enter();
    drop(state);
    content.tell_windows();
    Ok((content, entered))
}

/// How a download failed that did not bring everything.
fn failure(end: DownloadEnd) -> Option<Failed> {
    end.error.map(|error| Failed { error, report: Arc::new(end.report) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Node;
    use crate::client::{DownloadOptions, DownloadPlan};
    use crate::node::{Share, State};
    use crate::store::Disk;

    /// Cause: the alarm of a disk is given to it by each download, and that of parts for readers with them. Effect, if one
    /// is not: a panic while chunks are journaled ends that thread alone, and the download stands. Mend: none was needed; this
    /// holds both.
    #[test]
    fn a_panic_in_the_journal_ends_the_node_for_downloads_and_readers() {
        let node = || Node::builder().share(Share::Nothing).multicast(false).state(State::Memory).start().unwrap();
        let ends = |node: &Node| {
            assert!(node.shutdown.wait(Duration::from_secs(20)), "the node goes on");
            assert_eq!(node.shutdown.defect().as_deref(), Some("gpb-journal"));
        };
        let (fetching, dir) = (node(), tempfile::tempdir().unwrap());
        let disk = Disk::open(dir.path(), false).unwrap();
        let plan = DownloadPlan::new(Vec::new(), disk.clone(), DownloadOptions::default());
        let _download = Download::start(plan, &fetching.client).unwrap();
        disk.panic_in_journal();
        ends(&fetching);
        let reading = node();
        let files = &reading.fetches.open_files;
        let parts = files.parts(&mut lock(&files.state)).unwrap();
        parts.panic_in_journal();
        ends(&reading);
    }
}
