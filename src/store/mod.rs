//! Bytes on disk: partial files, journals, reading what is shared, the index cache. Tier 4.

mod batch_write;
#[cfg(test)]
mod crash_tests;
mod dir_risk;
mod disk;
mod disk_file;
mod disk_folder;
mod disk_volume;
mod error;
mod fetched_files;
mod flusher;
mod holes;
mod index;
mod inspect;
mod journal;
mod leftovers;
pub mod limits;
mod make_dirs;
#[cfg(test)]
pub(crate) mod memory;
mod nearby;
mod offered;
mod open_beneath;
mod overwrite;
mod own_dir;
mod own_files;
mod partial_file;
mod place_guard;
mod placed;
mod publish;
mod read_root;
mod reader;
mod reuse;
mod shared_roots;
mod source;
mod storage;
mod swap;
mod verify_existing;

pub use dir_risk::warn_of_risk;
pub use disk::{Disk, Forecast};
pub use error::StoreError;
pub use fetched_files::{FetchedFile, FetchedFiles};
pub use index::{Hashed, Index, Indexed, Lookup};
pub use inspect::stamp_of;
pub use journal::JournalText;
pub use leftovers::Leftovers;
pub use offered::{OfferedChunk, OfferedFile, OfferedFiles};
pub use overwrite::Overwrite;
pub use own_files::OwnFiles;
pub(crate) use own_files::is_one_of;
pub use partial_file::{CheckedChunk, ChunkOrigin, PartialFile};
pub use read_root::ReadRoot;
pub use reader::{ChunkReader, Reader};
pub use reuse::{KnownCopy, ReuseSource};
pub use shared_roots::{SharedRoot, SharedRoots, place_of};
pub use source::{ReadAt, Source, SourceError};

/// The name of the directory in which a node keeps unfinished files, below the one that it writes
/// to.
const OWN: &str = ".gpb";
