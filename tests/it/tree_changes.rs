//! Names that become something else at the source: files, links, empty directories and full ones, in each order. What
//! fetches made follows; what the user made of it stays.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gpb::testing::Lan;
use gpb::{Bare, Everything, KeyPrefix, Node, Selection, SyncHindrance};

const WAIT: Duration = Duration::from_secs(60);

/// What a name may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Absent,
    File,
    OtherFile,
    LinkToFile,
    LinkToDir,
    EmptyDir,
    FullDir,
}

use Is::*;

const ALL: [Is; 7] = [Absent, File, OtherFile, LinkToFile, LinkToDir, EmptyDir, FullDir];

impl Is {
    fn make(self, path: &Path) {
        let gone = match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(_) => Ok(()),
        };
        gone.unwrap();
        match self {
            Absent => {}
            File => fs::write(path, b"file").unwrap(),
            OtherFile => fs::write(path, b"another file").unwrap(),
            LinkToFile => symlink("targets/f", path).unwrap(),
            LinkToDir => symlink("targets", path).unwrap(),
            EmptyDir => fs::create_dir(path).unwrap(),
            FullDir => {
                fs::create_dir(path).unwrap();
                fs::write(path.join("in"), b"in it").unwrap();
            }
        }
    }

    fn of(path: &Path) -> Self {
        let Ok(meta) = path.symlink_metadata() else { return Absent };
        if let Ok(target) = fs::read_link(path) {
            return if target == Path::new("targets") { LinkToDir } else { LinkToFile };
        }
        match (meta.is_dir(), meta.is_dir() && fs::read_dir(path).unwrap().next().is_some()) {
            (true, true) => FullDir,
            (true, false) => EmptyDir,
            _ if fs::read(path).unwrap() == b"file" => File,
            _ => OtherFile,
        }
    }

    /// As the node offers it.
    fn offered(node: &Node, name: &str) -> Self {
        let catalogue = node.catalogue();
        match (catalogue.bare().get(name), catalogue.get(name)) {
            (Some(Bare::EmptyDir { .. }), _) => EmptyDir,
            (Some(Bare::Link { .. }), Some(_)) => LinkToFile,
            (Some(Bare::Link { .. }), None) => LinkToDir,
            (None, Some(file)) if file.id.len == 4 => File,
            (None, Some(_)) => OtherFile,
            (None, None) if catalogue.get(&format!("{name}/in")).is_some() => FullDir,
            (None, None) => Absent,
        }
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < WAIT, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A directory in which each name changes from one thing to another.
struct Source {
    dir: tempfile::TempDir,
    node: Node,
}

impl Source {
    fn new(lan: &Lan) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("targets")).unwrap();
        fs::write(dir.path().join("targets/f"), b"target").unwrap();
        let node = lan.start(lan.builder().share(gpb::Share::Directory).dir(dir.path())).unwrap();
        let source = Source { dir, node };
        source.become_each(|(from, _)| from);
        source
    }

    fn each() -> impl Iterator<Item = (String, (Is, Is))> {
        let pairs = ALL.into_iter().flat_map(|from| ALL.into_iter().map(move |to| (from, to)));
        pairs.map(|(from, to)| (format!("{from:?}-{to:?}"), (from, to)))
    }

    /// Makes each name what `is` says, and waits until it is offered so.
    fn become_each(&self, is: impl Fn((Is, Is)) -> Is) {
        Self::each().for_each(|(name, pair)| is(pair).make(&self.dir.path().join(name)));
        let is_offered = |(name, pair): &(String, (Is, Is))| Is::offered(&self.node, name) == is(*pair);
        until("it is offered", || Self::each().all(|each| is_offered(&each)));
    }
}

/// Fetches all, by the word of `prefer` if there is one; what failed.
fn fetch_all(node: &Node, prefer: Option<&Node>) -> Vec<String> {
    let selection =
        Selection { hidden: true, prefer: prefer.map(|peer| KeyPrefix::from(peer.id())), ..Selection::default() };
    match node.get(Everything).select(selection).start().unwrap().wait() {
        Ok(_) => Vec::new(),
        Err(failed) => failed.report.failed.iter().map(|f| format!("{} {}", f.path, f.error)).collect(),
    }
}

/// What a fetch of all makes where one peer has what each name was and another one, which decides, what it became.
fn decided((from, to): (Is, Is)) -> Is {
    match (from, to) {
        // What one has alone is taken from that one.
        (_, Absent) | (FullDir, EmptyDir) => from,
        _ => to,
    }
}

fn dir(node: &Node) -> PathBuf {
    node.config().dir.clone().unwrap()
}

/// All below a directory, with what a change of it would show.
fn manifest(dir: &Path) -> BTreeMap<PathBuf, String> {
    let entries = walkdir::WalkDir::new(dir).into_iter().flatten();
    let told = |entry: walkdir::DirEntry| {
        let meta = entry.path().symlink_metadata().unwrap();
        let bytes = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
        let times = if meta.is_dir() { (0, 0) } else { (meta.ctime(), meta.ctime_nsec()) };
        (entry.path().to_path_buf(), format!("{:o} {} {times:?} {bytes:?}", meta.mode(), meta.ino()))
    };
    entries.map(told).collect()
}

#[test]
fn what_a_fetch_made_becomes_what_it_is_at_the_source() {
    let lan = Lan::new().unwrap();
    let (source, node) = (Source::new(&lan), lan.node().unwrap());
    node.fetch(Everything).unwrap().wait().unwrap();
    let here = dir(&node);
    for (name, (from, _)) in Source::each() {
        assert_eq!(Is::of(&here.join(&name)), from, "{name}");
    }
    source.become_each(|(_, to)| to);
    fs::create_dir(here.join("mine")).unwrap();
    fs::write(here.join("mine/notes"), b"mine").unwrap();
    let mine = manifest(&here.join("mine"));
    let failed = fetch_all(&node, None);
    for (name, (from, to)) in Source::each() {
        // Nothing is removed by a fetch, and a directory that has something in it stays one.
        let expected = match (from, to) {
            (_, Absent) | (FullDir, _) => from,
            _ => to,
        };
        assert_eq!(Is::of(&here.join(&name)), expected, "{name}: {failed:?}");
    }
    let in_the_way = failed.iter().all(|f| f.starts_with("FullDir-"));
    assert!(in_the_way && failed.len() == 4, "{failed:?}");
    assert_eq!(manifest(&here.join("mine")), mine);
    assert!(!here.join(".gpb").exists(), "nothing is left");
}

#[test]
fn a_sync_makes_and_removes_links_and_empty_directories() {
    let lan = Lan::new().unwrap();
    let (source, node) = (Source::new(&lan), lan.node().unwrap());
    let sync = || {
        let begun = Instant::now();
        loop {
            let planned = node.sync(".", source.node.id()).max_delete(gpb::MaxDelete::Percent(100)).look(WAIT).unwrap();
            if planned.plan().hindrance != Some(SyncHindrance::Incomplete) || begun.elapsed() > WAIT {
                return planned.start().unwrap().wait().unwrap();
            }
        }
    };
    let here = dir(&node);
    let same = |is: &dyn Fn((Is, Is)) -> Is| {
        for (name, pair) in Source::each() {
            assert_eq!(Is::of(&here.join(&name)), is(pair), "{name}");
        }
    };
    fs::create_dir_all(here.join("mine/empty")).unwrap();
    fs::write(here.join("mine/notes"), b"mine").unwrap();
    symlink("notes", here.join("mine/link")).unwrap();
    let mine = manifest(&here.join("mine"));
    sync();
    same(&|(from, _)| from);
    source.become_each(|(_, to)| to);
    let report = sync();
    same(&|(_, to)| to);
    let failed: Vec<_> = report.fetched.failed.iter().map(|f| f.path.as_str()).collect();
    assert!(failed.is_empty() && report.hindrance.is_none(), "{failed:?} {:?}", report.hindrance);
    let kept: Vec<_> = report.kept.iter().map(|kept| kept.path.as_str()).collect();
    assert_eq!(kept, ["mine/link", "mine/notes"], "only what is the user's");
    for gone in ["LinkToDir-Absent", "LinkToFile-Absent", "EmptyDir-Absent", "FullDir-Absent/in"] {
        assert!(report.removed.iter().any(|removed| removed.as_str() == gone), "{gone}: {:?}", report.removed);
    }
    assert_eq!(manifest(&here.join("mine")), mine);
    // A second run has nothing to do.
    let before = manifest(&here);
    let again = sync();
    assert_eq!((again.removed.len(), again.fetched.failed.len(), again.fetched.bytes), (0, 0, 0));
    assert_eq!(manifest(&here), before);
}

#[test]
fn what_the_user_made_of_it_stays() {
    let lan = Lan::new().unwrap();
    let (source, node) = (Source::new(&lan), lan.node().unwrap());
    node.fetch(Everything).unwrap().wait().unwrap();
    let here = dir(&node);
    // What the user makes of links and empty directories that were fetched.
    for (name, (from, to)) in Source::each() {
        let path = here.join(&name);
        match from {
            LinkToFile | LinkToDir => {
                fs::remove_file(&path).unwrap();
                if to == File { symlink("mine", &path).unwrap() } else { fs::write(&path, b"mine").unwrap() }
            }
            EmptyDir => fs::write(path.join("mine"), b"mine").unwrap(),
            _ => {}
        }
    }
    source.become_each(|(_, to)| to);
    let users = |all: BTreeMap<PathBuf, String>| -> BTreeMap<PathBuf, String> {
        let is_users =
            |path: &Path| ["LinkTo", "EmptyDir-"].iter().any(|kind| path.to_string_lossy().starts_with(kind));
        all.into_iter().filter(|(path, _)| is_users(path.strip_prefix(&here).unwrap())).collect()
    };
    let before = users(manifest(&here));
    let _ = node.fetch(Everything).unwrap().wait();
    let mut after = users(manifest(&here));
    // A directory of both takes what the source has in it.
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(after, before);
}

/// Cause: links and empty directories had no mark of a copy. Effect: what a mirror still had decided, by the older time.
#[test]
fn what_a_mirror_still_has_decides_about_no_link_and_no_directory() {
    let (lan, home) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let source = Source::new(&lan);
    let fetched = || lan.builder().dir(home.path().join("dir")).state(home.path().join("state"));
    fs::create_dir(home.path().join("dir")).unwrap();
    let fetching = lan.start(fetched()).unwrap();
    assert_eq!(fetch_all(&fetching, None), [""; 0]);
    drop(fetching);
    let lagging = lan.start(fetched().share(gpb::Share::Directory)).unwrap();
    lagging.wait_ready(WAIT).unwrap();
    assert!(lagging.catalogue().bare().all().iter().all(|(_, bare)| bare.is_copy()));
    assert!(lagging.catalogue().iter().all(|entry| entry.marks.copy), "a link to a file, too");
    source.become_each(|(_, to)| to);
    let client = lan.node().unwrap();
    until("it knows both", || client.known_peers().len() == 2);
    assert_eq!(fetch_all(&client, None), [""; 0]);
    for (name, pair) in Source::each() {
        assert_eq!(Is::of(&dir(&client).join(&name)), decided(pair), "{name}");
    }
}

#[test]
fn the_preferred_peer_decides_about_links_directories_and_attributes() {
    let lan = Lan::new().unwrap();
    let (other, source) = (Source::new(&lan), Source::new(&lan));
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::new(5, 5);
    for (name, _) in Source::each() {
        // The oldest would count, if nothing else did.
        let path = other.dir.path().join(name);
        if path.symlink_metadata().is_ok_and(|meta| !meta.is_symlink()) {
            fs::File::open(path).unwrap().set_modified(old).unwrap();
        }
    }
    let same = source.dir.path().join("File-File");
    source.become_each(|(_, to)| to);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&same, mode).unwrap();
    until("it is a program", || source.node.catalogue().get("File-File").is_some_and(|file| file.marks.executable));
    until("it is older", || other.node.catalogue().get("File-File").is_some_and(|file| file.stamp.mtime_ns < 1 << 40));
    let client = lan.node().unwrap();
    until("it knows both", || client.known_peers().len() == 2);
    assert_eq!(fetch_all(&client, Some(&source.node)), [""; 0]);
    for (name, pair) in Source::each() {
        assert_eq!(Is::of(&dir(&client).join(&name)), decided(pair), "{name}");
    }
    let (meta, here) = (fs::metadata(&same).unwrap(), fs::metadata(dir(&client).join("File-File")).unwrap());
    assert_eq!((here.mtime(), here.mtime_nsec(), here.mode() & 0o111 != 0), (meta.mtime(), meta.mtime_nsec(), true));
}

#[test]
fn a_mirror_takes_links_and_empty_directories_and_follows_what_becomes_of_them() {
    let (lan, home) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let (source, here) = (Source::new(&lan), home.path().join("dir"));
    symlink("targets", source.dir.path().join("chain")).unwrap();
    symlink("chain/f", source.dir.path().join("over")).unwrap();
    symlink("chain", source.dir.path().join("round")).unwrap();
    fs::create_dir_all(here.join("mine/empty")).unwrap();
    symlink("empty", here.join("mine/link")).unwrap();
    let mine = manifest(&here.join("mine"));
    let builder = lan.builder().dir(&here).state(home.path().join("state")).share(gpb::Share::Directory);
    let mirror = lan.start(builder.mirror("**").mirror_from(source.node.id()).quota(1 << 30)).unwrap();
    let wrong = |is: &dyn Fn((Is, Is)) -> Is| -> Vec<String> {
        let all = Source::each()
            .filter(|(name, pair)| Is::of(&here.join(name)) != is(*pair) || Is::offered(&mirror, name) != is(*pair));
        let told = |name: String| {
            let (is, offered) = (Is::of(&here.join(&name)), Is::offered(&mirror, &name));
            format!("{name} is {is:?}, offered as {offered:?}")
        };
        all.map(|(name, _)| told(name)).collect()
    };
    let holds = |is: &dyn Fn((Is, Is)) -> Is| {
        let begun = Instant::now();
        while !wrong(is).is_empty() {
            assert!(begun.elapsed() < WAIT, "{:?}", wrong(is));
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    holds(&|(from, _)| from);
    until("links over links are made", || {
        ["chain", "over", "round"].into_iter().all(|name| here.join(name).is_symlink())
    });
    let is_copy = |name: &str| mirror.catalogue().bare().get(name).unwrap().is_copy();
    assert!(["EmptyDir-EmptyDir", "LinkToDir-File", "LinkToFile-File"].into_iter().all(is_copy));
    source.become_each(|(_, to)| to);
    // Nothing is removed by a mirror, and a directory that has something in it stays one.
    holds(&|(from, to)| if to == Absent || from == FullDir { from } else { to });
    assert_eq!(manifest(&here.join("mine")), mine);
    // Its own end does not end what it has.
    drop(source);
    let client = lan.node().unwrap();
    until("a client gets all from the mirror", || {
        fetch_all(&client, None).is_empty() && Is::of(&dir(&client).join("File-LinkToDir")) == LinkToDir
    });
}

/// Cause: a content that is excluded was known only by the peer's list. Effect: a file here that had it was removed, or
/// replaced, once the peer had it no more.
#[test]
fn an_excluded_content_stays_whatever_the_peer_has() {
    let (lan, dir_there) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let there = |name: &str| dir_there.path().join(name);
    for (name, text) in [("gone", "secret"), ("changed", "secret"), ("other", "other"), ("kept", "kept")] {
        fs::write(there(name), text).unwrap();
    }
    let sharer = lan.start(lan.builder().share(gpb::Share::Directory).dir(dir_there.path())).unwrap();
    sharer.wait_ready(WAIT).unwrap();
    let node = lan.node().unwrap();
    assert_eq!(fetch_all(&node, None), [""; 0]);
    let here = dir(&node);
    fs::write(here.join("users"), "secret").unwrap();
    fs::write(here.join("users other"), "other").unwrap();
    let secret = sharer.catalogue().get("gone").unwrap().id;
    fs::remove_file(there("gone")).unwrap();
    fs::remove_file(there("other")).unwrap();
    fs::write(there("changed"), "changed").unwrap();
    until("it is offered", || {
        let all = sharer.catalogue();
        all.get("gone").is_none() && all.get("other").is_none() && all.get("changed").is_some_and(|e| e.id.len == 7)
    });
    let before = manifest(&here);
    let sync = |overwrite| {
        let exclude = vec![gpb::Pattern::parse(&secret.to_string()).unwrap()];
        let planned = || {
            let sync = node.sync(".", sharer.id()).exclude(exclude.clone()).overwrite(overwrite);
            sync.max_delete(gpb::MaxDelete::Percent(100)).look(WAIT).unwrap()
        };
        until("its list is complete", || planned().plan().hindrance != Some(SyncHindrance::Incomplete));
        planned().start().unwrap().wait().unwrap()
    };
    let report = sync(gpb::Overwrite::Refuse);
    assert_eq!(report.removed.iter().map(|p| p.as_str()).collect::<Vec<_>>(), ["other"]);
    let kept: Vec<_> = report.kept.iter().map(|kept| kept.path.as_str()).collect();
    assert_eq!((kept, report.fetched.failed.len()), (vec!["users other"], 0));
    let mut left = before;
    left.remove(&here.join("other"));
    assert_eq!(manifest(&here), left, "nothing else is touched");
    let forced = sync(gpb::Overwrite::Replace);
    assert_eq!(forced.removed.iter().map(|p| p.as_str()).collect::<Vec<_>>(), ["users other"]);
    left.remove(&here.join("users other"));
    assert_eq!(manifest(&here), left, "nor by force");
}

/// Cause: a link without a content counted as found. Effect: `get` of a link to a directory fetched nothing and ended with
/// success; and a link or an empty directory that was asked for twice was said to be nowhere.
#[test]
fn a_link_that_is_asked_for_alone_is_told_and_two_patterns_may_mean_one_name() {
    let lan = Lan::new().unwrap();
    let (source, node) = (Source::new(&lan), lan.node().unwrap());
    let fetch = |texts: &[&str]| match node.fetch(texts).unwrap().wait() {
        Ok(report) => format!("{} files", report.files),
        Err(failed) => failed.error.to_string(),
    };
    assert_eq!(fetch(&["LinkToDir-File"]), "LinkToDir-File: a link to \"targets\", which was not asked for");
    assert!(!dir(&node).join("LinkToDir-File").exists());
    assert_eq!(fetch(&["LinkToDir-File", "targets"]), "1 files");
    assert!(dir(&node).join("LinkToDir-File").is_symlink());
    assert_eq!(fetch(&["EmptyDir-File", "EmptyDir-File", "EmptyDir-*"]), "0 files");
    assert!(dir(&node).join("EmptyDir-FullDir").is_dir());
    drop(source);
}
