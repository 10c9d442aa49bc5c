//! Putting names in place that are no plain files: each is made whole under an own name first.

use std::io;

use rustix::io::Errno;

use crate::content::RelPath;
use crate::store::StoreError;
use crate::store::storage::{OwnBare, Volume, explain_full, temp_name};

/// Makes each of `items`. One result for each: a final name has what belongs to it, or what was there
/// before.
pub(crate) fn place_bare(volume: &dyn Volume, items: &[(&RelPath, OwnBare<'_>)]) -> Vec<Result<(), StoreError>> {
    let mut results = Vec::with_capacity(items.len());
    let (mut moves, mut places) = (Vec::new(), Vec::new());
    for (at, (path, what)) in items.iter().enumerate() {
        let temp = temp_name();
        let made = volume.make_own().and_then(|()| {
            volume.create_own_bare(&temp, what).map_err(|e| {
                // It may be there without its time.
                let _ = volume.remove_own(&temp);
                match lacking(what, &e) {
                    Some(kind) => StoreError::NoLinks { path: volume.path_of(path), kind },
                    None => explain_full(volume, StoreError::at(volume.path_of(path), e), 0),
                }
            })
        });
        if made.is_ok() {
            moves.push((temp, *path));
            places.push(at);
        }
        results.push(made);
    }
    for ((at, (temp, _)), placed) in places.into_iter().zip(&moves).zip(volume.place(&moves)) {
        if let Err(e) = placed {
            let _ = volume.remove_own(temp);
            results[at] = Err(explain_full(volume, e, 0));
        }
    }
    results
}

/// The kind of link that cannot be made, if the error says so: the file system has none, this user may
/// make none, or the file has as many names as it can.
fn lacking(what: &OwnBare<'_>, e: &io::Error) -> Option<&'static str> {
    let errno = e.raw_os_error().map(Errno::from_raw_os_error)?;
    let is_none = matches!(errno, Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS);
    match what {
        OwnBare::Name { .. } => (is_none || matches!(errno, Errno::MLINK | Errno::XDEV)).then_some(HARD_LINK),
        OwnBare::Link { .. } => is_none.then_some("symbolic link"),
        OwnBare::Dir { .. } => None,
    }
}

/// Its name in messages.
pub(crate) const HARD_LINK: &str = "hard link";
