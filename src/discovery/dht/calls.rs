//! The calls of the crate `mainline`, which block, on a thread of their own.
//!
//! A lookup ends when the DHT has no closer node to ask: after some seconds, or never, if a node makes up ever closer
//! ones. Looking up the names of its first nodes has no bound either. So the thread is not joined, and neither is the one
//! of the crate: both end after their last call, once the node drops its [`DhtCalls`]. Calls that last too long are
//! given up with their threads, a few at most.
//!
//! The crate is given no secret key: items come signed.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, bounded};
use mainline::errors::{ConcurrencyError, PutMutableError, PutQueryError};
use mainline::{DEFAULT_BOOTSTRAP_NODES, Dht, Id, MutableItem, ServerSettings};

use crate::discovery::limits::{
    DHT_ANSWER_ADDRS_MAX, DHT_FIRST_NODES_MAX, DHT_FOUND_ADDRS_MAX, DHT_ITEMS_READ_MAX, DHT_KEPT_GROUPS_MAX,
    DHT_KEPT_ITEMS_MAX, DHT_KEPT_PEERS_MAX,
};
use crate::identity::PeerId;
use crate::net::PeerAddr;
use crate::proto::{DhtItem, DhtNames};
use crate::runtime::no_thread;
use crate::swarm::DhtReach;

/// What a thread does that may block for long, one after the other.
pub(super) struct DhtCalls {
    jobs: Sender<DhtJob>,
    /// How they end.
    pub(super) ends: Receiver<DhtEnd>,
}

/// What the DHT begins with.
pub(super) struct DhtStart {
    /// The bootstrap nodes that the user named; none for those of the public DHT.
    pub(super) bootstrap: Vec<PeerAddr>,
    /// The address that the socket is bound to, if the node has one of its own.
    pub(super) bind: Option<Ipv4Addr>,
    pub(super) names: DhtNames,
}

/// A call.
pub(super) enum DhtJob {
    /// Look up the items of these keys.
    Keys(Vec<PeerId>),
    /// Look up the addresses of the open group.
    Group,
    /// Put the item of `peer` there, which signed it.
    Publish { peer: PeerId, item: DhtItem },
    /// Announce this port to the open group.
    Announce(u16),
}

/// What a call brought.
#[derive(Debug)]
pub(super) enum DhtAnswer {
    /// The newest item of each key, if there is one.
    Keys(Vec<(PeerId, Option<DhtItem>)>),
    /// Addresses of the open group.
    Group(Vec<SocketAddr>),
    /// It is there, or why it is not.
    Published(Result<(), String>),
}

/// What the DHT is, as of the last call.
#[derive(Debug, Clone, Copy)]
pub(super) struct DhtState {
    pub(super) reach: DhtReach,
    /// Nodes that it knows.
    pub(super) nodes: usize,
    /// The address of this host, as they say.
    pub(super) seen_as: Option<Ipv4Addr>,
}

/// How a call ended; none if the DHT could not be used at all.
pub(super) type DhtEnd = Result<(DhtState, DhtAnswer), String>;

impl DhtCalls {
    /// Starts the thread, which holds `start` while it runs.
    pub(super) fn start(start: &Arc<DhtStart>) -> io::Result<Self> {
        let ((jobs, queue), (end, ends), start) = (bounded(1), bounded(1), start.clone());
        let thread = std::thread::Builder::new().name("gpb-dht-calls".into());
        thread.spawn(move || work(&start, &queue, &end)).map_err(|e| no_thread("gpb-dht-calls", e))?;
        Ok(DhtCalls { jobs, ends })
    }

    /// Has the call made. False if the one before has not ended.
    pub(super) fn call(&self, job: DhtJob) -> bool {
        self.jobs.try_send(job).is_ok()
    }
}

/// Makes calls until the queue ends; the body of the thread.
fn work(start: &DhtStart, queue: &Receiver<DhtJob>, ends: &Sender<DhtEnd>) {
    let mut opened = None;
    for job in queue {
        // The crate panics where its own thread has ended.
        let end = catch_unwind(AssertUnwindSafe(|| {
            let (dht, reach) = match opened.take() {
                Some(opened) => opened,
                None => open(start)?,
            };
            let answer = answer(&dht, &start.names, job);
            let end = (state(&dht, reach), answer);
            opened = Some((dht, reach));
            Ok(end)
        }));
        let end = end.unwrap_or_else(|_| Err("it ended by itself".to_string()));
        if ends.send(end).is_err() {
            return;
        }
    }
}

/// Looks up the first nodes, and opens the socket.
fn open(start: &DhtStart) -> Result<(Dht, DhtReach), String> {
    let named: Vec<(&str, u16)> = start.bootstrap.iter().map(|peer| (peer.host(), peer.port())).collect();
    let public = DEFAULT_BOOTSTRAP_NODES.iter().filter_map(|node| node.rsplit_once(':'));
    let public = public.filter_map(|(host, port)| Some((host, port.parse().ok()?)));
    let nodes = if named.is_empty() { public.collect() } else { named.clone() };
    let mut error = None;
    let mut answers: Vec<Vec<SocketAddrV4>> = Vec::new();
    for node in nodes {
        let all = node.to_socket_addrs().inspect_err(|e| error = Some(format!("{}: {e}", node.0)));
        answers.push(
            all.into_iter()
                .flatten()
                .filter_map(|addr| match addr {
                    SocketAddr::V4(v4) => Some(v4),
                    SocketAddr::V6(_) => None,
                })
                .collect(),
        );
    }
    let (reach, mut found) = DhtReach::begin(!named.is_empty(), &answers);
    found.truncate(DHT_FIRST_NODES_MAX);
    if found.is_empty() {
        return Err(error.unwrap_or_else(|| "none of its first nodes has an IPv4 address".into()));
    }
    let bind = if reach == DhtReach::Host { Ipv4Addr::LOCALHOST } else { start.bind.unwrap_or(Ipv4Addr::UNSPECIFIED) };
    // The crate panics where it gets no socket.
    std::net::UdpSocket::bind((bind, 0)).map_err(|e| e.to_string())?;
    let kept = ServerSettings {
        max_info_hashes: DHT_KEPT_GROUPS_MAX,
        max_peers_per_info_hash: DHT_KEPT_PEERS_MAX,
        max_immutable_values: DHT_KEPT_ITEMS_MAX,
        max_mutable_values: DHT_KEPT_ITEMS_MAX,
        ..ServerSettings::default()
    };
    let mut builder = Dht::builder();
    builder.bootstrap(&found).bind_address(bind).port(0).server_settings(kept);
    // On the Internet it serves others once it has run for a while and they reach it, as the crate finds out.
    // The DHT of a site is small, and needs all of its nodes.
    if reach != DhtReach::Internet {
        builder.server_mode();
    }
    let dht = builder.build();
    Ok((dht.map_err(|e| e.to_string())?, reach))
}

#[expect(deprecated, reason = "the calls that block; those that came in their place need an executor")]
fn state(dht: &Dht, reach: DhtReach) -> DhtState {
    let seen_as = dht.info().public_address().map(|addr| *addr.ip());
    DhtState { reach, nodes: dht.to_bootstrap().len(), seen_as }
}

#[expect(deprecated, reason = "the calls that block; those that came in their place need an executor")]
fn answer(dht: &Dht, names: &DhtNames, job: DhtJob) -> DhtAnswer {
    match job {
        DhtJob::Keys(keys) => {
            // All are under way before the first is waited for.
            let lookups: Vec<_> =
                keys.iter().map(|peer| (*peer, dht.get_mutable(&peer.0, Some(&names.salt), None))).collect();
            let newest = |items: &mut dyn Iterator<Item = MutableItem>| items.max_by_key(MutableItem::seq).map(item);
            DhtAnswer::Keys(
                lookups.into_iter().map(|(peer, all)| (peer, newest(&mut all.take(DHT_ITEMS_READ_MAX)))).collect(),
            )
        }
        DhtJob::Group => {
            // One node that names many crowds the others out of nothing.
            let answers = dht.get_peers(Id::from(names.group)).map(|all| all.into_iter().take(DHT_ANSWER_ADDRS_MAX));
            let found = answers.flatten().take(DHT_FOUND_ADDRS_MAX);
            let mut addrs: Vec<SocketAddr> = found.map(SocketAddr::V4).collect();
            addrs.sort();
            addrs.dedup();
            DhtAnswer::Group(addrs)
        }
        DhtJob::Publish { peer, item } => {
            let DhtItem { seq, value, signature } = item;
            let item = MutableItem::new_signed_unchecked(peer.0, signature, &value, seq, Some(&names.salt));
            DhtAnswer::Published(dht.put_mutable(item, None).map(drop).map_err(|e| match e {
                PutMutableError::Query(e) => put_error(&e),
                PutMutableError::Concurrency(ConcurrencyError::NotMostRecent) => "a newer item is there".into(),
                PutMutableError::Concurrency(e) => e.to_string(),
            }))
        }
        DhtJob::Announce(port) => {
            let put = dht.announce_peer(Id::from(names.group), Some(port));
            DhtAnswer::Published(put.map(drop).map_err(|e| put_error(&e)))
        }
    }
}

fn item(item: MutableItem) -> DhtItem {
    DhtItem { seq: item.seq(), value: item.value().to_vec(), signature: *item.signature() }
}

fn put_error(error: &PutQueryError) -> String {
    match error {
        PutQueryError::NoClosestNodes => "no node of the DHT answers".into(),
        PutQueryError::ErrorResponse(_) => "its nodes do not take it".into(),
        PutQueryError::Timeout => "its nodes do not answer in time".into(),
    }
}
