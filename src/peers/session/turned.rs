//! Sessions whose roles are exchanged: to offer one, and to ask on one that was offered.

use std::time::{Duration, Instant};

use crate::identity::NodeId;
use crate::net::{Dialed, StreamError};
use crate::peers::limits::DIAL_TIMEOUT;
use crate::peers::session::{Ahead, AskError, Call, Dialer, Session};
use crate::peers::turned::{AnswerTicket, Answering, OfferedSession};
use crate::proto::{Kind, Problem, Request, Status};

/// What a peer said to the offer to answer on a session.
pub enum TurnAnswer {
    /// It may ask from now on.
    Taken(Box<Answering>),
    /// It reaches this node by dialing.
    NotNeeded,
    /// Not now, and not before that time has passed.
    Later(Duration),
    /// It does not know such sessions.
    Unknown,
}

impl Dialer {
    /// A session on which `node` offered to answer; `None` if there is none that works. A session that broke while it
    /// was unused says nothing about the peer.
    pub(in crate::peers) fn ask_offered(&self, node: NodeId, ahead: Ahead<'_>) -> Option<Result<Session, AskError>> {
        while let Some(offered) = self.directory.turned().take(node) {
            match self.greet_offered(offered, ahead) {
                Err(e @ (AskError::Stream(_) | AskError::Protocol(_))) => {
                    log::debug!("turned session failed peer={} error=\"{e}\"", node.peer);
                }
                result => return Some(result),
            }
        }
        None
    }

    fn greet_offered(&self, offered: OfferedSession, ahead: Ahead<'_>) -> Result<Session, AskError> {
        let OfferedSession { node, end, lease, held, .. } = offered;
        let addr = end.addr;
        let dialed = Dialed::turned(end)?;
        let until = Some(Instant::now() + DIAL_TIMEOUT);
        let call = Call { addr, expect: Some(node.peer), dial_timeout: DIAL_TIMEOUT, welcome_by: until };
        let mut session = self.greet(dialed, held.0, &call, ahead)?;
        if session.instance != node.instance {
            return Err(AskError::Protocol("another instance answers".into()));
        }
        session._held.1 = Some(lease);
        Ok(session)
    }
}

impl Session {
    /// Offers to answer on this session from now on. Nothing may be unanswered on it.
    ///
    /// # Errors
    /// [`AskError::Stream`], [`AskError::Protocol`]
    pub fn turn(mut self, dialer: &Dialer, deadline: Instant) -> Result<TurnAnswer, AskError> {
        self.send(&[Request::Turn], deadline)?;
        let (status, _) = self.receive_head(Kind::Turn, 0, deadline)?;
        Ok(match status {
            Status::Ok => {
                let node = self.node();
                let Session { dialed, round_trip, _presence, _held, .. } = self;
                let end = dialed.turn().map_err(|e: StreamError| AskError::Stream(e))?;
                let ticket = AnswerTicket::new(dialer.directory().turned(), node, _held.0, _presence);
                let socket = end.socket.try_clone().map_err(StreamError::from);
                let ticket = ticket.ended_by(socket.map_err(AskError::Stream)?);
                TurnAnswer::Taken(Box::new(Answering { end, ticket, round_trip }))
            }
            Status::NotModified => TurnAnswer::NotNeeded,
            Status::Unsupported => TurnAnswer::Unknown,
            Status::Busy => {
                let problem: Problem = self.header("Problem")?;
                TurnAnswer::Later(Duration::from_millis(problem.retry_after_ms.into()))
            }
            other => return Err(AskError::Protocol(format!("unexpected answer {other:?}"))),
        })
    }
}
