//! Limits on what is sent and fetched. They are about time, so these tests measure it.

use std::time::Instant;

use crate::group::{Got, MIB, Server, assert_same, copies, get};
use crate::net::{Host, Lan, secs};

/// Fetches 60 MB with these options on the sides and returns bytes a second.
fn rate(lan: &Lan, s: &Host, c: &Host, server: &[&str], client: &[&str]) -> f64 {
    let [dir] = copies(lan, ["d"], "a.bin", 60_000_000, 51);
    let out = lan.new_dir("out");
    let _server = Server::start(s, &dir, server);
    let got = Got::wait(get(c, "a.bin", &out, client), secs(30)).expect(0);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
    let seconds = got.done()["seconds"].as_f64().unwrap();
    assert!(seconds <= got.ended.took.as_secs_f64());
    60e6 / seconds
}

#[track_caller]
fn assert_near(rate: f64, wanted: f64) {
    // A loaded machine is slower now and then; none is to be faster.
    assert!((0.7..=1.1).contains(&(rate / wanted)), "{:.2} MB/s instead of {:.2}", rate / 1e6, wanted / 1e6);
}

#[test]
fn an_upload_limit_holds() {
    let lan = lan_or_skip!();
    let (s, c) = (lan.host("s", None), lan.host("c", None));
    assert_near(rate(&lan, &s, &c, &["--upload-limit", "10MB"], &[]), 10e6);
}

#[test]
fn a_download_limit_holds() {
    let lan = lan_or_skip!();
    let (s, c) = (lan.host("s", None), lan.host("c", None));
    assert_near(rate(&lan, &s, &c, &[], &["--download-limit", "10MB"]), 10e6);
}

#[test]
fn a_limit_holds_on_loopback() {
    let lan = lan_or_skip!();
    let h = lan.lonely_host("h");
    assert_near(rate(&lan, &h, &h, &["--port", "0", "--upload-limit", "10MB"], &[]), 10e6);
}

#[test]
fn a_limit_is_shared_by_all_who_fetch() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", 24 * MIB, 52);
    let (s, c1, c2) = (lan.host("s", None), lan.host("c1", None), lan.host("c2", None));
    let _server = Server::start(&s, &dir, &["--upload-limit", "8MiB"]);
    let outs = ["o1", "o2"].map(|name| lan.new_dir(name));
    // Both fetch from the server alone: neither shares.
    let started = Instant::now();
    let both = [get(&c1, "a.bin", &outs[0], &[]), get(&c2, "a.bin", &outs[1], &[])];
    let took = both.map(|p| Got::wait(p, secs(20)).expect(0).done()["seconds"].as_f64().unwrap());
    let all = started.elapsed().as_secs_f64();
    assert!((5.4..=10.0).contains(&all), "48 MiB at 8 MiB/s took {all:.2} s");
    // Alone it would have taken half as long; served alternately, both end at about the same time.
    assert!(took[0].min(took[1]) > 4.0, "one of the two was starved: {took:?} s");
}
