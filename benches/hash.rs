//! From bytes to a root, as a server hashes a file and a client verifies a chunk, beside `sha2` over the same bytes as
//! one message.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gpb::internals::content::merkle;
use gpb::internals::limits::BLOCK_LEN;
use sha2::{Digest, Sha256};

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash");
    for len in [16 << 10, 64 << 10, 256 << 10, 2 << 20] {
        let bytes: Vec<u8> = (0..len).map(|i: usize| (i * 7 + i / 251) as u8).collect();
        let height = (len / BLOCK_LEN).trailing_zeros();
        group.throughput(Throughput::Bytes(len as u64));
        let size = format!("{} KiB", len >> 10);
        group.bench_function(BenchmarkId::new("chunk digest", &size), |b| {
            b.iter(|| merkle::chunk_digest(black_box(&bytes), height));
        });
        group.bench_function(BenchmarkId::new("sha2", &size), |b| b.iter(|| Sha256::digest(black_box(&bytes))));
    }
    group.finish();
}

/// Files far below a block, alone and side by side.
fn small_files(c: &mut Criterion) {
    let contents = vec![vec![0xa5; 4 << 10]; 64];
    let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    let mut group = c.benchmark_group("64 files of 4 KiB");
    group.throughput(Throughput::Bytes(64 * (4 << 10)));
    group.bench_function("together", |b| b.iter(|| merkle::roots_of(black_box(&contents))));
    group.bench_function("one by one", |b| {
        b.iter(|| black_box(&contents).iter().map(|c| merkle::root_of_bytes(c)).collect::<Vec<_>>());
    });
    group.finish();
}

criterion_group!(benches, chunks, small_files);
criterion_main!(benches);
