//! Peer exchange (PEX, BEP 11): one contact with a peer asks for its announce and for the peers
//! that it knows.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::discovery::DiscoveryContext;
use crate::discovery::limits::{CONTACT_TIMEOUT, EXCHANGE_PAGES_IN_VAIN};
use crate::identity::PeerId;
use crate::limits::{EXCHANGE_PAGES_MAX, PEERS_ANSWER_LEN_MAX, PEERS_PER_ANSWER_MAX};
use crate::peers::{AskError, Call, Opening, Session};
use crate::proto::{Kind, PeerHint, Request, Status, decode_body, encode_request};
use crate::swarm::{ContactSource, Dropped, PeerTable};

/// Why a contact brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContactError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("its announce is dropped: {0}")]
    Dropped(Dropped),
    #[error("this node itself is there")]
    Itself,
}

/// Contacts the peer at `addr`, which must be `expect` if given, which gets `time` for connecting and the
/// handshake, and takes in its announce and its hints. `source` is why, unless the group named it.
pub(super) fn contact(
    shared: &DiscoveryContext,
    addr: SocketAddr,
    expect: Option<PeerId>,
    source: Option<ContactSource>,
    time: Duration,
) -> Result<PeerId, ContactError> {
    let deadline = Instant::now() + CONTACT_TIMEOUT;
    let call = Call { addr, expect, dial_timeout: time.min(CONTACT_TIMEOUT), welcome_by: Some(deadline) };
    // All goes out at once: answers keep the order, and a refusal comes first.
    let mut opening = Opening::default();
    let mut session = shared.dialer.open(&call, &mut |peer, _, out| {
        encode_request(&Request::Peers(None), out);
        // A survey asks those that are known on sessions of its own.
        if shared.directory().read(|t| t.last_seen(peer).is_none()) {
            opening = shared.dialer.handover().opening();
        }
        opening.iter().for_each(|request| encode_request(request, out));
    })?;
    session.set_asked(opening);
    let peer = session.peer;
    if let Some(source) = source {
        shared.directory().contacted(session.node(), source);
    }
    match session.announced {
        // A remembered peer of the same key was there, and is not: a success would have it dialed again and again.
        Err(Dropped::Own) if expect.is_some() => return Err(ContactError::Itself),
        // The address may be this node's own. Multicast may have brought a newer announce already.
        Ok(()) | Err(Dropped::Own | Dropped::Replayed) => {}
        Err(reason) => return Err(ContactError::Dropped(reason)),
    }
    let hints = read_pages(&mut session, shared, deadline);
    match &hints {
        Ok(_) => session.hand_over(),
        Err(_) => session.close(),
    }
    log::debug!("peers exchanged peer={peer} addr={addr} hints={}", hints?);
    Ok(peer)
}

/// Takes in the hints of the peer, page by page, of which the first has been asked for; returns
/// their number. A peer pages through its table for all that ask it together, so a page may repeat
/// hints.
fn read_pages(session: &mut Session, shared: &DiscoveryContext, deadline: Instant) -> Result<usize, AskError> {
    let directory = shared.dialer.directory();
    let nodes = || directory.read(PeerTable::nodes);
    let (mut total, mut in_vain) = (0, 0);
    for page in 1.. {
        let (status, len) = session.receive_head(Kind::Peers, PEERS_ANSWER_LEN_MAX, deadline)?;
        let body = session.body(len, deadline)?;
        if status != Status::Ok {
            return Err(session.problem(status));
        }
        let hints: Vec<PeerHint> = decode_body(&body, "Peers")?;
        let before = nodes();
        directory.hints(&hints, session.addr.ip(), Instant::now());
        total += hints.len();
        in_vain = if nodes() > before { 0 } else { in_vain + 1 };
        // What a survey asked follows: the rest of a large group comes with the next contact.
        let all = hints.len() < PEERS_PER_ANSWER_MAX || in_vain == EXCHANGE_PAGES_IN_VAIN || !session.is_settled();
        if all || page == EXCHANGE_PAGES_MAX || shared.shutdown.has_begun() {
            break;
        }
        session.send(&[Request::Peers(None)], deadline)?;
    }
    Ok(total)
}
