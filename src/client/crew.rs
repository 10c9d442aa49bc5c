//! Threads for blocking sessions.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::client::limits::{CREW_BLOCK, CREW_MAX};
use crate::runtime::Workers;

/// Rayon pools of their own for tasks that block on a session: a task holds a thread until it ends, so it must never
/// call `join`, `scope` or a parallel iterator.
///
/// A rayon pool has a fixed size, so the crew is made of small ones, started as the need grows: one peer costs a few
/// threads, not the whole limit. All are joined when the crew is dropped.
#[derive(Default)]
pub struct Crew {
    blocks: Mutex<Vec<Block>>,
}

/// Dropped in this order: the pool tells its threads to end, then they are joined.
struct Block {
    pool: rayon::ThreadPool,
    busy: Arc<AtomicUsize>,
    _threads: Workers,
}

impl Crew {
    /// No thread yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` on a free thread; beyond [`CREW_MAX`] threads it waits for one.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn(&self, task: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let free = blocks.iter().position(|b| b.busy.load(Ordering::Acquire) < CREW_BLOCK);
        let at = match free {
            Some(at) => at,
            None if blocks.len() * CREW_BLOCK < CREW_MAX => {
                let block = Block::start(blocks.len())?;
                blocks.push(block);
                blocks.len() - 1
            }
            None => (0..blocks.len()).min_by_key(|&i| blocks[i].busy.load(Ordering::Relaxed)).unwrap_or(0),
        };
        let Some(block) = blocks.get(at) else { return Err(io::ErrorKind::Other.into()) };
        let busy = Busy::new(&block.busy);
        block.pool.spawn(move || {
            let _busy = busy;
            task();
        });
        Ok(())
    }
}

impl Block {
    fn start(number: usize) -> io::Result<Self> {
        let mut threads = Workers::default();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(CREW_BLOCK)
            .spawn_handler(|thread| {
                let name = format!("gpb-conn-{}", number * CREW_BLOCK + thread.index());
                threads.spawn(&name, || thread.run())
            })
            .build()
            .map_err(io::Error::other)?;
        Ok(Block { pool, busy: Arc::default(), _threads: threads })
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

    #[test]
    fn blocked_tasks_do_not_keep_others_from_running_and_all_threads_are_joined() {
        let crew = Crew::new();
        let (go, gate) = crossbeam::channel::bounded::<()>(0);
        let (tell, told) = crossbeam::channel::unbounded();
        for i in 0..CREW_BLOCK * 2 + 1 {
            let (gate, tell) = (gate.clone(), tell.clone());
            crew.spawn(move || {
                tell.send(i).unwrap();
                let _ = gate.recv();
            })
            .unwrap();
        }
        let mut started: Vec<usize> = (0..CREW_BLOCK * 2 + 1).map(|_| told.recv().unwrap()).collect();
        started.sort_unstable();
        assert_eq!(started, (0..CREW_BLOCK * 2 + 1).collect::<Vec<_>>());
        drop(go);
        drop(crew);
        drop(tell);
        assert!(told.recv().is_err());
    }
}
