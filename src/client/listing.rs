//! The listings of peers: the names and contents that each of them offers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::warn;

use crate::client::limits::PATTERNS_AT_ONCE;
use crate::limits::{CATALOGUE_ENTRIES_MAX, HANDSHAKE_TIMEOUT, LIST_PAGE_LEN};
use crate::peers::{AskError, Session};
use crate::proto::{Kind, ListFrom, Listed, PageHead, Request, Status, decode_body};

/// The listing of one peer.
pub(crate) struct PeerListing {
    /// Whether the peer shares a directory; otherwise it lists what it has fetched.
    pub(crate) shared: bool,
    /// The files, sorted by path for each pattern.
    pub(crate) files: Vec<Listed>,
}

/// A question for everything that one of `patterns` means. A peer that sends nothing for `timeout`,
/// or [`HANDSHAKE_TIMEOUT`] if that is less, counts as silent.
pub(crate) fn lister(
    patterns: &[String],
    timeout: Duration,
) -> impl Fn(&mut Session) -> Result<PeerListing, AskError> + Clone + use<> {
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
            // The next pages are asked for when all first ones have come, since answers keep the
            // order.
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
        Ok(PeerListing { shared: session.welcome.revision > 0, files: all })
    }
}

/// Appends one page to `all`; returns where the next one begins, if there is one.
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
    // Only pages that advance make sure that there is a last one.
    let last = page.last().map(|l| l.path.as_str().to_string()).filter(|last| last.as_str() > after);
    if all.len() + page.len() > CATALOGUE_ENTRIES_MAX {
        warn!("list cut off peer={} entries={}", session.peer, all.len());
        return Ok(None);
    }
    all.extend(page);
    Ok(last.filter(|_| head.more))
}
