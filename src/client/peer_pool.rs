//! Open sessions, checked out to whoever asks a peer something and checked in again.

use crate::identity::NodeId;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, Sender, bounded};
use log::{debug, info, warn};

use crate::client::ClientContext;
use crate::client::limits::IDLE_SESSIONS_MAX;
use crate::client::session::{AskError, Life, Session};
use crate::limits::CONNECTIONS_PER_PEER_MAX;
use crate::swarm::{PeerRecord, PeerTable, Via};

/// Idle sessions of each peer, so that what was opened to ask for names also carries the chunks.
pub struct PeerPool {
    ctx: Arc<ClientContext>,
    idle: Mutex<HashMap<NodeId, Idle>>,
}

/// Both ends of the channel in which a peer's sessions wait.
type Idle = (Sender<Session>, Receiver<Session>);

impl PeerPool {
    /// No session is open.
    pub fn new(ctx: Arc<ClientContext>) -> Self {
        PeerPool { ctx, idle: Mutex::default() }
    }

    /// An idle session with that peer, or a new one. Blocks for a bounded time: a few seconds an address.
    ///
    /// What TLS shows goes to the peer table: an address that proved itself, one that failed, a refusal.
    pub fn checkout(&self, record: &PeerRecord) -> Result<Session, AskError> {
        if !self.ctx.trust.allows(&record.peer) {
            return Err(AskError::Untrusted);
        }
        let key = NodeId::new(record.peer, record.instance);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).get(&key).and_then(|c| c.1.try_recv().ok());
        if let Some(mut session) = idle {
            session.reused = true;
            return Ok(session);
        }
        let begin = Instant::now();
        match Session::open_any(&self.ctx, record.peer, &record.addrs) {
            Ok(mut session) => {
                let (peer, addr) = (session.peer, session.addr);
                debug!("connected peer={peer} addr={addr} ms={}", begin.elapsed().as_millis());
                self.note_proved(&session);
                session.life = Some(Life::begin(self.ctx.clone(), NodeId::new(peer, session.instance)));
                Ok(session)
            }
            // Given up because this node ends: nothing is known of the peer.
            Err((e, _)) if self.ctx.shutdown.has_begun() => Err(e),
            Err((e, addr)) => {
                self.note_failure(record, addr, &e);
                Err(e)
            }
        }
    }

    /// Gives a session back that has no request unanswered. It is closed when enough are kept.
    pub fn checkin(&self, session: Session) {
        if !self.ctx.trust.allows(&session.peer) {
            return session.dialed.close();
        }
        let key = NodeId::new(session.peer, session.instance);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: usize = idle.values().map(|c| c.1.len()).sum();
        let channel = idle.entry(key).or_insert_with(|| bounded(CONNECTIONS_PER_PEER_MAX));
        let surplus = if kept >= IDLE_SESSIONS_MAX {
            Some(session)
        } else {
            channel.0.try_send(session).err().map(|e| e.into_inner())
        };
        idle.retain(|_, c| !c.1.is_empty());
        drop(idle);
        if let Some(surplus) = surplus {
            surplus.dialed.close();
        }
    }

    /// Closes the idle sessions with peers that are not trusted any more.
    pub fn drop_untrusted(&self) {
        let mut untrusted = Vec::new();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|key, sessions| {
            let allowed = self.ctx.trust.allows(&key.peer);
            if !allowed {
                untrusted.extend(sessions.1.try_iter());
            }
            allowed
        });
        // Their ends are told to the peer table, which has a lock of its own.
        drop(idle);
        drop(untrusted);
    }

    /// TLS proved the key there, and the peer itself said who it is.
    fn note_proved(&self, session: &Session) {
        let (key, addr, now) = (NodeId::new(session.peer, session.instance), session.addr, Instant::now());
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let announce = &session.welcome.announce;
        let admit = |t: &mut PeerTable| {
            let mut events = t.proved(key.peer, key.instance, addr, now);
            let heard = t.admit(announce, &self.ctx.network, key, addr, Via::Session, unix_ms, now).unwrap_or_default();
            events.extend(heard.events);
            (events, heard.news)
        };
        let (events, news) = self.ctx.peers.touch(admit);
        self.ctx.events.emit_all(events);
        if news {
            self.ctx.peers.wake();
        }
    }

    fn note_failure(&self, record: &PeerRecord, addr: SocketAddr, e: &AskError) {
        let (peer, now) = (record.peer, Instant::now());
        match e {
            AskError::Refused(reason) => {
                warn!("refused peer={peer} addr={addr} reason={reason:?}");
                self.ctx.peers.update(|t| t.refused(peer, addr, now));
            }
            AskError::Busy(wait) => info!("busy peer={peer} addr={addr} retry_ms={}", wait.as_millis()),
            AskError::Untrusted | AskError::NoAddress => {}
            AskError::Stream(_) | AskError::Protocol(_) => {
                info!("unreachable peer={peer} addr={addr} error={e}");
                self.ctx.peers.touch(|t| t.failed(peer, record.instance, addr, now));
            }
        }
    }
}
