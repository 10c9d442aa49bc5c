//! How far a download is, and what came of it.

use crate::content::{FileId, RelPath};
use crate::identity::PeerId;

/// How far a download is.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("docs/a.txt", b"hello")])?;
/// # let node = lan.node()?;
/// let fetch = node.fetch(&["docs/a.txt"])?;
/// let at = fetch.progress();
/// println!("{} of {} files, {} of {} bytes", at.files_done, at.files, at.bytes_done, at.bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Different files in all.
    pub files: usize,
    /// Files that are whole and in place.
    pub files_done: usize,
    /// Bytes of all different files.
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
/// let report = node.fetch(&["docs"])?.wait()?;
/// for (peer, bytes) in &report.peers {
///     println!("{bytes} of {} bytes from {peer}", report.bytes);
/// }
/// assert_eq!((report.files, report.bytes, report.skipped), (1, 5, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Paths that are in place, paths that were there before included.
    pub files: usize,
    /// Paths that were there before.
    pub skipped: usize,
    /// Verified bytes that came from peers.
    pub bytes: u64,
    /// From start to end.
    pub seconds: f64,
    /// Dials after a failure.
    pub retries: u64,
    /// Bytes that came and were of no use: wrong, or there already.
    pub wasted: u64,
    /// Requests that another peer had to answer.
    pub redirects: u64,
    /// Bytes that were hashed again to resume.
    pub rehashed: u64,
    /// Bytes from each peer, most first.
    pub peers: Vec<(PeerId, u64)>,
    /// Each path.
    pub fetched: Vec<FileReport>,
}

/// One path of a download.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("docs/a.txt", b"hello")])?;
/// # let node = lan.node()?;
/// let report = node.fetch_to(&["docs/a.txt"], Some(&node.config().dir.join("b.txt")))?.wait()?;
/// let file = &report.fetched[0];
/// assert_eq!((file.path.as_str(), file.out.as_str()), ("docs/a.txt", "b.txt"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
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
