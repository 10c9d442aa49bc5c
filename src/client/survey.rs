//! Asks every peer the same question, as peers appear.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use log::{debug, warn};

use crate::client::asking::{Asking, Inquiry};
use crate::client::doorbell::Doorbell;
use crate::client::found_bare::FoundBare;
use crate::client::found_peer::FoundPeer;
use crate::client::limits::UNREADABLE_TOLD_MAX;
use crate::client::listing::{lister, warn_of_partial};
use crate::client::search_results::{FoundFile, OfferedBare, SearchResults};
use crate::client::{AskScope, Client, FetchError};
use crate::content::{Pattern, RelPath};
use crate::identity::NodeId;
use crate::limits::{PEERS_MAX, RETRY_MIN};
use crate::peers::{AskError, Opening, PeerPool, Session};
use crate::swarm::{PeerRecord, PeerTable, RefusalCause};

mod attempts;
mod order;
mod progress;

use attempts::Attempts;
use order::{AskOrder, DuePeer};
pub(crate) use progress::SurveyProgress;

impl Client {
    /// Asks which peers are there. Complete [`LIST_QUIET`](crate::client::limits::LIST_QUIET) after
    /// the last new peer, or when `wait` is over; sorted by key.
    ///
    /// # Errors
    /// [`FetchError::Full`], [`FetchError::Refused`] and [`FetchError::NoPeer`] when no peer answered;
    /// [`FetchError::Cancelled`] and [`FetchError::Stopped`] when the call or the node ends.
    pub fn peers(&self, scope: &AskScope, wait: Duration) -> Result<Vec<FoundPeer>, FetchError> {
        let (mut found, begin) = (Vec::new(), Instant::now());
        let ask = |session: &mut Session, _: &Asking| Ok((session.addr, session.instance, session.welcome.clone()));
        let inquiry = Inquiry { opening: Opening::default(), ask };
        let progress = survey(self, scope, inquiry, |progress, answer| {
            if let Some((record, (addr, instance, welcome))) = answer {
                let age_ms = record.last_seen.elapsed().as_millis() as u64;
                let (files, bytes) = (welcome.files, welcome.bytes);
                found.push(FoundPeer { peer: record.peer, instance, addr, files, bytes, age_ms });
            }
            progress.listing_end(begin, wait)
        })?;
        progress.check("peers", wait)?;
        found.sort_unstable_by_key(|p| (p.peer, p.instance));
        found.dedup_by_key(|p| (p.peer, p.instance));
        Ok(found)
    }

    /// Asks what there is that one of `patterns` means, each the text of a pattern; everything
    /// without any. Complete
    /// [`LIST_QUIET`](crate::client::limits::LIST_QUIET) after the last new peer when all have
    /// answered, or when `wait` is over; sorted by path.
    ///
    /// # Errors
    /// As [`peers`](Self::peers), and [`FetchError::Pattern`].
    pub fn list(&self, patterns: &[String], scope: &AskScope, wait: Duration) -> Result<Vec<FoundFile>, FetchError> {
        self.list_names(patterns, scope, wait).map(|(files, _)| files)
    }

    /// As [`list`](Self::list), with empty directories and links without a content, each with the number
    /// of peers that offer it.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn list_names(&self, patterns: &[String], scope: &AskScope, wait: Duration) -> Result<ListedNames, FetchError> {
        for text in patterns {
            Pattern::parse(text).map_err(|source| FetchError::Pattern { text: text.clone(), source })?;
        }
        let (mut results, begin) = (SearchResults::default(), Instant::now());
        let (mut rooms, mut partial) = (Vec::new(), Vec::new());
        let progress = survey(self, scope, lister(patterns, wait, None), |progress, answer| {
            if let Some((record, listing)) = answer {
                partial.extend(listing.is_partial().then(|| record.node().peer));
                rooms.push(listing.merge(record.node(), &mut results));
            }
            progress.listing_end(begin, wait)
        })?;
        progress.check(patterns.first().map_or("list", |p| p), wait)?;
        warn_of_partial(&partial);
        let bare = |(path, offered): (&RelPath, &OfferedBare)| {
            (FoundBare { path: path.clone(), bare: offered.bare.clone() }, offered.holders)
        };
        let bare = results.bare().map(bare).collect();
        Ok((results.into_files(), bare))
    }
}

/// Files, and names that are none with the number of peers that offer each; both sorted by path.
pub type ListedNames = (Vec<FoundFile>, Vec<(FoundBare, usize)>);

/// Asks every known peer and every one that appears, each with `inquiry` on a session of its own, on
/// threads of `client`. `decide` takes each answer; it is called after every change, too, and
/// returns when the survey ends.
///
/// The answers come through a channel of the survey. So an answer wakes this survey alone, and only
/// a change of the peer table makes it read the table again: a survey of `n` peers copies few
/// tables, not `n`.
pub(crate) fn survey<T: Send + 'static>(
    client: &Client,
    scope: &AskScope,
    inquiry: Inquiry<impl Fn(&mut Session, &Asking) -> Result<T, AskError> + Clone + Send + 'static>,
    mut decide: impl FnMut(&SurveyProgress, Option<(&PeerRecord, T)>) -> Instant,
) -> Result<SurveyProgress, FetchError> {
    // Whom a contact finds may be none of those that are to be asked.
    let asks_all = scope.nodes.is_none();
    let _taker = client.pool.taker(if asks_all { inquiry.opening.clone() } else { Opening::default() });
    let mut survey = Survey::new(client, scope, inquiry);
    let (bell, cancelled) = (survey.bell.clone(), survey.bell.clone());
    let _subscription = client.ctx.peers.subscribe(move || bell.ring());
    let _cancel = scope.canceller.signal().while_held(move || cancelled.ring());
    loop {
        let now = Instant::now();
        if client.ctx.shutdown.has_begun() {
            return Err(FetchError::Stopped);
        }
        if scope.canceller.is_cancelled() {
            return Err(FetchError::Cancelled);
        }
        while let Ok(message) = survey.messages.try_recv() {
            if let Some((record, answer)) = survey.take(message, now) {
                decide(&survey.progress, Some((&record, answer)));
            }
        }
        survey.contact(now)?;
        survey.start_waiting()?;
        survey.read_table_counts(now);
        let end = decide(&survey.progress, None);
        if end <= now {
            survey.progress.hindrance = client.ctx.peers.hindrance();
            return Ok(std::mem::take(&mut survey.progress));
        }
        let soonest = survey.next_retry().into_iter().chain(survey.next_unawaited(now)).fold(end, Instant::min);
        survey.bell.wait(soonest.saturating_duration_since(now).max(Duration::from_millis(1)));
    }
}

/// The state of one survey.
struct Survey<'a, T, A> {
    client: &'a Client,
    scope: &'a AskScope,
    inquiry: Inquiry<A>,
    progress: SurveyProgress,
    attempts: HashMap<NodeId, Attempts>,
    /// Peers whose answers cannot be read and of which a warning was logged.
    unreadable: usize,
    /// The number of changes of the peer table when it was read last.
    seen: Option<u64>,
    /// Peers that are being asked, and peers that wait.
    order: AskOrder,
    tell: Sender<SurveyMessage<T>>,
    messages: Receiver<SurveyMessage<T>>,
    /// The survey has ended: what is still being asked ends at the next answer.
    over: Arc<AtomicBool>,
    /// Rings for each message and each change of the peer table.
    bell: Doorbell,
}

/// What the threads of a survey report.
enum SurveyMessage<T> {
    Connected,
    /// What came of asking, and whether that was a short try.
    Answer(Box<PeerRecord>, Result<T, AskError>, bool),
}

impl<'a, T, A> Survey<'a, T, A>
where
    T: Send + 'static,
    A: Fn(&mut Session, &Asking) -> Result<T, AskError> + Clone + Send + 'static,
{
    fn new(client: &'a Client, scope: &'a AskScope, inquiry: Inquiry<A>) -> Self {
        let (tell, messages) = unbounded();
        let (progress, attempts, unreadable) = (SurveyProgress::default(), HashMap::new(), 0);
        let (order, over, bell) = (AskOrder::default(), Arc::default(), Doorbell::new());
        Survey { client, scope, inquiry, progress, attempts, unreadable, seen: None, order, tell, messages, over, bell }
    }

    /// Takes note of `message`; returns the answer if it brings one.
    fn take(&mut self, message: SurveyMessage<T>, now: Instant) -> Option<(PeerRecord, T)> {
        let SurveyMessage::Answer(record, answer, hurried) = message else {
            self.progress.connected += 1;
            return None;
        };
        let is_silent = matches!(answer, Err(AskError::Stream(_) | AskError::NoAddress | AskError::Slow));
        self.order.ended(&record, !is_silent, hurried);
        if is_silent && hurried {
            // A slow peer is no dead one, and is asked again in full.
            self.order.push(*record, false);
            return None;
        }
        self.progress.pending -= 1;
        match answer {
            Ok(answer) => {
                self.progress.answered += 1;
                self.progress.note_answer(now);
                return Some((*record, answer));
            }
            Err(AskError::Refused(reason)) => {
                self.progress.refused.insert(record.peer, RefusalCause::of_reason(&reason));
                self.progress.first_refusal.get_or_insert(now);
            }
            Err(AskError::Untrusted(_)) => {}
            Err(AskError::LongListing(len_max)) => {
                let (peer, mib) = (record.peer, len_max >> 20);
                warn!("listing left out, since it takes more than {mib} MiB: ask for a directory of it peer={peer}");
                self.progress.long.insert(peer, len_max);
                self.progress.note_answer(now);
            }
            Err(e) => {
                debug!("no answer peer={} error=\"{e}\"", record.peer);
                let attempts = self.attempts.entry(record.node()).or_default();
                // Once for each of a few peers, since keys cost nothing in an open group.
                if e.is_unreadable() && attempts.made == 1 && self.unreadable < UNREADABLE_TOLD_MAX {
                    self.unreadable += 1;
                    let peer = record.peer;
                    warn!("the answer cannot be read, the peer may have another version peer={peer} error=\"{e}\"");
                }
                let own = RETRY_MIN * (1 << attempts.made.min(5));
                let wait = if let AskError::Busy(wait) = e { wait.max(RETRY_MIN) } else { own };
                attempts.retry_at = Some(now + wait);
                attempts.failed.get_or_insert(now);
            }
        }
        None
    }

    /// Asks the peers that are new or may be asked again. Reads the table only if it has changed or
    /// a retry is due.
    fn contact(&mut self, now: Instant) -> Result<(), FetchError> {
        let is_due = |attempts: &Attempts| attempts.retry_at.is_some_and(|at| at <= now);
        let changes = self.client.ctx.peers.changes();
        if self.seen == Some(changes) && !self.attempts.values().any(is_due) {
            return Ok(());
        }
        self.seen = Some(changes);
        let proved = |t: &PeerTable, record: PeerRecord| (t.was_reached(record.node()), record);
        let here = |t: &PeerTable| t.peers().into_iter().map(|record| proved(t, record)).collect::<Vec<_>>();
        let here = self.client.ctx.peers.read(here);
        if self.attempts.len() > 2 * PEERS_MAX {
            let nodes: HashSet<NodeId> = here.iter().map(|(_, record)| record.node()).collect();
            self.attempts.retain(|node, _| nodes.contains(node));
        }
        for (is_proved, record) in here {
            if !self.scope.has(record.node()) || !self.order.has_room() {
                continue;
            }
            let attempts = self.attempts.entry(record.node()).or_default();
            let is_offered = attempts.honour(record.offers, now);
            if attempts.made > 0 && !is_due(attempts) && !is_offered {
                continue;
            }
            if attempts.made == 0 && self.client.ctx.trust.allows(&record.peer) {
                self.progress.last_peer = Some(now);
            }
            (attempts.made, attempts.offers, attempts.retry_at) = (attempts.made + 1, record.offers, None);
            self.progress.pending += 1;
            self.order.push(record, is_proved);
        }
        // Peers that left before their retry: they count as new if they come back.
        self.attempts.retain(|_, attempts| !is_due(attempts));
        Ok(())
    }

    /// Asks the peers whose turn it is.
    fn start_waiting(&mut self) -> Result<(), FetchError> {
        self.order.due().into_iter().try_for_each(|due| self.start(due))
    }

    /// Asks one peer on a thread of the client.
    fn start(&self, DuePeer { record, hurried }: DuePeer) -> Result<(), FetchError> {
        let (pool, inquiry, tell, bell) =
            (self.client.pool.clone(), self.inquiry.clone(), self.tell.clone(), self.bell.clone());
        let over = self.over.clone();
        let task = move || {
            let asking = Asking::new(over, hurried);
            if asking.is_over() {
                return;
            }
            let Inquiry { opening, ask } = inquiry;
            let answer = pool.checkout_to_ask(&record, &opening, hurried).and_then(|session| {
                // Reported at once: the survey may end before an answer comes.
                let _ = tell.send(SurveyMessage::Connected);
                bell.ring();
                ask_once(&pool, session, (&record, &opening, hurried), |session| ask(session, &asking))
            });
            let _ = tell.send(SurveyMessage::Answer(Box::new(record), answer, hurried));
            bell.ring();
        };
        self.client.askers.spawn(task).map_err(FetchError::Threads)
    }

    /// Takes over what the table counts: refusals and full peers, which exchange meets too, and
    /// named peers that are still sought. Only what may be asked counts.
    fn read_table_counts(&mut self, now: Instant) {
        let scope = self.scope;
        let failing: Vec<NodeId> = self
            .attempts
            .iter()
            .filter(|(_, a)| a.awaited_until().is_some_and(|at| at > now))
            .map(|(node, _)| *node)
            .collect();
        let read = |t: &PeerTable| {
            let refusals: Vec<_> = t.refusals().filter(|(peer, _)| scope.has_key(peer)).collect();
            let awaited = if scope.nodes.is_none() { t.awaited() } else { 0 };
            let unreached = failing.iter().filter(|node| t.may_offer(**node)).count();
            (refusals, (awaited, unreached), t.full(now).filter(|peer| scope.has_key(peer)).count())
        };
        let (refusals, (awaited, unreached), full) = self.client.ctx.peers.read(read);
        (self.progress.awaited, self.progress.full) = (awaited + unreached, full);
        // What a named peer knows of others is in the table before it counts as contacted.
        let is_seen = self.seen == Some(self.client.ctx.peers.changes());
        self.progress.complete =
            !self.client.ctx.hears && awaited + self.progress.pending == 0 && is_seen && self.next_retry().is_none();
        if !refusals.is_empty() {
            self.progress.refused.extend(refusals);
            self.progress.first_refusal.get_or_insert(now);
        }
    }

    fn next_retry(&self) -> Option<Instant> {
        self.attempts.values().filter_map(|attempts| attempts.retry_at).min()
    }

    fn next_unawaited(&self, now: Instant) -> Option<Instant> {
        self.attempts.values().filter_map(Attempts::awaited_until).filter(|at| *at > now).min()
    }
}

/// Peers that list for as long as they like hold a thread for no longer than the question is open.
impl<T, A> Drop for Survey<'_, T, A> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

/// Asks over `session`; a session that lay idle and was closed meanwhile is replaced once.
pub(super) fn ask_once<T>(
    pool: &PeerPool,
    mut session: Session,
    (record, opening, hurried): (&PeerRecord, &Opening, bool),
    ask: impl Fn(&mut Session) -> Result<T, AskError>,
) -> Result<T, AskError> {
    let answer = match ask(&mut session) {
        Err(AskError::Stream(_)) if session.reused => {
            session = pool.checkout_to_ask(record, opening, hurried)?;
            ask(&mut session)
        }
        answer => answer,
    };
    if answer.is_ok() {
        pool.checkin(session);
    }
    answer
}
