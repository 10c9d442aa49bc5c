//! The threads of a download that wait for the disk, so that no connection has to.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::Receiver;
use log::{error, info, warn};

use crate::chain::Chain;
use crate::client::disk_queues::{DiskJob, SmallJob};
use crate::client::limits::{CHECK_STRIDE, DISK_THREADS, RECHECK_TURN_LEN};
use crate::client::shared::DownloadShared;
use crate::client::{FetchError, FileReport};
use crate::content::{Bitfield, Digest, Entry, FileId, Manifest, RelPath};
use crate::identity::PeerId;
use crate::limits::SMALL_FILES_LEN_MAX;
use crate::store::{PartialFile, stamp_of};
use crate::swarm::FileNo;
use crate::swarm::{Event, PeerHandle};
use crate::sync::lock;

/// Finds the files that are on the disk already.
pub(crate) fn check(shared: &DownloadShared) {
    // The directory of the last file, and one that is missing: no file is looked for in it.
    let (mut looked, mut missing) = (None, None);
    for (file, wanted) in (0..).zip(&shared.files) {
        let parent = |out: &RelPath| out.as_str().rsplit_once('/').map(|(parent, _)| parent.to_owned());
        let absent = missing.is_some() && wanted.outs.iter().all(|out| parent(out) == missing);
        let held = || shared.disk.holds(&wanted.outs, &wanted.id, &|| shared.is_stopped());
        let here = match if absent { Ok(false) } else { held() } {
            Ok(here) => here,
            Err(e) => return shared.fail(FetchError::Storage(e)),
        };
        // A check that was cut short says nothing of the file.
        if shared.is_stopped() {
            return;
        }
        if !here && !absent {
            for out in &wanted.outs {
                let dir = parent(out);
                if dir == looked {
                    continue;
                }
                match shared.disk.lacks_parent(out) {
                    Ok(lacks) => missing = dir.clone().filter(|_| lacks),
                    Err(e) => return shared.fail(FetchError::Storage(e)),
                }
                looked = dir;
            }
        }
        if here {
            info!("already there path={} file={}", wanted.path, wanted.id);
            shared.stats.there.fetch_add(wanted.id.len, Ordering::Relaxed);
            report(shared, file, true);
        }
        let unfinished = {
            let mut state = shared.state();
            state.checked(file, here);
            state.unfinished()
        };
        if !here && wanted.id.len == 0 {
            let _ = shared.queues.small.send(Some((file, Vec::new())));
        }
        shared.stats.progressed();
        if unfinished == 0 || file % CHECK_STRIDE == 0 {
            shared.wake_all();
        } else {
            shared.wake_connections();
        }
    }
    shared.wake_all();
}

/// Opens, verifies and finishes partial files, until a job ends the thread.
pub(crate) fn run_jobs(shared: &DownloadShared, jobs: &Receiver<DiskJob>) {
    while let Ok(job) = jobs.recv() {
        match job {
            DiskJob::End => return,
            _ if shared.is_stopped() => {}
            DiskJob::Open { file, layer, from, peer } => open(shared, file, layer, from, peer),
            DiskJob::Recheck { file, open } => recheck(shared, file, open),
            DiskJob::Finish { file, open } => finish(shared, file, &open),
        }
        shared.stats.progressed();
    }
}

fn open(shared: &DownloadShared, file: FileNo, layer: Vec<Digest>, from: PeerHandle, peer: PeerId) {
    let id = shared.files[file as usize].id;
    let manifest = match Manifest::new(id, layer) {
        Ok(manifest) => Arc::new(manifest),
        Err(e) => {
            error!("bad layer, not asked again peer={peer} file={id} error=\"{e}\"");
            shared.state().layer_was_wrong(file);
            shared.strike(from, peer, id);
            return;
        }
    };
    match shared.disk.partial(manifest) {
        Ok(open) => {
            let (have, unchecked) = (open.have(), open.unchecked());
            let geometry = open.manifest().geometry();
            let bytes_of = |chunks: &Bitfield| -> u64 {
                chunks.iter().filter_map(|c| geometry.chunk(c)).map(|c| geometry.span(c).len as u64).sum()
            };
            let (there, to_rehash) = (bytes_of(&have), bytes_of(&unchecked));
            if open.resumed() > 0 {
                info!("resumed file={id} chunks={} bytes={} to_rehash={to_rehash}", open.resumed(), there + to_rehash);
            }
            shared.stats.there.fetch_add(there, Ordering::Relaxed);
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
        Err(e) => shared.fail(FetchError::Storage(e)),
    }
}

/// Verifies some chunks of an earlier run. The next turn queues behind the other jobs.
fn recheck(shared: &DownloadShared, file: FileNo, open: Arc<PartialFile>) {
    let checked = open.recheck(RECHECK_TURN_LEN);
    if checked.is_empty() {
        return;
    }
    let (mut right, mut wrong, mut wrong_chunks, mut whole) = (0, 0, 0, false);
    {
        let geometry = open.manifest().geometry();
        let mut state = shared.state();
        for (index, is_right) in checked {
            whole |= state.rechecked(file, index.get(), is_right);
            let len = geometry.span(index).len as u64;
            *(if is_right { &mut right } else { &mut wrong }) += len;
            wrong_chunks += u32::from(!is_right);
        }
    }
    shared.stats.there.fetch_add(right, Ordering::Relaxed);
    shared.stats.rehashed.fetch_add(right + wrong, Ordering::Relaxed);
    if wrong > 0 {
        let id = open.manifest().id();
        warn!("changed since it was fetched, fetched again file={id} chunks={wrong_chunks} bytes={wrong}");
        shared.wake_all();
    }
    if whole {
        finish(shared, file, &open);
    } else {
        let _ = shared.queues.jobs.send(DiskJob::Recheck { file, open });
    }
}

fn finish(shared: &DownloadShared, file: FileNo, open: &Arc<PartialFile>) {
    let wanted = &shared.files[file as usize];
    if let Err(e) = open.finish(&wanted.outs) {
        if let Some(fetched) = &shared.ctx.fetched {
            fetched.remove(&wanted.id);
        }
        shared.fail(FetchError::Storage(e));
        return;
    }
    report(shared, file, false);
    offer_fetched(shared, file, open.manifest().clone());
    shared.state().finished(file);
    shared.wake_all();
}

/// Offers the finished file to other nodes, with the state in which it now lies on disk: the server
/// sees if it changes.
fn offer_fetched(shared: &DownloadShared, file: FileNo, manifest: Arc<Manifest>) {
    let (Some(fetched), wanted) = (&shared.ctx.fetched, &shared.files[file as usize]) else { return };
    let Some(path) = wanted.outs.first().cloned() else { return };
    let dir = shared.disk.path();
    let found = std::fs::metadata(dir.join(path.as_str())).and_then(|meta| Ok((stamp_of(&meta), fetched.reader(dir)?)));
    match found {
        Ok((stamp, reader)) => {
            // Other nodes ask by the names that they know, not by the place that it was fetched to.
            let own_name = wanted.outs.contains(&wanted.path);
            let names = if own_name { &wanted.outs[..] } else { std::slice::from_ref(&wanted.path) };
            let entry = Entry { path, id: wanted.id, stamp };
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
        let mut members = Vec::new();
        let mut len = 0;
        let mut ended = false;
        let mut next = Some(first);
        while let Some((file, bytes)) = next {
            len += bytes.len() as u64;
            members.push((&shared.files[file as usize], file, bytes));
            // A file that is taken out must be written, so the bound comes first.
            if len >= SMALL_FILES_LEN_MAX / 2 {
                break;
            }
            next = match files.try_recv() {
                Ok(Some(more)) => Some(more),
                Ok(None) => {
                    ended = true;
                    None
                }
                Err(_) => None,
            };
        }
        // A content may have many names; it is in memory once.
        let places = members
            .iter()
            .flat_map(|(wanted, _, bytes)| wanted.outs.iter().map(|out| (out.clone(), wanted.id, bytes.as_slice())));
        let batch: Vec<(RelPath, FileId, &[u8])> = places.collect();
        let mut results = shared.disk.batch_write(&batch).into_iter();
        drop(batch);
        drop(turn);
        for (wanted, file, _) in members {
            match results.by_ref().take(wanted.outs.len()).collect::<Result<Vec<()>, _>>() {
                Ok(_) => {
                    report(shared, file, false);
                    if let Ok(manifest) = Manifest::new(wanted.id, Vec::new()) {
                        offer_fetched(shared, file, Arc::new(manifest));
                    }
                    shared.state().small_written(file);
                }
                Err(e) => shared.fail(FetchError::Storage(e)),
            }
        }
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

fn report(shared: &DownloadShared, file: FileNo, skipped: bool) {
    let wanted = &shared.files[file as usize];
    let seconds = shared.stats.begun.elapsed().as_secs_f64();
    if !skipped {
        info!("fetched path={} file={} bytes={} seconds={seconds:.3}", wanted.path, wanted.id, wanted.id.len);
        shared.ctx.events.emit(Event::FileFetched { path: wanted.path.clone(), id: wanted.id });
    }
    let reports = wanted.outs.iter().map(|out| FileReport {
        path: wanted.path.clone(),
        id: wanted.id,
        out: out.clone(),
        seconds,
        skipped,
    });
    lock(&shared.stats.reports).extend(reports);
}
