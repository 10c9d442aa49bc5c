//! What an answer means for the download.

use std::time::{Duration, Instant};

use crate::content::Digest;
use crate::limits::FETCHERS_PER_ANSWER_MAX;
use crate::proto::{
    self, ChunkHeader, ChunkRef, Holding, MessageError, PeerHint, Request, Status, decode_body, decode_header,
};
use crate::swarm::download::limits::DEFERRED_REST;
use crate::swarm::download::requester::Requester;
use crate::swarm::download::requester::bodies::{Haves, HavesError, ShortBody};
use crate::swarm::download::state::{ChunkCame, DownloadState, Extent};
use crate::swarm::download::task::{ChunkTask, FileNo, SmallTask, Task};

/// The beginning of an answer whose kind and length were checked against [`Requester::expects`].
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Its status.
    pub status: Status,
    /// Its header, in postcard form.
    pub header: &'a [u8],
    /// Bytes of its body.
    pub body_len: u32,
}

/// What the connection reads next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerStep<F> {
    /// A chunk and its trailer byte, for [`Requester::on_trailer`].
    Chunk(ChunkTask<F>),
    /// A one-chunk file and its trailer byte, for [`Requester::on_trailer`].
    Small(SmallTask),
    /// Part of a layer, for [`Requester::add_layer_part`].
    Layer {
        /// The file.
        file: FileNo,
        /// Bytes of the part.
        len: u32,
    },
    /// A short body of that many bytes, for [`Requester::on_body`].
    Body(u32),
    /// Nothing: the answer has no body, and says nothing.
    Settled,
    /// Nothing; the peer defers the request, which shows that it is there. Others may be asked for
    /// it.
    Deferred,
    /// Nothing; the peer does not have what it had said of the file, and others are asked for it.
    NotHeld(Option<FileNo>),
    /// The peer refuses the connection, or is too busy for it: it ends, with that request
    /// unanswered.
    Refused,
}

/// What became of a chunk that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is to be verified.
    Verify,
    /// Another peer was quicker, and its bytes are of no use.
    Surplus,
    /// The holder found that its file has changed, and its bytes are of no use.
    NotHeld,
}

/// What became of a one-chunk file that was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmallArrival {
    /// It is to be written.
    Fresh,
    /// Another peer was quicker.
    Surplus,
    /// Its digest is wrong although its trailer said *good*: the peer lies.
    Bad,
}

/// What a short body was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing is left to do.
    Done,
    /// How much the peer holds is known now, so that another one can be asked.
    Located,
    /// A whole layer, which is to be checked against the root of the file.
    Layer {
        /// The file.
        file: FileNo,
        /// The digests of its chunks.
        digests: Vec<Digest>,
    },
    /// Peers that fetch the file, too. They are hints: nothing of them is verified.
    Peers {
        /// The file.
        file: FileNo,
        /// At most [`FETCHERS_PER_ANSWER_MAX`] peers.
        hints: Vec<PeerHint>,
    },
}

/// An answer that breaks the protocol; the connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A header or body is malformed.
    #[error("{0}")]
    Message(#[from] MessageError),
    /// The body of a chunk or of part of a layer has another length than what was asked for.
    #[error("body of {got} bytes, expected {want}")]
    Length {
        /// Bytes announced.
        got: u32,
        /// Bytes asked for.
        want: u32,
    },
    /// The chunks that a holder says it has cannot be.
    #[error("{0}")]
    Haves(#[from] HavesError),
    /// The answer is about a chunk that was not asked for, or not offered for choice. That is no
    /// lie: it may be the right chunk for an earlier request.
    #[error("chunk {} of {}, not asked for", .0.index, .0.file)]
    NotAsked(ChunkRef),
    /// No request is unanswered.
    #[error("answer without a request")]
    Unasked,
}

impl<F: Clone> Requester<F> {
    /// The head of the next answer came. A failed status is settled here: its task is free for
    /// others before its body is read.
    ///
    /// # Errors
    /// [`AnswerError`]: the connection ends, and [`end`](Requester::end) gives the task back.
    pub fn on_head(
        &mut self,
        state: &mut DownloadState<F>,
        head: Head<'_>,
        now: Instant,
    ) -> Result<AnswerStep<F>, AnswerError> {
        let Some(front) = self.pending.front() else { return Err(AnswerError::Unasked) };
        if front.measures {
            self.window.answered(now.saturating_duration_since(front.sent), front.task.waits_for_slot());
        }
        if matches!(head.status, Status::Busy | Status::Refused) && !is_deferral(&front.task, head.status) {
            return Ok(AnswerStep::Refused);
        }
        let Some(asked) = self.pending.pop_front() else { return Err(AnswerError::Unasked) };
        self.unanswered -= asked.request_len;
        if head.status != Status::Ok {
            return Ok(self.settle_failure(state, &asked.task, head, now));
        }
        let task = self.receiving.insert(asked.task);
        match task {
            Task::AnyOf(offered) => {
                let given: ChunkHeader = decode_header(head.header, "ChunkHeader")?;
                let of_file = given.chunk.file == offered.id;
                let chosen = of_file.then(|| state.chosen(offered, given.chunk.index, self.peer, asked.sent)).flatten();
                let chunk = chosen.ok_or(AnswerError::NotAsked(given.chunk))?;
                self.in_flight = self.in_flight.saturating_sub(task.chunk_bytes()) + u64::from(chunk.len);
                *task = Task::Chunk(chunk.clone());
                expect_len(head, chunk.len + 1)?;
                Ok(AnswerStep::Chunk(chunk))
            }
            Task::Chunk(chunk) => {
                let chunk = chunk.clone();
                expect_len(head, chunk.len + 1)?;
                let given = expect_chunk(head.header, ChunkRef { file: chunk.id, index: chunk.index.get() })?;
                if chunk.since > 0
                    && let Some(haves) = given.new_haves
                {
                    Haves::of(haves, &chunk.id)?.note(state, chunk.file, self.peer);
                }
                Ok(AnswerStep::Chunk(chunk))
            }
            Task::Small(small) => {
                expect_len(head, small.len + 1)?;
                expect_chunk(head.header, ChunkRef { file: small.id, index: small.index.get() })?;
                Ok(AnswerStep::Small(*small))
            }
            Task::Layer(layer) => {
                expect_len(head, layer.range().count * 32)?;
                Ok(AnswerStep::Layer { file: layer.file, len: head.body_len })
            }
            Task::Peers { .. } | Task::Have { .. } | Task::Locate(_) => Ok(AnswerStep::Body(head.body_len)),
        }
    }

    /// A status other than `Ok` answers `task`.
    fn settle_failure(
        &mut self,
        state: &mut DownloadState<F>,
        task: &Task<F>,
        Head { status, header, .. }: Head<'_>,
        now: Instant,
    ) -> AnswerStep<F> {
        self.in_flight = self.in_flight.saturating_sub(task.chunk_bytes());
        match task {
            Task::Layer(layer) if is_deferral(task, status) => {
                let problem: proto::Problem = decode_header(header, "Problem").unwrap_or_default();
                let wait = Duration::from_millis(problem.retry_after_ms.into());
                state.layer_busy(layer.file, self.peer, wait, now);
                AnswerStep::Deferred
            }
            // The chunk waited for long: another peer may be quicker, or this one later.
            _ if is_deferral(task, status) => {
                state.give_back(task, self.peer);
                self.rests_until = Some(now + DEFERRED_REST);
                AnswerStep::Deferred
            }
            Task::Chunk(_) | Task::AnyOf(_) | Task::Small(_) | Task::Layer(_) => {
                self.lose(state, task);
                AnswerStep::NotHeld(task.file().map(|(file, _)| file))
            }
            Task::Have { file, .. } if status != Status::NotModified => {
                state.not_held(*file, self.peer);
                AnswerStep::Settled
            }
            Task::Have { .. } | Task::Peers { .. } | Task::Locate(_) => AnswerStep::Settled,
        }
    }

    /// `n` bytes of a chunk came.
    pub fn on_bytes(&mut self, n: u64, now: Instant) {
        self.window.add(n, now);
        self.in_flight = self.in_flight.saturating_sub(n);
    }

    /// All bytes of the chunk or one-chunk file came, and this trailer.
    pub fn on_trailer(&mut self, state: &mut DownloadState<F>, trailer: u8, now: Instant) -> Arrival {
        let Some(task) = self.receiving.take() else { return Arrival::Surplus };
        if trailer != Request::GOOD {
            self.lose(state, &task);
            return Arrival::NotHeld;
        }
        match task {
            Task::Small(small) => self.unverified.push(small),
            // It still shows how long this peer takes, and that it is there.
            Task::Chunk(chunk) if !state.is_wanted(chunk.file, chunk.index.get()) => {
                state.chunk_came(chunk.file, chunk.index.get(), self.peer, now);
                return Arrival::Surplus;
            }
            task => self.receiving = Some(task),
        }
        Arrival::Verify
    }

    /// The chunk is verified and written.
    pub fn on_chunk(&mut self, state: &mut DownloadState<F>, now: Instant) -> ChunkCame {
        match self.receiving.take() {
            Some(Task::Chunk(chunk)) => {
                let came = state.chunk_came(chunk.file, chunk.index.get(), self.peer, now);
                self.useful |= came.fresh;
                came
            }
            other => {
                self.receiving = other;
                ChunkCame::default()
            }
        }
    }

    /// The one-chunk files that came since the last call were hashed: `roots` are theirs, in the
    /// order in which they came.
    pub fn on_roots(
        &mut self,
        state: &mut DownloadState<F>,
        roots: &[Digest],
        now: Instant,
    ) -> Vec<(SmallTask, SmallArrival)> {
        let count = roots.len().min(self.unverified.len());
        let hashed: Vec<SmallTask> = self.unverified.drain(..count).collect();
        let mut judge = |(small, root): (SmallTask, &Digest)| {
            let arrival = if *root != small.id.root.0 {
                state.give_back(&Task::Small(small), self.peer);
                SmallArrival::Bad
            } else if state.small_came(small.file, self.peer, now) {
                self.useful = true;
                SmallArrival::Fresh
            } else {
                SmallArrival::Surplus
            };
            (small, arrival)
        };
        hashed.into_iter().zip(roots).map(&mut judge).collect()
    }

    /// Takes the bytes of the part of a layer that is being received. The state of the download is
    /// not needed, so its lock is not held while up to a MiB is decoded.
    pub fn add_layer_part(&mut self, body: &[u8]) {
        if let Some(Task::Layer(layer)) = &mut self.receiving {
            layer.digests.extend(body.chunks_exact(32).map(|d| Digest(d.try_into().unwrap_or_default())));
        }
    }

    /// The part of a layer that is being received is whole, and
    /// [`add_layer_part`](Self::add_layer_part) has its bytes. The next part is asked for at once,
    /// and only then: a holder that sends the layer to many others answers the first part with
    /// `Busy`.
    pub fn on_layer_part(&mut self, state: &mut DownloadState<F>, now: Instant) -> Answer {
        match self.receiving.take() {
            Some(Task::Layer(layer)) if !layer.is_whole() => self.push(Task::Layer(layer), now, false),
            Some(Task::Layer(layer)) if state.layer_came(layer.file) => {
                return Answer::Layer { file: layer.file, digests: layer.digests };
            }
            Some(Task::Layer(_)) | None => {}
            other => self.receiving = other,
        }
        Answer::Done
    }

    /// Reads the short body of the answer that is being received. The state of the download is not
    /// needed, so its lock is not held while up to two MiB are decoded.
    ///
    /// # Errors
    /// [`AnswerError`]: the connection ends.
    pub fn read_body(&self, body: &[u8]) -> Result<ShortBody, AnswerError> {
        match &self.receiving {
            Some(Task::Have { id, .. }) => Ok(ShortBody::Haves(Haves::of(decode_body(body, "Have")?, id)?)),
            Some(Task::Peers { .. }) => {
                let mut hints: Vec<PeerHint> = decode_body(body, "Peers")?;
                hints.truncate(FETCHERS_PER_ANSWER_MAX);
                Ok(ShortBody::Peers(hints))
            }
            // It only measured the round trip.
            Some(Task::Locate(files)) if files.is_empty() => Ok(ShortBody::Nothing),
            Some(Task::Locate(files)) => {
                let mut holdings: Vec<Holding> = decode_body(body, "Locate")?;
                holdings.truncate(files.len());
                Ok(ShortBody::Holdings(holdings))
            }
            _ => Ok(ShortBody::Nothing),
        }
    }

    /// The short body of an answer is whole.
    pub fn on_body(&mut self, state: &mut DownloadState<F>, body: ShortBody) -> Answer {
        match (self.receiving.take(), body) {
            (Some(Task::Have { file, .. }), ShortBody::Haves(haves)) => {
                haves.note(state, file, self.peer);
                Answer::Done
            }
            (Some(Task::Peers { file, .. }), ShortBody::Peers(hints)) => Answer::Peers { file, hints },
            (Some(Task::Locate(files)), ShortBody::Holdings(holdings)) => {
                for ((file, _), holding) in files.into_iter().zip(holdings) {
                    match holding {
                        Holding::None => state.not_held(file, self.peer),
                        Holding::Whole => state.set_held(file, self.peer, Extent::Whole),
                        Holding::Partial(_) => state.set_held(file, self.peer, Extent::Partial),
                    }
                }
                Answer::Located
            }
            (Some(Task::Have { .. } | Task::Peers { .. } | Task::Locate(_)), _) => Answer::Done,
            (other, _) => {
                self.receiving = other;
                Answer::Done
            }
        }
    }

    /// The peer does not hold what it had said: `task` and all else of that file is asked of
    /// others.
    fn lose(&mut self, state: &mut DownloadState<F>, task: &Task<F>) {
        self.lost = true;
        state.give_back(task, self.peer);
        if let Some((file, _)) = task.file() {
            state.not_held(file, self.peer);
        }
    }
}

/// Whether a status puts the answer to `task` off without saying anything against the peer. The
/// holder's queue moves, and the request may wait in it for longer than a silent peer is waited
/// for.
fn is_deferral<F>(task: &Task<F>, status: Status) -> bool {
    match status {
        Status::Busy => matches!(task, Task::Layer(_)),
        Status::NotModified => task.is_chunk(),
        _ => false,
    }
}

/// The header of an answer that must be about `chunk`.
fn expect_chunk(header: &[u8], chunk: ChunkRef) -> Result<ChunkHeader, AnswerError> {
    let given: ChunkHeader = decode_header(header, "ChunkHeader")?;
    if given.chunk == chunk { Ok(given) } else { Err(AnswerError::NotAsked(given.chunk)) }
}

fn expect_len(head: Head<'_>, want: u32) -> Result<(), AnswerError> {
    if head.body_len == want { Ok(()) } else { Err(AnswerError::Length { got: head.body_len, want }) }
}
