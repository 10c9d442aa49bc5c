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
use std::time::{Duration, Instant};

use crossbeam::channel::bounded;
use rand::seq::SliceRandom;

use crate::discovery::hints::{Hints, KeyHint};
use crate::discovery::limits::{
    DHT_CALL_MAX, DHT_GIVEN_UP_MAX, DHT_GROUP_DIALED_MAX, DHT_GROUP_EVERY, DHT_JOIN_EVERY, DHT_LOOK_EVERY, DHT_RESTART,
    DHT_RESTART_MAX,
};
use crate::discovery::{DhtPlan, DhtStats, DiscoveryContext};
use crate::identity::PeerId;
use crate::limits::{ANNOUNCE_INTERVAL, DHT_ADDRS_MAX, LOW_PORTS};
use crate::net::{LinkOptions, own_addrs};
use crate::peers::unix_ms;
use crate::proto::{DhtItem, DhtNames};
use crate::runtime::Workers;
use crate::swarm::{DhtLookups, DhtPublishing, Dropped, open_dht_item};
use crate::sync::lock;
use calls::{DhtAnswer, DhtCalls, DhtEnd, DhtJob, DhtStart, DhtState};

/// Publishes and looks up while the node runs.
pub(super) struct DhtService {
    shared: Arc<DiscoveryContext>,
    hints: Arc<Hints>,
    /// Held by each thread that makes calls, too.
    start: Arc<DhtStart>,
    links: LinkOptions,
    publishes: bool,
    calls: DhtCalls,
    lookups: DhtLookups,
    publishing: DhtPublishing,
    state: Option<DhtState>,
    times: DhtTimes,
    told: DhtTold,
    own: OwnPlaces,
}

/// When something is due that no key or item decides.
struct DhtTimes {
    /// An open group is looked up next.
    group_at: Instant,
    /// The DHT is looked at next.
    look_at: Instant,
    /// It restarts then, if no node answers before.
    restart_at: Instant,
    restart: Duration,
}

/// What was logged, each once, and what the statistics show.
#[derive(Default)]
struct DhtTold {
    /// The DHT could not be used.
    failed: bool,
    /// The item could not be put there.
    refused: bool,
    /// There is no address to publish.
    nowhere: bool,
    /// Addresses that an open group was found at, of others.
    group_found: usize,
}

/// What this node says there.
struct OwnPlaces {
    /// Its addresses, and when they are looked at again.
    addrs: Vec<SocketAddr>,
    look_at: Instant,
    /// What the item says that is being put there.
    offered: Vec<SocketAddr>,
    /// The item that an earlier run left there has been looked for.
    item_known: bool,
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
        let bind = match plan.links.bind.to_canonical() {
            IpAddr::V4(v4) if !v4.is_unspecified() => Some(v4),
            _ => None,
        };
        let start = Arc::new(DhtStart { bootstrap: plan.bootstrap, bind, names });
        let (calls, now) = (DhtCalls::start(&start)?, Instant::now());
        let publishes = plan.publishes && own.port() >= LOW_PORTS;
        if plan.publishes && !publishes {
            log::warn!("not published in the DHT, which names no port below {LOW_PORTS} port={}", own.port());
        }
        let times = DhtTimes { group_at: now, look_at: now, restart_at: now + DHT_RESTART, restart: DHT_RESTART };
        let this = DhtService {
            shared: shared.clone(),
            hints,
            start,
            links: plan.links,
            publishes,
            calls,
            lookups: DhtLookups::default(),
            publishing: DhtPublishing::default(),
            state: None,
            times,
            told: DhtTold::default(),
            own: OwnPlaces { addrs: Vec::new(), look_at: now, offered: Vec::new(), item_known: false },
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
                let idle = if self.nodes() == 0 { DHT_JOIN_EVERY } else { DHT_LOOK_EVERY };
                let _ = woken.recv_timeout(idle);
                continue;
            }
            // The shutdown ends this thread, not the call.
            let end = crossbeam::select! {
                recv(self.calls.ends) -> end => end.ok(),
                recv(woken) -> _ => return,
                default(DHT_CALL_MAX) => None,
            };
            let usable = end.is_some_and(|end| self.take(end, Instant::now()).is_ok());
            self.report(Instant::now());
            if !usable || self.nodes() == 0 && Instant::now() >= self.times.restart_at {
                self.restart();
            }
        }
    }

    /// Nodes of the DHT that answered.
    fn nodes(&self) -> usize {
        self.state.map_or(0, |state| state.nodes)
    }

    /// Restarts, with the names of the first nodes looked up again; a call that still runs is given up.
    fn restart(&mut self) {
        // The thread that is given up now holds it, and earlier ones do while their calls last.
        while Arc::strong_count(&self.start) > 1 + DHT_GIVEN_UP_MAX && !self.shared.shutdown.wait(DHT_RESTART) {}
        if self.shared.shutdown.wait(if self.told.failed { self.times.restart } else { Duration::ZERO }) {
            return;
        }
        match DhtCalls::start(&self.start) {
            Ok(calls) => self.calls = calls,
            Err(e) => log::warn!("the DHT cannot begin anew error=\"{e}\""),
        }
        log::debug!("the DHT begins anew");
        self.state = None;
        self.times.restart = (self.times.restart * 2).min(DHT_RESTART_MAX);
        let now = Instant::now();
        (self.times.look_at, self.times.restart_at) = (now, now + self.times.restart);
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

    /// The call that is due. Nothing is asked of a DHT that no node is known of.
    fn next_job(&mut self, now: Instant) -> Option<DhtJob> {
        let Some(state) = self.state.filter(|state| state.nodes > 0) else { return self.next_look(now) };
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
        self.next_publishing(state, now).or_else(|| self.next_look(now))
    }

    fn next_publishing(&mut self, state: DhtState, now: Instant) -> Option<DhtJob> {
        let (directory, open) = (self.shared.directory(), self.shared.directory().trust().is_open());
        let own = directory.own();
        if now >= self.own.look_at {
            self.own.look_at = now + ANNOUNCE_INTERVAL;
            self.own.addrs = addrs(state, &self.links, own.port());
            // Peers of BEP 5 are IPv4: there the address is the one that the DHT sees.
            if open && !self.own.addrs.iter().any(SocketAddr::is_ipv4) {
                self.own.addrs.clear();
            }
            let nowhere = self.publishes && self.own.addrs.is_empty() && state.seen_as.is_some();
            if nowhere && !std::mem::replace(&mut self.told.nowhere, true) {
                log::warn!("not published in the DHT, as no address of this node may be named there");
            }
        }
        if !self.publishes || !self.publishing.is_due(&self.own.addrs, now) {
            return None;
        }
        let (peer, addrs) = (own.node().peer, self.own.addrs.clone());
        if open {
            self.own.offered = addrs;
            return Some(DhtJob::Announce(own.port()));
        }
        if !self.own.item_known {
            return Some(DhtJob::Keys(vec![peer]));
        }
        let item = own.dht_item(&self.start.names, &addrs, self.publishing.next_seq(unix_ms()));
        self.own.offered = addrs;
        Some(DhtJob::Publish { peer, item })
    }

    /// A call that only tells how the DHT is.
    fn next_look(&mut self, now: Instant) -> Option<DhtJob> {
        (now >= self.times.look_at).then(|| DhtJob::Keys(Vec::new()))
    }

    /// Takes in how a call ended.
    ///
    /// # Errors
    /// The DHT cannot be used.
    fn take(&mut self, end: DhtEnd, now: Instant) -> Result<(), ()> {
        let (state, answer) = end.map_err(|error| {
            let level = if self.told.failed { log::Level::Debug } else { log::Level::Warn };
            self.told.failed = true;
            log::log!(level, "the DHT cannot be used error={error:?}");
        })?;
        self.told.failed = false;
        if self.nodes() == 0 && state.nodes > 0 {
            log::info!("the DHT is joined nodes={}", state.nodes);
            self.lookups.joined(now);
            (self.times.group_at, self.times.restart) = (now, DHT_RESTART);
        }
        if state.nodes > 0 {
            self.times.restart_at = now + self.times.restart;
        }
        self.times.look_at = now + if state.nodes == 0 { DHT_JOIN_EVERY } else { ANNOUNCE_INTERVAL };
        self.state = Some(state);
        match answer {
            DhtAnswer::Keys(found) => found.into_iter().for_each(|(peer, item)| self.take_item(peer, item, now)),
            DhtAnswer::Group(found) => self.take_group(found, now),
            DhtAnswer::Published(Ok(())) => self.published(now),
            DhtAnswer::Published(Err(error)) => {
                let level = if self.told.refused { log::Level::Debug } else { log::Level::Warn };
                // A newer item may be there, of another host with this key or of a clock that was ahead.
                (self.told.refused, self.own.item_known) = (true, false);
                log::log!(level, "not published in the DHT error={error:?}");
                self.publishing.failed(now);
            }
        }
        Ok(())
    }

    fn take_item(&mut self, peer: PeerId, item: Option<DhtItem>, now: Instant) {
        let (directory, newest) = (self.shared.directory(), self.lookups.newest(peer));
        if peer == directory.own().node().peer {
            self.own.item_known = true;
            return item.into_iter().for_each(|item| self.publishing.seen(item.seq));
        }
        let Some((item, state)) = item.zip(self.state) else { return self.lookups.looked_up(peer, None, now) };
        let whose = (peer, directory.own().network(), &self.start.names);
        match open_dht_item(&item, whose, state.reach, newest, unix_ms()) {
            Ok(addrs) => {
                log::debug!("found in the DHT peer={peer} addr={addrs:?}");
                self.lookups.looked_up(peer, Some(item.seq), now);
                if !self.offer(KeyHint { peer: Some(peer), addrs, is_far: true }, now) {
                    self.lookups.postpone(peer, now + ANNOUNCE_INTERVAL);
                }
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
        found.retain(|addr| state.reach.allows(*addr) && !self.own.addrs.contains(addr));
        self.told.group_found = found.len();
        found.retain(|addr| !known.contains(addr));
        found.shuffle(&mut rand::rng());
        log::debug!("found in the DHT addrs={} new={}", self.told.group_found, found.len());
        for addr in found.into_iter().take(DHT_GROUP_DIALED_MAX) {
            self.offer(KeyHint { peer: None, addrs: vec![addr], is_far: true }, now);
        }
    }

    /// Has the hint dialed; false if too many wait.
    fn offer(&self, hint: KeyHint, now: Instant) -> bool {
        let offered = self.hints.offer(hint, now);
        if let Err(reason) = offered {
            self.shared.drops.count_hint_dropped(reason);
        }
        offered != Err(Dropped::Flood)
    }

    fn published(&mut self, now: Instant) {
        self.told.refused = false;
        let (first, addrs) = (!self.publishing.is_published(now), self.own.offered.clone());
        let level = if first { log::Level::Info } else { log::Level::Debug };
        log::log!(level, "published in the DHT addr={addrs:?}");
        self.publishing.published(addrs, now);
    }

    /// Tells the statistics.
    fn report(&self, now: Instant) {
        let open = self.shared.directory().trust().is_open();
        *lock(&self.shared.dht) = DhtStats {
            nodes: self.nodes(),
            published: self.publishing.is_published(now),
            keys: self.lookups.len(),
            found: if open { self.told.group_found } else { self.lookups.found() },
            seen_as: self.state.and_then(|state| state.seen_as),
        };
    }
}

/// Where this node may answer, as far as others may know: its addresses of that reach, and the one that
/// nodes of the DHT see, unless the packets to them may leave by an interface that was not chosen.
fn addrs(state: DhtState, links: &LinkOptions, port: u16) -> Vec<SocketAddr> {
    let bind = links.bind.to_canonical();
    let by_own_way = links.interfaces.is_empty() && (bind.is_unspecified() || bind.is_ipv4());
    let seen_as = state.seen_as.map(IpAddr::V4).filter(|_| by_own_way);
    let mut own = own_addrs(links);
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
