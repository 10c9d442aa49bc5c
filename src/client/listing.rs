//! The listings of peers: the names and contents that each of them offers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use log::warn;

use crate::client::limits::{LISTING_LEN_MAX, LISTINGS_LEN_MAX, PATTERNS_AT_ONCE};
use crate::content::{FileId, Pattern, PatternKind, RelPath};
use crate::identity::PeerId;
use crate::limits::{CATALOGUE_ENTRIES_MAX, HANDSHAKE_TIMEOUT, LIST_PAGE_LEN};
use crate::peers::{AskError, Session};
use crate::proto::{Kind, ListFrom, Listed, PageHead, Request, Status, decode_borrowed};

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
) -> impl Fn(&mut Session, &AtomicBool) -> Result<PeerListing, AskError> + Clone + use<> {
    let patience = timeout.min(HANDSHAKE_TIMEOUT);
    let patterns: Arc<[String]> = match patterns {
        [] => [String::new()].into(),
        some => some.into(),
    };
    let total = Arc::new(AtomicUsize::new(0));
    move |session, over| {
        let mut all = Taken::new(total.clone());
        for batch in patterns.chunks(PATTERNS_AT_ONCE) {
            let first = |pattern: &String| ListFrom { pattern: pattern.clone(), after: String::new(), revision: 0 };
            let requests: Vec<Request> = batch.iter().map(|p| Request::List(first(p))).collect();
            session.send(&requests, Instant::now() + patience)?;
            // The next pages are asked for when all first ones have come, since answers keep the
            // order.
            let mut more: Vec<(String, String)> = Vec::new();
            for pattern in batch {
                all.ask(pattern);
                if let Some(after) = page(session, &mut all, "", patience)? {
                    more.push((pattern.clone(), after));
                }
            }
            for (pattern, mut after) in more {
                all.ask(&pattern);
                loop {
                    // The question is answered, while a peer may list for as long as it likes.
                    if over.load(Ordering::Acquire) {
                        return Err(AskError::Protocol("its listing is not needed".into()));
                    }
                    let from = ListFrom { pattern: pattern.clone(), after: after.clone(), revision: 0 };
                    session.send(&[Request::List(from)], Instant::now() + patience)?;
                    match page(session, &mut all, &after, patience)? {
                        Some(next) => after = next,
                        None => break,
                    }
                }
            }
        }
        Ok(PeerListing { shared: session.welcome.revision > 0, files: all.into_files() })
    }
}

/// The files of one peer's listing that were taken in.
///
/// A peer may list anything, and for as long as it likes. So names that the pattern does not mean are dropped as they
/// come, and the memory of all listings of a question together is bounded.
struct Taken {
    files: Vec<Listed>,
    /// What the page is to match; everything without one.
    pattern: Option<Pattern>,
    /// Memory that the files take, in bytes, and its bound.
    len: usize,
    len_max: usize,
    /// The same of all peers together.
    total: Arc<AtomicUsize>,
    /// A name that cannot be one was logged.
    logged: bool,
}

impl Taken {
    fn new(total: Arc<AtomicUsize>) -> Self {
        Taken { files: Vec::new(), pattern: None, len: 0, len_max: 0, total, logged: false }
    }

    /// The next page answers `pattern`. One name or directory is worth less memory than everything there is.
    fn ask(&mut self, pattern: &str) {
        self.pattern = Pattern::parse(pattern).ok();
        self.len_max = match self.pattern.as_ref().map(Pattern::kind) {
            Some(PatternKind::Path { glob: None, .. } | PatternKind::Root(..)) => LISTING_LEN_MAX,
            _ => LISTINGS_LEN_MAX,
        };
    }

    fn into_files(mut self) -> Vec<Listed> {
        std::mem::take(&mut self.files)
    }

    /// Takes in one entry of a page; false when there is no room for it.
    fn add(&mut self, path: &str, id: FileId, peer: &PeerId) -> bool {
        if self.pattern.as_ref().is_some_and(|pattern| !pattern.matches(path, &id)) {
            return true;
        }
        let path = match RelPath::new(path) {
            Ok(path) => path,
            Err(e) => {
                if !std::mem::replace(&mut self.logged, true) {
                    warn!("name left out of a listing peer={peer} path={path:?} error=\"{e}\"");
                }
                return true;
            }
        };
        let len = size_of::<Listed>() + path.as_str().len();
        if self.len + len > self.len_max
            || self.files.len() >= CATALOGUE_ENTRIES_MAX
            || self.total.fetch_add(len, Ordering::Relaxed) + len > LISTINGS_LEN_MAX
        {
            return false;
        }
        self.len += len;
        self.files.push(Listed { path, id });
        true
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // The listing of a peer that failed is not kept.
        if !self.files.is_empty() {
            self.total.fetch_sub(self.len, Ordering::Relaxed);
        }
    }
}

/// Appends one page to `all`; returns where the next one begins, if there is one.
fn page(session: &mut Session, all: &mut Taken, after: &str, patience: Duration) -> Result<Option<String>, AskError> {
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
    // A name that cannot be one costs its entry and not the peer.
    let page: Vec<(&str, FileId)> = decode_borrowed(&body, "List")?;
    // Only pages that advance make sure that there is a last one.
    let last = page.last().map(|(path, _)| *path).filter(|last| *last > after);
    for (path, id) in &page {
        if !all.add(path, *id, &session.peer) {
            warn!("listing cut off peer={} entries={}", session.peer, all.files.len());
            return Ok(None);
        }
    }
    Ok(last.filter(|_| head.more).map(str::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};

    const PEER: PeerId = PeerId([1; 32]);

    fn id(n: u8) -> FileId {
        FileId { root: Root(Digest([n; 32])), len: 5 }
    }

    #[test]
    fn a_listing_is_bounded_and_has_only_what_was_asked_for() {
        let total = Arc::new(AtomicUsize::new(0));
        let mut taken = Taken::new(total.clone());
        taken.ask("f1");
        assert!(taken.add("other", id(1), &PEER) && taken.add("f1", id(1), &PEER) && taken.add("f1/\0", id(1), &PEER));
        assert_eq!(taken.files.len(), 1, "neither another name nor one that cannot be");
        let long = "x".repeat(200);
        let added = (0..).take_while(|n| taken.add(&format!("f1/{long}{n}"), id(1), &PEER)).count();
        assert!(taken.len <= LISTING_LEN_MAX && added > LISTING_LEN_MAX / 400, "{added}");
        let mut all = Taken::new(total.clone());
        all.ask("**");
        while all.add(&long, id(1), &PEER) {}
        assert!(total.load(Ordering::Relaxed) >= LISTINGS_LEN_MAX - 1000, "all of them together");
        drop(all);
        assert!(total.load(Ordering::Relaxed) < 2 * LISTING_LEN_MAX, "what failed makes room");
    }
}
