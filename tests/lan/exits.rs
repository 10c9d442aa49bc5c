//! Exit codes, and the one line that goes with them.

use crate::group::{CLIENT, Got, KEYGEN, MIB, SERVER, Server, copies, get};
use crate::net::{Host, secs};
use crate::process::Ended;
use rustix::fs::FileType;

fn run(host: &Host, program: &str, args: &[&str]) -> Ended {
    host.spawn(program, args).wait(secs(15))
}

#[test]
fn what_is_typed_wrong_is_named() {
    let lan = lan_or_skip!();
    let h = lan.lonely_host("h");
    let dir = lan.new_dir("d");
    let dir = dir.to_str().unwrap();
    for (program, args, named) in [
        (CLIENT, vec!["peers", "--trustd", "x"], "--trusted"),
        (CLIENT, vec!["lst"], "list"),
        (CLIENT, vec!["get"], "get"),
        (CLIENT, vec!["get", "a", "--upload-limit", "fast"], "--upload-limit"),
        (SERVER, vec!["--dir", dir, "--prot", "1"], "--port"),
        (SERVER, vec!["--dir", dir, "--port", "65536"], "--port"),
        (KEYGEN, vec!["--shwo", "x"], "--show"),
    ] {
        let ended = run(&h, program, &args).expect(2);
        assert!(ended.err.iter().any(|l| l.contains(named)), "{args:?}: {named} is not named:\n{}", ended.text());
    }

    let bad = |name: &str, text: &str| {
        let path = lan.dir().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_string()
    };
    let config = bad("config.toml", "upload-limt = '1MB'\n");
    assert!(run(&h, CLIENT, &["peers", "--config", &config]).expect(2).text().contains("upload-limit"));
    let key = bad("key.pem", "-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n");
    assert!(run(&h, SERVER, &["--dir", dir, "--key", &key]).expect(2).text().contains("key.pem"));
    let trusted = bad("trusted", "# fine\n\ned25519:short somebody\n");
    let ended = run(&h, SERVER, &["--dir", dir, "--state", dir, "--trusted", &trusted]).expect(2);
    assert!(ended.text().contains("trusted") && ended.text().contains('3'), "file and line:\n{}", ended.text());

    let good = lan.dir().join("good.pem");
    run(&h, KEYGEN, &["--out", good.to_str().unwrap()]).expect(0);
    std::fs::set_permissions(&good, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let ended = run(&h, SERVER, &["--dir", dir, "--key", good.to_str().unwrap()]).expect(2);
    assert!(ended.text().contains("chmod 600"), "the mend is named:\n{}", ended.text());
}

#[test]
fn what_is_no_regular_file_is_not_replaced() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 62);
    std::fs::write(dir.join("small"), "small").unwrap();
    let (s, c, out) = (lan.host("s", None), lan.host("c", None), lan.new_dir("out"));
    let _server = Server::start(&s, &dir, &[]);
    let make = |name: &str, kind, device| {
        rustix::fs::mknodat(rustix::fs::CWD, out.join(name), kind, 0o666.into(), device).unwrap();
    };
    make("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    make("a.bin", FileType::Fifo, 0);
    make("small", FileType::BlockDevice, rustix::fs::makedev(7, 0));
    // As `/dev/stdout` is, which here is a pipe.
    std::os::unix::fs::symlink("/proc/self/fd/1", out.join("stdout")).unwrap();
    for (what, target, kind) in [
        ("a.bin", Some("null"), "a character device"),
        ("small", Some("null"), "a character device"),
        ("a.bin", Some("stdout"), "a symlink to an open file"),
        ("a.bin", None, "a FIFO"),
        ("small", None, "a block device"),
        ("**", None, "a FIFO"),
    ] {
        let lies = |name: &str| std::fs::symlink_metadata(out.join(name)).unwrap().file_type();
        let before: Vec<_> = ["null", "a.bin", "small", "stdout"].map(lies).into();
        let path = out.join(target.unwrap_or("a.bin"));
        let args: &[&str] = if target.is_some() { &["--out", path.to_str().unwrap()] } else { &[] };
        let process = match target {
            Some(_) => crate::group::client(&c, &[&["get", what, "--no-share"], args].concat()),
            None => get(&c, what, &out, &[]),
        };
        let got = Got::wait(process, secs(15)).expect(7);
        // Of several names, each is told why.
        let event = if what == "**" { "failed" } else { "error" };
        let message = got.event(event)["message"].as_str().unwrap();
        assert!(message.contains(kind) && message.contains("not a regular file"), "{message}");
        assert_eq!(before, ["null", "a.bin", "small", "stdout"].map(lies), "{what} {target:?}");
        assert!(!out.join(".gpb").exists(), "nothing was fetched");
    }
}

#[test]
fn nobody_there_is_3_and_nobody_has_it_is_4() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 61);
    let (s, c, out) = (lan.host("s", None), lan.host("c", None), lan.new_dir("out"));
    let got = Got::wait(get(&c, "a.bin", &out, &["--timeout", "1"]), secs(15)).expect(3);
    assert_eq!(got.event("error")["code"], 3);
    let _server = Server::start(&s, &dir, &[]);
    let got = Got::wait(get(&c, "b.bin", &out, &["--timeout", "5"]), secs(15)).expect(4);
    assert!(got.event("error")["message"].as_str().unwrap().contains("b.bin"), "{:?}", got.events);
}

/// Cause: a peer that took connections without a word counted as one that has left, once its last session had been given
/// up. Effect: code 3 where the time is longer than a handshake may take, as by default.
#[test]
fn connected_but_silent_is_8() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 32 * MIB, 62);
    let (s, c, out) = (lan.host("s", Some(50)), lan.host("c", None), lan.new_dir("out"));
    let mut server = Server::start(&s, &dir, &[]);
    let before = c.received();
    let running = get(&c, "a.bin", &out, &["--timeout", "8"]);
    c.wait_received(before, 4 * MIB, secs(10));
    server.process.signal(crate::process::Signal::STOP);
    let got = Got::wait(running, secs(20));
    server.process.signal(crate::process::Signal::CONT);
    let got = got.expect(8);
    assert_eq!(got.event("error")["code"], 8);
    Got::wait(get(&c, "a.bin", &out, &[]), secs(20)).expect(0);
}

#[test]
fn storage_that_fails_is_7() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 16 * MIB, 63);
    let (s, c) = (lan.host("s", None), lan.host("c", None));
    let _server = Server::start(&s, &dir, &[]);
    let state = c.home().join("state");
    let state = state.to_str().unwrap();

    let missing = lan.dir().join("missing");
    let missing = missing.to_str().unwrap();
    let made = lan.dir().join("made/here");
    run(&c, CLIENT, &["get", "a.bin", "--dir", made.to_str().unwrap(), "--state", state]).expect(0);
    let file = made.join("a.bin");
    let file = file.to_str().unwrap();
    let ended = run(&c, CLIENT, &["get", "a.bin", "--dir", file, "--state", state]).expect(7);
    assert!(ended.text().contains(file), "the directory is named:\n{}", ended.text());
    let ended = run(&c, SERVER, &["--dir", missing, "--state", state]).expect(7);
    assert!(ended.text().contains(missing), "the directory is named:\n{}", ended.text());

    // A full and a read-only file system, seen by one program only.
    let out = lan.new_dir("out");
    let out = out.to_str().unwrap();
    for options in ["size=8m", "ro"] {
        let script = format!("mount -t tmpfs -o {options} none {out} && exec \"$@\"");
        let args = ["-m", "bash", "-c", &script, "-", CLIENT, "get", "a.bin", "--dir", out, "--state", state];
        let ended = c.spawn("unshare", &args).wait(secs(15)).expect(7);
        let last = ended.err.last().cloned().unwrap_or_default();
        let cause = if options == "ro" { "read-only" } else { "space" };
        assert!(last.to_lowercase().contains(cause), "{options}: the cause is not named: {last}");
    }
}

#[test]
fn a_place_on_another_mount_is_refused_before_anything_is_fetched() {
    let lan = lan_or_skip!();
    let dir = lan.new_dir("d");
    for path in ["sub/big", "sub/new/big", "sub/small"] {
        crate::group::sample(&dir.join(path), if path.ends_with("big") { 2 * MIB } else { 5 }, 66);
    }
    let (s, c) = (lan.host("s", None), lan.host("c", None));
    let _server = Server::start(&s, &dir, &[]);
    let state = c.home().join("state");
    let (state, out) = (state.to_str().unwrap(), lan.new_dir("out"));
    std::fs::create_dir_all(out.join("sub")).unwrap();
    let (out, sub, other) = (out.to_str().unwrap(), out.join("sub"), lan.new_dir("other"));
    let (sub, other) = (sub.to_str().unwrap(), other.to_str().unwrap());
    // Another file system; and another mount of the same one.
    for mount in [format!("mount -t tmpfs none {sub}"), format!("mount --bind {other} {sub}")] {
        for what in ["sub/big", "sub/new/big", "sub/small", "**"] {
            let script = format!("{mount} && \"$@\"; code=$?; ls -A {sub}; exit $code");
            let args = ["-m", "bash", "-c", &script, "-", CLIENT, "get", what, "--dir", out, "--state", state];
            let ended = c.spawn("unshare", &args).wait(secs(15)).expect(7);
            let told = ended.err.join("\n");
            assert!(told.contains(&format!("{sub} ")) || told.contains(&format!("{sub}/new ")), "{told}");
            assert!(told.contains("another mount"), "{told}");
            assert!(!std::path::Path::new(out).join(".gpb").exists(), "{what}: nothing was fetched");
        }
    }
}

#[test]
fn a_port_in_use_is_1() {
    let lan = lan_or_skip!();
    let [d1, d2] = copies(&lan, ["d1", "d2"], "a.bin", MIB, 64);
    let s = lan.host("s", None);
    let first = Server::start(&s, &d1, &[]);
    assert_eq!(first.port(), "27420");
    let state = s.home().join("other");
    let ended = run(&s, SERVER, &["--dir", d2.to_str().unwrap(), "--state", state.to_str().unwrap()]).expect(1);
    assert!(ended.text().contains("27420") && ended.text().contains("in use"), "{}", ended.text());
}
