//! Threads that wait for the indexing thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam::channel::Sender;

use crate::content::{FileId, RelPath};
use crate::runtime::Watch;
use crate::share::limits::PUBLISH_RETRIES_MAX;
use crate::share::publish_error::PublishError;
use crate::share::setup::{FirstComplete, PublishAnswer};

/// The callers that wait, and what each waits for.
pub(super) struct Callers {
    /// The first complete catalogue.
    pub(super) ready: Arc<Watch<FirstComplete>>,
    /// The number of files that are not hashed yet.
    pub(super) hashing_left: Arc<AtomicU64>,
    publishing: HashMap<RelPath, Publication>,
    forgetting: Vec<Sender<bool>>,
}

/// A file that is to be published.
#[derive(Default)]
struct Publication {
    answers: Vec<PublishAnswer>,
    /// How often it was hashed again because it was found in another state.
    retries: u32,
}

impl Callers {
    pub(super) fn new(ready: Arc<Watch<FirstComplete>>, hashing_left: Arc<AtomicU64>) -> Self {
        Callers { ready, hashing_left, publishing: HashMap::new(), forgetting: Vec::new() }
    }

    /// `answer` waits until `path` is offered.
    pub(super) fn publish(&mut self, path: &RelPath, answer: PublishAnswer) {
        self.publishing.entry(path.clone()).or_default().answers.push(answer);
    }

    /// `answer` waits until what the catalogue lacks now is published.
    pub(super) fn forget(&mut self, answer: Sender<bool>) {
        self.forgetting.push(answer);
    }

    /// Whether a snapshot is waited for.
    pub(super) fn is_waiting(&self) -> bool {
        !self.publishing.is_empty() || !self.forgetting.is_empty()
    }

    pub(super) fn wait_for(&self, path: &RelPath) -> bool {
        self.publishing.contains_key(path)
    }

    /// Whether `path` is waited for, and may be hashed once more although it changed.
    pub(super) fn may_retry(&mut self, path: &RelPath) -> bool {
        self.publishing.get_mut(path).is_some_and(|publication| {
            publication.retries += 1;
            publication.retries <= PUBLISH_RETRIES_MAX
        })
    }

    /// A snapshot was published, in which `offered` finds names.
    pub(super) fn published(&mut self, offered: impl Fn(&RelPath) -> Option<FileId>) {
        self.publishing.retain(|path, Publication { answers, .. }| {
            let Some(id) = offered(path) else { return true };
            answers.iter().for_each(|answer| drop(answer.try_send(Ok(id))));
            false
        });
        for answer in self.forgetting.drain(..) {
            let _ = answer.try_send(true);
        }
    }

    /// `path` is not published.
    pub(super) fn fail(&mut self, path: &RelPath, error: &PublishError) {
        for answer in self.publishing.remove(path).into_iter().flat_map(|publication| publication.answers) {
            let _ = answer.try_send(Err(error.clone()));
        }
    }

    /// `path` is not published because of `cause`.
    pub(super) fn not_shared(&mut self, path: &RelPath, cause: &str) {
        if self.wait_for(path) {
            self.fail(path, &PublishError::NotShared { path: path.clone(), cause: cause.into() });
        }
    }

    /// Nothing that is waited for is published: the directory is gone or another one.
    pub(super) fn fail_all(&mut self) {
        let paths: Vec<_> = self.publishing.keys().cloned().collect();
        paths.iter().for_each(|path| self.fail(path, &PublishError::Changed(path.clone())));
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::bounded;

    use super::*;
    use crate::content::Root;

    #[test]
    fn all_that_wait_for_a_name_are_answered_once() {
        let mut callers = Callers::new(Arc::new(Watch::new(None)), Arc::default());
        let [a, b] = ["a", "b"].map(|name| RelPath::new(name).unwrap());
        let id = FileId { root: Root::EMPTY, len: 0 };
        let (answer, of_a) = bounded(2);
        callers.publish(&a, answer.clone());
        callers.publish(&a, answer);
        let (answer, of_b) = bounded(1);
        callers.publish(&b, answer);
        callers.published(|path| (*path == a).then_some(id));
        assert_eq!(of_a.try_iter().collect::<Vec<_>>(), [Ok(id), Ok(id)]);
        assert!(callers.is_waiting() && callers.wait_for(&b) && !callers.wait_for(&a) && of_b.is_empty());
        callers.fail_all();
        assert_eq!(of_b.try_recv(), Ok(Err(PublishError::Changed(b))));
        assert!(!callers.is_waiting());
    }
}
