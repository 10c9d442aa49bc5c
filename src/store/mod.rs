//! Bytes on disk: partial files, journals, reading what is shared, the index cache. Tier 4.

mod beneath;
mod disk;
mod error;
mod flusher;
mod index;
mod journal;
mod landing;
pub mod limits;
#[cfg(test)]
mod memory;
mod own_files;
mod part;
mod partial;
mod present;
mod reader;
mod shelf;
mod small;
mod storage;
mod volume_dir;

pub use beneath::{Beneath, stamp_of};
pub use disk::Disk;
pub use error::StoreError;
pub use index::{Hashed, Index, Indexed, Lookup};
pub use own_files::OwnFiles;
pub(crate) use own_files::is_one_of;
pub use partial::PartialFile;
pub use reader::{ChunkReader, Reader};
pub use shelf::{Shelf, Shelved};
