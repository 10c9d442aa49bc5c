//! What lies below the directory already, under other names or in older versions.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use rustix::fs::{self, FileType};

use crate::content::{FileId, Manifest, RelPath, Stamp};
use crate::store::StoreError;
use crate::store::disk::Disk;
use crate::store::inspect::state_of_open;
use crate::store::leftovers;
use crate::store::limits::{COPY_TRIES, REUSE_SOURCES_MAX};
use crate::store::nearby::Nearby;
use crate::store::placed::PlacedState;
use crate::store::reuse::{KnownCopy, ReuseSource};
use crate::store::storage::Volume;
use crate::store::verify_existing::VerifiedFile;

impl Disk {
    /// A file below the directory that has the content `id` as far as is known: a fetch put it there. It
    /// is still in the state that it was left in, or was moved since, and then has to be hashed; so has
    /// each in a repair.
    pub fn copy_of(&self, id: &FileId) -> Option<KnownCopy> {
        let places = self.volume.guard()?.places_of(id);
        let is_unchanged = |(path, state): &&(RelPath, PlacedState)| {
            state.len == id.len && self.volume.state_of(path) == Some((FileType::RegularFile, *state))
        };
        if let Some((path, state)) = places.iter().find(is_unchanged) {
            // A power loss may have kept bytes that were written to it, and lost the times of that.
            let is_believed = !self.reads_all() && is_since_start(state.ctime_ns, *STARTED_NS);
            let verified = Some(state.stamp()).filter(|_| is_believed);
            return Some(KnownCopy { path: path.clone(), verified });
        }
        if let Some((path, _)) = places.first().filter(|_| self.held(id).is_some()) {
            return Some(KnownCopy { path: path.clone(), verified: None });
        }
        let moved = |(_, placed): &(RelPath, PlacedState)| {
            let path = self.nearby().moved(placed)?;
            let (kind, state) = self.volume.state_of(path)?;
            // A rename changes the ctime alone.
            let is_same = state.is_renamed(placed);
            (kind == FileType::RegularFile && is_same && state.len == id.len).then(|| path.clone())
        };
        places.iter().find_map(moved).map(|path| KnownCopy { path, verified: None })
    }

    /// The file at `path`, which was hashed in the state `hashed` and had the content `id`, if it is still in that. It
    /// is hashed again: a change within one tick of the clock has left no trace.
    pub fn copy_at(&self, path: RelPath, id: &FileId, hashed: &Stamp) -> Option<KnownCopy> {
        let (kind, state) = self.volume.state_of(&path)?;
        let is_unchanged = kind == FileType::RegularFile && (state.len, state.stamp()) == (id.len, *hashed);
        is_unchanged.then_some(KnownCopy { path, verified: None })
    }

    /// Makes `paths` copies of `copy`, which has the content `id` while it is in its state, or else is read
    /// and hashed. Returns one result for each path.
    ///
    /// # Errors
    /// [`StoreError`]: the copy has changed, is gone, or cannot be read.
    pub fn reuse(
        &self,
        paths: &[RelPath],
        id: &FileId,
        copy: &KnownCopy,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut tries = COPY_TRIES;
        loop {
            tries -= 1;
            let whole = self.open_copy(id, copy, stop)?;
            let is_it = |path| self.volume.open_file(path).is_ok_and(|there| whole.is(&there));
            let copy_to = |path| if is_it(path) { Ok(()) } else { self.try_copy(&whole, id, path) };
            let results: Vec<_> = paths.iter().map(copy_to).collect();
            // Each was put in place while the file was in one state.
            if results.iter().all(Result::is_ok) {
                self.let_go(id);
                return Ok(results);
            }
            // One that changed on the way is no failure of the places. Losing its name is a change, too.
            match whole.check_unchanged() {
                Ok(()) => return self.copied(id, results),
                Err(_) if tries > 0 => {}
                Err(e) => return Err(StoreError::at(self.volume.path_of(&copy.path), e)),
            }
        }
    }

    /// What became of the copies of `id`. One that found no room is left to a fetch, which asks for room before it
    /// begins, and whose lack of it ends nothing else; a file that is only held takes room no longer then.
    fn copied(
        &self,
        id: &FileId,
        mut results: Vec<Result<(), StoreError>>,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        match results.iter().position(|result| matches!(result, Err(StoreError::NoSpace { .. }))) {
            Some(at) => {
                self.let_go(id);
                results.swap_remove(at).map(|()| Vec::new())
            }
            None => Ok(results),
        }
    }

    /// Reads `copy` of the content `id` into memory.
    ///
    /// # Errors
    /// As [`reuse`](Self::reuse).
    pub fn read_copy(&self, id: &FileId, copy: &KnownCopy) -> Result<Vec<u8>, StoreError> {
        let at = |e| StoreError::at(self.volume.path_of(&copy.path), e);
        let mut tries = COPY_TRIES;
        loop {
            tries -= 1;
            let whole = self.open_copy(id, copy, &|| false)?;
            let mut bytes = vec![0; id.len as usize];
            whole.file().and_then(|file| file.read_exact_at(&mut bytes, 0)).map_err(at)?;
            match whole.check_unchanged() {
                Err(_) if tries > 0 => {}
                unchanged => return unchanged.map(|()| bytes).map_err(at),
            }
        }
    }

    fn open_copy(
        &self,
        id: &FileId,
        copy: &KnownCopy,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<VerifiedFile, StoreError> {
        let at = |e| StoreError::at(self.volume.path_of(&copy.path), e);
        let by_name = self.volume.open_file(&copy.path).map_err(at).map(|file| match copy.verified {
            Some(stamp) => VerifiedFile::known(file, id, stamp),
            None => VerifiedFile::check(file, id, stop),
        });
        // Another file may have its name by now.
        let by_file = || (0..COPY_TRIES).find_map(|_| VerifiedFile::check(self.held(id)?, id, stop));
        let whole = match by_name {
            Ok(whole) => whole.or_else(by_file),
            Err(e) => Some(by_file().ok_or(e)?),
        };
        whole.ok_or_else(|| at(io::Error::other("changed since it was fetched")))
    }

    /// Files where chunks of `manifest` may be found: the regular files that lie at `paths`, of which
    /// each may be an older version, what an earlier fetch left of a version that changed meanwhile, and others below
    /// the directory that seem to be the same content.
    pub fn reuse_sources(&self, paths: &[RelPath], manifest: &Manifest) -> Vec<ReuseSource> {
        let mut sources: Vec<ReuseSource> = paths.iter().filter_map(|path| self.older_version(path)).collect();
        let parts = leftovers::let_go(&*self.volume, &manifest.id());
        sources.extend(parts.into_iter().map(|part| ReuseSource::new(part, manifest.id().len)));
        let others = self.nearby().of_len(manifest.id().len).iter().filter(|other| !paths.contains(other));
        let seems_same = |source: &ReuseSource| source.seems_to_be(manifest);
        sources.extend(others.filter_map(|other| self.reuse_source(other)).filter(seems_same));
        sources.truncate(REUSE_SOURCES_MAX);
        sources
    }

    fn reuse_source(&self, path: &RelPath) -> Option<ReuseSource> {
        let file = self.volume.open_file(path).ok()?;
        let len = file.metadata().ok()?.len();
        (len > 0).then(|| ReuseSource::new(self.volume.storage(file.into()), len))
    }

    /// As [`reuse_source`](Self::reuse_source), with its layer if a fetch left it so.
    fn older_version(&self, path: &RelPath) -> Option<ReuseSource> {
        let file = self.volume.open_file(path).ok()?;
        let state = state_of_open(&file).filter(|state| state.len > 0)?;
        let guard = self.volume.guard().filter(|_| tells_of_changes(&file));
        let layer = guard.and_then(|guard| guard.layer_at(path, &state));
        let source = ReuseSource::new(self.volume.storage(file.into()), state.len);
        Some(source.with_layer(layer, state.stamp()))
    }

    /// What lies below the directory; found out when it is first asked for.
    fn nearby(&self) -> &Nearby {
        self.nearby.get_or_init(|| self.volume.walk())
    }
}

/// Whether each write to the file is seen in its times at once, to the nanosecond or to a tick: on the usual
/// local file systems. Network file systems answer from a cache.
fn tells_of_changes(file: &File) -> bool {
    fs::fstatfs(file).is_ok_and(|stat| LOCAL.contains(&(stat.f_type as u64 & 0xffff_ffff)))
}

/// Whether a file was placed since the system was started, as far as is known when that was.
fn is_since_start(ctime_ns: i64, started_ns: Option<i64>) -> bool {
    started_ns.is_some_and(|started| ctime_ns >= started)
}

/// When the system was started, in ns since the Unix epoch.
static STARTED_NS: LazyLock<Option<i64>> = LazyLock::new(|| {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let up = Duration::try_from_secs_f64(uptime.split_whitespace().next()?.parse().ok()?).ok()?;
    let now = SystemTime::UNIX_EPOCH.elapsed().ok()?;
    i64::try_from(now.checked_sub(up)?.as_nanos()).ok()
});

/// File system types of ext2 to ext4, XFS, Btrfs, F2FS and tmpfs.
const LOCAL: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_placed_before_the_system_was_started_is_hashed() {
        assert!(is_since_start(5, Some(5)) && !is_since_start(4, Some(5)) && !is_since_start(5, None));
        let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
        assert!(STARTED_NS.is_none_or(|started| (1..=now).contains(&started)));
    }
}
