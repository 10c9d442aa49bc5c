//! The content that a download fetches for its readers: it has a part, and no place.

use std::fs::File;
use std::io;
use std::sync::Arc;

use log::info;

use crate::chain::Chain;
use crate::client::joins::WholeFile;
use crate::client::readings::Reading;
use crate::client::shared::DownloadShared;
use crate::content::{FileId, Geometry, Manifest};
use crate::store::{FetchedFile, StoreError, stamp_of};
use crate::swarm::FileNo;

/// All chunks are in the part, where the readers find them.
pub(super) fn is_whole(shared: &DownloadShared, file: FileNo) {
    shared.state().finished(file);
    shared.settled(file);
    shared.wake_all();
}

/// A verified one-chunk file that is read goes into a part, too: it is taken over as any other. False
/// if the file is to be written.
pub(super) fn keep_small(shared: &DownloadShared, file: FileNo, bytes: &[u8]) -> bool {
    let Some(reading) = &shared.terms.reading else { return false };
    let kept = keep(shared, reading, bytes);
    shared.state().small_written(file);
    match kept {
        Ok(()) => shared.settled(file),
        Err(e) => shared.fail(e.into()),
    }
    true
}

fn keep(shared: &DownloadShared, reading: &Reading, bytes: &[u8]) -> Result<(), StoreError> {
    let Ok(manifest) = Manifest::new(reading.id(), Vec::new()) else { return Ok(()) };
    let part = reading.open_part(&Arc::new(manifest))?;
    if let Some(chunk) = part.manifest().geometry().chunk(0) {
        part.write(chunk, bytes)?;
    }
    if let Some(fetched) = &shared.ctx.fetched {
        fetched.put_partial(part.clone());
    }
    shared.terms.readings.opened(&part);
    Ok(())
}

/// The content is whole in another place of this node: it is read from there. False if it cannot be.
pub(super) fn read_from(shared: &DownloadShared, file: FileNo, reading: &Reading, from: &WholeFile) -> bool {
    let found = match &from.part {
        Some(part) => {
            shared.terms.readings.opened(part);
            Ok(())
        }
        None if reading.has_lost() => Err(io::Error::other("what lies there was not right")),
        None => known_manifest(shared, &reading.id())
            .ok_or_else(|| io::Error::other("its layer is not known"))
            .and_then(|manifest| open_placed(from).map(|file| reading.set_placed(file, manifest))),
    };
    match &found {
        Ok(()) => is_whole(shared, file),
        Err(e) => info!("not read from where it is path={} error=\"{}\"", from.path.display(), Chain(e)),
    }
    found.is_ok()
}

/// Opens a whole file, in the state in which it was verified if that is known.
fn open_placed(from: &WholeFile) -> io::Result<File> {
    let file = File::open(&from.path)?;
    let state = stamp_of(&file.metadata()?);
    match from.verified.is_none_or(|verified| verified == state) {
        true => Ok(file),
        false => Err(io::Error::other("changed since it was fetched")),
    }
}

/// What the chunks of a content are verified against, if this node has it.
fn known_manifest(shared: &DownloadShared, id: &FileId) -> Option<Arc<Manifest>> {
    if !Geometry::new(id.len).needs_layer() {
        return Manifest::new(*id, Vec::new()).ok().map(Arc::new);
    }
    match shared.ctx.fetched.as_ref()?.get(id)? {
        FetchedFile::Whole(_, manifest, _) => Some(manifest),
        FetchedFile::Partial(part) => Some(part.manifest().clone()),
    }
}
