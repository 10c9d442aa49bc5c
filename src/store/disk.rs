//! The directory that a node downloads into.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::path::{self, Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

use rustix::io::Errno;

use crate::chain::Chain;
use crate::content::{FileId, Manifest, RelPath, Stamp};
use crate::store::batch_write::batch_write;
use crate::store::disk_volume::DiskVolume;
use crate::store::flusher::Flusher;
use crate::store::leftovers::{self, Leftovers, Spared};
use crate::store::limits::BATCH_OPEN_MAX;
use crate::store::nearby::Nearby;
use crate::store::place_copy::place_copy;
use crate::store::storage::Volume;
use crate::store::verify_existing::VerifiedFile;
use crate::store::{Life, Overwrite, PartialFile, StoreError};
use crate::sync::{PanicAlarm, lock};

mod attributes;
mod bare;
mod check;
mod elsewhere;
mod forecast;
mod held;
mod here;
mod lies_there;
mod made;
mod tree;

pub use bare::LinkText;
pub use check::KnownContent;
pub use forecast::Forecast;
use held::HeldFiles;
pub use tree::SharedInodes;

/// An open directory. Nothing outside of it is opened or written.
///
/// Unfinished files lie in `.gpb` below it, which exists only while there are any.
#[derive(Debug)]
pub struct Disk {
    volume: Arc<DiskVolume>,
    /// Its path from the root on, as the working directory was when it was opened.
    absolute: Option<PathBuf>,
    /// The thread that journals, started with the first partial file.
    flusher: Mutex<Option<Arc<Flusher>>>,
    nearby: OnceLock<Nearby>,
    held: Mutex<HeldFiles>,
    /// What a panic of that thread ends.
    alarm: OnceLock<PanicAlarm>,
}

impl Disk {
    /// Opens the directory `dir`. It must exist unless `create` is set: then it is created with its
    /// parents.
    ///
    /// # Errors
    /// [`StoreError::MissingDirectory`], [`StoreError::NotADirectory`], [`StoreError::Permission`],
    /// or what else keeps it from being used.
    pub fn open(dir: &Path, create: bool) -> Result<Arc<Self>, StoreError> {
        Ok(Self::on(DiskVolume::open(dir, create)?))
    }

    /// Nothing is known of what lies there yet.
    fn on(volume: DiskVolume) -> Arc<Self> {
        Arc::new(Disk {
            absolute: path::absolute(volume.path()).ok(),
            volume: Arc::new(volume),
            flusher: Mutex::new(None),
            nearby: OnceLock::new(),
            held: Mutex::default(),
            alarm: OnceLock::new(),
        })
    }

    /// As [`open`](Disk::open), but `overwrite` decides about files that are there already; without
    /// it each is replaced. What is put in place is recorded in the directory `state`, as kept.
    ///
    /// # Errors
    /// As [`open`](Disk::open).
    pub fn open_guarded(
        dir: &Path,
        create: bool,
        overwrite: Overwrite,
        state: Option<&Path>,
    ) -> Result<Arc<Self>, StoreError> {
        Self::open_for(dir, create, overwrite, state, Life::Kept)
    }

    /// As [`open_guarded`](Disk::open_guarded), with the `life` of what is put in place.
    ///
    /// # Errors
    /// As [`open`](Disk::open).
    pub fn open_for(
        dir: &Path,
        create: bool,
        overwrite: Overwrite,
        state: Option<&Path>,
        life: Life,
    ) -> Result<Arc<Self>, StoreError> {
        Ok(Self::on(DiskVolume::open(dir, create)?.guarded(overwrite, state, life)))
    }

    /// From now on a panic of the thread that journals rings `alarm`; the first alarm stays.
    pub(crate) fn alarmed(&self, alarm: PanicAlarm) {
        let _ = self.alarm.set(alarm);
    }

    /// The directory, as it was given to [`open`](Disk::open).
    pub fn path(&self) -> &Path {
        self.volume.path()
    }

    /// Opens or resumes the partial file of `manifest` and reserves its space.
    /// [`PartialFile::write`] and [`PartialFile::finish`] make it whole. It serves files of several
    /// chunks, and any file that is worth a journal.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] with the number of missing bytes, before anything is written;
    /// [`StoreError::Busy`] while another download writes the file; or the reason why it cannot be
    /// written.
    pub fn partial(self: &Arc<Self>, manifest: Arc<Manifest>) -> Result<Arc<PartialFile>, StoreError> {
        Ok(Arc::new(PartialFile::open(self.volume.clone(), self.flusher()?, manifest)?))
    }

    /// Makes `paths` hold `id`, which another download put whole at `source`. A path that is that
    /// very file is left as it is. The source counts as verified while it has the stamp that
    /// `verified` names; else, and in a repair, it is read and hashed. Returns one result for each path.
    ///
    /// # Errors
    /// [`StoreError`]: the source has changed or is gone.
    pub fn take_over(
        &self,
        paths: &[RelPath],
        id: &FileId,
        (source, verified): (&Path, Option<Stamp>),
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let file = File::open(source).map_err(|e| StoreError::at(source, e))?;
        let whole = match verified.filter(|_| !self.reads_all()) {
            Some(stamp) => VerifiedFile::known(file, id, stamp),
            None => VerifiedFile::check(file, id, stop),
        };
        let whole = whole.ok_or_else(|| StoreError::at(source, io::Error::other("changed since it was fetched")))?;
        let is_it = |path| self.volume.open_file(path).is_ok_and(|there| whole.is(&there));
        Ok(paths.iter().map(|path| if is_it(path) { Ok(()) } else { self.try_copy(&whole, id, path) }).collect())
    }

    /// Whether a fetch put `id` at `path`, where it still is in the state that it was left in.
    fn is_placed(&self, path: &RelPath, id: &FileId) -> bool {
        let (guard, state) = (self.volume.guard(), self.volume.state_of(path));
        guard.zip(state).is_some_and(|(guard, (_, state))| guard.is_placed(path, id, &state))
    }

    /// Puts a whole partial file in place, as `PartialFile::finish_each`.
    ///
    /// # Errors
    /// As there.
    pub fn put_in_place(
        &self,
        file: &PartialFile,
        paths: &[RelPath],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let id = file.manifest().id();
        let placed = self.recording(paths.iter().map(|path| (path, id)), || file.finish_each(&*self.volume, paths));
        if let (Some(guard), true) = (self.volume.guard(), placed.iter().flatten().any(Result::is_ok)) {
            guard.keep_layer(file.manifest());
        }
        placed
    }

    /// Takes over a whole part that is read: it gets the first of `paths` as its name if it lies in
    /// the own directory of this disk, and is copied to all others. One result for each of `paths`.
    ///
    /// # Errors
    /// [`StoreError`] if it can be put at none of them; [`StoreError::NotWhole`] when chunks are
    /// missing.
    pub fn take_part(&self, part: &PartialFile, paths: &[RelPath]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        if self.has_part(part) {
            return self.put_in_place(part, paths);
        }
        let id = part.manifest().id();
        let copied = self.recording(paths.iter().map(|path| (path, id)), || {
            self.volume.make_own()?;
            Ok::<_, StoreError>(paths.iter().map(|path| part.copy_to(&*self.volume, path)).collect())
        });
        self.volume.tidy();
        copied
    }

    /// Whether a part lies in the own directory of this disk.
    pub fn has_part(&self, part: &PartialFile) -> bool {
        part.lies_in(&*self.volume)
    }

    /// The state in which `path` was put in place by this handle, once.
    pub fn take_stamp(&self, path: &RelPath) -> Option<Stamp> {
        self.volume.guard()?.take_stamp(path)
    }

    /// Records what `place` puts where. It returns one result for each of `files`.
    fn recording<'p, E>(
        &self,
        files: impl Iterator<Item = (&'p RelPath, FileId)> + Clone,
        place: impl FnOnce() -> Result<Vec<Result<(), StoreError>>, E>,
    ) -> Result<Vec<Result<(), StoreError>>, E> {
        let Some(guard) = self.volume.guard() else { return place() };
        self.hold(files.clone());
        guard.begin(files.clone());
        let results = place();
        let failed = |at: usize| results.as_ref().map_or(true, |all| all.get(at).is_none_or(Result::is_err));
        for (at, (path, id)) in files.enumerate() {
            guard.end(path, failed(at));
            if !failed(at) {
                self.let_go(&id);
            }
        }
        results
    }

    /// Makes `path` a copy of `whole`. After a failure the file is fetched instead, which gives the
    /// better error.
    fn copy(&self, whole: &VerifiedFile, id: &FileId, path: &RelPath) -> bool {
        self.try_copy(whole, id, path)
            .inspect_err(|e| log::info!("not copied from a file that is there path={path} error=\"{}\"", Chain(e)))
            .is_ok()
    }

    fn try_copy(&self, whole: &VerifiedFile, id: &FileId, path: &RelPath) -> Result<(), StoreError> {
        self.hold([(path, *id)].into_iter());
        if let Some(guard) = self.volume.guard() {
            guard.begin([(path, *id)]);
        }
        let copied = whole.file().map_err(|e| StoreError::at(self.volume.path_of(path), e)).and_then(|file| {
            self.volume.make_own()?;
            place_copy(&*self.volume, &*self.volume.storage(file.into()), id.len, path, || whole.check_unchanged())
        });
        self.volume.tidy();
        if let Some(guard) = self.volume.guard() {
            guard.end(path, copied.is_err());
        }
        copied
    }

    /// Writes many whole, verified files of at most one chunk: each under a temporary name, with
    /// few syncs for all, then renamed to its final name. Returns one result for each file. A final
    /// name holds either its whole new content or what was there before. Batches of hundreds of
    /// files are the most efficient.
    pub fn batch_write<B: AsRef<[u8]>>(&self, files: &[(RelPath, FileId, B)]) -> Vec<Result<(), StoreError>> {
        let ids = files.iter().map(|(path, id, _)| (path, *id));
        // Where nothing has to be made durable, large batches save nothing.
        let at_once = if self.is_durable() { files.len().max(1) } else { BATCH_OPEN_MAX };
        let write = || files.chunks(at_once).flat_map(|some| batch_write(&*self.volume, some)).collect();
        let written = self.recording(ids, || Ok::<_, Infallible>(write()));
        written.unwrap_or_else(|never| match never {})
    }

    /// Whether the directory in which `path` is to lie does not exist, so that none of the files
    /// for it do.
    ///
    /// # Errors
    /// [`StoreError::OtherMount`] if no finished file can be renamed into that directory;
    /// [`StoreError::NameTaken`] and [`StoreError::Permission`] if it cannot be one, or not be
    /// looked into.
    pub fn lacks_parent(&self, path: &RelPath) -> Result<bool, StoreError> {
        let Some((parent, _)) = path.as_str().rsplit_once('/') else { return Ok(false) };
        match self.volume.is_same_mount(parent) {
            Ok(true) => Ok(false),
            Ok(false) => Err(StoreError::OtherMount { path: self.path().join(parent) }),
            Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTDIR | Errno::LOOP) if self.is_own_on_the_way(parent) => Ok(true),
            Err(e @ (Errno::NOTDIR | Errno::LOOP)) => Err(StoreError::at(self.volume.no_directory(parent), e)),
            Err(e @ Errno::ACCESS) => Err(StoreError::at(self.path().join(parent), e)),
            // Placing a file there reports whatever else is wrong with it.
            Err(_) => Ok(false),
        }
    }

    /// Removes abandoned leftovers of earlier fetches, but nothing of `wanted`: partial files
    /// of which no byte was written for 30 days, and those without a journal after an hour, unless
    /// a process uses them. What stays of other files.
    pub fn sweep(&self, wanted: &[FileId]) -> Leftovers {
        self.sweep_but(wanted, Spared::OlderVersions)
    }

    /// As [`sweep`](Self::sweep), where room is scarce: also what chunks of older versions might be taken from.
    pub fn sweep_for_room(&self, wanted: &[FileId]) -> Leftovers {
        self.sweep_but(wanted, Spared::Nothing)
    }

    fn sweep_but(&self, wanted: &[FileId], spared: Spared) -> Leftovers {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let left = leftovers::sweep(&*self.volume, wanted, spared, now);
        self.volume.tidy();
        left
    }

    /// Whether written data has to be made durable, which takes time. False where files live in
    /// memory.
    pub fn is_durable(&self) -> bool {
        !self.volume.is_in_memory()
    }

    /// Brings the record of what was put in place up to date, at the end of a download.
    pub fn finish_record(&self) {
        if let Some(guard) = self.volume.guard() {
            guard.finish(self.is_durable());
        }
    }

    /// Removes the node's own directory if it is empty. A partial file does that when it ends; a
    /// download calls it after its small files.
    pub fn tidy(&self) {
        self.volume.tidy();
    }

    /// Number of bytes that this process may still write where the directory lies.
    ///
    /// # Errors
    /// [`StoreError`] if the system cannot answer.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        self.volume.free_bytes().map_err(|e| StoreError::at(self.path(), e))
    }

    /// Whether names can be made in the directory.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] and [`StoreError::Permission`]
    pub fn check_writable(&self) -> Result<(), StoreError> {
        self.volume.check_writable().map_err(|e| StoreError::at(self.path(), e))
    }

    /// Number of bytes that this process may still write where the directory lies, and the size of the
    /// file system.
    ///
    /// # Errors
    /// [`StoreError`] if the system cannot answer.
    pub fn room(&self) -> Result<(u64, u64), StoreError> {
        self.volume.room().map_err(|e| StoreError::at(self.path(), e))
    }

    /// Has the thread that journals panic.
    #[cfg(test)]
    pub(crate) fn panic_in_journal(&self) {
        if let Ok(flusher) = self.flusher() {
            flusher.panic();
        }
    }

    fn flusher(&self) -> Result<Arc<Flusher>, StoreError> {
        let mut flusher = lock(&self.flusher);
        if let Some(running) = &*flusher {
            return Ok(running.clone());
        }
        let alarm = self.alarm.get().cloned().unwrap_or_default();
        let started = Arc::new(Flusher::start(&alarm).map_err(|e| StoreError::at(self.path(), e))?);
        *flusher = Some(started.clone());
        Ok(started)
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
