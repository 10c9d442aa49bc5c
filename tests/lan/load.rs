//! What attackers and mere numbers cost a server, and what they cost the others. The sizes are small, so that all of it
//! takes seconds; with `LAN_LOAD=full` they are those of the bars, and the printed figures can be compared with them:
//! `LAN_LOAD=full cargo test --release --test lan load:: -- --nocapture --test-threads 1`.

use std::time::Instant;

use crate::attack::{attack, attack_only, file, size};
use crate::group::{Got, MIB, Server, copies, get, list};
use crate::net::{Host, Lan, secs, until};
use crate::process::Process;

/// A number of `/proc/PID/status`, such as `VmRSS` in KiB.
fn status(pid: u32, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

fn memory_mib(server: &Server) -> f64 {
    status(server.process.id(), "VmRSS") as f64 / 1024.0
}

fn descriptors(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.process.id())).unwrap().count()
}

/// Seconds of processor time that the server has used.
fn cpu_s(server: &Server) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", server.process.id())).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// A server with one file, a client and an enemy.
struct Stage {
    lan: Lan,
    server_host: Host,
    client: Host,
    enemy: Host,
    server: Server,
    outs: std::cell::Cell<usize>,
}

impl Stage {
    fn new(lan: Lan, len: u64, args: &[&str]) -> Self {
        let [dir] = copies(&lan, ["d"], "a.bin", len, 91);
        let (server_host, client, enemy) = (lan.host("s", None), lan.host("c", None), lan.host("enemy", None));
        let server = Server::start(&server_host, &dir, args);
        Stage { lan, server_host, client, enemy, server, outs: 0.into() }
    }

    fn attack(&self, what: &str) -> Process {
        attack(&self.enemy, &self.server_host, what)
    }

    /// Bytes a second at which the client fetches the file.
    fn rate(&self, args: &[&str]) -> f64 {
        self.outs.set(self.outs.get() + 1);
        let out = self.lan.new_dir(&format!("out-{}", self.outs.get()));
        let got = Got::wait(get(&self.client, "a.bin", &out, args), secs(60)).expect(0);
        std::fs::remove_dir_all(out).unwrap();
        got.bytes() as f64 / got.done()["seconds"].as_f64().unwrap()
    }

    /// The client's rate under `attack` by its rate alone: the medians of three, taken in turn.
    fn kept(&self, name: &str, what: &str) -> f64 {
        let mut rates = [vec![], vec![]];
        for _ in 0..3 {
            rates[0].push(self.rate(&[]));
            let attacker = self.attack(what);
            rates[1].push(self.rate(&[]));
            drop(attacker);
        }
        let [alone, attacked] = rates.map(|mut all| {
            all.sort_by(f64::total_cmp);
            all[1]
        });
        println!("{name}: {:.0} MB/s of {:.0} alone, {:.2}", attacked / 1e6, alone / 1e6, attacked / alone);
        attacked / alone
    }

    /// Fails unless the client keeps more than that part of its rate. The machine may do other things meanwhile, and not in
    /// each of three tries.
    #[track_caller]
    fn keeps(&self, name: &str, what: &str, part: f64) {
        assert!((0..3).any(|_| self.kept(name, what) > part), "{name}: less than {part} is left");
    }
}

#[test]
fn idle_sessions_take_little_and_a_newcomer_is_served_at_once() {
    let stage = Stage::new(lan_or_skip!(), MIB, &[]);
    let (count, before) = (size(500, 10_000), memory_mib(&stage.server));
    let _idle = stage.attack(&format!("idle {count} {}", count.div_ceil(60)));
    let memory = memory_mib(&stage.server);
    let begun = Instant::now();
    stage.rate(&[]);
    let took = begun.elapsed();
    println!("{count} idle sessions: {before:.0} -> {memory:.0} MiB; a new client was done after {took:?}");
    assert!(memory < before + 15.0 + count as f64 * 8.0 / 1024.0, "{memory} MiB");
    assert!(took < secs(20), "{took:?}");
}

/// With all seats taken every newcomer was refused, and told that no peer is reachable.
#[test]
fn a_full_server_makes_room_and_a_client_that_gets_none_is_told() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 92);
    let (s, c, enemy) = (lan.host("s", None), lan.host("c", None), lan.host("enemy", None));
    // Room for 128 connections, 32 of which may be handshakes.
    let script = "ulimit -n 256 && exec \"$@\"";
    let state = s.home().join("state");
    let server = ["-c", script, "-", crate::group::SERVER, "--dir", dir.to_str().unwrap(), "--state"];
    let mut server = s.spawn("bash", &[&server[..], &[state.to_str().unwrap()]].concat());
    server.wait_line(&["ready files="], secs(20));
    let _idle = attack(&enemy, &s, "idle 96 6");
    let out = lan.new_dir("out");
    Got::wait(get(&c, "a.bin", &out, &[]), secs(20)).expect(0);
    server.wait_line(&["disconnected", "idle while others need the slot"], secs(20));
}

#[test]
fn half_open_and_slow_connections_do_not_slow_others_down() {
    let stage = Stage::new(lan_or_skip!(), size(32, 512) as u64 * MIB, &[]);
    let (half, slow) = (size(200, 1000), size(100, 1000));
    stage.keeps("half-open", &format!("half-open {half} 16"), 0.1);
    let named = file(&list(&stage.client, &[])[0]);
    stage.keeps("slow readers", &format!("slow {slow} 16 {named}"), 0.1);
}

/// The bytes that one connection and fifty of another address get of a server within a few seconds.
fn shares(link_mbit: Option<u32>, args: &[&str]) -> Option<[f64; 2]> {
    let lan = Lan::new().ok()?;
    let [dir] = copies(&lan, ["d"], "a.bin", 4 * MIB, 93);
    let (s, one, many) = (lan.host("s", link_mbit), lan.host("one", None), lan.host("many", None));
    let _server = Server::start(&s, &dir, args);
    let (named, seconds) = (file(&list(&one, &[])[0]), size(4, 10));
    let mut both = [(&one, 1), (&many, 50)].map(|(host, n)| attack(host, &s, &format!("fetch {n} {seconds} {named}")));
    Some(both.each_mut().map(|process| {
        let line = process.wait_line(&["fetched bytes="], secs(60));
        line.split('=').next_back().unwrap().parse::<f64>().unwrap()
    }))
}

/// Where the server divides its rate. On a link that is full, the systems divide it among all connections.
#[test]
fn fifty_connections_get_no_more_than_one_of_a_limited_rate() {
    drop(lan_or_skip!());
    for (name, link, args) in [("limited rate", None, &["--upload-limit", "20MB"][..]), ("full link", Some(200), &[])] {
        let [one, many] = shares(link, args).unwrap();
        println!("{name}: one connection {:.1} MB, fifty {:.1} MB: {:.2}", one / 1e6, many / 1e6, one / many);
        // By connections it would be 0.02.
        assert!(link.is_some() || one / many > 0.2, "{one} and {many}");
    }
}

#[test]
fn garbage_and_forgery_cost_little() {
    let stage = Stage::new(lan_or_skip!(), MIB, &[]);
    for (kind, count, seconds) in
        [("garbage", size(10_000, 100_000), size(2, 10)), ("forged", size(4000, 100_000), size(2, 10))]
    {
        let before = cpu_s(&stage.server);
        let mut process = stage.attack(&format!("{kind} {count} {seconds}"));
        process.wait_line(&["done"], secs(120));
        let cpu = cpu_s(&stage.server) - before;
        println!("{count} {kind} datagrams in {seconds} s: {cpu:.2} s of processor time");
        stage.rate(&[]);
    }
    assert!(memory_mib(&stage.server) < 100.0);
}

#[test]
fn a_connection_that_trickles_leaves_the_others_their_rate() {
    for closed in [false, true] {
        let lan = lan_or_skip!();
        // Nobody but the client is trusted, and the enemy gets no further than the handshake.
        let (len, key) = (size(32, 512) as u64 * MIB, lan.dir().join("client.pem"));
        let stage = if closed {
            let keygen = |args: &[&str]| {
                let host = lan.lonely_host("keys");
                host.spawn(crate::group::KEYGEN, args).wait(secs(10)).expect(0).out.pop().unwrap()
            };
            keygen(&["--out", key.to_str().unwrap()]);
            let trusted = lan.dir().join("trusted");
            std::fs::write(&trusted, keygen(&["--show", key.to_str().unwrap()])).unwrap();
            let trusted = trusted.to_str().unwrap().to_string();
            let stage = Stage::new(lan, len, &["--trusted", &trusted]);
            std::fs::create_dir_all(stage.client.home().join("state-client")).unwrap();
            std::fs::copy(&key, stage.client.home().join("state-client/key.pem")).unwrap();
            stage
        } else {
            Stage::new(lan, len, &[])
        };
        let intervals: &[u32] = if size(0, 1) == 1 { &[200, 500, 1000, 2000] } else { &[1000] };
        for us in intervals {
            for (count, phase) in [(1, "before"), (2, "before"), (1, "after"), (2, "after")] {
                if closed && phase == "after" {
                    continue;
                }
                let group = if closed { "closed" } else { "open" };
                let name = format!("{count} that send a byte each {us} us {phase} Hello, {group} group");
                stage.keeps(&name, &format!("trickle {count} {phase} {us}"), 0.1);
            }
        }
    }
}

#[test]
fn work_without_bytes_leaves_the_others_their_rate() {
    let stage = Stage::new(lan_or_skip!(), size(32, 512) as u64 * MIB, &[]);
    for kind in ["locate", "glob"] {
        stage.keeps(&format!("{kind} on 8 connections"), &format!("{kind} 8"), 0.05);
    }
}

/// Joins, leaves, changes and fetches; what the server holds after the first rounds is what it holds after the last.
fn a_day(rounds: usize) {
    let stage = Stage::new(lan_or_skip!(), MIB, &[]);
    let dir = stage.lan.dir().join("d");
    let mut held = vec![];
    for round in 0..rounds {
        std::fs::write(dir.join("changing"), format!("{round}").repeat(10_000)).unwrap();
        std::fs::write(dir.join(format!("new-{round}")), format!("{round}")).unwrap();
        if let Some(old) = round.checked_sub(3) {
            std::fs::remove_file(dir.join(format!("new-{old}"))).unwrap();
        }
        until("the change is offered", secs(20), || {
            list(&stage.client, &[]).iter().any(|f| f["path"] == format!("new-{round}")).then_some(())
        });
        let _members = attack_only(&stage.enemy, &stage.server_host, "members 20 5 1");
        let _idle = stage.attack("idle 20 5");
        stage.rate(&[]);
        held.push((memory_mib(&stage.server), descriptors(&stage.server)));
    }
    let (first, last) = (held[rounds / 2], held[rounds - 1]);
    println!("{rounds} rounds, (MiB, descriptors): {:?}, half way {first:?}, at the end {last:?}", held[0]);
    assert!(last.0 < first.0 * 1.2 + 4.0, "memory grows: {held:?}");
    assert!(last.1 <= first.1 + 24, "descriptors grow: {held:?}");
}

#[test]
fn what_a_server_holds_does_not_grow_with_what_comes_and_goes() {
    a_day(8);
}

#[test]
#[ignore = "takes an hour"]
fn a_day_in_an_hour() {
    a_day(1500);
}
