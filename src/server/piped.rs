//! One session without the threads of a server, for the fuzz targets: what comes is served by the
//! calling thread, and nothing waits.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::net::SecureError;
use crate::server::context::{Context, Scratch};
use crate::server::dial_back::DialBacks;
use crate::server::session::AcceptedSession;
use crate::server::turn::TurnOutcome;
use crate::server::{ServerConfig, context, sources};

/// A session over any stream socket, and all that a server has for it.
pub struct PipedSession {
    session: AcceptedSession,
    scratch: Scratch,
    context: Context,
}

impl PipedSession {
    /// A session that has just been accepted from `addr`. Its socket must not block.
    ///
    /// # Errors
    /// [`SecureError::Tls`]
    pub fn new(config: &ServerConfig, socket: TcpStream, addr: SocketAddr) -> Result<Self, SecureError> {
        let context = context(config, Arc::new(sources(config)), config.bounds, DialBacks::new().0);
        // A worker that is wanted elsewhere does not linger.
        context.wanted.store(true, Ordering::Relaxed);
        let socket = mio::net::TcpStream::from_std(socket);
        let session = AcceptedSession::new(0, socket, addr, &config.tls, Instant::now())?;
        Ok(PipedSession { session, scratch: Scratch::new(), context })
    }

    /// Serves the session for a turn. True while it has more to do at once; the error says why it
    /// ended, and nothing may follow it.
    ///
    /// # Errors
    /// Why the session ended.
    pub fn turn(&mut self) -> Result<bool, &'static str> {
        match self.session.turn(&mut self.scratch, &self.context) {
            TurnOutcome::Again => Ok(true),
            TurnOutcome::Wait => {
                self.session.defer();
                Ok(true)
            }
            TurnOutcome::Read | TurnOutcome::Write | TurnOutcome::Delay(_) => Ok(false),
            TurnOutcome::Close(why) => {
                self.session.end(why, &self.context);
                Err(why)
            }
        }
    }

    /// Whether the peer said `Hello` and was let in.
    pub fn is_admitted(&self) -> bool {
        self.session.is_admitted()
    }

    /// Bytes that are kept between two turns.
    pub fn held(&self) -> usize {
        self.session.parked()
    }
}
