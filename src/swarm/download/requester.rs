//! The conversation of one connection of a download: which requests go out, and what each answer
//! means.
//!
//! The requester owns the rules and no resource. It has no socket, no clock and no lock: the caller
//! holds the lock of the [`DownloadState`], passes the time, sends the frames, and reads the bytes
//! that each [`AnswerStep`] names. A connection in production and one in a simulation drive the
//! same object.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::content::FileId;
use crate::limits::{KIB, LOCATE_FILES_MAX, UNANSWERED_LEN_MAX, WINDOW_MAX};
use crate::proto::{Kind, encode_request};
use crate::swarm::download::limits::{END_GAME_PENDING_MAX, LOCATE_AHEAD};
use crate::swarm::download::picker::PeerHandle;
use crate::swarm::download::state::DownloadState;
use crate::swarm::download::task::{FileNo, SmallTask, Task};
use crate::swarm::download::window::Window;

mod answers;
mod bodies;

pub use answers::{Answer, AnswerError, AnswerStep, Arrival, Head, SmallArrival};
pub use bodies::{Haves, HavesError, ShortBody};

/// What a connection asks of its peer, and what is still unanswered. Answers come in the order of
/// the requests.
pub struct Requester<F> {
    peer: PeerHandle,
    pending: VecDeque<Pending<F>>,
    /// The task whose answer is being read.
    receiving: Option<Task<F>>,
    /// One-chunk files that came and are not verified yet: hashing several together is several
    /// times as fast.
    unverified: Vec<SmallTask>,
    /// Bytes of chunks that were asked for and are still to come.
    in_flight: u64,
    /// Bytes of the requests that are unanswered.
    unanswered: usize,
    window: Window,
    locate: LocateQueue,
    /// Requests that wait to be sent, as whole frames.
    frames: Vec<u8>,
    /// The peer deferred a chunk: nothing is asked of it before then, however often the connection
    /// is woken.
    rests_until: Option<Instant>,
    /// The peer did not have what it had said.
    lost: bool,
    /// A chunk came that was wanted.
    useful: bool,
}

/// An unanswered request.
struct Pending<F> {
    task: Task<F>,
    request_len: usize,
    sent: Instant,
    /// Little or nothing else was in flight, so that the wait for the answer is the round trip.
    measures: bool,
}

/// The files that the peer is to be asked about, in requests of [`LOCATE_FILES_MAX`].
struct LocateQueue {
    next: VecDeque<Vec<(FileNo, FileId)>>,
    /// The file at which the rest begins. A download may have millions of files, so that few are
    /// queued at once.
    from: Option<FileNo>,
}

/// What a connection does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionTurn {
    /// Receives the next answer.
    Receive,
    /// Waits until the download has work again, or some time has passed.
    Wait,
    /// Ends: nothing is left to ask of this peer.
    End {
        /// The peer did not have what it had said.
        lost: bool,
    },
}

impl<F: Clone> Requester<F> {
    /// A connection to `peer` that has just begun; its handshake showed that `round_trip`. With
    /// `locate`, the peer is first asked which of the unfinished files it holds.
    pub fn new(peer: PeerHandle, locate: bool, round_trip: Duration, now: Instant) -> Self {
        Requester {
            peer,
            pending: VecDeque::new(),
            receiving: None,
            unverified: Vec::new(),
            in_flight: 0,
            unanswered: 0,
            window: Window::new(round_trip, now),
            locate: LocateQueue { next: VecDeque::new(), from: locate.then_some(0) },
            frames: Vec::new(),
            rests_until: None,
            lost: false,
            useful: false,
        }
    }

    /// Asks for more and says what the connection does next. A `surplus` connection asks nothing
    /// and ends with its last answer, but finishes what it was opened to locate.
    pub fn turn(&mut self, state: &mut DownloadState<F>, surplus: bool, now: Instant) -> ConnectionTurn {
        state.set_round_trip(self.peer, self.window.round_trip());
        if !surplus || self.is_locating() {
            self.fill(state, now);
        } else if self.pending.is_empty() {
            return ConnectionTurn::End { lost: false };
        }
        if !self.pending.is_empty() {
            ConnectionTurn::Receive
        } else if state.useful(self.peer) == 0 {
            ConnectionTurn::End { lost: self.lost }
        } else {
            ConnectionTurn::Wait
        }
    }

    /// Asks for tasks until the window is full. The frames are sent by [`send`](Self::send).
    pub fn fill(&mut self, state: &mut DownloadState<F>, now: Instant) {
        self.window.note_left(|| state.left_to_nearer(self.peer));
        // Small requests go out together, not one by one as answers come.
        let is_full = self.pending.len() > WINDOW_MAX as usize / 2 || !self.window.has_room(self.in_flight);
        let rests = self.rests_until.is_some_and(|until| now < until);
        if rests || (is_full && !self.is_locating()) {
            return;
        }
        if !self.measure(state, now) {
            return;
        }
        self.locate.refill(state, self.peer, now);
        while self.pending.len() < WINDOW_MAX as usize
            && (self.in_flight == 0 || self.excess() == 0)
            && self.unanswered + REQUEST_LEN < UNANSWERED_MAX
        {
            // The tasks of others are taken one by one, as the chunks may still come from them.
            let end_game = self.pending.len() < END_GAME_PENDING_MAX;
            let Some(task) = state.next_task(self.peer, now, end_game) else { break };
            let measures = self.pending.is_empty() && self.in_flight == 0;
            self.push(task, now, measures);
        }
        while let Some(files) = self.locate.next.front() {
            if self.unanswered + files.len() * FILE_ID_LEN_MAX + REQUEST_LEN > UNANSWERED_MAX {
                break;
            }
            if let Some(files) = self.locate.next.pop_front() {
                let measures = self.pending.is_empty() && self.in_flight == 0;
                self.push(Task::Locate(files), now, measures);
            }
        }
    }

    /// Asks about no file at all when the round trip is to be measured. False while that waits for
    /// what is in flight, of which the last answer may still come.
    fn measure(&mut self, state: &DownloadState<F>, now: Instant) -> bool {
        let Some(clear) = self.window.clear_len().filter(|_| state.useful(self.peer) > 0) else { return true };
        let is_clear = self.pending.is_empty() && self.in_flight <= clear;
        if is_clear {
            self.push(Task::Locate(Vec::new()), now, true);
            self.window.measures();
        }
        is_clear
    }

    fn push(&mut self, task: Task<F>, sent: Instant, measures: bool) {
        let begin = self.frames.len();
        encode_request(&task.request(), &mut self.frames);
        let request_len = self.frames.len() - begin;
        self.unanswered += request_len;
        self.in_flight += task.chunk_bytes();
        self.window.asked(&task);
        self.pending.push_back(Pending { task, request_len, sent, measures });
    }

    /// Passes the frames of all new requests to `write`, if there are any.
    ///
    /// # Errors
    /// The error of `write`.
    pub fn send<E>(&mut self, write: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.frames.is_empty() {
            return Ok(());
        }
        let result = write(&self.frames);
        self.frames.clear();
        result
    }

    /// The kind of the next answer, and the most bytes that its body may have; `None` when no
    /// request is unanswered.
    pub fn expects(&self) -> Option<(Kind, usize)> {
        self.pending.front().map(|pending| pending.task.expects())
    }

    /// Requests without an answer.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// How many more bytes are in flight than the window asks for. At 0, [`fill`](Self::fill) finds
    /// room.
    pub fn excess(&self) -> u64 {
        self.window.excess(self.in_flight)
    }

    /// Until when the first requests for one-chunk files of a connection that has begun `now` wait for others, while more
    /// files are being looked for on the disk. Requests that go out alone are answered a round trip before the next ones.
    pub fn gathers_until(&self, now: Instant) -> Instant {
        if self.window.is_far() { now + (self.round_trip() / GATHER_PART).min(GATHER_MAX) } else { now }
    }

    /// Whether there is room for requests to wait for, and nothing but one-chunk files was asked for.
    pub fn gathers(&self) -> bool {
        self.window.is_small() && self.excess() == 0 && self.pending.len() < WINDOW_MAX as usize
    }

    /// The shortest round trip that was measured lately.
    pub fn round_trip(&self) -> Duration {
        self.window.round_trip()
    }

    /// A question of the session was answered within that time.
    pub fn path_is_at_most(&mut self, time: Duration) {
        self.window.answered(time, true);
    }

    /// Whether a chunk came that was wanted.
    pub fn is_useful(&self) -> bool {
        self.useful
    }

    /// The connection had nothing to do for a while and looks for work again.
    pub fn resume(&mut self, now: Instant) {
        self.window.pause(now);
    }

    /// The connection ends: everything that it was asked for and did not bring is free for others.
    /// Returns the number of chunks among the unanswered requests.
    pub fn end(&mut self, state: &mut DownloadState<F>) -> u64 {
        let redirected = self.pending.iter().filter(|pending| pending.task.is_chunk()).count();
        let unverified = self.unverified.drain(..).map(Task::Small);
        let open = self.pending.drain(..).map(|pending| pending.task).chain(self.receiving.take()).chain(unverified);
        open.for_each(|task| state.give_back(&task, self.peer));
        self.frames.clear();
        (self.in_flight, self.unanswered) = (0, 0);
        redirected as u64
    }

    /// Whether files are left that the peer was not asked about.
    pub fn is_locating(&self) -> bool {
        self.locate.from.is_some() || !self.locate.next.is_empty()
    }
}

impl LocateQueue {
    /// Queues files once none is left: first all unfinished ones in turn, later the ones that the
    /// peer may hold by then.
    fn refill<F: Clone>(&mut self, state: &mut DownloadState<F>, peer: PeerHandle, now: Instant) {
        if !self.next.is_empty() {
            return;
        }
        let Some(from) = self.from else {
            self.next.extend(state.relocate(peer, now));
            return;
        };
        let files: Vec<_> = state.pending_from(from).take(LOCATE_AHEAD * LOCATE_FILES_MAX).collect();
        self.from = files.last().map(|(last, _)| last + 1);
        self.next.extend(files.chunks(LOCATE_FILES_MAX).map(<[_]>::to_vec));
    }
}

/// Part of a round trip for which first requests wait for others.
const GATHER_PART: u32 = 5;
/// The same at most: others may not ask for what waits, and the peer chooses when it answers.
const GATHER_MAX: Duration = Duration::from_millis(60);
/// Most bytes without an answer, beside a `Hello` that the first of them go out with.
const UNANSWERED_MAX: usize = UNANSWERED_LEN_MAX - 2 * KIB;
/// Most bytes of a request other than `Locate`.
const REQUEST_LEN: usize = 256;
/// Longest postcard form of a `FileId` in bytes.
const FILE_ID_LEN_MAX: usize = 44;

#[cfg(test)]
mod tests;
