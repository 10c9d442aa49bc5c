//! The names whose content was given to other nodes since the last look.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::store::limits::USED_NAMES_MAX;
use crate::store::placed::hash_of;
use crate::sync::lock;

/// Takes note of the files that are used, by a hash of their names: what is used expires last.
#[derive(Debug, Default)]
pub struct UsedNames(Mutex<HashSet<u64>>);

impl UsedNames {
    /// The file `name` is used now. Of more than [`USED_NAMES_MAX`] names between two looks the
    /// further ones are not noted.
    pub fn note(&self, name: &str) {
        let mut names = lock(&self.0);
        if names.len() < USED_NAMES_MAX {
            names.insert(hash_of(name.as_bytes()));
        }
    }

    /// The hashes of the names that were noted since the last call.
    pub(crate) fn take(&self) -> HashSet<u64> {
        std::mem::take(&mut *lock(&self.0))
    }
}
