//! Whether other users of the host can change what lies in a directory.

use std::collections::HashSet;
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use log::warn;

use crate::store::limits::DIR_RISKS_TOLD_MAX;
use crate::sync::lock;

/// Logs one warning for each directory whose files other users can replace. The owner of a
/// directory, or each user where all may write to it, can exchange a file that was verified before.
/// A name below `/tmp` belongs to the user that makes it first.
pub fn warn_of_risk(dir: &Path) {
    static TOLD: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    // What cannot be looked at is reported by its use.
    let Ok(Some((path, risk))) = risk_of(dir) else { return };
    let mut told = lock(&TOLD);
    let told = told.get_or_insert_default();
    if told.len() < DIR_RISKS_TOLD_MAX && told.insert(path.clone()) {
        warn!("other users can change the files dir={} path={} reason=\"{risk}\"", dir.display(), path.display());
    }
}

/// Why other users can change what lies below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DirRisk {
    /// It belongs to another user than this one and root.
    Owner(u32),
    /// All users may write to it, and no sticky bit keeps them from the files of others.
    Writable(u32),
}

impl fmt::Display for DirRisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DirRisk::Owner(uid) => write!(f, "it belongs to user {uid}"),
            DirRisk::Writable(mode) => write!(f, "all may write to it, without the sticky bit (mode {mode:03o})"),
        }
    }
}

/// The first risk on the way to `dir`, and where it lies.
fn risk_of(dir: &Path) -> io::Result<Option<(PathBuf, DirRisk)>> {
    let me = rustix::process::geteuid().as_raw();
    // A symlink leads to where its owner wants.
    let named = std::path::absolute(dir)?;
    let link = std::fs::symlink_metadata(&named)?;
    if link.is_symlink()
        && let Some(risk) = risk_of_owner(link.uid(), me)
    {
        return Ok(Some((named, risk)));
    }
    let real = std::fs::canonicalize(&named)?;
    for (above, path) in real.ancestors().enumerate() {
        if let Some(risk) = judge(Facts::of(&std::fs::metadata(path)?), me, above > 0) {
            return Ok(Some((path.to_path_buf(), risk)));
        }
    }
    Ok(None)
}

/// What the system says of a directory.
#[derive(Debug, Clone, Copy)]
struct Facts {
    uid: u32,
    mode: u32,
}

impl Facts {
    fn of(meta: &Metadata) -> Self {
        Facts { uid: meta.uid(), mode: meta.mode() & 0o7777 }
    }
}

/// The risk of a directory, which lies `above` the one that is used or is that one. The group of a
/// directory is the choice of its owner, so its right to write is none. The owner of a directory
/// above, such as a home that a service works in, is trusted with more than its files.
fn judge(facts: Facts, me: u32, above: bool) -> Option<DirRisk> {
    if facts.mode & OTHERS_WRITE != 0 && facts.mode & STICKY == 0 {
        return Some(DirRisk::Writable(facts.mode));
    }
    if above { None } else { risk_of_owner(facts.uid, me) }
}

fn risk_of_owner(uid: u32, me: u32) -> Option<DirRisk> {
    (uid != me && uid != ROOT).then_some(DirRisk::Owner(uid))
}

const ROOT: u32 = 0;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_owner_and_the_rights_of_others_decide() {
        let of = |uid, mode, above| judge(Facts { uid, mode }, 1000, above);
        for mode in [0o755, 0o700, 0o775, 0o1777, 0o2775] {
            assert_eq!(of(1000, mode, false), None, "{mode:o}");
            assert_eq!(of(ROOT, mode, false), None, "{mode:o}");
            assert_eq!(of(1001, mode, false), Some(DirRisk::Owner(1001)), "{mode:o}");
            assert_eq!(of(1001, mode, true), None, "{mode:o}");
        }
        for mode in [0o777, 0o757, 0o702, 0o2777] {
            for above in [false, true] {
                assert_eq!(of(1000, mode, above), Some(DirRisk::Writable(mode)), "{mode:o}");
            }
        }
        // Root is warned of the directories of others, too: they choose what root serves.
        assert_eq!(judge(Facts { uid: 1001, mode: 0o755 }, ROOT, false), Some(DirRisk::Owner(1001)));
    }

    #[test]
    fn a_directory_is_judged_with_what_lies_above_it_and_by_its_link() {
        let tmp = tempfile::tempdir().unwrap();
        let open = tmp.path().canonicalize().unwrap().join("open");
        let dir = open.join("mine");
        std::fs::create_dir_all(&dir).unwrap();
        symlink(&dir, tmp.path().join("link")).unwrap();
        let set = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        assert_eq!(risk_of(&dir).unwrap(), None);
        assert_eq!(risk_of(&tmp.path().join("link")).unwrap(), None);
        set(&open, 0o777);
        for named in [&dir, &tmp.path().join("link"), &open.join("mine/../mine")] {
            assert_eq!(risk_of(named).unwrap(), Some((open.clone(), DirRisk::Writable(0o777))), "{}", named.display());
        }
        set(&open, 0o1777);
        assert_eq!(risk_of(&dir).unwrap(), None);
        set(&dir, 0o777);
        assert_eq!(risk_of(&dir).unwrap().unwrap().0, dir);
        assert!(risk_of(&tmp.path().join("none")).is_err());
    }
}
