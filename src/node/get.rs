//! A fetch before it starts: what, where to, from which peers, how fast.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use crate::client::{AskScope, Canceller, DownloadOptions, FetchError, FoundFile, Overwrite, Selection, Stats, Want};
use crate::identity::NodeId;
use crate::node::fetch_job::{FetchWriter, Place};
use crate::node::fetch_starter::FetchOrder;
use crate::node::open_reader::OpenReader;
use crate::node::{Fetch, Node, OpenFile};
use crate::store::{Life, LocalName};

/// A fetch that is about to start: [`Node::get`](crate::Node::get) begins it,
/// [`start`](Self::start) starts it.
///
/// ```
/// use gpb::Overwrite;
///
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("models/a.bin", b"a"), ("models/b.bin", b"b")])?;
/// # let node = lan.node()?;
/// # let here = node.config().dir.clone().unwrap_or_default();
/// let files = node.list("models/a.bin")?;
/// let fetch = node
///     .get(&files[0])
///     .to_file(here.join("new/place.bin"))
///     .overwrite(Overwrite::Replace)
///     .from(&files[0].holders)
///     .limit(10_000_000)
///     .start()?;
/// fetch.wait()?;
/// node.get("models").into_dir(here.join("all")).start()?.wait()?;
/// assert_eq!(std::fs::read(here.join("new/place.bin"))?, b"a");
/// assert_eq!(std::fs::read(here.join("all/models/b.bin"))?, b"b");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "it begins with `start`"]
pub struct Get<'n> {
    node: &'n Node,
    want: Want,
    /// None where neither the call nor the node names one.
    place: Option<Place>,
    selection: Selection,
    options: DownloadOptions,
    writer: Option<FetchWriter>,
}

impl<'n> Get<'n> {
    pub(super) fn new(node: &'n Node, want: Want) -> Self {
        let create = node.config.create_dir;
        let place = match node.config.dirs.is_empty() {
            true => node.config.dir.clone().map(|dir| Place::Dir { dir, create }),
            false => Some(Place::NamedDirs { dirs: node.config.places(), create }),
        };
        let selection = Selection { hidden: want.everything, ..Selection::default() };
        Get { node, want, place, selection, options: DownloadOptions::default(), writer: None }
    }

    /// Puts the file at this path; its directory is made if it is missing. What is asked for must
    /// mean one file, else the fetch fails with
    /// [`FetchError::SeveralFiles`]. Unfinished, it lies in `.gpb`
    /// beside the path.
    pub fn to_file(mut self, path: impl Into<PathBuf>) -> Self {
        (self.place, self.writer) = (Some(Place::File(path.into())), None);
        self
    }

    /// Puts the files below this directory, each under its own name; it is made if it is missing.
    /// Default [`Config::dir`](crate::Config::dir), or the one of [`Config::dirs`](crate::Config::dirs)
    /// that their names begin with; files of several such directories are
    /// [`FetchError::SeveralDirs`].
    pub fn into_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        (self.place, self.writer) = (Some(Place::Dir { dir: dir.into(), create: true }), None);
        self
    }

    /// Passes the bytes to `writer` in their order, each verified before: to memory, a pipe, a hash, a
    /// decoder. Nothing becomes a file, and the node needs no directory. What is asked for must mean one
    /// file, else the fetch fails with [`FetchError::NotOneFile`].
    ///
    /// The thread of the fetch writes, at most 32 MiB behind what is fetched, and flushes at the end. A
    /// writer that fails ends the fetch with [`FetchError::Writer`]; one that blocks holds it up, and a
    /// cancel counts when it returns. The report has no path; see [`OpenFile`] for where the bytes lie
    /// meanwhile: without a directory in memory, where a file of more than 256 MiB has no room.
    pub fn to_writer(mut self, writer: impl Write + Send + 'static) -> Self {
        (self.place, self.writer) = (Some(Place::Writer), Some(FetchWriter(Box::new(writer))));
        self
    }

    /// What to do with a different file that lies at the place of one. Default
    /// [`Overwrite::Refuse`].
    pub fn overwrite(mut self, overwrite: Overwrite) -> Self {
        self.options.overwrite = overwrite;
        self
    }

    /// How long the files stay. Default [`Life::Kept`]. Others expire where a node that shares the
    /// directory lets copies expire; see [`Config::retain`](crate::Config::retain). A file that is in
    /// place already, and is kept, stays kept.
    pub fn life(mut self, life: Life) -> Self {
        self.options.life = life;
        self
    }

    /// Narrows down what the names that are looked for mean. Default: wildcards take no leading
    /// dots, and a name with several contents fails.
    pub fn select(mut self, selection: Selection) -> Self {
        self.selection = selection;
        self
    }

    /// Asks only these nodes, for names and for content. Default: all that have it. What is there of a
    /// content, unfinished or open for reading, is gone on from, whichever node sent it.
    ///
    /// A fetch takes what another fetch of the node brings only if both name the same nodes, or
    /// none. With other nodes it fetches the file itself: into another directory at once, into the
    /// same one after the other fetch of the file has ended.
    pub fn from(mut self, nodes: &[NodeId]) -> Self {
        self.options.sources = Some(nodes.into());
        self
    }

    /// Most bytes a second of this fetch; 0 fetches next to nothing. The limit of the node holds
    /// besides. Default: no limit.
    ///
    /// Fetches of one node that want the same file fetch it once. While others wait for a file of
    /// this fetch, the loosest of their limits holds for it.
    pub fn limit(mut self, bytes_per_s: u64) -> Self {
        self.options.limit = Some(bytes_per_s);
        self
    }

    /// Fetches contents alone. Default: files get the modification time of the source, and what is a
    /// program there may be run; symbolic links whose target is fetched too, hard links and empty
    /// directories are made as they are there.
    pub fn contents_only(mut self) -> Self {
        self.options.contents_only = true;
        self
    }

    /// Repairs these files, which the disk has damaged: each is replaced only as it was hashed, and no
    /// record is believed.
    pub(super) fn repairing(mut self, damaged: Vec<LocalName>) -> Self {
        self.options.damaged = Some(damaged.into());
        self
    }

    /// Opens the file for reading while it is fetched. What is asked for must mean one file.
    ///
    /// Blocks until it is found, as [`Node::find`](crate::Node::find), and at most for
    /// [`Config::timeout`](crate::Config::timeout); not at all for a file that was listed. The place
    /// and what to do with files there count for nothing here. A content that is open already is
    /// fetched once for all readers, from the nodes and at the limit of the first.
    ///
    /// # Errors
    /// - the errors of [`Node::find`](crate::Node::find)
    /// - [`FetchError::NotOneFile`]: it means several files
    /// - [`FetchError::TooManyReaders`]: 64 contents are open, or this one 64 times
    /// - [`FetchError::Storage`], [`FetchError::Threads`]: its part cannot be made, or no thread
    pub fn open(self) -> Result<OpenFile, FetchError> {
        let Get { node, want, selection, options, .. } = self;
        want.check()?;
        let (what, canceller) = (want.shown(), Canceller::new());
        let scope = AskScope { nodes: options.sources.clone(), canceller: canceller.clone() };
        let found = node.find_all(want, &selection, (&scope, node.config.timeout))?;
        let files = found.len();
        let one = <[FoundFile; 1]>::try_from(found).map_err(|_| FetchError::NotOneFile { what, files });
        let [found] = one?;
        let files = &node.fetches.open_files;
        let opened = files.open(found, options, Arc::new(Stats::new()))?;
        Ok(OpenFile::new(OpenReader::new(files.clone(), opened, canceller), node.fetches.clone()))
    }

    /// Starts the fetch, and returns at once.
    ///
    /// # Errors
    /// - [`FetchError::NothingAsked`], [`FetchError::Pattern`]: it cannot be looked for
    /// - [`FetchError::NoDirectory`]: no place is given, and the node has no directory
    /// - [`FetchError::Threads`]: the system gave no thread
    ///
    /// All else is an error of [`Fetch::wait`].
    pub fn start(self) -> Result<Fetch, FetchError> {
        let Get { node, want, place, selection, options, writer } = self;
        want.check()?;
        let place = place.ok_or(FetchError::NoDirectory)?;
        node.fetches.start(FetchOrder { want, place, selection, options, writer })
    }
}
