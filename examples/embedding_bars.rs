//! What the handles of a node cost, measured in this process over loopback and printed as a table.
//!
//!     cargo run --release --example embedding_bars
//!
//! Files lie in the temporary directory, so that `TMPDIR=/dev/shm` leaves out the time of the disk.
//! What needs a thousand peers is printed by
//! `cargo test --lib a_look_at_a_large_group -- --nocapture`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use gpb::testing::Lan;
use gpb::{Everything, Keypair, Node, Share, State, Trust};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const WAIT: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

fn main() -> Outcome {
    println!("| what | measured | bound |\n|---|---|---|");
    one_file_for_eight_threads()?;
    overlapping_directories()?;
    cancel_while_searching()?;
    removed_key()?;
    publish()?;
    listed_files()?;
    memory_to_file()?;
    start_and_drop()?;
    Ok(())
}

fn row(what: &str, measured: impl std::fmt::Display, bound: &str) {
    println!("| {what} | {measured} | {bound} |");
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// The median of some times, and the least of them.
fn median(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let [least, middle] = [0, times.len() / 2].map(|at| times.get(at).copied().unwrap_or_default());
    format!("{} (least {})", ms(middle), ms(least))
}

/// Bytes that no two seeds have in common.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

fn dir_of(node: &Node) -> PathBuf {
    node.config().dir.clone().unwrap_or_default()
}

fn one_file_for_eight_threads() -> Outcome {
    let lan = Lan::new()?;
    let _server = lan.sharing(&[("x.bin", &noise(32 * MIB, 1))])?;
    let node = lan.node()?;
    let (gate, dir) = (Barrier::new(8), dir_of(&node));
    let fetch = |n: usize| {
        gate.wait();
        node.get("x.bin").into_dir(dir.join(n.to_string())).start().ok()?.wait().ok()
    };
    let reports: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || fetch(n))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    });
    let fetched: u64 = reports.iter().map(|report| report.bytes).sum();
    let share = fetched as f64 / (32 * MIB) as f64;
    row("8 threads, one file: succeed; bytes fetched / size", format!("{}; {share:.2}", reports.len()), "8; 1.0");
    Ok(())
}

fn overlapping_directories() -> Outcome {
    let lan = Lan::new()?;
    let _server = lan.sharing(&[("d/y.bin", &noise(4 * MIB, 2)), ("d/z.bin", &noise(4 * MIB, 3))])?;
    let node = lan.node()?;
    let (one, both) = (node.fetch("d/y.bin")?, node.fetch("d")?);
    let files = [one.wait()?.files, both.wait()?.files];
    row("overlapping directories in one node: files", format!("{files:?}"), "[1, 2]");
    Ok(())
}

fn cancel_while_searching() -> Outcome {
    let lan = Lan::new()?;
    let node = lan.node()?;
    let mut times = Vec::new();
    for _ in 0..20 {
        let fetch = node.fetch("nowhere")?;
        thread::sleep(Duration::from_millis(5));
        let begin = Instant::now();
        fetch.cancel();
        let _ = fetch.wait();
        times.push(begin.elapsed());
    }
    row("cancel while searching ends after", median(times), "10 ms");
    Ok(())
}

/// The time of the last byte that the server sends is read every 0.2 ms.
fn removed_key() -> Outcome {
    let (mut last, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let (lan, key) = (Lan::new()?, Keypair::generate());
        let trust = Trust::keys([key.peer_id()])?;
        let sharing = lan.sharing(&[("big.bin", &noise(24 * MIB, 4))])?;
        let dir = dir_of(&sharing);
        drop(sharing);
        let server = lan.builder().dir(&dir).share(Share::Directory).trust(trust.clone()).upload_limit(20_000_000);
        let server = lan.start(server)?;
        server.wait_ready(WAIT);
        let client = lan.start(lan.builder().key(key.clone()))?;
        let fetch = client.fetch("big.bin")?;
        while fetch.progress().bytes_fetched < MIB as u64 && !fetch.wait_for(Duration::from_millis(1)) {}
        let sent = || server.stats().traffic.bytes_sent;
        let begin = Instant::now();
        trust.remove(&key.peer_id())?;
        let (mut seen, mut last_byte) = (sent(), Duration::ZERO);
        let end = loop {
            let now = sent();
            if now != seen {
                (seen, last_byte) = (now, begin.elapsed());
            }
            if fetch.wait_for(Duration::from_micros(200)) {
                break begin.elapsed();
            }
        };
        last.push(last_byte);
        ends.push(end);
    }
    row("key removed in code: last byte sent after", median(last), "50 ms");
    row("key removed in code: the cut fetch ends after", median(ends), "1000 ms");
    Ok(())
}

fn publish() -> Outcome {
    let lan = Lan::new()?;
    let (node, other) = (lan.sharing(&[])?, lan.node()?);
    let (dir, mut times) = (dir_of(&node), Vec::new());
    while other.known_peers().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    for n in 0..11 {
        std::fs::write(dir.join("new.bin"), noise(MIB, 100 + n))?;
        let begin = Instant::now();
        let id = node.publish("new.bin")?;
        let found = other.find(id, WAIT)?;
        times.push(begin.elapsed());
        assert_eq!(found.len(), 1);
    }
    row("publish of 1 MiB until another node finds it", median(times), "30 ms");
    Ok(())
}

fn listed_files() -> Outcome {
    let mut times = Vec::new();
    for share in [Share::Nothing, Share::Fetched] {
        for _ in 0..5 {
            let lan = Lan::new()?;
            let bodies: Vec<(String, Vec<u8>)> = (0..50).map(|i| (format!("d/{i:02}"), noise(1000, i))).collect();
            let shared: Vec<(&str, &[u8])> = bodies.iter().map(|(path, body)| (path.as_str(), &body[..])).collect();
            let _server = lan.sharing(&shared)?;
            let node = lan.start(lan.builder().share(share))?;
            let files = node.list("d")?;
            let begin = Instant::now();
            for file in &files {
                assert_eq!(node.fetch(file)?.wait()?.fetched[0].out, file.path);
            }
            times.push(begin.elapsed());
        }
    }
    row("50 listed files one by one", median(times), "150 ms");
    Ok(())
}

/// Offered from memory by a node without a directory, until it is whole on the disk of another one.
fn memory_to_file() -> Outcome {
    let mut times = Vec::new();
    for n in 0..5 {
        let lan = Lan::new()?;
        let guest = || lan.start(Node::builder().state(State::Memory).bind("127.0.0.1"));
        let (node, other) = (guest()?, guest()?);
        let home = std::env::temp_dir().join(format!("embedding-bars-{}", std::process::id()));
        while other.known_peers().is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        let bytes: Arc<[u8]> = noise(16 * MIB, n).into();
        let begin = Instant::now();
        let offered = node.offer("x.bin", bytes.clone())?;
        other.fetch_to(offered.wait()?, home.join("x.bin"))?.wait()?;
        times.push(begin.elapsed());
        assert!(std::fs::read(home.join("x.bin"))? == *bytes);
        std::fs::remove_dir_all(&home)?;
    }
    row("16 MiB from memory to a file, no directory", median(times), "100 ms");
    Ok(())
}

fn start_and_drop() -> Outcome {
    let lan = Lan::new()?;
    let (mut starts, mut drops) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let builder = Node::builder().state(State::Memory).bind("127.0.0.1");
        let begin = Instant::now();
        let node = lan.start(builder)?;
        starts.push(begin.elapsed());
        let _ = node.list_within(Everything, Duration::ZERO)?;
        let begin = Instant::now();
        drop(node);
        drops.push(begin.elapsed());
    }
    row("start of a node", median(starts), "2 ms");
    row("drop of a node", median(drops), "10 ms");
    Ok(())
}
