use std::path::Path;

use super::*;
use crate::content::{Root, merkle};
use crate::node::{Node, NodeBuilder, Share};
use crate::store::{Disk, Life, Overwrite, placed_at};
use crate::swarm::Event;

/// A directory with a state directory, whose copies were last used at any time.
struct Data(tempfile::TempDir);

impl Data {
    fn new() -> Self {
        let data = Data(tempfile::tempdir().unwrap());
        std::fs::create_dir(data.dir()).unwrap();
        data
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("dir")
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    /// Puts a file there as a fetch does, last used so long ago.
    fn fetch(&self, name: &str, life: Life, days_ago: u64) {
        let (path, bytes) = (RelPath::new(name).unwrap(), name.repeat(100));
        let id = FileId { root: Root(merkle::root_of_bytes(bytes.as_bytes())), len: bytes.len() as u64 };
        let disk = Disk::open_for(&self.dir(), false, Overwrite::Refuse, Some(&self.state()), life).unwrap();
        disk.batch_write(&[(path.clone(), id, bytes.as_bytes())]).remove(0).unwrap();
        disk.finish_record();
        drop(disk);
        let now_s = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let used_s = now_s - days_ago * 24 * 3600;
        placed_at(&self.state(), &self.dir(), &path, id, life, used_s);
        // As if it had been read then.
        let times = std::fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH + Duration::from_secs(used_s));
        std::fs::File::options().write(true).open(self.dir().join(name)).unwrap().set_times(times).unwrap();
        placed_at(&self.state(), &self.dir(), &path, id, life, used_s);
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn node(&self) -> NodeBuilder {
        let builder = Node::builder().dir(self.dir()).state(self.state()).bind("127.0.0.1").multicast(false);
        builder.share(Share::Directory)
    }

    /// The names with their bytes and times.
    fn manifest(&self) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
        let mut all = Vec::new();
        collect(&self.dir(), &self.dir(), &mut all);
        all.sort();
        all
    }
}

fn collect(root: &Path, dir: &Path, all: &mut Vec<(String, Vec<u8>, std::time::SystemTime)>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        if meta.is_dir() {
            collect(root, &path, all);
        } else {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            all.push((name, read(&path), meta.modified().unwrap()));
        }
    }
}

/// The bytes of a file, which is not used by that.
fn read(path: &Path) -> Vec<u8> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOATIME.bits().cast_signed();
    let mut bytes = Vec::new();
    let mut file = std::fs::File::options().read(true).custom_flags(flags).open(path).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const DEADLINE: Duration = Duration::from_secs(60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

#[test]
fn old_copies_expire_and_the_rest_of_the_directory_is_untouched() {
    let data = Data::new();
    for (name, life, days) in [
        ("d/old", Life::Temporary, 8),
        ("young", Life::Temporary, 6),
        ("kept", Life::Kept, 100),
        ("mirrored", Life::Mirrored, 100),
        ("edited", Life::Temporary, 100),
        ("replaced", Life::Temporary, 100),
    ] {
        data.fetch(name, life, days);
    }
    data.write("users", "users");
    data.write("d/users", "users");
    data.write("edited", "edited by the user");
    data.write("other", "replaced by the user");
    std::fs::rename(data.dir().join("other"), data.dir().join("replaced")).unwrap();
    let before = data.manifest();
    let node = data.node().retain(WEEK).start().unwrap();
    let events = node.events();
    until("the old one expires", || node.stats().mirror.expired == 1);
    until("its end is announced", || node.catalogue().get("d/old").is_none());
    let told = |event: Event| matches!(event, Event::CopyExpired { path, .. } if path.as_str() == "d/old");
    assert!(std::iter::from_fn(|| events.recv_timeout(DEADLINE).ok()).any(told));
    let left: Vec<_> = before.into_iter().filter(|(name, ..)| name != "d/old").collect();
    assert_eq!(data.manifest(), left, "nothing else is touched; no other node has the mirrored one");
    assert_eq!(node.catalogue().len(), left.len());
    // Copies are offered as such, and what was edited is not one.
    let is_copy = |name: &str| node.catalogue().get(name).unwrap().marks.copy;
    assert_eq!(["young", "kept", "mirrored", "edited", "users"].map(is_copy), [true, true, true, false, false]);
    let is_temporary = |name: &str| node.catalogue().get(name).unwrap().marks.temporary;
    assert_eq!(["young", "kept", "mirrored", "edited"].map(is_temporary), [true, false, false, false]);
    let stats = node.stats().mirror;
    assert_eq!((stats.copies, stats.bytes), (2, 1300));
}

#[test]
fn the_quota_takes_the_least_recently_used_first_and_last_copies_last() {
    let data = Data::new();
    for (name, life, days) in
        [("t1", Life::Temporary, 3), ("t2", Life::Temporary, 5), ("m1", Life::Mirrored, 50), ("kept", Life::Kept, 90)]
    {
        data.fetch(name, life, days);
    }
    data.write("users", &"x".repeat(100_000));
    let names = |data: &Data| data.manifest().into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    for (quota, expired, left) in [
        (600, 0, &["kept", "m1", "t1", "t2", "users"][..]),
        (400, 1, &["kept", "m1", "t1", "users"]),
        (200, 1, &["kept", "m1", "users"]),
        (0, 1, &["kept", "users"]),
    ] {
        let node = data.node().quota(quota).start().unwrap();
        let copies = 3 - expired_before(quota);
        until("it has looked", || {
            let stats = node.stats().mirror;
            stats.expired == expired && stats.copies == copies - expired
        });
        assert_eq!(names(&data), left, "quota {quota}");
    }
}

/// How many copies smaller quotas before this one took.
fn expired_before(quota: u64) -> u64 {
    match quota {
        600 | 400 => 0,
        200 => 1,
        _ => 2,
    }
}

#[test]
fn what_is_read_for_others_is_used() {
    let data = Data::new();
    data.fetch("read", Life::Temporary, 100);
    data.fetch("idle", Life::Temporary, 100);
    // The clock of the machine decides: both are old, and one is read before anything is looked for.
    let used = Arc::new(UsedNames::default());
    used.note("read");
    let mut dir = crate::store::ExpiringDir::open(&data.state(), &data.dir()).unwrap();
    dir.refresh();
    let now_s = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    dir.used(&used.take(), now_s);
    dir.record_use(3600);
    drop(dir);
    let node = data.node().retain(WEEK).start().unwrap();
    until("the other one expires", || node.stats().mirror.expired == 1);
    assert!(data.dir().join("read").exists() && !data.dir().join("idle").exists());
}

/// Cause: what was given to others was asked for once a minute alone. Effect: a copy that was just being given made room
/// for another one.
#[test]
fn what_is_given_to_others_makes_no_room() {
    let (sharer, data, into) = (Data::new(), Data::new(), tempfile::tempdir().unwrap());
    data.fetch("a", Life::Temporary, 50);
    let first = sharer.node().start().unwrap();
    let mirror = data.node().mirror("**").mirror_from(first.id()).quota(150).peer(first.addrs()[0]).start().unwrap();
    until("the copy is offered", || mirror.catalogue().len() == 1 && mirror.stats().mirror.copies == 1);
    let client = Node::builder().bind("127.0.0.1").multicast(false).share(Share::Nothing).state(into.path().join("s"));
    let client = client.dir(into.path()).peer(mirror.addrs()[0]).start().unwrap();
    client.fetch("a").unwrap().wait().unwrap();
    sharer.write("b", &"b".repeat(100));
    until("it is known", || mirror.stats().mirror.missing == 1 || data.dir().join("b").exists());
    assert!(data.dir().join("a").exists() && !data.dir().join("b").exists(), "it was used since");
}

/// Cause: a copy that a new version was to replace counted beside it. Effect: a mirror whose quota was less than twice
/// the longest file kept the old version for ever.
#[test]
fn a_new_version_takes_the_room_of_the_old_one() {
    let (sharer, data) = (Data::new(), Data::new());
    sharer.write("m", &"m".repeat(100));
    let first = sharer.node().start().unwrap();
    let mirror = data.node().mirror("**").mirror_from(first.id()).quota(150).peer(first.addrs()[0]).start().unwrap();
    let is_here =
        |text: &str| std::fs::read(data.dir().join("m")).is_ok_and(|bytes| bytes == text.repeat(100).as_bytes());
    until("it is mirrored", || is_here("m") && mirror.stats().mirror.copies == 1);
    sharer.write("m", &"n".repeat(100));
    until("the new version replaces it", || is_here("n"));
    sharer.write("n", &"m".repeat(100));
    until("another name has no room", || mirror.stats().mirror.missing == 1);
    assert!(!data.dir().join("n").exists() && is_here("n"));
}

/// A copy that made room for what replaces it would be gone before that is here, and be counted twice.
#[test]
fn a_version_that_is_larger_than_the_quota_leaves_the_old_one() {
    let (sharer, data) = (Data::new(), Data::new());
    data.fetch("m", Life::Temporary, 50);
    let first = sharer.node().start().unwrap();
    let mirror = data.node().mirror("**").mirror_from(first.id()).quota(150).peer(first.addrs()[0]).start().unwrap();
    until("the copy is offered", || mirror.catalogue().len() == 1 && mirror.stats().mirror.copies == 1);
    sharer.write("m", &"n".repeat(200));
    let old = || std::fs::read(data.dir().join("m")).is_ok_and(|bytes| bytes == "m".repeat(100).as_bytes());
    until("it is known", || mirror.stats().mirror.missing == 1 || !old());
    assert!(old());
}

/// Cause: a link whose target had expired was fetched with its target. Effect: the copy came back, at once or when its
/// sharer was heard again.
#[test]
fn a_link_does_not_bring_back_the_copy_that_it_leads_to() {
    let (sharer, data) = (Data::new(), Data::new());
    sharer.write("v1/a", &"v1/a".repeat(100));
    std::os::unix::fs::symlink("v1/a", sharer.dir().join("latest")).unwrap();
    std::os::unix::fs::symlink("v1", sharer.dir().join("now")).unwrap();
    std::os::unix::fs::symlink("now/a", sharer.dir().join("newest")).unwrap();
    let first = sharer.node().start().unwrap();
    until("all is offered", || first.catalogue().len() == 3);
    data.fetch("v1/a", Life::Mirrored, 100);
    let node = || data.node().mirror("**").mirror_from(first.id()).quota(1 << 30).retain(WEEK).peer(first.addrs()[0]);
    for (round, name) in ["one", "two"].into_iter().enumerate() {
        sharer.write(name, name);
        let mirror = node().start().unwrap();
        until("what is new is here", || data.dir().join(name).exists());
        until("the old copy has expired", || round > 0 || mirror.stats().mirror.expired == 1);
        sharer.write(&format!("{name}-after"), name);
        until("what comes later is here", || data.dir().join(format!("{name}-after")).exists());
        until("nothing is to be fetched", || mirror.stats().mirror.missing == 0);
        assert!(!data.dir().join("v1/a").exists(), "{name}");
    }
}
