//! Simulates groups that fetch one file from one peer, and prints how long it takes and what it costs.
//!
//! `cargo run --release --example simulate_swarm -- [PEERS] [MIB] [SEED] [RTT_MS] [MBIT]` simulates one group with equal
//! links, of 1 Gbit/s and a round trip of 0.2 ms if these are left out; without arguments those of 10, 100 and 1,000
//! peers with 1 GiB and one of 10,000 with 256 MiB, which takes a quarter of an hour and 4 GB. See the module for what is
//! simulated.
#![allow(unreachable_pub, clippy::panic, clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)]

#[path = "../tests/it/sim/mod.rs"]
mod sim;

use std::time::{Duration, Instant};

use sim::{Config, HEADING, run};

fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let groups: Vec<(u32, u64)> = match args[..] {
        [] => vec![(10, 1024), (100, 1024), (1000, 1024), (10_000, 256)],
        [peers] => vec![(peers as u32, 1024)],
        [peers, mib, ..] => vec![(peers as u32, mib)],
    };
    let seed = args.get(2).copied().unwrap_or(1);
    println!("seed {seed}\n{HEADING}");
    for (peers, mib) in groups {
        let begun = Instant::now();
        let mut config = Config { seed, ..Config::equal(peers, mib << 20) };
        if let Some(&round_trip_ms) = args.get(3) {
            config.delay = Duration::from_millis(round_trip_ms) / 2;
        }
        if let Some(&mbit) = args.get(4) {
            (config.up, config.down) = (mbit * 125_000, mbit * 125_000);
        }
        let outcome = run(&config);
        println!("{outcome}");
        eprintln!("{} steps in {:.1} s", outcome.events, begun.elapsed().as_secs_f64());
    }
}
