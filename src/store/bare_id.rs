//! What stands for the content of a name without one, in the records of what fetches put in place.

use crate::content::{Bare, FileId, Root, merkle};

/// That of what a bare name is.
pub(crate) fn bare_id(bare: &Bare) -> FileId {
    match bare {
        Bare::EmptyDir { .. } => empty_dir_id(),
        Bare::Link { to, .. } => link_id(&to.target),
    }
}

/// That of an empty directory.
pub(crate) fn empty_dir_id() -> FileId {
    id_of("gpb empty directory\0", "")
}

/// That of a symbolic link with this text.
pub(crate) fn link_id(target: &str) -> FileId {
    id_of("gpb symbolic link\0", target)
}

fn id_of(kind: &str, text: &str) -> FileId {
    let root = Root(merkle::root_of_bytes(format!("{kind}{text}").as_bytes()));
    FileId { root, len: text.len() as u64 }
}
