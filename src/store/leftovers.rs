//! What unfinished downloads left in the own directory, and what of it goes.
//!
//! A partial file stays until it is resumed. One that was not written to for [`PART_STALE`] goes
//! with the next fetch into the directory, and one without a journal, of which nothing can be
//! resumed, after [`TEMP_STALE`]. One that was only read, or whose source has another content by now, which its mark
//! says, goes after [`READ_PART_STALE`]; after [`LET_GO_PART_STALE`] the newest one of a length that what is fetched has,
//! too, and that may have its chunks. A file that a process has locked, or whose file system has no
//! locks, stays whatever its age.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};

use crate::content::{FileId, Geometry};
use crate::store::journal::Journal;
use crate::store::limits::{LET_GO_PART_STALE, PART_STALE, READ_PART_STALE, REUSE_SOURCES_MAX, TEMP_STALE};
use crate::store::partial_file::PartNames;
use crate::store::storage::{FileLock, Storage, Volume};

/// What stays of unfinished downloads.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Leftovers {
    /// Partial files that no process uses.
    pub files: usize,
    /// Bytes that they take.
    pub bytes: u64,
}

/// What a sweep leaves although it is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spared {
    /// Parts that were let go and may have chunks of what is wanted.
    OlderVersions,
    /// Nothing: room is scarce.
    Nothing,
}

/// Removes what is stale at `now`, a time since 1970, but nothing of `wanted`, which is about to be
/// resumed. What stays of other files; trouble with one of them leaves it as it is.
pub(super) fn sweep(volume: &dyn Volume, wanted: &[FileId], spared: Spared, now: Duration) -> Leftovers {
    let mut left = Leftovers::default();
    let names: HashSet<String> = volume.own_names().unwrap_or_default().into_iter().collect();
    // Naming each wanted part costs a download of many files more than it is worth.
    let suffixes = [PART_SUFFIX, JOURNAL_SUFFIX, MARK_SUFFIX];
    if !names.iter().any(|name| suffixes.iter().any(|suffix| name.ends_with(suffix))) {
        return left;
    }
    let large = wanted.iter().filter(|id| spared == Spared::OlderVersions && Geometry::new(id.len).needs_layer());
    let lens: HashSet<u64> = large.map(|id| id.len).collect();
    let wanted: HashSet<String> = wanted.iter().map(|id| PartNames::new(id).part).collect();
    let is_other = |name: &&String| name.ends_with(PART_SUFFIX) && !wanted.contains(*name);
    let older = newest_of_each_len(
        volume,
        names.iter().filter(is_other).filter(|part| {
            let is_there = |suffix| names.contains(&part.replace(PART_SUFFIX, suffix));
            len_of(part).is_some_and(|len| lens.contains(&len)) && is_there(JOURNAL_SUFFIX) && is_there(MARK_SUFFIX)
        }),
    );
    for part in names.iter().filter(is_other) {
        let beside = |suffix| Some(part.replace(PART_SUFFIX, suffix)).filter(|name| names.contains(name));
        let (journal, mark) = (beside(JOURNAL_SUFFIX), beside(MARK_SUFFIX));
        let limit = match (&journal, &mark) {
            (Some(_), Some(_)) if older.contains(part) => LET_GO_PART_STALE,
            (_, Some(_)) => READ_PART_STALE,
            (Some(_), None) => PART_STALE,
            (None, None) => TEMP_STALE,
        };
        if let Ok(Some(bytes)) = inspect(volume, part, (journal.as_deref(), mark.as_deref()), (now, limit)) {
            left.files += 1;
            left.bytes += bytes;
        }
    }
    for (suffix, limit) in [(JOURNAL_SUFFIX, PART_STALE), (MARK_SUFFIX, READ_PART_STALE)] {
        for name in names.iter().filter(|name| name.ends_with(suffix)) {
            let part = name.replace(suffix, PART_SUFFIX);
            let is_alone = !names.contains(&part) && !wanted.contains(&part);
            if is_alone && age(volume, name, now).is_ok_and(|age| age > limit) {
                let _ = volume.remove_own(name);
            }
        }
    }
    left
}

/// Parts of other contents that have the length of `id`, and that nobody goes on with, as their marks say: each may have
/// chunks of an older version.
pub(super) fn let_go(volume: &dyn Volume, id: &FileId) -> Vec<Arc<dyn Storage>> {
    let (own, names) = (PartNames::new(id).part, volume.own_names().unwrap_or_default());
    let is_marked = |part: &str| names.contains(&part.replace(PART_SUFFIX, MARK_SUFFIX));
    let is_older = |part: &&String| len_of(part) == Some(id.len) && **part != own && is_marked(part);
    let open = |part: &String| {
        let file = volume.look_own(part).ok()??;
        // One that a process uses is read or written there.
        let is_free = file.try_lock().is_ok_and(|lock| lock == FileLock::Taken);
        if is_free {
            file.unlock();
        }
        Some(file).filter(|_| is_free)
    };
    names.iter().filter(is_older).take(REUSE_SOURCES_MAX).filter_map(open).collect()
}

/// Of `parts` the one of each length that was written last: each takes the room of a whole file.
fn newest_of_each_len<'p>(volume: &dyn Volume, parts: impl Iterator<Item = &'p String>) -> HashSet<&'p String> {
    let mut newest: HashMap<Option<u64>, (i64, &String)> = HashMap::new();
    for part in parts {
        let stat = volume.look_own(part).ok().flatten().and_then(|file| file.stat().ok());
        let written = (stat.map_or(i64::MIN, |stat| stat.stamp.mtime_ns), part);
        newest.entry(len_of(part)).and_modify(|last| *last = written.max(*last)).or_insert(written);
    }
    newest.into_values().map(|(_, part)| part).collect()
}

/// The length of the content that a part is of, as its name says.
fn len_of(part: &str) -> Option<u64> {
    part.strip_suffix(PART_SUFFIX)?.rsplit_once('-')?.1.parse().ok()
}

/// Removes the part of `id` if it has a mark that it was only read, and no process uses it.
pub(super) fn discard(volume: &dyn Volume, id: &FileId) {
    let names = PartNames::new(id);
    let has = |name: &str| volume.inode_of_own(name).is_ok_and(|inode| inode.is_some());
    if has(&names.mark) {
        let journal = Some(names.journal.as_str()).filter(|name| has(name));
        let _ = inspect(volume, &names.part, (journal, Some(&names.mark)), (Duration::MAX, Duration::ZERO));
    }
}

/// Removes a partial file with its journal and its mark if nothing was written to it for longer than
/// `limit`; otherwise its bytes, unless it is used.
fn inspect(
    volume: &dyn Volume,
    part: &str,
    (journal, mark): (Option<&str>, Option<&str>),
    (now, limit): (Duration, Duration),
) -> io::Result<Option<u64>> {
    let Some(file) = volume.look_own(part)? else { return Ok(None) };
    if file.try_lock()? != FileLock::Taken {
        return Ok(None);
    }
    let stat = file.stat()?;
    let touched = journal.map_or(Ok(Duration::MAX), |journal| age(volume, journal, now))?;
    let is_stale = touched.min(since(now, stat.stamp.mtime_ns)) > limit;
    // Another file may have the name by now, or a download taken the mark away.
    let is_named = volume.inode_of_own(part)? == Some(stat.stamp.inode);
    let is_marked = mark.map_or(Ok(true), |mark| volume.inode_of_own(mark).map(|inode| inode.is_some()))?;
    let removed = is_stale && is_named && is_marked && {
        if is_cut_off(volume, journal, stat.stamp.inode)? {
            // Nobody goes on with the file, as the one that it changed places with is in place.
            let aside = volume.set_aside_own(part)?;
            warn!(
                "in place of a partial file lay one that was replaced or saved kept_as={}",
                volume.path_of_own(&aside).display()
            );
            journal.map_or(Ok(false), |journal| volume.remove_own(journal))?;
            file.unlock();
            return Ok(None);
        }
        // Without its part a journal says nothing; a part without its journal starts over.
        journal.map_or(Ok(false), |journal| volume.remove_own(journal))?;
        let removed = volume.remove_own(part)?;
        mark.map_or(Ok(false), |mark| volume.remove_own(mark))?;
        removed
    };
    file.unlock();
    if removed {
        info!("stale partial file removed path={} bytes={}", volume.path_of_own(part).display(), stat.allocated);
    }
    Ok((!removed && is_named).then_some(stat.allocated))
}

/// Whether the part with this inode is what a cut-off exchange left under the name of another one.
fn is_cut_off(volume: &dyn Volume, journal: Option<&str>, inode: u64) -> io::Result<bool> {
    let Some(journal) = journal else { return Ok(false) };
    volume.look_own(journal)?.map_or(Ok(false), |file| Journal::is_cut_off(&*file, inode))
}

/// Time since the own file was written.
fn age(volume: &dyn Volume, name: &str, now: Duration) -> io::Result<Duration> {
    let file = volume.look_own(name)?.ok_or(io::ErrorKind::NotFound)?;
    Ok(since(now, file.stat()?.stamp.mtime_ns))
}

/// Time since `mtime_ns`; none where that lies in the future.
fn since(now: Duration, mtime_ns: i64) -> Duration {
    now.saturating_sub(Duration::from_nanos(u64::try_from(mtime_ns).unwrap_or(0)))
}

const PART_SUFFIX: &str = ".part";
const JOURNAL_SUFFIX: &str = ".journal";
const MARK_SUFFIX: &str = ".read";

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
        assert_eq!(sweep(&volume, &[id(6)], Spared::OlderVersions, NOW), Leftovers { files: 3, bytes: 21 });
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
        sweep(&volume, &[], Spared::OlderVersions, Duration::ZERO);
        assert_eq!(is_there(&volume, 1), (true, true));
        // What was looked at can be opened.
        let part = volume.open_own(&PartNames::new(&id(2)).part).unwrap().unwrap();
        assert_eq!(part.try_lock().unwrap(), FileLock::Taken);
    }

    #[test]
    fn what_was_only_read_goes_soon_unless_a_download_took_it_over() {
        let second = Duration::from_secs(1);
        let volume = Memory::new();
        let mark = |byte: u8, age: Duration| {
            let name = own_name(&PartNames::new(&id(byte)).mark);
            volume.put(&name, b"");
            volume.set_changed(&name, i64::try_from((NOW - age).as_nanos()).unwrap());
        };
        for byte in 1..=5 {
            let age = if byte == 2 { READ_PART_STALE - second } else { READ_PART_STALE + second };
            put(&volume, byte, age, Some(age));
            if byte != 3 {
                mark(byte, age);
            }
        }
        mark(6, READ_PART_STALE + second);
        let used = volume.open_own(&PartNames::new(&id(4)).part).unwrap().unwrap();
        assert_eq!(used.try_lock().unwrap(), FileLock::Taken);
        assert_eq!(sweep(&volume, &[id(5)], Spared::OlderVersions, NOW), Leftovers { files: 2, bytes: 14 });
        let there = (1..=5).map(|byte| is_there(&volume, byte).0).collect::<Vec<_>>();
        assert_eq!(there, [false, true, true, true, true], "stale, young, of a download, used, wanted");
        let marks = volume.own_names().into_iter().filter(|name| name.ends_with(MARK_SUFFIX)).count();
        assert_eq!(marks, 3, "those of the parts that stay");
        for byte in 1..=5 {
            discard(&volume, &id(byte));
        }
        let there = (1..=5).map(|byte| is_there(&volume, byte).0).collect::<Vec<_>>();
        assert_eq!(there, [false, false, true, true, false], "of a download, used");
    }

    /// Each takes the room of a whole file.
    #[test]
    fn of_parts_that_were_let_go_the_newest_one_of_a_length_stays_for_longer() {
        let big = |byte: u8| FileId { root: Root(Digest([byte; 32])), len: 1 << 20 };
        let volume = Memory::new();
        for byte in 1..=3_u8 {
            let age = 2 * READ_PART_STALE + Duration::from_secs(byte.abs_diff(2).into());
            let names = PartNames::new(&big(byte));
            for name in [names.part, names.journal, names.mark].map(|name| own_name(&name)) {
                volume.put(&name, b"");
                volume.set_changed(&name, i64::try_from((NOW - age).as_nanos()).unwrap());
            }
        }
        let there = || [1, 2, 3].map(|byte| volume.content(&own_name(&PartNames::new(&big(byte)).part)).is_some());
        assert_eq!(let_go(&volume, &big(9)).len(), 3);
        sweep(&volume, &[big(9)], Spared::OlderVersions, NOW);
        assert_eq!(there(), [false, true, false]);
        sweep(&volume, &[big(9)], Spared::Nothing, NOW);
        assert_eq!(there(), [false; 3]);
    }
}
