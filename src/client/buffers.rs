//! The memory that received chunks may take.

use std::sync::{Condvar, Mutex};

use crate::client::limits::RECEIVE_BUDGET;
use crate::sync::{lock, wait};

/// Buffers for received chunks, [`RECEIVE_BUDGET`] bytes in all. A connection takes one before it
/// reads a body, so that a slow disk slows down the peers and does not fill the memory.
#[derive(Default)]
pub(crate) struct Buffers {
    state: Mutex<BufferState>,
    returned: Condvar,
}

#[derive(Default)]
struct BufferState {
    /// Bytes of buffers lent and free.
    total: usize,
    /// Buffers lent.
    lent: usize,
    free: Vec<Vec<u8>>,
    /// Nothing is lent from now on.
    closed: bool,
}

/// A lent buffer, which goes back when dropped.
pub(crate) struct Buffer<'a> {
    pool: &'a Buffers,
    bytes: Vec<u8>,
}

impl Buffers {
    /// Lends a buffer of at least `len` bytes with arbitrary content. Waits while the budget is
    /// used up; a buffer larger than the budget is lent when no other is. `None` once the pool is
    /// closed.
    pub(crate) fn take(&self, len: usize) -> Option<Buffer<'_>> {
        let mut state = lock(&self.state);
        while !state.closed {
            // The smallest one that fits, so that large ones stay for large chunks.
            let fits = state.free.iter().enumerate().filter(|(_, b)| b.len() >= len).min_by_key(|(_, b)| b.len());
            if let Some((at, _)) = fits {
                state.lent += 1;
                let bytes = state.free.swap_remove(at);
                return Some(Buffer { pool: self, bytes });
            }
            while state.total + len > RECEIVE_BUDGET {
                let Some(unfit) = state.free.pop() else { break };
                state.total -= unfit.len();
            }
            if state.total + len <= RECEIVE_BUDGET || state.lent == 0 {
                state.total += len;
                state.lent += 1;
                drop(state);
                return Some(Buffer { pool: self, bytes: vec![0; len] });
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
        let lent: Vec<_> = (0..4).map(|_| pool.take(quarter).unwrap()).collect();
        std::thread::scope(|s| {
            let (tell, told) = crossbeam::channel::bounded(1);
            let pool = &pool;
            s.spawn(move || {
                let b = pool.take(quarter / 2).unwrap();
                tell.send(b.len()).unwrap();
            });
            assert!(told.recv_timeout(std::time::Duration::from_millis(50)).is_err());
            drop(lent);
            assert_eq!(told.recv(), Ok(quarter), "an old one was lent again");
        });
        assert_eq!(pool.state.lock().unwrap().total, RECEIVE_BUDGET);
        assert_eq!(pool.take(RECEIVE_BUDGET * 2).unwrap().len(), RECEIVE_BUDGET * 2);
    }
    #[test]
    fn who_waits_for_a_buffer_is_let_go_at_the_end() {
        let pool = Buffers::default();
        let all = pool.take(RECEIVE_BUDGET).unwrap();
        std::thread::scope(|s| {
            let waiting = s.spawn(|| pool.take(1).is_none());
            pool.close();
            assert!(waiting.join().unwrap());
        });
        drop(all);
        assert!(pool.take(1).is_none(), "nothing begins any more");
    }
}
