//! Made-up members of the group, with real announces from many addresses.

use std::time::Instant;

use crate::attack::{attack, size};
use crate::group::{Got, MIB, Server, copies, get};
use crate::net::{Host, Lan, secs};

struct Stage {
    lan: Lan,
    server_host: Host,
    enemy: Host,
    server: Server,
}

impl Stage {
    fn new(lan: Lan) -> Self {
        let [dir] = copies(&lan, ["d"], "a.bin", MIB, 95);
        let (server_host, enemy) = (lan.host("s", None), lan.host("enemy", None));
        let server = Server::start(&server_host, &dir, &[]);
        Stage { lan, server_host, enemy, server }
    }

    /// New clients, one after the other; each is to find the server. Prints what was found.
    ///
    /// They have as long as a loaded machine needs; a server that does not answer is found by none of them.
    fn fetch(&self, name: &str, tries: usize) {
        let mut took = vec![];
        for n in 0..tries {
            let (client, out) =
                (self.lan.host(&format!("{name}-c{n}"), None), self.lan.new_dir(&format!("{name}-o{n}")));
            let begun = Instant::now();
            let got = Got::wait(get(&client, "a.bin", &out, &["--timeout", "20"]), secs(30));
            took.push((got.ended.code, begun.elapsed().as_secs_f64()));
        }
        let found = took.iter().filter(|(code, s)| *code == Some(0) && *s < 15.0).count();
        println!("{name}: {found} of {tries} new clients were done within 15 s: {took:.1?}");
        assert_eq!(found, tries, "{name}: {took:?}");
    }

    /// Packets a second that the server sends while no client asks.
    fn quiet_rate(&self) -> f64 {
        let (before, begun) = (self.server_host.packets_sent(), Instant::now());
        std::thread::sleep(secs(4));
        (self.server_host.packets_sent() - before) as f64 / begun.elapsed().as_secs_f64()
    }
}

/// 16,000 made-up members from 400 addresses made a server answer one query in 500, and announce itself every 19 minutes.
#[test]
fn a_new_client_finds_a_server_among_made_up_members() {
    let stage = Stage::new(lan_or_skip!());
    let count = size(4000, 16_000);
    let mut attacker = attack(&stage.enemy, &stage.server_host, &format!("members {count} 400 6"));
    attacker.wait_line(&["done"], secs(60));
    stage.fetch("many", size(3, 10));
    let joined = stage.server.process.count_lines(&["peer joined"]);
    assert!(joined >= 100, "the announces do not arrive: {joined} joined");
    let rate = stage.quiet_rate();
    println!("after {count} members from 400 addresses the server sends {rate:.1} packets a second");
    assert!(rate < 50.0, "{rate}");
}

/// From one address, slowly: 1,039 datagrams in 52 seconds are within the limit that a source has.
#[test]
fn a_new_client_finds_a_server_whose_neighbour_makes_members_up() {
    let stage = Stage::new(lan_or_skip!());
    let (count, seconds) = (size(200, 1039), size(10, 52));
    let mut attacker = attack(&stage.enemy, &stage.server_host, &format!("members {count} 1 {seconds}"));
    attacker.wait_line(&["done"], secs(120));
    stage.fetch("slow", size(2, 10));
}

/// 25 valid announces a second from two addresses kept the group busy, in which answers to it were left out.
#[test]
fn a_new_client_finds_a_server_while_two_hosts_announce_without_end() {
    let stage = Stage::new(lan_or_skip!());
    let _attacker = attack(&stage.enemy, &stage.server_host, "announces 30 2");
    let rate = stage.quiet_rate();
    stage.fetch("endless", size(3, 10));
    println!("meanwhile the server sends {rate:.1} packets a second");
    assert!(rate < 50.0, "{rate}");
}

/// Cause: peers were asked in the order in which they came, by 64 threads, for three seconds each. Effect: made-up members at
/// hundreds of addresses, which take connections and say nothing, held a new client up until it gave up. Mend: in a crowd each
/// address gets one short try, and what was silent shares half of the threads.
#[test]
fn a_client_finds_a_server_behind_members_that_never_answer() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 95);
    let (server_host, enemy) = (lan.host("s", None), lan.host("enemy", None));
    let (client, out) = (lan.host("c", None), lan.new_dir("out"));
    let _attacker = attack(&enemy, &client, "mute 400 400");
    let mut getting = get(&client, "a.bin", &out, &["--timeout", "60", "--log-level", "info"]);
    getting.wait_line(&["unreachable"], secs(20));
    let _server = Server::start(&server_host, &dir, &[]);
    let begun = Instant::now();
    Got::wait(getting, secs(60)).expect(0);
    println!("done {:.1?} after the server was there", begun.elapsed());
}
