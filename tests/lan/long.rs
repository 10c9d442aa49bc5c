//! Long links: hosts that are 20 to 300 ms apart and lose packets find each other, fetch, share and fail as near ones do,
//! at the rate of the path.

use std::time::{Duration, Instant};

use crate::group::{Got, MIB, Server, assert_same, client, copies, get, list, peers, sample};
use crate::link::Distance;
use crate::net::{Host, secs, until};

/// Waits until nothing more comes from a far host; the packets that came.
fn quiet(far: &Host) -> u64 {
    let mut last = (0, Instant::now());
    until("packets stop coming", secs(10), || {
        let passed = far.passed()[0];
        if passed != last.0 {
            last = (passed, Instant::now());
        }
        (passed > 0 && last.1.elapsed() > Duration::from_millis(1000)).then_some(passed)
    })
}

/// What the other tests here rely on: a long link takes its time, holds its rate and loses its part.
#[test]
fn a_long_link_is_what_the_tests_think() {
    let lan = long_lan_or_skip!();
    let near = lan.host("near", None);
    let send = |far: &Host, packets: u32| {
        // Nobody listens there; what comes back as an error does not matter.
        far.sh(&format!(
            "printf -v kb %01000d 0; exec 3> /dev/udp/{}/9; for i in $(seq {packets}); do printf $kb >&3; done 2> /dev/null; true",
            near.ip
        ));
    };
    let far = lan.far_host("far", Distance::ms(300));
    // ARP and neighbours ask first.
    send(&far, 1);
    quiet(&far);
    let (before, begun) = (near.received(), Instant::now());
    send(&far, 1);
    near.wait_received(before, 1000, secs(5));
    assert!(begun.elapsed() >= Duration::from_millis(150), "a packet took {:?}", begun.elapsed());

    let lossy = lan.far_host("lossy", Distance { loss: 0.2, seed: 7, ..Distance::ms(20) });
    send(&lossy, 20);
    let before = quiet(&lossy);
    send(&lossy, 1000);
    let arrived = quiet(&lossy) - before;
    assert!((700..900).contains(&arrived), "seed 7: {arrived} of about 1000 packets with a loss of 0.2");

    let narrow = lan.far_host("narrow", Distance { rate_mbit: Some(8), ..Distance::ms(400) });
    send(&narrow, 1);
    quiet(&narrow);
    let begun = Instant::now();
    let before = near.received();
    send(&narrow, 300);
    near.wait_received(before, 290_000, secs(10));
    assert!(begun.elapsed() >= Duration::from_millis(480), "0.29 MB at 1 MB/s took {:?}", begun.elapsed());
}

#[test]
fn a_far_server_is_found_listed_and_used_at_its_rate() {
    let lan = long_lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 24 * MIB, 71);
    let s = lan.far_host("s", Distance { rate_mbit: Some(100), ..Distance::ms(100) });
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let server = Server::start(&s, &dir, &[]);
    assert_eq!(peers(&c, &[]), [server.id.as_str()]);
    assert_eq!(list(&c, &[]).len(), 1);
    let got = Got::wait(get(&c, "a.bin", &out, &[]), secs(20)).expect(0);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
    // It takes 2 s. With one chunk on the way it took 10.
    let seconds = got.done()["seconds"].as_f64().unwrap();
    assert!(seconds < 9.0, "24 MiB at 100 Mbit/s took {seconds} s");
}

/// The listing was asked for once `Hello` was answered.
#[test]
fn the_first_bytes_of_a_far_file_take_no_round_trip_more_than_they_must() {
    let lan = long_lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 4096, 78);
    let (s, c, out) = (lan.far_host("s", Distance::ms(150)), lan.host("c", None), lan.new_dir("out"));
    let _server = Server::start(&s, &dir, &["--no-multicast"]);
    // ARP is over then.
    until("its address is known", secs(10), || {
        c.sh(&format!("echo > /dev/udp/{}/9", s.ip));
        c.sh("ip neigh show nud reachable").contains(&s.ip).then_some(())
    });
    s.link_of().count_trips();
    Got::wait(get(&c, "a.bin", &out, &["--no-multicast", "--peer", &s.ip]), secs(20)).expect(0);
    // TCP, TLS, `Hello` with `Peers` and `List`, `Chunk`.
    assert_eq!(s.link_of().trips_to_data(), 4);
}

#[test]
fn a_path_that_loses_packets_is_slow_and_no_more() {
    let lan = long_lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 4 * MIB, 72);
    let s = lan.far_host("s", Distance { loss: 0.01, seed: 72, ..Distance::ms(60) });
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let server = Server::start(&s, &dir, &[]);
    // Queries are repeated, so a lost one does not matter.
    until("it is found", secs(10), || (peers(&c, &[]) == [server.id.as_str()]).then_some(()));
    let got = Got::wait(get(&c, "a.bin", &out, &[]), secs(25)).expect(0);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
    assert_eq!(got.done()["peers"].as_array().unwrap().len(), 1);
}

#[test]
fn many_small_files_take_few_round_trips() {
    let lan = long_lan_or_skip!();
    let dir = lan.new_dir("d");
    (0..2000).for_each(|i| sample(&dir.join(format!("set/{i:04}.bin")), 512, i + 1));
    let s = lan.far_host("s", Distance::ms(600));
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let _server = Server::start(&s, &dir, &[]);
    let got = Got::wait(get(&c, "set/", &out, &[]), secs(40)).expect(0);
    assert_eq!(got.bytes(), 2000 * 512);
    assert_same(&out.join("set/1999.bin"), &dir.join("set/1999.bin"));
    // 64 requests in flight would need 32 round trips, which is 19 s, and some at the begin.
    let seconds = got.done()["seconds"].as_f64().unwrap();
    assert!(seconds < 20.0, "2000 files took {seconds} s");
}

#[test]
fn a_near_and_a_far_holder_both_give() {
    let lan = long_lan_or_skip!();
    let dirs = copies(&lan, ["near", "far"], "a.bin", 80 * MIB, 73);
    let (near, far) = (lan.host("near", None), lan.far_host("far", Distance::ms(120)));
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let limit = ["--upload-limit", "8MB"];
    let servers = [Server::start(&near, &dirs[0], &limit), Server::start(&far, &dirs[1], &limit)];
    let got = Got::wait(get(&c, "a.bin", &out, &[]), secs(25)).expect(0);
    assert_same(&out.join("a.bin"), &dirs[0].join("a.bin"));
    // With one chunk on the way it gave a fifth.
    let share = got.bytes_from(&servers[1].id) as f64 / got.bytes() as f64;
    assert!(share > 0.27, "the far holder gave {share:.2}");
}

#[test]
fn exchange_leads_over_long_links_to_a_holder() {
    let lan = long_lan_or_skip!();
    let dirs = copies(&lan, ["d1", "d2"], "a.bin", 2 * MIB, 74);
    std::fs::remove_file(dirs[0].join("a.bin")).unwrap();
    let hosts = ["s1", "s2"].map(|name| lan.far_host(name, Distance::ms(150)));
    let first = Server::start(&hosts[0], &dirs[0], &["--no-multicast"]);
    let known = ["--no-multicast", "--peer", &hosts[0].ip];
    let second = Server::start(&hosts[1], &dirs[1], &known);
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    until("both are found through the first", secs(15), || {
        let found = peers(&c, &known);
        [&first, &second].iter().all(|s| found.contains(&s.id)).then_some(())
    });
    Got::wait(get(&c, "a.bin", &out, &known), secs(15)).expect(0);
    assert_same(&out.join("a.bin"), &dirs[1].join("a.bin"));
}

#[test]
fn a_far_holder_that_falls_silent_is_replaced() {
    let lan = long_lan_or_skip!();
    let dirs = copies(&lan, ["d1", "d2"], "a.bin", 24 * MIB, 75);
    let hosts = ["s1", "s2"].map(|name| lan.far_host(name, Distance { rate_mbit: Some(40), ..Distance::ms(100) }));
    let servers = [0, 1].map(|i| Server::start(&hosts[i], &dirs[i], &[]));
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let before = c.received();
    let running = get(&c, "a.bin", &out, &[]);
    c.wait_received(before, 4 * MIB, secs(15));
    hosts[0].link(false);
    let got = Got::wait(running, secs(25)).expect(0);
    assert_same(&out.join("a.bin"), &dirs[0].join("a.bin"));
    assert!(got.bytes_from(&servers[1].id) > 8 * MIB);
}

#[test]
fn a_server_beyond_reach_fails_at_the_timeout() {
    let lan = long_lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 24 * MIB, 76);
    let s = lan.far_host("s", Distance { rate_mbit: Some(40), ..Distance::ms(300) });
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let _server = Server::start(&s, &dir, &[]);
    let before = c.received();
    let running = get(&c, "a.bin", &out, &["--timeout", "3"]);
    c.wait_received(before, 2 * MIB, secs(15));
    s.link(false);
    let cut = Instant::now();
    Got::wait(running, secs(15)).expect(8);
    assert!(cut.elapsed() < secs(30), "it noticed after {:?}", cut.elapsed());
    assert!(!out.join("a.bin").exists());
}

#[test]
fn far_leechers_spare_the_seeder() {
    let lan = long_lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 12 * MIB, 77);
    let far = |name: String| lan.far_host(&name, Distance { rate_mbit: Some(40), ..Distance::ms(50) });
    let s = far("s".into());
    let leechers: Vec<_> = (1..=4).map(|i| far(format!("l{i}"))).collect();
    let _server = Server::start(&s, &dir, &[]);
    let before = s.sent();
    let start = |host: &Host| {
        let out = lan.new_dir(&format!("of-{}", host.name));
        (client(host, &["get", "a.bin", "--dir", out.to_str().unwrap(), "--seed", "30"]), out)
    };
    let mut running: Vec<_> = leechers.iter().map(start).collect();
    for (process, out) in &mut running {
        process.wait_line(&["\"event\":\"done\""], secs(25));
        assert_same(&out.join("a.bin"), &dir.join("a.bin"));
    }
    let copies = (s.sent() - before) as f64 / (12 * MIB) as f64;
    assert!((0.9..3.0).contains(&copies), "the seeder sent {copies:.2} copies to 4 leechers");
}
