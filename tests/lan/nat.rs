//! Hosts that nobody can dial: behind routers with NAT, which let sessions out and none in.

use std::fs;

use crate::group::{Got, MIB, Server, assert_same, client, copies};
use crate::net::{secs, until};

/// The other hosts know the address of the meeting point alone, and take no option besides.
#[test]
fn a_server_behind_nat_serves_a_client_outside() {
    let lan = nat_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 8 * MIB, 301);
    let (meeting, outside) = (lan.host("meeting", None), lan.host("outside", None));
    let mut known = Server::start(&meeting, &lan.new_dir("empty"), &[]);
    for drops in [false, true] {
        let inside = lan.host_behind_nat(&format!("inside-{drops}"), drops);
        let server = Server::start(&inside, &dir, &["--peer", &meeting.ip]);
        known.process.wait_line(&["may be asked", &server.id], secs(20));
        let out = lan.new_dir(&format!("out-{drops}"));
        let args = ["get", "a.bin", "--dir", out.to_str().unwrap(), "--peer", &meeting.ip];
        let got = Got::wait(client(&outside, &args), secs(30)).expect(0);
        assert_eq!(got.bytes_from(&server.id), 8 * MIB);
        assert_same(&out.join("a.bin"), &dir.join("a.bin"));
    }
}

/// A laptop leaves the network of the others, where they reached it, for one behind a NAT.
#[test]
#[ignore = "takes a minute"]
fn a_server_that_moves_behind_nat_goes_on_serving() {
    let lan = nat_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 8 * MIB, 303);
    let [meeting, outside, laptop, router] =
        ["meeting", "outside", "laptop", "router"].map(|name| lan.host(name, None));
    for args in [&[][..], &["--no-multicast"]] {
        let mut known = Server::start(&meeting, &lan.new_dir("empty"), args);
        let server = Server::start(&laptop, &dir, &[&["--peer", &meeting.ip], args].concat());
        let kept = meeting.home().join("state-server-empty/peers.known");
        until("the meeting point has reached it", secs(90), || {
            fs::read_to_string(&kept).is_ok_and(|text| text.contains(&server.id)).then_some(())
        });
        laptop.sh("ip link set eth0 down");
        router.translate_for(&laptop, "eth1", true);
        known.process.wait_line(&["may be asked", &server.id], secs(60));
        let out = lan.new_dir(if args.is_empty() { "out" } else { "out-alone" });
        let get = ["get", "a.bin", "--dir", out.to_str().unwrap(), "--peer", &meeting.ip];
        let got = Got::wait(client(&outside, &[&get[..], args].concat()), secs(30)).expect(0);
        assert_eq!(got.bytes_from(&server.id), 8 * MIB);
        drop((known, server));
        fs::remove_file(&kept).unwrap();
        router.sh("ip link del eth1; nft delete table ip nat; nft delete table ip wall");
        laptop.sh(&format!("ip link set eth0 up; ip addr replace {}/24 brd + dev eth0", laptop.ip));
    }
}

/// A firewall on the same link lets multicast in, and no connections.
#[test]
#[ignore = "takes a minute"]
fn a_server_whose_firewall_lets_datagrams_in_alone_serves() {
    let lan = nat_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 8 * MIB, 304);
    let [shut, other, c] = ["shut", "other", "c"].map(|name| lan.host(name, None));
    shut.sh("set -e; nft add table inet wall; nft add chain inet wall in '{ type filter hook input priority 0; }'; \
         nft add rule inet wall in meta l4proto tcp ct state new iifname eth0 drop");
    let server = Server::start(&shut, &dir, &[]);
    let mut other = Server::start(&other, &lan.new_dir("empty"), &[]);
    other.process.wait_line(&["may be asked", &server.id], secs(120));
    let out = lan.new_dir("out");
    let got = Got::wait(client(&c, &["get", "a.bin", "--dir", out.to_str().unwrap()]), secs(30)).expect(0);
    assert_eq!(got.bytes_from(&server.id), 8 * MIB);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
}

/// Cause: the error told nothing of a server that was heard. Effect: its user looked for it, and not at its firewall. Mend: the
/// address that was tried is named.
#[test]
fn a_server_that_is_heard_and_not_reached_is_named() {
    let lan = nat_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 305);
    let [shut, c] = ["shut", "c"].map(|name| lan.host(name, None));
    shut.sh("set -e; nft add table inet wall; nft add chain inet wall in '{ type filter hook input priority 0; }'; \
         nft add rule inet wall in meta l4proto tcp ct state new iifname eth0 drop");
    let server = Server::start(&shut, &dir, &[]);
    let args = ["get", "a.bin", "--timeout", "4", "--no-share", "--dir", lan.dir().to_str().unwrap()];
    until("its address is named", secs(30), || {
        let got = Got::wait(client(&c, &args), secs(20)).expect(3);
        let message = got.event("error")["message"].as_str().unwrap();
        (message.contains("was not reached at ") && message.contains(server.port())).then_some(())
    });
}

/// Two clients cannot reach each other, nor can anybody else reach them; what each has, the third takes and passes on.
#[test]
fn clients_behind_different_nats_gain_from_a_third() {
    let lan = nat_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 16 * MIB, 302);
    let (origin, third) = (lan.host("origin", None), lan.host("third", None));
    let server = Server::start(&origin, &dir, &["--upload-limit", "3MB"]);
    let hosts = [lan.host_behind_nat("one", true), lan.host_behind_nat("two", false), third];
    let running: Vec<_> = hosts
        .iter()
        .map(|host| {
            let out = lan.new_dir(&host.name);
            client(host, &["get", "a.bin", "--dir", out.to_str().unwrap(), "--peer", &origin.ip])
        })
        .collect();
    let got: Vec<Got> = running.into_iter().map(|process| Got::wait(process, secs(60)).expect(0)).collect();
    for (host, got) in hosts.iter().zip(&got) {
        assert_same(&lan.dir().join(&host.name).join("a.bin"), &dir.join("a.bin"));
        let from_others = got.bytes() - got.bytes_from(&server.id);
        println!("{}: {} of {} MiB from other clients", host.name, from_others / MIB, got.bytes() / MIB);
        assert!(from_others > MIB, "{}", got.done());
    }
    assert!(fs::metadata(lan.dir().join("third/a.bin")).is_ok());
}
