//! Idle sessions, checked out to ask a peer and checked in again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, bounded};
use log::{debug, info, warn};

use crate::identity::NodeId;
use crate::limits::{CONNECTIONS_PER_PEER_MAX, HANDSHAKE_TIMEOUT};
use crate::peers::handover::{Handover, HandoverTaker};
use crate::peers::limits::{
    DIAL_BETWEEN_OFFERS, DIAL_QUICK, DIAL_TIMEOUT, HANDOVER_PATIENCE, HURRIED_ADDRS, IDLE_SESSIONS_MAX,
};
use crate::peers::opening::{Opening, encode_all};
use crate::peers::session::{Ahead, AskError, Call, Dialer, Session};
use crate::proto::Request;
use crate::swarm::PeerRecord;
use crate::sync::lock;

/// Idle sessions of each peer: a session that was opened to ask for names also carries the chunks.
pub struct PeerPool {
    dialer: Dialer,
    idle: Mutex<HashMap<NodeId, Idle>>,
}

/// Both ends of the channel in which a peer's sessions wait.
type Idle = (Sender<Session>, Receiver<Session>);

impl PeerPool {
    /// An empty pool, whose sessions `dialer` opens.
    pub fn new(dialer: Dialer) -> Self {
        PeerPool { dialer, idle: Mutex::default() }
    }

    /// An idle session with the peer of `record`, or a new one. Blocks for a bounded time: a few
    /// seconds per address.
    ///
    /// # Errors
    /// [`AskError`]: the peer is not trusted, was not reached, refuses this node, or is busy.
    pub fn checkout(&self, record: &PeerRecord) -> Result<Session, AskError> {
        self.checkout_ahead(record, &mut |_, _, _| ())
    }

    /// As [`checkout`](Self::checkout). A session that is opened sends what `ahead` says together with `Hello`; its answers
    /// are left for the caller. An idle one sends nothing.
    ///
    /// # Errors
    /// As [`checkout`](Self::checkout).
    pub fn checkout_ahead(&self, record: &PeerRecord, ahead: Ahead<'_>) -> Result<Session, AskError> {
        match self.take_idle(record, &[])? {
            Some(session) => Ok(session),
            None => self.open(record, false, ahead),
        }
    }

    /// As [`checkout`](Self::checkout), for a caller that begins with [`Session::ask`] of `opening`: that goes out together
    /// with `Hello`. If `hurried`, at two addresses at most, for less than a second at each.
    ///
    /// # Errors
    /// As [`checkout`](Self::checkout).
    pub fn checkout_to_ask(&self, record: &PeerRecord, opening: &Opening, hurried: bool) -> Result<Session, AskError> {
        if let Some(session) = self.take_idle(record, opening)? {
            return Ok(session);
        }
        let mut session = self.open(record, hurried, &mut |_, _, out| encode_all(opening, out))?;
        session.set_asked(opening.clone());
        Ok(session)
    }

    /// A session that lies idle or is being left by a contact, on which at most `opening` is unanswered.
    fn take_idle(&self, record: &PeerRecord, opening: &[Request]) -> Result<Option<Session>, AskError> {
        if !self.dialer.directory().trust().allows(&record.peer) {
            return Err(AskError::Untrusted(record.peer));
        }
        let key = NodeId::new(record.peer, record.instance);
        let idle = lock(&self.idle).get(&key).and_then(|c| c.1.try_recv().ok());
        let Some(mut session) = idle.or_else(|| self.dialer.handover().take(&key, HANDOVER_PATIENCE)) else {
            return Ok(None);
        };
        session.reused = true;
        // One that broke meanwhile is replaced.
        Ok(session.settle_asked(opening, Instant::now() + HANDSHAKE_TIMEOUT).is_ok().then_some(session))
    }

    fn open(&self, record: &PeerRecord, hurried: bool, ahead: Ahead<'_>) -> Result<Session, AskError> {
        let key = NodeId::new(record.peer, record.instance);
        // Where a dial works, the way is the shorter one, and any number of connections can be had.
        if !self.dialer.directory().read(|t| t.was_reached(key))
            && let Some(offered) = self.dialer.ask_offered(key, ahead)
        {
            return offered.inspect(|s| debug!("asks a turned session peer={} addr={}", s.peer, s.addr));
        }
        let begin = Instant::now();
        match self.dial(record, hurried, ahead) {
            Ok(session) => {
                debug!("connected peer={} addr={} ms={}", session.peer, session.addr, begin.elapsed().as_millis());
                Ok(session)
            }
            // The end of this node cut the dial off, which says nothing of the peer.
            Err((e, _)) if self.dialer.shutdown().has_begun() => Err(e),
            Err((e, addr)) => {
                self.note_failure(record, addr, &e);
                Err(e)
            }
        }
    }

    /// Opens a session at the first address where the peer answers. With more than one, each gets a short time first: on a
    /// local network a peer answers in milliseconds, and a dead address would hold up the others for seconds. If `hurried`,
    /// two addresses get that time, and no more. A peer that offers to answer meanwhile, because nobody can dial it, is asked
    /// there.
    ///
    /// # Errors
    /// The last error and its address. A peer that refuses or is busy at one address is not asked
    /// at the others.
    fn dial(&self, record: &PeerRecord, hurried: bool, ahead: Ahead<'_>) -> Result<Session, (AskError, SocketAddr)> {
        let (addrs, node) = (record.addrs.as_slice(), record.node());
        let may_offer = !hurried && self.dialer.directory().read(|t| t.may_offer(node) && !t.was_reached(node));
        let rounds = [
            (hurried || addrs.len() > 1).then_some(DIAL_QUICK),
            may_offer.then_some(DIAL_BETWEEN_OFFERS),
            (!hurried).then_some(DIAL_TIMEOUT),
        ];
        let mut last = None;
        for dial_timeout in rounds.into_iter().flatten() {
            for &addr in addrs.iter().take(if hurried { HURRIED_ADDRS } else { addrs.len() }) {
                let welcome_by = hurried.then(|| Instant::now() + 2 * DIAL_QUICK);
                let call = Call { addr, expect: Some(record.peer), dial_timeout, welcome_by };
                match self.dialer.open(&call, ahead) {
                    Ok(session) => return Ok(session),
                    Err(e @ (AskError::Refused(_) | AskError::Busy(_))) => return Err((e, addr)),
                    Err(e) if self.dialer.shutdown().has_begun() => return Err((e, addr)),
                    Err(e) => last = Some((e, addr)),
                }
                if let Some(offered) = self.dialer.ask_offered(node, ahead) {
                    return offered.map_err(|e| (e, addr));
                }
            }
        }
        Err(last.unwrap_or((AskError::NoAddress, SocketAddr::from(([0, 0, 0, 0], 0)))))
    }

    /// Where contacts leave sessions for this pool.
    pub fn handover(&self) -> &Arc<Handover<Session>> {
        self.dialer.handover()
    }

    /// While it lives, contacts leave the sessions for this pool by which peers become known, with `opening` asked on them.
    pub fn taker(&self, opening: Opening) -> HandoverTaker<Session> {
        self.dialer.handover().taker(opening)
    }

    /// Takes back a session without unanswered requests. It is closed when enough are kept.
    pub fn checkin(&self, session: Session) {
        if !self.dialer.directory().trust().allows(&session.peer) || !session.is_settled() {
            return session.close();
        }
        let mut idle = lock(&self.idle);
        let kept: usize = idle.values().map(|c| c.1.len()).sum();
        let channel = idle.entry(session.node()).or_insert_with(|| bounded(CONNECTIONS_PER_PEER_MAX));
        let surplus = if kept >= IDLE_SESSIONS_MAX {
            Some(session)
        } else {
            channel.0.try_send(session).err().map(|e| e.into_inner())
        };
        idle.retain(|_, c| !c.1.is_empty());
        drop(idle);
        if let Some(surplus) = surplus {
            surplus.close();
        }
    }

    /// Closes the idle sessions with peers that are no longer trusted.
    pub fn drop_untrusted(&self) {
        let mut untrusted = Vec::new();
        let mut idle = lock(&self.idle);
        idle.retain(|key, sessions| {
            let allowed = self.dialer.directory().trust().allows(&key.peer);
            if !allowed {
                untrusted.extend(sessions.1.try_iter());
            }
            allowed
        });
        // The end of a session locks the peer table, so this lock is released first.
        drop(idle);
        drop(untrusted);
    }

    fn note_failure(&self, record: &PeerRecord, addr: SocketAddr, e: &AskError) {
        let (peer, tag) = (record.peer, self.dialer.directory().own().tag());
        match e {
            AskError::Refused(reason) => warn!("refused peer={peer} addr={addr} reason={reason:?}{tag}"),
            AskError::Busy(wait) => info!("busy peer={peer} addr={addr} retry_ms={}{tag}", wait.as_millis()),
            AskError::Untrusted(_) | AskError::Slow | AskError::LongListing(_) | AskError::NoAddress => {}
            AskError::Stream(_) | AskError::Protocol(_) => {
                info!("unreachable peer={peer} addr={addr} error=\"{e}\"{tag}");
                self.dialer.directory().failed(NodeId::new(peer, record.instance), addr, Instant::now());
            }
        }
    }
}
