//! Clocks that are wrong, are set right, and jump: a library that is loaded before the programs shifts what they see.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::group::{CLIENT, Got, MIB, SERVER, assert_same, copies, get};
use crate::net::{Host, Lan, secs, until};
use crate::process::Process;

/// Adds the seconds in the file `$CLOCK_FILE` to what the program reads as the time of day. The monotonic clock is as it
/// is, as on a host whose clock is set, or that slept.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    if (result == 0 && id == CLOCK_REALTIME) {
        long shift = 0;
        FILE *file = fopen(getenv("CLOCK_FILE"), "r");
        if (file) {
            if (fscanf(file, "%ld", &shift) != 1) shift = 0;
            fclose(file);
        }
        now->tv_sec += shift;
    }
    return result;
}
"#;

/// Clocks of hosts, each shifted by a file of its own.
struct Clocks {
    preload: PathBuf,
}

impl Clocks {
    /// `None`, with a line that says so, where nothing compiles C.
    fn new(lan: &Lan) -> Option<Self> {
        let (source, preload) = (lan.dir().join("clock.c"), lan.dir().join("clock.so"));
        fs::write(&source, SOURCE).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&preload, &source]).arg("-ldl").output();
        match built {
            Ok(output) if output.status.success() => Some(Clocks { preload }),
            other => {
                assert!(
                    std::env::var_os("TESTS_REQUIRE_ALL").is_none_or(|v| v != "1"),
                    "must not be skipped: {other:?}"
                );
                println!("skipped: {}: needs a C compiler", std::thread::current().name().unwrap_or("a test"));
                None
            }
        }
    }

    /// From now on the clock of `host` is off by that number of seconds.
    fn set(host: &Host, shift_s: i64) {
        fs::create_dir_all(host.home()).unwrap();
        // Never empty or half written for a program that reads it meanwhile.
        fs::write(host.home().join("clock.new"), shift_s.to_string()).unwrap();
        fs::rename(host.home().join("clock.new"), host.home().join("clock")).unwrap();
    }

    /// Starts a program of `host` that sees its clock.
    fn spawn(&self, host: &Host, program: &str, args: &[&str]) -> Process {
        let (preload, file) = (self.preload.display(), host.home().join("clock"));
        let settings = [format!("LD_PRELOAD={preload}"), format!("CLOCK_FILE={}", file.display())];
        let settings = settings.iter().map(String::as_str);
        host.spawn("env", &settings.chain([program]).chain(args.iter().copied()).collect::<Vec<_>>())
    }

    fn server(&self, host: &Host, dir: &Path) -> Process {
        let state = host.home().join("state-server");
        let args = ["--dir", dir.to_str().unwrap(), "--state", state.to_str().unwrap()];
        let mut server = self.spawn(host, SERVER, &args);
        server.wait_line(&["ready files="], secs(20));
        server
    }

    fn get(&self, host: &Host, out: &Path, args: &[&str]) -> Got {
        self.client(host, &[&["get", "a.bin", "--no-share", "--dir", out.to_str().unwrap()], args].concat())
    }

    fn client(&self, host: &Host, args: &[&str]) -> Got {
        let state = host.home().join("state-client");
        let all = [args, &["--json", "--state", state.to_str().unwrap()]].concat();
        Got::wait(self.spawn(host, CLIENT, &all), secs(30))
    }
}

const HOUR: i64 = 3600;
/// What a board without a battery starts with: 1970.
const EPOCH: i64 = -56 * 365 * 24 * HOUR;

/// The announce of a peer whose clock was off by a day was dropped even when a session had brought it: it was not found
/// by its address either, and no message said why.
#[test]
fn a_clock_that_is_days_off_is_named_and_does_not_matter_with_an_address() {
    let lan = lan_or_skip!();
    let Some(clocks) = Clocks::new(&lan) else { return };
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 91);
    // Of client and server: one of them is right.
    for (n, (client, server)) in
        [(25 * HOUR, 0), (-25 * HOUR, 0), (EPOCH, 0), (0, 30 * HOUR), (0, EPOCH)].into_iter().enumerate()
    {
        let (s, c) = (lan.host(&format!("s{n}"), None), lan.host(&format!("c{n}"), None));
        let out = lan.new_dir(&format!("out{n}"));
        Clocks::set(&s, server);
        Clocks::set(&c, client);
        let _server = clocks.server(&s, &dir);
        let known = ["--peer", s.ip.as_str()];
        for multicast in [&["--no-multicast"][..], &[]] {
            let got = clocks.get(&c, &out, &[&known[..], multicast].concat()).expect(0);
            assert_eq!(got.bytes(), MIB);
            assert_same(&out.join("a.bin"), &dir.join("a.bin"));
            fs::remove_file(out.join("a.bin")).unwrap();
        }
        let get = ["get", "a.bin", "--timeout", "3", "--dir", out.to_str().unwrap()];
        let what = [&get[..], &["list", "--wait", "3"], &["peers", "--wait", "3"]][n % 3];
        until(&format!("{what:?} names the clock: {client} {server}"), secs(30), || {
            let got = clocks.client(&c, &[what, &["--no-remember"]].concat()).expect(3);
            got.event("error")["message"].as_str().unwrap().contains("clock").then_some(())
        });
        // Those who are next must not find this one.
        s.link(false);
        c.link(false);
    }
}

/// Cause: where other peers answered, or told of the one whose announces are dropped, nothing named the clock. Effect: `get`
/// said that no peer has the file. Mend: the message and `doctor` say that a peer was left out.
#[test]
fn a_clock_is_named_where_other_peers_answer() {
    let lan = lan_or_skip!();
    let Some(clocks) = Clocks::new(&lan) else { return };
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 95);
    let (right, wrong, c) = (lan.host("right", None), lan.host("wrong", None), lan.host("c", None));
    Clocks::set(&wrong, 25 * HOUR);
    let (mut met, out) = (clocks.server(&right, &lan.new_dir("empty")), lan.new_dir("out"));
    let state = wrong.home().join("state-server");
    let args = ["--dir", dir.to_str().unwrap(), "--state", state.to_str().unwrap(), "--peer", right.ip.as_str()];
    let _server = clocks.spawn(&wrong, SERVER, &args);
    met.wait_line(&["peer joined"], secs(20));
    for args in [&["--no-multicast", "--peer", right.ip.as_str()][..], &[]] {
        until("the clock is named", secs(30), || {
            let got = clocks.get(&c, &out, &[&["--no-remember"], args].concat()).expect(4);
            let message = got.event("error")["message"].as_str().unwrap();
            (message.contains("no peer has it (1 answered)") && message.contains("clock")).then_some(())
        });
    }
    until("doctor tells of it", secs(30), || {
        let told = clocks.client(&c, &["doctor", "--no-multicast", "--no-remember", "--peer", &right.ip]);
        told.events.iter().any(|e| e["check"] == "announces" && e["ok"] == false).then_some(())
    });
}

#[test]
fn a_clock_that_is_hours_off_does_not_matter() {
    let lan = lan_or_skip!();
    let Some(clocks) = Clocks::new(&lan) else { return };
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 92);
    let (s, c) = (lan.host("s", None), lan.host("c", None));
    let _server = clocks.server(&s, &dir);
    for shift in [2 * HOUR, -23 * HOUR] {
        Clocks::set(&c, shift);
        clocks.get(&c, &lan.new_dir(&format!("out{shift}")), &[]).expect(0);
    }
}

/// A node that started in the future went on to announce itself from there when its clock was set right, and was
/// dropped until it was started again.
#[test]
fn a_clock_that_is_set_right_brings_its_node_back() {
    let lan = lan_or_skip!();
    let Some(clocks) = Clocks::new(&lan) else { return };
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 93);
    let (s, c) = (lan.host("s", None), lan.host("c", None));
    Clocks::set(&s, 30 * HOUR);
    let _server = clocks.server(&s, &dir);
    let out = lan.new_dir("out");
    clocks.get(&c, &out, &["--timeout", "2"]).expect(3);
    Clocks::set(&s, 0);
    clocks.get(&c, &out, &["--timeout", "30"]).expect(0);
    clocks.get(&c, &lan.new_dir("out2"), &["--timeout", "30", "--no-multicast", "--peer", &s.ip]).expect(0);
}

/// As after a sleep: the time of day is hours later, or is set back, while a download is on its way.
#[test]
fn a_download_goes_on_while_clocks_jump() {
    let lan = lan_or_skip!();
    let Some(clocks) = Clocks::new(&lan) else { return };
    let [dir] = copies(&lan, ["d"], "a.bin", 24 * MIB, 94);
    let (s, c, late) = (lan.host("s", Some(80)), lan.host("c", None), lan.host("late", None));
    let mut server = clocks.server(&s, &dir);
    let (out, state) = (lan.new_dir("out"), c.home().join("state-client"));
    let before = c.received();
    let args = ["get", "a.bin", "--json", "--no-share", "--dir", out.to_str().unwrap()];
    let running = clocks.spawn(&c, CLIENT, &[&args[..], &["--state", state.to_str().unwrap()]].concat());
    for (n, [of_s, of_c]) in [[0, 9 * HOUR], [3 * HOUR, 9 * HOUR], [-5 * HOUR, -40 * HOUR]].into_iter().enumerate() {
        c.wait_received(before, (n as u64 + 1) * 4 * MIB, secs(20));
        Clocks::set(&s, of_s);
        Clocks::set(&c, of_c);
    }
    Got::wait(running, secs(30)).expect(0);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
    assert!(server.is_running());
    Clocks::set(&s, 0);
    until("the server is found by another host", secs(20), || {
        let got = Got::wait(get(&late, "a.bin", &lan.new_dir("out2"), &["--timeout", "3"]), secs(30));
        (got.ended.code == Some(0)).then_some(())
    });
}
