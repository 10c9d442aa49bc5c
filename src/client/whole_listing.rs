//! The whole listing of one peer, read at one revision.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::asking::{Asking, Inquiry};
use crate::client::found_bare::FoundBare;
use crate::client::limits::{RESOLVE_ALL_MAX, RESOLVE_MAX, RESOLVE_QUIET, WHOLE_LISTING_TRIES};
use crate::client::listing::{ListingReader, PeerListing};
use crate::client::search_results::{FoundFile, SearchResults};
use crate::client::survey::{SurveyProgress, survey};
use crate::client::want::exact;
use crate::client::{AskScope, Client, FetchError};
use crate::content::RelPath;
use crate::identity::{KeyPrefix, NodeId, PeerId};
use crate::limits::HANDSHAKE_TIMEOUT;
use crate::peers::{AskError, Opening, Session};
use crate::sync::lock;

/// All that one peer has below a directory.
#[derive(Debug, Clone)]
pub struct WholeListing {
    /// The peer.
    pub node: NodeId,
    /// The revision of its catalogue.
    pub revision: u64,
    /// Whether this is all that the peer has there: it says so, and the list did not change while it
    /// was read.
    pub complete: bool,
    /// The files, sorted by path, each with this peer as its holder.
    pub files: Vec<FoundFile>,
    /// Empty directories, and links without a content among the files, sorted by path.
    pub bare: Vec<FoundBare>,
}

/// What one peer answered.
struct OneListing {
    listing: PeerListing,
    revision: u64,
    complete: bool,
}

impl Client {
    /// Reads all that the peer whose key begins with `prefix` has below the directory `dir`; all of
    /// its names if that is none. A list that changes while it is read is read again, at most
    /// [`WHOLE_LISTING_TRIES`] times in all. Blocks as [`resolve`](Self::resolve), and as long as
    /// pages arrive.
    ///
    /// # Errors
    /// [`FetchError`]: no peer, all refused, no peer or several with that key, or nothing of the
    /// name.
    pub fn whole_listing(
        &self,
        prefix: &KeyPrefix,
        dir: Option<&RelPath>,
        scope: &AskScope,
        timeout: Duration,
    ) -> Result<WholeListing, FetchError> {
        let (begin, text) = (Instant::now(), dir.map_or_else(String::new, exact));
        let read_at = Arc::new(Mutex::new(begin));
        let ask = {
            let (prefix, text, read_at) = (prefix.clone(), text.clone(), read_at.clone());
            move |session: &mut Session, asking: &Asking| match prefix.matches(&session.peer) {
                true => {
                    let patience = asking.patience(timeout.min(HANDSHAKE_TIMEOUT))?;
                    read(session, &asking.over, &text, patience, &read_at).map(Some)
                }
                false => Ok(None),
            }
        };
        let mut found: Vec<(NodeId, OneListing)> = Vec::new();
        // Only some are asked for anything.
        let inquiry = Inquiry { opening: Opening::default(), ask };
        let progress = survey(self, scope, inquiry, |progress, answer| {
            if let Some((record, Some(listing))) = answer {
                found.push((record.node(), listing));
            }
            end(found.len(), progress, begin, *lock(&read_at), timeout)
        })?;
        progress.check(&text, timeout)?;
        let mut keys: Vec<PeerId> = found.iter().map(|(node, _)| node.peer).collect();
        keys.sort_unstable();
        keys.dedup();
        let newest = found.into_iter().max_by_key(|(_, one)| one.revision);
        let Some((node, one)) = newest.filter(|_| keys.len() == 1) else {
            return Err(FetchError::Prefix { prefix: prefix.clone(), answered: progress.answered, found: keys });
        };
        let (mut results, OneListing { listing, revision, complete }) = (SearchResults::default(), one);
        let _room = listing.merge(node, &mut results);
        let bare =
            results.bare().map(|found| FoundBare { path: found.0.clone(), bare: found.1.bare.clone() }).collect();
        Ok(WholeListing { node, revision, complete, files: results.into_files(), bare })
    }
}

/// When to stop asking.
fn end(found: usize, progress: &SurveyProgress, begin: Instant, read_at: Instant, timeout: Duration) -> Instant {
    let Some((first, last)) = progress.answers else {
        // As for a name: peers that refuse may not be all.
        return match progress.first_refusal {
            Some(at) if progress.pending == 0 => (at + RESOLVE_MAX).min(begin + timeout),
            _ => begin.max(read_at) + timeout,
        };
    };
    if found > 0 {
        // Another key may begin so, too.
        return (last + RESOLVE_QUIET).min(first + RESOLVE_MAX).max(last);
    }
    let more = if progress.pending + progress.awaited + progress.full > 0 { RESOLVE_ALL_MAX } else { RESOLVE_MAX };
    // A long list is read while its pages arrive.
    let reading = if read_at > begin { read_at + timeout } else { first };
    (first + more).min(begin + timeout).max(reading)
}

/// Reads the list until two pages are never of different revisions.
fn read(
    session: &mut Session,
    over: &AtomicBool,
    text: &str,
    patience: Duration,
    read_at: &Mutex<Instant>,
) -> Result<OneListing, AskError> {
    for _ in 1..WHOLE_LISTING_TRIES {
        let one = read_once(session, over, text, patience, read_at)?;
        if let Some(one) = one {
            return Ok(one);
        }
    }
    // What was read last is no list of any moment: good enough to fetch, and not to remove.
    let one = read_once(session, over, text, patience, read_at)?;
    one.ok_or_else(|| AskError::Protocol("its listing changed each time that it was read".into()))
}

/// Reads the list once; `None` if it changed meanwhile.
fn read_once(
    session: &mut Session,
    over: &AtomicBool,
    text: &str,
    patience: Duration,
    read_at: &Mutex<Instant>,
) -> Result<Option<OneListing>, AskError> {
    let mut reader = ListingReader::new(text, patience);
    let (mut revision, mut complete) = (None, false);
    while let Some(head) = reader.next_page(session)? {
        *lock(read_at) = Instant::now();
        if *revision.get_or_insert(head.revision) != head.revision {
            return Ok(None);
        }
        complete = head.complete;
        if over.load(Ordering::Acquire) {
            break;
        }
    }
    complete &= reader.has_ended();
    Ok(Some(OneListing { listing: reader.finish(session), revision: revision.unwrap_or(0), complete }))
}
