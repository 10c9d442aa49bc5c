//! What a group does, at sizes that are simulated in moments.

use std::time::Duration;

use super::{Config, run};

#[test]
fn a_hundred_peers() {
    let outcome = run(&Config::equal(100, 64 << 20));
    println!("{}\n{outcome}", super::HEADING);
    assert_eq!(outcome.done, 100);
    let _ = Duration::ZERO;
}
