//! Bounds of names and trees.

/// Fewest hex digits that are taken as the prefix of a root.
pub const ROOT_PREFIX_MIN: usize = 8;
/// Most entries of a catalogue that are kept together: a change of one of them copies all of these.
pub const CATALOGUE_BLOCK_ENTRIES: usize = 1024;
