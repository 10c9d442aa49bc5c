//! Why a dialed session ends.

use std::io;

use rustix::io::Errno;

use crate::net::secure::SecureError;
use crate::proto::FrameError;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// TCP failed: `TimedOut` when it did not connect in time, `UnexpectedEof` when the peer closed without
    /// close_notify.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// On a connection nothing arrived, or nothing could be sent, before the deadline.
    #[error("timed out")]
    TimedOut,
    /// The peer sent close_notify.
    #[error("closed by peer")]
    Closed,
    /// TLS failed.
    #[error(transparent)]
    Secure(#[from] SecureError),
    /// A frame breaks the rules.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl StreamError {
    /// The number of the system's error, if that is a want of descriptors or memory on this side.
    pub fn exhausted(&self) -> Option<i32> {
        let StreamError::Io(e) = self else { return None };
        let errno = e.raw_os_error()?;
        matches!(Errno::from_raw_os_error(errno), Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)
            .then_some(errno)
    }
}
