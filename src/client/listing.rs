//! The listings of peers: the names and contents that each of them offers.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use log::warn;

use crate::client::asking::{Asking, Inquiry};
use crate::client::found_bare::FoundBare;
use crate::client::limits::{
    LISTING_FREE_LEN, LISTING_LEN_MAX, LISTING_PREFERRED_LEN_MAX, LISTING_RETRY, LISTINGS_LEN_MAX, PATTERNS_AT_ONCE,
};
use crate::client::search_results::{PeerFile, SearchResults};
use crate::content::{Bare, LinkTo, Pattern, PatternKind, RelPath};
use crate::identity::{KeyPrefix, NodeId, PeerId};
use crate::limits::{CATALOGUE_ENTRIES_MAX, HANDSHAKE_TIMEOUT, LIST_PAGE_LEN, REASON_SHOWN_MAX};
use crate::peers::{AskError, Opening, Session};
use crate::proto::{Kind, ListFrom, ListPage, ListedAs, ListedFile, PageHead, Request, Status};

mod reader;

pub(crate) use reader::ListingReader;

/// The listing of one peer.
pub(crate) struct PeerListing {
    /// Whether the peer shares a directory; otherwise it lists what it has fetched.
    shared: bool,
    /// The files, sorted by path for each pattern.
    files: Vec<PeerFile>,
    bare: Vec<FoundBare>,
    /// Whether there may be more of it later: the peer still hashes or cannot read some files.
    partial: bool,
    room: Room,
}

impl PeerListing {
    /// Whether the peer says that files are missing that would be listed once they are hashed, or can be read again.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial
    }

    /// The names of copies that go when they are not used for long.
    pub(crate) fn temporary(&self) -> HashSet<RelPath> {
        self.files.iter().filter_map(PeerFile::temporary).cloned().collect()
    }

    /// Adds the files to `results`. What was new among them keeps its room until that is dropped.
    pub(crate) fn merge(mut self, peer: NodeId, results: &mut SearchResults) -> Room {
        let fresh = results.add(peer, self.shared, self.files) + results.add_bare(peer.peer, self.shared, self.bare);
        self.room.keep(fresh);
        self.room
    }
}

/// A question for everything that one of `patterns` means. A peer that sends nothing for `timeout`,
/// or [`HANDSHAKE_TIMEOUT`] if that is less, counts as silent. Listings take little memory whatever
/// peers list, but for the one that the user prefers.
pub(crate) fn lister(
    patterns: &[String],
    timeout: Duration,
    prefer: Option<&KeyPrefix>,
) -> Inquiry<impl Fn(&mut Session, &Asking) -> Result<PeerListing, AskError> + Clone + use<>> {
    let patience = timeout.min(HANDSHAKE_TIMEOUT);
    let asked = |text: &String| (text.clone(), Pattern::parse(text).ok());
    let patterns: Arc<[(String, Option<Pattern>)]> = match patterns {
        [] => [(String::new(), None)].into(),
        some => some.iter().map(asked).collect(),
    };
    let opening = patterns.chunks(PATTERNS_AT_ONCE).next().map(first_pages).unwrap_or_default();
    let prefer = prefer.cloned();
    let all_rooms = Arc::new(AtomicUsize::new(0));
    let ask = move |session: &mut Session, asking: &Asking| {
        let (peer_max, all_max) = match &prefer {
            Some(prefix) if prefix.matches(&session.peer) => (LISTING_PREFERRED_LEN_MAX, usize::MAX),
            _ => (LISTING_LEN_MAX, LISTINGS_LEN_MAX),
        };
        let room = Room { all: all_rooms.clone(), all_max, peer_max, taken: 0, counted: 0 };
        let mut all = Taken::new(room);
        for batch in patterns.chunks(PATTERNS_AT_ONCE) {
            session.ask(&first_pages(batch), Instant::now() + asking.patience(patience)?)?;
            // The next pages are asked for when all first ones have come, since answers keep the
            // order.
            let mut more: Vec<(&str, Option<&Pattern>, String)> = Vec::new();
            for (text, pattern) in batch {
                if let Some(after) = page(session, &mut all, pattern.as_ref(), "", asking.patience(patience)?)? {
                    more.push((text, pattern.as_ref(), after));
                }
            }
            for (text, pattern, mut after) in more {
                // The question may be answered, while a peer may list for as long as it likes.
                while !asking.is_over() {
                    let from = ListFrom { pattern: text.to_owned(), after: after.clone(), revision: 0 };
                    session.send(&[Request::List(from)], Instant::now() + patience)?;
                    match page(session, &mut all, pattern, &after, asking.patience(patience)?)? {
                        Some(next) => after = next,
                        None => break,
                    }
                }
            }
        }
        let Taken { files, bare, room, partial, .. } = all;
        Ok(PeerListing { shared: session.welcome.revision > 0, files, bare, partial, room })
    };
    Inquiry { opening, ask }
}

/// Asks for the first page of what each of `patterns` means.
fn first_pages(patterns: &[(String, Option<Pattern>)]) -> Opening {
    let first = |text: &String| ListFrom { pattern: text.clone(), after: String::new(), revision: 0 };
    patterns.iter().map(|(text, _)| Request::List(first(text))).collect()
}

/// The files of one peer's listing that were taken in.
///
/// A peer may list anything. So names that the pattern does not mean are dropped as they come, a
/// listing that is larger than any catalogue fails, and one for which there is no room at the
/// moment is read again later: a listing that was cut off would make a fetch of everything end well
/// without some of it.
struct Taken {
    files: Vec<PeerFile>,
    bare: Vec<FoundBare>,
    room: Room,
    /// A name that cannot be one was logged.
    logged: bool,
    /// That the peer leaves out names was logged.
    told_unnamed: bool,
    /// The peer says that some files are still to be hashed or cannot be read.
    partial: bool,
}

/// Memory of the listing of one peer, in bytes.
pub(crate) struct Room {
    /// What counts of all listings for the question.
    all: Arc<AtomicUsize>,
    all_max: usize,
    peer_max: usize,
    taken: usize,
    /// What counts of this one.
    counted: usize,
}

impl Taken {
    /// Nothing so far.
    fn new(room: Room) -> Self {
        Taken { files: Vec::new(), bare: Vec::new(), room, logged: false, told_unnamed: false, partial: false }
    }

    /// Takes in one name of a page.
    fn take(
        &mut self,
        path: &str,
        what: ListedAs<&str>,
        pattern: Option<&Pattern>,
        peer: &PeerId,
    ) -> Result<(), AskError> {
        match what {
            ListedAs::File(file) => self.add(path, file, pattern, peer),
            ListedAs::EmptyDir { mtime_ns, is_copy } => {
                self.add_bare(path, Bare::EmptyDir { mtime_ns, copy: is_copy }, pattern, peer)
            }
            ListedAs::Link { to: LinkTo { target, mtime_ns }, is_copy } => {
                let to = LinkTo { target: target.into(), mtime_ns };
                self.add_bare(path, Bare::Link { to, copy: is_copy }, pattern, peer)
            }
        }
    }

    /// Takes in one file of a page.
    fn add(
        &mut self,
        path: &str,
        file: ListedFile<&str>,
        pattern: Option<&Pattern>,
        peer: &PeerId,
    ) -> Result<(), AskError> {
        if pattern.is_some_and(|pattern| !pattern.matches(path, &file.id)) {
            return Ok(());
        }
        if let Some(path) = self.name(path, peer) {
            let file = PeerFile::new(path, file);
            self.take_room(file.len())?;
            self.files.push(file);
        }
        Ok(())
    }

    /// Takes in one name of a page that is no file.
    fn add_bare(&mut self, path: &str, bare: Bare, pattern: Option<&Pattern>, peer: &PeerId) -> Result<(), AskError> {
        if pattern.is_some_and(|pattern| !pattern.matches_path(path)) {
            return Ok(());
        }
        if let Some(path) = self.name(path, peer) {
            let found = FoundBare { path, bare };
            self.take_room(found.len())?;
            self.bare.push(found);
        }
        Ok(())
    }

    /// The name `path`; `None` if it cannot be one, which is logged once.
    fn name(&mut self, path: &str, peer: &PeerId) -> Option<RelPath> {
        match RelPath::new(path) {
            Ok(path) => Some(path),
            Err(e) => {
                if !std::mem::replace(&mut self.logged, true) {
                    let shown: String = path.chars().take(REASON_SHOWN_MAX).collect();
                    warn!("name left out of a listing peer={peer} path={shown:?} error=\"{e}\"");
                }
                None
            }
        }
    }

    fn take_room(&mut self, len: usize) -> Result<(), AskError> {
        let entries = self.files.len() + self.bare.len();
        if entries >= CATALOGUE_ENTRIES_MAX || self.room.taken + len > self.room.peer_max {
            return Err(AskError::LongListing(self.room.peer_max));
        }
        self.room.take(len)
    }
}

impl Room {
    fn take(&mut self, len: usize) -> Result<(), AskError> {
        let counts = (self.taken + len).saturating_sub(LISTING_FREE_LEN) - self.counted;
        if counts > 0 && self.all.fetch_add(counts, Ordering::Relaxed) + counts > self.all_max {
            self.all.fetch_sub(counts, Ordering::Relaxed);
            return Err(AskError::Busy(LISTING_RETRY));
        }
        self.taken += len;
        self.counted += counts;
        Ok(())
    }

    /// Gives back all but `len` bytes.
    fn keep(&mut self, len: usize) {
        let back = self.counted.saturating_sub(len);
        self.all.fetch_sub(back, Ordering::Relaxed);
        self.counted -= back;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.all.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// Says once of all peers that what they list may lack something.
pub(crate) fn warn_of_partial(peers: &[PeerId]) {
    if let Some(first) = peers.first() {
        warn!(
            "some peers do not list all yet, as files are being hashed or written there, or cannot be read; what is \
             missing comes with the same command later peers={} first={first}",
            peers.len()
        );
    }
}

/// Whether a pattern means more than a name, a directory or a root.
fn has_wildcards(pattern: &Pattern) -> bool {
    matches!(pattern.kind(), PatternKind::Path { glob: Some(_), .. })
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
    let mut last = None;
    // A root, or the name of a file that is there, leaves nothing to be missed.
    let mut is_one = matches!(pattern.map(Pattern::kind), Some(PatternKind::Root(..)));
    for entry in ListPage::read(&body)? {
        // A name that cannot be one costs its entry and not the peer.
        let (path, what) = entry?;
        last = Some(path);
        is_one |= matches!(pattern.map(Pattern::kind), Some(PatternKind::Path { text, .. }) if text == path);
        all.take(path, what, pattern, &session.peer)?;
    }
    // The peer does not say where they lie: any directory may be theirs.
    let may_lack = pattern.is_none_or(has_wildcards) || (last.is_some() && !is_one);
    if head.unnamed > 0 && may_lack && !std::mem::replace(&mut all.told_unnamed, true) {
        let (peer, files) = (&session.peer, head.unnamed);
        warn!("the peer leaves out files whose names cannot be shared peer={peer} files={files}");
    }
    // What was only fetched has no directory that could be scanned: its revision is 0.
    all.partial |= head.revision > 0 && !head.complete && !is_one;
    // Only pages that advance make sure that there is a last one.
    Ok(last.filter(|last| head.more && *last > after).map(str::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, FileId, Root};
    use crate::limits::MIB;

    const PEER: PeerId = PeerId([1; 32]);

    fn file(n: u8) -> ListedFile<&'static str> {
        ListedFile::plain(FileId { root: Root(Digest([n; 32])), len: 5 })
    }

    fn room(all: &Arc<AtomicUsize>, peer_max: usize, all_max: usize) -> Room {
        Room { all: all.clone(), all_max, peer_max, taken: 0, counted: 0 }
    }

    #[test]
    fn a_listing_is_bounded_and_has_only_what_was_asked_for() {
        let all = Arc::new(AtomicUsize::new(0));
        let (peer_max, all_max) = (LISTING_LEN_MAX, LISTINGS_LEN_MAX);
        let taken = || Taken::new(room(&all, peer_max, all_max));
        let (pattern, mut one) = (Pattern::parse("f1").unwrap(), taken());
        for name in ["other", "f1", "f1/\0"] {
            one.add(name, file(1), Some(&pattern), &PEER).unwrap();
        }
        assert_eq!(one.files.len(), 1, "neither another name nor one that cannot be");
        one.room.take(peer_max - one.room.taken).unwrap();
        assert!(matches!(one.add("f1/x", file(1), None, &PEER), Err(AskError::LongListing(max)) if max == peer_max));
        let (mut two, mut three) = (taken(), taken());
        two.room.take(all_max - peer_max).unwrap();
        assert!(three.add("x", file(1), None, &PEER).is_ok(), "a short one finds room");
        assert!(matches!(three.room.take(MIB), Err(AskError::Busy(_))), "no room at the moment");
        drop(one);
        assert!(three.room.take(MIB).is_ok());
        drop((two, three));
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }

    /// Listings of many peers, each below its bound, were merged without a bound in all.
    #[test]
    fn what_is_merged_keeps_the_room_of_what_was_new() {
        let all = Arc::new(AtomicUsize::new(0));
        let mut results = SearchResults::default();
        let listing = |name: &str, count: usize| {
            let mut taken = Taken::new(room(&all, 1 << 30, 1 << 30));
            (0..count).for_each(|n| taken.add(&format!("{name}{n:07}"), file(1), None, &PEER).unwrap());
            PeerListing { shared: true, files: taken.files, bare: Vec::new(), partial: false, room: taken.room }
        };
        let node = |n| NodeId::new(PeerId([n; 32]), 1);
        let first = listing("a", 10_000).merge(node(1), &mut results);
        let counted = all.load(Ordering::Relaxed);
        assert!(counted > 500_000, "{counted}");
        let again = listing("a", 10_000).merge(node(2), &mut results);
        assert_eq!(all.load(Ordering::Relaxed), counted, "the same names take no more");
        let other = listing("b", 10_000).merge(node(3), &mut results);
        assert_eq!((all.load(Ordering::Relaxed), results.files().len()), (2 * counted, 20_000));
        drop((first, again, other));
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
