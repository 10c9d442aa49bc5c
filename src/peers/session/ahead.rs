//! Requests that go out together with `Hello`, a round trip before it is answered.

use std::time::{Duration, Instant};

use crate::identity::PeerId;
use crate::limits::{CHUNKS_MAX, FILE_LEN_MAX, RESPONSE_BODY_LEN_MAX};
use crate::net::StreamError;
use crate::peers::limits::SKIP_STEP;
use crate::peers::opening::Opening;
use crate::peers::session::{AskError, Session};
use crate::proto::Request;

/// Appends the frames of requests that are sent to this key together with `Hello`, over a path whose handshake showed that
/// round trip, [`Duration::MAX`] if it opened the connection. It is called once for each address where the peer proves its key.
///
/// The peer answers in order, and answers nothing before it has let this node in. A peer that refuses it has read the
/// requests all the same.
pub type Ahead<'a> = &'a mut dyn FnMut(PeerId, Duration, &mut Vec<u8>);

impl Session {
    /// `opening` was sent together with `Hello`, behind all that was answered. Its answers are left for [`ask`](Self::ask).
    pub fn set_asked(&mut self, opening: Opening) {
        self.frames.asked = opening;
    }

    /// Sends `requests`, unless they were sent together with `Hello`; their answers come in the same order.
    ///
    /// # Errors
    /// [`AskError::Stream`]
    pub fn ask(&mut self, requests: &[Request], deadline: Instant) -> Result<(), AskError> {
        self.settle_asked(requests, deadline)?;
        if std::mem::take(&mut self.frames.asked).is_empty() { self.send(requests, deadline) } else { Ok(()) }
    }

    /// Skips the answers to what was sent together with `Hello`, unless that was `opening`.
    ///
    /// # Errors
    /// [`AskError::Stream`]
    pub fn settle_asked(&mut self, opening: &[Request], deadline: Instant) -> Result<(), AskError> {
        if *self.frames.asked == *opening {
            return Ok(());
        }
        for _ in std::mem::take(&mut self.frames.asked).iter() {
            self.skip(deadline)?;
        }
        Ok(())
    }

    /// Whether nothing is unanswered that was sent together with `Hello`.
    pub fn is_settled(&self) -> bool {
        self.frames.asked.is_empty()
    }

    /// Reads the next answer, whatever it is, and forgets it. Returns the length of its body in
    /// bytes.
    ///
    /// # Errors
    /// [`AskError::Stream`]
    pub fn skip(&mut self, deadline: Instant) -> Result<u32, AskError> {
        let prefix = self.dialed.read_head(&mut self.frames.header, deadline)?;
        prefix.check_response(RESPONSE_BODY_LEN_MAX.max(CHUNK_BODY_LEN_MAX)).map_err(StreamError::from)?;
        let mut left = prefix.body_len as usize;
        let mut sink = vec![0; left.min(SKIP_STEP)];
        while left > 0 {
            let n = left.min(SKIP_STEP);
            self.dialed.read_until(&mut sink[..n], deadline)?;
            left -= n;
        }
        Ok(prefix.body_len)
    }
}

/// The longest body of a chunk, with its trailer.
const CHUNK_BODY_LEN_MAX: usize = (FILE_LEN_MAX / CHUNKS_MAX) as usize + 1;
