//! A look at the places of a download before anything is fetched: room, what is there, what is in the
//! way.

use crate::client::disk_queues::SmallContent;
use crate::client::limits::DENSE_LEN_MAX;
use crate::client::shared::DownloadShared;
use crate::content::{FileId, RelPath};
use crate::store::{Disk, StoreError};
use crate::swarm::FileNo;

/// What lies at the usable places of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PlacesSeen {
    /// All of them hold it, and there is one.
    pub(super) here: bool,
    /// Places that it has to be put in.
    missing: usize,
}

/// Whether the files, copies included, may not fit onto the disk. Nothing is read for that, and
/// nothing is looked at where all of them would fit if nothing were there.
pub(super) fn is_tight(shared: &DownloadShared) -> Result<bool, StoreError> {
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
pub(super) fn check_files(shared: &DownloadShared, parents: &mut LastParent) -> Vec<PlacesSeen> {
    let files = (0..).zip(&shared.files).take_while(|_| !shared.is_stopped());
    let seen = files.map(|(file, _)| {
        let seen = check_file(shared, file, parents);
        shared.stats.progressed();
        seen
    });
    seen.collect()
}

/// An error if what is missing does not fit onto the disk. What cannot be put anywhere needs no
/// room. Large files may hold zeros, which need none either: their layers tell, so each of them is judged
/// before its first chunk is asked for.
pub(super) fn check_room(shared: &DownloadShared, seen: &[PlacesSeen]) -> Result<(), StoreError> {
    let is_known = |id: &FileId| id.len <= DENSE_LEN_MAX;
    let known = shared.files.iter().zip(seen).filter(|(file, _)| is_known(&file.id));
    let needs = known.map(|(file, seen)| shared.disk.needed_for(&file.id, seen.missing));
    let (needed, free) = (needs.fold(0, u64::saturating_add), shared.disk.free_bytes()?);
    if needed <= free {
        return Ok(());
    }
    Err(StoreError::NoSpace { path: shared.disk.path().to_path_buf(), needed, free })
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
        return PlacesSeen { here: false, missing: there.len() };
    }
    let held = disk.holds(&there, &wanted.id, &|| shared.is_stopped());
    let (mut usable, mut missing) = (0, 0);
    for (out, held) in there.iter().zip(held) {
        match held {
            Ok(holds) => {
                usable += 1;
                missing += usize::from(!holds);
            }
            Err(e) => shared.fail_place(file, out, e),
        }
    }
    PlacesSeen { here: missing == 0 && usable > 0, missing }
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
