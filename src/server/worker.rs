//! The threads that serve: each takes a session, gives it one turn, and hands it back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use crossbeam::channel::{Receiver, Sender};

use crate::server::context::{Context, Scratch};
use crate::server::session::AcceptedSession;
use crate::server::turn::TurnOutcome;

/// A session that is to get a turn.
pub(crate) struct TurnJob {
    pub(crate) slot: usize,
    pub(crate) session: Box<AcceptedSession>,
}

/// A session that had a turn.
pub(crate) struct TurnDone {
    pub(crate) slot: usize,
    pub(crate) session: Box<AcceptedSession>,
    pub(crate) outcome: TurnOutcome,
}

/// The accepting thread's ends of the channels to and from the workers.
pub(crate) struct WorkerChannels {
    pub(crate) jobs: Sender<TurnJob>,
    pub(crate) done: Receiver<TurnDone>,
}

/// Serves the sessions that come from `jobs` until no more can come. `wake` wakes the accepting
/// thread.
pub(crate) fn work(context: &Context, jobs: &Receiver<TurnJob>, done: &Sender<TurnDone>, wake: impl Fn()) {
    let mut scratch = Scratch::new();
    for TurnJob { slot, mut session } in jobs {
        context.handed_over.fetch_sub(1, Ordering::Relaxed);
        let turn = catch_unwind(AssertUnwindSafe(|| session.turn(&mut scratch, context)));
        let outcome = turn.unwrap_or_else(|_| {
            log::error!("session ended by a defect addr={}", session.addr);
            scratch = Scratch::new();
            TurnOutcome::Close("defect")
        });
        if done.send(TurnDone { slot, session, outcome }).is_err() {
            return;
        }
        wake();
    }
}
