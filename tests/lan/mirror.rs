//! Servers that keep copies of what one of them shares.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use crate::group::{Got, MIB, Server, assert_same, get, list, sample};
use crate::net::{secs, until};

/// What is new at one server is on all three soon, and still there when that one is gone.
#[test]
fn a_new_file_is_on_three_servers_soon_and_outlives_the_first() {
    let lan = lan_or_skip!();
    let hosts = ["s1", "s2", "s3"].map(|name| lan.host(name, None));
    let dirs: [PathBuf; 3] = ["d1", "d2", "d3"].map(|name| lan.new_dir(name));
    sample(&dirs[0].join("old/a.bin"), 4 * MIB, 301);
    let first = Server::start(&hosts[0], &dirs[0], &[]);
    let args = ["--mirror", "**", "--from", &first.id, "--quota", "1GB"];
    let mirrors = [1, 2].map(|n| Server::start(&hosts[n], &dirs[n], &args));
    let is_at = |n: usize, name: &str| fs::read(dirs[n].join(name)).ok() == fs::read(dirs[0].join(name)).ok();
    until("what was there is mirrored", secs(20), || (is_at(1, "old/a.bin") && is_at(2, "old/a.bin")).then_some(()));
    let mut took = Vec::new();
    for n in 0..3 {
        let name = format!("new-{n}.bin");
        sample(&dirs[0].join(&name), MIB, 310 + n);
        let begun = Instant::now();
        until("the new file is everywhere", secs(20), || (is_at(1, &name) && is_at(2, &name)).then_some(()));
        took.push(begun.elapsed().as_secs_f64());
    }
    println!("seconds until a new file of 1 MiB was on all three servers: {took:.2?}");
    assert!(took.iter().all(|seconds| *seconds < 20.0), "{took:?}");
    let (client, out) = (lan.host("c", None), lan.new_dir("out"));
    until("all are listed by all", secs(10), || {
        let listed = list(&client, &[]);
        (listed.len() == 4 && listed.iter().all(|file| file["holders"] == 3)).then_some(())
    });
    first.process.kill();
    Got::wait(get(&client, "**", &out, &["--timeout", "10"]), secs(30)).expect(0);
    for name in ["old/a.bin", "new-0.bin", "new-1.bin", "new-2.bin"] {
        assert_same(&out.join(name), &dirs[0].join(name));
    }
    drop(mirrors);
}
