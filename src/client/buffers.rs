//! The memory that received chunks may take.

use std::sync::{Condvar, Mutex};

use crate::client::limits::{RECEIVE_BUDGET, SPARE_BUFFERS_MAX, SPARE_LEN_MAX};
use crate::sync::{lock, wait};

/// Buffers for received chunks, [`RECEIVE_BUDGET`] bytes in all. A connection takes one before it
/// reads a body, so that a slow disk slows down the peers and does not fill the memory.
#[derive(Default)]
pub(crate) struct Buffers {
    state: Mutex<BufferState>,
    returned: Condvar,
    pub(crate) small: SpareBuffers,
}

/// Buffers of one-chunk files that were written. They are used again: allocating memory for each file
/// costs as much as reading it.
#[derive(Default)]
pub(crate) struct SpareBuffers(Mutex<Vec<Vec<u8>>>);

impl SpareBuffers {
    /// A buffer of `len` bytes with arbitrary content.
    pub(crate) fn take(&self, len: usize) -> Vec<u8> {
        let spare = if len <= SPARE_LEN_MAX { lock(&self.0).pop() } else { None };
        match spare.filter(|spare| spare.capacity() >= len) {
            Some(mut bytes) => {
                bytes.resize(len, 0);
                bytes
            }
            None => vec![0; len],
        }
    }

    /// Keeps some of these for later files.
    pub(crate) fn put_back(&self, written: impl Iterator<Item = Vec<u8>>) {
        let mut spare = lock(&self.0);
        let room = SPARE_BUFFERS_MAX - spare.len();
        spare.extend(written.filter(|bytes| (1..=SPARE_LEN_MAX).contains(&bytes.capacity())).take(room));
    }
}

#[derive(Default)]
struct BufferState {
    /// Bytes of buffers lent and free.
    total: usize,
    /// Buffers lent.
    lent: usize,
    /// Bytes lent to connections that brought nothing good yet.
    on_trial: usize,
    free: Vec<Vec<u8>>,
    /// Nothing is lent from now on.
    closed: bool,
}

/// A lent buffer, which goes back when dropped.
pub(crate) struct Buffer<'a> {
    pool: &'a Buffers,
    bytes: Vec<u8>,
    /// The connection had brought nothing good.
    on_trial: bool,
}

impl Buffers {
    /// Lends a buffer of at least `len` bytes with arbitrary content. Waits while the budget is
    /// used up; a buffer larger than the budget is lent when no other is. `None` once the pool is
    /// closed.
    ///
    /// Connections that are not `proven` by a good chunk share half of the budget: peers that never
    /// send the chunks that they are asked for keep no memory from peers that do.
    pub(crate) fn take(&self, len: usize, proven: bool) -> Option<Buffer<'_>> {
        let mut state = lock(&self.state);
        while !state.closed {
            if !proven && state.on_trial > 0 && state.on_trial + len > RECEIVE_BUDGET / 2 {
                state = wait(&self.returned, state);
                continue;
            }
            // The smallest one that fits, so that large ones stay for large chunks.
            let fits = state.free.iter().enumerate().filter(|(_, b)| b.len() >= len).min_by_key(|(_, b)| b.len());
            if let Some((at, _)) = fits {
                state.lent += 1;
                let bytes = state.free.swap_remove(at);
                state.on_trial += if proven { 0 } else { bytes.len() };
                return Some(Buffer { pool: self, bytes, on_trial: !proven });
            }
            while state.total + len > RECEIVE_BUDGET {
                let Some(unfit) = state.free.pop() else { break };
                state.total -= unfit.len();
            }
            if state.total + len <= RECEIVE_BUDGET || state.lent == 0 {
                state.total += len;
                state.lent += 1;
                state.on_trial += if proven { 0 } else { len };
                drop(state);
                return Some(Buffer { pool: self, bytes: vec![0; len], on_trial: !proven });
            }
            state = wait(&self.returned, state);
        }
        None
    }

    /// Ends every wait for a buffer: the download is over.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.returned.notify_all();
    }
}

impl std::ops::Deref for Buffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::ops::DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.pool.state);
        state.lent -= 1;
        state.on_trial -= if self.on_trial { self.bytes.len() } else { 0 };
        state.free.push(std::mem::take(&mut self.bytes));
        drop(state);
        self.pool.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_and_never_over_the_budget() {
        let pool = Buffers::default();
        let quarter = RECEIVE_BUDGET / 4;
        let lent: Vec<_> = (0..4).map(|_| pool.take(quarter, true).unwrap()).collect();
        std::thread::scope(|s| {
            let (tell, told) = crossbeam::channel::bounded(1);
            let pool = &pool;
            s.spawn(move || {
                let b = pool.take(quarter / 2, true).unwrap();
                tell.send(b.len()).unwrap();
            });
            assert!(told.recv_timeout(std::time::Duration::from_millis(50)).is_err());
            drop(lent);
            assert_eq!(told.recv(), Ok(quarter), "an old one was lent again");
        });
        assert_eq!(pool.state.lock().unwrap().total, RECEIVE_BUDGET);
        assert_eq!(pool.take(RECEIVE_BUDGET * 2, true).unwrap().len(), RECEIVE_BUDGET * 2);
    }

    #[test]
    fn connections_on_trial_leave_half_of_the_budget_to_others() {
        let pool = Buffers::default();
        let quarter = RECEIVE_BUDGET / 4;
        let on_trial: Vec<_> = (0..2).map(|_| pool.take(quarter, false).unwrap()).collect();
        std::thread::scope(|s| {
            let (tell, told) = crossbeam::channel::bounded(1);
            let pool = &pool;
            s.spawn(move || tell.send(pool.take(quarter, false).unwrap().len()));
            assert!(told.recv_timeout(std::time::Duration::from_millis(50)).is_err());
            let proven: Vec<_> = (0..2).map(|_| pool.take(quarter, true).unwrap()).collect();
            drop(proven);
            assert!(told.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "not for it");
            drop(on_trial);
            assert_eq!(told.recv(), Ok(quarter));
        });
        assert_eq!(pool.state.lock().unwrap().on_trial, 0);
        assert_eq!(pool.take(RECEIVE_BUDGET * 2, false).unwrap().len(), RECEIVE_BUDGET * 2, "alone, any length");
    }

    #[test]
    fn small_buffers_are_used_again_and_few_are_kept() {
        let spare = SpareBuffers::default();
        spare.put_back([vec![7; 100], vec![8; SPARE_LEN_MAX + 1], Vec::new()].into_iter());
        assert_eq!(lock(&spare.0).len(), 1, "too long, and none");
        assert_eq!(spare.take(SPARE_LEN_MAX + 1), vec![0; SPARE_LEN_MAX + 1], "left for a short one");
        assert_eq!(spare.take(60), vec![7; 60]);
        assert_eq!(spare.take(60), vec![0; 60]);
        spare.put_back([vec![7; 60]].into_iter());
        assert_eq!((spare.take(61), lock(&spare.0).len()), (vec![0; 61], 0));
        (0..3).for_each(|_| spare.put_back((0..SPARE_BUFFERS_MAX).map(|_| vec![1; 9])));
        assert_eq!(lock(&spare.0).len(), SPARE_BUFFERS_MAX);
    }

    #[test]
    fn who_waits_for_a_buffer_is_let_go_at_the_end() {
        let pool = Buffers::default();
        let all = pool.take(RECEIVE_BUDGET, true).unwrap();
        std::thread::scope(|s| {
            let waiting = s.spawn(|| pool.take(1, true).is_none());
            pool.close();
            assert!(waiting.join().unwrap());
        });
        drop(all);
        assert!(pool.take(1, true).is_none(), "nothing begins any more");
    }
}
