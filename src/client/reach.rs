//! What peers say of this node: which address they see, and whether they can dial it.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::client::limits::{REACH_AGAIN, REACH_PEERS_MAX, REACH_WAIT};
use crate::client::{Client, FoundPeer};
use crate::identity::{NodeId, PeerId};
use crate::limits::HANDSHAKE_TIMEOUT;
use crate::peers::{AskError, Session};
use crate::proto::{DialState, Kind, Reached, Request, Status};
use crate::runtime::Shutdown;

/// What one peer says of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenBy {
    /// The peer.
    pub peer: PeerId,
    /// The address that the session has here.
    pub here: IpAddr,
    /// The source of the session, as the peer sees it.
    pub seen: SocketAddr,
    /// Whether the peer could dial this node.
    pub dialed: DialState,
}

impl Client {
    /// Asks up to [`REACH_PEERS_MAX`] of the `peers` what they see of this node; at most for about
    /// [`REACH_WAIT`] after they have been reached, or until `end` is set. Peers that do not answer, or
    /// do not know the request, are left out.
    pub fn seen_by(&self, peers: &[FoundPeer], end: &Shutdown) -> Vec<SeenBy> {
        let sessions = peers.iter().take(2 * REACH_PEERS_MAX).filter_map(|found| {
            let record = self.ctx.peers.read(|t| t.peer(NodeId::new(found.peer, found.instance)))?;
            self.pool.checkout(&record).ok()
        });
        let mut asked: Vec<(Session, Option<SeenBy>)> =
            sessions.take(REACH_PEERS_MAX).map(|session| (session, None)).collect();
        let until = Instant::now() + REACH_WAIT;
        loop {
            let is_open = |seen: &Option<SeenBy>| seen.as_ref().is_none_or(|s| s.dialed == DialState::Trying);
            for (session, seen) in asked.iter_mut().filter(|(_, seen)| is_open(seen)) {
                match ask(session) {
                    Ok(answer) => *seen = Some(answer),
                    Err(e) => log::debug!("a peer does not say what it sees peer={} error=\"{e}\"", session.peer),
                }
            }
            asked.retain(|(_, seen)| seen.is_some());
            let is_over = Instant::now() >= until || !asked.iter().any(|(_, seen)| is_open(seen));
            if is_over || end.wait(REACH_AGAIN) {
                break;
            }
        }
        let answers = asked.into_iter().filter_map(|(session, seen)| {
            self.pool.checkin(session);
            seen
        });
        answers.collect()
    }
}

fn ask(session: &mut Session) -> Result<SeenBy, AskError> {
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    session.send(&[Request::Reach], deadline)?;
    match session.receive_head(Kind::Reach, 0, deadline)? {
        (Status::Ok, _) => {}
        (status, _) => return Err(session.problem(status)),
    }
    let Reached { seen, dialed } = session.header("Reach")?;
    let here = session.dialed.local_addr().map_err(crate::net::StreamError::from)?.ip().to_canonical();
    Ok(SeenBy { peer: session.peer, here, seen: SocketAddr::new(seen.ip().to_canonical(), seen.port()), dialed })
}
