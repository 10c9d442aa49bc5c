//! Real disks: full, read-only, gone, without inodes, and directories of other users.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::group::{CLIENT, MIB, SERVER, Server, copies};
use crate::net::{Host, Lan, secs};
use crate::process::{Ended, Process, Signal};

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
