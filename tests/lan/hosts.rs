//! Hosts as they are: with several networks, with addresses that change, with links that come and go, asleep, slow, or
//! copied with their keys.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::group::{Got, MIB, SERVER, Server, assert_same, client, copies, get, list, peers, root_of, sample};
use crate::net::{Addresses, Host, secs, until};
use crate::process::Signal;

/// The link-local address of `eth0`.
fn link_local(host: &Host) -> String {
    let text = host.sh("ip -6 -o addr show dev eth0 scope link");
    text.split_whitespace().find_map(|word| word.strip_suffix("/64")).unwrap().to_string()
}

#[test]
fn one_server_serves_two_networks() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 4 * MIB, 201);
    let (s, c1, c2) = (lan.host("s", None), lan.host("c1", None), lan.host("c2", None));
    let (s2, _) = (lan.plug(&s), lan.plug(&c2));
    // The second client is on the second network alone.
    c2.link(false);
    let server = Server::start(&s, &dir, &[]);
    for client in [&c1, &c2] {
        let out = lan.new_dir(&client.name);
        until("the server is found", secs(10), || (peers(client, &[]) == [server.id.as_str()]).then_some(()));
        Got::wait(get(client, "a.bin", &out, &[]), secs(15)).expect(0);
        assert_same(&out.join("a.bin"), &dir.join("a.bin"));
    }
    let out = lan.new_dir("by-address");
    Got::wait(get(&c2, "a.bin", &out, &["--no-multicast", "--peer", &s2]), secs(15)).expect(0);
}

/// Two networks that lead to one server are one peer; one of them is pulled out on the way.
#[test]
fn a_download_goes_on_over_the_other_network() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 32 * MIB, 202);
    let (s, c) = (lan.host("s", Some(80)), lan.host("c", None));
    lan.plug(&s);
    lan.plug(&c);
    let server = Server::start(&s, &dir, &[]);
    let (out, before) = (lan.new_dir("out"), c.received());
    let running = get(&c, "a.bin", &out, &["--timeout", "15"]);
    // The first network is cut once it carried a part; if the second one carries all, it is not needed.
    until("some came", secs(15), || (c.received() - before + c.received_on("eth1") > 4 * MIB).then_some(()));
    c.link(false);
    let got = Got::wait(running, secs(30)).expect(0);
    assert_eq!(got.bytes_from(&server.id), 32 * MIB);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
}

#[test]
fn where_discovery_is_blocked_one_address_leads_to_all() {
    let lan = lan_or_skip!();
    let hosts = ["s1", "s2", "c"].map(|name| lan.host(name, None));
    let [s1, s2, c] = &hosts;
    lan.filter_discovery(&[s1, s2, c]);
    for (name, n) in [("one", 1), ("two", 2)] {
        sample(&lan.dir().join(format!("d{n}/{name}.bin")), MIB, n);
    }
    let first = Server::start(s1, &lan.dir().join("d1"), &[]);
    let second = Server::start(s2, &lan.dir().join("d2"), &["--peer", &s1.ip]);
    let out = lan.new_dir("out");
    Got::wait(get(c, "one.bin", &out, &["--timeout", "1"]), secs(15)).expect(3);
    until("both are found through the first", secs(20), || {
        let found = peers(c, &["--peer", &s1.ip]);
        [&first, &second].iter().all(|s| found.contains(&s.id)).then_some(())
    });
    Got::wait(get(c, "two.bin", &out, &["--peer", &s1.ip]), secs(20)).expect(0);
    assert_same(&out.join("two.bin"), &lan.dir().join("d2/two.bin"));
}

#[test]
fn a_link_that_flaps_does_not_stop_a_download() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 32 * MIB, 203);
    let (s, c, out) = (lan.host("s", Some(100)), lan.host("c", None), lan.new_dir("out"));
    let _server = Server::start(&s, &dir, &[]);
    let before = c.received();
    let running = get(&c, "a.bin", &out, &["--timeout", "15"]);
    for n in 1..=3 {
        c.wait_received(before, n * 6 * MIB, secs(20));
        let flapping = if n == 2 { &c } else { &s };
        flapping.link(false);
        sleep(Duration::from_millis(400));
        flapping.link(true);
    }
    Got::wait(running, secs(30)).expect(0);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
}

/// The addresses of both ends are replaced while a download is on its way: sessions end, and the server is found again.
#[test]
fn a_download_survives_new_addresses_of_both_sides() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 32 * MIB, 204);
    let (s, c, out) = (lan.host("s", Some(80)), lan.host("c", None), lan.new_dir("out"));
    let server = Server::start(&s, &dir, &[]);
    let before = c.received();
    let running = get(&c, "a.bin", &out, &["--timeout", "20"]);
    for (n, host) in [(1, &s), (2, &c)] {
        c.wait_received(before, n * 8 * MIB, secs(25));
        // No address of before stays, so that nothing goes on over it.
        host.sh(&format!(
            "ip addr flush dev eth0; ip addr add 10.77.1.{n}/23 brd + dev eth0; ip addr add fe80::77:{n}/64 dev eth0 nodad"
        ));
        let other = if n == 1 { &c } else { &s };
        other.sh(&format!("ip addr replace 10.77.0.{}/23 brd + dev eth0", 100 + n));
    }
    let got = Got::wait(running, secs(40)).expect(0);
    assert_eq!(got.bytes_from(&server.id), 32 * MIB);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
}

#[test]
fn a_link_local_address_needs_its_interface_and_is_enough() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 4 * MIB, 205);
    let (s, c) = (lan.host_with("s", None, Addresses::OnlyV6), lan.host_with("c", None, Addresses::OnlyV6));
    let _server = Server::start(&s, &dir, &[]);
    let ip = link_local(&s);
    for (n, peer) in [format!("[{ip}%eth0]:27420"), format!("{ip}%eth0")].into_iter().enumerate() {
        let out = lan.new_dir(&format!("out{n}"));
        Got::wait(get(&c, "a.bin", &out, &["--no-multicast", "--peer", &peer]), secs(15)).expect(0);
        assert_same(&out.join("a.bin"), &dir.join("a.bin"));
    }
    let ended = get(&c, "a.bin", &lan.new_dir("out"), &["--no-multicast", "--peer", &ip]).wait(secs(15)).expect(2);
    assert!(ended.text().contains("needs its interface"), "what is missing is named:\n{}", ended.text());
}

/// Unlike a pulled cable, a partition shows no sign at either host: only nothing comes.
#[test]
fn a_partition_that_heals_does_not_stop_a_download() {
    let lan = lan_or_skip!();
    let dirs = copies(&lan, ["d1", "d2"], "a.bin", 32 * MIB, 206);
    let hosts = ["s1", "s2"].map(|name| lan.host(name, Some(60)));
    let _servers = [0, 1].map(|n| Server::start(&hosts[n], &dirs[n], &[]));
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let before = c.received();
    let running = get(&c, "a.bin", &out, &["--timeout", "15"]);
    c.wait_received(before, 8 * MIB, secs(15));
    c.part(true);
    let apart = c.received();
    sleep(secs(4));
    assert!(c.received() < apart + MIB, "nothing comes");
    c.part(false);
    Got::wait(running, secs(30)).expect(0);
    assert_same(&out.join("a.bin"), &dirs[0].join("a.bin"));
}

/// A stopped process keeps its sockets: they are open and silent.
#[test]
fn a_source_that_is_stopped_does_not_hold_up_the_other() {
    let lan = lan_or_skip!();
    let dirs = copies(&lan, ["d1", "d2"], "a.bin", 40 * MIB, 207);
    let hosts = ["s1", "s2"].map(|name| lan.host(name, Some(80)));
    let [mut stopped, other] = [0, 1].map(|n| Server::start(&hosts[n], &dirs[n], &[]));
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let before = c.received();
    let running = get(&c, "a.bin", &out, &[]);
    c.wait_received(before, 8 * MIB, secs(15));
    stopped.process.signal(Signal::STOP);
    let got = Got::wait(running, secs(20));
    stopped.process.signal(Signal::CONT);
    let got = got.expect(0);
    assert_same(&out.join("a.bin"), &dirs[0].join("a.bin"));
    assert!(got.bytes_from(&other.id) > 20 * MIB);
    // Alone it would take 4.2 s in all; the chunks that the stopped one owes are asked of the other long before the timeout.
    assert!(got.done()["seconds"].as_f64().unwrap() < 20.0, "{}", got.done());
    // It is back at once.
    let again = lan.new_dir("again");
    let got = Got::wait(get(&c, "a.bin", &again, &["--no-multicast", "--peer", &hosts[0].ip]), secs(20)).expect(0);
    assert!(got.bytes_from(&stopped.id) > MIB);
}

#[test]
fn a_peer_at_a_hundredth_of_the_speed_does_no_harm() {
    let lan = lan_or_skip!();
    let dirs = copies(&lan, ["d1", "d2"], "a.bin", 40 * MIB, 208);
    let (fast, slow) = (lan.host("fast", Some(100)), lan.host("slow", Some(1)));
    let quick = Server::start(&fast, &dirs[0], &[]);
    let c = lan.host("c", None);
    let seconds = |name: &str| {
        let out = lan.new_dir(name);
        let got = Got::wait(get(&c, "a.bin", &out, &[]), secs(40)).expect(0);
        assert_same(&out.join("a.bin"), &dirs[0].join("a.bin"));
        (got.done()["seconds"].as_f64().unwrap(), got.bytes_from(&quick.id))
    };
    let (alone, _) = seconds("alone");
    let crawling = Server::start(&slow, &dirs[1], &[]);
    until("the slow one is known", secs(10), || peers(&c, &[]).contains(&crawling.id).then_some(()));
    let (beside, from_quick) = seconds("beside");
    println!("alone {alone:.2} s, beside a slow peer {beside:.2} s");
    assert!(beside < alone * 1.5 + 2.0, "{beside:.2} s instead of {alone:.2}");
    assert!(from_quick > 36 * MIB);
}

/// A disk image that was copied with its key: two hosts are one peer with two instances, and each has other files.
#[test]
fn hosts_with_one_key_both_serve_and_are_told() {
    let lan = lan_or_skip!();
    let hosts = ["s1", "s2"].map(|name| lan.host(name, None));
    for (name, n) in [("one", 1), ("two", 2)] {
        sample(&lan.dir().join(format!("d{n}/{name}.bin")), MIB, n);
        sample(&lan.dir().join(format!("d{n}/both.bin")), 8 * MIB, 9);
    }
    let key = lan.dir().join("key.pem");
    hosts[0].spawn(crate::group::KEYGEN, &["--out", key.to_str().unwrap()]).wait(secs(5)).expect(0);
    let args = ["--key", key.to_str().unwrap()];
    let mut servers = [0, 1].map(|n| Server::start(&hosts[n], &lan.dir().join(format!("d{}", n + 1)), &args));
    assert_eq!(servers[0].id, servers[1].id);
    let c = lan.host("c", None);
    until("the files of both are listed", secs(10), || {
        let listed = list(&c, &[]);
        ["one.bin", "two.bin"].iter().all(|name| root_of(&listed, name).is_some()).then_some(())
    });
    let out = lan.new_dir("out");
    for what in ["one.bin", "two.bin", "both.bin"] {
        Got::wait(get(&c, what, &out, &[]), secs(15)).expect(0);
    }
    for (name, n) in [("one.bin", 1), ("two.bin", 2), ("both.bin", 1)] {
        assert_same(&out.join(name), &lan.dir().join(format!("d{n}/{name}")));
    }
    for server in &mut servers {
        server.process.wait_line(&["WARN", "key"], secs(10));
    }
}

/// The machine of the server sleeps for longer than a session lives, and the client's as well.
#[test]
fn a_download_goes_on_after_a_sleep() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 24 * MIB, 209);
    let (s, c, out) = (lan.host("s", Some(80)), lan.host("c", None), lan.new_dir("out"));
    let mut server = Server::start(&s, &dir, &[]);
    let before = c.received();
    let mut running = get(&c, "a.bin", &out, &["--timeout", "20"]);
    c.wait_received(before, 4 * MIB, secs(15));
    server.process.signal(Signal::STOP);
    sleep(secs(5));
    server.process.signal(Signal::CONT);
    c.wait_received(before, 8 * MIB, secs(20));
    running.signal(Signal::STOP);
    sleep(secs(5));
    running.signal(Signal::CONT);
    Got::wait(running, secs(30)).expect(0);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
}

/// A server that starts before its network is there serves once it comes up.
#[test]
fn a_server_that_starts_without_a_network_is_found_when_one_comes() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 210);
    let (s, c, out) = (lan.host("s", None), lan.host("c", None), lan.new_dir("out"));
    s.sh("ip link set eth0 down");
    let state = s.home().join("state");
    let mut server = s.spawn(SERVER, &["--dir", dir.to_str().unwrap(), "--state", state.to_str().unwrap()]);
    server.wait_line(&["ready files="], secs(20));
    s.sh("ip link set eth0 up; ip addr replace 10.77.0.1/24 brd + dev eth0");
    let running = client(&c, &["get", "a.bin", "--no-share", "--timeout", "25", "--dir", out.to_str().unwrap()]);
    Got::wait(running, secs(40)).expect(0);
    assert_same(&out.join("a.bin"), &fs::canonicalize(dir.join("a.bin")).unwrap());
}
