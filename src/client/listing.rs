//! The listings of peers: the names and contents that each of them offers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use log::warn;

use crate::client::limits::{LISTING_LEN_MAX, LISTING_RETRY, LISTINGS_LEN_MAX, PATTERNS_AT_ONCE};
use crate::content::{FileId, Pattern, RelPath};
use crate::identity::PeerId;
use crate::limits::{CATALOGUE_ENTRIES_MAX, HANDSHAKE_TIMEOUT, LIST_PAGE_LEN, REASON_SHOWN_MAX};
use crate::peers::{AskError, Session};
use crate::proto::{Kind, ListFrom, Listed, PageHead, Request, Status, decode_borrowed};

/// The listing of one peer.
pub(crate) struct PeerListing {
    /// Whether the peer shares a directory; otherwise it lists what it has fetched.
    pub(crate) shared: bool,
    /// The files, sorted by path for each pattern.
    pub(crate) files: Vec<Listed>,
    _room: Room,
}

/// A question for everything that one of `patterns` means. A peer that sends nothing for `timeout`,
/// or [`HANDSHAKE_TIMEOUT`] if that is less, counts as silent.
pub(crate) fn lister(
    patterns: &[String],
    timeout: Duration,
) -> impl Fn(&mut Session, &AtomicBool) -> Result<PeerListing, AskError> + Clone + use<> {
    let patience = timeout.min(HANDSHAKE_TIMEOUT);
    let asked = |text: &String| (text.clone(), Pattern::parse(text).ok());
    let patterns: Arc<[(String, Option<Pattern>)]> = match patterns {
        [] => [(String::new(), None)].into(),
        some => some.iter().map(asked).collect(),
    };
    let reading = Arc::new(AtomicUsize::new(0));
    move |session, over| {
        let mut all = Taken { files: Vec::new(), room: Room { reading: reading.clone(), taken: 0 }, logged: false };
        for batch in patterns.chunks(PATTERNS_AT_ONCE) {
            let first = |text: &String| ListFrom { pattern: text.clone(), after: String::new(), revision: 0 };
            let requests: Vec<Request> = batch.iter().map(|(text, _)| Request::List(first(text))).collect();
            session.send(&requests, Instant::now() + patience)?;
            // The next pages are asked for when all first ones have come, since answers keep the
            // order.
            let mut more: Vec<(&str, Option<&Pattern>, String)> = Vec::new();
            for (text, pattern) in batch {
                if let Some(after) = page(session, &mut all, pattern.as_ref(), "", patience)? {
                    more.push((text, pattern.as_ref(), after));
                }
            }
            for (text, pattern, mut after) in more {
                // The question may be answered, while a peer may list for as long as it likes.
                while !over.load(Ordering::Acquire) {
                    let from = ListFrom { pattern: text.to_owned(), after: after.clone(), revision: 0 };
                    session.send(&[Request::List(from)], Instant::now() + patience)?;
                    match page(session, &mut all, pattern, &after, patience)? {
                        Some(next) => after = next,
                        None => break,
                    }
                }
            }
        }
        Ok(PeerListing { shared: session.welcome.revision > 0, files: all.files, _room: all.room })
    }
}

/// The files of one peer's listing that were taken in.
///
/// A peer may list anything. So names that the pattern does not mean are dropped as they come, a
/// listing that is larger than any catalogue fails, and one for which there is no room at the
/// moment is read again later: a listing that was cut off would make a fetch of everything end well
/// without some of it.
struct Taken {
    files: Vec<Listed>,
    room: Room,
    /// A name that cannot be one was logged.
    logged: bool,
}

/// Memory of a listing that is not merged with those of others yet.
struct Room {
    /// The same of all peers that are being asked, in bytes.
    reading: Arc<AtomicUsize>,
    taken: usize,
}

impl Taken {
    /// Takes in one entry of a page.
    fn add(&mut self, path: &str, id: FileId, pattern: Option<&Pattern>, peer: &PeerId) -> Result<(), AskError> {
        if pattern.is_some_and(|pattern| !pattern.matches(path, &id)) {
            return Ok(());
        }
        let path = match RelPath::new(path) {
            Ok(path) => path,
            Err(e) => {
                if !std::mem::replace(&mut self.logged, true) {
                    let shown: String = path.chars().take(REASON_SHOWN_MAX).collect();
                    warn!("name left out of a listing peer={peer} path={shown:?} error=\"{e}\"");
                }
                return Ok(());
            }
        };
        let len = size_of::<Listed>() + path.as_str().len();
        if self.files.len() >= CATALOGUE_ENTRIES_MAX || self.room.taken + len > LISTING_LEN_MAX {
            warn!("listing too long peer={peer} entries={}", self.files.len());
            return Err(AskError::Protocol("its listing is too long".into()));
        }
        self.room.take(len)?;
        self.files.push(Listed { path, id });
        Ok(())
    }
}

impl Room {
    fn take(&mut self, len: usize) -> Result<(), AskError> {
        if self.reading.fetch_add(len, Ordering::Relaxed) + len > LISTINGS_LEN_MAX {
            self.reading.fetch_sub(len, Ordering::Relaxed);
            return Err(AskError::Busy(LISTING_RETRY));
        }
        self.taken += len;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.reading.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

/// Appends one page to `all`; returns where the next one begins, if there is one.
fn page(
    session: &mut Session,
    all: &mut Taken,
    pattern: Option<&Pattern>,
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
    // A name that cannot be one costs its entry and not the peer.
    let page: Vec<(&str, FileId)> = decode_borrowed(&body, "List")?;
    // Only pages that advance make sure that there is a last one.
    let last = page.last().map(|(path, _)| *path).filter(|last| *last > after);
    for (path, id) in &page {
        all.add(path, *id, pattern, &session.peer)?;
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
        let reading = Arc::new(AtomicUsize::new(0));
        let taken = || Taken { files: Vec::new(), room: Room { reading: reading.clone(), taken: 0 }, logged: false };
        let (pattern, mut one) = (Pattern::parse("f1").unwrap(), taken());
        for name in ["other", "f1", "f1/\0"] {
            one.add(name, id(1), Some(&pattern), &PEER).unwrap();
        }
        assert_eq!(one.files.len(), 1, "neither another name nor one that cannot be");
        one.room.take(LISTING_LEN_MAX - one.room.taken).unwrap();
        assert!(matches!(one.add("f1/x", id(1), None, &PEER), Err(AskError::Protocol(_))), "too long");
        let (mut two, mut three) = (taken(), taken());
        two.room.take(LISTINGS_LEN_MAX - LISTING_LEN_MAX).unwrap();
        assert!(matches!(three.add("x", id(1), None, &PEER), Err(AskError::Busy(_))), "no room at the moment");
        drop(one);
        assert!(three.add("x", id(1), None, &PEER).is_ok(), "what is merged makes room");
        drop((two, three));
        assert_eq!(reading.load(Ordering::Relaxed), 0);
    }
}
