//! Files that another download of the node fetches.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::info;

use crate::chain::Chain;
use crate::client::disk_workers::places::{LastParent, check_file, promised, write_empty};
use crate::client::disk_workers::read::read_from;
use crate::client::disk_workers::{Came, checked, offer_fetched, report, settle};
use crate::client::joins::{Member, WholeFile};
use crate::client::limits::{BUSY_ATTEMPTS, BUSY_NAP, DENSE_LEN_MAX};
use crate::client::shared::DownloadShared;
use crate::content::{Manifest, RelPath};
use crate::store::{FetchedFile, PartialFile, StoreError};
use crate::swarm::FileNo;
use crate::sync::lock;

/// Waits for a file that `other` is to bring.
pub(super) fn join(shared: &Arc<DownloadShared>, file: FileNo, other: &Member) {
    shared.terms.has_joined.store(true, Ordering::Release);
    let id = shared.files[file as usize].id;
    if shared.terms.joins.join(id, other, Member::new(shared, file)) {
        shared.state().elsewhere(file);
        pass_on_reads(shared, file);
    } else {
        own(shared, file);
    }
    shared.wake_all();
}

/// Where this node has fetched the content to before, if it still offers it. A download that names
/// its sources takes it from these.
pub(super) fn fetched_before(shared: &DownloadShared, file: FileNo) -> Option<WholeFile> {
    let part = shared.terms.readings.part(&shared.files[file as usize].id);
    if let Some(part) = part.filter(|part| part.is_whole()) {
        return Some(WholeFile { part: Some(part), ..WholeFile::default() });
    }
    let fetched = shared.ctx.fetched.as_ref().filter(|_| shared.terms.sources.is_none())?;
    match fetched.get(&shared.files[file as usize].id)? {
        FetchedFile::Whole(entry, _, reader) => {
            let path = reader.path().join(entry.path.as_str());
            Some(WholeFile { path, verified: Some(entry.stamp), part: None })
        }
        FetchedFile::Partial(_) => None,
    }
}

/// Whether this download may open the partial file; otherwise it waits for the one that did.
pub(super) fn claim(shared: &Arc<DownloadShared>, file: FileNo) -> bool {
    // Under the lock, so that no job about the file comes before it counts as elsewhere.
    let mut state = shared.state();
    let id = shared.files[file as usize].id;
    let claimed = shared.terms.joins.claim(id, Member::new(shared, file));
    if claimed {
        return true;
    }
    shared.terms.has_joined.store(true, Ordering::Release);
    state.elsewhere(file);
    drop(state);
    shared.terms.joins.await_all(&id);
    pass_on_reads(shared, file);
    false
}

/// Tells the download that is waited for what the readers of this one need, and them what it has.
fn pass_on_reads(shared: &DownloadShared, file: FileNo) {
    let (id, windows) = (shared.files[file as usize].id, shared.state().windows(file));
    let part = shared.terms.joins.read_on(shared, id, windows).filter(|_| shared.terms.reading.is_some());
    part.iter().for_each(|part| shared.terms.readings.opened(part));
}

/// Looks after a file that another download was to bring: it may have come, or is to be fetched.
pub(super) fn own(shared: &DownloadShared, file: FileNo) {
    let here = check_file(shared, file, &mut LastParent::default()).here;
    if !shared.is_stopped() {
        checked(shared, file, here);
        write_empty(shared, file, here);
        shared.wake_all();
    }
}

/// Brings a file that another download has put in place to the places of this one.
pub(super) fn take_over(shared: &DownloadShared, file: FileNo, from: &WholeFile) {
    if let Some(reading) = &shared.terms.reading {
        if !read_from(shared, file, reading, from) {
            own(shared, file);
        }
        return;
    }
    let (wanted, places) = (&shared.files[file as usize], shared.places(file));
    let source = (from.path.as_path(), from.verified);
    let taken = shared.while_writing(|| match &from.part {
        Some(part) => shared.disk.take_part(part, &places),
        None => shared.disk.take_over(&places, &wanted.id, source, &|| shared.is_stopped()),
    });
    match taken {
        Ok(results) => {
            let came = if from.part.is_some() { Came::Fetched } else { Came::ByAnother };
            let placed = arrived(shared, file, (&places, results), came);
            if let (Some(part), false) = (&from.part, placed.is_empty()) {
                offer_fetched(shared, file, &placed, part.manifest().clone());
            }
        }
        Err(e) => {
            info!("not taken over path={} error=\"{}\"", wanted.path, Chain(&e));
            own(shared, file);
        }
    }
}

/// A file was copied to its places, each with one of `results`. Returns the ones that it is at.
pub(super) fn arrived(
    shared: &DownloadShared,
    file: FileNo,
    (places, results): (&[RelPath], Vec<Result<(), StoreError>>),
    came: Came,
) -> Vec<RelPath> {
    let placed = settle(shared, file, places, results);
    if !placed.is_empty() {
        report(shared, file, &placed, came);
    }
    if !placed.is_empty() || !shared.has_failed() {
        shared.state().finished(file);
        shared.settled(file);
        shared.wake_all();
    }
    placed
}

/// Opens a partial file. One that is in use may be one that a download before left just now, and of
/// which a chunk is still being sent to another node.
pub(super) fn open_part(
    shared: &DownloadShared,
    file: FileNo,
    manifest: &Arc<Manifest>,
) -> Result<Arc<PartialFile>, StoreError> {
    if !shared.is_in_memory() {
        let is_large = manifest.id().len > DENSE_LEN_MAX;
        let to_fill = lock(&shared.stats.to_fill).clone();
        let promised = if is_large { promised(shared, &to_fill) } else { 0 };
        // Places that hold it already need no room.
        let places = to_fill.get(file as usize).map_or_else(|| shared.places(file).len(), |places| *places as usize);
        shared.disk.check_room(manifest, places, promised)?;
    }
    let open = || match (&shared.terms.reading, shared.terms.readings.part(&manifest.id())) {
        (Some(reading), _) => reading.open_part(manifest),
        // Readers whose download has ended have it open. What comes from now on stays after them.
        (None, Some(part)) if shared.disk.has_part(&part) => part.unmark().map(|()| part),
        (None, _) => shared.disk.partial(manifest.clone()),
    };
    for _ in 0..BUSY_ATTEMPTS {
        match open() {
            Err(StoreError::Busy { .. }) if !shared.is_stopped() => std::thread::sleep(BUSY_NAP),
            opened => return opened,
        }
    }
    open()
}
