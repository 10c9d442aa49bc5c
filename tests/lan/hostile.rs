//! Garbage and forgery on the ports that everybody on the network reaches.

use gpb::internals::identity::Keypair;
use gpb::internals::proto::{Announce, Flags, SignedAnnounce};

use crate::group::{Got, MIB, Server, assert_same, copies, get, peers};
use crate::net::{Host, secs};

#[test]
fn random_bytes_on_the_tcp_port_do_no_harm() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 4 * MIB, 71);
    let (s, c, enemy) = (lan.host("s", None), lan.host("c", None), lan.host("enemy", None));
    let mut server = Server::start(&s, &dir, &[]);
    // Noise, what looks like the start of a TLS record, plain HTTP, connections that say nothing or vanish.
    enemy.sh(&format!(
        "for i in 1 2 3 4 5 6 7 8 9 10; do \
           (head -c 100000 /dev/urandom > /dev/tcp/{ip}/27420) 2>/dev/null || true; \
           (printf '\\x16\\x03\\x01\\xff\\xff'; head -c 70000 /dev/urandom) 2>/dev/null > /dev/tcp/{ip}/27420 || true; \
           printf 'GET / HTTP/1.1\\r\\n\\r\\n' > /dev/tcp/{ip}/27420; \
           : > /dev/tcp/{ip}/27420; \
         done",
        ip = s.ip
    ));
    // A hundred that stay and say nothing.
    let idle = format!("for i in $(seq 100); do exec {{fd}}<>/dev/tcp/{}/27420; done; echo open; exec sleep 600", s.ip);
    let mut idle = enemy.spawn("bash", &["-c", &idle]);
    idle.wait_line(&["open"], secs(10));
    let out = lan.new_dir("out");
    Got::wait(get(&c, "a.bin", &out, &[]), secs(15)).expect(0);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
    assert!(server.process.is_running());
}

/// Sends the content of files to the group and to 27420 of `victim`, for as long as the process lives.
fn flood(enemy: &Host, files: &[String], victim: &Host) -> crate::process::Process {
    enemy.sh("ip route add 224.0.0.0/4 dev eth0");
    let mut script = String::from("trap '' PIPE; while :; do ");
    for file in files {
        for ip in ["239.255.71.80", &victim.ip] {
            // One write is one datagram.
            script.push_str(&format!("dd if={file} bs=64k count=1 status=none > /dev/udp/{ip}/27420; "));
        }
    }
    script.push_str("echo sent; sleep 0.02; done 2>/dev/null");
    let mut process = enemy.spawn("bash", &["-c", &script]);
    process.wait_line(&["sent"], secs(5));
    process
}

#[test]
fn forged_announces_and_garbage_change_nothing() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 4 * MIB, 72);
    let (s, c, enemy) = (lan.host("s", None), lan.host("c", None), lan.host("enemy", None));
    let mut server = Server::start(&s, &dir, &[]);

    let now_ms = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let phantom = Keypair::generate();
    let announce = |peer, flags| Announce {
        version: 1,
        network: "gpb".into(),
        peer,
        instance: 7,
        seq: now_ms + 1000,
        ttl_s: 30,
        port: 27420,
        revision: 1,
        flags,
    };
    let victim = server.id.parse().unwrap();
    let altered = {
        let mut bytes =
            SignedAnnounce::seal(&announce(phantom.peer_id(), Flags::default()), &phantom).as_bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let packets = [
        altered,
        // Somebody else says goodbye, and moves, in the server's name.
        SignedAnnounce::seal(&announce(victim, Flags::GOODBYE), &phantom).as_bytes().to_vec(),
        SignedAnnounce::seal(&announce(victim, Flags::default()), &phantom).as_bytes().to_vec(),
        vec![0xff; 1400],
        vec![0],
        (0..512u32).map(|i| (i * 37 % 251) as u8).collect(),
    ];
    let files: Vec<String> = packets
        .iter()
        .enumerate()
        .map(|(i, bytes)| {
            let path = lan.dir().join(format!("packet-{i}"));
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_string()
        })
        .collect();
    let _flood = flood(&enemy, &files, &s);

    for _ in 0..3 {
        assert_eq!(peers(&c, &[]), [server.id.as_str()]);
    }
    let out = lan.new_dir("out");
    Got::wait(get(&c, "a.bin", &out, &[]), secs(15)).expect(0);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
    assert!(server.process.is_running());
}
