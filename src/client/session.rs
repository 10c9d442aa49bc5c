//! A dialed session that has said hello: ask, and get the answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::client::ClientContext;
use crate::client::limits::{BODY_STEP, DIAL_QUICK, DIAL_TIMEOUT, SKIP_STEP};
use crate::identity::{NodeId, PeerId};
use crate::limits::{CHUNKS_MAX, FILE_LEN_MAX, HANDSHAKE_TIMEOUT, RESPONSE_BODY_LEN_MAX, WIRE_VERSION};
use crate::net::{Dialed, StreamError};
use crate::proto::{
    FramePrefix, Hello, Kind, MessageError, Problem, Request, Status, Welcome, decode_body, decode_header,
    encode_request,
};
use crate::runtime::OnBegin;

/// A dialed session that has said hello and was welcomed.
pub struct Session {
    /// The stream.
    pub dialed: Dialed,
    /// The key that TLS proved.
    pub peer: PeerId,
    /// Its instance, as it said in `Welcome`.
    pub instance: u64,
    /// Where it is.
    pub addr: SocketAddr,
    /// What it said of itself.
    pub welcome: Welcome,
    /// Whether it served an earlier task, so that it may have been closed since.
    pub reused: bool,
    /// Keeps the peer in the table while the session lives.
    pub life: Option<Life>,
    /// Cuts it off when the node ends, whatever it is waiting for.
    _held: OnBegin,
    header: Vec<u8>,
    out: Vec<u8>,
}

/// Tells the peer table that a session is there, and when it is not any more.
pub struct Life {
    ctx: Arc<ClientContext>,
    key: NodeId,
}

impl Life {
    /// The session with `key` began.
    pub fn begin(ctx: Arc<ClientContext>, key: NodeId) -> Self {
        ctx.peers.touch(|t| t.session_opened(key.peer, key.instance));
        Life { ctx, key }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let events = self.ctx.peers.touch(|t| t.session_closed(self.key.peer, self.key.instance, Instant::now()));
        if !events.is_empty() {
            self.ctx.peers.wake();
        }
        self.ctx.events.emit_all(events);
    }
}

/// Why a peer was not reached or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Its key is not in the trusted set.
    #[error("not trusted")]
    Untrusted,
    /// It refused this node.
    #[error("refused: {0}")]
    Refused(String),
    /// It is full and asks to be left alone for so long.
    #[error("busy for {0:?}")]
    Busy(Duration),
    /// The session failed.
    #[error("{0}")]
    Stream(#[from] StreamError),
    /// It does not keep to the protocol.
    #[error("{0}")]
    Protocol(String),
    /// No address is known.
    #[error("no address")]
    NoAddress,
}

impl From<MessageError> for AskError {
    fn from(e: MessageError) -> Self {
        AskError::Protocol(e.to_string())
    }
}

impl Session {
    /// Dials `peer` at `addr`, and says hello.
    pub fn open(ctx: &ClientContext, peer: PeerId, addr: SocketAddr, dial: Duration) -> Result<Self, AskError> {
        let (dialed, held) = Dialed::dial_held(addr, Some(peer), &ctx.tls, dial, |socket| ctx.shutdown.cuts(socket))?;
        let hello = Request::Hello(Hello {
            version: WIRE_VERSION,
            network: ctx.network.clone(),
            instance: ctx.instance,
            announce: (ctx.announce)(),
            agent: ctx.agent.clone(),
        });
        let mut session = Session {
            dialed,
            peer,
            instance: 0,
            addr,
            welcome: Welcome {
                version: 0,
                instance: 0,
                revision: 0,
                files: 0,
                bytes: 0,
                announce: Vec::new(),
                agent: String::new(),
            },
            reused: false,
            life: None,
            _held: held,
            header: Vec::new(),
            out: Vec::new(),
        };
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        session.send(&[hello], deadline)?;
        let (status, _) = session.receive(Kind::Hello, deadline)?;
        if status != Status::Ok {
            return Err(session.problem(status));
        }
        session.welcome = decode_header(&session.header, "Welcome")?;
        session.instance = session.welcome.instance;
        Ok(session)
    }

    /// Dials the first of several addresses that answers. With more than one, each gets a short time first: on a
    /// local network a peer answers in milliseconds, and a dead address would hold up the others for seconds.
    pub fn open_any(ctx: &ClientContext, peer: PeerId, addrs: &[SocketAddr]) -> Result<Self, (AskError, SocketAddr)> {
        let mut last = None;
        let quick = (addrs.len() > 1).then_some(DIAL_QUICK);
        'all: for limit in quick.into_iter().chain([DIAL_TIMEOUT]) {
            for &addr in addrs {
                match Session::open(ctx, peer, addr, limit) {
                    Ok(session) => return Ok(session),
                    Err(e @ (AskError::Refused(_) | AskError::Busy(_))) => return Err((e, addr)),
                    Err(e) => last = Some((e, addr)),
                }
                if ctx.shutdown.has_begun() {
                    break 'all;
                }
            }
        }
        Err(last.unwrap_or((AskError::NoAddress, SocketAddr::from(([0, 0, 0, 0], 0)))))
    }

    /// Sends requests; their answers come in the same order.
    pub fn send(&mut self, requests: &[Request], deadline: Instant) -> Result<(), AskError> {
        self.out.clear();
        for request in requests {
            encode_request(request, &mut self.out);
        }
        Ok(self.dialed.send(&self.out, deadline)?)
    }

    /// Sends whole frames.
    pub fn send_frames(&mut self, frames: &[u8], deadline: Instant) -> Result<(), AskError> {
        Ok(self.dialed.send(frames, deadline)?)
    }

    /// Reads the beginning of the next answer, which must be of `kind`; its body of so many bytes is still to be read.
    pub fn receive_head(&mut self, kind: Kind, body_max: usize, deadline: Instant) -> Result<(Status, u32), AskError> {
        let prefix: FramePrefix = self.dialed.read_head(&mut self.header, deadline)?;
        let status = prefix.check_response(body_max).map_err(StreamError::from)?;
        if prefix.kind != kind as u8 {
            return Err(AskError::Protocol(format!("answer of kind {} to {kind:?}", prefix.kind)));
        }
        Ok((status, prefix.body_len))
    }

    /// Reads the next answer with its whole body.
    pub fn receive(&mut self, kind: Kind, deadline: Instant) -> Result<(Status, Vec<u8>), AskError> {
        let (status, len) = self.receive_head(kind, RESPONSE_BODY_LEN_MAX, deadline)?;
        let body = self.body(len, deadline)?;
        Ok((status, body))
    }

    /// Reads the next answer, whatever it is, and forgets it. Returns how many bytes its body had.
    pub fn skip(&mut self, deadline: Instant) -> Result<u32, AskError> {
        let prefix = self.dialed.read_head(&mut self.header, deadline)?;
        prefix.check_response(RESPONSE_BODY_LEN_MAX.max(CHUNK_BODY_LEN_MAX)).map_err(StreamError::from)?;
        let mut left = prefix.body_len as usize;
        let mut sink = vec![0; left.min(SKIP_STEP)];
        while left > 0 {
            let n = left.min(SKIP_STEP);
            self.dialed.read_until(&mut sink[..n], deadline)?;
            left -= n;
        }
        Ok(prefix.body_len)
    }

    /// Reads a body of `len` bytes, which was checked against its bound. Memory grows with what really comes.
    pub fn body(&mut self, len: u32, deadline: Instant) -> Result<Vec<u8>, AskError> {
        let mut body = Vec::new();
        while body.len() < len as usize {
            let at = body.len();
            body.resize((at + BODY_STEP).min(len as usize), 0);
            self.dialed.read_until(&mut body[at..], deadline)?;
        }
        Ok(body)
    }

    /// The header of the last answer.
    pub fn header<T: DeserializeOwned>(&self, what: &'static str) -> Result<T, AskError> {
        Ok(decode_header(&self.header, what)?)
    }

    /// Asks one thing whose answer is a postcard body; `None` when the peer cannot answer it.
    pub fn ask_body<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        what: &'static str,
        deadline: Instant,
    ) -> Result<Option<T>, AskError> {
        self.send(std::slice::from_ref(request), deadline)?;
        match self.receive(request.kind(), deadline)? {
            (Status::Ok, body) => Ok(Some(decode_body(&body, what)?)),
            (status @ (Status::Busy | Status::Refused), _) => Err(self.problem(status)),
            _ => Ok(None),
        }
    }

    /// What an answer other than `Ok` means.
    pub fn problem(&self, status: Status) -> AskError {
        let problem: Problem = decode_header(&self.header, "Problem").unwrap_or_default();
        match status {
            Status::Refused => {
                AskError::Refused(problem.reason.chars().filter(|c| !c.is_control()).take(200).collect())
            }
            Status::Busy => AskError::Busy(Duration::from_millis(problem.retry_after_ms as u64)),
            other => AskError::Protocol(format!("unexpected answer {other:?}")),
        }
    }
}

/// The longest body of a chunk, with its trailer.
const CHUNK_BODY_LEN_MAX: usize = (FILE_LEN_MAX / CHUNKS_MAX) as usize + 1;
