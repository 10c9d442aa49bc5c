//! How far a download is, and what came of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::client::{FailedFile, FetchError};
use crate::content::{FileId, RelPath};
use crate::identity::PeerId;

/// What a fetch does at the moment; part of [`Progress`].
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("docs/a.txt", b"hello")])?;
/// # let node = lan.node()?;
/// let fetch = node.fetch("docs/a.txt")?;
/// fetch.wait()?;
/// assert_eq!(fetch.progress().phase, gpb::Phase::Ended);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Phase {
    /// It looks for what was asked for; the numbers are 0.
    #[default]
    Searching,
    /// It fetches, or looks whether the files are there already.
    Fetching,
    /// It rests, until it is resumed.
    Paused,
    /// It is over, well or not.
    Ended,
}

/// How far a fetch is.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("docs/a.txt", b"hello")])?;
/// # let node = lan.node()?;
/// let fetch = node.fetch("docs/a.txt")?;
/// let at = fetch.progress();
/// println!("{} of {} files, {} of {} bytes", at.files_done, at.files, at.bytes_done, at.bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Progress {
    /// What it does at the moment.
    pub phase: Phase,
    /// Paths that are to be in place in the end.
    pub files: usize,
    /// Paths that are in place.
    pub files_done: usize,
    /// Bytes of all different contents.
    pub bytes: u64,
    /// Bytes that are there, bytes from earlier runs included.
    pub bytes_done: u64,
    /// Bytes that came from peers in this run.
    pub bytes_fetched: u64,
    /// Seconds since the start.
    pub seconds: f64,
    /// Peers that sent something useful.
    pub peers: usize,
}

/// What came of a finished download.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("docs/a.txt", b"hello")])?;
/// # let node = lan.node()?;
/// let report = node.fetch("docs")?.wait()?;
/// for (peer, bytes) in &report.peers {
///     println!("{bytes} of {} bytes from {peer}", report.bytes);
/// }
/// assert_eq!((report.files, report.bytes, report.skipped), (1, 5, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Report {
    /// The directory that [`FileReport::out`] lies below.
    pub dir: PathBuf,
    /// Paths that are in place, paths that were there before included.
    pub files: usize,
    /// Paths that were there before.
    pub skipped: usize,
    /// Verified bytes that came from peers.
    pub bytes: u64,
    /// Bytes that no peer had to send.
    pub local: LocalBytes,
    /// From start to end.
    pub seconds: f64,
    /// Dials after a failure.
    pub retries: u64,
    /// Bytes that came and were of no use: wrong, or there already.
    pub wasted: u64,
    /// Requests that another peer had to answer.
    pub redirects: u64,
    /// Bytes from each peer, most first.
    pub peers: Vec<(PeerId, u64)>,
    /// Each path.
    pub fetched: Vec<FileReport>,
    /// Each name that is not there, and why.
    pub failed: Vec<FailedFile>,
}

/// Bytes that no peer had to send; part of a [`Report`]. Files that were in place before are not among
/// them.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("zeros.img", &[0; 100_000])])?;
/// # let node = lan.node()?;
/// let report = node.fetch("zeros.img")?.wait()?;
/// assert_eq!((report.bytes, report.local.holes), (0, 100_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LocalBytes {
    /// Bytes that were copied from files on the disk: an older version, or the same content under
    /// another name.
    pub reused: u64,
    /// Bytes of zeros, which are known by their digests. On most file systems they take no room.
    pub holes: u64,
    /// Bytes that an earlier fetch left, and that were hashed again to resume.
    pub rehashed: u64,
}

/// What came of a download.
#[derive(Debug)]
pub struct DownloadEnd {
    /// What is in place, what is not, and where it came from.
    pub report: Report,
    /// Why not all of it: the gravest cause.
    pub error: Option<Arc<FetchError>>,
}

/// How a fetch failed: why, and what it reached before.
///
/// It reads as its error. Chunks that arrived stay on disk, and the next fetch of the same files
/// continues from them.
///
/// ```no_run
/// # let node = gpb::Node::builder().dir("/data").start()?;
/// if let Err(failed) = node.fetch("models")?.wait() {
///     println!("{failed}; {} files are in place", failed.report.files);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Failed {
    /// Why.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::chain::as_text"))]
    pub error: Arc<FetchError>,
    /// What is in place, and where the bytes came from.
    pub report: Arc<Report>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Its message is shown already.
        self.error.source()
    }
}

/// One path of a download.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("docs/a.txt", b"hello")])?;
/// # let node = lan.node()?;
/// # let place = node.config().dir.clone().unwrap_or_default().join("b.txt");
/// let report = node.get("docs/a.txt").to_file(&place).start()?.wait()?;
/// let file = &report.fetched[0];
/// assert_eq!((file.path.as_str(), file.out.as_str()), ("docs/a.txt", "b.txt"));
/// assert_eq!(report.dir.join(file.out.as_str()), place);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct FileReport {
    /// The name under which it is shared.
    pub path: RelPath,
    /// Its content.
    pub id: FileId,
    /// Where it is, below the directory of the download.
    pub out: RelPath,
    /// Seconds from the start of the download until it was in place.
    pub seconds: f64,
    /// Whether it was there before.
    pub skipped: bool,
}
