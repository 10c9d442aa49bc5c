//! The indexing thread, one step at a time.

use std::fs;

use crossbeam::channel::{Receiver, bounded};

use super::*;
use crate::content::{Catalogue, FileId};
use crate::runtime::{EventSender, Watch};
use crate::share::limits::PUBLISH_RETRIES_MAX;
use crate::share::setup::ShareSetup;
use crate::store::{Index, OwnFiles, Reader};

struct Steps {
    indexer: Indexer,
    tmp: tempfile::TempDir,
}

impl Steps {
    /// Over a directory with these files, none of which is looked at yet.
    fn over(names: &[&str]) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| fs::write(tmp.path().join(name), name).unwrap());
        let setup = ShareSetup {
            dir: tmp.path().into(),
            index: Arc::new(Index::in_memory().unwrap()),
            records: None,
            reader: Arc::new(Reader::open(tmp.path()).unwrap()),
            own_files: Arc::new(OwnFiles::new(None, [], Some(tmp.path()))),
            catalogue: Arc::new(Watch::new(Arc::new(Catalogue::default()))),
            events: EventSender::channel().0,
            shutdown: Shutdown::new(),
        };
        let callers = Callers::new(Arc::new(Watch::new(None)), Arc::default());
        let commands = bounded(1).1;
        Steps { indexer: Indexer::new(setup, commands, callers, Arc::default()).unwrap(), tmp }
    }

    fn publish(&mut self, name: &RelPath) -> Receiver<Result<FileId, PublishError>> {
        let (answer, told) = bounded(1);
        self.indexer.publish(name, answer);
        told
    }

    /// Takes what is hashed into the draft.
    fn hash(&mut self) {
        while self.indexer.hasher.pending() > 0 {
            self.indexer.hasher.pump();
            let outcomes = self.indexer.hasher.done().recv().unwrap();
            self.indexer.hasher.took();
            outcomes.into_iter().for_each(|o| self.indexer.take_outcome(o));
        }
    }

    fn remove(&mut self, name: &RelPath) {
        fs::remove_file(self.tmp.path().join(name.as_str())).unwrap();
        self.indexer.inspect_name(name.as_str(), false, Instant::now());
    }
}

/// Each of these left the caller waiting until the node ended.
#[test]
fn a_file_that_is_not_published_after_all_has_an_answer() {
    let [a, b, c] = ["a", "b", "c"].map(|name| RelPath::new(name).unwrap());
    let mut steps = Steps::over(&["a", "b", "c"]);
    let told = steps.publish(&a);
    let (answer, forgotten) = bounded(1);
    steps.indexer.forget(&a, answer);
    assert_eq!(forgotten.try_recv(), Ok(false));
    assert_eq!(told.try_recv(), Ok(Err(PublishError::Changed(a.clone()))), "forgotten while it is hashed");
    steps.hash();
    assert!(steps.indexer.draft.get(&a).is_none(), "nor is it offered then");

    let told = steps.publish(&b);
    steps.hash();
    assert!(told.is_empty() && steps.indexer.draft.get(&b).is_some(), "no snapshot has it yet");
    steps.remove(&b);
    assert_eq!(told.try_recv(), Ok(Err(PublishError::Changed(b))), "removed before the snapshot");

    let told = steps.publish(&c);
    steps.hash();
    let entry = steps.indexer.draft.get(&c).unwrap().to_entry();
    steps.indexer.withdraw(&entry);
    assert_eq!(told.try_recv(), Ok(Err(PublishError::Changed(c))), "withdrawn before the snapshot");
    assert!(!steps.indexer.callers.is_waiting());
}

#[test]
fn a_file_that_changes_before_each_snapshot_is_hashed_again_and_then_given_up() {
    let name = RelPath::new("a").unwrap();
    let mut steps = Steps::over(&["a"]);
    let told = steps.publish(&name);
    steps.hash();
    for len in 2..=PUBLISH_RETRIES_MAX + 2 {
        assert!(told.is_empty() && steps.indexer.draft.get(&name).is_some(), "hashed at once, without quiet");
        fs::write(steps.tmp.path().join("a"), vec![7; len as usize]).unwrap();
        steps.indexer.inspect_name("a", false, Instant::now());
        steps.hash();
    }
    assert_eq!(told.try_recv(), Ok(Err(PublishError::Changed(name))));
}
