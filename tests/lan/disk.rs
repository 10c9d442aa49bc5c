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
    _server: Server,
    source: PathBuf,
    /// The mount point, which only the client sees.
    disk: PathBuf,
}

impl Lab {
    fn new(lan: &Lan, rate_mbit: u32) -> Self {
        let [source] = copies(lan, ["d"], "a.bin", LEN, 72);
        let (s, client, disk) = (lan.host("s", Some(rate_mbit)), lan.host("c", None), lan.new_dir("disk"));
        let _server = Server::start(&s, &source, &[]);
        Lab { space: MountSpace::new(), client, _server, source, disk }
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

#[test]
fn a_disk_that_fills_up_meanwhile_costs_nothing_that_came() {
    let lan = lan_or_skip!();
    ext4_or_skip!();
    let lab = Lab::new(&lan, 100);
    // Without reserved room, as on a file system that cannot: ext4 without extents.
    lab.ext4(&lan, 96, "-O ^extent,^64bit,^metadata_csum");
    let before = lab.client.received();
    let running = lab.get("a.bin");
    lab.client.wait_received(before, 24 * MIB, secs(30));
    lab.space.sh(&format!("dd if=/dev/zero of={}/filler bs=1M status=none || true", lab.disk.display()));
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
    until("the small files are listed", secs(10), || {
        let listed = lab.client.spawn(CLIENT, &["list", "small"]).wait(secs(15));
        (listed.out.iter().filter(|l| l.contains("small/s")).count() == 40).then_some(())
    });
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
fn a_mount_whose_program_dies_is_named_and_the_rest_comes_later() {
    let lan = lan_or_skip!();
    ext4_or_skip!();
    if std::process::Command::new("fuse2fs").arg("-V").output().is_err() || !Path::new("/dev/fuse").exists() {
        skip!("needs the program fuse2fs and /dev/fuse");
    }
    let lab = Lab::new(&lan, 60);
    let (image, disk) = (lan.dir().join("image"), lab.disk.clone());
    lab.space.sh(&format!("truncate -s 200M {0}; mkfs.ext4 -q -F {0}", image.display()));
    let mount = || {
        let fuse = lab.space.spawn(&lab.client, "fuse2fs", &["-f", image.to_str().unwrap(), disk.to_str().unwrap()]);
        until("it is mounted", secs(10), || lab.space.try_sh(&format!("mountpoint -q {}", disk.display())).ok());
        fuse
    };
    let fuse = std::cell::RefCell::new(Some(mount()));
    lab.space.sh(&format!("mkdir {}/out", disk.display()));
    let kill = || drop(fuse.take().unwrap().kill());
    vanishes(&lab, &kill, &["Transport endpoint is not connected", "Software caused connection abort", "Input/output"]);
    lab.space.sh(&format!("umount -l {}; e2fsck -fy {} > /dev/null || true", disk.display(), image.display()));
    let _fuse = mount();
    lab.expect_rest();
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
