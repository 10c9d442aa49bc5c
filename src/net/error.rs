//! Why a dialed session ends.

use std::io;

use crate::net::secure::SecureError;
use crate::proto::FrameError;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// TCP failed; `UnexpectedEof` when the peer closed without close_notify.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nothing arrived, or nothing could be sent, before the deadline.
    #[error("timed out")]
    TimedOut,
    /// The peer sent close_notify.
    #[error("closed by peer")]
    Closed,
    /// TLS failed.
    #[error("{0}")]
    Secure(#[from] SecureError),
    /// A frame breaks the rules.
    #[error("{0}")]
    Frame(#[from] FrameError),
}
