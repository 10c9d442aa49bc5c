//! Finding each other: by multicast, by broadcast where multicast is filtered, over IPv6 alone, on one host without a
//! network, through one known peer; and noticing who left.

use crate::group::{CLIENT, Got, MIB, Server, assert_same, client, copies, get, list, peers, root_of, sample};
use crate::net::{Addresses, Host, Lan, secs, until};
use crate::process::{Process, Signal};

/// A client on another host, with nothing but its environment to say where files go.
fn client_without_options(host: &Host, dir: &std::path::Path, args: &[&str]) -> Process {
    let (dir, home) = (format!("GPB_DIR={}", dir.display()), host.home());
    let state = format!("XDG_STATE_HOME={}", home.join("state").display());
    let mut all = vec![dir.as_str(), state.as_str(), CLIENT];
    all.extend(args);
    host.spawn("env", &all)
}

fn three_servers(lan: &Lan, path: &str, len: u64) -> [Server; 3] {
    let dirs = copies(lan, ["d1", "d2", "d3"], path, len, 1);
    let hosts = ["s1", "s2", "s3"].map(|name| lan.host(name, Some(50)));
    std::array::from_fn(|i| Server::start(&hosts[i], &dirs[i], &[]))
}

#[test]
fn hosts_find_each_other_by_multicast_and_share_the_load() {
    let lan = lan_or_skip!();
    let servers = three_servers(&lan, "sets/images.bin", 48 * MIB);
    let (host, out) = (lan.host("c", None), lan.new_dir("out"));

    until("all are found", secs(20), || {
        let found = client_without_options(&host, &out, &["peers"]).wait(secs(10)).text();
        servers.iter().all(|server| found.contains(&server.id)).then_some(())
    });
    let listed = client_without_options(&host, &out, &["list", "--wait", "15"]).wait(secs(10)).expect(0);
    let line = listed.out.iter().find(|l| l.contains("sets/images.bin")).expect("the file is listed");
    let root = root_of(&list(&host, &[]), "sets/images.bin").unwrap();
    assert!(line.contains(&root), "a line of `list` has the root: {line}");

    let got = client_without_options(&host, &out, &["get", "sets/images.bin", "--json"]);
    let got = Got::wait(got, secs(30)).expect(0);
    assert_same(&out.join("sets/images.bin"), &lan.dir().join("d1/sets/images.bin"));
    assert_eq!(got.event("file")["root"], root.as_str());
    assert_eq!(got.bytes(), 48 * MIB);
    for server in &servers {
        let share = got.bytes_from(&server.id) as f64 / got.bytes() as f64;
        assert!(share > 0.15, "{} gave {:.1} %", server.id, share * 100.0);
    }
}

#[test]
fn one_known_peer_leads_to_the_whole_group() {
    let lan = lan_or_skip!();
    let hosts = ["s1", "s2", "s3"].map(|name| lan.host(name, None));
    for (i, name) in ["one", "two", "three"].into_iter().enumerate() {
        sample(&lan.dir().join(format!("d{i}/{name}.bin")), MIB, i as u64);
    }
    // The first knows nobody; the others know the first only. Nobody uses multicast.
    let known = |host: &Host| ["--no-multicast", "--peer", &host.ip].map(String::from);
    let dir = |i: usize| lan.dir().join(format!("d{i}"));
    let first = Server::start(&hosts[0], &dir(0), &["--no-multicast"]);
    let args = known(&hosts[0]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let second = Server::start(&hosts[1], &dir(1), &args);
    let third = Server::start(&hosts[2], &dir(2), &args);

    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let args = known(&hosts[1]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    until("all three are found through the second", secs(20), || {
        let found = peers(&c, &args);
        [&first, &second, &third].iter().all(|s| found.contains(&s.id)).then_some(())
    });
    Got::wait(get(&c, "three.bin", &out, &args), secs(15)).expect(0);
    assert_same(&out.join("three.bin"), &lan.dir().join("d2/three.bin"));
}

#[test]
fn broadcast_serves_where_multicast_is_filtered() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 3);
    let (s, c, out) = (lan.host("s", None), lan.host("c", None), lan.new_dir("out"));
    lan.filter_multicast();
    let server = Server::start(&s, &dir, &[]);
    assert_eq!(peers(&c, &[]), [server.id.as_str()]);
    Got::wait(get(&c, "a.bin", &out, &[]), secs(15)).expect(0);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
}

#[test]
fn hosts_with_ipv6_alone_find_each_other() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 8 * MIB, 4);
    let (s, c) = (lan.host_with("s", None, Addresses::OnlyV6), lan.host_with("c", None, Addresses::OnlyV6));
    let out = lan.new_dir("out");
    let server = Server::start(&s, &dir, &[]);
    assert_eq!(peers(&c, &[]), [server.id.as_str()]);
    let got = Got::wait(get(&c, "a.bin", &out, &[]), secs(15)).expect(0);
    assert_eq!(got.bytes_from(&server.id), 8 * MIB);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
}

#[test]
fn a_host_without_a_network_serves_itself() {
    let lan = lan_or_skip!();
    let dirs = copies(&lan, ["d1", "d2", "d3"], "a.bin", 48 * MIB, 5);
    let (host, out) = (lan.lonely_host("h"), lan.new_dir("out"));
    let args = ["--port", "0", "--upload-limit", "5MB", "--network", "alone"];
    let servers = dirs.each_ref().map(|dir| Server::start(&host, dir, &args));
    let got = Got::wait(get(&host, "a.bin", &out, &["--network", "alone"]), secs(20)).expect(0);
    assert_same(&out.join("a.bin"), &dirs[0].join("a.bin"));
    for server in &servers {
        let share = got.bytes_from(&server.id) as f64 / got.bytes() as f64;
        assert!((0.20..=0.47).contains(&share), "{} gave {:.1} %", server.id, share * 100.0);
    }
}

#[test]
fn networks_of_other_names_do_not_meet() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 6);
    let (s, c) = (lan.host("s", None), lan.host("c", None));
    let server = Server::start(&s, &dir, &["--network", "blue"]);
    assert_eq!(peers(&c, &["--network", "blue"]), [server.id.as_str()]);
    assert!(peers(&c, &["--network", "green", "--wait", "2"]).is_empty());
    assert!(list(&c, &["--wait", "2"]).is_empty());
    assert!(list(&c, &["--no-multicast", "--peer", &s.ip, "--wait", "2"]).is_empty());
}

#[test]
fn who_says_goodbye_is_gone_at_once() {
    let lan = lan_or_skip!();
    let [d1, d2] = copies(&lan, ["d1", "d2"], "a.bin", MIB, 7);
    let (s1, s2, c) = (lan.host("s1", None), lan.host("s2", None), lan.host("c", None));
    let leaving = Server::start(&s1, &d1, &[]);
    let mut staying = Server::start(&s2, &d2, &[]);
    staying.process.wait_line(&["peer joined", &leaving.id], secs(10));
    assert!(peers(&c, &["--no-multicast", "--peer", &s2.ip]).contains(&leaving.id));

    let Server { mut process, id, .. } = leaving;
    process.signal(Signal::TERM);
    process.wait(secs(5)).expect(0);
    staying.process.wait_line(&["peer left", &id], secs(2));
    assert_eq!(peers(&c, &["--no-multicast", "--peer", &s2.ip]), [staying.id.as_str()]);
    assert_eq!(peers(&c, &[]), [staying.id.as_str()]);
}

#[test]
fn changes_of_a_directory_show_within_seconds() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "old.bin", MIB, 8);
    let (s, c) = (lan.host("s", None), lan.host("c", None));
    let _server = Server::start(&s, &dir, &[]);
    let first = root_of(&list(&c, &[]), "old.bin").unwrap();

    sample(&dir.join("sub/new.bin"), MIB, 9);
    until("a new file is listed", secs(5), || root_of(&list(&c, &[]), "sub/new.bin"));

    sample(&dir.join("old.bin"), 2 * MIB, 10);
    let second = until("a changed file is listed with its new root", secs(5), || {
        root_of(&list(&c, &[]), "old.bin").filter(|r| *r != first)
    });

    std::fs::rename(dir.join("old.bin"), dir.join("sub/moved.bin")).unwrap();
    until("a renamed file is listed under its new name only", secs(5), || {
        let listing = list(&c, &[]);
        let moved = root_of(&listing, "sub/moved.bin").is_some_and(|r| r == second);
        (moved && root_of(&listing, "old.bin").is_none()).then_some(())
    });

    std::fs::remove_dir_all(dir.join("sub")).unwrap();
    until("removed files are listed no more", secs(5), || list(&c, &[]).is_empty().then_some(()));
}

/// `doctor` advised to bring an interface up, and the log had the debug form of the error.
#[test]
fn a_port_that_another_program_holds_is_named() {
    let lan = lan_or_skip!();
    let c = lan.host("c", None);
    let hold = "import socket, time; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('::', 27420)); \
                print('held', flush=True); time.sleep(600)";
    let mut holder = c.spawn("python3", &["-c", hold]);
    holder.wait_line(&["held"], secs(10));
    let doctor = c.spawn(CLIENT, &["doctor"]).wait(secs(15));
    let text = doctor.text();
    assert!(text.contains("UDP port 27420 is used by another program"), "{text}");
    assert!(text.contains("end the program that uses it") && !text.contains("Os {"), "{text}");
    holder.kill();
}

#[test]
fn doctor_says_what_it_tried() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 11);
    let (s, c) = (lan.host("s", None), lan.host("c", None));
    let server = Server::start(&s, &dir, &[]);
    let state = c.home().join("state");
    let report = c.spawn(CLIENT, &["doctor", "--state", state.to_str().unwrap()]).wait(secs(15)).expect(0);
    for part in ["eth0", "239.255.71.80", "27420", &server.id] {
        assert!(report.text().contains(part), "`doctor` does not name {part}:\n{}", report.text());
    }
    let seen = format!("seen by {}: {}, an address of this host", server.id, c.ip);
    let dialed = format!("dialed by {}: it reaches port", server.id);
    for part in [&seen, &dialed, "1 by multicast"] {
        assert!(report.text().contains(part), "`doctor` does not say {part}:\n{}", report.text());
    }
    // JSON stays JSON here too.
    client(&c, &["doctor"]).wait(secs(15)).expect(0);
}

#[test]
fn doctor_tells_that_nobody_can_dial_this_host() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 12);
    let (s, c) = (lan.host("s", None), lan.host("c", None));
    let server = Server::start(&s, &dir, &[]);
    // It listens where no other host reaches it.
    let report = client(&c, &["doctor", "--no-multicast", "--peer", &s.ip, "--bind", "127.0.0.1"]).wait(secs(20));
    let checks = crate::group::json(&report.expect(0));
    let of = |check: &str| {
        let check = format!("{check} {}", server.id);
        checks.iter().find(|line| line["check"] == check.as_str()).unwrap_or_else(|| panic!("no {check}: {checks:?}"))
    };
    assert_eq!(of("seen by")["ok"], true);
    assert_eq!(of("dialed by")["ok"], false);
    assert!(of("dialed by")["advice"].as_str().unwrap().contains("--port"));
}
