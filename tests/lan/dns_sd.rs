//! DNS-SD: hosts that find each other by it alone, and what another implementation sees of them.

use std::process::{Command, Stdio};

use crate::group::{Got, MIB, Server, assert_same, client, copies, get, peers};
use crate::net::{secs, until};
use crate::process::Signal;

/// Prints what Python's `zeroconf` finds.
const BROWSER: &str = r#"
import time, zeroconf
class Listener:
    def add_service(self, zc, kind, name):
        info = zc.get_service_info(kind, name, 10000)
        text = sorted(k.decode() + '=' + v.decode() for k, v in info.properties.items())
        print('found', name, info.server, info.port, *text, *info.parsed_addresses(), 'end', flush=True)
    def update_service(self, zc, kind, name): pass
    def remove_service(self, zc, kind, name): print('gone', name, flush=True)
zc = zeroconf.Zeroconf()
zeroconf.ServiceBrowser(zc, '_gpb._tcp.local.', Listener())
time.sleep(60)
"#;

/// Nodes of these tests know nobody, and neither send nor hear announces by multicast of GPB's own.
const ALONE: [&str; 3] = ["--no-multicast", "--no-remember", "--dns-sd"];

#[test]
fn dns_sd_finds_the_group_where_its_own_multicast_does_not() {
    let lan = lan_or_skip!();
    let [dir, other] = copies(&lan, ["d", "other"], "a.bin", MIB, 311);
    let [s, o, c] = ["s", "o", "c"].map(|name| lan.host(name, None));
    let server = Server::start(&s, &dir, &ALONE);
    let _stranger = Server::start(&o, &other, &[&ALONE[..], &["--network", "other"]].concat());
    until("the server is found", secs(20), || (peers(&c, &ALONE) == [server.id.as_str()]).then_some(()));
    let out = lan.new_dir("out");
    Got::wait(get(&c, "a.bin", &out, &ALONE), secs(20)).expect(0);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
    until("doctor tells what came of it", secs(30), || {
        let report = client(&c, &[&["doctor"], &ALONE[..]].concat()).wait(secs(20)).expect(0);
        report.text().contains("1 answered with their key").then_some(())
    });
    assert!(peers(&c, &["--no-multicast", "--no-remember"]).is_empty(), "it was found by DNS-SD");
}

/// A python that has the module; the one of the system has what the system installs.
fn python_with_zeroconf() -> Option<&'static str> {
    ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let mut tried = Command::new(python);
        let tried = tried.args(["-c", "import zeroconf"]).stdout(Stdio::null()).stderr(Stdio::null());
        tried.status().is_ok_and(|status| status.success())
    })
}

#[test]
fn another_implementation_of_dns_sd_sees_key_and_network_and_the_end() {
    let lan = lan_or_skip!();
    let Some(python) = python_with_zeroconf() else {
        assert!(std::env::var_os("TESTS_REQUIRE_ALL").is_none_or(|v| v != "1"), "must not be skipped: zeroconf");
        println!("skipped: another implementation of DNS-SD: needs the Python module zeroconf");
        return;
    };
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 312);
    let [s, c] = ["s", "c"].map(|name| lan.host(name, None));
    let mut browser = c.spawn(python, &["-c", BROWSER]);
    let mut server = Server::start(&s, &dir, &ALONE);
    let line = browser.wait_line(&["found", "end"], secs(20));
    let words: Vec<&str> = line.split_whitespace().collect();
    for expected in ["27420", &format!("id={}", server.id), "net=gpb", "v=2", &s.ip] {
        assert!(words.contains(&expected), "no {expected} in {line}");
    }
    let name = words.iter().find_map(|w| w.strip_suffix("._gpb._tcp.local.")).unwrap();
    assert!(words.contains(&format!("{name}.local.").as_str()), "the host has the name of the service: {line}");
    assert!(name.strip_prefix("gpb-").is_some_and(|digits| digits.len() == 16), "and none of its own: {name}");
    server.process.signal(Signal::TERM);
    browser.wait_line(&["gone", name], secs(20));
}
