//! Reads the listings of the peers for a mirror.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::client::{Client, Doorbell, FoundFile, PeerNames};
use crate::content::{Pattern, RelPath};
use crate::identity::{KeyPrefix, NodeId};
use crate::node::mirror::MirrorTerms;
use crate::node::mirror::tree::MirrorTree;
use crate::peers::AskError;
use crate::swarm::{AskSchedule, MirrorOffer, MirrorPlan, PeerRecord, PeerTable};

/// Asks each peer whose revision is new, and gives the plan what it offers.
pub(super) struct Listings {
    client: Client,
    patterns: Vec<Pattern>,
    texts: Vec<String>,
    from: Vec<KeyPrefix>,
    elsewhere: Vec<RelPath>,
    asks: AskSchedule,
    records: HashMap<NodeId, PeerRecord>,
    /// The number of changes of the peer table when it was read last.
    seen: Option<u64>,
    tell: Sender<PeerAnswer>,
    answers: Receiver<PeerAnswer>,
    /// What is still being read ends at the next page.
    over: Arc<AtomicBool>,
    bell: Doorbell,
}

/// What a peer lists, or why that is not known.
type PeerAnswer = (NodeId, Result<PeerNames, AskError>);

impl Listings {
    pub(super) fn new(terms: &MirrorTerms, client: Client, bell: Doorbell) -> Self {
        let (tell, answers) = unbounded();
        Listings {
            client,
            texts: terms.patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            patterns: terms.patterns.clone(),
            from: terms.from.clone(),
            elsewhere: terms.elsewhere.clone(),
            asks: AskSchedule::default(),
            records: HashMap::new(),
            seen: None,
            tell,
            answers,
            over: Arc::default(),
            bell,
        }
    }

    /// Takes the answers that have come, and asks the peers that are due.
    pub(super) fn turn(&mut self, plan: &mut MirrorPlan, tree: &mut MirrorTree, now: Instant) {
        if self.patterns.is_empty() {
            return;
        }
        while let Ok((node, listed)) = self.answers.try_recv() {
            self.take(node, listed, (plan, tree), now);
        }
        let changes = self.client.ctx.peers.changes();
        if self.seen != Some(changes) {
            self.seen = Some(changes);
            // A peer without a revision shares no directory, and says nothing of what it fetched.
            let records = self.client.ctx.peers.read(PeerTable::peers).into_iter().filter(|record| record.revision > 0);
            self.records = records.map(|record| (record.node(), record)).collect();
            let peers = self.records.iter().map(|(node, record)| (*node, record.revision));
            for node in self.asks.seen(peers, now) {
                plan.left(node);
                tree.left(node);
            }
        }
        for node in self.asks.due(now) {
            if let Err(e) = self.ask(node) {
                log::debug!("listing not read peer={} error=\"{e}\"", node.peer);
                self.asks.failed(node, now);
            }
        }
    }

    /// Whether all that the peers announced is read.
    pub(super) fn are_read(&self) -> bool {
        self.seen.is_some() && self.asks.is_up_to_date()
    }

    /// When the next peer is due that waits.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        self.asks.next_at(now)
    }

    fn ask(&self, node: NodeId) -> Result<(), crate::client::FetchError> {
        let Some(record) = self.records.get(&node).cloned() else { return Ok(()) };
        let (tell, bell) = (self.tell.clone(), self.bell.clone());
        let done = move |listed| {
            let _ = tell.send((node, listed));
            bell.ring();
        };
        self.client.read_listing(record, &self.texts, self.client.ctx.timeout, self.over.clone(), done)
    }

    fn take(
        &mut self,
        node: NodeId,
        listed: Result<PeerNames, AskError>,
        (plan, tree): (&mut MirrorPlan, &mut MirrorTree),
        now: Instant,
    ) {
        let PeerNames { mut files, mut bare, temporary } = match listed {
            Ok(names) => names,
            Err(e) => {
                log::debug!("listing not read peer={} error=\"{e}\"", node.peer);
                return self.asks.failed(node, now);
            }
        };
        if !self.asks.answered(node, now) {
            return;
        }
        files.retain(|file| !self.elsewhere.iter().any(|dir| file.path.is_below(dir.as_str())));
        bare.retain(|(path, _)| !self.elsewhere.iter().any(|dir| path == dir || path.is_below(dir.as_str())));
        bare.retain(|(path, _)| self.patterns.iter().any(|p| p.shows(path.as_str())));
        files.retain(|file| self.patterns.iter().any(|p| p.matches_id(&file.id) || p.shows(file.path.as_str())));
        let offered = |FoundFile { path, id, shared, attributes, link, .. }| MirrorOffer {
            temporary: temporary.contains(&path),
            path,
            id,
            copy: !shared,
            attributes,
            link,
        };
        let names = self.from.is_empty() || self.from.iter().any(|prefix| prefix.matches(&node.peer));
        tree.listed(node, bare, names);
        let count = files.len();
        log::debug!("listing read peer={} files={count}", node.peer);
        for node in plan.listed(node, files.into_iter().map(offered).collect(), names) {
            log::warn!("listing left out, too many files are mirrored peer={}", node.peer);
        }
    }
}

impl Drop for Listings {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}
