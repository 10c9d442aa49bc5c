//! What choosing costs a chunk, in a file of usual and of the greatest number of chunks.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gpb::internals::content::Bitfield;
use gpb::internals::limits::CHUNKS_MAX;
use gpb::internals::swarm::{ChunkPicker, PeerHandle};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const CHUNKS: [u32; 2] = [4096, CHUNKS_MAX as u32];
const PEERS: u16 = 16;
/// Requests that each peer has in flight.
const WINDOW: usize = 4;
const SEED: u64 = 1;

/// Some half of all chunks, others for every peer, so that some chunks are rare.
fn half(chunks: u32, peer: u16) -> Bitfield {
    let mut bytes = vec![0; chunks as usize / 8];
    StdRng::seed_from_u64(peer.into()).fill_bytes(&mut bytes);
    Bitfield::from_bytes(&bytes, chunks).unwrap()
}

fn with_peers(chunks: u32, complete: bool) -> ChunkPicker {
    let mut picker = ChunkPicker::new(chunks, SEED);
    for peer in 0..PEERS {
        if complete {
            picker.add_complete(PeerHandle(peer));
        } else {
            picker.add_partial(PeerHandle(peer), &half(chunks, peer));
        }
    }
    picker
}

/// The oldest request is answered and the peer that is free asked for the next chunk. What was completed is wanted
/// again, so that the picker stays as it is at the beginning.
fn cycles(c: &mut Criterion) {
    let mut group = c.benchmark_group("acquire and complete");
    for chunks in CHUNKS {
        for (name, complete) in [("complete peers", true), ("partial peers", false)] {
            let mut picker = with_peers(chunks, complete);
            let mut now = Instant::now();
            let mut in_flight: VecDeque<_> = (0..PEERS)
                .cycle()
                .map(PeerHandle)
                .take(WINDOW * usize::from(PEERS))
                .map(|peer| (picker.acquire(peer, now).unwrap(), peer))
                .collect();
            group.bench_function(BenchmarkId::new(name, chunks), |b| {
                b.iter(|| {
                    now += Duration::from_millis(1);
                    let (chunk, peer) = in_flight.pop_front().unwrap();
                    picker.complete(chunk, peer, now);
                    picker.want(chunk);
                    in_flight.push_back((picker.acquire(peer, now).unwrap(), peer));
                });
            });
        }
    }
    group.finish();
}

/// A peer tells what it holds: half of all chunks, while others hold other halves.
fn partial_peers(c: &mut Criterion) {
    let mut group = c.benchmark_group("add a partial peer");
    for chunks in CHUNKS {
        let mut picker = with_peers(chunks, false);
        let (peer, holds) = (PeerHandle(PEERS), half(chunks, PEERS));
        group.bench_function(BenchmarkId::from_parameter(chunks), |b| {
            b.iter(|| {
                picker.add_partial(peer, &holds);
                picker.remove_peer(peer);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, cycles, partial_peers);
criterion_main!(benches);
