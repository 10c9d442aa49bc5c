//! A look at the places of a download before anything is fetched: room, what is there, what is in the
//! way.

use crate::client::shared::DownloadShared;
use crate::content::RelPath;
use crate::store::{Disk, StoreError};
use crate::swarm::FileNo;

/// An error if not all files fit onto the disk, copies included. Where all of them would fit if
/// nothing were there, none is looked at.
pub(super) fn check_room(shared: &DownloadShared) -> Result<(), StoreError> {
    let most = shared.files.iter().map(|f| f.id.len.saturating_mul(f.outs.len() as u64));
    let free = shared.disk.free_bytes()?;
    if most.fold(0, u64::saturating_add) <= free {
        return Ok(());
    }
    let needed = shared.disk.needed_bytes(shared.files.iter().map(|f| (&f.id, f.outs.as_slice())));
    if needed <= free {
        return Ok(());
    }
    Err(StoreError::NoSpace { path: shared.disk.path().to_path_buf(), needed, free })
}

/// Whether all usable places of a file hold it. The other places fail.
pub(super) fn check_file(shared: &DownloadShared, file: FileNo, parents: &mut LastParent) -> bool {
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
        return false;
    }
    let held = disk.holds(&there, &wanted.id, &|| shared.is_stopped());
    let mut here = !held.is_empty();
    let mut usable = 0;
    for (out, held) in there.iter().zip(held) {
        match held {
            Ok(holds) => {
                here &= holds;
                usable += 1;
            }
            Err(e) => shared.fail_place(file, out, e),
        }
    }
    here && usable > 0
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
