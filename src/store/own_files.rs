//! The files that belong to this process itself: its key, trusted file, index, log, configuration
//! and state directory.
//!
//! They are never offered and never written by a fetch. A file is recognized by where it lies and
//! by device and inode, so hard links, symlinks and bind mounts do not hide it.

use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::time::SystemTime;

use crate::store::StoreError;
use crate::store::index::{DAMAGED_NAME, INDEX_NAME};
use crate::store::inspect::state_at;
use crate::store::placed::is_record_name;
use crate::sync::{read_lock, write_lock};

/// Knows the own files of a process. Its paths are fixed at the start; what lies there is looked up
/// again by [`refresh`](OwnFiles::refresh), since each of these files may be created or replaced
/// while the process runs.
#[derive(Debug, Default)]
pub struct OwnFiles {
    /// Absolute paths, each as it was given and with its links resolved. A directory stands for all
    /// below it, and the name [`RECORDS`] for all records beside it.
    paths: Vec<PathBuf>,
    known: RwLock<KnownInodes>,
}

/// Device and inode of a file.
type DevIno = (u64, u64);

#[derive(Debug, Default)]
struct KnownInodes {
    /// What lies at the paths now, and when it was created. Few, so that looking through them costs
    /// less than a hash.
    current: Vec<(DevIno, Option<SystemTime>)>,
    /// What lay there before, such as a log file that was rotated away, and when it was created: an
    /// inode number is used again once its file is gone, the time of creation is not.
    former: HashMap<DevIno, SystemTime>,
}

impl OwnFiles {
    /// The own files of a process: the state directory `state`, if it has one, and `others`, all of
    /// which may be missing. `shared` are the directories that it offers: a state directory that
    /// holds one of them is not left out as a whole, only what the process itself keeps there.
    pub fn new<'s>(
        state: Option<&Path>,
        others: impl IntoIterator<Item = PathBuf>,
        shared: impl IntoIterator<Item = &'s Path>,
    ) -> Self {
        let names = || [KEY_NAME, INDEX_NAME, DAMAGED_NAME, RECORDS].into_iter().chain(PEERS_NAMES);
        let named = state.map(|state| names().map(|name| state.join(name)));
        let shared: Vec<PathBuf> = shared.into_iter().map(resolved).collect();
        let holds_shared = |state: &Path| shared.iter().any(|dir| dir.starts_with(resolved(state)));
        let state = state.filter(|state| !holds_shared(state)).map(Path::to_path_buf);
        let mut paths = Vec::new();
        for path in named.into_iter().flatten().chain(state).chain(others) {
            paths.extend([resolved(&path), std::path::absolute(&path).unwrap_or(path)]);
        }
        paths.sort();
        paths.dedup();
        let own = OwnFiles { paths, known: RwLock::default() };
        own.refresh();
        own
    }

    /// Looks at what lies at the paths now. Returns the inode numbers that are new among it.
    pub fn refresh(&self) -> HashSet<u64> {
        let found = self.look();
        let mut known = write_lock(&self.known);
        let new = found.keys().filter(|id| !known.is_current(id)).map(|(_, ino)| *ino).collect();
        known.replace(found);
        new
    }

    fn look(&self) -> HashMap<DevIno, Option<SystemTime>> {
        let mut found = HashMap::new();
        for path in &self.paths {
            if path.ends_with(RECORDS) {
                let dir = path.parent().and_then(|dir| std::fs::read_dir(dir).ok());
                let entries = dir.into_iter().flatten().take(DIR_ENTRIES_MAX).flatten();
                let records = entries.filter(|e| e.file_name().to_str().is_some_and(is_record_name));
                found.extend(records.filter_map(|e| e.metadata().ok()).filter(Metadata::is_file).map(inode));
                continue;
            }
            let Ok(meta) = std::fs::metadata(path) else { continue };
            if meta.is_dir() {
                let entries = std::fs::read_dir(path).into_iter().flatten().take(DIR_ENTRIES_MAX).flatten();
                found.extend(entries.filter_map(|e| e.metadata().ok()).filter(Metadata::is_file).map(inode));
            }
            if meta.is_dir() || meta.is_file() {
                found.extend([inode(meta)]);
            }
        }
        found
    }

    /// Whether this file or directory is one of them, under whatever name it was found.
    pub fn contains(&self, meta: &Metadata) -> bool {
        let id = (meta.dev(), meta.ino());
        let known = read_lock(&self.known);
        known.is_current(&id)
            || known.former.get(&id).is_some_and(|born| meta.created().is_ok_and(|created| created == *born))
    }

    /// As [`contains`](Self::contains), after another look at the paths, which
    /// [`refresh`](Self::refresh) learns nothing of.
    pub fn contains_now(&self, meta: &Metadata) -> bool {
        self.contains(meta) || self.look().contains_key(&(meta.dev(), meta.ino()))
    }

    /// The same files for one more user of [`refresh`](Self::refresh): each learns separately what is
    /// new.
    pub fn another(&self) -> Self {
        let other = OwnFiles { paths: self.paths.clone(), known: RwLock::default() };
        other.refresh();
        other
    }

    /// Their names relative to the directory `root`, which is absolute and free of links: what has
    /// one of these names, or lies below one, is an own file; see `is_one_of`. An empty name if
    /// all of `root` is.
    pub fn names_below(&self, root: &Path) -> Vec<String> {
        if self.paths.iter().any(|own| root.starts_with(own)) {
            return vec![String::new()];
        }
        let mut names: Vec<String> = Vec::new();
        // Sorted, so a directory comes before what lies in it.
        for name in self.paths.iter().filter_map(|own| own.strip_prefix(root).ok()?.to_str()) {
            if !is_one_of(name, &names) {
                names.push(name.to_owned());
            }
        }
        names
    }

    /// The `names` below `dir` that must not be written because they are own files, each with
    /// its position. Looks at the directory only if it has entries.
    pub fn refused<'n>(&self, dir: &Path, names: impl IntoIterator<Item = &'n str>) -> Vec<(usize, StoreError)> {
        let own = self.names_below(&resolved(dir));
        let has_entries = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
        if own.is_empty() && !has_entries {
            return Vec::new();
        }
        let found = self.look();
        let is_own = |meta: &Metadata| found.contains_key(&(meta.dev(), meta.ino())) || self.contains(meta);
        // Most names are of other files, which a look from the directory finds at less cost.
        let ids = self.inodes(&found);
        let root = File::open(dir).ok();
        let may_be_own = |name: &str| match root.as_ref() {
            Some(root) => state_at(root, name).is_some_and(|(_, state)| ids.contains(&(state.device, state.inode))),
            None => true,
        };
        let refuse = |(at, name): (usize, &'n str)| {
            let path = || dir.join(name);
            let is_linked = || may_be_own(name) && std::fs::symlink_metadata(path()).is_ok_and(|meta| is_own(&meta));
            let is_own = is_one_of(name, &own) || has_entries && is_linked();
            is_own.then(|| (at, StoreError::OwnFile { path: path() }))
        };
        names.into_iter().enumerate().filter_map(refuse).collect()
    }

    /// All that may be one of them, by device and inode.
    fn inodes(&self, found: &HashMap<DevIno, Option<SystemTime>>) -> HashSet<DevIno> {
        let known = read_lock(&self.known);
        found.keys().chain(known.former.keys()).chain(known.current.iter().map(|(id, _)| id)).copied().collect()
    }
}

impl KnownInodes {
    fn is_current(&self, id: &DevIno) -> bool {
        self.current.iter().any(|(current, _)| current == id)
    }

    fn replace(&mut self, found: HashMap<DevIno, Option<SystemTime>>) {
        if self.former.len() + self.current.len() > FORMER_MAX {
            self.former.clear();
        }
        // Without a time of creation nothing tells a file from a later one with its number.
        let gone = self.current.drain(..).filter(|(id, _)| !found.contains_key(id));
        self.former.extend(gone.filter_map(|(id, born)| Some((id, born?))));
        self.current = found.into_iter().collect();
    }
}

/// Whether `name` is one of `names` or lies below one of them. The empty name stands for
/// everything, and [`RECORDS`] at the end of one for each record of placed files.
pub(crate) fn is_one_of(name: &str, names: &[String]) -> bool {
    let is_record_in = |dir: &str| match name.strip_prefix(dir) {
        Some(rest) => (dir.is_empty() || dir.ends_with('/')) && rest.split('/').next().is_some_and(is_record_name),
        None => false,
    };
    names.iter().any(|own| match name.strip_prefix(own.as_str()) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || own.is_empty(),
        None => own.strip_suffix(RECORDS).is_some_and(is_record_in),
    })
}

/// `path` with links resolved as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut missing = Vec::new();
    for existing in path.ancestors() {
        if let Ok(real) = std::fs::canonicalize(existing) {
            return missing.into_iter().rev().fold(real, |real, name| real.join(name));
        }
        missing.extend(existing.file_name());
    }
    path
}

fn inode(meta: Metadata) -> (DevIno, Option<SystemTime>) {
    ((meta.dev(), meta.ino()), meta.created().ok())
}

/// The key file's name in a state directory.
const KEY_NAME: &str = "key.pem";
/// The remembered peers, and the file that is about to replace them.
const PEERS_NAMES: [&str; 2] = ["peers.known", "peers.known.new"];
/// Stands for the records of placed files, one for each directory that was fetched into.
const RECORDS: &str = "placed-*";
/// Entries of the state directory that are looked at. The process makes four, and the records.
const DIR_ENTRIES_MAX: usize = 4096;
/// Files remembered that lay at the paths once.
const FORMER_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Places {
        _tmp: tempfile::TempDir,
        root: PathBuf,
    }

    impl Places {
        fn new() -> Self {
            let tmp = tempfile::tempdir().unwrap();
            let root = fs::canonicalize(tmp.path()).unwrap();
            for dir in ["shared/sub", "state", "etc"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            Places { _tmp: tmp, root }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.root.join(name)
        }

        fn put(&self, name: &str) {
            fs::write(self.at(name), name).unwrap();
        }

        fn own(&self, state: &str, others: &[&str]) -> OwnFiles {
            OwnFiles::new(Some(&self.at(state)), others.iter().map(|o| self.at(o)), Some(self.at("shared").as_path()))
        }

        fn holds(&self, own: &OwnFiles, name: &str) -> bool {
            own.contains(&fs::metadata(self.at(name)).unwrap())
        }
    }

    #[test]
    fn files_are_known_by_any_link_to_them() {
        let p = Places::new();
        for name in ["state/index.redb", "etc/trusted", "shared/a", "shared/sub/real.pem"] {
            p.put(name);
        }
        fs::hard_link(p.at("state/index.redb"), p.at("shared/sub/x")).unwrap();
        fs::hard_link(p.at("etc/trusted"), p.at("shared/y")).unwrap();
        symlink(p.at("shared/sub/real.pem"), p.at("etc/key.pem")).unwrap();
        let own = p.own("state", &["etc/trusted", "etc/key.pem", "none/log"]);
        for name in ["state", "state/index.redb", "etc/trusted", "shared/sub/x", "shared/y", "shared/sub/real.pem"] {
            assert!(p.holds(&own, name), "{name}");
        }
        assert!(!p.holds(&own, "shared/a") && !p.holds(&own, "shared/sub"));
        assert_eq!(own.names_below(&p.at("shared")), ["sub/real.pem"]);
    }

    #[test]
    fn what_replaces_a_file_is_known_and_what_it_replaced_too() {
        let p = Places::new();
        for name in ["etc/trusted", "etc/log", "shared/a", "shared/new"] {
            p.put(name);
        }
        let own = p.own("state", &["etc/trusted", "etc/log"]);
        fs::hard_link(p.at("etc/trusted"), p.at("shared/old")).unwrap();
        fs::rename(p.at("etc/log"), p.at("shared/log.1")).unwrap();
        fs::hard_link(p.at("shared/new"), p.at("etc/trusted.tmp")).unwrap();
        fs::rename(p.at("etc/trusted.tmp"), p.at("etc/trusted")).unwrap();
        p.put("state/index.redb");
        assert!(!p.holds(&own, "shared/new") && p.holds(&own, "shared/old"));
        let new = own.refresh();
        assert_eq!(new.len(), 2, "the new trusted file and the index");
        assert!(new.contains(&fs::metadata(p.at("shared/new")).unwrap().ino()));
        for name in ["shared/new", "shared/old", "shared/log.1", "state/index.redb"] {
            assert!(p.holds(&own, name), "{name}");
        }
        assert!(!p.holds(&own, "shared/a"));
        assert!(own.refresh().is_empty());
    }

    #[test]
    fn a_number_that_is_used_again_is_another_file() {
        let (file, other) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let (meta, other) = (file.as_file().metadata().unwrap(), other.as_file().metadata().unwrap());
        let known = |born| {
            let former = HashMap::from([((meta.dev(), meta.ino()), born)]);
            OwnFiles { paths: Vec::new(), known: RwLock::new(KnownInodes { former, ..KnownInodes::default() }) }
        };
        let (Ok(born), Ok(_)) = (meta.created(), other.created()) else { return };
        assert!(known(born).contains(&meta) && !known(born).contains(&other));
        assert!(!known(born - std::time::Duration::from_nanos(1)).contains(&meta));
    }

    #[test]
    fn a_state_directory_around_the_shared_one_hides_only_its_own_files() {
        let p = Places::new();
        p.put("shared/key.pem");
        let own = ["index.redb", "index.redb.damaged", "key.pem", "peers.known", "peers.known.new", "placed-*"];
        for (state, names) in [("shared", &own[..]), ("", &[])] {
            assert_eq!(p.own(state, &[]).names_below(&p.at("shared")), names, "{state}");
        }
        assert_eq!(p.own("shared/sub", &["shared/sub/key"]).names_below(&p.at("shared")), ["sub"]);
        assert_eq!(p.own("state", &["shared"]).names_below(&p.at("shared/sub")), [""]);
    }

    #[test]
    fn no_own_file_is_written() {
        let p = Places::new();
        for name in ["state/key.pem", "shared/log", "shared/a"] {
            p.put(name);
        }
        fs::hard_link(p.at("state/key.pem"), p.at("shared/b")).unwrap();
        symlink(p.at("state"), p.at("linked")).unwrap();
        let own = p.own("state", &["shared/log", "shared/later"]);
        let refused = |dir: &str, name: &str| own.refused(&p.at(dir), ["fine", name]).iter().any(|r| r.0 == 1);
        for (dir, name) in [("shared", "log"), ("shared", "later"), ("shared", "b"), ("state", "x"), ("state/new", "x")]
        {
            assert!(refused(dir, name), "{dir} {name}");
        }
        assert!(refused("linked", "x") && refused("", "state/x") && refused("", "shared/log"));
        for (dir, name) in [("shared", "a"), ("shared", "logs"), ("shared/sub", "log"), ("none", "key.pem")] {
            assert!(!refused(dir, name), "{dir} {name}");
        }
        let (_, error) = own.refused(&p.at("shared"), ["log"]).remove(0);
        assert!(matches!(&error, StoreError::OwnFile { path } if *path == p.at("shared/log")), "{error}");
        assert!(error.to_string().contains("shared/log is a file of this node itself"), "{error}");
    }

    /// A directory that was fetched into while the state lies in it as well.
    #[test]
    fn records_of_placed_files_are_own_files() {
        let p = Places::new();
        let record = format!("placed-{}", "0af9".repeat(8));
        let (new, deep) = (format!("{record}.new"), format!("sub/{record}"));
        for name in [&record, &deep] {
            p.put(&format!("shared/{name}"));
        }
        fs::hard_link(p.at("shared").join(&record), p.at("shared/linked")).unwrap();
        let own = p.own("shared", &[]);
        let names = own.names_below(&p.at("shared"));
        let layer = "placed-layer-7f".to_string();
        let users = ["placed-1".to_string(), format!("{record}0"), format!("{record}.old"), format!("{layer}0"), deep];
        for (name, is_own) in
            [(&record, true), (&new, true), (&layer, true)].into_iter().chain(users.iter().map(|n| (n, false)))
        {
            assert_eq!(is_one_of(name, &names), is_own, "{name}");
            assert_eq!(!own.refused(&p.at("shared"), [name.as_str()]).is_empty(), is_own, "{name}");
            assert_eq!(!own.refused(&p.root, [format!("shared/{name}").as_str()]).is_empty(), is_own, "{name}");
        }
        assert!(p.holds(&own, "shared/linked") && !own.refused(&p.at("shared"), ["linked"]).is_empty());
    }

    #[test]
    fn names_are_compared_by_whole_components() {
        let names = ["a/b".to_string()];
        assert!(is_one_of("a/b", &names) && is_one_of("a/b/c", &names));
        assert!(!is_one_of("a/bc", &names) && !is_one_of("a", &names) && !is_one_of("b", &names));
        assert!(is_one_of("x", &[String::new()]));
    }
}
