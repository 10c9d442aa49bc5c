//! What unfinished downloads left in the own directory, and what of it goes.
//!
//! A partial file stays until it is resumed. One that was not written to for [`PART_STALE`] goes
//! with the next fetch into the directory, and one without a journal, of which nothing can be
//! resumed, after [`TEMP_STALE`]. A file that a process has locked, or whose file system has no
//! locks, stays whatever its age.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use log::info;

use crate::content::FileId;
use crate::store::limits::{PART_STALE, TEMP_STALE};
use crate::store::partial_file::PartNames;
use crate::store::storage::{FileLock, Volume};

/// What stays of unfinished downloads.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Leftovers {
    /// Partial files that no process uses.
    pub files: usize,
    /// Bytes that they take.
    pub bytes: u64,
}

/// Removes what is stale at `now`, a time since 1970, but nothing of `wanted`, which is about to be
/// resumed. What stays of other files; trouble with one of them leaves it as it is.
pub(super) fn sweep(volume: &dyn Volume, wanted: &[FileId], now: Duration) -> Leftovers {
    let mut left = Leftovers::default();
    let names: HashSet<String> = volume.own_names().unwrap_or_default().into_iter().collect();
    // Naming each wanted part costs a download of many files more than it is worth.
    if !names.iter().any(|name| name.ends_with(PART_SUFFIX) || name.ends_with(JOURNAL_SUFFIX)) {
        return left;
    }
    let wanted: HashSet<String> = wanted.iter().map(|id| PartNames::new(id).part).collect();
    for part in names.iter().filter(|name| name.ends_with(PART_SUFFIX) && !wanted.contains(*name)) {
        let journal = part.replace(PART_SUFFIX, JOURNAL_SUFFIX);
        let journal = names.contains(&journal).then_some(journal);
        if let Ok(Some(bytes)) = inspect(volume, part, journal.as_deref(), now) {
            left.files += 1;
            left.bytes += bytes;
        }
    }
    for journal in names.iter().filter(|name| name.ends_with(JOURNAL_SUFFIX)) {
        let part = journal.replace(JOURNAL_SUFFIX, PART_SUFFIX);
        let is_alone = !names.contains(&part) && !wanted.contains(&part);
        if is_alone && age(volume, journal, now).is_ok_and(|age| age > PART_STALE) {
            let _ = volume.remove_own(journal);
        }
    }
    left
}

/// Removes a partial file with its journal if it is stale; otherwise its bytes, unless it is used.
fn inspect(volume: &dyn Volume, part: &str, journal: Option<&str>, now: Duration) -> io::Result<Option<u64>> {
    let Some(file) = volume.open_own(part)? else { return Ok(None) };
    if file.try_lock()? != FileLock::Taken {
        return Ok(None);
    }
    let stat = file.stat()?;
    let limit = if journal.is_some() { PART_STALE } else { TEMP_STALE };
    let touched = journal.map_or(Ok(Duration::MAX), |journal| age(volume, journal, now))?;
    let is_stale = touched.min(since(now, stat.stamp.mtime_ns)) > limit;
    // Another file may have the name by now.
    let is_named = volume.inode_of_own(part)? == Some(stat.stamp.inode);
    let removed = is_stale && is_named && {
        // Without its part a journal says nothing; a part without its journal starts anew.
        journal.map_or(Ok(false), |journal| volume.remove_own(journal))?;
        volume.remove_own(part)?
    };
    file.unlock();
    if removed {
        info!("stale partial file removed path={} bytes={}", volume.path_of_own(part).display(), stat.allocated);
    }
    Ok((!removed && is_named).then_some(stat.allocated))
}

/// Time since the own file was written.
fn age(volume: &dyn Volume, name: &str, now: Duration) -> io::Result<Duration> {
    let file = volume.open_own(name)?.ok_or(io::ErrorKind::NotFound)?;
    Ok(since(now, file.stat()?.stamp.mtime_ns))
}

/// Time since `mtime_ns`; none where that lies in the future.
fn since(now: Duration, mtime_ns: i64) -> Duration {
    now.saturating_sub(Duration::from_nanos(u64::try_from(mtime_ns).unwrap_or(0)))
}

const PART_SUFFIX: &str = ".part";
const JOURNAL_SUFFIX: &str = ".journal";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};
    use crate::store::memory::{Memory, own_name};

    fn id(byte: u8) -> FileId {
        FileId { root: Root(Digest([byte; 32])), len: 7 }
    }

    const NOW: Duration = Duration::from_secs(2_000_000_000);

    /// A part, and its journal if that has an age, too.
    fn put(volume: &Memory, byte: u8, part_age: Duration, journal_age: Option<Duration>) {
        let names = PartNames::new(&id(byte));
        for (name, age) in [(names.part, Some(part_age)), (names.journal, journal_age)] {
            if let Some(age) = age {
                volume.put(&own_name(&name), &[byte; 7]);
                volume.set_changed(&own_name(&name), i64::try_from((NOW - age).as_nanos()).unwrap());
            }
        }
    }

    fn is_there(volume: &Memory, byte: u8) -> (bool, bool) {
        let names = PartNames::new(&id(byte));
        (volume.content(&own_name(&names.part)).is_some(), volume.content(&own_name(&names.journal)).is_some())
    }

    #[test]
    fn what_nobody_resumes_goes_and_all_else_stays() {
        let second = Duration::from_secs(1);
        let (old, young) = (PART_STALE + second, PART_STALE - second);
        let volume = Memory::new();
        put(&volume, 1, old, Some(old));
        put(&volume, 2, young, Some(old));
        put(&volume, 3, old, Some(young));
        put(&volume, 4, TEMP_STALE + second, None);
        put(&volume, 5, TEMP_STALE - second, None);
        put(&volume, 6, old, Some(old));
        put(&volume, 7, old, Some(old));
        let used = volume.open_own(&PartNames::new(&id(7)).part).unwrap().unwrap();
        assert_eq!(used.try_lock().unwrap(), FileLock::Taken);
        put(&volume, 8, old, Some(old));
        volume.remove_own(&PartNames::new(&id(8)).part).unwrap();
        volume.put(&own_name("other"), b"x");
        assert_eq!(sweep(&volume, &[id(6)], NOW), Leftovers { files: 3, bytes: 21 });
        assert_eq!(is_there(&volume, 1), (false, false), "stale");
        assert_eq!(is_there(&volume, 2), (true, true), "the part is young");
        assert_eq!(is_there(&volume, 3), (true, true), "the journal is young");
        assert_eq!(is_there(&volume, 4), (false, false), "nothing of it can be resumed");
        assert_eq!(is_there(&volume, 5), (true, false), "its download may just have begun");
        assert_eq!(is_there(&volume, 6), (true, true), "it is about to be resumed");
        assert_eq!(is_there(&volume, 7), (true, true), "another process uses it");
        assert_eq!(is_there(&volume, 8), (false, false), "a journal without its part");
        assert!(volume.content(&own_name("other")).is_some());
        // A clock that is behind makes nothing stale.
        put(&volume, 1, Duration::ZERO, Some(Duration::ZERO));
        sweep(&volume, &[], Duration::ZERO);
        assert_eq!(is_there(&volume, 1), (true, true));
        // What was looked at can be opened.
        let part = volume.open_own(&PartNames::new(&id(2)).part).unwrap().unwrap();
        assert_eq!(part.try_lock().unwrap(), FileLock::Taken);
    }
}
