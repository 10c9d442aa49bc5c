//! Bytes on disk: partial files, journals, reading what is shared, the index cache. Floor 4.

mod beneath;
mod disk;
mod index;
mod partial;
mod reader;
mod shelf;

pub use beneath::{Beneath, stamp_of};
pub use disk::{Disk, StoreError};
pub use index::{Hashed, Index, Indexed, Lookup};
pub use partial::PartialFile;
pub use reader::{ChunkReader, Reader};
pub use shelf::{Shelf, Shelved};
