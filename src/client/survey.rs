//! Asks every peer the same, as they appear.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::unbounded;
use log::{debug, warn};

use crate::client::error::weigh_refusal;
use crate::client::findings::{Findings, FoundFile};
use crate::client::limits::{LIST_QUIET, PATTERNS_AT_ONCE, RESOLVE_MAX};
use crate::client::{ClientContext, FetchError};
use crate::content::Pattern;
use crate::identity::{NodeId, PeerId};
use crate::limits::{CATALOGUE_ENTRIES_MAX, HANDSHAKE_TIMEOUT, LIST_PAGE_LEN, RETRY_MIN};
use crate::peers::PeerPool;
use crate::peers::{AskError, Session};
use crate::proto::{Kind, ListFrom, Listed, PageHead, Request, Status, decode_body};
use crate::runtime::BlockingPool;
use crate::swarm::PeerRecord;

/// A peer that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPeer {
    /// Its key.
    pub peer: PeerId,
    /// Its instance.
    pub instance: u64,
    /// Where it answered.
    pub addr: SocketAddr,
    /// Files that it offers.
    pub files: u64,
    /// Bytes that it offers.
    pub bytes: u64,
    /// Time since it was last heard, in ms.
    pub age_ms: u64,
}

/// Asks who is there. Complete [`LIST_QUIET`] after the last new peer, or when `wait` is over; sorted by key.
///
/// # Errors
/// [`FetchError::Refused`] and [`FetchError::NoPeer`] when nobody answered; [`FetchError::Interrupted`] when the node
/// ends.
pub fn peers(
    ctx: &Arc<ClientContext>,
    pool: &Arc<PeerPool>,
    crew: &BlockingPool,
    wait: Duration,
) -> Result<Vec<FoundPeer>, FetchError> {
    let mut found = Vec::new();
    let begin = Instant::now();
    let ask =
        |session: &mut Session| Ok((session.addr, session.instance, session.welcome.files, session.welcome.bytes));
    survey(ctx, pool, crew, ask, |tally, news| {
        if let Some((record, (addr, instance, files, bytes))) = news {
            let age_ms = record.heard.elapsed().as_millis() as u64;
            found.push(FoundPeer { peer: record.peer, instance, addr, files, bytes, age_ms });
        }
        tally.listing_end(begin, wait)
    })?
    .check("peers", wait)?;
    found.sort_unstable_by_key(|p| (p.peer, p.instance));
    found.dedup_by_key(|p| (p.peer, p.instance));
    Ok(found)
}

/// Asks what there is that one of `patterns` means; everything without any. Complete [`LIST_QUIET`] after the last new
/// peer when all have answered, or when `wait` is over; sorted by path.
///
/// # Errors
/// As [`peers`], and [`FetchError::Pattern`].
pub fn list(
    ctx: &Arc<ClientContext>,
    pool: &Arc<PeerPool>,
    crew: &BlockingPool,
    patterns: &[String],
    wait: Duration,
) -> Result<Vec<FoundFile>, FetchError> {
    for text in patterns {
        Pattern::parse(text).map_err(|source| FetchError::Pattern { text: text.clone(), source })?;
    }
    let mut findings = Findings::default();
    let begin = Instant::now();
    survey(ctx, pool, crew, lister(patterns, wait), |tally, news| {
        if let Some((record, listed)) = news {
            findings.add(NodeId::new(record.peer, record.instance), listed.shared, listed.files);
        }
        tally.listing_end(begin, wait)
    })?
    .check(patterns.first().map_or("list", |p| p), wait)?;
    Ok(findings.into_files())
}

/// How far a survey is.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Peers that answered.
    pub(crate) answered: usize,
    /// Peers that refused, or that were refused by.
    pub(crate) refused: usize,
    /// Why one of them did, if it said so.
    pub(crate) refusal: String,
    /// Sessions that said hello, whether an answer came on them or not.
    pub(crate) connected: usize,
    /// Peers that are being asked.
    pub(crate) pending: usize,
    /// Peers that the user named and that could not be asked yet.
    pub(crate) awaited: usize,
    /// When the last new peer appeared.
    pub(crate) last_peer: Option<Instant>,
    /// When the first one answered, and the last one.
    pub(crate) first_answer: Option<Instant>,
    pub(crate) last_answer: Option<Instant>,
    pub(crate) first_refusal: Option<Instant>,
}

impl Tally {
    /// When a listing is complete.
    fn listing_end(&self, begin: Instant, wait: Duration) -> Instant {
        let end = begin + wait;
        match self.last_peer {
            Some(last) if self.pending == 0 && self.answered > 0 => end.min(last + LIST_QUIET),
            // Those that refuse may not be all: others have a moment to appear.
            _ if self.pending == 0 && self.answered == 0 => {
                self.first_refusal.map_or(end, |at| end.min(at + RESOLVE_MAX))
            }
            _ => end,
        }
    }

    /// Whether anyone answered; `what` was asked, for so long.
    pub(crate) fn check(&self, what: &str, wait: Duration) -> Result<(), FetchError> {
        match (self.answered, self.refused) {
            (0, 0) if self.connected > 0 => Err(FetchError::Silent { what: what.into(), wait }),
            (0, 0) => Err(FetchError::NoPeer(wait)),
            (0, refused) => Err(FetchError::Refused { refused, reason: self.refusal.clone() }),
            _ => Ok(()),
        }
    }
}

/// What the threads of a survey tell.
enum News<T> {
    Connected,
    Answer(PeerRecord, Result<T, AskError>),
}

/// Contacts every known peer and those that appear, and calls `ask` with each session on threads of `crew`. `decide`
/// hears each answer, and says after every change when the survey ends.
pub(crate) fn survey<T: Send + 'static>(
    ctx: &Arc<ClientContext>,
    pool: &Arc<PeerPool>,
    crew: &BlockingPool,
    ask: impl Fn(&mut Session) -> Result<T, AskError> + Clone + Send + 'static,
    mut decide: impl FnMut(&Tally, Option<(&PeerRecord, T)>) -> Instant,
) -> Result<Tally, FetchError> {
    let mut tally = Tally::default();
    // How often each peer was tried, and when it may be tried again.
    let mut contacted: HashMap<NodeId, (u32, Option<Instant>)> = HashMap::new();
    let (tell, answers) = unbounded();
    let mut known_changes = None;
    loop {
        let changes = ctx.peers.changes();
        let now = Instant::now();
        if ctx.shutdown.has_begun() {
            return Err(FetchError::Interrupted);
        }
        for news in answers.try_iter() {
            let (record, answer): (PeerRecord, Result<T, AskError>) = match news {
                News::Connected => {
                    tally.connected += 1;
                    continue;
                }
                News::Answer(record, answer) => (record, answer),
            };
            tally.pending -= 1;
            match answer {
                Ok(answer) => {
                    tally.answered += 1;
                    tally.first_answer.get_or_insert(now);
                    tally.last_answer = Some(now);
                    decide(&tally, Some((&record, answer)));
                }
                Err(AskError::Refused(reason)) => {
                    tally.refused += 1;
                    weigh_refusal(&mut tally.refusal, reason);
                    tally.first_refusal.get_or_insert(now);
                }
                Err(AskError::Untrusted(_)) => {}
                Err(e) => {
                    debug!("no answer peer={} error={e}", record.peer);
                    let entry = contacted.entry(NodeId::new(record.peer, record.instance)).or_default();
                    let wait = if let AskError::Busy(wait) = e { wait } else { RETRY_MIN * (1 << entry.0.min(5)) };
                    entry.1 = Some(now + wait);
                }
            }
        }
        if known_changes != Some(changes) || contacted.values().any(|c| c.1.is_some_and(|at| at <= now)) {
            known_changes = Some(changes);
            for record in ctx.peers.read(|t| t.peers()) {
                let entry = contacted.entry(NodeId::new(record.peer, record.instance)).or_default();
                if entry.0 > 0 && entry.1.is_none_or(|at| at > now) {
                    continue;
                }
                if entry.0 == 0 && ctx.trust.allows(&record.peer) {
                    tally.last_peer = Some(now);
                }
                *entry = (entry.0 + 1, None);
                let (pool, ask, tell, ctx) = (pool.clone(), ask.clone(), tell.clone(), ctx.clone());
                tally.pending += 1;
                let task = move || {
                    let answer = pool.checkout(&record).and_then(|session| {
                        // Known at once: the survey may well end before the answer does not come.
                        let _ = tell.send(News::Connected);
                        ask_once(&pool, session, &record, &ask)
                    });
                    let _ = tell.send(News::Answer(record, answer));
                    ctx.peers.wake();
                };
                crew.spawn(task).map_err(FetchError::Threads)?;
            }
        }
        let refusals;
        (refusals, tally.awaited) = ctx.peers.read(|t| (t.refusals(), t.awaited()));
        if refusals > tally.refused {
            tally.refused = refusals;
            tally.first_refusal.get_or_insert(now);
        }
        let end = decide(&tally, None);
        if end <= now {
            return Ok(tally);
        }
        let retry = contacted.values().filter_map(|c| c.1).min().unwrap_or(end);
        let wait = end.min(retry).saturating_duration_since(now).max(Duration::from_millis(1));
        ctx.peers.wait_beyond(changes, wait);
    }
}

/// Asks over `session`; a session that lay idle and was closed meanwhile is replaced once.
fn ask_once<T>(
    pool: &PeerPool,
    mut session: Session,
    record: &PeerRecord,
    ask: &impl Fn(&mut Session) -> Result<T, AskError>,
) -> Result<T, AskError> {
    let answer = match ask(&mut session) {
        Err(AskError::Stream(_)) if session.reused => {
            session = pool.checkout(record)?;
            ask(&mut session)
        }
        answer => answer,
    };
    if answer.is_ok() {
        pool.checkin(session);
    }
    answer
}

/// What one peer listed.
pub(crate) struct Offer {
    /// It shares a directory; otherwise this is what it has fetched.
    pub(crate) shared: bool,
    pub(crate) files: Vec<Listed>,
}

/// Asks for everything that one of `patterns` means. Whoever says nothing for `timeout`, or [`HANDSHAKE_TIMEOUT`] if
/// that is less, does not answer.
pub(crate) fn lister(
    patterns: &[String],
    timeout: Duration,
) -> impl Fn(&mut Session) -> Result<Offer, AskError> + Clone + use<> {
    let patience = timeout.min(HANDSHAKE_TIMEOUT);
    let patterns: Arc<[String]> = match patterns {
        [] => [String::new()].into(),
        some => some.into(),
    };
    move |session| {
        let mut all = Vec::new();
        for batch in patterns.chunks(PATTERNS_AT_ONCE) {
            let first = |pattern: &String| ListFrom { pattern: pattern.clone(), after: String::new(), revision: 0 };
            let requests: Vec<Request> = batch.iter().map(|p| Request::List(first(p))).collect();
            session.send(&requests, Instant::now() + patience)?;
            // Pages that go on are asked for when all first ones have come, since answers keep the order.
            let mut more: Vec<(String, String)> = Vec::new();
            for pattern in batch {
                if let Some(after) = page(session, &mut all, "", patience)? {
                    more.push((pattern.clone(), after));
                }
            }
            for (pattern, mut after) in more {
                loop {
                    let from = ListFrom { pattern: pattern.clone(), after: after.clone(), revision: 0 };
                    session.send(&[Request::List(from)], Instant::now() + patience)?;
                    match page(session, &mut all, &after, patience)? {
                        Some(next) => after = next,
                        None => break,
                    }
                }
            }
        }
        Ok(Offer { shared: session.welcome.revision > 0, files: all })
    }
}

/// Takes one page; returns where the next one begins, if there is one.
fn page(
    session: &mut Session,
    all: &mut Vec<Listed>,
    after: &str,
    patience: Duration,
) -> Result<Option<String>, AskError> {
    let deadline = Instant::now() + patience;
    let (status, len) = session.receive_head(Kind::List, LIST_PAGE_LEN * 2, deadline)?;
    let body = session.body(len, deadline)?;
    if status != Status::Ok {
        return match status {
            Status::NotFound | Status::NotModified => Ok(None),
            _ => Err(session.problem(status)),
        };
    }
    let head: PageHead = session.header("List")?;
    let page: Vec<Listed> = decode_body(&body, "List")?;
    // Only a page that goes on behind the last one makes an end certain.
    let last = page.last().map(|l| l.path.as_str().to_string()).filter(|last| last.as_str() > after);
    if all.len() + page.len() > CATALOGUE_ENTRIES_MAX {
        warn!("list cut off peer={} entries={}", session.peer, all.len());
        return Ok(None);
    }
    all.extend(page);
    Ok(last.filter(|_| head.more))
}
