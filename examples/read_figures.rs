//! How long it takes to read a file while it is fetched, beside fetching it: two nodes of this process over loopback.
//!
//!     cargo run --release --example read_figures -- [MIB [RUNS]]
//!
//! The files lie below the temporary directory (`TMPDIR`). The runs of all rows alternate; the table has their medians.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use gpb::testing::Lan;
use gpb::{FoundFile, Node, Share, State};

const MIB: usize = 1 << 20;
const ROWS: [&str; 5] = ["get", "open, read in order", "first byte", "first byte after a seek", "16 MiB to memory"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mib: usize = args.next().map_or(Ok(256), |arg| arg.parse())?;
    let runs: usize = args.next().map_or(Ok(7), |arg| arg.parse())?;

    let lan = Lan::new()?;
    let [large, small] = [mib * MIB, 16 * MIB].map(content);
    let server = lan.sharing(&[("large", &large), ("small", &small)])?;
    let found = server.catalogue().len();
    println!("{mib} MiB, {runs} runs, {found} files shared");
    let mut times: Vec<[Duration; ROWS.len()]> = Vec::new();
    for _ in 0..runs {
        let files = |node: &Node| node.find(["large", "small"], Duration::from_secs(20));
        let node = lan.node()?;
        let found = files(&node)?;
        let begun = Instant::now();
        node.fetch(&found[0])?.wait()?;
        let get = begun.elapsed();
        drop(node);

        let node = lan.node()?;
        let found = files(&node)?;
        let begun = Instant::now();
        let mut file = node.open(&found[0])?;
        let mut buffer = vec![0; MIB];
        let mut read = file.read(&mut buffer)?;
        let first = begun.elapsed();
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                len => read += len,
            }
        }
        let in_order = begun.elapsed();
        if read != large.len() {
            return Err(format!("{read} bytes").into());
        }
        drop((file, node));

        let node = lan.node()?;
        let seek = seek(&node, &files(&node)?[0], &large)?;
        drop(node);

        let memory = Node::builder().state(State::Memory).share(Share::Nothing).bind("127.0.0.1");
        let node = lan.start(memory)?;
        let found = files(&node)?;
        let begun = Instant::now();
        let mut bytes = Vec::with_capacity(small.len());
        node.open(&found[1])?.read_to_end(&mut bytes)?;
        let to_memory = begun.elapsed();
        if bytes != small {
            return Err("other bytes".into());
        }
        times.push([get, in_order, first, seek, to_memory]);
    }
    for (row, name) in ROWS.iter().enumerate() {
        println!("{name:24} {:8.1} ms", median(&times, row) * 1e3);
    }
    println!("open over get            {:8.2}", median(&times, 1) / median(&times, 0));
    Ok(())
}

/// The time from a seek to the middle to its first byte, while the beginning is read ahead.
fn seek(node: &Node, found: &FoundFile, content: &[u8]) -> Result<Duration, Box<dyn Error>> {
    let mut file = node.open(found)?;
    let mut bytes = vec![0; 4 * MIB];
    file.read_exact(&mut bytes)?;
    let middle = content.len() / 2;
    let begun = Instant::now();
    file.seek(SeekFrom::Start(middle as u64))?;
    file.read_exact(&mut bytes[..1])?;
    let time = begun.elapsed();
    if bytes[0] == content[middle] { Ok(time) } else { Err("another byte".into()) }
}

/// Bytes that do not repeat.
fn content(len: usize) -> Vec<u8> {
    let mut state = len as u64 + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len / 8).flat_map(|_| next()).collect()
}

fn median(times: &[[Duration; ROWS.len()]], row: usize) -> f64 {
    let mut all: Vec<f64> = times.iter().map(|times| times[row].as_secs_f64()).collect();
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}
