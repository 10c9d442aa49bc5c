//! What a request and its answer cost beside the bytes of the chunk: from value to frame and back.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gpb::internals::content::{Digest, FileId, RelPath, Root};
use gpb::internals::limits::{LIST_PAGE_LEN, LOCATE_FILES_MAX};
use gpb::internals::proto::{
    ChunkAsk, ChunkHeader, ChunkRef, FRAME_PREFIX_LEN, FramePrefix, Kind, Listed, ListedAs, ListedFile, PageHead,
    Request, Status, decode_body, decode_header, encode_body, encode_frame, encode_head, encode_request,
};

fn file(n: usize) -> FileId {
    FileId { root: Root(Digest([n as u8; 32])), len: 1 << 30 }
}

/// A frame as the receiver has it: the prefix, the header, the body.
fn split(frame: &[u8]) -> (FramePrefix, &[u8], &[u8]) {
    let (prefix, rest) = frame.split_first_chunk::<FRAME_PREFIX_LEN>().unwrap();
    let prefix = FramePrefix::from_bytes(*prefix);
    let (header, body) = rest.split_at(prefix.header_len as usize);
    (prefix, header, body)
}

fn requests(c: &mut Criterion) {
    let chunk = Request::Chunk(ChunkAsk { chunk: ChunkRef { file: file(1), index: 4095 }, since: 0 });
    let locate = Request::Locate((0..LOCATE_FILES_MAX).map(file).collect());
    for (name, request) in [("request for a chunk", chunk), ("request for 512 files", locate)] {
        let mut frame = Vec::new();
        encode_request(&request, &mut frame);
        let mut group = c.benchmark_group(name);
        group.bench_function("encode", |b| {
            let mut out = Vec::with_capacity(frame.len());
            b.iter(|| {
                out.clear();
                encode_request(black_box(&request), &mut out);
            });
        });
        group.bench_function("decode", |b| {
            b.iter(|| {
                let (prefix, header, body) = split(black_box(&frame));
                prefix.check_request().unwrap();
                Request::decode(prefix.kind, header, body).unwrap()
            });
        });
        group.finish();
    }
}

/// The head of an answer with a chunk; its body goes from the disk to the socket without being framed.
fn chunk_answers(c: &mut Criterion) {
    let chunk = ChunkRef { file: file(1), index: 4095 };
    let (given, body_len) = (ChunkHeader { chunk, new_haves: None }, (256 << 10) + 1);
    let mut frame = Vec::new();
    encode_head(Kind::Chunk, Status::Ok, &given, body_len, &mut frame);
    let mut group = c.benchmark_group("answer with a chunk");
    group.bench_function("encode", |b| {
        let mut out = Vec::with_capacity(frame.len());
        b.iter(|| {
            out.clear();
            encode_head(Kind::Chunk, Status::Ok, black_box(&given), body_len, &mut out);
        });
    });
    group.bench_function("decode", |b| {
        b.iter(|| {
            let (prefix, header, _) = split(black_box(&frame));
            prefix.check_response(body_len as usize).unwrap();
            decode_header::<ChunkHeader>(header, "Chunk").unwrap()
        });
    });
    group.finish();
}

/// A full page of what is offered.
fn page_answers(c: &mut Criterion) {
    let files: Vec<Listed> = (0..4000)
        .map(|n| Listed {
            path: RelPath::new(&format!("images/{:02}/{n:06}.png", n / 100)).unwrap(),
            what: ListedAs::File(ListedFile::plain(file(n))),
        })
        .collect();
    let head = PageHead { revision: 7, more: true, complete: true, unnamed: 0 };
    let mut frame = Vec::new();
    encode_frame(Kind::List, Status::Ok, &head, &encode_body(&files), &mut frame);
    assert!(frame.len() <= LIST_PAGE_LEN);
    let mut group = c.benchmark_group("answer with 4,000 names");
    group.bench_function("encode", |b| {
        let mut out = Vec::with_capacity(frame.len());
        b.iter(|| {
            out.clear();
            encode_frame(Kind::List, Status::Ok, &head, &encode_body(black_box(&files)), &mut out);
        });
    });
    group.bench_function("decode", |b| {
        b.iter(|| {
            let (prefix, header, body) = split(black_box(&frame));
            prefix.check_response(LIST_PAGE_LEN).unwrap();
            let head: PageHead = decode_header(header, "List").unwrap();
            (head, decode_body::<Vec<Listed>>(body, "List").unwrap())
        });
    });
    group.finish();
}

criterion_group!(benches, requests, chunk_answers, page_answers);
criterion_main!(benches);
