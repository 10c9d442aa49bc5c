//! Who fetches the same file at once gives the others what it has of it.

use std::path::{Path, PathBuf};

use crate::group::{Got, MIB, Server, assert_same, client, copies, list, root_of};
use crate::net::{Host, Lan, secs, until};
use crate::process::{Process, Signal};

/// What every host may send.
const MBIT: u32 = 40;

/// Starts to fetch `what` into a new directory of the test, as a person would.
fn leech(lan: &Lan, host: &Host, what: &str, args: &[&str]) -> (Process, PathBuf) {
    let dir = lan.new_dir(&format!("of-{}", host.name));
    let all = [&["get", what, "--dir", dir.to_str().unwrap()], args].concat();
    (client(host, &all), dir)
}

/// Waits until the file is whole at all of them, while they run on; what the seeder sent meanwhile, in files.
fn copies_sent(lan: &Lan, leechers: &[Host], seeder: &Host, args: &[&str], source: &Path) -> (f64, Vec<Process>) {
    let before = seeder.sent();
    let running: Vec<_> =
        leechers.iter().map(|host| leech(lan, host, "a.bin", &[&["--seed", "60"], args].concat())).collect();
    let wait = |(mut process, dir): (Process, PathBuf)| {
        process.wait_line(&["\"event\":\"done\""], secs(20));
        assert_same(&dir.join("a.bin"), source);
        assert!(process.is_running(), "it goes on giving");
        process
    };
    let running = running.into_iter().map(wait).collect();
    ((seeder.sent() - before) as f64 / source.metadata().unwrap().len() as f64, running)
}

#[test]
fn leechers_spare_the_seeder_and_stand_in_for_it() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 12 * MIB, 61);
    let source = dir.join("a.bin");
    let s = lan.host("s", Some(MBIT));
    let leechers: Vec<_> = (1..=5).map(|i| lan.host(&format!("l{i}"), Some(MBIT))).collect();
    let server = Server::start(&s, &dir, &[]);
    let (copies, running) = copies_sent(&lan, &leechers, &s, &[], &source);
    assert!((0.9..2.5).contains(&copies), "the seeder sent {copies:.2} copies to 5 leechers");

    // All that there was at first is gone.
    server.process.kill();
    let late: Vec<_> = (1..=2).map(|i| lan.host(&format!("late{i}"), None)).collect();
    let listed = until("all five are found", secs(20), || {
        let listed = list(&late[0], &[]);
        (listed.len() == 1 && listed[0]["holders"] == 5).then_some(listed)
    });
    let root = root_of(&listed, "a.bin").unwrap();
    for (host, what) in late.iter().zip(["a.bin", &root]) {
        let (process, dir) = leech(&lan, host, what, &[]);
        let got = Got::wait(process, secs(15)).expect(0);
        assert_same(&dir.join("a.bin"), &source);
        assert_eq!(got.bytes_from(&server.id), 0);
        assert!(got.done()["peers"].as_array().unwrap().len() > 1, "several stand in for it");
    }
    for mut process in running {
        process.signal(Signal::INT);
        Got::wait(process, secs(5)).expect(0);
    }
}

/// Shows that the test above measures what it says.
#[test]
fn without_sharing_the_seeder_sends_everything() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 4 * MIB, 62);
    let s = lan.host("s", Some(MBIT));
    let leechers: Vec<_> = (1..=3).map(|i| lan.host(&format!("l{i}"), Some(MBIT))).collect();
    let _server = Server::start(&s, &dir, &[]);
    let (copies, _running) = copies_sent(&lan, &leechers, &s, &["--no-share"], &dir.join("a.bin"));
    assert!((2.9..3.4).contains(&copies), "the seeder sent {copies:.2} copies to 3 leechers");
}
