//! What a heard announce costs: signing, checking, and taking it into tables of several sizes.
#![allow(clippy::unwrap_used)]

use gpb::internals::identity::NodeId;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use gpb::internals::identity::{Keypair, PeerId};
use gpb::internals::proto::{Announce, Flags, SignedAnnounce};
use gpb::internals::swarm::{PeerTable, Received, Via};

const NOW_MS: u64 = 1_800_000_000_000;
const PEERS: [u32; 3] = [10, 1_000, 10_000];

fn said(peer: PeerId, seq: u64) -> Announce {
    Announce {
        version: Announce::VERSION,
        network: "gpb".into(),
        peer,
        instance: 7,
        seq,
        ttl_s: 30,
        port: 27420,
        revision: 1,
        flags: Flags::default(),
    }
}

fn seal_and_open(c: &mut Criterion) {
    let keypair = Keypair::generate();
    let announce = said(keypair.peer_id(), NOW_MS);
    let sealed = SignedAnnounce::seal(&announce, &keypair);
    let mut group = c.benchmark_group("announce");
    group.bench_function("seal", |b| b.iter(|| SignedAnnounce::seal(black_box(&announce), &keypair)));
    group.bench_function("parse", |b| b.iter(|| SignedAnnounce::parse(black_box(sealed.as_bytes())).unwrap()));
    group.bench_function("open", |b| b.iter(|| SignedAnnounce::open(black_box(sealed.as_bytes())).unwrap()));
    group.finish();
}

/// The table believes its caller that signatures are good, so one key seals for all made-up peers.
fn peer(n: u32) -> (PeerId, SocketAddr) {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    (PeerId(id), SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)), 27420))
}

fn received<'a>(
    signed: &'a SignedAnnounce,
    announce: &'a Announce,
    addr: SocketAddr,
    unix_ms: u64,
    now: Instant,
) -> Received<'a> {
    Received { signed, announce, addr, via: Via::Datagram, unix_ms, now }
}

fn into_the_table(c: &mut Criterion) {
    let keypair = Keypair::generate();
    let now = Instant::now();
    let mut group = c.benchmark_group("peer table");
    for peers in PEERS {
        let mut table = PeerTable::new(NodeId::new(PeerId([0xff; 32]), 1));
        for n in 1..=peers {
            let (id, addr) = peer(n);
            let announce = said(id, NOW_MS);
            let signed = SignedAnnounce::seal(&announce, &keypair);
            table.upsert(&received(&signed, &announce, addr, NOW_MS, now)).unwrap();
        }
        assert_eq!(table.len(), peers as usize);

        let known = said(peer(1).0, NOW_MS);
        let signed = SignedAnnounce::seal(&known, &keypair);
        group.bench_function(BenchmarkId::new("screen what is known", peers), |b| {
            b.iter(|| table.screen(black_box(&signed), black_box(&known)).unwrap());
        });

        let mut heard = 0_u32;
        let mut next = || {
            heard += 1;
            let (id, addr) = peer(1 + heard % peers);
            let announce = said(id, NOW_MS + u64::from(heard));
            (SignedAnnounce::seal(&announce, &keypair), announce, addr)
        };
        group.bench_function(BenchmarkId::new("refresh", peers), |b| {
            b.iter_batched(
                &mut next,
                |(signed, announce, addr)| {
                    table.upsert(&received(&signed, &announce, addr, announce.seq, now)).unwrap()
                },
                BatchSize::SmallInput,
            );
        });

        let mut heard = 0_u32;
        group.bench_function(BenchmarkId::new("join and leave", peers), |b| {
            b.iter_batched(
                || {
                    heard += 1;
                    let (id, addr) = peer(1_000_000 + heard);
                    let hello = said(id, NOW_MS);
                    let bye = Announce { flags: Flags::GOODBYE, ..said(id, NOW_MS + 1) };
                    let sealed = [&hello, &bye].map(|a| SignedAnnounce::seal(a, &keypair));
                    (sealed, hello, bye, addr)
                },
                |(sealed, hello, bye, addr)| {
                    table.upsert(&received(&sealed[0], &hello, addr, NOW_MS, now)).unwrap();
                    table.upsert(&received(&sealed[1], &bye, addr, NOW_MS, now)).unwrap()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, seal_and_open, into_the_table);
criterion_main!(benches);
