//! What an item of a DHT says of its key, and which of the addresses there are dialed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use crate::identity::PeerId;
use crate::limits::{CLOCK_SKEW_MAX, LOW_PORTS};
use crate::proto::{DhtItem, DhtNames, decode_dht_value};
use crate::swarm::membership::addresses::{canonical, is_usable};
use crate::swarm::membership::admit::{Dropped, parse_announce};

/// How far the addresses of a DHT reach, decided by the nodes that it begins with: strangers must not
/// choose addresses in this site or on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DhtReach {
    /// All begin on this host: a DHT of its own, for tests.
    Host,
    /// All begin at private addresses: a DHT of the site.
    Site,
    /// The Internet.
    Internet,
}

impl DhtReach {
    /// The reach of a DHT, and the addresses of its first nodes. `answers` has the addresses of each name that the
    /// user gave, or else of the names of the public DHT. Neither a false answer for a public name nor a name
    /// without an answer makes the reach local.
    pub fn begin(is_named: bool, answers: &[Vec<SocketAddrV4>]) -> (Self, Vec<SocketAddrV4>) {
        let nodes: Vec<SocketAddrV4> = answers.iter().flatten().copied().collect();
        let ips = || nodes.iter().map(|addr| IpAddr::from(*addr.ip()));
        if is_named && !answers.iter().any(Vec::is_empty) {
            return (Self::of(ips()), nodes);
        }
        let is_kept = |addr: &SocketAddrV4| is_named || reach_v4(*addr.ip()) == Some(DhtReach::Internet);
        (DhtReach::Internet, nodes.into_iter().filter(is_kept).collect())
    }

    /// The reach of the DHT that begins at `nodes`.
    fn of(nodes: impl IntoIterator<Item = IpAddr>) -> Self {
        nodes.into_iter().map(|ip| reach(ip).unwrap_or(DhtReach::Internet)).max().unwrap_or(DhtReach::Internet)
    }

    /// Whether `addr` may be published and dialed: of this reach, and no port of the system.
    pub fn allows(self, addr: SocketAddr) -> bool {
        let within = |found: DhtReach| found == self || self != DhtReach::Host && found == DhtReach::Internet;
        is_usable(addr) && addr.port() >= LOW_PORTS && reach(addr.ip()).is_some_and(within)
    }
}

/// Where `ip` has a meaning; `None` where none that is dialed.
fn reach(ip: IpAddr) -> Option<DhtReach> {
    match ip.to_canonical() {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(ip: Ipv4Addr) -> Option<DhtReach> {
    match ip.octets() {
        [127, ..] => Some(DhtReach::Host),
        _ if ip.is_private() => Some(DhtReach::Site),
        // Shared between a provider and its customers (RFC 6598).
        [100, second, ..] if second & 0xc0 == 64 => Some(DhtReach::Site),
        // This network, protocol assignments, benchmarks, reserved (RFC 6890).
        [0 | 240..=255, ..] | [192, 0, 0, _] | [198, 18 | 19, ..] => None,
        _ if ip.is_link_local() || ip.is_multicast() || ip.is_documentation() => None,
        _ => Some(DhtReach::Internet),
    }
}

fn reach_v6(ip: Ipv6Addr) -> Option<DhtReach> {
    match ip.segments() {
        _ if ip.is_loopback() => Some(DhtReach::Host),
        _ if ip.is_unique_local() => Some(DhtReach::Site),
        // Documentation, and the tunnels that carry an IPv4 address, which may be a private one.
        [0x2001, 0x0db8 | 0, ..] | [0x2002 | 0x3fff, ..] => None,
        [0x2000..=0x3fff, ..] => Some(DhtReach::Internet),
        _ => None,
    }
}

/// What the item of `peer` says: where it answers. `newest` is the sequence number of the item of that
/// key that was seen last.
///
/// # Errors
/// [`Dropped`]: forged, malformed, of another network or key, replayed, or without an address that
/// `reach` allows.
pub fn open_dht_item(
    item: &DhtItem,
    (peer, network, names): (PeerId, &str, &DhtNames),
    reach: DhtReach,
    newest: i64,
    unix_ms: u64,
) -> Result<Vec<SocketAddr>, Dropped> {
    let hint = decode_dht_value(&item.value).map_err(|_| Dropped::Malformed)?;
    let (signed, announce) = parse_announce(&hint.announce, network)?;
    if announce.peer != peer {
        return Err(Dropped::OtherPeer);
    }
    if item.seq < newest {
        return Err(Dropped::Replayed);
    }
    let skew = CLOCK_SKEW_MAX.as_millis() as u64;
    if announce.seq.saturating_add(skew) < unix_ms {
        return Err(Dropped::Stale);
    }
    if announce.seq > unix_ms.saturating_add(skew) {
        return Err(Dropped::Future);
    }
    let mut addrs: Vec<SocketAddr> = Vec::new();
    for addr in hint.addrs.into_iter().map(canonical).filter(|addr| reach.allows(*addr)) {
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    if addrs.is_empty() {
        return Err(Dropped::Malformed);
    }
    // The nodes that keep an item check this too, if they like.
    if !peer.verify(&names.signed_part(item.seq, &item.value), &item.signature) {
        return Err(Dropped::Forged);
    }
    signed.verify()?;
    Ok(addrs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keypair;
    use crate::proto::{Announce, Flags, SignedAnnounce, encode_dht_value};

    const NOW: u64 = 1_800_000_000_000;

    struct Maker {
        keypair: Keypair,
        announce: Announce,
        names: DhtNames,
        addrs: Vec<SocketAddr>,
        seq: i64,
    }

    impl Maker {
        fn new() -> Self {
            let keypair = Keypair::generate();
            let announce = Announce {
                version: Announce::VERSION,
                network: "lab".into(),
                peer: keypair.peer_id(),
                instance: 7,
                seq: NOW - 1000,
                ttl_s: 30,
                port: 27420,
                revision: 1,
                flags: Flags::default(),
            };
            let addrs = vec!["11.2.3.4:27420".parse().unwrap()];
            Maker { keypair, announce, names: DhtNames::new("lab", None), addrs, seq: NOW as i64 }
        }

        fn item(&self) -> DhtItem {
            self.signed_by(&self.keypair)
        }

        fn signed_by(&self, keypair: &Keypair) -> DhtItem {
            let value = encode_dht_value(&SignedAnnounce::seal(&self.announce, &self.keypair), &self.addrs);
            let signature = keypair.sign(&self.names.signed_part(self.seq, &value));
            DhtItem { seq: self.seq, value, signature }
        }

        fn open(&self, item: &DhtItem) -> Result<Vec<SocketAddr>, Dropped> {
            self.open_after(item, i64::MIN)
        }

        fn open_after(&self, item: &DhtItem, newest: i64) -> Result<Vec<SocketAddr>, Dropped> {
            let names = DhtNames::new("lab", None);
            open_dht_item(item, (self.keypair.peer_id(), "lab", &names), DhtReach::Internet, newest, NOW)
        }
    }

    #[test]
    fn an_item_says_where_its_key_answers() {
        let maker = Maker::new();
        assert_eq!(maker.open(&maker.item()), Ok(maker.addrs.clone()));
    }

    #[test]
    fn only_the_key_itself_says_so() {
        let (maker, other) = (Maker::new(), Keypair::generate());
        assert_eq!(maker.open(&maker.signed_by(&other)), Err(Dropped::Forged));
        let mut altered = maker.item();
        altered.seq += 1;
        assert_eq!(maker.open(&altered), Err(Dropped::Forged), "the sequence number is signed");
        let of_other = Maker { keypair: other, ..Maker::new() };
        assert_eq!(maker.open(&of_other.item()), Err(Dropped::OtherPeer), "the announce of another key");
        // The announce of this key in an item that another one signed, and one that is not its own.
        let mut forged = Maker::new();
        forged.announce.peer = maker.keypair.peer_id();
        let forged = forged.signed_by(&maker.keypair);
        assert_eq!(maker.open(&forged), Err(Dropped::Forged));
    }

    #[test]
    fn old_items_and_those_of_other_groups_are_dropped() {
        let maker = Maker::new();
        let item = maker.item();
        assert_eq!(maker.open_after(&item, item.seq), Ok(maker.addrs.clone()), "the same again");
        assert_eq!(maker.open_after(&item, item.seq + 1), Err(Dropped::Replayed));
        let day = CLOCK_SKEW_MAX.as_millis() as u64;
        let at = |seq: u64| Maker { announce: Announce { seq, ..maker.announce.clone() }, ..Maker::new() };
        for (seq, expected) in [(NOW - day - 1, Dropped::Stale), (NOW + day + 1, Dropped::Future)] {
            let mut old = at(seq);
            old.keypair = maker.keypair.clone();
            assert_eq!(maker.open(&old.item()), Err(expected));
        }
        let other_network = Maker { announce: Announce { network: "other".into(), ..maker.announce.clone() }, ..maker };
        assert_eq!(other_network.open(&other_network.item()), Err(Dropped::Network));
        let secret = "a secret of the others".parse().unwrap();
        let mut other_names = Maker::new();
        other_names.names = DhtNames::new("lab", Some(&secret));
        assert_eq!(other_names.open(&other_names.item()), Err(Dropped::Forged), "the salt is signed");
    }

    #[test]
    fn strangers_choose_no_address_in_the_site_and_no_low_port() {
        let mut maker = Maker::new();
        let (good, bad) =
            ("11.2.3.4:2000", ["10.0.0.7:2000", "127.0.0.1:2000", "11.2.3.4:80", "[::ffff:10.0.0.7]:2000"]);
        for addr in bad {
            maker.addrs = vec![addr.parse().unwrap()];
            assert_eq!(maker.open(&maker.item()), Err(Dropped::Malformed), "{addr}");
            maker.addrs.push(good.parse().unwrap());
            assert_eq!(maker.open(&maker.item()), Ok(vec![good.parse().unwrap()]), "{addr}");
        }
    }

    /// Cause: the reach was that of whatever the name server said. Effect: one that lies about the nodes of the public DHT,
    /// as a captive portal does, had private addresses published. Mend: only what the user named is of a site.
    #[test]
    fn the_name_server_does_not_bring_the_public_dht_home() {
        let addrs = |all: &[&str]| all.iter().map(|addr| addr.parse().unwrap()).collect::<Vec<SocketAddrV4>>();
        let (home, public) = (addrs(&["10.0.0.1:6881"]), addrs(&["11.0.0.1:6881"]));
        let begin = |is_named, answers: &[&Vec<SocketAddrV4>]| {
            DhtReach::begin(is_named, &answers.iter().map(|all| (*all).clone()).collect::<Vec<_>>())
        };
        assert_eq!(begin(true, &[&home]), (DhtReach::Site, home.clone()));
        assert_eq!(begin(true, &[&addrs(&["127.0.0.1:1"])]).0, DhtReach::Host);
        assert_eq!(begin(true, &[&home, &public]).0, DhtReach::Internet);
        assert_eq!(begin(true, &[&home, &vec![]]), (DhtReach::Internet, home.clone()), "a name without an answer");
        assert_eq!(begin(false, &[&home, &public]), (DhtReach::Internet, public));
        assert_eq!(begin(false, &[&home]), (DhtReach::Internet, vec![]));
    }

    #[test]
    fn each_reach_has_its_addresses() {
        let host = ["127.0.0.1", "::1", "::ffff:127.0.0.1"];
        let site = ["10.1.2.3", "172.16.0.1", "192.168.0.1", "100.64.0.1", "fd00::1"];
        let internet = ["11.1.2.3", "100.128.0.1", "2600::1", "2001:4860::1"];
        let nowhere = [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.1.1",
            "224.0.0.1",
            "239.255.71.80",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "198.18.0.1",
            "192.0.0.8",
            "::",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001:0:1::1",
            "2002:a00:1::1",
            "64:ff9b::a00:1",
            "fec0::1",
        ];
        let all = host.iter().chain(&site).chain(&internet).chain(&nowhere);
        for ip in all {
            let addr: SocketAddr =
                format!("[{ip}]:1024").parse().unwrap_or_else(|_| format!("{ip}:1024").parse().unwrap());
            let low = SocketAddr::new(addr.ip(), 1023);
            let allowed = [DhtReach::Host, DhtReach::Site, DhtReach::Internet].map(|reach| reach.allows(addr));
            let expected = [host.contains(ip), site.contains(ip) || internet.contains(ip), internet.contains(ip)];
            assert_eq!(allowed, expected, "{ip}");
            assert!(![DhtReach::Host, DhtReach::Site, DhtReach::Internet].iter().any(|reach| reach.allows(low)));
        }
        let of = |ips: &[&str]| DhtReach::of(ips.iter().map(|ip| ip.parse().unwrap()));
        assert_eq!(of(&["127.0.0.1", "::1"]), DhtReach::Host);
        assert_eq!(of(&["127.0.0.1", "10.0.0.1"]), DhtReach::Site);
        for strangers in [&["127.0.0.1", "11.0.0.1"][..], &["10.0.0.1", "192.0.2.1"], &["192.0.2.1"], &[]] {
            assert_eq!(of(strangers), DhtReach::Internet, "{strangers:?}");
        }
    }
}
