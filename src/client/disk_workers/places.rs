//! A look at the places of a download before anything is fetched: room, what is there, what is in the
//! way.

use std::collections::HashSet;
use std::sync::Arc;

use log::warn;

use crate::client::disk_queues::SmallContent;
use crate::client::disk_workers::checked;
use crate::client::limits::{DENSE_LEN_MAX, DISK_BLOCK_LEN};
use crate::client::shared::DownloadShared;
use crate::client::targets::FileTarget;
use crate::content::{FileId, Geometry, RelPath};
use crate::store::{Disk, StoreError};
use crate::swarm::FileNo;
use crate::sync::lock;

/// What lies at the usable places of a file.
#[derive(Debug, Default)]
pub(super) struct PlacesSeen {
    /// All of them hold it, and there is one.
    pub(super) here: bool,
    /// Places that it has to be put in.
    missing: Vec<RelPath>,
}

/// Whether the files, copies included, may not fit onto the disk. Nothing is read for that, and
/// nothing is looked at where all of them would fit if nothing were there.
fn is_tight(shared: &DownloadShared) -> Result<bool, StoreError> {
    if shared.terms.reading.is_some() {
        return Ok(false);
    }
    let most = shared.files.iter().map(|f| f.id.len.saturating_mul(f.outs.len() as u64));
    let free = shared.disk.free_bytes()?;
    if most.fold(0, u64::saturating_add) <= free {
        return Ok(false);
    }
    Ok(shared.disk.needed_bytes(shared.files.iter().map(|f| (&f.id, f.outs.as_slice()))) > free)
}

/// Looks at the places of all files, until the download is stopped.
fn check_files(shared: &DownloadShared, parents: &mut LastParent) -> Vec<PlacesSeen> {
    let files = (0..).zip(&shared.files).take_while(|_| !shared.is_stopped());
    let seen = files.map(|(file, _)| {
        let seen = check_file(shared, file, parents);
        shared.stats.progressed();
        seen
    });
    seen.collect()
}

/// What was found out of all files where not all may fit onto the disk.
pub(super) struct TightPlaces {
    seen: Vec<PlacesSeen>,
    /// Files that fit nowhere where they are missing.
    out: HashSet<FileNo>,
}

impl TightPlaces {
    /// Whether nothing is left to do for the file.
    pub(super) fn is_settled(&self, file: FileNo) -> bool {
        self.seen.get(file as usize).is_none_or(|seen| seen.here) || self.out.contains(&file)
    }
}

/// Looks at the places of all files, if they may not fit onto the disk, and fails those that do not. `ids` are their
/// contents.
pub(super) fn look_ahead(
    shared: &DownloadShared,
    ids: &[FileId],
    parents: &mut LastParent,
) -> Result<Option<TightPlaces>, StoreError> {
    // Nothing is known of them before, as of a download that was paused.
    *lock(&shared.stats.to_fill) = Arc::default();
    if !is_tight(shared)? {
        return Ok(None);
    }
    shared.disk.sweep_for_room(ids);
    let seen = check_files(shared, parents);
    if shared.is_stopped() {
        return Ok(Some(TightPlaces { seen, out: HashSet::new() }));
    }
    // What is there does not fail with the rest.
    for (file, _) in (0..).zip(&seen).filter(|(_, seen)| seen.here) {
        checked(shared, file, true);
    }
    let mut to_fill: Vec<u32> = seen.iter().map(|seen| seen.missing.len() as u32).collect();
    let out = leave_out(shared, &seen, &mut to_fill)?;
    *lock(&shared.stats.to_fill) = to_fill.into();
    for file in &out {
        // Where it has a place left, that holds it.
        checked(shared, *file, !shared.places(*file).is_empty());
    }
    Ok(Some(TightPlaces { seen, out }))
}

/// Fails what does not fit onto the disk, so that the rest comes: the smallest files first. Returns the files that are put
/// nowhere. What cannot be put anywhere needs no room. Large files may hold zeros, which need none either: their
/// layers tell, so each of them is judged before its first chunk is asked for, by [`promised`].
fn leave_out(shared: &DownloadShared, seen: &[PlacesSeen], to_fill: &mut [u32]) -> Result<HashSet<FileNo>, StoreError> {
    let disk = &shared.disk;
    let is_known = |id: &FileId, seen: &PlacesSeen| id.len <= DENSE_LEN_MAX && !seen.missing.is_empty();
    let known = (0..).zip(shared.files.iter().zip(seen)).filter(|(_, (file, seen))| is_known(&file.id, seen));
    let mut known: Vec<(u64, FileNo)> =
        known.map(|(file, (wanted, _))| (disk.needed_for(&wanted.id, 1), file)).collect();
    let all_of = |(one, file): &(u64, FileNo)| {
        let (len, places) = (shared.files[*file as usize].id.len, seen[*file as usize].missing.len() as u64);
        one.saturating_add(len.saturating_mul(places - 1))
    };
    let (needed, free) = (known.iter().map(all_of).fold(0, u64::saturating_add), disk.free_bytes()?);
    if needed <= free {
        return Ok(HashSet::new());
    }
    known.sort_unstable();
    let (mut left, mut names, mut out) = (free, 0, HashSet::new());
    for (one, file) in known {
        let (id, missing) = (shared.files[file as usize].id, &seen[file as usize].missing);
        let (first, more) = (one.next_multiple_of(DISK_BLOCK_LEN), id.len.next_multiple_of(DISK_BLOCK_LEN).max(1));
        let further = left.checked_sub(first).map(|rest| (rest / more).min(missing.len() as u64 - 1));
        let fitting = further.map_or(0, |further| 1 + further as usize);
        left -= further.map_or(0, |further| first + further * more);
        for place in &missing[fitting..] {
            let path = disk.path().join(place.as_str());
            let error = StoreError::NoSpace { path, needed: id.len, free: left };
            shared.note_failed_at(file, std::slice::from_ref(place), &Arc::new(error.into()));
        }
        names += missing.len() - fitting;
        to_fill[file as usize] = fitting as u32;
        out.extend((fitting == 0).then_some(file));
    }
    let dir = disk.path().display();
    warn!("no space for all of it, the smallest files come dir={dir} needed={needed} free={free} left_out={names}");
    Ok(out)
}

/// Room that is promised to files which [`leave_out`] did not leave out and that are not in place yet. Files of which
/// that is not known beforehand get what is left.
pub(super) fn promised(shared: &DownloadShared, to_fill: &[u32]) -> u64 {
    let state = shared.state();
    let is_open =
        |(file, (wanted, _)): &(FileNo, (&FileTarget, &u32))| wanted.id.len <= DENSE_LEN_MAX && !state.is_done(*file);
    let open: Vec<_> = (0..).zip(shared.files.iter().zip(to_fill)).filter(is_open).map(|(_, wanted)| wanted).collect();
    drop(state);
    let needed = |(wanted, places): (&FileTarget, &u32)| match Geometry::new(wanted.id.len).needs_layer() {
        true => shared.disk.needed_for(&wanted.id, *places as usize),
        false => wanted.id.len.next_multiple_of(DISK_BLOCK_LEN).saturating_mul(u64::from(*places)),
    };
    open.into_iter().map(needed).fold(0, u64::saturating_add)
}

/// Looks at the places of a file. Places that cannot be used fail.
pub(super) fn check_file(shared: &DownloadShared, file: FileNo, parents: &mut LastParent) -> PlacesSeen {
    // What is read has no place.
    if shared.terms.reading.is_some() {
        return PlacesSeen::default();
    }
    let (disk, wanted) = (&shared.disk, &shared.files[file as usize]);
    let (mut there, mut is_looked_for) = (Vec::new(), false);
    for out in &wanted.outs {
        match parents.is_missing(disk, out) {
            Ok(missing) => {
                is_looked_for |= !missing;
                there.push(out.clone());
            }
            Err(e) => shared.fail_place(file, out, e),
        }
    }
    if !is_looked_for {
        return PlacesSeen { here: false, missing: there };
    }
    let held = disk.holds(&there, &wanted.id, &|| shared.is_stopped());
    let (mut usable, mut missing) = (0, Vec::new());
    for (out, held) in there.into_iter().zip(held) {
        match held {
            Ok(holds) => {
                usable += 1;
                missing.extend((!holds).then_some(out));
            }
            Err(e) => shared.fail_place(file, &out, e),
        }
    }
    PlacesSeen { here: missing.is_empty() && usable > 0, missing }
}

/// An empty file that is not `here` is written at once, since no peer has anything to send for it.
pub(super) fn write_empty(shared: &DownloadShared, file: FileNo, here: bool) {
    if !here && shared.files[file as usize].id.len == 0 && !shared.places(file).is_empty() {
        let _ = shared.queues.small.send(Some((file, SmallContent::Came(Vec::new()))));
    }
}

/// The directory of the file that was looked at last: it is not looked up again for the next one.
#[derive(Default)]
pub(super) struct LastParent {
    dir: Option<String>,
    is_missing: bool,
}

impl LastParent {
    /// Whether the directory in which `out` is to lie does not exist.
    fn is_missing(&mut self, disk: &Disk, out: &RelPath) -> Result<bool, StoreError> {
        let dir = out.as_str().rsplit_once('/').map_or("", |(dir, _)| dir);
        if self.dir.as_deref() != Some(dir) {
            self.dir = None;
            self.is_missing = disk.lacks_parent(out)?;
            self.dir = Some(dir.to_owned());
        }
        Ok(self.is_missing)
    }
}
