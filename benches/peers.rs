//! What it costs to know many peers: a table of tables, each size in a process of its own, since memory that was used
//! before would not be seen to be used again.
//!
//! Time is for one peer, but for `list` and `tell`, which are one call: all peers, and one page for another node.
#![allow(clippy::expect_used, clippy::print_stdout)]

use gpb::internals::identity::NodeId;
use std::hint::black_box;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use gpb::internals::identity::{Keypair, PeerId};
use gpb::internals::limits::PEERS_PER_ANSWER_MAX;
use gpb::internals::proto::{Announce, Flags, SignedAnnounce};
use gpb::internals::swarm::{PeerTable, Received, Via};

const SIZES: [u32; 4] = [10, 100, 1_000, 10_000];
/// Peers in all tables of one size together, so that the small ones can be weighed.
const PEERS: u32 = 20_000;
/// Calls of which the mean is told.
const CALLS: u32 = 100;
/// Given to a process that measures one size.
const SIZE_VARIABLE: &str = "GPB_BENCH_PEERS";
const NOW_MS: u64 = 1_800_000_000_000;
const TTL: Duration = Duration::from_secs(30);

fn main() {
    if let Some(size) = std::env::var(SIZE_VARIABLE).ok().and_then(|s| s.parse().ok()) {
        return measure(size);
    }
    println!("| peers | join | announce again | list | tell | expire | bytes a peer | KiB |");
    println!("|---|---|---|---|---|---|---|---|");
    for size in SIZES {
        let program = std::env::current_exe().expect("where this program is");
        let ended = Command::new(program).env(SIZE_VARIABLE, size.to_string()).status().expect("a process");
        assert!(ended.success(), "{size} peers: {ended}");
    }
}

/// Prints the row of tables of `size` peers.
fn measure(size: u32) {
    let sealer = Keypair::generate();
    // The table believes its caller that signatures are good, so one key seals for all made-up peers.
    let sealed = |n: u32, seq: u64| {
        let announce = said(n, seq);
        (SignedAnnounce::seal(&announce, &sealer), announce)
    };
    let count = PEERS / size;
    let mut first: Vec<_> = (0..count).map(|_| (0..size).map(|n| sealed(n, NOW_MS)).collect::<Vec<_>>()).collect();
    let again: Vec<_> = (0..size).map(|n| sealed(n, NOW_MS + 1)).collect();
    let sealed_len = first[0][0].0.as_bytes().len();
    let now = Instant::now();
    let mut tables: Vec<_> = (0..count).map(|_| PeerTable::new(NodeId::new(PeerId([0xff; 32]), 1))).collect();

    let before = anonymous_len();
    let join = each(PEERS, || {
        for (table, announces) in tables.iter_mut().zip(&first) {
            hear(table, announces, now);
        }
    });
    // The announces themselves were there before and stay in the tables.
    let len = (anonymous_len() - before) / PEERS as usize + sealed_len;
    first.clear();
    let table = &mut tables[0];
    let again_time = each(size, || hear(table, &again, now));
    assert_eq!(table.len(), size as usize);
    let list = each(CALLS, || (0..CALLS).for_each(|_| drop(black_box(table.peers()))));
    let to = address(size + 1).ip();
    let tell = each(CALLS, || (0..CALLS).for_each(|_| drop(black_box(table.hints(to, PEERS_PER_ANSWER_MAX)))));
    let expire = each(size, || assert_eq!(table.expire(now + TTL).len(), size as usize));
    let kib = len * size as usize / 1024;
    println!("| {size} | {join:.1?} | {again_time:.1?} | {list:.1?} | {tell:.1?} | {expire:.1?} | {len} | {kib} |");
}

fn hear(table: &mut PeerTable, announces: &[(SignedAnnounce, Announce)], now: Instant) {
    for (n, (signed, announce)) in (0..).zip(announces) {
        let (addr, via) = (address(n), Via::Datagram);
        table.upsert(&Received { signed, announce, addr, via, unix_ms: NOW_MS, now }).expect("a new announce");
    }
}

/// How long one of `count` takes that `run` does.
fn each(count: u32, run: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    run();
    begun.elapsed() / count
}

fn said(n: u32, seq: u64) -> Announce {
    Announce {
        version: Announce::VERSION,
        network: "gpb".into(),
        peer: PeerId(std::array::from_fn(|i| (n.wrapping_mul(0x9e37_79b1) >> (i % 4 * 8)) as u8)),
        instance: 7,
        seq,
        ttl_s: TTL.as_secs() as u16,
        port: 27420,
        revision: 1,
        flags: Flags::default(),
    }
}

fn address(n: u32) -> SocketAddr {
    SocketAddr::from(((0x0a00_0001 + n).to_be_bytes(), 27420))
}

/// Memory of this process that no file is behind, in bytes.
fn anonymous_len() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}
