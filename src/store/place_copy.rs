//! A copy of a whole file at a final name.

use std::io;

use crate::content::RelPath;
use crate::store::StoreError;
use crate::store::read_back::{check_copy, is_room_scarce};
use crate::store::storage::{Storage, Volume, copy, create_temp, dress, explain_full};

/// Makes `path` a durable copy of the first `len` bytes of `from`. `unchanged` checks the source
/// once all is copied.
pub(crate) fn place_copy(
    volume: &dyn Volume,
    from: &dyn Storage,
    len: u64,
    path: &RelPath,
    unchanged: impl FnOnce() -> io::Result<()>,
) -> Result<(), StoreError> {
    let at_path = |e| explain_full(volume, StoreError::at(volume.path_of(path), e), len);
    let (name, file) = create_temp(volume).map_err(at_path)?;
    let copied = copy(from, &*file, len)
        .and_then(|()| dress(volume, &*file, path))
        .and_then(|()| file.sync())
        .and_then(|()| if is_room_scarce(volume) { check_copy(from, &*file, len) } else { Ok(()) })
        .and_then(|()| unchanged());
    let placed = copied.map_err(at_path).and_then(|()| volume.place(&[(name.clone(), path)]).pop().unwrap_or(Ok(())));
    if placed.is_err() {
        let _ = volume.remove_own(&name);
    }
    placed
}
