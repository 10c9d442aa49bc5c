//! Peers beyond one link: remembered from earlier runs, named by a file or by a name with several addresses, and met
//! through one server that two sites have in common.

use std::fs;
use std::time::Instant;

use crate::group::{Got, MIB, Server, assert_same, client, copies, get, peers, root_of, sample};
use crate::mounts::MountSpace;
use crate::net::{Host, secs, until};

#[test]
fn a_second_start_finds_its_group_where_multicast_is_blocked() {
    let lan = lan_or_skip!();
    sample(&lan.dir().join("d/met.bin"), MIB, 301);
    sample(&lan.dir().join("d/name.bin"), 100_000, 302);
    sample(&lan.dir().join("d/root.bin"), 100_000, 303);
    let (s, c, out) = (lan.host("s", None), lan.host("c", None), lan.new_dir("out"));
    let server = Server::start(&s, &lan.dir().join("d"), &[]);
    Got::wait(get(&c, "met.bin", &out, &[]), secs(15)).expect(0);
    let root = root_of(&crate::group::list(&c, &[]), "root.bin").unwrap();

    lan.filter_discovery(&[&s, &c]);
    Got::wait(get(&c, "name.bin", &out, &["--no-remember", "--timeout", "1"]), secs(15)).expect(3);
    for what in ["name.bin", &root] {
        let began = Instant::now();
        let got = Got::wait(get(&c, what, &out, &[]), secs(15)).expect(0);
        println!(
            "remembered, multicast blocked: 100 kB of {what:.8} after {:?}, start of the program included",
            began.elapsed()
        );
        assert_eq!(got.bytes_from(&server.id), 100_000);
    }
    assert_same(&out.join("name.bin"), &lan.dir().join("d/name.bin"));
    let doctor = client(&c, &["doctor"]).wait(secs(15));
    assert!(doctor.text().contains("1 of earlier runs, 1 found that way"), "{}", doctor.text());
}

/// Cause: `--interface` bounded announces alone. Effect: with `--interface lo` a node dialed remembered peers in other networks.
/// Mend: they are dialed where the way to them leaves by such an interface.
#[test]
fn remembered_peers_are_dialed_over_the_chosen_interfaces() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 306);
    let (s, c) = (lan.host("s", None), lan.host("c", None));
    let (there, here) = (lan.plug(&s), lan.plug(&c));
    let server = Server::start(&s, &dir, &["--no-multicast"]);
    assert_eq!(peers(&c, &["--no-multicast", "--peer", &there]), [server.id.as_str()]);
    for (interface, is_found) in [("lo", false), ("eth0", false), ("eth1", true), (&here, true)] {
        let wait = if is_found { "8" } else { "1" };
        let found = peers(&c, &["--no-multicast", "--interface", interface, "--wait", wait]);
        assert_eq!(found.contains(&server.id), is_found, "over {interface}: {found:?}");
    }
    // What the user names is contacted wherever it is.
    assert_eq!(peers(&c, &["--no-multicast", "--interface", "lo", "--peer", &there]), [server.id.as_str()]);
}

/// A remembered peer was contacted once, and expired after 30 s where no announce came.
#[test]
#[ignore = "takes 50 s"]
fn remembered_peers_stay_where_multicast_is_blocked() {
    let lan = lan_or_skip!();
    let dirs = copies(&lan, ["d1", "d2"], "a.bin", MIB, 305);
    let (one, two) = (lan.host("one", None), lan.host("two", None));
    let first = Server::start(&one, &dirs[0], &[]);
    let kept = two.home().join("state-server-d2/peers.known");
    let met = Server::start(&two, &dirs[1], &["--peer", &one.ip]);
    until("the first is remembered", secs(20), || {
        fs::read_to_string(&kept).is_ok_and(|text| text.contains(&first.id)).then_some(())
    });
    met.process.kill();
    lan.filter_discovery(&[&one, &two]);
    let mut second = Server::start(&two, &dirs[1], &[]);
    second.process.wait_line(&["peer joined", &first.id], secs(10));
    std::thread::sleep(secs(45));
    assert_eq!(second.process.count_lines(&["peer left", &first.id]), 0, "it is contacted again and again");
}

/// A name such as that of a headless service stands for all of its hosts.
#[test]
fn each_address_of_a_name_is_a_peer() {
    let lan = lan_or_skip!();
    let dirs = copies(&lan, ["d1", "d2", "d3"], "a.bin", MIB, 304);
    let hosts = ["s1", "s2", "s3"].map(|name| lan.host(name, None));
    let alone = ["--no-multicast"];
    // They do not know each other.
    let servers: Vec<Server> = hosts.iter().zip(&dirs).map(|(host, dir)| Server::start(host, dir, &alone)).collect();
    let (c, space) = (lan.host("c", None), MountSpace::new());
    let names: String = hosts.iter().map(|host| format!("{} pods.example\n", host.ip)).collect();
    let (table, file) = (lan.dir().join("hosts"), lan.dir().join("peer-file"));
    // The second address is nobody's.
    fs::write(&table, format!("127.0.0.1 localhost\n10.77.1.250 pods.example\n{names}")).unwrap();
    fs::write(&file, "# the pods\nbad line\npods.example\n").unwrap();
    space.sh(&format!("mount --bind {} /etc/hosts", table.display()));
    let state = c.home().join("state-names");
    for named in [["--peer", "pods.example"], ["--peer-file", file.to_str().unwrap()]] {
        let args =
            ["peers", "--json", "--no-multicast", "--no-remember", "--state", state.to_str().unwrap(), "--wait", "8"];
        let ended = space.spawn(&c, crate::group::CLIENT, &[&args[..], &named].concat()).wait(secs(20)).expect(0);
        for server in &servers {
            assert!(ended.text().contains(&server.id), "{named:?} lacks {}:\n{}", server.id, ended.text());
        }
    }
}

/// Two sites of three hosts each, which reach each other by address and not by multicast. All that they have in common
/// is the address of one server.
#[test]
fn two_sites_meet_at_one_server() {
    let lan = lan_or_skip!();
    let r = lan.host("r", None);
    let r_in_b = lan.plug(&r);
    r.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
    let mut sites: Vec<(Host, String)> = Vec::new();
    for n in 0..6 {
        let host = lan.host(&format!("h{n}"), None);
        let meets_at = if n < 3 {
            host.sh(&format!("ip route add 10.78.0.0/24 via {}", r.ip));
            r.ip.clone()
        } else {
            lan.plug(&host);
            host.sh(&format!("ip link set eth0 down; ip route add 10.77.0.0/23 via {r_in_b}"));
            r_in_b.clone()
        };
        sample(&lan.dir().join(format!("d{n}/f{n}.bin")), MIB, 310 + n);
        sites.push((host, meets_at));
    }
    let empty = lan.new_dir("empty");
    let meeting = Server::start(&r, &empty, &["--no-multicast"]);
    let began = Instant::now();
    let mut servers: Vec<Server> = Vec::new();
    for (n, (host, meets_at)) in sites.iter().enumerate() {
        servers.push(Server::start_only(host, &lan.dir().join(format!("d{n}")), &["--peer", meets_at]));
    }
    let all: Vec<String> = servers.iter().map(|server| server.id.clone()).collect();
    for (n, server) in servers.iter_mut().enumerate() {
        for id in all.iter().filter(|id| **id != all[n]).chain([&meeting.id]) {
            server.process.wait_line(&["peer joined", id], secs(30));
        }
    }
    println!("two sites: all see all {:?} after the first start", began.elapsed());

    let (a, out) = (&sites[0], lan.new_dir("out"));
    let got = Got::wait(get(&a.0, "f5.bin", &out, &["--peer", &a.1, "--no-remember"]), secs(20)).expect(0);
    assert_eq!(got.bytes_from(&all[5]), MIB, "from the other site");
    assert_same(&out.join("f5.bin"), &lan.dir().join("d5/f5.bin"));
    until("all are found", secs(20), || (peers(&sites[4].0, &["--peer", &sites[4].1]).len() >= 7).then_some(()));
    until("the sites are remembered", secs(15), || {
        let kept = fs::read_to_string(a.0.home().join("state-server-d0/peers.known")).unwrap_or_default();
        kept.contains(&meeting.id).then_some(())
    });
}
