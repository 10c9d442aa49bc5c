//! What is shared: content identity, chunk geometry, names, the catalogue. Pure; tier 1.

mod attributes;
mod bitfield;
mod catalogue;
mod digest;
mod dot_rule;
mod geometry;
pub mod limits;
mod link_path;
mod manifest;
pub mod merkle;
mod pattern;
mod rel_path;
pub mod zeros;

pub use attributes::{Attributes, LinkTo};
pub use bitfield::Bitfield;
pub use catalogue::{Bare, BareNames, Catalogue, CatalogueNotes, Entry, EntryRef, Marks, Stamp};
pub use digest::{Digest, FileId, ParseDigestError, ParseFileIdError, Root};
pub use geometry::{ChunkIndex, ChunkSpan, Geometry};
pub use link_path::{LinkRefusal, follow_link};
pub use manifest::{Manifest, ManifestError};
pub(crate) use pattern::PatternKind;
pub use pattern::{Pattern, PatternError};
pub(crate) use rel_path::dirs_above;
pub use rel_path::{RelPath, RelPathError};
