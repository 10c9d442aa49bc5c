//! DNS-SD: hosts that find each other by it alone, and what another implementation sees of them.

use std::fs;
use std::process::{Command, Stdio};

use crate::group::{Got, MIB, Server, assert_same, client, copies, get, peers};
use crate::mounts::MountSpace;
use crate::net::{Host, Lan, secs, until};
use crate::process::{Process, Signal};

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
time.sleep(600)
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
        let text = report.text();
        let row = text.contains("this node is published, 1 others found");
        (text.contains("1 answered with their key") && row).then_some(())
    });
    assert!(peers(&c, &["--no-multicast", "--no-remember", "--wait", "2"]).is_empty(), "it was found by DNS-SD");
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

/// Avahi on a host, as it runs on desktops and in reflectors, with a system bus and a `/run` of its own.
struct Avahi<'a> {
    host: &'a Host,
    space: MountSpace,
    _daemon: Process,
    _bus: Process,
}

/// Ends the test as skipped where Avahi is not installed.
macro_rules! lan_with_avahi_or_skip {
    () => {{
        let has = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
        for program in ["avahi-daemon", "avahi-browse", "dbus-daemon"] {
            if !has(program) {
                skip!("needs the program {program}");
            }
        }
        lan_or_skip!()
    }};
}

const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
"#;

impl<'a> Avahi<'a> {
    fn start(lan: &Lan, host: &'a Host, settings: &str) -> Self {
        let [bus, config] = ["bus.conf", "avahi.conf"].map(|name| lan.new_dir(&host.name).join(name));
        fs::write(&bus, BUS).unwrap();
        fs::write(&config, format!("[server]\nhost-name=avahi-{}\n{settings}\n", host.name)).unwrap();
        let space = MountSpace::new();
        space.sh("mount -t tmpfs tmpfs /run; mkdir -p /run/dbus /run/avahi-daemon");
        let bus = format!("--config-file={}", bus.display());
        let mut bus = space.spawn(host, "dbus-daemon", &[&bus, "--nofork", "--nopidfile", "--print-address"]);
        bus.wait_line(&["system_bus_socket"], secs(10));
        let args = ["--no-drop-root", "--no-chroot", "--no-proc-title", "--no-rlimits", "-f", config.to_str().unwrap()];
        let mut daemon = space.spawn(host, "avahi-daemon", &args);
        daemon.wait_line(&["Server startup complete"], secs(20));
        Avahi { host, space, _daemon: daemon, _bus: bus }
    }

    /// The lines of `avahi-browse` about IPv4 addresses on `eth0`.
    fn browse(&self) -> Vec<String> {
        let found = self.space.spawn(self.host, "avahi-browse", &["-rptk", "_gpb._tcp"]).wait(secs(20)).expect(0);
        found.text().lines().filter(|l| l.starts_with("=;eth0;IPv4;")).map(str::to_owned).collect()
    }
}

/// On the host of the browser runs a node, too: both hear the port of multicast DNS.
#[test]
fn avahi_sees_key_and_network_and_the_end_and_disturbs_no_node_of_its_host() {
    let lan = lan_with_avahi_or_skip!();
    let [dir, other] = copies(&lan, ["d", "other"], "a.bin", MIB, 313);
    let [s, c] = ["s", "c"].map(|name| lan.host(name, None));
    let avahi = Avahi::start(&lan, &c, "");
    let mut server = Server::start(&s, &dir, &ALONE);
    let near = Server::start(&c, &other, &[&ALONE[..], &["--network", "other"]].concat());
    let found = until("avahi sees both", secs(30), || {
        let found = avahi.browse();
        let line = |id: &str| found.iter().find(|line| line.contains(id)).cloned();
        line(&server.id).zip(line(&near.id))
    });
    let expected = |server: &Server, host: &Host, net: &str| {
        let text = format!("\"id={}\" \"net={net}\" \"v=2\"", server.id);
        format!(".local;{};{};{text}", host.ip, server.port())
    };
    assert!(found.0.ends_with(&expected(&server, &s, "gpb")), "{}", found.0);
    assert!(found.1.ends_with(&expected(&near, &c, "other")), "{}", found.1);
    assert_eq!(peers(&c, &ALONE), [server.id.as_str()]);
    server.process.signal(Signal::TERM);
    until("avahi sees the end", secs(20), || {
        let left = avahi.browse();
        (left.len() == 1 && left[0].contains(&near.id)).then_some(())
    });
}

/// Multicast DNS stays on its link; a reflector carries it to another one.
#[test]
fn a_reflector_joins_two_links() {
    let lan = lan_with_avahi_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 314);
    let [s, c, r] = ["s", "c", "r"].map(|name| lan.host(name, None));
    let (_, gateway) = (lan.plug(&c), lan.plug(&r));
    s.sh(&format!("ip route add 10.78.0.0/24 via {}", r.ip));
    c.sh(&format!("ip link set eth0 down; ip route add 10.77.0.0/24 via {gateway}"));
    r.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
    let server = Server::start(&s, &dir, &ALONE);
    assert!(peers(&c, &[&ALONE[..], &["--wait", "2"]].concat()).is_empty(), "nothing carries multicast DNS yet");
    let _reflector = Avahi::start(&lan, &r, "[reflector]\nenable-reflector=yes");
    let out = lan.new_dir("out");
    Got::wait(get(&c, "a.bin", &out, &[&ALONE[..], &["--timeout", "30"]].concat()), secs(60)).expect(0);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
    until("it is found again", secs(20), || (peers(&c, &ALONE) == [server.id.as_str()]).then_some(()));
}
