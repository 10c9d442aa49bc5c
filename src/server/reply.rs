//! The answers to requests, as the handler makes them.

use std::time::Duration;

use crate::proto::{FRAME_PREFIX_LEN, FramePrefix, Kind, Problem, Status, encode_frame, encode_head};
use crate::server::body::Body;
use crate::server::limits::ANSWER_RETRY;
use crate::server::listing::Listing;
use crate::swarm::UploadSlot;

/// What follows the head of an answer.
pub(crate) enum Reply {
    /// Nothing.
    Done,
    /// A body; a slot is held until the peer has taken it.
    Body(Body, Option<UploadSlot>),
    /// The head is not there yet: the page of the listing must be made first.
    Listing(Box<Listing>),
    /// There is no answer yet: the request needs an upload slot, and is to be answered again.
    Wait,
    /// The session ends, for this reason.
    Close(Refusal),
}

/// Why a session is ended with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Untrusted,
    OtherNetwork,
    NoHello,
    Version,
    Full,
}

impl Refusal {
    /// The text for people on the other side.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Refusal::Untrusted => Problem::UNTRUSTED,
            Refusal::OtherNetwork => Problem::OTHER_NETWORK,
            Refusal::NoHello => "Hello comes first",
            Refusal::Version => Problem::UNKNOWN_VERSION,
            Refusal::Full => "too many connections",
        }
    }
}

/// The answer that ends the session.
pub(crate) fn refuse(kind: Kind, why: Refusal, out: &mut Vec<u8>) -> Reply {
    match why {
        Refusal::Full => busy(kind, ANSWER_RETRY, why.reason(), out),
        _ => problem(kind, Status::Refused, why.reason(), out),
    };
    Reply::Close(why)
}

/// An answer that is only a status and a reason.
pub(crate) fn problem(kind: Kind, status: Status, reason: &str, out: &mut Vec<u8>) -> Reply {
    encode_frame(kind, status, &Problem { retry_after_ms: 0, reason: reason.into() }, &[], out);
    Reply::Done
}

/// The peer is to ask again after `retry`.
pub(crate) fn busy(kind: Kind, retry: Duration, reason: &str, out: &mut Vec<u8>) -> Reply {
    let problem = Problem { retry_after_ms: retry.as_millis() as u32, reason: reason.into() };
    encode_frame(kind, Status::Busy, &problem, &[], out);
    Reply::Done
}

/// An answer whose body is sent together with its head.
pub(crate) fn small<H: serde::Serialize>(kind: Kind, header: &H, body: &[u8], out: &mut Vec<u8>) -> Reply {
    encode_frame(kind, Status::Ok, header, body, out);
    Reply::Done
}

/// An answer whose body is sent bit by bit and counts against the rate limit.
pub(crate) fn large<H: serde::Serialize>(kind: Kind, header: &H, body: Vec<u8>, out: &mut Vec<u8>) -> Reply {
    encode_head(kind, Status::Ok, header, body.len() as u32, out);
    Reply::Body(Body::bytes(body), None)
}

/// The answer to a kind of request that this version does not know; it carries that kind.
pub(crate) fn unsupported(kind: u8, out: &mut Vec<u8>) -> Reply {
    let at = out.len();
    problem(Kind::Hello, Status::Unsupported, "unknown request", out);
    if let Some(prefix) = out[at..].first_chunk::<FRAME_PREFIX_LEN>() {
        let prefix = FramePrefix { kind, ..FramePrefix::from_bytes(*prefix) };
        out[at..at + FRAME_PREFIX_LEN].copy_from_slice(&prefix.to_bytes());
    }
    Reply::Done
}
