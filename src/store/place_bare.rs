//! Putting names in place that are no plain files: each is made whole under an own name first.

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
                explain_full(volume, StoreError::at(volume.path_of(path), e), 0)
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
