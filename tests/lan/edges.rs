//! The edges of the system: changes that it does not report, and limits that it sets.

use std::path::Path;

use serde_json::Value;

use crate::group::{Got, SERVER, get, list};
use crate::net::{Host, secs, until};
use crate::process::Process;

/// Starts a server of `dir` on a host without a network, in namespaces of users and mounts where it gets no inotify;
/// `setup` runs there before. Waits until it is ready.
fn blind_server(host: &Host, dir: &Path, setup: &str) -> Process {
    let (dir, state) = (dir.to_str().unwrap(), host.home().join("state-server"));
    let script = format!("echo 0 > /proc/sys/user/max_inotify_instances && {setup} && exec \"$@\"");
    let inside = ["-U", "-r", "-m", "bash", "-c", &script, "-", SERVER, "--port", "0"];
    let mut server =
        host.spawn("unshare", &[&inside[..], &["--dir", dir, "--state", state.to_str().unwrap()]].concat());
    server.wait_line(&["ready files="], secs(20));
    server
}

fn names(listing: &[Value]) -> Vec<&str> {
    listing.iter().map(|v| v["path"].as_str().unwrap()).collect()
}

/// The error of a `get` that does not find what was listed.
fn error_of(host: &Host, what: &str, out: &Path) -> String {
    let got = Got::wait(get(host, what, out, &["--timeout", "5"]), secs(20)).expect(4);
    got.event("error")["message"].as_str().unwrap().to_string()
}

/// Without inotify, or on NFS and FUSE, a file that was edited stayed in the listing for up to 76 seconds: each fetch
/// ended with "no peer has it" although the server met the change at the first request. It looks at the file then.
#[test]
fn a_change_that_the_system_does_not_report_is_found_by_the_first_request() {
    let lan = lan_or_skip!();
    let (h, dir, out) = (lan.lonely_host("h"), lan.new_dir("d"), lan.new_dir("out"));
    for name in ["edited", "removed", "stays"] {
        std::fs::write(dir.join(name), name).unwrap();
    }
    let server = blind_server(&h, &dir, "true");
    assert_eq!(names(&list(&h, &[])), ["edited", "removed", "stays"]);
    std::fs::write(dir.join("edited"), "otherwise").unwrap();
    std::fs::remove_file(dir.join("removed")).unwrap();

    for name in ["edited", "removed"] {
        let error = error_of(&h, name, &out);
        assert!(error.contains(name) && error.contains("changed at the source"), "{error}");
        assert_eq!(server.count_lines(&["no hint came", &format!("{name} ")]), 1, "said once");
    }
    until("the edited file is offered as it is now", secs(10), || {
        (names(&list(&h, &[])) == ["edited", "stays"]).then_some(())
    });
    Got::wait(get(&h, "edited", &out, &[]), secs(15)).expect(0);
    assert_eq!(std::fs::read(out.join("edited")).unwrap(), b"otherwise");
}

/// The files of a disk that was unmounted below the shared directory were offered until the next walk.
#[test]
fn an_unmounted_disk_is_found_by_the_first_request() {
    let lan = lan_or_skip!();
    let (h, dir, out) = (lan.lonely_host("h"), lan.new_dir("d"), lan.new_dir("out"));
    std::fs::create_dir(dir.join("sub")).unwrap();
    std::fs::write(dir.join("stays"), "stays").unwrap();
    let sub = dir.join("sub").to_str().unwrap().to_string();
    let mount = format!(
        "mount -t tmpfs none {sub} && mkdir {sub}/deep && touch {sub}/a {sub}/deep/b {sub}/deep/c && \
                         echo x | tee {sub}/a {sub}/deep/b > {sub}/deep/c"
    );
    let server = blind_server(&h, &dir, &mount);
    assert_eq!(names(&list(&h, &[])), ["stays", "sub/a", "sub/deep/b", "sub/deep/c"]);
    let pid = server.id();
    h.sh(&format!("nsenter -t {pid} -U -m --preserve-credentials umount {sub}"));

    let error = error_of(&h, "sub/deep/b", &out);
    assert!(error.contains("changed at the source"), "{error}");
    until("none of its files is offered", secs(10), || (names(&list(&h, &[])) == ["stays"]).then_some(()));
    assert_eq!(server.count_lines(&["no hint came"]), 1);
}

/// With inotify, the end of a mount is told by the kernel.
#[test]
fn an_unmounted_disk_is_withdrawn_without_a_request() {
    let lan = lan_or_skip!();
    let (h, dir) = (lan.lonely_host("h"), lan.new_dir("d"));
    std::fs::create_dir(dir.join("sub")).unwrap();
    std::fs::write(dir.join("stays"), "stays").unwrap();
    let (dir, sub) = (dir.to_str().unwrap(), dir.join("sub").to_str().unwrap().to_string());
    let state = h.home().join("state-server");
    let script = format!("mount -t tmpfs none {sub} && mkdir {sub}/deep && echo x > {sub}/deep/a && exec \"$@\"");
    let inside = ["-m", "bash", "-c", &script, "-", SERVER, "--port", "0", "--dir", dir];
    let mut server = h.spawn("unshare", &[&inside[..], &["--state", state.to_str().unwrap()]].concat());
    server.wait_line(&["ready files=2 "], secs(20));
    h.sh(&format!("nsenter -t {} -m umount {sub}", server.id()));
    until("its file is not offered", secs(10), || (names(&list(&h, &[])) == ["stays"]).then_some(()));
}
