//! Downloads of one node that want the same content: one fetches it, the others wait with it.
//!
//! A download that meets a content which another one is fetching waits for that file alone. When
//! the file is in place there, the waiting download gets its own place from it; when the other
//! download ends without it, the first that waits fetches it itself, and the others wait with that
//! one. So a cancelled download takes nothing from another.
//!
//! Content goes only to downloads with the same sources. One with other sources fetches the content
//! itself: at once into another directory, else as soon as the partial file, which has one owner at a
//! time, is closed. The limit of a download that others
//! wait for is the loosest of theirs.
//!
//! A download that is there for readers fetches all of its content while another one waits for it,
//! which then takes the part over. While it waits itself, it passes on what its readers need.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::content::{FileId, Stamp};
use crate::identity::NodeId;
use crate::store::{PartialFile, stamp_of};
use crate::swarm::{FileNo, ReadWindow};
use crate::sync::lock;

/// What the others know of a download.
pub(crate) trait JoinedDownload: Send + Sync {
    /// Whether it has ended, or is about to.
    fn is_over(&self) -> bool;
    /// What became of that file.
    fn fate(&self, file: FileNo) -> FileFate;
    /// The files that another download may wait for.
    fn awaitable(&self) -> Vec<(FileNo, FileId)>;
    /// The only nodes that it takes content from; all without them.
    fn sources(&self) -> Option<&[NodeId]>;
    /// Most bytes a second that its caller allows.
    fn limit(&self) -> Option<u64>;
    /// The directory that it fetches into, where the partial files lie.
    fn dir(&self) -> &Path;
    /// Readers need these chunks of that file first.
    fn set_windows(&self, file: FileNo, windows: Vec<ReadWindow>);
    /// The part of that file, while chunks of it come.
    fn part(&self, file: FileNo) -> Option<Arc<PartialFile>>;
    /// Whether it would resume from `part` if it fetched the file itself: both lie in one directory.
    fn goes_on_from(&self, part: &PartialFile) -> bool;
    /// Whether others wait for that file: then all of it is needed.
    fn set_awaited(&self, file: FileNo, is_awaited: bool);
    /// What it has done for that file.
    fn lent(&self, file: FileNo) -> Lent;
    /// That file is to be taken from `whole`, or to be fetched without one. False if it has ended.
    fn give(&self, file: FileNo, whole: Option<WholeFile>) -> bool;
}

/// What became of a file of a download.
#[derive(Debug)]
pub(crate) enum FileFate {
    /// It is being fetched, or will be.
    Pending,
    /// It is whole, here.
    InPlace(WholeFile),
    /// It cannot be put in any of its places.
    Failed,
}

/// The downloads that run, and the contents that more than one of them may want.
#[derive(Default)]
pub(crate) struct Joins {
    /// The downloads, in the order in which they started.
    running: Mutex<Vec<Weak<dyn JoinedDownload>>>,
    /// The contents that are open in a download, or that another one waits for.
    files: Mutex<HashMap<FileId, JoinedFile>>,
}

/// A content and the downloads that want it.
struct JoinedFile {
    owner: Member,
    waiting: Vec<Member>,
}

/// A file of a download.
#[derive(Clone)]
pub(crate) struct Member {
    download: Weak<dyn JoinedDownload>,
    file: FileNo,
}

/// Where a whole file lies.
#[derive(Debug, Clone, Default)]
pub(crate) struct WholeFile {
    /// Its path, unless it has none but a part.
    pub(crate) path: PathBuf,
    /// The part that readers have open.
    pub(crate) part: Option<Arc<PartialFile>>,
    /// The state in which it was verified; `None` if it has to be read to be sure of it.
    pub(crate) verified: Option<Stamp>,
}

/// What a download has done for the others that wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lent {
    /// Bytes that it has of what they wait for.
    pub(crate) bytes: u64,
    /// Time since it made progress.
    pub(crate) silence: Duration,
}

impl Member {
    pub(crate) fn new(download: &Arc<impl JoinedDownload + 'static>, file: FileNo) -> Self {
        let download: Arc<dyn JoinedDownload> = download.clone();
        Member { download: Arc::downgrade(&download), file }
    }

    fn is_of(&self, download: &dyn JoinedDownload) -> bool {
        std::ptr::addr_eq(self.download.as_ptr(), download)
    }

    /// The download, unless it is over.
    fn live(&self) -> Option<Arc<dyn JoinedDownload>> {
        self.download.upgrade().filter(|download| !download.is_over())
    }

    fn give(&self, whole: Option<WholeFile>) -> bool {
        self.live().is_some_and(|download| download.give(self.file, whole))
    }
}

impl Joins {
    /// A download begins. Returns the files of the downloads before it that it may wait for.
    pub(crate) fn begin(&self, download: &Arc<impl JoinedDownload + 'static>) -> HashMap<FileId, Member> {
        let mut running = lock(&self.running);
        let mut before: Vec<_> = running.iter().filter_map(Weak::upgrade).collect();
        running.push(Member::new(download, 0).download);
        drop(running);
        before.retain(|other| !other.is_over() && has_same_sources(&**other, &**download));
        let mut files = HashMap::new();
        for download in &before {
            for (file, id) in download.awaitable() {
                files.entry(id).or_insert_with(|| Member { download: Arc::downgrade(download), file });
            }
        }
        files
    }

    /// Waits with `by` for `of`, a file of the content `id` of another download. True if `by` is
    /// given the result; false if it is to look after the file itself.
    pub(crate) fn join(&self, id: FileId, of: &Member, by: Member) -> bool {
        let Some(owner) = of.download.upgrade() else { return false };
        let mut files = lock(&self.files);
        let joined = files.entry(id).or_insert_with(|| JoinedFile { owner: of.clone(), waiting: Vec::new() });
        joined.waiting.push(by.clone());
        let is_waiting = joined.owner.live().is_some_and(|other| !by.is_of(&*other));
        drop(files);
        // A file that came into place, or a download that ended, just before tells no more.
        let fate = owner.fate(of.file);
        if is_waiting && matches!(fate, FileFate::Pending) && !owner.is_over() {
            owner.set_awaited(of.file, true);
            return true;
        }
        if !self.leave(id, &by) {
            // What came of it was given to `by` meanwhile.
            return true;
        }
        match fate {
            FileFate::InPlace(whole) => by.give(Some(whole)),
            FileFate::Pending | FileFate::Failed => false,
        }
    }

    /// `by` is about to open the partial file of `id`: true if it may; false if another download has it
    /// open. Then `by` is given the result. One that would take nothing from the other, and has
    /// another directory, does not wait for it: that one may be silent.
    pub(crate) fn claim(&self, id: FileId, by: Member) -> bool {
        let mut files = lock(&self.files);
        let joined = files.entry(id).or_insert_with(|| JoinedFile { owner: by.clone(), waiting: Vec::new() });
        let owner = joined.owner.live().filter(|owner| !by.is_of(&**owner));
        let is_apart = |other: &dyn JoinedDownload| {
            by.live().is_some_and(|by| by.dir() != other.dir() && !has_same_sources(&*by, other))
        };
        match owner {
            Some(owner) if is_apart(&*owner) => true,
            Some(_) => {
                joined.waiting.push(by);
                false
            }
            None => {
                joined.owner = by;
                true
            }
        }
    }

    /// The content `id` of another download is waited for: all of it is needed. Not under the lock of
    /// any download.
    pub(crate) fn await_all(&self, id: &FileId) {
        let owner = lock(&self.files).get(id).map(|joined| joined.owner.clone());
        if let Some((file, download)) = owner.and_then(|owner| Some((owner.file, owner.live()?))) {
            download.set_awaited(file, true);
        }
    }

    /// Whether a download waits for `id` that would resume from `part`.
    pub(crate) fn is_awaited_for(&self, id: &FileId, part: &PartialFile) -> bool {
        let waiting = lock(&self.files).get(id).map_or(Vec::new(), |joined| joined.waiting.clone());
        waiting.iter().filter_map(Member::live).any(|download| download.goes_on_from(part))
    }

    /// The readers of `by` need these chunks of `id`, which another download may be fetching. Returns
    /// the part that this one has open.
    pub(crate) fn read_on(
        &self,
        by: &dyn JoinedDownload,
        id: FileId,
        windows: Vec<ReadWindow>,
    ) -> Option<Arc<PartialFile>> {
        let owner = lock(&self.files).get(&id).map(|joined| joined.owner.clone());
        let owner = owner.filter(|owner| !owner.is_of(by))?;
        let download = owner.live()?;
        download.set_windows(owner.file, windows);
        download.part(owner.file)
    }

    /// `file` of `download`, with the content `id`, came into place or failed just now.
    pub(crate) fn settled(&self, download: &dyn JoinedDownload, file: FileNo, id: FileId) {
        let mut files = lock(&self.files);
        let Some(joined) = files.get_mut(&id).filter(|joined| joined.owner.is_of(download)) else { return };
        if joined.waiting.is_empty() {
            files.remove(&id);
            return;
        }
        drop(files);
        let FileFate::InPlace(whole) = download.fate(file) else { return self.pass_on(download, Some(id)) };
        let waiting = lock(&self.files).remove(&id).map_or(Vec::new(), |joined| joined.waiting);
        let verified = std::fs::metadata(&whole.path).ok().map(|meta| stamp_of(&meta));
        for member in waiting {
            let gets_it = member.live().is_some_and(|other| has_same_sources(&*other, download));
            member.give(gets_it.then(|| WholeFile { verified, ..whole.clone() }));
        }
    }

    /// `download` has ended: what it did not finish is fetched by the downloads that wait for it.
    pub(crate) fn end(&self, download: &dyn JoinedDownload) {
        let is_it = |other: &Weak<dyn JoinedDownload>| std::ptr::addr_eq(other.as_ptr(), download);
        lock(&self.running).retain(|other| other.strong_count() > 0 && !is_it(other));
        self.pass_on(download, None);
    }

    /// Takes `download` away from one content, or from all. The first that waits for what it was
    /// fetching fetches it from now on.
    fn pass_on(&self, download: &dyn JoinedDownload, only: Option<FileId>) {
        let (mut heirs, mut deserted) = (Vec::new(), Vec::new());
        lock(&self.files).retain(|id, joined| {
            if only.is_some_and(|only| only != *id) {
                return true;
            }
            let before = joined.waiting.len();
            joined.waiting.retain(|member| !member.is_of(download) && member.live().is_some());
            if before > 0 && joined.waiting.is_empty() {
                deserted.push(joined.owner.clone());
            }
            if joined.owner.is_of(download) {
                if joined.waiting.is_empty() {
                    return false;
                }
                joined.owner = joined.waiting.remove(0);
                heirs.push((joined.owner.clone(), !joined.waiting.is_empty()));
            }
            true
        });
        let tell = |member: &Member, is_awaited| {
            member.live().into_iter().for_each(|download| download.set_awaited(member.file, is_awaited));
        };
        deserted.iter().filter(|owner| !owner.is_of(download)).for_each(|owner| tell(owner, false));
        for (heir, is_awaited) in &heirs {
            tell(heir, *is_awaited);
            heir.give(None);
        }
    }

    /// What others have done for the files that `download` waits for; `None` if it waits for none.
    pub(crate) fn lent_to(&self, download: &dyn JoinedDownload) -> Option<Lent> {
        let files = lock(&self.files);
        let waits = |joined: &&JoinedFile| joined.waiting.iter().any(|member| member.is_of(download));
        let owners: Vec<Member> = files.values().filter(waits).map(|joined| joined.owner.clone()).collect();
        drop(files);
        let lent = owners.iter().filter_map(|owner| Some(owner.live()?.lent(owner.file)));
        lent.reduce(|a, b| Lent { bytes: a.bytes + b.bytes, silence: a.silence.min(b.silence) })
    }

    /// The limit of `download`, which is that of its caller or the loosest of the downloads that wait
    /// for it.
    pub(crate) fn limit_of(&self, download: &dyn JoinedDownload) -> Option<u64> {
        let files = lock(&self.files);
        let owned = files.values().filter(|joined| joined.owner.is_of(download));
        let waiting: Vec<Member> = owned.flat_map(|joined| joined.waiting.iter().cloned()).collect();
        drop(files);
        let limits = waiting.iter().filter_map(Member::live).map(|other| other.limit());
        limits.fold(download.limit(), |a, b| Some(a?.max(b?)))
    }

    /// `by` no longer waits. False if it did not.
    fn leave(&self, id: FileId, by: &Member) -> bool {
        let mut files = lock(&self.files);
        let Some(joined) = files.get_mut(&id) else { return false };
        let before = joined.waiting.len();
        joined.waiting.retain(|member| !(member.file == by.file && Weak::ptr_eq(&member.download, &by.download)));
        let was_waiting = joined.waiting.len() < before;
        if joined.waiting.is_empty() && joined.owner.live().is_none() {
            files.remove(&id);
        }
        was_waiting
    }
}

/// Whether two downloads may take the same content.
fn has_same_sources(a: &dyn JoinedDownload, b: &dyn JoinedDownload) -> bool {
    let holds = |a: &[NodeId], b: &[NodeId]| b.iter().all(|node| a.contains(node));
    match (a.sources(), b.sources()) {
        (None, None) => true,
        (Some(a), Some(b)) => holds(a, b) && holds(b, a),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::content::{Digest, Root};

    const ID: FileId = FileId { root: Root(Digest([1; 32])), len: 5 };

    /// A download whose file comes into place while another one asks for its fate.
    #[derive(Default)]
    struct LuckyDownload {
        joins: Arc<Joins>,
        settles: AtomicBool,
        given: AtomicUsize,
    }

    impl JoinedDownload for LuckyDownload {
        fn is_over(&self) -> bool {
            false
        }
        fn fate(&self, file: FileNo) -> FileFate {
            if self.settles.swap(false, Ordering::Relaxed) {
                self.joins.settled(self, file, ID);
            }
            FileFate::InPlace(WholeFile { path: "there".into(), ..WholeFile::default() })
        }
        fn awaitable(&self) -> Vec<(FileNo, FileId)> {
            Vec::new()
        }
        fn sources(&self) -> Option<&[NodeId]> {
            None
        }
        fn limit(&self) -> Option<u64> {
            None
        }
        fn dir(&self) -> &Path {
            Path::new("there")
        }
        fn set_windows(&self, _: FileNo, _: Vec<ReadWindow>) {}
        fn goes_on_from(&self, _: &PartialFile) -> bool {
            false
        }
        fn set_awaited(&self, _: FileNo, _: bool) {}
        fn part(&self, _: FileNo) -> Option<Arc<PartialFile>> {
            None
        }
        fn lent(&self, _: FileNo) -> Lent {
            Lent { bytes: 0, silence: Duration::ZERO }
        }
        fn give(&self, _: FileNo, _: Option<WholeFile>) -> bool {
            self.given.fetch_add(1, Ordering::Relaxed);
            true
        }
    }

    #[test]
    fn a_file_that_settles_during_a_join_is_given_once() {
        for settles in [true, false] {
            let joins = Arc::<Joins>::default();
            let download = |settles| {
                let settles = AtomicBool::new(settles);
                Arc::new(LuckyDownload { joins: joins.clone(), settles, given: AtomicUsize::new(0) })
            };
            let (owner, other) = (download(settles), download(false));
            assert!(joins.join(ID, &Member::new(&owner, 0), Member::new(&other, 3)), "{settles}");
            assert_eq!(other.given.load(Ordering::Relaxed), 1, "{settles}");
            assert!(lock(&joins.files).values().all(|joined| joined.waiting.is_empty()));
        }
    }
}
