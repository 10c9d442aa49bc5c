//! DNS-SD over multicast DNS (RFC 6763, RFC 6762): publishes where this node serves, and looks for
//! others.
//!
//! The service is `_gpb._tcp`; its TXT record has `v`, `net` and `id`: the version of the wire, the
//! network and the key. So any host on the link, and beyond a reflector, reads the key and the name of
//! the network. The instance has a name of random digits, not that of the machine. What is found is a
//! hint: see [`Hints`].
//!
//! The crate `mdns-sd` does the rest on a thread of its own, which ends with this one but is not
//! joined. It keeps what the link tells as long as that says; more than [`DNS_SD_RECORDS_MAX`] records
//! make it restart.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Instant;

use mdns_sd::{
    IfKind, Receiver, RecvTimeoutError, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo,
};

use rand::seq::SliceRandom;

use crate::discovery::hints::{Hints, KeyHint};
use crate::discovery::limits::{
    DNS_SD_ANSWER_WAIT, DNS_SD_LOOK_EVERY, DNS_SD_RECORDS_MAX, DNS_SD_RESTART, DNS_SD_SERVICES_MAX, HINT_ADDRS_MAX,
};
use crate::discovery::{DiscoveryContext, DnsSdState};
use crate::identity::NodeId;
use crate::limits::{ANNOUNCE_INTERVAL, LOW_PORTS, WIRE_VERSION};
use crate::net::{Interface, LinkOptions, is_on_link};
use crate::runtime::Workers;
use crate::swarm::{Dropped, is_usable};
use crate::sync::lock;

/// Publishes and browses while the node runs.
pub(super) struct DnsSd {
    shared: Arc<DiscoveryContext>,
    hints: Arc<Hints>,
    links: LinkOptions,
    /// What the link has now, by full name.
    services: BTreeMap<String, KeyHint>,
    /// Whether the last start failed, which is logged once.
    failed: bool,
}

impl DnsSd {
    /// Starts the thread.
    pub(super) fn start(
        shared: &Arc<DiscoveryContext>,
        hints: Arc<Hints>,
        links: LinkOptions,
        workers: &mut Workers,
    ) -> io::Result<()> {
        let this = DnsSd { shared: shared.clone(), hints, links, services: BTreeMap::new(), failed: false };
        workers.spawn("gpb-dns-sd", move || this.run())
    }

    /// The body of the thread; ends when the shutdown begins.
    fn run(mut self) {
        while !self.shared.shutdown.has_begun() {
            match ServiceDaemon::new().and_then(|daemon| self.serve(&daemon)) {
                Ok(()) => self.tell(false, None),
                Err(e) => {
                    let level = if self.failed { log::Level::Debug } else { log::Level::Warn };
                    self.failed = true;
                    log::log!(level, "DNS-SD cannot be used error=\"{e}\"");
                    self.tell(false, Some(e.to_string()));
                }
            }
            self.services.clear();
            self.shared.shutdown.wait(DNS_SD_RESTART);
        }
    }

    /// Publishes, and takes in what the link tells, until the shutdown begins or the daemon has to
    /// restart.
    fn serve(&mut self, daemon: &ServiceDaemon) -> mdns_sd::Result<()> {
        let end = daemon.clone();
        // The daemon drops its channels when it ends, which ends the wait below.
        let _ends = self.shared.shutdown.while_held(move || drop(end.shutdown()));
        let result = self.publish(daemon).and_then(|published| {
            let events = daemon.browse(SERVICE)?;
            self.failed = false;
            self.tell(published, None);
            self.take_all(daemon, &events);
            Ok(())
        });
        // Its goodbye, and the end of its sockets.
        if let Ok(ended) = daemon.shutdown() {
            let _ = ended.recv_timeout(DNS_SD_ANSWER_WAIT);
        }
        result
    }

    /// What the statistics say from now on.
    fn tell(&self, published: bool, error: Option<String>) {
        *lock(&self.shared.dns_sd) = DnsSdState { published, found: 0, error };
    }

    /// True if there is something to publish.
    fn publish(&self, daemon: &ServiceDaemon) -> mdns_sd::Result<bool> {
        let chosen = interfaces(&self.links);
        if !chosen.is_empty() {
            daemon.disable_interface(IfKind::All)?;
            daemon.enable_interface(chosen.clone())?;
        }
        let own = self.shared.directory().own();
        if own.port() < LOW_PORTS {
            if own.port() != 0 {
                log::warn!("not published by DNS-SD, which names no port below {LOW_PORTS} port={}", own.port());
            }
            return Ok(false);
        }
        let mut service = service(own.node(), own.network(), own.port())?;
        if !chosen.is_empty() {
            service.set_interfaces(chosen);
        }
        log::info!("published by DNS-SD name={}", service.get_fullname());
        daemon.register(service).map(|()| true)
    }

    fn take_all(&mut self, daemon: &ServiceDaemon, events: &Receiver<ServiceEvent>) {
        let begun = Instant::now();
        let (mut offer_at, mut look_at) = (begun + ANNOUNCE_INTERVAL, begun + DNS_SD_LOOK_EVERY);
        while !self.shared.shutdown.has_begun() {
            let now = Instant::now();
            if now >= offer_at {
                offer_at = now + ANNOUNCE_INTERVAL;
                // In no order that a name decides.
                let mut all: Vec<&KeyHint> = self.services.values().collect();
                all.shuffle(&mut rand::rng());
                all.into_iter().for_each(|hint| self.offer(hint, now));
            }
            if now >= look_at {
                look_at = now + DNS_SD_LOOK_EVERY;
                if records(daemon).is_some_and(|count| count > DNS_SD_RECORDS_MAX) {
                    return log::warn!("DNS-SD begins anew, as the link is full of records");
                }
            }
            lock(&self.shared.dns_sd).found = self.services.len();
            match events.recv_timeout(offer_at.min(look_at).saturating_duration_since(now)) {
                Ok(event) => self.take(event, Instant::now()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.shared.shutdown.has_begun() => return,
                Err(RecvTimeoutError::Disconnected) => {
                    return log::warn!("DNS-SD begins anew, as more came than was taken in");
                }
            }
        }
    }

    fn take(&mut self, event: ServiceEvent, now: Instant) {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let own = self.shared.directory().own();
                match hint(&service, own.network(), &instance_name(own.node())) {
                    Ok(hint) => {
                        self.offer(&hint, now);
                        let is_known = self.services.contains_key(&service.fullname);
                        if is_known || self.services.len() < DNS_SD_SERVICES_MAX {
                            self.services.insert(service.fullname, hint);
                        }
                    }
                    Err(Dropped::Own) => {}
                    Err(reason) => {
                        self.services.remove(&service.fullname);
                        self.shared.drops.count_hint_dropped(reason);
                    }
                }
            }
            ServiceEvent::ServiceRemoved(_, name) => drop(self.services.remove(&name)),
            _ => {}
        }
    }

    fn offer(&self, hint: &KeyHint, now: Instant) {
        if let Err(reason) = self.hints.offer(hint.clone(), now) {
            self.shared.drops.count_hint_dropped(reason);
        }
    }
}

/// The service of the node `own`.
fn service(own: NodeId, network: &str, port: u16) -> mdns_sd::Result<ServiceInfo> {
    let name = instance_name(own);
    let (version, id) = (WIRE_VERSION.to_string(), own.peer.to_string());
    let text = [("v", version.as_str()), ("net", network), ("id", &id)];
    Ok(ServiceInfo::new(SERVICE, &name, &format!("{name}.local."), "", port, &text[..])?.enable_addr_auto())
}

/// The name of a node's service, and of its host: random as the instance is.
fn instance_name(node: NodeId) -> String {
    format!("{LABEL}-{:016x}", node.instance)
}

/// What a service says of a node of `network`, which is not the one that is called `own`.
fn hint(service: &ResolvedService, network: &str, own: &str) -> Result<KeyHint, Dropped> {
    let text = |key| service.get_property_val_str(key).unwrap_or_default();
    if service.fullname.strip_suffix(SERVICE).is_some_and(|name| name.trim_end_matches('.') == own) {
        return Err(Dropped::Own);
    }
    if text("v").parse() != Ok(WIRE_VERSION) {
        return Err(Dropped::Version);
    }
    if text("net") != network {
        return Err(Dropped::Network);
    }
    let peer = text("id").parse().map_err(|_| Dropped::Malformed)?;
    let addrs = service.addresses.iter().filter(|ip| is_of_site(ip.to_ip_addr())).map(|ip| address(ip, service.port));
    let mut addrs: Vec<SocketAddr> = addrs.filter(|addr| is_usable(*addr) && addr.port() >= LOW_PORTS).collect();
    addrs.sort();
    addrs.truncate(HINT_ADDRS_MAX);
    if addrs.is_empty() { Err(Dropped::Malformed) } else { Ok(KeyHint { peer: Some(peer), addrs, is_far: false }) }
}

/// Whether `ip` may be of the site that multicast DNS reaches: it is private, or in a network of this
/// host. Others are hosts elsewhere, which did not ask to be dialed. A loopback address of another host
/// means this one here.
fn is_of_site(ip: IpAddr) -> bool {
    let is_private = match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    is_private || !ip.to_canonical().is_loopback() && is_on_link(ip)
}

fn address(ip: &ScopedIp, port: u16) -> SocketAddr {
    match ip {
        ScopedIp::V6(v6) if v6.addr().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.addr(), port, 0, v6.scope_id().index).into()
        }
        other => (other.to_ip_addr(), port).into(),
    }
}

/// The interfaces to publish and to look on; none is all.
fn interfaces(links: &LinkOptions) -> Vec<IfKind> {
    let named = |interface: &Interface| match interface {
        Interface::Name(name) => IfKind::Name(name.clone()),
        Interface::Ip(ip) => IfKind::Addr(ip.to_canonical()),
    };
    match (links.interfaces.as_slice(), links.bind.to_canonical()) {
        ([], IpAddr::V6(bind)) if bind.is_unspecified() => Vec::new(),
        ([], IpAddr::V4(bind)) if bind.is_unspecified() => vec![IfKind::IPv4],
        ([], bind) => vec![IfKind::Addr(bind)],
        (chosen, _) => chosen.iter().map(named).collect(),
    }
}

/// The number of records that the daemon keeps; `None` if it does not say so in time.
fn records(daemon: &ServiceDaemon) -> Option<usize> {
    let counts = daemon.get_metrics().ok()?.recv_timeout(DNS_SD_ANSWER_WAIT).ok()?;
    let kept = counts.into_iter().filter(|(name, _)| name.starts_with("cached-"));
    Some(kept.map(|(_, count)| usize::try_from(count).unwrap_or(0)).sum())
}

const SERVICE: &str = "_gpb._tcp.local.";
const LABEL: &str = "gpb";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keypair;

    fn found(text: &[(&str, &str)], addrs: &str, port: u16) -> ResolvedService {
        let service = ServiceInfo::new(SERVICE, "gpb-1", "gpb-1.local.", addrs, port, text).unwrap();
        service.as_resolved_service()
    }

    #[test]
    fn what_is_published_is_understood() {
        let node = NodeId::new(Keypair::generate().peer_id(), 7);
        let published = service(node, "lab", 27420).unwrap();
        assert_eq!(published.get_fullname(), "gpb-0000000000000007._gpb._tcp.local.");
        assert!(published.is_addr_auto());
        let id = node.peer.to_string();
        let text: Vec<(&str, &str)> =
            ["v", "net", "id"].iter().map(|key| (*key, published.get_property_val_str(key).unwrap())).collect();
        assert_eq!(text, [("v", "2"), ("net", "lab"), ("id", id.as_str())]);
        let addrs = "10.9.8.7,127.0.0.1,224.0.0.1,fd00::7";
        let read = hint(&found(&text, addrs, 27420), "lab", "gpb-0000000000000008").unwrap();
        let expected = ["10.9.8.7:27420", "[fd00::7]:27420"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(read, KeyHint { peer: Some(node.peer), addrs: expected, is_far: false });
    }

    #[test]
    fn what_cannot_be_of_the_group_is_dropped() {
        let id = Keypair::generate().peer_id().to_string();
        let good = [("v", "2"), ("net", "lab"), ("id", id.as_str())];
        let read = |text: &[(&str, &str)], addrs: &str, port| hint(&found(text, addrs, port), "lab", "gpb-2");
        assert!(read(&good, "10.9.8.7", 2000).is_ok());
        for (text, reason) in [
            ([("v", "1"), good[1], good[2]], Dropped::Version),
            ([("v", ""), good[1], good[2]], Dropped::Version),
            ([good[0], ("net", "other"), good[2]], Dropped::Network),
            ([good[0], good[1], ("id", "ed25519:AAAA")], Dropped::Malformed),
            ([good[0], good[1], ("x", "y")], Dropped::Malformed),
        ] {
            assert_eq!(read(&text, "10.9.8.7", 2000), Err(reason), "{text:?}");
        }
        for (addrs, port) in [
            ("127.0.0.1", 2000),
            ("::1", 2000),
            ("203.0.113.7,2001:db8::7", 2000),
            ("10.9.8.7", 0),
            ("10.9.8.7", 1023),
            ("255.255.255.255,0.0.0.0", 2000),
            ("", 2000),
        ] {
            assert_eq!(read(&good, addrs, port), Err(Dropped::Malformed), "{addrs}:{port}");
        }
        assert_eq!(hint(&found(&good, "10.9.8.7", 2000), "lab", "gpb-1"), Err(Dropped::Own));
        let many: Vec<String> = (1..100).map(|n| format!("10.9.8.{n}")).collect();
        assert_eq!(read(&good, &many.join(","), 2000).unwrap().addrs.len(), HINT_ADDRS_MAX);
    }

    #[test]
    fn only_the_chosen_interfaces_are_used() {
        let shown = |interfaces: &[&str], bind: &str| {
            let interfaces_chosen = interfaces.iter().map(|i| i.parse().unwrap()).collect();
            let links =
                LinkOptions { interfaces: interfaces_chosen, bind: bind.parse().unwrap(), ..LinkOptions::default() };
            format!("{:?}", super::interfaces(&links))
        };
        assert_eq!(shown(&[], "::"), "[]");
        assert_eq!(shown(&[], "0.0.0.0"), "[IPv4]");
        assert_eq!(shown(&[], "10.0.0.1"), "[Addr(10.0.0.1)]");
        assert_eq!(shown(&["eth0", "10.0.0.1"], "::"), "[Name(\"eth0\"), Addr(10.0.0.1)]");
    }
}
