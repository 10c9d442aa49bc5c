//! A session whose roles are exchanged: handed over to the asker, or taken over to be answered.

use std::net::TcpStream;
use std::time::Instant;

use socket2::SockRef;

use super::{AcceptedSession, SessionPhase};
use crate::limits::WAIT_MAX;
use crate::net::TurnedEnd;
use crate::peers::{Answering, OfferedSession};
use crate::proto::MessageError;
use crate::server::context::Context;
use crate::server::input::{SessionError, SessionInput};
use crate::server::limits::UNSENT_FIRST_LEN;
use crate::server::output::{SessionOutput, set_unsent_max};
use crate::server::remote_peer::{RemotePeer, SessionRole};
use crate::server::turn::TurnOutcome;

impl AcceptedSession {
    /// A session that this node opened and is to answer on. It has no deadline before its `Hello`, which comes when the
    /// peer wants something.
    pub(crate) fn answering(id: usize, answering: Answering, context: &Context) -> Option<Self> {
        let Answering { end: TurnedEnd { socket, channel, addr, plain, sealed }, ticket, round_trip } = answering;
        let socket = mio::net::TcpStream::from_std(socket);
        set_unsent_max(&socket, UNSENT_FIRST_LEN);
        let mut peer = RemotePeer::new(id, channel.peer()?, addr, &context.handler.trust);
        peer.role = SessionRole::AsksTurned(Box::new(ticket));
        let now = Instant::now();
        let mut output = SessionOutput::new(now);
        output.unsent.set_round_trip(round_trip);
        Some(AcceptedSession {
            id,
            socket,
            addr,
            deadline: now + WAIT_MAX,
            stalled_since: None,
            channel,
            phase: SessionPhase::Open(Box::new(peer)),
            input: SessionInput::with(plain, sealed),
            output,
            began: now,
            sent: 0,
        })
    }

    /// Whether the peer offered to answer, and this node replied that it asks from now on.
    pub(crate) fn is_offered(&self) -> bool {
        matches!(&self.phase, SessionPhase::Open(peer) if matches!(peer.role, SessionRole::Answers))
    }

    /// Whether this node opened it.
    pub(super) fn is_turned(&self) -> bool {
        matches!(&self.phase, SessionPhase::Open(peer) if matches!(peer.role, SessionRole::AsksTurned(_)))
    }

    /// An offered session answers nothing further, and nothing may have come behind the offer.
    pub(super) fn rest(&self) -> Result<TurnOutcome, SessionError> {
        match self.input.len() {
            0 => Ok(TurnOutcome::Read),
            _ => Err(MessageError::Malformed("Turn").into()),
        }
    }

    /// The session for the service that asks on it, if the peer may still be asked.
    pub(crate) fn into_offered(mut self, context: &Context) -> Option<OfferedSession> {
        // All was answered before the offer; a slot that was left would be lost to uploads.
        self.output.end(context);
        let SessionPhase::Open(peer) = self.phase else { return None };
        // What waits for the old number of the socket must not meet the new owner of it.
        let socket: TcpStream = SockRef::from(&self.socket).try_clone().ok()?.into();
        let (trust, cut) = (&context.handler.trust, socket.try_clone().ok()?);
        let held = (context.shutdown.cuts(socket.try_clone().ok()?), trust.cuts(peer.id, cut));
        let (node, RemotePeer { slot, presence, .. }) = (peer.node(), *peer);
        let (lease, presence) = (Box::new(slot?), Box::new(presence));
        let end = TurnedEnd::asking(socket, self.channel, self.addr);
        trust.allows(&node.peer).then(|| OfferedSession { node, end, lease, held, presence })
    }
}
