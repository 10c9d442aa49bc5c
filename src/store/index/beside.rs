//! One database for several directories of a node.

use std::io;
use std::path::Path;
use std::sync::RwLock;

use crate::store::index::Index;
use crate::store::index::database::prepare;
use crate::sync::read_lock;

impl Index {
    /// The same database for the directory `dir` of the same node: a second one of the state directory
    /// could not be opened.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn beside(&self, dir: &Path) -> io::Result<Self> {
        let name = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
        let name = name.as_os_str().as_encoded_bytes().to_vec();
        let mut open = read_lock(&self.open).clone();
        open.dir = prepare(&open.database, &name).map_err(io::Error::other)?;
        let [has_fresh, replaced, complained] = Default::default();
        Ok(Index { open: RwLock::new(open), state: self.state.clone(), name, has_fresh, replaced, complained })
    }
}
