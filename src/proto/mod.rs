//! Bytes to values and back: announces, frames, messages. Pure; tier 2.
#![doc = include_str!("WIRE.md")]

mod announce;
mod dht;
mod frame;
mod list_page;
mod listed;
mod message;

pub use announce::{Announce, AnnounceError, Flags, SignedAnnounce};
pub use dht::{DhtItem, DhtNames, DhtSecret, DhtSecretError, decode_dht_value, encode_dht_value};
pub use frame::{FRAME_PREFIX_LEN, FrameError, FramePrefix, Kind, Status};
pub use list_page::{ListPage, ListedEntries};
pub use listed::{Listed, ListedAs, ListedFile};
pub use message::{
    ChunkAsk, ChunkHeader, ChunkRef, Delta, DialState, Hello, Holding, LayerRange, ListFrom, MessageError, PageHead,
    PeerHint, Problem, Reached, Request, Since, Welcome, decode_body, decode_header, encode_body, encode_frame,
    encode_head, encode_request,
};
