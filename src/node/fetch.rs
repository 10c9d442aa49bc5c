//! A fetch: from the files that were found to files in place.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::{Client, Download, DownloadPlan, FetchError, FileReport, FoundFile, Progress, Report, Target};
use crate::content::{RelPath, RelPathError};
use crate::limits::WAIT_MAX;
use crate::store::{Disk, OwnFiles, warn_of_risk};

/// A running fetch of a [`Node`](crate::Node).
///
/// Dropping it ends it, waits for its threads, and keeps the chunks that arrived: the next fetch of
/// the same files continues from them, also after a restart.
///
/// ```
/// use std::time::Duration;
/// use gpb::testing::Lan;
///
/// # let lan = Lan::new()?;
/// # let server = lan.sharing(&[("a.bin", &[7; 300_000])])?;
/// # let node = lan.node()?;
/// let fetch = node.fetch(&["a.bin"])?;
/// while !fetch.wait_for(Duration::from_millis(200)) {
///     let at = fetch.progress();
///     println!("{} of {} bytes", at.bytes_done, at.bytes);
/// }
/// let dir = fetch.dir().to_path_buf();
/// for file in fetch.wait()?.fetched {
///     println!("{} is {}", file.path, dir.join(file.out.as_str()).display());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Fetch {
    handle: Download,
    dir: PathBuf,
    files: usize,
}

impl Fetch {
    /// Starts to fetch `found` to `place`, unless that would overwrite an own file.
    pub(super) fn start(
        client: &Client,
        found: Vec<FoundFile>,
        place: Destination,
        own_files: &OwnFiles,
    ) -> Result<Self, FetchError> {
        let target = |f: FoundFile| Target {
            out: place.name.clone().unwrap_or_else(|| f.path.clone()),
            path: f.path,
            id: f.id,
            holders: f.holders,
        };
        let files = found.len();
        let targets: Vec<Target> = found.into_iter().map(target).collect();
        own_files.refuse(&place.dir, targets.iter().map(|t| t.out.as_str()))?;
        let disk = Disk::open(&place.dir, place.create)?;
        warn_of_risk(&place.dir);
        let handle = Download::start(DownloadPlan { targets, disk }, client)?;
        Ok(Fetch { handle, dir: place.dir, files })
    }

    /// Waits until all files are whole, verified and in place. Blocks at most for the node's
    /// [`timeout`](crate::Config::timeout) without a byte, however long the files.
    ///
    /// # Errors
    /// [`FetchError`]; chunks that arrived stay on disk, and the next fetch of the same files
    /// continues from them.
    pub fn wait(self) -> Result<Report, FetchError> {
        self.handle.wait()
    }

    /// Waits at most for `time`; true when the fetch has ended, so that [`wait`](Self::wait)
    /// returns at once.
    pub fn wait_for(&self, time: Duration) -> bool {
        self.handle.wait_for(time.min(WAIT_MAX))
    }

    /// How far the fetch is. Does not block.
    pub fn progress(&self) -> Progress {
        self.handle.progress()
    }

    /// The files that were put in place after the first `seen` of them; adds their number to
    /// `seen`. Does not block.
    pub fn fetched(&self, seen: &mut usize) -> Vec<FileReport> {
        self.handle.fetched(seen)
    }

    /// Number of files, each name counted.
    pub fn files(&self) -> usize {
        self.files
    }

    /// The directory that [`FileReport::out`] lies below.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends the fetch within milliseconds; [`wait`](Self::wait) then returns
    /// [`FetchError::Interrupted`]. Does not block.
    pub fn cancel(&self) {
        self.handle.cancel();
    }
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch").field("dir", &self.dir).field("files", &self.files).finish_non_exhaustive()
    }
}

/// The place that fetched files go to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Destination {
    dir: PathBuf,
    create: bool,
    /// The name of the only file, if it is not its own.
    name: Option<RelPath>,
}

impl Destination {
    /// `out` names the file if there is exactly one and `out` is no directory; else it is a
    /// directory, made if it is missing.
    pub(super) fn of(dir: &Path, create: bool, out: Option<&Path>, files: usize) -> Result<Self, FetchError> {
        let Some(out) = out else { return Ok(Destination { dir: dir.into(), create, name: None }) };
        let is_dir = files != 1 || out.is_dir() || out.to_string_lossy().ends_with('/');
        let file_name = (!is_dir).then(|| out.file_name()).flatten();
        let Some(file_name) = file_name else { return Ok(Destination { dir: out.into(), create: true, name: None }) };
        let name = file_name.to_str().ok_or(RelPathError::Character).and_then(RelPath::new);
        let name = name.map_err(|source| FetchError::Out { path: out.into(), source })?;
        let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Destination { dir: parent.into(), create: true, name: Some(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(out: &str, files: usize) -> Destination {
        Destination::of(Path::new("/shared"), false, Some(Path::new(out)), files).unwrap()
    }

    #[test]
    fn out_names_one_file_or_else_a_directory() {
        let name = |n: &str| Some(RelPath::new(n).unwrap());
        assert_eq!(place("/x/y.bin", 1), Destination { dir: "/x".into(), create: true, name: name("y.bin") });
        assert_eq!(place("y.bin", 1), Destination { dir: ".".into(), create: true, name: name("y.bin") });
        assert_eq!(place("/x/y.bin", 2), Destination { dir: "/x/y.bin".into(), create: true, name: None });
        assert_eq!(place("/x/new/", 1), Destination { dir: "/x/new/".into(), create: true, name: None });
        assert_eq!(place("/tmp", 1), Destination { dir: "/tmp".into(), create: true, name: None });
        let kept = Destination::of(Path::new("/shared"), true, None, 1).unwrap();
        assert_eq!(kept, Destination { dir: "/shared".into(), create: true, name: None });
        assert!(matches!(
            Destination::of(Path::new("/s"), true, Some(Path::new("/x/.gpb")), 1),
            Err(FetchError::Out { .. })
        ));
    }
}
