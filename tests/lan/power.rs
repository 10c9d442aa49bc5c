//! Power loss on real file systems: what lies on the device at random moments is what a power loss would leave.
//!
//! The disk is an image below a loop mount, and lies on XFS, where a reflink copies it at one moment. Each copy is
//! mounted, so that its journal is replayed, and compared; then the download goes on from it.
//!
//! `GPB_SNAPSHOTS` sets the number of copies for each file system.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gpb::internals::content::{Root, merkle};
use gpb::internals::runtime::keystore::load_key;
use gpb::internals::store::{Index, stamp_of};

use crate::group::{CLIENT, MIB, SERVER, Server, sample};
use crate::mounts::{MountSpace, lacks};
use crate::net::{Host, Lan, secs};
use crate::process::{Process, Signal};

const LARGE_LEN: u64 = 80 * MIB;
const SMALL_FILES: u64 = 400;
/// Copies of the device in one run of the download.
const SNAPSHOTS_A_RUN: u64 = 10;

#[derive(Default)]
struct Tally {
    snapshots: u64,
    finals: u64,
    unfinished: u64,
    rehashed_bytes: u64,
    indexed: u64,
    keys: u64,
}

/// The disk under test, and where its parts lie.
struct Lab {
    space: MountSpace,
    kind: &'static str,
    /// The file system that holds the images.
    store: PathBuf,
    disk: PathBuf,
}

impl Lab {
    fn new(lan: &Lan, kind: &'static str) -> Self {
        let space = MountSpace::new();
        let (store, disk) = (lan.new_dir("store"), lan.new_dir("disk"));
        let backing = lan.dir().join("backing");
        space.sh(&format!(
            "truncate -s 12G {0}; mkfs.xfs -q -m reflink=1 {0}; mount -o loop {0} {1}",
            backing.display(),
            store.display()
        ));
        Lab { space, kind, store, disk }
    }

    fn make_and_mount(&self) {
        let force = if self.kind == "ext4" { "-F" } else { "-f" };
        self.space.sh(&format!(
            "cd {store}; rm -f image; truncate -s 640M image; mkfs.{kind} -q {force} image; mount -o loop image {disk}; \
             mkdir {disk}/out {disk}/shared; sync -f {disk}",
            store = self.store.display(),
            disk = self.disk.display(),
            kind = self.kind,
        ));
    }

    fn mount(&self, snapshot: &str) {
        self.space.sh(&format!("mount -o loop {}/{snapshot} {}", self.store.display(), self.disk.display()));
    }

    fn unmount(&self) {
        self.space.sh(&format!("umount {}", self.disk.display()));
    }

    /// A path on the disk, for this process.
    fn at(&self, path: &str) -> PathBuf {
        self.space.path(&self.disk.join(path))
    }

    fn inside(&self, path: &str) -> String {
        self.disk.join(path).to_str().unwrap().to_string()
    }

    fn get(&self, host: &Host, from: &Host) -> Process {
        let (out, state) = (self.inside("out"), self.inside("state"));
        let args = [
            "get",
            "**",
            "--dir",
            &out,
            "--state",
            &state,
            "--no-share",
            "--json",
            "--log-level",
            "info",
            "--timeout",
            "60",
        ];
        self.space.spawn(host, CLIENT, &[&args[..], &["--no-multicast", "--peer", &from.ip]].concat())
    }
}

/// Changes files in the shared directory as users do: new ones, replaced ones, and some that are written over in place.
fn disturb(shared: &Path, seed: u64, stop: &AtomicBool) {
    let mut turn = seed;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let path = shared.join(format!("f{}", turn % 40));
        let bytes = vec![turn as u8; (1000 + turn * 7919 % 700_000) as usize];
        if turn.is_multiple_of(3) && path.exists() {
            let _ = fs::File::options().write(true).open(&path).unwrap().write_all_at(&bytes, 0);
        } else {
            fs::write(&path, bytes).unwrap();
        }
        std::thread::sleep(Duration::from_millis(90));
    }
}

/// The paths that the client has said to be fetched.
fn reported(process: &Process) -> HashSet<String> {
    let lines = process.log().lines_with("\"event\":\"file\"");
    let path =
        |line: String| serde_json::from_str::<serde_json::Value>(&line).unwrap()["path"].as_str().unwrap().to_string();
    lines.into_iter().map(path).collect()
}

/// One run of the download; the copies, each with what had been reported before.
fn run_and_copy(lab: &Lab, host: &Host, slow: &Host, rng: &mut u64, count: u64) -> Vec<(String, HashSet<String>)> {
    lab.make_and_mount();
    let (shared, state) = (lab.inside("shared"), lab.inside("server-state"));
    let args = ["--dir", &shared, "--state", &state, "--no-multicast", "--log-level", "warn"];
    let mut server = lab.space.spawn(host, SERVER, &args);
    let stop = AtomicBool::new(false);
    let mut copies = Vec::new();
    std::thread::scope(|scope| {
        let (dir, stop, seed) = (lab.at("shared"), &stop, *rng);
        scope.spawn(move || disturb(&dir, seed % 1000, stop));
        let mut client = lab.get(host, slow);
        for number in 0..count {
            *rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_millis(40 + (*rng >> 33) % 1700));
            let before = reported(&client);
            let name = format!("copy-{number}");
            lab.space.sh(&format!("cd {}; cp --reflink=always image {name}", lab.store.display()));
            copies.push((name, before));
            if !client.is_running() {
                break;
            }
        }
        client.signal(Signal::KILL);
        drop(client);
        stop.store(true, Ordering::Relaxed);
    });
    server.signal(Signal::KILL);
    drop(server);
    lab.unmount();
    copies
}

/// Compares what a copy holds, and goes on from it.
fn check(
    lab: &Lab,
    host: &Host,
    fast: &Host,
    source: &BTreeMap<String, Vec<u8>>,
    copy: &(String, HashSet<String>),
    tally: &mut Tally,
) {
    let (name, before) = copy;
    lab.mount(name);
    tally.snapshots += 1;
    for (path, bytes) in source {
        match fs::read(lab.at("out").join(path)) {
            Ok(found) => {
                assert!(found == *bytes, "{name}: {path} is neither absent nor whole");
                tally.finals += 1;
            }
            Err(e) => {
                assert!(e.kind() == std::io::ErrorKind::NotFound, "{name}: {path}: {e}");
                assert!(!before.contains(path), "{name}: {path} was reported and is lost");
            }
        }
    }
    let key = lab.at("state/key.pem");
    if key.exists() {
        load_key(&key).unwrap_or_else(|e| panic!("{name}: {e}"));
        tally.keys += 1;
    } else {
        assert!(before.is_empty(), "{name}: the key is lost");
    }
    check_index(lab, name, tally);
    let ended = lab.get(host, fast).wait(secs(180)).expect(0);
    for (path, bytes) in source {
        assert!(fs::read(lab.at("out").join(path)).unwrap() == *bytes, "{name}: {path} differs after the resume");
    }
    // Nothing that was journaled is wrong.
    let text = ended.text();
    assert!(!text.contains("changed since it was fetched"), "{name}: a journaled chunk was wrong:\n{text}");
    if let Some(resumed) = text.lines().find(|l| l.contains("resumed file=")) {
        tally.unfinished += 1;
        tally.rehashed_bytes += resumed.split("to_rehash=").nth(1).unwrap().trim().parse::<u64>().unwrap();
    }
    lab.unmount();
    lab.space.sh(&format!("rm {}/{name}", lab.store.display()));
}

/// What the index says of each shared file is its root.
fn check_index(lab: &Lab, name: &str, tally: &mut Tally) {
    let index = Index::open(&lab.at("server-state"), &lab.disk.join("shared")).unwrap();
    let mut lookup = index.lookup().unwrap();
    for entry in fs::read_dir(lab.at("shared")).unwrap() {
        let entry = entry.unwrap();
        let (path, meta) = (entry.file_name().into_string().unwrap(), entry.metadata().unwrap());
        if let Some(id) = lookup.get(&path, meta.len(), &stamp_of(&meta)) {
            let root = Root(merkle::root_of_bytes(&fs::read(entry.path()).unwrap()));
            assert!(id.root == root, "{name}: the index has a root of other bytes for {path}");
            tally.indexed += 1;
        }
    }
}

fn lose_power(lan: &Lan, kind: &'static str) {
    let count = std::env::var("GPB_SNAPSHOTS").map_or(100, |n| n.parse().unwrap());
    let source = lan.new_dir("source");
    sample(&source.join("large.bin"), LARGE_LEN, 91);
    for i in 0..SMALL_FILES {
        sample(&source.join(format!("d{}/s{i}", i % 9)), 1 + i * 37 % 9000, i);
    }
    fs::copy(source.join("large.bin"), source.join("twin.bin")).unwrap();
    let mut files = BTreeMap::new();
    for path in (0..SMALL_FILES).map(|i| format!("d{}/s{i}", i % 9)).chain(["large.bin".into(), "twin.bin".into()]) {
        let bytes = fs::read(source.join(&path)).unwrap();
        files.insert(path, bytes);
    }
    let (s, f, c) = (lan.host("s", Some(90)), lan.host("f", None), lan.host("c", None));
    let _servers = (Server::start(&s, &source, &["--no-multicast"]), Server::start(&f, &source, &["--no-multicast"]));
    let lab = Lab::new(lan, kind);
    let (mut tally, mut rng) = (Tally::default(), 0x5eed ^ u64::from(std::process::id()));
    println!("{kind}: seed {rng:#x}");
    while tally.snapshots < count {
        let copies = run_and_copy(&lab, &c, &s, &mut rng, SNAPSHOTS_A_RUN.min(count - tally.snapshots));
        for copy in &copies {
            check(&lab, &c, &f, &files, copy, &mut tally);
        }
        let Tally { snapshots, finals, unfinished, rehashed_bytes, indexed, keys } = tally;
        println!(
            "{kind}: {snapshots} snapshots, 0 wrong; {finals} final files whole, {unfinished} parts with {rehashed_bytes} \
             journaled bytes right, {indexed} index entries right, {keys} keys whole"
        );
    }
}

macro_rules! power_loss {
    ($test:ident, $kind:literal) => {
        #[test]
        #[ignore = "takes minutes, and needs root"]
        fn $test() {
            let lan = lan_or_skip!();
            if let Some(why) = lacks($kind).or_else(|| lacks("xfs")) {
                skip!("{why}");
            }
            lose_power(&lan, $kind);
        }
    };
}

power_loss!(a_power_loss_on_ext4_leaves_nothing_wrong, "ext4");
power_loss!(a_power_loss_on_xfs_leaves_nothing_wrong, "xfs");
power_loss!(a_power_loss_on_btrfs_leaves_nothing_wrong, "btrfs");
