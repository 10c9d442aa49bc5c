//! Bounds of names and catalogues.

/// Fewest hex digits that count as the prefix of a root.
pub const ROOT_PREFIX_MIN: usize = 8;
/// Entries of one block of a catalogue: a change of one of them copies all of them.
pub const CATALOGUE_BLOCK_ENTRIES: usize = 1024;
