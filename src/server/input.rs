//! What a peer has sent and what is not answered yet.

use std::io::{self, ErrorKind, Read};

use mio::net::TcpStream;

use crate::limits::UNANSWERED_LEN_MAX;
use crate::net::{Channel, Opened, Outbox, SecureError, WIRE_RECORD_LEN_MAX};
use crate::proto::{FRAME_PREFIX_LEN, FrameError, FramePrefix, MessageError};
use crate::server::limits::REQUESTS_KEPT_LEN;

/// The unanswered input of a session.
#[derive(Default)]
pub(crate) struct SessionInput {
    /// Ciphertext of a record that is not whole yet.
    held: Vec<u8>,
    /// Plaintext of requests.
    requests: Vec<u8>,
    /// Bytes of `requests` that are answered.
    answered: usize,
}

/// A whole request.
pub(crate) struct RequestFrame<'a> {
    pub(crate) kind: u8,
    pub(crate) header: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// Why a session ends without an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Secure(#[from] SecureError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Message(#[from] MessageError),
    /// The peer said goodbye, or closed the connection between two requests.
    #[error("closed by peer")]
    Ended,
}

impl SessionInput {
    /// What has come on a session before the server had it: plaintext, and the ciphertext of a record that is not whole.
    pub(crate) fn with(plain: Vec<u8>, sealed: Vec<u8>) -> Self {
        SessionInput { held: sealed, requests: plain, answered: 0 }
    }

    /// Takes what the peer sent; false when there is nothing now. `incoming` is the buffer of the
    /// worker, and `out` is where TLS puts its own messages.
    pub(crate) fn receive(
        &mut self,
        socket: &mut TcpStream,
        channel: &mut Channel,
        incoming: &mut [u8],
        out: &mut Outbox,
    ) -> Result<bool, SessionError> {
        let from = self.held.len();
        incoming[..from].copy_from_slice(&self.held);
        let n = match socket.read(&mut incoming[from..]) {
            Ok(0) if channel.peer().is_some() => return Err(SessionError::Ended),
            Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(e) => return Err(e.into()),
        };
        let bytes = &mut incoming[..from + n];
        let (mut used, requests) = (0, &mut self.requests);
        loop {
            let (n, opened) = channel.open(&mut bytes[used..], out, &mut |plain| requests.extend_from_slice(plain))?;
            used += n;
            match opened {
                Opened::Data => (),
                Opened::Starved => break,
                Opened::Ended => return Err(SessionError::Ended),
            }
        }
        self.held.clear();
        self.held.extend_from_slice(&bytes[used..]);
        if self.held.len() > HELD_LEN_MAX || self.requests.len() > 2 * UNANSWERED_LEN_MAX {
            return Err(FrameError::BodyTooLong(self.held.len().max(self.requests.len())).into());
        }
        Ok(true)
    }

    /// The first request that is not answered, and its length in bytes, if it is whole.
    ///
    /// # Errors
    /// Its lengths are over their bounds.
    pub(crate) fn first(&self) -> Result<Option<(RequestFrame<'_>, usize)>, FrameError> {
        let bytes = &self.requests[self.answered..];
        let Some((prefix, rest)) = bytes.split_first_chunk::<FRAME_PREFIX_LEN>() else { return Ok(None) };
        let prefix = FramePrefix::from_bytes(*prefix).check_request()?;
        let (header_len, body_len) = (prefix.header_len as usize, prefix.body_len as usize);
        if rest.len() < header_len + body_len {
            return Ok(None);
        }
        let (header, body) = rest[..header_len + body_len].split_at(header_len);
        Ok(Some((RequestFrame { kind: prefix.kind, header, body }, FRAME_PREFIX_LEN + header_len + body_len)))
    }

    /// The first request, of `len` bytes, is answered.
    pub(crate) fn answered(&mut self, len: usize) {
        self.answered += len;
    }

    /// Drops what is answered.
    pub(crate) fn compact(&mut self) {
        self.requests.drain(..std::mem::take(&mut self.answered));
    }

    /// Gives back memory between turns.
    pub(crate) fn shrink(&mut self) {
        self.requests.shrink_to(if self.requests.is_empty() { 0 } else { REQUESTS_KEPT_LEN });
        self.held.shrink_to_fit();
    }

    /// Bytes that are held.
    pub(crate) fn len(&self) -> usize {
        self.requests.len() + self.held.len()
    }
}

/// Most ciphertext that is kept of a record that is not whole, in bytes.
const HELD_LEN_MAX: usize = WIRE_RECORD_LEN_MAX;
