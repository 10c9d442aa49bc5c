//! Decisions about peers and chunks: which nodes are there, what to ask of which peer, which peer
//! to serve.
//!
//! Pure: time is an argument; tier 3. [`membership`] knows the nodes, [`download`] decides what is
//! asked of them, [`upload`] decides what they are given, and [`mirror`] what copies are kept.

mod event;
mod known_peer;
mod random;

pub mod download;
pub mod membership;
pub mod mirror;
pub mod upload;

pub use download::{
    Answer, AnswerError, AnswerPace, AnswerStep, AnyOfTask, Arrival, ChunkCame, ChunkPicker, ChunkRequest, ChunkState,
    ChunkTask, Chunks, Completed, ConnectionEnd, ConnectionScaler, ConnectionTurn, Dial, DownloadState, Extent, FileNo,
    Haves, HavesError, Head, LayerTask, Mesh, Meter, PeerHandle, ReadAhead, ReadOrder, ReadWindow, Reputation,
    Requester, RoundTrip, ScalerAdvice, SmallArrival, SmallTask, Task, Window,
};
pub use event::Event;
pub use known_peer::KnownPeer;
pub(crate) use membership::REMEMBERED_TEXT_LEN_MAX;
pub use membership::{
    AnnounceSchedule, ContactSource, DhtLookups, DhtPublishing, DhtReach, DistantPeer, Dropped, GroupSize, Outgoing,
    PeerCounts, PeerRecord, PeerTable, Question, Received, RefusalCause, RememberedError, RememberedPeer,
    RememberedPeers, TableChange, UnreachedPeer, Via, Way, crosses, is_far, is_usable, open_announce, open_dht_item,
    parse_announce,
};
pub use mirror::{
    AskSchedule, BareOffers, ExpiryCandidate, ExpiryRoom, MirrorBatch, MirrorCounts, MirrorNews, MirrorOffer,
    MirrorOffers, MirrorPlan, MirrorVerdict, OwnFile, Retention, Setback,
};
pub use upload::{
    Admission, AnyOfChoice, Arrivals, FairQueue, Fetchers, Sent, SentTo, TurnCost, TurnPrice, UploadGate, UploadKind,
    UploadSlot,
};
