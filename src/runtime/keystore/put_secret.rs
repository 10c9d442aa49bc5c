//! How a secret file comes into being: whole or not at all, for good once that was said, and for its
//! owner alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::io::retry_on_intr;

use crate::runtime::keystore::KeyError;

/// Writes `content` to `path` with mode 0600, whole or not at all, and makes missing directories
/// with mode 0700. `force` replaces a file that is there.
///
/// The bytes are durable before they get the name, and the name is durable before this returns,
/// with the names of the directories above.
pub(super) fn put_secret(place: &dyn SecretPlace, path: &Path, content: &[u8], force: bool) -> Result<(), KeyError> {
    let written = |file: &Path, source| KeyError::Write { file: file.into(), source };
    let dir = path.parent().map_or(Path::new("."), or_current);
    let grown = make_dirs(place, dir).map_err(|e| written(dir, e))?;
    let temp = write_temp(place, dir, path, content).map_err(|e| written(path, e))?;
    let done = if force { place.rename(&temp, path) } else { place.link(&temp, path) };
    if done.is_err() || !force {
        // A failure here has no remedy.
        let _ = place.remove(&temp);
    }
    match done {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(KeyError::Exists { file: path.into() }),
        other => other.map_err(|e| written(path, e))?,
    }
    place.sync_dir(dir).map_err(|e| written(dir, e))?;
    // The names of the directories, too. One that was there before may have been made by a run that
    // ended before the name was durable; not each of these can be synced.
    for above in dir.ancestors().skip(1).map(or_current) {
        match place.sync_dir(above) {
            Err(e) if grown.contains(&above) => return Err(written(above, e)),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the directory and what is missing above it; the directories that have new names in them.
fn make_dirs<'p>(place: &dyn SecretPlace, dir: &'p Path) -> io::Result<Vec<&'p Path>> {
    let (mut missing, mut grown) = (vec![dir], Vec::new());
    // Upwards to the first name that is there or can be made, then downwards.
    let mut upwards = true;
    while let Some(dir) = missing.last().copied() {
        let above = dir.parent().map(or_current);
        match (place.make_dir(dir), above) {
            (Ok(made), above) => {
                missing.pop();
                grown.extend(above.filter(|_| made));
                upwards = false;
            }
            (Err(e), Some(above)) if e.kind() == io::ErrorKind::NotFound => {
                if !upwards {
                    let why = format!("no directory can be made in {}; is it a link to nothing?", above.display());
                    return Err(io::Error::new(e.kind(), why));
                }
                if above == Path::new(".") {
                    return Err(e);
                }
                missing.push(above);
            }
            (Err(e), _) => return Err(e),
        }
    }
    Ok(grown)
}

/// The path, where an empty one stands for the current directory.
fn or_current(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn write_temp(place: &dyn SecretPlace, dir: &Path, target: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(format!(".{:016x}.tmp", rand::random::<u64>()));
    let path = dir.join(name);
    let mut file = place.create(&path)?;
    let written = file.write_all(content).and_then(|()| file.flush());
    if let Err(e) = written {
        let _ = place.remove(&path);
        return Err(e);
    }
    Ok(path)
}

/// The calls that a secret file needs, so that tests can cut the power between any two.
pub(super) trait SecretPlace {
    /// Makes a directory for its owner alone; false if it exists.
    fn make_dir(&self, dir: &Path) -> io::Result<bool>;

    /// Creates a file for its owner alone. Flushing it makes its bytes durable.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Write>>;

    /// Gives a file a further name, unless that is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file another name, and replaces what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The file system.
pub(super) struct FileSystem;

/// A file whose bytes are durable once it was flushed.
struct DurableFile(File);

impl SecretPlace for FileSystem {
    fn make_dir(&self, dir: &Path) -> io::Result<bool> {
        match DirBuilder::new().mode(0o700).create(dir) {
            // A file of that name is reported by the use of it.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            made => made.map(|()| true),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Box::new(DurableFile(file)))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = File::open(dir)?;
        Ok(retry_on_intr(|| rustix::fs::fsync(&dir))?)
    }
}

impl Write for DurableFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::fsync(&self.0))?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::memory::{FaultKind, Memory, Rng, Storage};

    /// A volume that forgets what was not synced, and of each directory for itself.
    struct Forgetting(Memory);

    struct ForgettingFile(Arc<dyn Storage>, u64);

    impl Write for ForgettingFile {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = self.0.write_some(self.1, bytes)?;
            self.1 += n as u64;
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.sync()
        }
    }

    fn text(path: &Path) -> &str {
        path.to_str().unwrap()
    }

    /// The name of a directory on the volume.
    fn slashed(dir: &Path) -> String {
        if dir == Path::new(".") { String::new() } else { format!("{}/", text(dir)) }
    }

    impl SecretPlace for Forgetting {
        fn make_dir(&self, dir: &Path) -> io::Result<bool> {
            self.0.make_dir(&slashed(dir))
        }

        fn create(&self, path: &Path) -> io::Result<Box<dyn Write>> {
            let file = self.0.create_name(text(path))?.ok_or(io::ErrorKind::AlreadyExists)?;
            Ok(Box::new(ForgettingFile(file, 0)))
        }

        fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.0.link_name(text(from), text(to))
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.0.rename_name(text(from), text(to))
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            self.0.remove_name(text(path)).map(drop)
        }

        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            self.0.sync_dir(&slashed(dir))
        }
    }

    const OLD: &[u8] = b"-----BEGIN PRIVATE KEY----- the old one";
    const NEW: &[u8] = b"-----BEGIN PRIVATE KEY----- the new one, which is longer";

    /// A new key, or one in place of another; a key that exists lies in a directory that does.
    fn prepared(replaces: bool) -> Memory {
        let volume = Memory::strict();
        if replaces {
            put_secret(&Forgetting(volume.clone()), Path::new(KEY), OLD, false).unwrap();
        }
        volume
    }

    fn check(volume: &Memory, replaces: bool, said: bool, what: &str) {
        match volume.content(KEY) {
            Some(found) if found == NEW => {}
            Some(found) => assert!(replaces && found == OLD && !said, "{what}: {:?}", String::from_utf8_lossy(&found)),
            None => assert!(!replaces && !said, "{what}: the key is lost"),
        }
    }

    #[test]
    fn wherever_the_power_fails_a_key_is_whole_and_one_that_was_reported_stays() {
        let (mut said_so, mut crashes) = (0, 0);
        for seed in 0..1500 {
            let mut rng = Rng(seed);
            let replaces = rng.below(2) == 0;
            let volume = prepared(replaces);
            volume.cut_after(1 + rng.below(12));
            let said = put_secret(&Forgetting(volume.clone()), Path::new(KEY), NEW, replaces).is_ok();
            let after = if rng.below(4) == 0 { volume.after_kill() } else { volume.after_power_loss(&mut rng) };
            check(&after, replaces, said, &format!("seed {seed}"));
            // The next start.
            match put_secret(&Forgetting(after.clone()), Path::new(KEY), NEW, replaces) {
                Err(KeyError::Exists { .. }) => check(&after, replaces, true, &format!("seed {seed}, again")),
                Err(e) => panic!("seed {seed}: {e}"),
                Ok(()) => check(&after.after_power_loss(&mut rng), replaces, true, &format!("seed {seed}, again")),
            }
            said_so += u32::from(said);
            crashes += u32::from(!said);
        }
        assert!(said_so > 100 && crashes > 100, "{said_so} {crashes}");
    }

    #[test]
    fn a_fault_at_any_call_is_told_and_the_key_that_was_there_stays() {
        for (kind, lasts) in [
            (FaultKind::Full, false),
            (FaultKind::Full, true),
            (FaultKind::Broken, false),
            (FaultKind::Broken, true),
            (FaultKind::ReadOnly, true),
            (FaultKind::Short, true),
            (FaultKind::Interrupted, false),
        ] {
            for (at, replaces) in (1..20).flat_map(|at| [(at, false), (at, true)]) {
                let what = format!("{kind:?} at call {at}, lasts: {lasts}, replaces: {replaces}");
                let volume = prepared(replaces);
                volume.fault_at(at, kind, lasts);
                let result = put_secret(&Forgetting(volume.clone()), Path::new(KEY), NEW, replaces);
                let struck = volume.mend();
                match (kind, &result) {
                    (FaultKind::Short | FaultKind::Interrupted, result) => {
                        assert!(result.is_ok(), "{what}: {result:?}");
                    }
                    // What is left undone then is a temporary name, or the name of an old directory.
                    (_, Ok(())) => {}
                    (_, Err(e)) => assert!(struck && matches!(e, KeyError::Write { .. }), "{what}: {e}"),
                }
                check(&volume.after_power_loss(&mut Rng(at)), replaces, result.is_ok(), &what);
                let volume = volume.after_kill();
                match put_secret(&Forgetting(volume.clone()), Path::new(KEY), NEW, replaces) {
                    Err(KeyError::Exists { .. }) => {}
                    done => done.unwrap_or_else(|e| panic!("{what}, then without: {e}")),
                }
                assert_eq!(volume.content(KEY).as_deref(), Some(NEW), "{what}");
            }
        }
    }

    const KEY: &str = "deep/state/key.pem";
}
