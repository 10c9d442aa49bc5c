//! Files that another download of the node fetches.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::info;

use crate::chain::Chain;
use crate::client::disk_workers::places::{LastParent, check_file};
use crate::client::disk_workers::{Came, checked, report, settle, write_empty};
use crate::client::joins::{Member, WholeFile};
use crate::client::limits::{BUSY_ATTEMPTS, BUSY_NAP};
use crate::client::shared::DownloadShared;
use crate::content::{Manifest, RelPath};
use crate::store::{FetchedFile, PartialFile, StoreError};
use crate::swarm::FileNo;

/// Waits for a file that `other` is to bring.
pub(super) fn join(shared: &Arc<DownloadShared>, file: FileNo, other: &Member) {
    shared.terms.has_joined.store(true, Ordering::Release);
    if shared.terms.joins.join(shared.files[file as usize].id, other, Member::new(shared, file)) {
        shared.state().elsewhere(file);
    } else {
        own(shared, file);
    }
    shared.wake_all();
}

/// Where this node has fetched the content to before, if it still offers it. A download that names
/// its sources takes it from these.
pub(super) fn fetched_before(shared: &DownloadShared, file: FileNo) -> Option<WholeFile> {
    let fetched = shared.ctx.fetched.as_ref().filter(|_| shared.terms.sources.is_none())?;
    match fetched.get(&shared.files[file as usize].id)? {
        FetchedFile::Whole(entry, _, reader) => {
            Some(WholeFile { path: reader.path().join(entry.path.as_str()), verified: Some(entry.stamp) })
        }
        FetchedFile::Partial(_) => None,
    }
}

/// Whether this download may open the partial file; otherwise it waits for the one that did.
pub(super) fn claim(shared: &Arc<DownloadShared>, file: FileNo) -> bool {
    // Under the lock, so that no job about the file comes before it counts as elsewhere.
    let mut state = shared.state();
    let claimed = shared.terms.joins.claim(shared.files[file as usize].id, Member::new(shared, file));
    if !claimed {
        shared.terms.has_joined.store(true, Ordering::Release);
        state.elsewhere(file);
    }
    claimed
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
    let (wanted, places) = (&shared.files[file as usize], shared.places(file));
    let source = (from.path.as_path(), from.verified);
    let taken = shared.while_writing(|| shared.disk.take_over(&places, &wanted.id, source, &|| shared.is_stopped()));
    match taken {
        Ok(results) => {
            arrived(shared, file, (&places, results), Came::ByAnother);
        }
        Err(e) => {
            info!("not taken over path={} error=\"{}\"", wanted.path, Chain(&e));
            own(shared, file);
        }
    }
}

/// A file was copied to its places, each with one of `results`.
pub(super) fn arrived(
    shared: &DownloadShared,
    file: FileNo,
    (places, results): (&[RelPath], Vec<Result<(), StoreError>>),
    came: Came,
) {
    let placed = settle(shared, file, places, results);
    if !placed.is_empty() {
        report(shared, file, &placed, came);
    }
    if placed.is_empty() && shared.has_failed() {
        return;
    }
    shared.state().finished(file);
    shared.settled(file);
    shared.wake_all();
}

/// Opens a partial file. One that is in use may be one that a download before left just now, and of
/// which a chunk is still being sent to another node.
pub(super) fn open_part(shared: &DownloadShared, manifest: &Arc<Manifest>) -> Result<Arc<PartialFile>, StoreError> {
    for _ in 0..BUSY_ATTEMPTS {
        match shared.disk.partial(manifest.clone()) {
            Err(StoreError::Busy { .. }) if !shared.is_stopped() => std::thread::sleep(BUSY_NAP),
            opened => return opened,
        }
    }
    shared.disk.partial(manifest.clone())
}
