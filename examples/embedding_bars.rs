//! What the handles of a node cost, measured in this process over loopback and printed as a table.
//!
//!     cargo run --release --example embedding_bars
//!
//! Files lie in the temporary directory, so that `TMPDIR=/dev/shm` leaves out the time of the disk.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::{Duration, Instant};

use gpb::testing::Lan;
use gpb::{Node, Share};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const WAIT: Duration = Duration::from_secs(20);

fn main() -> Outcome {
    println!("| what | measured | bound |\n|---|---|---|");
    listed_files()?;
    Ok(())
}

fn row(what: &str, measured: impl std::fmt::Display, bound: &str) {
    println!("| {what} | {measured} | {bound} |");
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Bytes that no two files have in common.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn listed_files() -> Outcome {
    let mut times = Vec::new();
    for share in [Share::Nothing, Share::Fetched] {
        for _ in 0..5 {
            let lan = Lan::new()?;
            let bodies: Vec<(String, Vec<u8>)> = (0..50).map(|i| (format!("d/{i:02}"), noise(1000, i))).collect();
            let shared: Vec<(&str, &[u8])> = bodies.iter().map(|(path, body)| (path.as_str(), &body[..])).collect();
            let _server = lan.sharing(&shared)?;
            let node: Node = lan.start(lan.builder().share(share))?;
            let files = node.list_within("d", WAIT)?;
            let begin = Instant::now();
            for file in &files {
                let report = node.fetch(file)?.wait()?;
                assert_eq!(report.fetched[0].out, file.path);
            }
            times.push(begin.elapsed());
        }
    }
    let best = times.iter().min().copied().unwrap_or_default();
    row("50 listed files one by one", format!("{} (best {})", ms(median(times)), ms(best)), "150 ms");
    Ok(())
}
