//! Chunks that come on a connection: read, verified, written.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use log::{error, trace};

use crate::client::disk_queues::{DiskJob, SmallContent};
use crate::client::disk_workers::abandon;
use crate::client::fetcher::Fetcher;
use crate::client::limits::{ASK_STEP, THROTTLE_NAP, VERIFY_FILES_MAX, VERIFY_LEN_MAX};
use crate::content::{ChunkIndex, FileId, merkle};
use crate::net::StreamError;
use crate::peers::AskError;
use crate::proto::{ChunkRef, Status};
use crate::store::PartialFile;
use crate::swarm::{Arrival, ChunkTask, ConnectionEnd, FileNo, SmallArrival, SmallTask};

impl Fetcher<'_> {
    /// Reads a chunk, verifies it and writes it. `Some` when the connection is to end.
    pub(super) fn receive_chunk(
        &mut self,
        task: &ChunkTask<Arc<PartialFile>>,
    ) -> Result<Option<ConnectionEnd>, AskError> {
        let shared = self.shared;
        let mut buffer =
            shared.buffers.take(task.len as usize, self.requester.is_useful()).ok_or(StreamError::Closed)?;
        let bytes = &mut buffer[..task.len as usize];
        let trailer = self.read_chunk(task.file, task.index, bytes)?;
        let arrival = self.requester.on_trailer(&mut shared.state(), trailer, Instant::now());
        match arrival {
            Arrival::Verify => {}
            Arrival::Surplus => {
                shared.waste(task.len);
                return Ok(None);
            }
            Arrival::NotHeld => {
                self.redirect(Some(task.file), Status::Gone);
                return Ok(None);
            }
        }
        if !task.open.manifest().verify(task.index, bytes) {
            drop(buffer);
            return Ok(Some(self.lied(task.id, task.index.get(), task.len)));
        }
        if let Err(e) = shared.while_writing(|| task.open.write(task.index, bytes)) {
            abandon(shared, task.file, e);
            drop(buffer);
            // The answer counts as done: the file is wanted no longer.
            self.requester.on_chunk(&mut shared.state(), Instant::now());
            return Ok(shared.is_stopped().then_some(ConnectionEnd::Stopped));
        }
        drop(buffer);
        let came = self.requester.on_chunk(&mut shared.state(), Instant::now());
        trace!("chunk peer={} file={} chunk={} fresh={}", self.session.peer, task.id, task.index.get(), came.fresh);
        if came.fresh {
            self.credit(task.len);
        } else {
            shared.waste(task.len);
        }
        // Counted first: the end of what is read may be the end of the fetch.
        shared.terms.readings.came(&task.id);
        if came.whole {
            let _ = shared.queues.jobs.send(DiskJob::Finish { file: task.file, open: task.open.clone() });
            shared.wake_connections();
        }
        Ok(None)
    }

    /// Reads a one-chunk file. It is verified later, together with others.
    pub(super) fn receive_small(&mut self, task: &SmallTask) -> Result<(), AskError> {
        let mut bytes = self.shared.buffers.small.take(task.len as usize);
        let trailer = self.read_chunk(task.file, task.index, &mut bytes)?;
        let arrival = self.requester.on_trailer(&mut self.shared.state(), trailer, Instant::now());
        match arrival {
            Arrival::Verify => self.unverified.push(bytes),
            Arrival::Surplus => self.shared.waste(task.len),
            Arrival::NotHeld => self.redirect(Some(task.file), Status::Gone),
        }
        Ok(())
    }

    /// Reads the bytes of a chunk as fast as the limit allows, and returns its trailer. More is
    /// asked for on the way, once that is needed to keep the connection busy: not earlier, since
    /// another connection may be quicker by then. A peer that is too slow fails if another one
    /// holds the chunk; a lone holder is kept.
    fn read_chunk(&mut self, file: FileNo, chunk: ChunkIndex, into: &mut [u8]) -> Result<u8, AskError> {
        let shared = self.shared;
        let idle = shared.idle();
        let mut at = 0;
        while at < into.len() {
            let left = into.len() - at;
            let excess = self.requester.excess() as usize;
            let step = if excess > 0 { excess.max(ASK_STEP).min(left) } else { left };
            match shared.grant(step, left, Instant::now()) {
                Ok(n) => {
                    let n = n.clamp(1, step);
                    let (requester, connections) = (&mut self.requester, self.connections);
                    let is_slow = &mut self.is_slow;
                    let (pace, number, handle) = (&mut self.pace, self.number, self.handle);
                    self.session.dialed.read_body(&mut into[at..at + n], idle, &mut |n| {
                        shared.stats.arrived(n as u64);
                        connections.read.fetch_add(n as u64, Ordering::Relaxed);
                        let now = Instant::now();
                        requester.on_bytes(n as u64, now);
                        let others_wait = shared.sessions.others_wait.load(Ordering::Relaxed);
                        *is_slow = pace.is_chunk_slow(n as u64, others_wait, now)
                            && shared.state().is_held_elsewhere(file, Some(chunk.get()), handle);
                        !*is_slow && !pace.overstays(connections.is_surplus(number), now)
                    })?;
                    at += n;
                    if excess > 0 && at < into.len() {
                        self.requester.fill(&mut shared.state(), Instant::now());
                        self.send()?;
                    }
                }
                Err(wait) => {
                    // A wait for the own limit is not silence of the peer, nor slowness.
                    self.pace.begin(Instant::now());
                    shared.stats.progressed();
                    if shared.is_stopped() || shared.ctx.shutdown.wait(wait.min(THROTTLE_NAP)) {
                        return Err(AskError::Stream(StreamError::Closed));
                    }
                }
            }
        }
        let mut trailer = [0];
        self.session.dialed.read_body(&mut trailer, idle, &mut |_| true)?;
        Ok(trailer[0])
    }

    /// Whether to verify before anything more is received: nothing more is here, or it is enough.
    pub(super) fn is_verifying_due(&self) -> bool {
        !self.session.dialed.has_input()
            || self.unverified.len() >= VERIFY_FILES_MAX
            || self.unverified.iter().map(Vec::len).sum::<usize>() >= VERIFY_LEN_MAX
    }

    /// Verifies the one-chunk files that came, and hands the good ones to the threads that write
    /// them.
    pub(super) fn verify_small(&mut self) -> Option<ConnectionEnd> {
        let came = std::mem::take(&mut self.unverified);
        if came.is_empty() {
            return None;
        }
        let roots = merkle::roots_of(&came.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let judged = self.requester.on_roots(&mut self.shared.state(), &roots, Instant::now());
        let mut lie = None;
        for ((task, arrival), bytes) in judged.into_iter().zip(came) {
            match arrival {
                SmallArrival::Fresh => {
                    self.credit(task.len);
                    let _ = self.shared.queues.small.send(Some((task.file, SmallContent::Came(bytes))));
                }
                SmallArrival::Surplus => self.shared.waste(task.len),
                SmallArrival::Bad => lie = Some(task),
            }
        }
        lie.map(|task| self.lied(task.id, task.index.get(), task.len))
    }

    fn credit(&self, len: u32) {
        self.shared.stats.credit(self.session.node(), len.into());
        self.shared.ctx.peers.traffic().received(self.session.peer, len.into());
    }

    /// Bytes with the trailer *good* are not what was asked for.
    fn lied(&mut self, id: FileId, index: u32, len: u32) -> ConnectionEnd {
        self.shared.waste(len);
        let (peer, addr) = (self.session.peer, self.session.addr);
        let tag = self.shared.ctx.peers.own().tag();
        error!("bad chunk, not asked again peer={peer} addr={addr} file={id} chunk={index}{tag}");
        self.shared.strike(self.handle, peer, id);
        self.bad = Some(ChunkRef { file: id, index });
        ConnectionEnd::Lied
    }
}
