//! Bytes on disk: partial files, journals, reading what is shared, the index cache. Tier 4.

mod bare_id;
mod batch_write;
mod copies;
#[cfg(test)]
mod crash_tests;
mod dir_risk;
mod disk;
mod disk_file;
mod disk_folder;
mod disk_names;
mod disk_volume;
mod disk_volume_bare;
mod dress;
mod error;
mod expiring_dir;
mod fetched_files;
mod flusher;
mod holes;
mod in_memory;
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
mod place_bare;
mod place_copy;
mod place_guard;
mod placed;
mod private_file;
mod publish;
mod read_back;
mod read_parts;
mod read_root;
mod reader;
mod reuse;
mod shared_roots;
mod source;
mod storage;
mod swap;
mod used_names;
mod verify_existing;
mod write_watch;

pub use copies::Copies;
pub use dir_risk::warn_of_risk;
pub use disk::{Disk, Forecast, KnownContent, LinkText, SharedInodes};
pub use disk_volume::{LocalKind, LocalName, LocalTree};
pub use error::StoreError;
#[cfg(test)]
pub(crate) use expiring_dir::placed_at;
pub(crate) use expiring_dir::{ExpiringDir, RemovedCopies};
pub use fetched_files::{FetchedFile, FetchedFiles};
pub use index::{Hashed, Index, Indexed, Lookup};
pub use inspect::stamp_of;
pub use journal::JournalText;
pub use leftovers::Leftovers;
pub(crate) use make_dirs::make_dirs;
pub use offered::{OfferedChunk, OfferedFile, OfferedFiles};
pub use overwrite::Overwrite;
pub use own_files::OwnFiles;
pub(crate) use own_files::is_one_of;
pub use partial_file::{CheckedChunk, ChunkOrigin, PartialFile};
pub(crate) use placed::ExpiringFile;
pub use placed::Life;
pub(crate) use private_file::replace_private;
pub use read_parts::ReadParts;
pub use read_root::ReadRoot;
pub use reader::{ChunkReader, Reader, is_passing};
pub use reuse::{KnownCopy, ReuseSource};
pub use shared_roots::{SharedRoot, SharedRoots, place_of};
pub use source::{ReadAt, Source, SourceError};
pub use used_names::UsedNames;

/// The name of the directory in which a node keeps unfinished files, below the one that it writes
/// to.
const OWN: &str = ".gpb";
