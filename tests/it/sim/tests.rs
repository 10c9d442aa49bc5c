//! What a group does, at sizes that are simulated in moments. Every outcome is the same each time, so the thresholds are
//! close to what comes out.

use std::time::Duration;

use super::{Config, HEADING, Outcome, run};

const MIB: u64 = 1 << 20;

/// Runs, and prints seed and outcome for the case that something is not as it should be.
fn simulate(config: &Config) -> Outcome {
    let outcome = run(config);
    println!("seed {}\n{HEADING}\n{outcome}", config.seed);
    outcome
}

#[test]
fn the_same_seed_has_the_same_outcome() {
    let config = Config { loss: 0.001, join: Duration::from_millis(300), ..Config::equal(30, 16 * MIB) };
    let first = simulate(&config);
    assert_eq!(first, simulate(&config));
    assert_ne!(first, simulate(&Config { seed: 2, ..config }));
}

#[test]
fn one_copy_becomes_many_while_it_is_still_being_sent() {
    for (peers, mib, ratio, copies) in [(1, 64, 1.05, 1.01), (10, 64, 1.25, 1.3), (100, 64, 1.9, 2.1)] {
        let outcome = simulate(&Config::equal(peers, mib * MIB));
        assert_eq!(outcome.done, peers);
        assert!(outcome.ratio() <= ratio && outcome.copies <= copies && outcome.waste < 0.05, "{outcome}");
        assert!(outcome.control < 0.01 && outcome.nodes as u32 == peers + 1, "{outcome}");
    }
}

#[test]
fn who_leaves_freezes_or_lies_keeps_nobody_from_the_file() {
    let base = Config::equal(40, 16 * MIB);
    let honest = simulate(&base);
    let left = simulate(&Config { leavers: 8, ..base.clone() });
    assert!(left.done == 32 && left.last_s < 2.0 * honest.last_s, "{left}");
    let frozen = simulate(&Config { freezers: 8, ..base.clone() });
    assert!(frozen.done == 32 && frozen.last_s < honest.last_s + 2.0, "{frozen}");
    let lied = simulate(&Config { liars: 4, ..base.clone() });
    assert!(lied.done == 36 && lied.last_s < 2.0 * honest.last_s, "{lied}");
    // Each liar wastes a chunk or two of each peer, of 64.
    assert!(lied.waste < 4.0 * 2.0 / 64.0 + 0.05, "{lied}");
}

#[test]
fn slow_peers_do_not_slow_down_the_others_much() {
    let base = Config::equal(40, 32 * MIB);
    let (equal, slow) = (simulate(&base), simulate(&Config { slow: 10, ..base.clone() }));
    assert!(slow.done == 40 && slow.mean_s < 2.0 * equal.mean_s, "{slow}");
}

#[test]
fn a_group_that_comes_and_goes_still_gets_the_file() {
    let stay = Some(Duration::from_millis(200));
    let outcome = simulate(&Config { join: Duration::from_secs(2), stay, loss: 0.001, ..Config::equal(60, 16 * MIB) });
    assert!(outcome.done == 60 && outcome.last_s < 4.0, "{outcome}");
    assert!(outcome.copies < 20.0, "{outcome}");
}
