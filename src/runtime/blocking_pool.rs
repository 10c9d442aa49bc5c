//! Threads for tasks that block.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::runtime::{Shutdown, Workers};
use crate::sync::lock;

/// Named threads for tasks that block on a socket or a disk, joined when the pool is dropped.
///
/// It is made of rayon pools of a fixed size, called blocks, which start as the need grows: few
/// tasks cost a few threads and not the whole limit. A task holds its thread until it ends, so it
/// must never call rayon's `join`, `scope` or a parallel iterator.
pub struct BlockingPool {
    name: &'static str,
    block_len: usize,
    threads_max: usize,
    blocks: Mutex<Vec<Block>>,
    /// What a panic of a task begins.
    ends: Option<Shutdown>,
}

/// Dropped in this order: the pool tells its threads to end, then they are joined.
struct Block {
    pool: rayon::ThreadPool,
    busy: Arc<AtomicUsize>,
    _threads: Workers,
}

impl BlockingPool {
    /// A pool without threads. It grows by `block_len` threads at once up to `threads_max`;
    /// they are called `name` with a number.
    pub fn new(name: &'static str, block_len: usize, threads_max: usize) -> Self {
        BlockingPool { name, block_len, threads_max, blocks: Mutex::default(), ends: None }
    }

    /// The same, where a panic of a task begins `shutdown`.
    #[must_use]
    pub fn ending(self, shutdown: &Shutdown) -> Self {
        BlockingPool { ends: Some(shutdown.clone()), ..self }
    }

    /// A pool of `threads` threads, which have been started.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn started(name: &'static str, threads: usize) -> io::Result<Self> {
        let pool = BlockingPool::new(name, threads, threads);
        lock(&pool.blocks).push(pool.start_block(0)?);
        Ok(pool)
    }

    /// Runs `task` on a free thread, or after others once there are as many threads as there may
    /// be.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn(&self, task: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut blocks = lock(&self.blocks);
        let free = blocks.iter().position(|b| b.busy.load(Ordering::Acquire) < self.block_len);
        let at = match free {
            Some(at) => at,
            None if blocks.len() * self.block_len < self.threads_max => {
                let block = self.start_block(blocks.len())?;
                blocks.push(block);
                blocks.len() - 1
            }
            None => (0..blocks.len()).min_by_key(|&i| blocks[i].busy.load(Ordering::Relaxed)).unwrap_or(0),
        };
        let Some(block) = blocks.get(at) else { return Err(io::ErrorKind::Other.into()) };
        let (busy, ends, name) = (Busy::new(&block.busy), self.ends.clone(), self.name);
        block.pool.spawn(move || {
            let _busy = busy;
            // Out of a thread of the pool, a panic would end the whole process.
            if catch_unwind(AssertUnwindSafe(task)).is_err()
                && let Some(shutdown) = ends
            {
                shutdown.fail(name);
            }
        });
        Ok(())
    }

    fn start_block(&self, number: usize) -> io::Result<Block> {
        let (mut threads, mut failure) = (Workers::default(), None);
        let built = rayon::ThreadPoolBuilder::new()
            .num_threads(self.block_len)
            .spawn_handler(|thread| {
                let name = format!("{}-{}", self.name, number * self.block_len + thread.index());
                threads.spawn(&name, || thread.run()).map_err(|e| {
                    let kind = e.kind();
                    failure = Some(e);
                    kind.into()
                })
            })
            .build();
        match built {
            Ok(pool) => Ok(Block { pool, busy: Arc::default(), _threads: threads }),
            Err(e) => Err(failure.unwrap_or_else(|| io::Error::other(e))),
        }
    }
}

/// Counts a task from when it is handed over until it has ended, however it ends.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Busy(count.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 8;

    #[test]
    fn blocked_tasks_do_not_keep_others_from_running_and_all_threads_are_joined() {
        let pool = BlockingPool::new("gpb-test", BLOCK, 4 * BLOCK);
        let (go, gate) = crossbeam::channel::bounded::<()>(0);
        let (tell, told) = crossbeam::channel::unbounded();
        for i in 0..BLOCK * 2 + 1 {
            let (gate, tell) = (gate.clone(), tell.clone());
            pool.spawn(move || {
                tell.send(i).unwrap();
                let _ = gate.recv();
            })
            .unwrap();
        }
        let mut started: Vec<usize> = (0..BLOCK * 2 + 1).map(|_| told.recv().unwrap()).collect();
        started.sort_unstable();
        assert_eq!(started, (0..BLOCK * 2 + 1).collect::<Vec<_>>());
        drop(go);
        drop(pool);
        drop(tell);
        assert!(told.recv().is_err());
    }
}
