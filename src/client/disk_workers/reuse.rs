//! What is on the disk already and is not fetched: chunks of an earlier run, of an older version, and
//! of zeros.

use std::sync::atomic::Ordering;

use log::{debug, info, warn};

use crate::chain::Chain;
use crate::client::disk_queues::{DiskJob, SmallContent};
use crate::client::disk_workers::{Came, joined};
use crate::client::limits::{DENSE_LEN_MAX, HOLE_LEN_MIN};
use crate::client::shared::DownloadShared;
use crate::content::{Bitfield, FileId, Geometry};
use crate::store::{CheckedChunk, ChunkOrigin, KnownCopy, PartialFile, StoreError};
use crate::swarm::FileNo;
use crate::sync::lock;

/// Takes a file that is not in place from elsewhere on the disk, if it is known to be there, or leaves it
/// as a hole. False if it has to be fetched.
pub(super) fn take(shared: &DownloadShared, file: FileNo) -> bool {
    let id = shared.files[file as usize].id;
    let is_small = !Geometry::new(id.len).needs_layer();
    // What is read has no place that something could be copied to.
    let is_read = shared.terms.reading.is_some();
    if !is_read && is_small && id.len >= HOLE_LEN_MIN && id.is_zeros() {
        shared.state().elsewhere(file);
        return shared.queues.small.send(Some((file, SmallContent::Zeros))).is_ok();
    }
    if let Some(whole) = joined::fetched_before(shared, file) {
        shared.state().elsewhere(file);
        return shared.queues.jobs.send(DiskJob::TakeOver { file, from: whole }).is_ok();
    }
    // Where not all fits, a long file asks for room first, which a copy does not; its chunks are taken from here then.
    if id.len > DENSE_LEN_MAX && !lock(&shared.stats.to_fill).is_empty() {
        return false;
    }
    let Some(copy) = Some(&id).filter(|id| id.len > 0 && !is_read).and_then(|id| known_copy(shared, id)) else {
        return false;
    };
    debug!("taken from elsewhere on the disk path={} from={}", shared.files[file as usize].path, copy.path);
    shared.state().elsewhere(file);
    match is_small {
        true => shared.queues.small.send(Some((file, SmallContent::Reused(copy)))).is_ok(),
        false => shared.queues.jobs.send(DiskJob::Reuse { file, copy }).is_ok(),
    }
}

/// Where the content lies below the directory of the download, as far as is known: a fetch put it there, or it is
/// shared and was hashed.
fn known_copy(shared: &DownloadShared, id: &FileId) -> Option<KnownCopy> {
    let disk = &shared.disk;
    let of_shared = || shared.ctx.shared.find(disk.path(), id, |path, hashed| disk.copy_at(path, id, hashed));
    disk.copy_of(id).or_else(of_shared)
}

/// Copies a file of several chunks from elsewhere on the disk.
pub(super) fn copy(shared: &DownloadShared, file: FileNo, from: &KnownCopy) {
    let (id, places) = (shared.files[file as usize].id, shared.places(file));
    let stop = || shared.is_stopped();
    match shared.while_writing(|| shared.disk.reuse(&places, &id, from, &stop)) {
        Ok(results) => drop(joined::arrived(shared, file, (&places, results), Came::Reused)),
        Err(e) => give_up(shared, file, &e),
    }
}

/// The bytes of a one-chunk file that lies elsewhere on the disk. Without them it is fetched.
pub(super) fn read(shared: &DownloadShared, file: FileNo, from: &KnownCopy) -> Option<Vec<u8>> {
    let id = shared.files[file as usize].id;
    shared.disk.read_copy(&id, from).inspect_err(|e| give_up(shared, file, e)).ok()
}

/// A file that was to be copied is fetched after all.
fn give_up(shared: &DownloadShared, file: FileNo, error: &StoreError) {
    info!("not copied path={} error=\"{}\"", shared.files[file as usize].path, Chain(error));
    joined::own(shared, file);
}

/// Counts what is there in a file that was opened. Returns the chunks that have to be looked at.
pub(super) fn chunks_to_check(shared: &DownloadShared, file: FileNo, open: &PartialFile) -> Bitfield {
    let (id, geometry, zeros) = (open.manifest().id(), open.manifest().geometry(), open.zero_chunks());
    let len_of = |chunk| u64::from(geometry.span(chunk).len);
    let (have, claimed) = (open.have(), open.unchecked());
    let sources = match shared.is_in_memory() {
        true => Vec::new(),
        false => shared.disk.reuse_sources(&shared.places(file), open.manifest()),
    };
    let reusable = open.reuse(sources);
    // Zeros that were there may have become a copy of something else.
    let (kept, unchecked) = (open.have(), open.unchecked());
    let (mut there, mut holes) = (0, 0);
    for chunk in geometry.chunks().filter(|chunk| kept.contains(*chunk)) {
        *(if zeros.contains(chunk) { &mut holes } else { &mut there }) += len_of(chunk);
    }
    shared.stats.local.there.fetch_add(there, Ordering::Relaxed);
    shared.stats.local.holes.fetch_add(holes, Ordering::Relaxed);
    if open.resumed() > 0 {
        let to_rehash =
            geometry.chunks().filter(|c| claimed.contains(*c) && !zeros.contains(*c)).map(len_of).sum::<u64>();
        info!("resumed file={id} chunks={} bytes={} to_rehash={to_rehash}", open.resumed(), there + to_rehash);
    }
    if !reusable.is_empty() {
        info!("looking for chunks on the disk file={id} chunks={} of={}", reusable.count(), have.len());
    }
    let mut all = unchecked;
    all.extend(geometry.chunks().filter(|c| reusable.contains(*c)));
    all
}

/// Counts what came of `checked` chunks. True if some have to be fetched.
pub(super) fn count(shared: &DownloadShared, open: &PartialFile, checked: &[CheckedChunk]) -> bool {
    let (id, geometry, stats) = (open.manifest().id(), open.manifest().geometry(), &shared.stats);
    let len_of = |origin: ChunkOrigin, right: bool| -> (u64, usize) {
        let of_kind = checked.iter().filter(|chunk| (chunk.origin, chunk.right) == (origin, right));
        of_kind.fold((0, 0), |(len, count), chunk| (len + u64::from(geometry.span(chunk.index).len), count + 1))
    };
    let ((right, _), (wrong, wrong_chunks)) = (len_of(ChunkOrigin::Claimed, true), len_of(ChunkOrigin::Claimed, false));
    stats.local.there.fetch_add(right, Ordering::Relaxed);
    stats.local.rehashed.fetch_add(right + wrong, Ordering::Relaxed);
    stats.local.holes.fetch_add(len_of(ChunkOrigin::Zeros, true).0, Ordering::Relaxed);
    stats.local.reused.fetch_add(len_of(ChunkOrigin::Reused, true).0, Ordering::Relaxed);
    if wrong > 0 {
        warn!("changed since it was fetched, fetched again file={id} chunks={wrong_chunks} bytes={wrong}");
    }
    checked.iter().any(|chunk| !chunk.right)
}
