//! A DHT of BitTorrent (Mainline; BEP 5, BEP 44): publishes where this node answers, and looks up others.
//!
//! A closed group looks up its keys: each node that shares keeps an item there, signed by its key, with
//! its announce and its addresses. An open group has no keys to look up. It announces, and looks up,
//! addresses under a hash of its network and its secret. What is found is a hint: see
//! [`Hints`].
//!
//! Nothing can be withdrawn: what is there is forgotten by the nodes of the DHT after two hours. They
//! speak IPv4 among themselves.

mod calls;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Receiver, bounded};
use rand::seq::SliceRandom;

use crate::discovery::hints::{Hints, KeyHint};
use crate::discovery::limits::{DHT_GROUP_DIALED_MAX, DHT_GROUP_EVERY, DHT_LOOK_EVERY, DHT_RESTART};
use crate::discovery::{DhtPlan, DhtStats, DiscoveryContext};
use crate::identity::PeerId;
use crate::limits::{ANNOUNCE_INTERVAL, DHT_ADDRS_MAX, LOW_PORTS};
use crate::net::own_addrs;
use crate::peers::unix_ms;
use crate::proto::{DhtItem, DhtNames};
use crate::runtime::Workers;
use crate::swarm::{DhtLookups, DhtPublishing, open_dht_item};
use crate::sync::lock;
use calls::{DhtAnswer, DhtCalls, DhtEnd, DhtJob, DhtStart, DhtState};

/// Publishes and looks up while the node runs.
pub(super) struct DhtService {
    shared: Arc<DiscoveryContext>,
    hints: Arc<Hints>,
    names: DhtNames,
    bind: IpAddr,
    publishes: bool,
    calls: DhtCalls,
    ends: Receiver<DhtEnd>,
    lookups: DhtLookups,
    publishing: DhtPublishing,
    state: Option<DhtState>,
    times: DhtTimes,
    /// What the item says that is being put there.
    offered: Vec<SocketAddr>,
}

/// When something is due that no key or item decides, and what was logged.
struct DhtTimes {
    /// An open group is looked up next.
    group_at: Instant,
    /// Addresses that were found then, of others.
    group_found: usize,
    /// The DHT is looked at next.
    look_at: Instant,
    /// The item that an earlier run left there has been looked for.
    own_known: bool,
    /// The DHT could not be used, which is logged once.
    failed: bool,
    /// The item could not be put there, which is logged once.
    refused: bool,
}

impl DhtService {
    /// Starts the threads.
    pub(super) fn start(
        shared: &Arc<DiscoveryContext>,
        hints: Arc<Hints>,
        plan: DhtPlan,
        workers: &mut Workers,
    ) -> io::Result<()> {
        let own = shared.directory().own();
        let names = DhtNames::new(own.network(), plan.secret.as_ref());
        let bind = match plan.bind.to_canonical() {
            IpAddr::V4(v4) if !v4.is_unspecified() => Some(v4),
            _ => None,
        };
        let (end, ends) = bounded(1);
        let calls = DhtCalls::start(DhtStart { bootstrap: plan.bootstrap, bind, names: names.clone() }, end)?;
        let now = Instant::now();
        let publishes = plan.publishes && own.port() >= LOW_PORTS;
        if plan.publishes && !publishes {
            log::warn!("not published in the DHT, which names no port below {LOW_PORTS} port={}", own.port());
        }
        let this = DhtService {
            shared: shared.clone(),
            hints,
            names,
            bind: plan.bind,
            publishes,
            calls,
            ends,
            lookups: DhtLookups::default(),
            publishing: DhtPublishing::default(),
            state: None,
            times: DhtTimes {
                group_at: now,
                group_found: 0,
                look_at: now,
                own_known: false,
                failed: false,
                refused: false,
            },
            offered: Vec::new(),
        };
        workers.spawn("gpb-dht", move || this.run())
    }

    /// The body of the thread; ends when the shutdown begins.
    fn run(mut self) {
        let (wake, woken) = bounded::<()>(1);
        let _wakes = self.shared.shutdown.while_held(move || {
            let _ = wake.try_send(());
        });
        while !self.shared.shutdown.has_begun() {
            let now = Instant::now();
            self.set_keys(now);
            if !self.next_job(now).is_some_and(|job| self.calls.call(job)) {
                self.report(now);
                let _ = woken.recv_timeout(DHT_LOOK_EVERY);
                continue;
            }
            // The shutdown ends this thread, not the call.
            let end = crossbeam::select! {
                recv(self.ends) -> end => end,
                recv(woken) -> _ => return,
            };
            let Ok(end) = end else { return };
            let failed = self.take(end, Instant::now()).is_err();
            self.report(Instant::now());
            if failed {
                self.shared.shutdown.wait(DHT_RESTART);
            }
        }
    }

    /// The keys of a closed group, without the own one.
    fn set_keys(&mut self, now: Instant) {
        let directory = self.shared.directory();
        if directory.trust().is_open() {
            return;
        }
        let own = directory.own().node().peer;
        self.lookups.set_keys(directory.trust().members().into_iter().filter(|key| *key != own), now);
    }

    fn next_job(&mut self, now: Instant) -> Option<DhtJob> {
        let directory = self.shared.directory();
        if directory.trust().is_open() {
            if now >= self.times.group_at {
                self.times.group_at = now + DHT_GROUP_EVERY;
                return Some(DhtJob::Group);
            }
        } else {
            let is_heard = |peer| directory.read(|t| t.last_seen(peer)).is_some();
            let keys = self.lookups.take_due(is_heard, now);
            if !keys.is_empty() {
                return Some(DhtJob::Keys(keys));
            }
        }
        self.next_publishing(now).or_else(|| self.next_look(now))
    }

    fn next_publishing(&mut self, now: Instant) -> Option<DhtJob> {
        let (state, directory) = (self.state.filter(|_| self.publishes)?, self.shared.directory());
        let own = directory.own();
        let addrs = addrs(state, self.bind, own.port());
        if !self.publishing.is_due(&addrs, now) {
            return None;
        }
        let peer = own.node().peer;
        if directory.trust().is_open() {
            self.offered = addrs;
            return Some(DhtJob::Announce(own.port()));
        }
        if !self.times.own_known {
            return Some(DhtJob::Keys(vec![peer]));
        }
        let item = own.dht_item(&self.names, &addrs, self.publishing.next_seq(unix_ms()));
        self.offered = addrs;
        Some(DhtJob::Publish { peer, item })
    }

    /// A call that only tells how the DHT is.
    fn next_look(&mut self, now: Instant) -> Option<DhtJob> {
        let due = now >= self.times.look_at;
        due.then(|| DhtJob::Keys(Vec::new()))
    }

    /// Takes in how a call ended.
    ///
    /// # Errors
    /// The DHT cannot be used.
    fn take(&mut self, end: DhtEnd, now: Instant) -> Result<(), ()> {
        let (state, answer) = end.map_err(|error| {
            let level = if self.times.failed { log::Level::Debug } else { log::Level::Warn };
            self.times.failed = true;
            log::log!(level, "the DHT cannot be used error={error:?}");
        })?;
        self.times.failed = false;
        if self.state.is_none_or(|before| before.nodes == 0) && state.nodes > 0 {
            log::info!("the DHT is joined nodes={}", state.nodes);
        }
        self.times.look_at = now + if state.nodes == 0 { DHT_LOOK_EVERY } else { ANNOUNCE_INTERVAL };
        self.state = Some(state);
        match answer {
            DhtAnswer::Keys(found) => found.into_iter().for_each(|(peer, item)| self.take_item(peer, item, now)),
            DhtAnswer::Group(found) => self.take_group(found, now),
            DhtAnswer::Published(Ok(())) => self.published(now),
            DhtAnswer::Published(Err(error)) => {
                let level = if self.times.refused { log::Level::Debug } else { log::Level::Warn };
                self.times.refused = true;
                log::log!(level, "not published in the DHT error={error:?}");
                self.publishing.failed(now);
            }
        }
        Ok(())
    }

    fn take_item(&mut self, peer: PeerId, item: Option<DhtItem>, now: Instant) {
        let (directory, newest) = (self.shared.directory(), self.lookups.newest(peer));
        if peer == directory.own().node().peer {
            self.times.own_known = true;
            return item.into_iter().for_each(|item| self.publishing.seen(item.seq));
        }
        let Some((item, state)) = item.zip(self.state) else { return self.lookups.looked_up(peer, None, now) };
        let whose = (peer, directory.own().network(), &self.names);
        match open_dht_item(&item, whose, state.reach, newest, unix_ms()) {
            Ok(addrs) => {
                log::debug!("found in the DHT peer={peer} addr={addrs:?}");
                self.lookups.looked_up(peer, Some(item.seq), now);
                self.offer(KeyHint { peer: Some(peer), addrs }, now);
            }
            Err(reason) => {
                log::debug!("item of the DHT dropped peer={peer} error=\"{reason}\"");
                self.shared.drops.count_hint_dropped(reason);
                self.lookups.looked_up(peer, None, now);
            }
        }
    }

    /// Has some of the addresses dialed of which the group is said to be.
    fn take_group(&mut self, mut found: Vec<SocketAddr>, now: Instant) {
        let Some(state) = self.state else { return };
        let known: HashSet<SocketAddr> =
            self.shared.directory().read(|t| t.peers()).into_iter().flat_map(|peer| peer.addrs).collect();
        found.retain(|addr| state.reach.allows(*addr) && !self.offered.contains(addr));
        self.times.group_found = found.len();
        found.retain(|addr| !known.contains(addr));
        found.shuffle(&mut rand::rng());
        log::debug!("found in the DHT addrs={} new={}", self.times.group_found, found.len());
        for addr in found.into_iter().take(DHT_GROUP_DIALED_MAX) {
            self.offer(KeyHint { peer: None, addrs: vec![addr] }, now);
        }
    }

    fn offer(&self, hint: KeyHint, now: Instant) {
        if let Err(reason) = self.hints.offer(hint, now) {
            self.shared.drops.count_hint_dropped(reason);
        }
    }

    fn published(&mut self, now: Instant) {
        self.times.refused = false;
        let (first, addrs) = (!self.publishing.is_published(now), self.offered.clone());
        let level = if first { log::Level::Info } else { log::Level::Debug };
        log::log!(level, "published in the DHT addr={addrs:?}");
        self.publishing.published(addrs, now);
    }

    /// Tells the statistics.
    fn report(&self, now: Instant) {
        let open = self.shared.directory().trust().is_open();
        *lock(&self.shared.dht) = DhtStats {
            nodes: self.state.map_or(0, |state| state.nodes),
            published: self.publishing.is_published(now),
            keys: self.lookups.len(),
            found: if open { self.times.group_found } else { self.lookups.found() },
        };
    }
}

/// Where this node may answer, as far as others may know: its addresses of that reach, and the one that
/// nodes of the DHT see.
fn addrs(state: DhtState, bind: IpAddr, port: u16) -> Vec<SocketAddr> {
    let seen_as = state.seen_as.map(IpAddr::V4).filter(|_| bind.to_canonical().is_unspecified());
    let mut own = own_addrs(bind);
    own.sort();
    let mut addrs = Vec::new();
    for ip in seen_as.into_iter().chain(own) {
        let addr = SocketAddr::new(ip, port);
        if state.reach.allows(addr) && !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    addrs.truncate(DHT_ADDRS_MAX);
    addrs
}
