//! The frame: the envelope of every message on a session.

use crate::limits::{FRAME_HEADER_LEN_MAX, REQUEST_BODY_LEN_MAX};

/// The fixed beginning of a frame: `{kind u8, status u8, header_len u16, body_len u32}`, little
/// endian. A postcard header of `header_len` bytes and a raw body of `body_len` bytes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePrefix {
    /// What the message is; see [`Kind`]. Kept raw, since unknown kinds are answered, not errors.
    pub kind: u8,
    /// 0 in requests; see [`Status`] in responses.
    pub status: u8,
    /// Length of the postcard header in bytes.
    pub header_len: u16,
    /// Length of the body in bytes.
    pub body_len: u32,
}

/// The kinds of request; a response carries the kind of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// First request of a session: identifies the asker and its network.
    Hello = 1,
    /// The listing: which files are offered.
    List = 2,
    /// Which of the given files are held.
    Locate = 3,
    /// A range of the layer of a file (BEP 52).
    Layer = 4,
    /// One chunk.
    Chunk = 5,
    /// One chunk of the holder's choice (super-seeding, BEP 16).
    AnyOf = 6,
    /// Which chunks of a file are held (HAVE and bitfield, BEP 3).
    Have = 7,
    /// A chunk that was served on this connection is bad.
    Bad = 8,
    /// Peer exchange (PEX, BEP 11).
    Peers = 9,
    /// The dialer offers to answer on this session from now on.
    Turn = 10,
    /// Which address the node sees of the asker, and whether it can dial it.
    Reach = 11,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Answered; the header is that of the kind. Every other status has a
    /// [`Problem`](crate::proto::Problem) header.
    Ok = 0,
    /// Nothing new since the revision that the request named. To `Chunk` and `AnyOf`: the request
    /// waited too long; ask again.
    NotModified = 1,
    /// Not held under that root and length, or not that chunk.
    NotFound = 2,
    /// Was held, but changed on disk.
    Gone = 3,
    /// Full; ask again after `retry_after_ms`.
    Busy = 4,
    /// This key is not trusted, or the network differs; the connection closes.
    Refused = 5,
    /// The request asks for more than a bound allows.
    TooLarge = 6,
    /// Unknown kind of request.
    Unsupported = 7,
}

/// A frame that breaks the rules; the connection closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header is longer than its bound.
    #[error("frame header of {0} bytes is over the bound")]
    HeaderTooLong(usize),
    /// The body is longer than its bound.
    #[error("frame body of {0} bytes is over the bound")]
    BodyTooLong(usize),
    /// The status is none that this version knows.
    #[error("unknown status {0}")]
    Status(u8),
}

/// Length in bytes of a [`FramePrefix`].
pub const FRAME_PREFIX_LEN: usize = 8;

impl FramePrefix {
    /// The bytes on the wire.
    pub fn to_bytes(self) -> [u8; FRAME_PREFIX_LEN] {
        let [h0, h1] = self.header_len.to_le_bytes();
        let [b0, b1, b2, b3] = self.body_len.to_le_bytes();
        [self.kind, self.status, h0, h1, b0, b1, b2, b3]
    }

    /// Reads the bytes on the wire; bounds are checked by [`check_request`](Self::check_request)
    /// and [`check_response`](Self::check_response).
    pub fn from_bytes(b: [u8; FRAME_PREFIX_LEN]) -> Self {
        FramePrefix {
            kind: b[0],
            status: b[1],
            header_len: u16::from_le_bytes([b[2], b[3]]),
            body_len: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        }
    }

    /// Checks the bounds of a request, before anything is allocated for it.
    ///
    /// # Errors
    /// [`FrameError`]: the header or body is longer than any request's.
    pub fn check_request(self) -> Result<Self, FrameError> {
        self.check(REQUEST_BODY_LEN_MAX)
    }

    /// Checks the bounds of a response to a request whose answer may have `body_max` bytes of body.
    /// Only an answer with [`Status::Ok`] has a body.
    ///
    /// # Errors
    /// [`FrameError`]: a length over its bound, or an unknown status.
    pub fn check_response(self, body_max: usize) -> Result<Status, FrameError> {
        let status = Status::from_u8(self.status).ok_or(FrameError::Status(self.status))?;
        self.check(if status == Status::Ok { body_max } else { 0 })?;
        Ok(status)
    }

    fn check(self, body_max: usize) -> Result<Self, FrameError> {
        if self.header_len as usize > FRAME_HEADER_LEN_MAX {
            return Err(FrameError::HeaderTooLong(self.header_len as usize));
        }
        if self.body_len as usize > body_max {
            return Err(FrameError::BodyTooLong(self.body_len as usize));
        }
        Ok(self)
    }
}

impl Kind {
    /// The kind of that number.
    pub fn from_u8(kind: u8) -> Option<Self> {
        use Kind::*;
        [Hello, List, Locate, Layer, Chunk, AnyOf, Have, Bad, Peers, Turn, Reach].into_iter().find(|k| *k as u8 == kind)
    }
}

impl Status {
    /// The status of that number.
    pub fn from_u8(status: u8) -> Option<Self> {
        use Status::*;
        [Ok, NotModified, NotFound, Gone, Busy, Refused, TooLarge, Unsupported].into_iter().find(|s| *s as u8 == status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_survives_the_wire() {
        let p = FramePrefix { kind: 5, status: 3, header_len: 0x1234, body_len: 0x89ab_cdef };
        assert_eq!(p.to_bytes(), [5, 3, 0x34, 0x12, 0xef, 0xcd, 0xab, 0x89]);
        assert_eq!(FramePrefix::from_bytes(p.to_bytes()), p);
    }

    #[test]
    fn bounds_hold_at_the_edge() {
        let at = |header_len, body_len| FramePrefix { kind: 1, status: 0, header_len, body_len };
        assert!(at(FRAME_HEADER_LEN_MAX as u16, REQUEST_BODY_LEN_MAX as u32).check_request().is_ok());
        assert!(at(FRAME_HEADER_LEN_MAX as u16 + 1, 0).check_request().is_err());
        assert!(at(0, REQUEST_BODY_LEN_MAX as u32 + 1).check_request().is_err());
        assert_eq!(at(0, 10).check_response(10), Ok(Status::Ok));
        assert_eq!(at(0, 11).check_response(10), Err(FrameError::BodyTooLong(11)));
        assert_eq!(FramePrefix { status: 99, ..at(0, 0) }.check_response(0), Err(FrameError::Status(99)));
        let not_found = |body_len| FramePrefix { status: Status::NotFound as u8, ..at(9, body_len) };
        assert_eq!(not_found(0).check_response(10), Ok(Status::NotFound));
        assert_eq!(not_found(1).check_response(10), Err(FrameError::BodyTooLong(1)), "memory for nothing");
    }
    /// Cause: a body was read behind any status. Effect: a peer that had nothing to give could still
    /// send a chunk's worth behind each `Busy`. Mend: only `Ok` has a body.
    #[test]
    fn an_answer_other_than_ok_has_no_body() {
        for status in 1..=7 {
            let at = |body_len| FramePrefix { kind: 5, status, header_len: 0, body_len };
            assert!(at(0).check_response(usize::MAX).is_ok());
            assert_eq!(at(1).check_response(usize::MAX), Err(FrameError::BodyTooLong(1)));
        }
    }
}
