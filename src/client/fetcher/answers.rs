//! What a connection does with the answers: here a chunk is verified and written.

use crate::identity::NodeId;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use log::{debug, error, trace};

use crate::client::fetcher::{End, Fetcher};
use crate::client::limits::{ASK_STEP, THROTTLE_NAP};
use crate::client::storing::Job;
use crate::content::{Bitfield, ChunkIndex, Digest, FileId, Geometry, merkle};
use crate::limits::FETCHERS_TOLD_MAX;
use crate::net::StreamError;
use crate::peers::AskError;
use crate::proto::{ChunkRef, Delta, Given, Holding, LayerRange, PeerHint, Request, Status, decode_body};
use crate::store::PartialFile;
use crate::swarm::{Chunks, FileNo, Held, Work};

impl Fetcher<'_> {
    pub(super) fn receive_chunk(
        &mut self,
        work: &Work<Arc<PartialFile>>,
        status: Status,
        body_len: u32,
    ) -> Result<Option<End>, AskError> {
        let (file, id, index, len) = match work {
            Work::Chunk { file, id, index, len, .. } | Work::Small { file, id, index, len } => {
                (*file, *id, *index, *len)
            }
            _ => return Ok(None),
        };
        if status != Status::Ok {
            self.in_flight -= len as u64;
            self.drain(body_len)?;
            if status == Status::NotModified {
                // It waited long: another may be quicker, or this peer later.
                self.shared.state().give_back(work, self.handle);
                self.rests = true;
                return Ok(None);
            }
            return self.lost_holder(work, file, status);
        }
        if let Work::Chunk { since: 1.., .. } = work
            && let Some(news) = self.session.header::<Given>("Given")?.news
        {
            self.take_delta(file, id, &news)?;
        }
        if body_len != len + 1 {
            return Err(AskError::Protocol(format!("chunk of {body_len} bytes, expected {}", len + 1)));
        }
        if let Work::Small { .. } = work {
            let mut bytes = vec![0; len as usize];
            if !self.read_chunk(&mut bytes)? {
                return self.lost_holder(work, file, Status::Gone);
            }
            self.unverified.push((work.clone(), bytes));
            return Ok(None);
        }
        let Work::Chunk { open, .. } = work else { return Ok(None) };
        let mut buffer = self.shared.buffers.take(len as usize).ok_or(StreamError::Closed)?;
        let bytes = &mut buffer[..len as usize];
        if !self.read_chunk(bytes)? {
            drop(buffer);
            return self.lost_holder(work, file, Status::Gone);
        }
        if !self.shared.state().is_wanted(file, index.get()) {
            // Not in vain: it shows how long this peer takes, and that it is there.
            self.shared.state().chunk_came(file, index.get(), self.handle, Instant::now());
            self.waste(len);
            return Ok(None);
        }
        if !open.manifest().verify(index, bytes) {
            drop(buffer);
            return Ok(Some(self.lied(id, index, len)));
        }
        if let Err(e) = self.shared.while_writing(|| open.write(index, bytes)) {
            self.shared.fail(e.into());
            return Ok(Some(End::Stopped));
        }
        drop(buffer);
        let (fresh, whole) = self.shared.state().chunk_came(file, index.get(), self.handle, Instant::now());
        trace!("chunk peer={} file={id} chunk={} fresh={fresh}", self.session.peer, index.get());
        if fresh {
            self.credit(len);
        } else {
            self.waste(len);
        }
        if whole {
            let _ = self.shared.jobs.send(Job::Finish { file, open: open.clone() });
            self.shared.wake(false);
        }
        Ok(None)
    }

    /// Verifies the one-chunk files that came, and hands the good ones to those that write.
    pub(super) fn verify_small(&mut self) -> Option<End> {
        let came = std::mem::take(&mut self.unverified);
        if came.is_empty() {
            return None;
        }
        let roots = merkle::roots_of(&came.iter().map(|(_, bytes)| bytes.as_slice()).collect::<Vec<_>>());
        let mut lie = None;
        for ((work, bytes), root) in came.into_iter().zip(roots) {
            let Work::Small { file, id, index, len } = work else { continue };
            if root != id.root.0 {
                self.shared.state().give_back(&work, self.handle);
                lie = Some((id, index, len));
            } else if self.shared.state().small_came(file, self.handle, Instant::now()) {
                self.credit(len);
                // The channel is as long as all bytes that are allowed: it never blocks while the writer lives.
                let _ = self.shared.small.send(Some((file, bytes)));
            } else {
                self.waste(len);
            }
        }
        lie.map(|(id, index, len)| self.lied(id, index, len))
    }

    /// Which of the chunks that it was free to choose from the peer sends.
    pub(super) fn receive_chosen(
        &mut self,
        work: &Work<Arc<PartialFile>>,
        status: Status,
        body_len: u32,
        asked: Instant,
    ) -> Result<Option<Work<Arc<PartialFile>>>, AskError> {
        let Work::Any { file, id, .. } = work else { return Ok(None) };
        self.in_flight -= Geometry::new(id.len).chunk_len();
        if status != Status::Ok {
            self.drain(body_len)?;
            if status == Status::NotModified {
                // It waited so long that other chunks are lacked by now.
                self.rests = true;
            } else {
                self.lost_holder(work, *file, status)?;
            }
            return Ok(None);
        }
        let given: Given = self.session.header("Given")?;
        let chosen = self.shared.state().chosen(work, given.chunk.index, self.handle, asked);
        match chosen {
            Some(Work::Chunk { len, .. }) if given.chunk.file == *id => {
                self.in_flight += len as u64;
                Ok(chosen)
            }
            _ => Err(AskError::Protocol(format!("chunk {} of {}, not asked for", given.chunk.index, given.chunk.file))),
        }
    }

    /// Reads the bytes of a chunk as fast as the limit allows, and whether they are good. Asks for more on the way, once
    /// that is needed to keep the connection busy: not earlier, since another may be quicker by then.
    fn read_chunk(&mut self, into: &mut [u8]) -> Result<bool, AskError> {
        let shared = self.shared;
        let idle = shared.idle();
        let mut at = 0;
        while at < into.len() {
            let left = into.len() - at;
            let excess = self.excess() as usize;
            let step = if excess > 0 { excess.max(ASK_STEP).min(left) } else { left };
            match shared.ctx.throttle.take(step, left, Instant::now()) {
                Ok(n) => {
                    let n = n.clamp(1, step);
                    let (window, in_flight, lane) = (&mut self.window, &mut self.in_flight, self.lane);
                    self.session.dialed.read_body(&mut into[at..at + n], idle, &mut |n| {
                        shared.tally.heard();
                        lane.read.fetch_add(n as u64, Ordering::Relaxed);
                        window.add(n as u64, Instant::now());
                        *in_flight -= n as u64;
                    })?;
                    at += n;
                    if excess > 0 && at < into.len() {
                        self.ask()?;
                    }
                }
                Err(wait) => {
                    // Held back by the own limit is not silence of the peer.
                    shared.tally.heard();
                    if shared.is_stopped() || shared.ctx.shutdown.wait(wait.min(THROTTLE_NAP)) {
                        return Err(AskError::Stream(StreamError::Closed));
                    }
                }
            }
        }
        let mut trailer = [0];
        self.session.dialed.read_body(&mut trailer, idle, &mut |_| ())?;
        Ok(trailer[0] == Request::GOOD)
    }

    fn credit(&mut self, len: u32) {
        self.useful = true;
        self.shared.tally.credit(self.handle, self.session.peer, len as u64);
    }

    pub(super) fn waste(&self, len: u32) {
        self.shared.tally.wasted.fetch_add(len as u64, Ordering::Relaxed);
    }

    /// The peer does not hold (that chunk of) the file after all.
    fn lost_holder(
        &mut self,
        work: &Work<Arc<PartialFile>>,
        file: FileNo,
        status: Status,
    ) -> Result<Option<End>, AskError> {
        self.lost = true;
        debug!("not held peer={} id={} status={status:?}", self.session.peer, self.shared.files[file as usize].id);
        let mut state = self.shared.state();
        state.give_back(work, self.handle);
        state.not_held(file, self.handle);
        drop(state);
        self.shared.tally.redirects.fetch_add(1, Ordering::Relaxed);
        self.shared.wake(true);
        Ok(None)
    }

    /// Bytes with the trailer *good* that are not what was asked for.
    fn lied(&mut self, id: FileId, index: ChunkIndex, len: u32) -> End {
        self.waste(len);
        let (peer, addr) = (self.session.peer, self.session.addr);
        error!("bad chunk peer={peer} addr={addr} id={id} chunk={}: digest differs; not asked again", index.get());
        self.shared.strike(self.handle, peer, id);
        self.bad = Some(ChunkRef { file: id, index: index.get() });
        End::Lied
    }

    pub(super) fn receive_have(
        &mut self,
        file: FileNo,
        id: FileId,
        status: Status,
        body_len: u32,
    ) -> Result<(), AskError> {
        let body = self.session.body(body_len, Instant::now() + self.shared.idle())?;
        match status {
            Status::Ok => self.take_delta(file, id, &decode_body(&body, "Have")?)?,
            Status::NotModified => {}
            _ => self.shared.state().not_held(file, self.handle),
        }
        Ok(())
    }

    /// The peer told what it has of a file that it is fetching, too. That is work for its connections: this one asks
    /// next, and others, should there be any, look again soon.
    fn take_delta(&mut self, file: FileNo, id: FileId, delta: &Delta) -> Result<(), AskError> {
        let mut state = self.shared.state();
        match delta {
            Delta::Whole => state.set_chunks(file, self.handle, 0, Chunks::All),
            Delta::Full { revision, bits } => {
                let bits = Bitfield::from_bytes(bits, Geometry::new(id.len).chunk_count())
                    .ok_or_else(|| AskError::Protocol("bitfield of another length".into()))?;
                state.set_chunks(file, self.handle, *revision, Chunks::These(&bits));
            }
            Delta::New { revision, chunks } => {
                state.set_chunks(file, self.handle, *revision, Chunks::More(chunks));
            }
        }
        Ok(())
    }

    pub(super) fn receive_layer(
        &mut self,
        file: FileNo,
        range: LayerRange,
        status: Status,
        body_len: u32,
    ) -> Result<(), AskError> {
        if status == Status::Busy
            && let AskError::Busy(wait) = self.session.problem(status)
        {
            self.drain(body_len)?;
            self.layers.remove(&file);
            self.shared.state().list_busy(file, self.handle, wait, Instant::now());
            self.shared.wake(false);
            return Ok(());
        }
        if status != Status::Ok {
            self.drain(body_len)?;
            self.layers.remove(&file);
            return self.lost_holder(&Work::Layer { file, id: range.file }, file, status).map(drop);
        }
        if body_len != range.count * 32 {
            return Err(AskError::Protocol(format!("list of {body_len} bytes, expected {}", range.count * 32)));
        }
        let mut buffer = self.shared.buffers.take(body_len as usize).ok_or(StreamError::Closed)?;
        let bytes = &mut buffer[..body_len as usize];
        let (idle, tally) = (self.shared.idle(), &self.shared.tally);
        self.session.dialed.read_body(bytes, idle, &mut |_| tally.heard())?;
        let Some(layer) = self.layers.get_mut(&file) else { return Ok(()) };
        layer.extend(bytes.chunks_exact(32).map(|d| Digest(d.try_into().unwrap_or_default())));
        drop(buffer);
        let next = range.first + range.count;
        if next < Geometry::new(range.file.len).chunk_count() {
            self.frames.clear();
            self.push_layer(file, range.file, next, Instant::now(), false);
            return self.session.send_frames(&self.frames, Instant::now() + idle);
        }
        if let Some(layer) = self.layers.remove(&file) {
            let first = self.shared.state().layer_came(file);
            if first {
                let _ = self.shared.jobs.send(Job::Open { file, layer, from: self.handle, peer: self.session.peer });
            }
        }
        Ok(())
    }

    /// The peer told who else fetches a file.
    pub(super) fn receive_peers(&mut self, file: FileNo, status: Status, body_len: u32) -> Result<(), AskError> {
        let body = self.session.body(body_len, Instant::now() + self.shared.idle())?;
        if status != Status::Ok {
            return Ok(());
        }
        let hints: Vec<PeerHint> = decode_body(&body, "Peers")?;
        let told = &hints[..hints.len().min(FETCHERS_TOLD_MAX)];
        let mut named = self.shared.ctx.peers.hints(told, self.session.addr.ip(), Instant::now());
        let liars = self.shared.liars();
        named.retain(|NodeId { peer, .. }| !liars.contains(peer));
        debug!("named peer={} id={} others={}", self.session.peer, self.shared.files[file as usize].id, named.len());
        let mut state = self.shared.state();
        for key in named {
            if let Some(handle) = state.peer(key) {
                state.named(file, handle);
            }
        }
        drop(state);
        self.shared.wake(true);
        Ok(())
    }

    pub(super) fn receive_holdings(
        &mut self,
        files: &[(FileNo, FileId)],
        status: Status,
        body_len: u32,
    ) -> Result<(), AskError> {
        let body = self.session.body(body_len, Instant::now() + self.shared.idle())?;
        if status != Status::Ok {
            return Ok(());
        }
        let holdings: Vec<Holding> = decode_body(&body, "Locate")?;
        let mut state = self.shared.state();
        for (&(file, _), holding) in files.iter().zip(holdings) {
            match holding {
                Holding::None => state.not_held(file, self.handle),
                Holding::Whole => state.set_held(file, self.handle, Held::Whole),
                Holding::Partial(_) => state.set_held(file, self.handle, Held::Partial),
            }
        }
        drop(state);
        // Whoever holds something is no longer only asked, so that the next can be.
        self.shared.wake(true);
        Ok(())
    }

    fn drain(&mut self, body_len: u32) -> Result<(), AskError> {
        self.session.body(body_len, Instant::now() + self.shared.idle()).map(drop)
    }
}
