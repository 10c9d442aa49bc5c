//! Sessions whose roles are exchanged come and go.

use mio::Interest;

use super::Acceptor;
use crate::server::queues::Line;
use crate::server::session::AcceptedSession;
use crate::server::slots::SlotState;

impl Acceptor {
    /// The peer of a session, which a worker had, answers on it from now on: the asker takes it over, with its place.
    pub(super) fn hand_over(&mut self, at: usize, mut session: Box<AcceptedSession>) {
        // The socket lives on, so that its events would.
        let _ = self.poll.registry().deregister(&mut session.socket);
        self.context.handler.gate().leave(at);
        self.slots.release(at);
        let directory = &self.context.handler.directory;
        if let Some(offered) = session.into_offered(&self.context) {
            let node = offered.node;
            self.context.log_session(format_args!("may be asked peer={} addr={}", node.peer, offered.end.addr));
            directory.turned().keep(offered);
            directory.offered(node);
        }
    }

    /// Takes over the sessions that this node opened and is to answer on.
    pub(super) fn take_over(&mut self) {
        let directory = self.context.handler.directory.clone();
        for answering in directory.turned().to_answer() {
            let at = self.slots.take();
            let token = self.token(at);
            let session = AcceptedSession::answering(at, answering, &self.context);
            let registered = session.and_then(|mut session| {
                let registered = self.poll.registry().register(&mut session.socket, token, Interest::READABLE);
                registered.is_ok().then_some(session)
            });
            let Some(session) = registered else {
                self.slots.release(at);
                continue;
            };
            let slot = self.slots.at(at);
            slot.account = session.account();
            slot.state = SlotState::Parked;
            slot.session = Some(Box::new(session));
            // Something may have come before the server had it.
            self.enqueue(at, Line::Ready);
        }
    }
}
