//! A host and a connection.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use gpb::internals::content::{Bitfield, FileId, Geometry};
use gpb::internals::proto::{
    ChunkHeader, ChunkRef, Delta, FramePrefix, Holding, PeerHint, Problem, Request, Status, encode_body,
};
use gpb::internals::swarm::{
    AnswerStep, Arrivals, Dial, DownloadState, Fetchers, Mesh, PeerHandle, Requester, Sent, UploadGate, UploadKind,
    UploadSlot,
};

use super::Config;
use super::link::BLOCK_LEN;

/// What is wrong with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Slow,
    Leaves,
    Freezes,
    Lies,
}

/// A host.
pub(super) struct Peer {
    pub(super) fault: Fault,
    pub(super) up: u64,
    pub(super) down: u64,
    pub(super) here: bool,
    pub(super) frozen: bool,

    /// Connections with something to send, in turn.
    pub(super) sending: VecDeque<u32>,
    pub(super) is_sending: bool,
    /// Until when its downlink is taken.
    pub(super) receives_until_ns: u64,

    pub(super) gate: UploadGate<u32>,
    pub(super) sent: Sent,
    pub(super) fetchers: Fetchers,
    pub(super) retries: bool,
    pub(super) incoming: Vec<u32>,

    pub(super) has: Has,
    pub(super) download: Option<DownloadState<()>>,
    pub(super) mesh: Mesh,
    /// Hosts by their handle in the download.
    pub(super) hosts: Vec<u32>,
    pub(super) known: HashMap<u32, PeerHandle>,
    /// Bytes of chunks by handle.
    pub(super) read: Vec<u64>,
    /// Its connection to each host, by handle.
    pub(super) outgoing: Vec<Option<u32>>,
    pub(super) idle: Vec<u32>,
    /// When its connections without work look for some, and when all are looked at, next.
    pub(super) look_ns: u64,
    pub(super) drive_ns: u64,
    pub(super) done_ns: Option<u64>,

    /// When it came, and what had been sent to the group by then in packets and bytes.
    pub(super) joined: (u64, u64, u64),
    /// When a byte of a chunk came last.
    pub(super) progress_ns: u64,
    pub(super) announces_ns: u64,
    pub(super) tally: Tally,
}

/// What a host has of the file.
pub(super) enum Has {
    Nothing,
    Some(Arrivals),
    All,
}

/// What a host did, as far as it is counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Bytes of chunks that it sent.
    pub(super) given: u64,
    /// Bytes of chunks that it received in vain.
    pub(super) wasted: u64,
    /// Bytes that were not chunks, sent and received on its own connections.
    pub(super) control: u64,
    pub(super) messages: u64,
    /// Bytes and packets of announces that it received.
    pub(super) announces: u64,
    pub(super) packets: u64,
    pub(super) dials: u32,
}

/// A connection; only the dialer asks.
pub(super) struct Conn {
    pub(super) generation: u32,
    pub(super) state: State,
    pub(super) client: u32,
    pub(super) server: u32,
    pub(super) dial: Dial,

    pub(super) requester: Requester<()>,
    /// What the answer is that comes first.
    pub(super) step: Option<AnswerStep<()>>,
    pub(super) surplus: bool,
    pub(super) is_idle: bool,
    /// When something last came.
    pub(super) heard_ns: u64,

    pub(super) requests: VecDeque<Ask>,
    /// Requests that have arrived.
    pub(super) arrived: usize,
    /// Whether it is in the line for an upload.
    pub(super) waits: bool,
    pub(super) slot: Option<UploadSlot>,
    /// What is left to send of the present answer.
    pub(super) out: u64,
    /// Time that anything takes from one end to the other.
    pub(super) delay: Duration,
    /// Blocks on the way, and their bytes.
    pub(super) unacknowledged: u32,
    pub(super) flying: u64,
    /// Bytes that may be on a long way at once.
    pub(super) congestion: f64,
    /// No block was lost yet.
    pub(super) slow_start: bool,
    pub(super) is_queued: bool,
    /// Nothing comes before.
    pub(super) held_up_ns: u64,
    /// Answers of which something is still to come.
    pub(super) answers: VecDeque<Answer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Dialing,
    Open,
    Closed,
}

/// A request, as the holder sees it.
pub(super) enum Ask {
    Chunk { index: u32, since: u64 },
    Any(Vec<u32>),
    Have(u64),
    Layer,
    Peers,
    Locate,
}

/// An answer that is on its way.
pub(super) struct Answer {
    pub(super) told: Told,
    /// Bytes of it that are not a chunk's and are still to come.
    pub(super) head: u64,
    /// Bytes of the chunk that are still to come.
    pub(super) body: u64,
    pub(super) begun: bool,
}

pub(super) enum Told {
    Chunk(u32, Option<Delta>),
    NotHeld,
    Have(Option<Delta>),
    Layer,
    Busy(Duration),
    Stale,
    Peers(Vec<u32>),
    Located(bool, bool),
}

impl Ask {
    /// What is to be sent for it, if it needs an upload slot.
    pub(super) fn upload(&self) -> Option<UploadKind> {
        match self {
            Ask::Chunk { .. } => Some(UploadKind::Chunk),
            Ask::Any(_) => Some(UploadKind::AnyOf),
            Ask::Layer => Some(UploadKind::Layer),
            _ => None,
        }
    }

    /// The requests in whole frames, each with its length.
    pub(super) fn all_in(mut frames: &[u8]) -> Vec<(Self, u64)> {
        let mut asks = Vec::new();
        while let Some((prefix, rest)) = frames.split_first_chunk() {
            let prefix = FramePrefix::from_bytes(*prefix);
            let (header, rest) = rest.split_at(prefix.header_len.into());
            let (body, rest) = rest.split_at(prefix.body_len as usize);
            let request = Request::decode(prefix.kind, header, body).unwrap();
            asks.push((Self::of(request), (frames.len() - rest.len()) as u64));
            frames = rest;
        }
        asks
    }

    fn of(request: Request) -> Self {
        match request {
            Request::Chunk(ask) => Ask::Chunk { index: ask.chunk.index, since: ask.since },
            Request::AnyOf(_, chunks) => Ask::Any(chunks),
            Request::Have(since) => Ask::Have(since.revision),
            Request::Layer(_) => Ask::Layer,
            Request::Peers(_) => Ask::Peers,
            _ => Ask::Locate,
        }
    }
}

impl Answer {
    /// Status, header and length of the body, which is `len` where that is all that is asked of it.
    pub(super) fn head(&self, file: FileId, len: usize) -> (Status, Vec<u8>, usize) {
        match &self.told {
            Told::Chunk(index, news) => {
                let chunk = ChunkRef { file, index: *index };
                (Status::Ok, encode_body(&ChunkHeader { chunk, new_haves: news.clone() }), len)
            }
            Told::Busy(wait) => {
                let problem = Problem { retry_after_ms: wait.as_millis() as u32, ..Problem::default() };
                (Status::Busy, encode_body(&problem), 0)
            }
            Told::NotHeld => (Status::NotFound, Vec::new(), 0),
            Told::Stale | Told::Have(None) => (Status::NotModified, Vec::new(), 0),
            _ => (Status::Ok, Vec::new(), len),
        }
    }

    /// The body, if it is a short one.
    pub(super) fn body(&self) -> Vec<u8> {
        match &self.told {
            Told::Have(Some(delta)) => encode_body(delta),
            // The number of a host stands for its announce.
            Told::Peers(hosts) => {
                let hint = |host: &u32| PeerHint { announce: host.to_le_bytes().to_vec(), addrs: Vec::new() };
                encode_body(&hosts.iter().map(hint).collect::<Vec<_>>())
            }
            Told::Located(true, true) => encode_body(&vec![Holding::Whole]),
            Told::Located(true, false) => encode_body(&vec![Holding::Partial(1)]),
            _ => encode_body(&vec![Holding::None]),
        }
    }
}

impl Peer {
    pub(super) fn new(no: u32, fault: Fault, config: &Config, id: FileId, seed: u64, base: Instant) -> Self {
        let has = if no < config.holders || fault == Fault::Lies { Has::All } else { Has::Nothing };
        let fetches = matches!(has, Has::Nothing);
        let up = if fault == Fault::Slow { config.up / 10 } else { config.up };
        Peer {
            fault,
            up,
            down: config.down,
            here: false,
            frozen: false,
            sending: VecDeque::new(),
            is_sending: false,
            receives_until_ns: 0,
            gate: UploadGate::default(),
            sent: Sent::default(),
            fetchers: Fetchers::default(),
            retries: false,
            incoming: Vec::new(),
            has,
            download: fetches.then(|| {
                let mut download = DownloadState::new(&[id], seed);
                download.checked(0, false);
                download
            }),
            mesh: Mesh::new(seed ^ 1, base),
            hosts: Vec::new(),
            known: HashMap::new(),
            read: Vec::new(),
            outgoing: Vec::new(),
            idle: Vec::new(),
            look_ns: u64::MAX,
            drive_ns: u64::MAX,
            done_ns: None,
            joined: (0, 0, 0),
            progress_ns: 0,
            announces_ns: u64::MAX,
            tally: Tally::default(),
        }
    }

    /// Whether it is to have the file in the end.
    pub(super) fn is_to_fetch(&self) -> bool {
        self.download.is_some() && !matches!(self.fault, Fault::Leaves | Fault::Freezes)
    }

    pub(super) fn fetches(&self) -> bool {
        self.here && !self.frozen && self.download.is_some() && self.done_ns.is_none()
    }

    /// Takes note of a chunk. True if half of the file is there now.
    pub(super) fn takes(&mut self, geometry: &Geometry, index: u32) -> bool {
        let (Has::Some(arrivals), Some(chunk)) = (&mut self.has, geometry.chunk(index)) else { return false };
        arrivals.insert(chunk);
        arrivals.have().count() * 2 == geometry.chunk_count()
    }

    pub(super) fn opens(&mut self, chunks: u32) {
        self.has = Has::Some(Arrivals::new(Bitfield::empty(chunks)));
    }
}

impl Conn {
    pub(super) fn new(
        generation: u32,
        (client, server): (u32, u32),
        dial: Dial,
        delay: Duration,
        (now, now_ns): (Instant, u64),
    ) -> Self {
        Conn {
            generation,
            state: State::Dialing,
            client,
            server,
            dial,
            requester: Requester::new(dial.peer, dial.locate, delay * 2, now),
            step: None,
            surplus: false,
            is_idle: false,
            heard_ns: now_ns,
            requests: VecDeque::new(),
            arrived: 0,
            waits: false,
            slot: None,
            out: 0,
            delay,
            unacknowledged: 0,
            flying: 0,
            congestion: BLOCK_LEN as f64,
            slow_start: true,
            is_queued: false,
            held_up_ns: 0,
            answers: VecDeque::new(),
        }
    }
}
