//! One contact with a peer: who are you, and whom do you know.

use crate::identity::NodeId;
use std::net::SocketAddr;
use std::time::Instant;

use crate::discovery::Shared;
use crate::discovery::limits::{CONTACT_TIMEOUT, EXCHANGE_PAGES_IN_VAIN};
use crate::identity::PeerId;
use crate::limits::{EXCHANGE_PAGES_MAX, PEERS_ANSWER_LEN_MAX, PEERS_PER_ANSWER_MAX, REASON_SHOWN_MAX, WIRE_VERSION};
use crate::net::{Dialed, StreamError, Tls};
use crate::proto::{
    FrameError, Hello, MessageError, PeerHint, Problem, Request, Status, Welcome, decode_body, decode_header,
    encode_request,
};
use crate::swarm::{Dropped, PeerTable};

/// Why a contact brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContactError {
    #[error("{0}")]
    Stream(#[from] StreamError),
    #[error("{0}")]
    Message(#[from] MessageError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("its key is not trusted: {0}")]
    Untrusted(PeerId),
    #[error("it refuses this node: {0:?}")]
    Refused(String),
    #[error("it answers with {0:?}")]
    Status(Status),
    #[error("its announce is dropped: {0}")]
    Dropped(#[from] Dropped),
}

/// Contacts the peer at `addr` (that peer, if one is expected), takes in its announce and those that it knows of.
pub(super) fn contact(
    shared: &Shared,
    tls: &Tls,
    addr: SocketAddr,
    expect: Option<PeerId>,
) -> Result<PeerId, ContactError> {
    let deadline = Instant::now() + CONTACT_TIMEOUT;
    let hold = |socket| shared.shutdown.cuts(socket);
    let (mut session, _held) = Dialed::dial_held(addr, expect, tls, CONTACT_TIMEOUT, hold)?;
    let peer = session.peer();
    if !shared.intake.trusts(&peer) {
        shared.intake.refused(peer, addr, Instant::now());
        session.close();
        return Err(ContactError::Untrusted(peer));
    }
    let mut frames = Vec::new();
    let NodeId { instance, .. } = shared.announcer.own();
    let hello = Hello {
        version: WIRE_VERSION,
        network: shared.announcer.network().into(),
        instance,
        announce: shared.announcer.current().as_bytes().to_vec(),
        agent: shared.agent.clone(),
    };
    // Both at once: the answers come in order, and a refusal comes first.
    encode_request(&Request::Hello(hello), &mut frames);
    encode_request(&Request::Peers(None), &mut frames);
    session.send(&frames, deadline)?;

    let (header, _) = answer(&mut session, shared, 0, deadline)?;
    let welcome: Welcome = decode_header(&header, "Hello")?;
    if NodeId::new(peer, welcome.instance) != shared.announcer.own() {
        match shared.intake.welcome(&welcome.announce, NodeId::new(peer, welcome.instance), addr, Instant::now()) {
            // A session brings what multicast has brought already, maybe in another order.
            Ok(()) | Err(Dropped::Replayed) => {}
            Err(reason) => return Err(reason.into()),
        }
    }
    let told = pages(&mut session, shared, deadline);
    session.close();
    log::debug!("peers exchanged peer={peer} addr={addr} told={}", told?);
    Ok(peer)
}

/// Takes in whom the peer knows, page by page, the first of which has been asked for: its answers take turns through
/// its table, and those of other askers with them. How many it told of.
fn pages(session: &mut Dialed, shared: &Shared, deadline: Instant) -> Result<usize, ContactError> {
    let nodes = || shared.table.read(PeerTable::nodes);
    let (mut told, mut in_vain) = (0, 0);
    for page in 1.. {
        let (_, body) = answer(session, shared, PEERS_ANSWER_LEN_MAX, deadline)?;
        let hints: Vec<PeerHint> = decode_body(&body, "Peers")?;
        let before = nodes();
        shared.intake.hints(&hints, session.addr().ip(), Instant::now());
        told += hints.len();
        in_vain = if nodes() > before { 0 } else { in_vain + 1 };
        let all = hints.len() < PEERS_PER_ANSWER_MAX || in_vain == EXCHANGE_PAGES_IN_VAIN;
        if all || page == EXCHANGE_PAGES_MAX || shared.shutdown.has_begun() {
            break;
        }
        let mut frames = Vec::new();
        encode_request(&Request::Peers(None), &mut frames);
        session.send(&frames, deadline)?;
    }
    Ok(told)
}

/// Reads one answer: its header and its body of at most `body_max` bytes.
fn answer(
    session: &mut Dialed,
    shared: &Shared,
    body_max: usize,
    deadline: Instant,
) -> Result<(Vec<u8>, Vec<u8>), ContactError> {
    let mut header = Vec::new();
    let prefix = session.read_head(&mut header, deadline)?;
    let status = prefix.check_response(body_max)?;
    let mut body = vec![0; prefix.body_len as usize];
    session.read_until(&mut body, deadline)?;
    match status {
        Status::Ok => Ok((header, body)),
        Status::Refused => {
            shared.intake.refused(session.peer(), session.addr(), Instant::now());
            let problem: Problem = decode_header(&header, "Problem").unwrap_or_default();
            Err(ContactError::Refused(problem.reason.chars().take(REASON_SHOWN_MAX).collect()))
        }
        other => Err(ContactError::Status(other)),
    }
}
