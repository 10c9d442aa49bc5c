//! The edges of the system: changes that it does not report, and limits that it sets.

use std::path::Path;

use serde_json::Value;

use crate::group::{CLIENT, Got, MIB, SERVER, Server, copies, get, list};
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

/// The files of a listing, without its empty directories.
fn names(listing: &[Value]) -> Vec<&str> {
    let files = listing.iter().filter(|v| v["directory"] != true);
    files.map(|v| v["path"].as_str().unwrap()).collect()
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
    let mut server = blind_server(&h, &dir, "true");
    assert_eq!(names(&list(&h, &[])), ["edited", "removed", "stays"]);
    std::fs::write(dir.join("edited"), "otherwise").unwrap();
    std::fs::remove_file(dir.join("removed")).unwrap();

    for name in ["edited", "removed"] {
        let error = error_of(&h, name, &out);
        assert!(error.contains(name) && error.contains("changed at the source"), "{error}");
        server.wait_line(&["no hint came", &format!("{name} ")], secs(10));
        assert_eq!(server.count_lines(&["no hint came", &format!("{name} ")]), 1, "said once");
    }
    until("the edited file is offered as it is now", secs(10), || {
        (names(&list(&h, &[])) == ["edited", "stays"]).then_some(())
    });
    Got::wait(get(&h, "edited", &out, &[]), secs(15)).expect(0);
    assert_eq!(std::fs::read(out.join("edited")).unwrap(), b"otherwise");
}

/// What had come of a content that its source replaced stayed for a month, with all of its room.
#[test]
fn the_part_of_a_content_that_its_source_replaced_goes_with_a_later_fetch() {
    let lan = lan_or_skip!();
    let (h, out) = (lan.lonely_host("h"), lan.new_dir("out"));
    let [dir] = copies(&lan, ["d"], "big", 8 * MIB, 7);
    std::fs::write(dir.join("small"), "small").unwrap();
    let _server = Server::start(&h, &dir, &["--upload-limit", "3MB"]);
    let fetching = get(&h, "big", &out, &["--timeout", "5"]);
    let own = out.join(".gpb");
    let left = || std::fs::read_dir(&own).into_iter().flatten().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    until("chunks come", secs(20), || left().iter().any(|p| p.extension().is_some_and(|e| e == "part")).then_some(()));
    std::fs::write(dir.join("big"), vec![1; 8 << 20]).unwrap();
    let got = Got::wait(fetching, secs(30)).expect(4);
    assert!(got.event("error")["message"].as_str().unwrap().contains("changed at the source"));
    assert!(!left().is_empty(), "it may come back");
    for file in left() {
        let hour_ago = std::time::SystemTime::now() - secs(3600);
        std::fs::File::options().write(true).open(file).unwrap().set_modified(hour_ago).unwrap();
    }
    Got::wait(get(&h, "small", &out, &[]), secs(15)).expect(0);
    assert_eq!(left(), Vec::<std::path::PathBuf>::new());
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
    let mut server = blind_server(&h, &dir, &mount);
    assert_eq!(names(&list(&h, &[])), ["stays", "sub/a", "sub/deep/b", "sub/deep/c"]);
    let pid = server.id();
    h.sh(&format!("nsenter -t {pid} -U -m --preserve-credentials umount {sub}"));

    let error = error_of(&h, "sub/deep/b", &out);
    assert!(error.contains("changed at the source"), "{error}");
    until("none of its files is offered", secs(10), || (names(&list(&h, &[])) == ["stays"]).then_some(()));
    server.wait_line(&["no hint came"], secs(10));
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

/// Runs a program on `host` under these limits of the shell.
fn limited(host: &Host, limits: &str, program: &str, args: &[&str]) -> Process {
    let script = format!("{limits} && exec \"$@\"");
    host.spawn("bash", &[&["-c", &script, "-", program][..], args].concat())
}

/// Below 24 descriptors both programs advised to make the directory, to check the disk, to raise the timeout, or to
/// start a server: whatever operation happened to be the first that failed.
#[test]
fn at_the_limit_of_open_files_both_programs_name_it() {
    let lan = lan_or_skip!();
    let (h, dir) = (lan.lonely_host("h"), lan.new_dir("d"));
    crate::group::sample(&dir.join("big"), 3_000_000, 81);
    std::fs::write(dir.join("small"), "small").unwrap();
    let dir = dir.to_str().unwrap();
    let mut named = [0, 0];
    for n in [7, 8, 10, 12, 14, 16, 17, 18, 19, 20, 21, 22, 24, 28] {
        let state = h.home().join(format!("state-{n}"));
        let args = ["--dir", dir, "--state", state.to_str().unwrap(), "--port", "0", "--interface", "lo"];
        let mut server = limited(&h, &format!("ulimit -n {n}"), SERVER, &args);
        let ready = until("ready, or the end", secs(15), || {
            let is_ready = server.count_lines(&["ready files="]) > 0;
            (is_ready || !server.is_running()).then_some(is_ready)
        });
        if !ready {
            let text = server.wait(secs(5)).text();
            assert!(text.lines().last().unwrap().contains("limit of open files"), "{n}: {text}");
            named[0] += 1;
        }
    }
    let state = h.home().join("state-server");
    let args = ["--dir", dir, "--state", state.to_str().unwrap(), "--port", "0", "--interface", "lo"];
    let mut server = h.spawn(SERVER, &args);
    let listening = server.wait_line(&["listening ", "addr="], secs(15));
    let peer = format!("127.0.0.1:{}", listening.rsplit(':').next().unwrap());
    server.wait_line(&["ready files="], secs(15));
    // With a peer that is named, a dial could find the last descriptor, and hide that sessions find none.
    let named_peer = ["--no-multicast", "--peer", &peer];
    let found = [7, 8, 10, 12, 14, 16, 17, 18, 19, 20, 21, 22, 24, 28].map(|n| (n, &["--interface", "lo"][..]));
    for (n, by) in found.into_iter().chain([9, 10, 11, 12].map(|n| (n, &named_peer[..]))) {
        let id = format!("{n}-{}", by.len());
        let (out, state) = (lan.new_dir(&format!("out-{id}")), h.home().join(format!("state-client-{id}")));
        let (out, state) = (out.to_str().unwrap(), state.to_str().unwrap());
        let args = [&["get", "**", "--dir", out, "--state", state, "--port", "0", "--timeout", "5"][..], by].concat();
        let ended = limited(&h, &format!("ulimit -n {n}"), CLIENT, &args).wait(secs(20));
        let last = ended.err.last().cloned().unwrap_or_default();
        assert!(ended.code == Some(0) || last.contains("limit of open files"), "{n}: {}", ended.text());
        named[1] += usize::from(ended.code != Some(0));
    }
    println!("the limit of open files is named: server {} of 14, client {} of 18", named[0], named[1]);
    assert!(named.iter().all(|n| (4..=16).contains(n)), "{named:?}");
}

/// The message named `max_user_watches` whichever limit it was.
#[test]
fn the_limit_of_inotify_that_is_reached_is_named() {
    let lan = lan_or_skip!();
    let (h, dir) = (lan.lonely_host("h"), lan.new_dir("d"));
    ["a", "b", "c"].iter().for_each(|sub| std::fs::create_dir(dir.join(sub)).unwrap());
    for (limit, value) in [("instances", 0), ("watches", 2)] {
        let set = format!(
            "echo 128 > /proc/sys/user/max_inotify_instances && echo {value} > /proc/sys/user/max_inotify_{limit}"
        );
        let mut server = blind_server(&h, &dir, &set);
        let named = format!("fs.inotify.max_user_{limit}");
        server.wait_line(&["directory not watched", &named], secs(10));
        assert_eq!(server.count_lines(&["directory not watched", &named]), 1, "{named}");
    }
}

/// A home that cannot be written sent the user to the key, with exit code 2, instead of to `--state`.
#[test]
fn a_state_directory_that_cannot_be_used_is_7_and_names_the_option() {
    let lan = lan_or_skip!();
    let (h, dir) = (lan.lonely_host("h"), lan.new_dir("d"));
    let (home, dir) = (lan.new_dir("home-ro"), dir.to_str().unwrap());
    let home = home.to_str().unwrap();
    let read_only = format!("mount -t tmpfs -o ro none {home} && export HOME={home}");
    for setup in [read_only.as_str(), "export HOME=/dev/null"] {
        for (program, args) in [(SERVER, vec!["--dir", dir, "--port", "0"]), (CLIENT, vec!["peers", "--wait", "1"])] {
            let script = format!("{setup} && exec \"$@\"");
            let args = [&["-m", "bash", "-c", &script, "-", program][..], &args].concat();
            let ended = h.spawn("unshare", &args).wait(secs(15)).expect(7);
            let last = ended.err.last().unwrap();
            assert!(last.contains("state directory") && last.contains("--state DIR"), "{setup}: {last}");
        }
    }
}

#[test]
fn a_second_server_on_one_state_directory_says_so() {
    let lan = lan_or_skip!();
    let (h, dir) = (lan.lonely_host("h"), lan.new_dir("d"));
    let state = h.home().join("state");
    let args = ["--dir", dir.to_str().unwrap(), "--state", state.to_str().unwrap(), "--port", "0"];
    let mut first = h.spawn(SERVER, &args);
    first.wait_line(&["ready files="], secs(15));
    let mut second = h.spawn(SERVER, &args);
    second.wait_line(&["ready files="], secs(15));
    second.wait_line(&["another node uses this state directory"], secs(15));
    assert_eq!(second.count_lines(&["another node uses this state directory"]), 1);
    assert_eq!(first.count_lines(&["another node uses"]), 0);
}

/// Threads are limited by processes and, since each has a stack, by memory.
#[test]
fn the_limit_of_threads_is_named() {
    let lan = lan_or_skip!();
    let (h, dir) = (lan.lonely_host("h"), lan.new_dir("d"));
    std::fs::write(dir.join("a"), "a").unwrap();
    // Another user, as root may have any number of processes; that user needs to reach what it uses.
    let (program, state) = (lan.dir().join("gpb-server"), lan.new_dir("state"));
    std::fs::copy(SERVER, &program).unwrap();
    for path in [lan.dir(), &state] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let (program, dir, state) = (program.to_str().unwrap(), dir.to_str().unwrap(), state.to_str().unwrap());
    let args = ["--dir", dir, "--state", state, "--port", "0"];
    let as_user = ["--reuid=54321", "--regid=54321", "--clear-groups", program];
    let user = [&as_user[..], &args].concat();
    let ended = limited(&h, "ulimit -u 4", "setpriv", &user).wait(secs(15)).expect(1);
    let last = ended.err.last().unwrap();
    assert!(last.contains("cannot start") && last.contains("ulimit -u"), "{last}");
    limited(&h, "ulimit -u 400", "setpriv", &user).wait_line(&["ready files=1 "], secs(15));
}

/// What `logrotate` does: the log was written on into the file that had been moved away, and SIGHUP stopped the server.
#[test]
fn a_rotated_log_is_begun_anew_and_a_hangup_stops_no_server() {
    let lan = lan_or_skip!();
    let (h, dir) = (lan.lonely_host("h"), lan.new_dir("d"));
    let [state, log, moved] = ["state", "server.log", "server.log.old"].map(|name| lan.dir().join(name));
    let paths = [&dir, &state, &log].map(|path| path.to_str().unwrap());
    // The tests may have been started with the signal ignored (`nohup`), which programs inherit.
    let args =
        ["--default-signal=HUP", SERVER, "--dir", paths[0], "--state", paths[1], "--log-file", paths[2], "--port", "0"];
    let mut server = h.spawn("env", &args);
    server.wait_line(&["ready files="], secs(15));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    assert!(read(&log).contains("open group"));
    std::fs::rename(&log, &moved).unwrap();
    server.signal(crate::process::Signal::HUP);
    until("the log is there again", secs(10), || read(&log).contains("hangup").then_some(()));
    assert!(!read(&moved).contains("hangup"));
    server.signal(crate::process::Signal::HUP);
    until("the second one is logged", secs(10), || (read(&log).matches("hangup").count() == 2).then_some(()));
    assert!(server.is_running());
    server.signal(crate::process::Signal::TERM);
    server.wait(secs(10)).expect(0);
}

/// A fetch of everything ended with exit code 0, and nothing told that files were left out.
#[test]
fn names_that_cannot_be_shared_are_counted_for_everyone() {
    use std::os::unix::ffi::OsStrExt;
    let lan = lan_or_skip!();
    let (h, dir, out) = (lan.lonely_host("h"), lan.new_dir("d"), lan.new_dir("out"));
    std::fs::write(dir.join("ok.txt"), "ok").unwrap();
    std::fs::create_dir(dir.join("t")).unwrap();
    std::fs::write(dir.join("t/ok.txt"), "ok").unwrap();
    let odd = |name: &[u8]| dir.join(std::ffi::OsStr::from_bytes(name));
    std::fs::write(odd(b"caf\xe9.txt"), "x").unwrap();
    std::fs::create_dir_all(odd(b"d\xff/sub")).unwrap();
    std::fs::write(odd(b"d\xff/sub/f"), "x").unwrap();
    std::fs::write(odd(b"a\nb"), "x").unwrap();
    let server = crate::group::Server::start(&h, &dir, &[]);
    let ready = server.process.log().lines_with("ready files=");
    assert!(ready.iter().any(|line| line.contains("files=2 ") && line.contains("unnamed=3")), "{ready:?}");
    let told = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--dir", out.to_str().unwrap()].iter().filter(|_| args[0] != "list"));
        let ended = crate::group::client(&h, &all).wait(secs(15)).expect(0);
        ended.err.iter().filter(|line| line.contains("leaves out files") && line.contains("files=3")).count()
    };
    assert_eq!((told(&["list", "--wait", "15"]), told(&["get", "**"]), told(&["get", "ok.txt"])), (1, 1, 0));
    // They may lie in any directory.
    assert_eq!((told(&["get", "t"]), told(&["sync", "t", "--from", &server.id])), (1, 1));
    std::fs::remove_dir_all(odd(b"d\xff")).unwrap();
    std::fs::remove_file(odd(b"a\nb")).unwrap();
    until("one is left", secs(20), || {
        let ended = crate::group::client(&h, &["list"]).wait(secs(15));
        ended.err.iter().any(|line| line.contains("leaves out files") && line.contains("files=1")).then_some(())
    });
}

/// 64 hex digits are a root. `get` says what to do if a file has such a name, and `list` printed nothing.
#[test]
fn a_list_of_64_hex_digits_says_how_a_file_of_that_name_is_meant() {
    let lan = lan_or_skip!();
    let (h, dir, name) = (lan.lonely_host("h"), lan.new_dir("d"), "ab".repeat(32));
    std::fs::write(dir.join(&name), "x").unwrap();
    let _server = crate::group::Server::start(&h, &dir, &[]);
    let listed = crate::group::client(&h, &["list", &name, "--wait", "15"]).wait(secs(15)).expect(0);
    assert!(listed.err.iter().any(|line| line.contains(&format!("./{name}"))), "{}", listed.text());
    let found = list(&h, &[&format!("./{name}")]);
    assert_eq!(names(&found), [&name]);
    let root = found[0]["root"].as_str().unwrap();
    let by_root = crate::group::client(&h, &["list", root, "--wait", "15"]).wait(secs(15)).expect(0);
    assert!(!by_root.text().contains("a file of that name"), "{}", by_root.text());
}

/// A file that can be stat'ed and not opened stayed in the listing, and each request looked at it again.
#[test]
fn a_file_that_can_no_longer_be_opened_is_withdrawn() {
    let lan = lan_or_skip!();
    let (h, dir, out) = (lan.lonely_host("h"), lan.new_dir("d"), lan.new_dir("out"));
    let (program, state) = (lan.dir().join("gpb-server"), lan.new_dir("state"));
    std::fs::copy(SERVER, &program).unwrap();
    for name in ["secret", "open"] {
        std::fs::write(dir.join(name), name.repeat(300)).unwrap();
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(dir.join("secret"), mode(0o640)).unwrap();
    for path in [lan.dir(), &dir] {
        std::fs::set_permissions(path, mode(0o755)).unwrap();
    }
    let args = ["--dir", dir.to_str().unwrap(), "--state", state.to_str().unwrap(), "--port", "0"];
    // Hashed by a user that may read both, and then offered from the index by one that may not.
    let mut first = h.spawn(SERVER, &args);
    first.wait_line(&["ready files=2 "], secs(20));
    first.signal(crate::process::Signal::TERM);
    first.wait(secs(10)).expect(0);
    for file in std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).chain([state.clone()]) {
        std::os::unix::fs::chown(&file, Some(54_321), Some(54_321)).unwrap();
    }
    let as_user = ["--reuid=54321", "--regid=54321", "--clear-groups", program.to_str().unwrap()];
    let mut second = h.spawn("setpriv", &[&as_user[..], &args].concat());
    second.wait_line(&["ready files=2 "], secs(20));
    let got = Got::wait(get(&h, "secret", &out, &["--timeout", "5"]), secs(30));
    assert_ne!(got.ended.code, Some(0));
    second.wait_line(&["cannot be opened", "path=secret"], secs(10));
    until("it is offered no longer", secs(10), || (names(&list(&h, &[])) == ["open"]).then_some(()));
    std::fs::set_permissions(dir.join("secret"), mode(0o644)).unwrap();
    until("it is offered again", secs(20), || (names(&list(&h, &[])) == ["open", "secret"]).then_some(()));
    Got::wait(get(&h, "secret", &out, &[]), secs(15)).expect(0);
}
