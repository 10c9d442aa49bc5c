//! A dialed session: blocking, with a deadline for every wait.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::identity::PeerId;
use crate::net::secure::{SecureError, Tls};
use crate::proto::{FrameError, FramePrefix};

/// The dialer's end of a session: frames over TLS over TCP, blocking.
pub struct Dialed;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// TCP said so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nothing arrived, or nothing could be sent, before the deadline.
    #[error("timed out")]
    TimedOut,
    /// The other side closed.
    #[error("closed by peer")]
    Closed,
    /// TLS said so.
    #[error("{0}")]
    Secure(#[from] SecureError),
    /// A frame breaks the rules.
    #[error("{0}")]
    Frame(#[from] FrameError),
}

impl Dialed {
    /// Connects and shakes hands, in at most `timeout` in all.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn dial(addr: SocketAddr, expect: Option<PeerId>, tls: &Tls, timeout: Duration) -> Result<Self, StreamError> {
        todo!("{addr} {expect:?} {timeout:?} {}", std::mem::size_of_val(tls))
    }

    /// The key that TLS proved.
    pub fn peer(&self) -> PeerId {
        todo!()
    }

    /// Where the session goes to.
    pub fn addr(&self) -> SocketAddr {
        todo!()
    }

    /// Sends whole frames (as `encode_request` writes them) and flushes.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn send(&mut self, frames: &[u8], deadline: Instant) -> Result<(), StreamError> {
        todo!("{} {deadline:?}", frames.len())
    }

    /// Reads a frame's prefix and its postcard header into `header` (cleared first; bounded by
    /// `FRAME_HEADER_LEN_MAX`). The body must be read with `read_body` before the next call.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn read_head(&mut self, header: &mut Vec<u8>, deadline: Instant) -> Result<FramePrefix, StreamError> {
        todo!("{} {deadline:?}", header.len())
    }

    /// Reads exactly `into.len()` bytes of the body. `idle` is the longest wait without a single byte.
    /// `progress` hears how many bytes came.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn read_body(
        &mut self,
        into: &mut [u8],
        idle: Duration,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), StreamError> {
        progress(0);
        todo!("{} {idle:?}", into.len())
    }

    /// A handle that makes reads and writes of this session fail at once, from any thread.
    pub fn closer(&self) -> io::Result<std::net::TcpStream> {
        todo!()
    }

    /// Says goodbye (close_notify) and closes.
    pub fn close(self) {
        todo!()
    }
}
