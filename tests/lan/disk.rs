//! Real disks: full, read-only, gone, without inodes, and directories of other users.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::group::{CLIENT, Got, MIB, SERVER, Server, assert_same, copies, sample};
use crate::mounts::{MountSpace, lacks};
use crate::net::{Host, Lan, secs, until};
use crate::process::{Ended, Process, Signal};

const LEN: u64 = 48 * MIB;

/// A server of one large file over a link of moderate rate, and a disk on which a client puts it.
struct Lab {
    space: MountSpace,
    client: Host,
    server: Server,
    source: PathBuf,
    /// The mount point, which only the client sees.
    disk: PathBuf,
}

impl Lab {
    fn new(lan: &Lan, rate_mbit: u32) -> Self {
        let [source] = copies(lan, ["d"], "a.bin", LEN, 72);
        let (s, client, disk) = (lan.host("s", Some(rate_mbit)), lan.host("c", None), lan.new_dir("disk"));
        let server = Server::start(&s, &source, &[]);
        Lab { space: MountSpace::new(), client, server, source, disk }
    }

    /// Makes and mounts an ext4 file system of that many MiB.
    fn ext4(&self, lan: &Lan, mib: u64, options: &str) {
        let image = lan.dir().join("image");
        self.space.sh(&format!(
            "rm -f {0}; truncate -s {mib}M {0}; mkfs.ext4 -q -F -m 0 {options} {0}; mount -o loop {0} {1}; mkdir {1}/out",
            image.display(),
            self.disk.display()
        ));
    }

    /// Makes and mounts an exFAT file system.
    fn exfat(&self, lan: &Lan) {
        let (image, disk) = (lan.dir().join("image"), self.disk.display());
        self.space.sh(&format!(
            "truncate -s 100M {0}; mkfs.exfat {0} > /dev/null; loop=$(losetup -f --show {0}); \
             mount.exfat-fuse $loop {disk}; losetup -d $loop; mkdir {disk}/out",
            image.display()
        ));
    }

    fn out(&self) -> PathBuf {
        self.disk.join("out")
    }

    /// What lies at a path of the disk, for this process.
    fn at(&self, path: &str) -> PathBuf {
        self.space.path(&self.out().join(path))
    }

    /// The state lies elsewhere: only the disk under test fails.
    fn get(&self, what: &str) -> Process {
        let (out, state) = (self.out(), self.client.home().join("state"));
        let (out, state) = (out.to_str().unwrap(), state.to_str().unwrap());
        let args = ["get", what, "--dir", out, "--state", state, "--no-share", "--json", "--timeout", "20"];
        self.space.spawn(&self.client, CLIENT, &args)
    }

    /// Waits until the client lists so many names of `dir` that begin with `begin`.
    fn until_listed(&self, dir: &str, begin: &str, count: usize) {
        let begin = format!("{dir}/{begin}");
        until(&format!("{count} are listed"), secs(20), || {
            let listed = self.client.spawn(CLIENT, &["list", dir]).wait(secs(15));
            (listed.out.iter().filter(|line| line.contains(&begin)).count() == count).then_some(())
        });
    }

    /// The client ends with exit code 7, and one error with all of `parts`, which nothing says a second time.
    #[track_caller]
    fn expect_trouble(process: Process, parts: &[&str]) -> String {
        let got = Got { ended: process.wait(secs(60)), events: Vec::new() }.expect(7);
        let text = got.ended.text();
        let said = |event: &str| got.ended.out.iter().find(|l| l.contains(event)).cloned().unwrap_or_default();
        // Of several names, each is told why; of one, the last line tells it.
        let message = said("\"event\":\"failed\"") + &said("\"event\":\"error\"");
        for part in parts {
            assert!(message.contains(part), "no `{part}` in {message}");
        }
        let warned: Vec<_> = got.ended.err.iter().filter(|l| l.contains("WARN") || l.contains("ERROR")).collect();
        let again = warned.iter().filter(|l| l.contains("discarded") || l.contains("not journaled")).count();
        assert!(again == 0, "the same trouble is said again:\n{text}");
        assert!(!text.contains("panicked"), "{text}");
        message
    }

    /// The next run ends right; how many bytes it did not have to fetch.
    fn expect_rest(&self) -> u64 {
        let got = self.get("a.bin").wait(secs(60)).expect(0);
        assert_same(&self.at("a.bin"), &self.source.join("a.bin"));
        let done = got.out.iter().find(|l| l.contains("\"event\":\"done\"")).unwrap();
        let done: serde_json::Value = serde_json::from_str(done).unwrap();
        assert!(!self.at(".gpb").exists(), "nothing is left over");
        LEN - done["bytes"].as_u64().unwrap()
    }
}

/// Ends the test as skipped where there is no ext4.
macro_rules! ext4_or_skip {
    () => {
        if let Some(why) = lacks("ext4") {
            skip!("{why}");
        }
    };
}

/// Ends the test as skipped where there is no exFAT.
macro_rules! exfat_or_skip {
    () => {
        let has = |name: &str| std::process::Command::new("sh").arg("-c").arg(format!("command -v {name}")).output();
        let lacks = ["mount.exfat-fuse", "mkfs.exfat"].iter().any(|p| !has(p).is_ok_and(|o| o.status.success()));
        if lacks || !Path::new("/dev/fuse").exists() {
            skip!("needs the programs mount.exfat-fuse and mkfs.exfat, and /dev/fuse");
        }
    };
}

#[test]
fn a_disk_that_fills_up_meanwhile_costs_nothing_that_came() {
    let lan = lan_or_skip!();
    ext4_or_skip!();
    let lab = Lab::new(&lan, 100);
    // Without reserved room, as on a file system that cannot: ext4 without extents.
    lab.ext4(&lan, 96, "-O ^extent,^64bit,^metadata_csum");
    let before = lab.client.received();
    let mut running = lab.get("a.bin");
    lab.client.wait_received(before, 24 * MIB, secs(30));
    // What is to come must not be there before the disk is full, however long the filler takes.
    running.signal(Signal::STOP);
    lab.space.sh(&format!("dd if=/dev/zero of={}/filler bs=1M status=none || true", lab.disk.display()));
    running.signal(Signal::CONT);
    Lab::expect_trouble(running, &["no space for", "out/", "free some space"]);
    lab.space.sh(&format!("rm {}/filler", lab.disk.display()));
    let kept = lab.expect_rest();
    assert!(kept > 0, "what was journaled is kept");

    // A disk that is too small from the start: nothing is fetched, and the numbers are told.
    lab.space
        .sh(&format!("rm {0}/out/a.bin; dd if=/dev/zero of={0}/filler bs=1M count=60 status=none", lab.disk.display()));
    let before = lab.client.received();
    Lab::expect_trouble(lab.get("a.bin"), &["no space for", "50331648 bytes needed", "free", "missing"]);
    assert!(lab.client.received() < before + MIB && !lab.at(".gpb").exists());
}

#[test]
fn a_disk_without_inodes_says_so() {
    let lan = lan_or_skip!();
    ext4_or_skip!();
    let lab = Lab::new(&lan, 400);
    for i in 0..40 {
        sample(&lab.source.join(format!("small/s{i}")), 100 + i, i);
    }
    lab.ext4(&lan, 96, "-N 64");
    let fill = format!(
        "i=0; while touch {0}/x$i 2> /dev/null; do i=$((i + 1)); done; rm {0}/x0 {0}/x1 {0}/x2 {0}/x3",
        lab.disk.display()
    );
    lab.space.sh(&fill);
    lab.until_listed("small", "s", 40);
    Lab::expect_trouble(lab.get("small"), &["out/small", "no inodes left", "remove some files"]);
    lab.space.sh(&format!("rm {}/x*", lab.disk.display()));
    let ended = lab.get("small").wait(secs(30)).expect(0);
    assert!(ended.text().contains("\"event\":\"done\""));
    for i in 0..40 {
        assert_same(&lab.at(&format!("small/s{i}")), &lab.source.join(format!("small/s{i}")));
    }
}

#[test]
fn a_disk_that_becomes_read_only_is_named_and_the_rest_comes_later() {
    let lan = lan_or_skip!();
    ext4_or_skip!();
    let lab = Lab::new(&lan, 60);
    lab.ext4(&lan, 160, "-e remount-ro");
    let before = lab.client.received();
    let running = lab.get("a.bin");
    // Enough for one batch in the journal.
    lab.client.wait_received(before, 28 * MIB, secs(30));
    // As the kernel does after an error.
    lab.space.sh(&format!(
        "echo 1 > /sys/fs/ext4/$(basename $(findmnt -no SOURCE {}))/trigger_fs_error",
        lab.disk.display()
    ));
    let message = Lab::expect_trouble(running, &["out/"]);
    assert!(message.contains("read-only") || message.contains("Input/output"), "{message}");
    lab.space.sh(&format!(
        "umount {0}; e2fsck -fy {1} > /dev/null || true; mount -o loop {1} {0}",
        lab.disk.display(),
        lan.dir().join("image").display()
    ));
    assert!(lab.expect_rest() > 0, "what was journaled is kept");
}

/// A client that fetches to a disk which vanishes by `vanish` ends with an error that names what it cannot use.
fn vanishes(lab: &Lab, vanish: &dyn Fn(), cause: &[&str]) {
    let before = lab.client.received();
    let running = lab.get("a.bin");
    lab.client.wait_received(before, 28 * MIB, secs(30));
    vanish();
    let message = Lab::expect_trouble(running, &["out"]);
    assert!(cause.iter().any(|c| message.contains(c)), "{message}");
    assert!(message.contains("check the disk and run again"), "{message}");
    // As long as it is gone, the next run says so, too.
    Lab::expect_trouble(lab.get("a.bin"), &["out"]);
}

#[test]
fn a_disk_that_breaks_is_named_and_the_rest_comes_later() {
    let lan = lan_or_skip!();
    if let Some(why) = lacks("xfs") {
        skip!("{why}");
    }
    let lab = Lab::new(&lan, 60);
    let (image, disk) = (lan.dir().join("image"), lab.disk.display());
    let mount = format!("mount -o loop {} {disk}", image.display());
    lab.space.sh(&format!("truncate -s 400M {0}; mkfs.xfs -q {0}; {mount}; mkdir {disk}/out", image.display()));
    // From then on each call fails, as when the device is unplugged.
    let shut_down = || drop(lab.space.sh(&format!("xfs_io -x -c shutdown {disk}")));
    vanishes(&lab, &shut_down, &["Input/output error"]);
    lab.space.sh(&format!("umount {disk}; {mount}"));
    lab.expect_rest();
}

#[test]
fn a_dry_run_says_that_nothing_can_be_written() {
    let lan = lan_or_skip!();
    let lab = Lab::new(&lan, 400);
    lab.space.sh(&format!("mount -t tmpfs none {0}; mkdir {0}/out; mount -o remount,ro {0}", lab.disk.display()));
    for more in [&["--dry-run"][..], &[]] {
        let (out, state) = (lab.out(), lab.client.home().join("state"));
        let place = ["get", "a.bin", "--dir", out.to_str().unwrap(), "--state", state.to_str().unwrap(), "--no-share"];
        let ended = lab.space.spawn(&lab.client, CLIENT, &[&place[..], more].concat()).wait(secs(60)).expect(7);
        assert!(ended.text().contains("is on a read-only file system"), "{}", ended.text());
    }
}

#[test]
fn a_mount_whose_program_dies_is_named_and_the_rest_comes_later() {
    let lan = lan_or_skip!();
    ext4_or_skip!();
    if std::process::Command::new("fuse2fs").arg("-V").output().is_err() || !Path::new("/dev/fuse").exists() {
        skip!("needs the program fuse2fs and /dev/fuse");
    }
    let lab = Lab::new(&lan, 60);
    let (image, disk) = (lan.dir().join("image"), lab.disk.clone());
    lab.space.sh(&format!("truncate -s 200M {0}; mkfs.ext4 -q -F {0}", image.display()));
    let fuse = lab.space.spawn(&lab.client, "fuse2fs", &["-f", image.to_str().unwrap(), disk.to_str().unwrap()]);
    until("it is mounted", secs(30), || lab.space.try_sh(&format!("mountpoint -q {}", disk.display())).ok());
    lab.space.sh(&format!("mkdir {}/out", disk.display()));
    let fuse = std::cell::RefCell::new(Some(fuse));
    let kill = || drop(fuse.take().unwrap().kill());
    vanishes(&lab, &kill, &["Transport endpoint is not connected", "Software caused connection abort", "Input/output"]);
    // What the program had not written is lost, and the repair leaves files with holes: fuse2fs itself fails at some of
    // them ("Extent not found"), the kernel does not.
    lab.space.sh(&format!(
        "umount -l {0}; e2fsck -fy {1} > /dev/null || true; mount -o loop {1} {0}",
        disk.display(),
        image.display()
    ));
    lab.expect_rest();
}

/// Two names that differ in case are one file on exFAT, whose FUSE driver shows a number of its own for each of them.
/// `cargo test --test lan names_that_a_disk -- --ignored` runs it: beside other tests its driver ends now and then.
#[test]
#[ignore = "its driver needs a quiet machine"]
fn names_that_a_disk_takes_for_one_lose_no_content() {
    let lan = lan_or_skip!();
    exfat_or_skip!();
    let lab = Lab::new(&lan, 400);
    let names = ["A.txt", "a.txt", "Dir/f", "dir/F", "dir/g", "\u{c4}", "\u{e4}", "Large", "large"];
    for (n, name) in names.iter().enumerate() {
        sample(&lab.source.join(format!("set/{name}")), if n < 7 { 100 + n as u64 } else { MIB + n as u64 }, n as u64);
    }
    lab.exfat(&lan);
    lab.until_listed("set", "", names.len());
    let (out, state) = (lab.out(), lab.client.home().join("state"));
    for force in [&[][..], &["--force"], &["--backup"]] {
        let mut args = vec!["get", "set", "--dir", out.to_str().unwrap(), "--state", state.to_str().unwrap()];
        args.extend(["--no-share", "--json"].iter().chain(force));
        let ended = lab.space.spawn(&lab.client, CLIENT, &args).wait(secs(60)).expect(7);
        let failed: Vec<_> = ended.out.iter().filter(|l| l.contains("\"event\":\"failed\"")).collect();
        assert_eq!(failed.len(), 4, "one of each pair:\n{}", ended.text());
        // Whatever the disk calls it, each pair has the content of one of the two.
        for pair in [[0, 1], [2, 3], [5, 6], [7, 8]] {
            let is_one = pair.map(|n| {
                let there = std::fs::read(lab.at(&format!("set/{}", names[pair[0]]))).unwrap();
                there == std::fs::read(lab.source.join(format!("set/{}", names[n]))).unwrap()
            });
            assert!(is_one[0] != is_one[1], "{pair:?} {is_one:?}:\n{}", ended.text());
        }
        if force.contains(&"--force") {
            let named = |line: &&&String| line.to_lowercase().matches("a.txt").count() >= 2;
            assert!(failed.iter().any(|line| named(&line)), "both names are told:\n{}", ended.text());
        }
    }
}

/// Cause: exFAT by FUSE shows an inode of its own for each spelling, so the new spelling of a name was no sign that the old
/// one is its file. Effect: a sync behind `mv x X` removed the only content and ended with 0. Mend: a spelling that is
/// there and not listed is another one of what is listed.
#[test]
#[ignore = "its driver needs a quiet machine"]
fn a_name_that_changed_its_case_loses_nothing_by_a_sync() {
    let lan = lan_or_skip!();
    exfat_or_skip!();
    let lab = Lab::new(&lan, 400);
    for (n, name) in ["name", "other"].iter().enumerate() {
        sample(&lab.source.join(format!("set/{name}")), 100 + n as u64, n as u64);
    }
    lab.exfat(&lan);
    let (out, state) = (lab.out(), lab.client.home().join("state"));
    let args = ["sync", "set", "--from", &lab.server.id, "--dir", out.to_str().unwrap()];
    let args = [&args[..], &["--state", state.to_str().unwrap(), "--no-share"]].concat();
    for name in ["name", "NAME"] {
        std::fs::rename(lab.source.join("set/name"), lab.source.join(format!("set/{name}"))).unwrap();
        lab.until_listed("set", &format!("{name} "), 1);
        let ended = lab.space.spawn(&lab.client, CLIENT, &args).wait(secs(60)).expect(0);
        let there = std::fs::read(lab.at("set/name"));
        assert!(there.is_ok_and(|there| there.len() == 100), "{name}:\n{}", ended.text());
    }
}

/// The calls of the client that meet the disk.
const CALLS: &[&str] = &[
    "openat2",
    "openat",
    "mkdirat",
    "fallocate",
    "ftruncate",
    "pwrite64",
    "write",
    "pread64",
    "fsync",
    "fdatasync",
    "renameat2",
    "unlinkat",
    "getdents64",
    "newfstatat",
    "statx",
    "flock",
];

/// Each call of the real program fails once, one after the other: what is in place is right, exit code 0 means that all
/// is, and the next run ends right.
///
/// `cargo test --test lan disk::each_call -- --ignored --nocapture`; the kernel's part is played by `strace`.
#[test]
#[ignore = "minutes; needs strace"]
fn each_call_of_the_program_may_fail() {
    let lan = lan_or_skip!();
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        skip!("needs the program strace");
    }
    let lab = Lab::new(&lan, 1000);
    let names = ["set/big", "set/s1", "set/sub/s2", "set/empty"];
    for (name, len) in names.iter().zip([3 * MIB, 100, 5000, 0]) {
        sample(&lab.source.join(name), len, len);
    }
    lab.until_listed("set", "", names.len());
    let state = lab.client.home().join("state");
    let mut codes = std::collections::BTreeMap::new();
    for (call, error) in CALLS.iter().flat_map(|call| ["ENOSPC", "EIO", "EINTR"].map(|error| (*call, error))) {
        // Later positions lie apart: the first calls of a kind differ most.
        for at in [1, 2, 3, 5, 8, 13, 21, 34] {
            let out = lan.new_dir(&format!("faults-{call}-{error}-{at}"));
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={error}:when={at}"));
            let args = ["get", "set", "--dir", out.to_str().unwrap(), "--state", state.to_str().unwrap()];
            let mut traced = vec!["-f", "-q", "-o", "/dev/null", "-e", &trace, "-e", &inject, CLIENT];
            traced.extend(args.iter().chain(&["--no-share", "--timeout", "5"]));
            let ended = lab.client.spawn("strace", &traced).wait(secs(60));
            let (text, code) = (ended.text(), ended.code);
            // Before the program begins, its libraries are read by the same calls.
            if text.contains("loading shared libraries") {
                continue;
            }
            assert!(code.is_some_and(|code| code < 100) && !text.contains("defect"), "{inject}: {code:?}\n{text}");
            for name in names {
                let there = std::fs::read(out.join(name));
                let is_right = || std::fs::read(lab.source.join(name)).unwrap() == *there.as_ref().unwrap();
                assert!(if there.is_ok() { is_right() } else { code != Some(0) }, "{inject}: {code:?} {name}\n{text}");
            }
            *codes.entry((call, error, code)).or_insert(0) += 1;
            let again = lab.client.spawn(CLIENT, &[&args[..], &["--no-share"]].concat()).wait(secs(60));
            assert_eq!(again.code, Some(0), "after {inject}: {}", again.text());
            assert!(names.iter().all(|name| out.join(name).exists()), "after {inject}");
            std::fs::remove_dir_all(&out).unwrap();
        }
    }
    codes.iter().for_each(|((call, error, code), count)| println!("{call} {error}: {count} times exit code {code:?}"));
}

/// A user that owns nothing here.
const STRANGER: u32 = 65_534;

/// A directory with this owner and mode.
fn dir_of(lan: &Lan, name: &str, owner: u32, mode: u32) -> PathBuf {
    let dir = lan.new_dir(name);
    std::os::unix::fs::chown(&dir, Some(owner), Some(owner)).unwrap();
    std::fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
    dir
}

/// Starts a program as another user.
fn spawn_as(host: &Host, uid: u32, program: &str, args: &[&str]) -> Process {
    let uid = uid.to_string();
    let mut all = vec!["--reuid", &uid, "--regid", &uid, "--clear-groups", program];
    all.extend(args);
    host.spawn("setpriv", &all)
}

#[test]
fn a_directory_that_others_can_change_is_warned_of_once() {
    let lan = lan_or_skip!();
    std::fs::set_permissions(lan.dir(), Permissions::from_mode(0o755)).unwrap();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 71);
    let (s, c) = (lan.host("s", None), lan.host("c", None));
    let _server = Server::start(&s, &dir, &[]);
    let state = dir_of(&lan, "state", STRANGER, 0o700);
    let warnings = |ended: &Ended| ended.err.iter().filter(|l| l.contains("other users can change")).count();
    let open = dir_of(&lan, "open", 0, 0o777);
    let sticky = dir_of(&lan, "sticky", 0, 0o1777);
    std::os::unix::fs::symlink(&sticky, open.join("link")).unwrap();
    for (uid, to, warned) in [
        (0, dir_of(&lan, "mine", 0, 0o755), 0),
        (0, dir_of(&lan, "foreign", STRANGER, 0o755), 1),
        (0, sticky.clone(), 0),
        (0, open.clone(), 1),
        (STRANGER, dir_of(&lan, "own", STRANGER, 0o755), 0),
        (STRANGER, sticky.clone(), 0),
        (STRANGER, dir_of(&lan, "open/below", STRANGER, 0o755), 1),
        (STRANGER, dir_of(&lan, "sticky/below", STRANGER, 0o755), 0),
        (STRANGER, dir_of(&lan, "neighbour", STRANGER - 1, 0o1777), 1),
    ] {
        let state = if uid == 0 { c.home().join("state") } else { state.clone() };
        let args = ["get", "a.bin", "--dir", to.to_str().unwrap(), "--no-share", "--state", state.to_str().unwrap()];
        let ended = spawn_as(&c, uid, CLIENT, &args).wait(secs(15)).expect(0);
        assert_eq!(warnings(&ended), warned, "{uid} {}:\n{}", to.display(), ended.text());
        std::fs::remove_file(to.join("a.bin")).unwrap();
    }
    let shared = dir_of(&lan, "shared", STRANGER - 1, 0o755);
    let args = ["--dir", shared.to_str().unwrap(), "--state", state.to_str().unwrap()];
    let mut server = spawn_as(&s, STRANGER, SERVER, &args);
    server.wait_line(&["other users can change", "reason=\"it belongs to user 65533\""], secs(10));
    server.signal(Signal::TERM);
    assert_eq!(warnings(&server.wait(secs(10))), 1);
}

#[test]
fn unfinished_downloads_of_another_user_are_named() {
    let lan = lan_or_skip!();
    std::fs::set_permissions(lan.dir(), Permissions::from_mode(0o755)).unwrap();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 73);
    let (s, c) = (lan.host("s", None), lan.host("c", None));
    let _server = Server::start(&s, &dir, &[]);
    let (out, state) = (dir_of(&lan, "out", 0, 0o1777), dir_of(&lan, "state", STRANGER, 0o700));
    dir_of(&lan, "out/.gpb", 0, 0o700);
    let args = ["get", "a.bin", "--dir", out.to_str().unwrap(), "--no-share", "--state", state.to_str().unwrap()];
    let ended = spawn_as(&c, STRANGER, CLIENT, &args).wait(secs(15)).expect(7);
    let said = ended.text();
    assert!(said.contains("unfinished downloads of user 0 lie in") && said.contains("out/.gpb"), "{said}");
    assert!(said.contains("let that user end or remove them"), "{said}");
}
