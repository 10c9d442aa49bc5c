//! The threads of a download that wait for the disk, so that no connection has to.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::Receiver;
use log::{debug, error, info, warn};

use crate::chain::Chain;
use crate::client::FileReport;
use crate::client::disk_queues::{DiskJob, SmallContent, SmallJob};
use crate::client::joins::Member;
use crate::client::limits::{CHECK_STRIDE, DISK_THREADS, RECHECK_TURN_LEN};
use crate::client::shared::DownloadShared;
use crate::client::targets::FileTarget;
use crate::content::{Digest, Entry, FileId, Manifest, Marks, RelPath};
use crate::identity::PeerId;
use crate::limits::SMALL_FILES_LEN_MAX;
use crate::store::{Leftovers, PartialFile, StoreError, stamp_of};
use crate::swarm::FileNo;
use crate::swarm::{Event, PeerHandle};
use crate::sync::lock;

mod joined;
mod places;
mod read;
mod reuse;

/// Finds the files that are on the disk already, the places where none can be put, and the files
/// that `others` are fetching.
pub(crate) fn check(shared: &Arc<DownloadShared>, others: &HashMap<FileId, Member>) {
    // An abandoned part takes room that this download may need.
    let ids: Vec<FileId> = shared.files.iter().map(|wanted| wanted.id).collect();
    let left = if shared.is_in_memory() { Leftovers::default() } else { shared.disk.sweep(&ids) };
    if left.files > 0 {
        let dir = shared.disk.path().display();
        info!("unfinished downloads of other files are kept dir={dir} files={} bytes={}", left.files, left.bytes);
    }
    shared.disk.want(&ids);
    let mut parents = places::LastParent::default();
    // Where the room may not do, what is there is known before anything is fetched.
    let tight = match places::look_ahead(shared, &ids, &mut parents) {
        Ok(tight) => tight,
        Err(e) => return shared.fail(e.into()),
    };
    for (file, wanted) in (0..).zip(&shared.files) {
        let here = match &tight {
            Some(tight) if tight.is_settled(file) => continue,
            Some(_) => false,
            None => places::check_file(shared, file, &mut parents).here,
        };
        // A check that was cut short says nothing of the file.
        if shared.is_stopped() {
            return;
        }
        let blocked = !here && shared.places(file).is_empty();
        if let Some(other) = others.get(&wanted.id).filter(|_| !here && !blocked && wanted.id.len > 0) {
            joined::join(shared, file, other);
            continue;
        }
        if !here && !blocked && reuse::take(shared, file) {
            continue;
        }
        let unfinished = checked(shared, file, here);
        places::write_empty(shared, file, here);
        shared.stats.progressed();
        if unfinished == 0 || file % CHECK_STRIDE == 0 {
            shared.wake_all();
        } else if !here {
            shared.wake_connections();
        }
    }
    shared.wake_all();
}

/// A file was looked for and is `here`, or is to be fetched if it has any place. Returns the number
/// of unfinished ones.
fn checked(shared: &DownloadShared, file: FileNo, here: bool) -> usize {
    let wanted = &shared.files[file as usize];
    if here {
        debug!("already there path={} file={}", wanted.path, wanted.id);
        shared.stats.local.there.fetch_add(wanted.id.len, Ordering::Relaxed);
        report(shared, file, &shared.places(file), Came::Before);
    }
    let is_settled = here || shared.places(file).is_empty();
    let unfinished = {
        let mut state = shared.state();
        state.checked(file, is_settled);
        state.unfinished()
    };
    if is_settled {
        shared.settled(file);
    }
    unfinished
}

/// Opens, verifies and finishes partial files, until a job ends the thread.
pub(crate) fn run_jobs(shared: &Arc<DownloadShared>, jobs: &Receiver<DiskJob>) {
    while let Ok(job) = jobs.recv() {
        match job {
            DiskJob::End => return,
            _ if shared.is_stopped() => {}
            DiskJob::Open { file, layer, from, peer } => open(shared, file, layer, from, peer),
            DiskJob::Recheck { file, open } => recheck(shared, file, open),
            DiskJob::Finish { file, open } => finish(shared, file, &open),
            DiskJob::TakeOver { file, from } => joined::take_over(shared, file, &from),
            DiskJob::Own { file } => joined::own(shared, file),
            DiskJob::Reuse { file, copy } => reuse::copy(shared, file, &copy),
        }
        shared.stats.progressed();
    }
}

fn open(shared: &Arc<DownloadShared>, file: FileNo, layer: Vec<Digest>, from: PeerHandle, peer: PeerId) {
    let id = shared.files[file as usize].id;
    let manifest = match Manifest::new(id, layer) {
        Ok(manifest) => {
            shared.stats.verified();
            Arc::new(manifest)
        }
        Err(e) => {
            let tag = shared.ctx.peers.own().tag();
            error!("bad layer, not asked again peer={peer} file={id} error=\"{e}\"{tag}");
            shared.state().layer_was_wrong(file);
            shared.strike(from, peer, id);
            return;
        }
    };
    if !joined::claim(shared, file) {
        return;
    }
    match joined::open_part(shared, file, &manifest) {
        Ok(open) => {
            let unchecked = reuse::chunks_to_check(shared, file, &open);
            let have = open.have();
            shared.terms.readings.opened(&open);
            shared.keep_awaited(file);
            if let Some(fetched) = &shared.ctx.fetched {
                fetched.put_partial(open.clone());
            }
            if shared.state().opened(file, open.clone(), &have, &unchecked) {
                finish(shared, file, &open);
            } else if !unchecked.is_empty() {
                // By each thread that has nothing else to do, while other chunks are fetched.
                for _ in 0..DISK_THREADS {
                    let _ = shared.queues.jobs.send(DiskJob::Recheck { file, open: open.clone() });
                }
            }
            shared.wake_connections();
        }
        // Smaller files may still fit.
        Err(e @ StoreError::NoSpace { .. }) => shared.fail_alone(file, e),
        Err(e) => shared.fail_file(file, e),
    }
}

/// Verifies some chunks that may be on the disk. The next turn queues behind the other jobs.
fn recheck(shared: &DownloadShared, file: FileNo, open: Arc<PartialFile>) {
    let checked = open.recheck(RECHECK_TURN_LEN);
    if checked.is_empty() {
        return;
    }
    let mut whole = false;
    {
        let mut state = shared.state();
        for chunk in &checked {
            whole |= state.rechecked(file, chunk.index.get(), chunk.right);
        }
    }
    shared.terms.readings.came(&open.manifest().id());
    if reuse::count(shared, &open, &checked) {
        shared.wake_all();
    }
    if whole {
        finish(shared, file, &open);
    } else {
        let _ = shared.queues.jobs.send(DiskJob::Recheck { file, open });
    }
}

fn finish(shared: &DownloadShared, file: FileNo, open: &Arc<PartialFile>) {
    if shared.terms.reading.is_some() {
        return read::is_whole(shared, file);
    }
    let places = shared.places(file);
    let results = match shared.disk.put_in_place(open, &places) {
        Ok(results) => results,
        Err(e) => {
            abandon(shared, file, e);
            return;
        }
    };
    let placed = settle(shared, file, &places, results);
    if placed.is_empty() {
        forget_fetched(shared, file);
        // One that the whole disk keeps from its place is not done.
        if shared.has_failed() {
            return;
        }
    } else {
        report(shared, file, &placed, Came::Fetched);
        offer_fetched(shared, file, &placed, open.manifest().clone());
    }
    shared.state().finished(file);
    shared.settled(file);
    shared.wake_all();
}

/// A file that is being fetched cannot be written. What came of it stays for a later run.
pub(crate) fn abandon(shared: &DownloadShared, file: FileNo, error: StoreError) {
    forget_fetched(shared, file);
    shared.fail_file(file, error);
}

fn forget_fetched(shared: &DownloadShared, file: FileNo) {
    if let Some(fetched) = &shared.ctx.fetched {
        fetched.remove(&shared.files[file as usize].id);
    }
}

/// Takes note of the places that could not be filled; the ones that were.
fn settle(
    shared: &DownloadShared,
    file: FileNo,
    places: &[RelPath],
    results: impl IntoIterator<Item = Result<(), StoreError>>,
) -> Vec<RelPath> {
    let mut placed = Vec::with_capacity(places.len());
    for (place, result) in places.iter().zip(results) {
        match result {
            Ok(()) => placed.push(place.clone()),
            Err(e) => shared.fail_place(file, place, e),
        }
    }
    placed
}

/// Offers the finished file to other nodes, with the state in which it now lies on disk: the server
/// sees if it changes.
fn offer_fetched(shared: &DownloadShared, file: FileNo, placed: &[RelPath], manifest: Arc<Manifest>) {
    let mut stamps: Vec<_> = placed.iter().map(|path| shared.disk.take_stamp(path)).collect();
    let (Some(fetched), wanted) = (&shared.ctx.fetched, &shared.files[file as usize]) else { return };
    let Some(path) = placed.first().cloned() else { return };
    let dir = shared.disk.path();
    let stamp = match stamps.swap_remove(0) {
        Some(stamp) => Ok(stamp),
        None => std::fs::metadata(dir.join(path.as_str())).map(|meta| stamp_of(&meta)),
    };
    let found = stamp.and_then(|stamp| Ok((stamp, fetched.reader(dir)?)));
    match found {
        Ok((stamp, reader)) => {
            // Other nodes ask by the names that they know, not by the place that it was fetched to.
            let own_name = placed.contains(&wanted.path);
            let names = if own_name { placed } else { std::slice::from_ref(&wanted.path) };
            let marks = Marks { executable: shared.disk.makes_program(&path), ..Marks::default() };
            let entry = Entry { path, id: wanted.id, stamp, marks };
            fetched.put_whole(names, entry, manifest, reader);
        }
        Err(e) => {
            warn!("cannot serve what was fetched path={path} error=\"{}\"", Chain(&e));
            fetched.remove(&wanted.id);
        }
    }
}

/// Writes one-chunk files, each time all that have come.
pub(crate) fn write_small(shared: &DownloadShared, files: &Receiver<SmallJob>) {
    loop {
        // Where each batch ends with a wait for the disk, one thread waits while the next batch
        // gathers: two threads would wait twice as often, for half as much.
        let turn = shared.disk.is_durable().then(|| lock(&shared.queues.small_turn));
        let Ok(Some(first)) = files.recv() else { break };
        let (mut members, ended) = gather_small(shared, files, first);
        members.retain(|(_, file, bytes, _)| !read::keep_small(shared, *file, bytes));
        // A content may have many names; it is in memory once.
        let places: Vec<_> = members.iter().map(|(_, file, ..)| shared.places(*file)).collect();
        let all = members.iter().zip(&places).flat_map(|((wanted, _, bytes, _), places)| {
            places.iter().map(|out| (out.clone(), wanted.id, bytes.as_slice()))
        });
        let batch: Vec<(RelPath, FileId, &[u8])> = all.collect();
        let mut results = shared.disk.batch_write(&batch).into_iter();
        drop(batch);
        drop(turn);
        for ((wanted, file, _, came), places) in members.iter().zip(&places) {
            let placed = settle(shared, *file, places, results.by_ref().take(places.len()));
            if shared.has_failed() && placed.is_empty() {
                continue;
            }
            if !placed.is_empty() {
                report(shared, *file, &placed, *came);
                if let Ok(manifest) = Manifest::new(wanted.id, Vec::new()) {
                    offer_fetched(shared, *file, &placed, Arc::new(manifest));
                }
            }
            if *came == Came::Fetched {
                shared.state().small_written(*file);
            } else {
                shared.state().finished(*file);
            }
            shared.settled(*file);
        }
        shared.buffers.small.put_back(members.into_iter().map(|(_, _, bytes, _)| bytes));
        shared.stats.progressed();
        match shared.state().unfinished() {
            0 => shared.wake_all(),
            _ => shared.wake_connections(),
        }
        if ended {
            break;
        }
    }
    shared.disk.tidy();
}

/// A one-chunk file that is about to be written.
type SmallMember<'a> = (&'a FileTarget, FileNo, Vec<u8>, Came);

/// The files that wait to be written, from `first` on, and whether the thread is to end after them.
fn gather_small<'a>(
    shared: &'a DownloadShared,
    files: &Receiver<SmallJob>,
    first: (FileNo, SmallContent),
) -> (Vec<SmallMember<'a>>, bool) {
    let (mut members, mut len, mut next) = (Vec::new(), 0, Some(first));
    while let Some((file, content)) = next {
        let wanted = &shared.files[file as usize];
        let (bytes, came) = match content {
            SmallContent::Came(bytes) => (Some(bytes), Came::Fetched),
            SmallContent::Zeros => (Some(vec![0; wanted.id.len as usize]), Came::Zeros),
            SmallContent::Reused(copy) => (reuse::read(shared, file, &copy), Came::Reused),
        };
        if let Some(bytes) = bytes {
            len += bytes.len() as u64;
            members.push((wanted, file, bytes, came));
        }
        // A file that is taken out must be written, so the bound comes first.
        if len >= SMALL_FILES_LEN_MAX / 2 {
            break;
        }
        next = match files.try_recv() {
            Ok(Some(more)) => Some(more),
            Ok(None) => return (members, true),
            Err(_) => None,
        };
    }
    (members, false)
}

/// How a file came into place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// It was there.
    Before,
    /// This download fetched it.
    Fetched,
    /// Another download of the node fetched it.
    ByAnother,
    /// It holds nothing but zeros.
    Zeros,
    /// It was copied from elsewhere on the disk.
    Reused,
}

fn report(shared: &DownloadShared, file: FileNo, places: &[RelPath], came: Came) {
    let wanted = &shared.files[file as usize];
    let seconds = shared.stats.begun.elapsed().as_secs_f64();
    let local = &shared.stats.local;
    let count = match came {
        Came::ByAnother => Some(&local.there),
        Came::Zeros => Some(&local.holes),
        Came::Reused => Some(&local.reused),
        Came::Before | Came::Fetched => None,
    };
    if let Some(count) = count {
        count.fetch_add(wanted.id.len, Ordering::Relaxed);
    }
    if came == Came::Fetched {
        debug!("fetched path={} file={} bytes={} seconds={seconds:.3}", wanted.path, wanted.id, wanted.id.len);
        shared.ctx.events.emit(Event::FileFetched { path: wanted.path.clone(), id: wanted.id });
    }
    let reports = places.iter().map(|out| FileReport {
        path: wanted.path.clone(),
        id: wanted.id,
        out: out.clone(),
        seconds,
        skipped: came == Came::Before,
    });
    lock(&shared.stats.reports).extend(reports);
}
