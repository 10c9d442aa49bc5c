//! Whether the peer can be dialed: what it is told, and whether it is to answer on its own session.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Handler;
use crate::limits::LOW_PORTS;
use crate::proto::{DialState, Kind, Reached, Status};
use crate::server::remote_peer::{RemotePeer, SessionRole};
use crate::server::reply::{Reply, busy, problem, small};

impl Handler {
    /// The peer offers to answer. A session that was turned already stays as it is.
    pub(super) fn turn(&self, peer: &mut RemotePeer, now: Instant, out: &mut Vec<u8>) -> Reply {
        if matches!(peer.role, SessionRole::AsksTurned(_)) {
            return problem(Kind::Turn, Status::NotModified, "this node dialed", out);
        }
        match self.reached(peer, now) {
            DialState::NotTried | DialState::Failed => {
                peer.role = SessionRole::Answers;
                small(Kind::Turn, &(), &[], out)
            }
            DialState::Trying => busy(Kind::Turn, DIAL_AGAIN, "it is being dialed", out),
            DialState::Reached => problem(Kind::Turn, Status::NotModified, "it can be dialed", out),
        }
    }

    /// Whether this node reaches the peer by dialing it. A session that comes from another host than where the peer was
    /// reached may mean that it moved behind a NAT, so that it is dialed there again. One on a link offers if nobody dialed
    /// it for long, which may be chance: it is dialed meanwhile, and where that works its sessions are not kept.
    fn reached(&self, peer: &RemotePeer, now: Instant) -> DialState {
        let node = peer.node();
        let try_at = |addr| self.dial_backs.ask(self.account(peer), (node, addr), now);
        let (proved, is_on_link) = self.directory.read(|t| (t.reached_at(node), t.is_on_link(node, now)));
        let Some(addr) = proved else {
            if let Some(addr) = self.served_at(peer).filter(|_| is_on_link) {
                try_at(addr);
            }
            return DialState::NotTried;
        };
        if addr.ip().to_canonical() == peer.addr.ip().to_canonical() {
            return DialState::Reached;
        }
        match try_at(addr) {
            // None is made now, and nothing speaks against what was proved.
            DialState::NotTried => DialState::Reached,
            state => state,
        }
    }

    /// What this node sees of the peer.
    pub(super) fn reach(&self, peer: &RemotePeer, now: Instant, out: &mut Vec<u8>) -> Reply {
        let ask = |addr| self.dial_backs.ask(self.account(peer), (peer.node(), addr), now);
        let dialed = self.served_at(peer).map_or(DialState::NotTried, ask);
        small(Kind::Reach, &Reached { seen: peer.addr, dialed }, &[], out)
    }

    /// Where the peer says that it serves: the source of its session, which is nobody else's, with the
    /// port that its own announce names, and not with one that a hint does. In an open group a low port
    /// may be another service of the network that the session comes from.
    fn served_at(&self, peer: &RemotePeer) -> Option<SocketAddr> {
        if matches!(peer.role, SessionRole::AsksTurned(_)) {
            return None;
        }
        let port = self.directory.read(|t| t.port(peer.node()))?;
        if port < LOW_PORTS && self.trust.is_open() {
            return None;
        }
        // The table knows the interface of a link-local address.
        let known = self.directory.read(|t| t.peer(peer.node()))?.addrs;
        let mut addr = known.into_iter().find(|addr| addr.ip() == peer.addr.ip()).unwrap_or(peer.addr);
        addr.set_port(port);
        Some(addr)
    }
}

/// When a peer is to offer again that is being dialed.
const DIAL_AGAIN: Duration = Duration::from_secs(1);
