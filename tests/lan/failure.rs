//! What a transfer survives: killed servers, cut links, a killed client, and servers that appear on the way.

use crate::group::{Got, MIB, Server, assert_same, copies, get};
use crate::net::{Lan, secs};
use crate::process::Signal;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

fn servers<const N: usize>(lan: &Lan, len: u64, rate_mbit: u32) -> ([crate::net::Host; N], [Server; N]) {
    let names: [String; N] = std::array::from_fn(|i| format!("d{}", i + 1));
    let dirs: [_; N] = copies(lan, std::array::from_fn(|i| names[i].as_str()), "a.bin", len, 21);
    let hosts: [_; N] = std::array::from_fn(|i| lan.host(&format!("s{}", i + 1), Some(rate_mbit)));
    let servers = std::array::from_fn(|i| Server::start(&hosts[i], &dirs[i], &[]));
    (hosts, servers)
}

#[test]
fn a_killed_server_does_not_stop_a_download() {
    let lan = lan_or_skip!();
    let (_hosts, [killed, s2, s3]) = servers::<3>(&lan, 64 * MIB, 100);
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let before = c.received();
    let running = get(&c, "a.bin", &out, &[]);
    c.wait_received(before, 20 * MIB, secs(15));
    killed.process.kill();
    let got = Got::wait(running, secs(20)).expect(0);
    assert_same(&out.join("a.bin"), &lan.dir().join("d1/a.bin"));
    assert!(got.bytes_from(&s2.id) > 0 && got.bytes_from(&s3.id) > 0);
}

#[test]
fn a_cut_link_does_not_stop_a_download() {
    let lan = lan_or_skip!();
    let (hosts, _servers) = servers::<3>(&lan, 64 * MIB, 100);
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let before = c.received();
    let running = get(&c, "a.bin", &out, &[]);
    c.wait_received(before, 20 * MIB, secs(15));
    hosts[1].link(false);
    Got::wait(running, secs(20)).expect(0);
    assert_same(&out.join("a.bin"), &lan.dir().join("d1/a.bin"));
}

#[test]
fn a_link_that_comes_back_is_enough() {
    let lan = lan_or_skip!();
    let (hosts, _servers) = servers::<1>(&lan, 32 * MIB, 100);
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let before = c.received();
    let running = get(&c, "a.bin", &out, &["--timeout", "15"]);
    c.wait_received(before, 8 * MIB, secs(15));
    hosts[0].link(false);
    let silent = c.received();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(c.received() < silent + MIB, "the link is cut");
    hosts[0].link(true);
    Got::wait(running, secs(30)).expect(0);
    assert_same(&out.join("a.bin"), &lan.dir().join("d1/a.bin"));
}

#[test]
fn a_killed_client_goes_on_where_it_was() {
    let lan = lan_or_skip!();
    const LEN: u64 = 96 * MIB;
    let (_hosts, _servers) = servers::<2>(&lan, LEN, 100);
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let before = c.received();
    let running = get(&c, "a.bin", &out, &[]);
    c.wait_received(before, 60 * MIB, secs(15));
    running.kill();
    let received = c.received() - before;
    assert!(!out.join("a.bin").exists(), "the final name is only ever whole");

    let got = Got::wait(get(&c, "a.bin", &out, &["--log-level", "info"]), secs(20)).expect(0);
    assert_same(&out.join("a.bin"), &lan.dir().join("d1/a.bin"));
    // At least nine tenths of what the wire carried were file bytes. What is lost is a batch of the journal, and what
    // waited in sockets and buffers for a disk that was busy with it.
    let missing = LEN.saturating_sub(received / 10 * 9);
    assert!(got.bytes() <= missing + (32 + 16) * MIB, "fetched {} with at most {missing} missing", got.bytes());
    // Nobody knows what happened to the part since: all that is kept is hashed again, and nothing else.
    let [kept, to_rehash] = ["bytes=", "to_rehash="].map(|key| field(&got, "resumed file=", key));
    assert!(kept > 0 && kept == to_rehash && rehashed(&got) == kept, "{kept} kept, {to_rehash} to hash again");
    assert_eq!(got.bytes(), LEN - kept, "what was right is not fetched again");
}

/// A field of a log line with a number.
fn field(got: &Got, line: &str, key: &str) -> u64 {
    let text = got.ended.text();
    let line = text.lines().find(|l| l.contains(line)).unwrap_or_else(|| panic!("no line `{line}` in:\n{text}"));
    line.split_whitespace().find_map(|w| w.strip_prefix(key)).unwrap().parse().unwrap()
}

fn rehashed(got: &Got) -> u64 {
    field(got, "download done", "rehashed=")
}

/// The partial file below `dir`.
fn part_below(dir: &Path) -> PathBuf {
    let own = std::fs::read_dir(dir.join(".gpb")).unwrap().map(|e| e.unwrap().path());
    own.into_iter().find(|p| p.extension().is_some_and(|e| e == "part")).expect("a partial file")
}

#[test]
fn a_part_that_was_changed_between_two_runs_never_gets_the_final_name() {
    let lan = lan_or_skip!();
    const LEN: u64 = 24 * MIB;
    let (_hosts, _servers) = servers::<1>(&lan, LEN, 60);
    let c = lan.host("c", None);
    for (manner, keeps_mtime) in [("plain", false), ("sly", true)] {
        let out = lan.new_dir(manner);
        let before = c.received();
        let mut running = get(&c, "a.bin", &out, &[]);
        c.wait_received(before, 12 * MIB, secs(15));
        running.signal(Signal::TERM);
        Got::wait(running, secs(5)).expect(130);

        // One byte of a chunk that is there.
        let part = part_below(&out);
        let mtime = std::fs::metadata(&part).unwrap().modified().unwrap();
        let file = File::options().read(true).write(true).open(&part).unwrap();
        let mut bytes = vec![0; LEN as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let at = bytes.iter().position(|b| *b != 0).unwrap() as u64;
        file.write_all_at(&[!bytes[at as usize]], at).unwrap();
        if keeps_mtime {
            file.set_modified(mtime).unwrap();
        }

        let got = Got::wait(get(&c, "a.bin", &out, &["--log-level", "info"]), secs(20)).expect(0);
        assert_same(&out.join("a.bin"), &lan.dir().join("d1/a.bin"));
        let kept = field(&got, "resumed file=", "bytes=");
        assert_eq!(rehashed(&got), kept, "{manner}");
        let refetched = field(&got, "changed since it was fetched", "bytes=");
        assert!(refetched <= 2 * MIB, "only the chunk that was changed");
        assert_eq!(got.bytes(), LEN - kept + refetched, "{manner}");
    }
}

#[test]
fn an_interrupted_client_goes_on_where_it_was() {
    let lan = lan_or_skip!();
    const LEN: u64 = 64 * MIB;
    let (_hosts, _servers) = servers::<1>(&lan, LEN, 100);
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let before = c.received();
    let mut running = get(&c, "a.bin", &out, &[]);
    c.wait_received(before, 40 * MIB, secs(15));
    running.signal(Signal::INT);
    let first = Got::wait(running, secs(5)).expect(130);
    assert_eq!(first.event("error")["code"], 130);

    let got = Got::wait(get(&c, "a.bin", &out, &["--log-level", "info"]), secs(20)).expect(0);
    assert_same(&out.join("a.bin"), &lan.dir().join("d1/a.bin"));
    assert!(field(&got, "resumed file=", "bytes=") > 20 * MIB, "{}", got.ended.text());
    assert_eq!(rehashed(&got), 0, "what was left in order is believed");
    // An orderly end keeps all that was verified; only what was on the way is fetched again.
    assert!(got.bytes() < LEN - 20 * MIB, "fetched {} of {LEN} again", got.bytes());
}

#[test]
fn a_server_that_appears_joins_the_download() {
    let lan = lan_or_skip!();
    let [d1, d2] = copies(&lan, ["d1", "d2"], "a.bin", 64 * MIB, 22);
    let (s1, s2) = (lan.host("s1", Some(80)), lan.host("s2", Some(80)));
    let _first = Server::start(&s1, &d1, &[]);
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let before = c.received();
    let mut running = get(&c, "a.bin", &out, &["--timeout", "60"]);
    c.wait_received(before, 4 * MIB, secs(15));
    // However long the second one takes to hash its file, most is still to come then.
    running.signal(Signal::STOP);
    let second = Server::start(&s2, &d2, &[]);
    running.signal(Signal::CONT);
    let got = Got::wait(running, secs(20)).expect(0);
    assert_same(&out.join("a.bin"), &d1.join("a.bin"));
    assert!(got.bytes_from(&second.id) > 0, "the second server gave something");
}
