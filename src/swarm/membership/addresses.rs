//! The addresses of one peer: a short list, the best first.
//!
//! An address is a hint until TLS proved the key there. So what other peers say never pushes out a
//! proved address.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::limits::{ADDRS_PER_PEER_MAX, LOW_PORTS};
use crate::swarm::membership::limits::FAILED_ADDR_REST;

/// At most [`ADDRS_PER_PEER_MAX`] addresses, sorted: failed ones last, then by standing, then the
/// freshest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    list: Vec<KnownAddr>,
}

/// How well an address is known, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Another peer named it, and it may mean another host, or none, here.
    FarHint,
    /// Another peer named it.
    Hint,
    /// Source of an announce that came from another address just before: another interface of the
    /// peer, or a host that repeats announces.
    Echo,
    /// Source of a fresh announce.
    Own,
    /// TLS proved the key there.
    Proved,
}

#[derive(Debug, Clone, Copy)]
struct KnownAddr {
    addr: SocketAddr,
    standing: Standing,
    heard: Instant,
    failed: Option<Instant>,
}

impl Addresses {
    /// Takes note of `addr`. True if it was not in the list and is now.
    pub(crate) fn note(&mut self, addr: SocketAddr, standing: Standing, now: Instant) -> bool {
        let known = self.list.iter_mut().find(|k| k.addr == addr);
        let new = known.is_none();
        if let Some(known) = known {
            known.standing = known.standing.max(standing);
            known.heard = now;
            let rested = known.failed.is_some_and(|at| now.saturating_duration_since(at) >= FAILED_ADDR_REST);
            if standing == Standing::Proved || rested {
                known.failed = None;
            }
        } else {
            if self.list.len() >= ADDRS_PER_PEER_MAX {
                // The list is sorted, so its last one is the one to give way, if it may.
                match self.list.last() {
                    Some(last) if last.worth() <= standing => self.list.pop(),
                    _ => return false,
                };
            }
            self.list.push(KnownAddr { addr, standing, heard: now, failed: None });
        }
        self.sort();
        new
    }

    /// `addr` could not be reached, or another node is there.
    pub(crate) fn failed(&mut self, addr: SocketAddr, now: Instant) {
        if let Some(known) = self.list.iter_mut().find(|k| k.addr == addr) {
            known.failed = Some(now);
            known.standing = known.standing.min(Standing::Own);
        }
        self.sort();
    }

    /// Forgets `addr`, which belongs to another node.
    pub(crate) fn remove(&mut self, addr: SocketAddr) {
        self.list.retain(|k| k.addr != addr);
    }

    /// Forgets all, as the peer serves at another port now.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// Whether `addr` is known from the peer itself, not as a hint.
    pub(crate) fn holds_own(&self, addr: SocketAddr) -> bool {
        self.list.iter().any(|k| k.addr == addr && k.standing >= Standing::Own)
    }

    /// Whether TLS proved the key at one of them and it did not fail since.
    pub(crate) fn any_proved(&self) -> bool {
        self.list.first().is_some_and(|k| k.standing == Standing::Proved)
    }

    /// Whether all were tried in vain.
    pub(crate) fn all_failed(&self) -> bool {
        self.list.iter().all(|k| k.failed.is_some())
    }

    /// All, best first.
    pub(crate) fn best_first(&self) -> impl Iterator<Item = SocketAddr> {
        self.list.iter().map(|k| k.addr)
    }

    /// The addresses that the peer itself showed and that did not fail, best first.
    pub(crate) fn own_first(&self) -> impl Iterator<Item = SocketAddr> {
        self.list.iter().filter(|k| k.standing >= Standing::Own && k.failed.is_none()).map(|k| k.addr)
    }

    /// The addresses to make an offer at, at most `max`, and whether only others named them: those that the peer
    /// itself showed, unless all of them failed. What others name is left out if its port is of a system service.
    pub(crate) fn for_offer(&self, max: usize) -> (Vec<SocketAddr>, bool) {
        let own: Vec<_> = self.own_first().take(max).collect();
        let may_be_peer = |k: &&KnownAddr| k.standing >= Standing::Own || k.addr.port() >= LOW_PORTS;
        match own.is_empty() {
            false => (own, false),
            true => (self.list.iter().filter(may_be_peer).map(|k| k.addr).take(max).collect(), true),
        }
    }

    /// The addresses that hints for a peer at `to` may name: seen by this node itself, and of use
    /// there. The source of an echo is not among them: a host that repeats announces would be
    /// spread as the peer.
    pub(crate) fn for_others(&self, to: IpAddr) -> impl Iterator<Item = SocketAddr> {
        self.own_for(to).filter(|k| k.failed.is_none()).map(|k| k.addr)
    }

    /// The same of a peer that offers to answer on sessions of its own, failed ones included: it need not be reached.
    pub(crate) fn of_offerer(&self, to: IpAddr) -> impl Iterator<Item = SocketAddr> {
        self.own_for(to).map(|k| k.addr)
    }

    fn own_for(&self, to: IpAddr) -> impl Iterator<Item = &KnownAddr> {
        self.list.iter().filter(move |k| k.standing >= Standing::Own && crosses(k.addr.ip(), to))
    }

    /// The addresses from which the peer itself announced: no hints, no loopback.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = SocketAddr> {
        self.list.iter().filter(|k| k.standing > Standing::Hint && !k.addr.ip().is_loopback()).map(|k| k.addr)
    }

    fn sort(&mut self) {
        self.list.sort_by_key(|k| (k.failed.is_some(), Reverse(k.standing), Reverse(k.heard)));
    }
}

impl KnownAddr {
    /// The standing that a new address needs to take the place of this one.
    fn worth(&self) -> Standing {
        if self.failed.is_some() { Standing::FarHint } else { self.standing }
    }
}

/// `addr` with an IPv4 address in its IPv6 form written as IPv4, so that one address has one form.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, addr.port())),
        // As it was: the scope of a link-local address must survive.
        IpAddr::V6(_) => addr,
    }
}

/// Whether a peer can serve at `addr`.
pub fn is_usable(addr: SocketAddr) -> bool {
    let broadcast = matches!(addr.ip(), IpAddr::V4(v4) if v4.is_broadcast());
    addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast() && !broadcast
}

/// Whether the address `ip` in a message means the same on the host of `other` as here. A loopback
/// or IPv4 link-local address does so only on this host, which `other` is if it is loopback, too.
/// An IPv6 link-local one never does, as messages carry no scope.
pub fn crosses(ip: IpAddr, other: IpAddr) -> bool {
    let local_only = match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => return false,
        IpAddr::V6(v6) => v6.is_loopback(),
    };
    !local_only || other.to_canonical().is_loopback()
}

/// Whether the address `ip`, named by a peer at `teller`, may mean another host, or none, here: it is
/// private (RFC 1918, RFC 4193, RFC 6598), and of another range than the teller's own. Sites choose
/// such addresses for themselves. A teller on this host or on a link of it means what this host does.
pub fn is_far(ip: IpAddr, teller: IpAddr) -> bool {
    let range = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(v4) => match v4.octets() {
            [10, ..] => AddrRange::Private(10),
            [172, second, ..] if second & 0xf0 == 16 => AddrRange::Private(172),
            [192, 168, ..] => AddrRange::Private(192),
            [100, second, ..] if second & 0xc0 == 64 => AddrRange::Private(100),
            _ if v4.is_loopback() || v4.is_link_local() => AddrRange::Here,
            _ => AddrRange::Public,
        },
        IpAddr::V6(v6) if v6.is_unique_local() => AddrRange::Private(6),
        IpAddr::V6(v6) if v6.is_loopback() || v6.is_unicast_link_local() => AddrRange::Here,
        IpAddr::V6(_) => AddrRange::Public,
    };
    match (range(ip), range(teller)) {
        (_, AddrRange::Here) => false,
        (named @ AddrRange::Private(_), teller) => named != teller,
        _ => false,
    }
}

/// Where addresses have a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AddrRange {
    /// On one host or link.
    Here,
    /// In one site; the number tells the ranges apart.
    Private(u8),
    Public,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn addr(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 27420))
    }

    fn all(addresses: &Addresses) -> Vec<SocketAddr> {
        addresses.best_first().collect()
    }

    #[test]
    fn better_standing_then_fresher_comes_first() {
        let (mut a, t) = (Addresses::default(), Instant::now());
        let s = Duration::from_secs(1);
        assert!(a.note(addr(1), Standing::Hint, t + 3 * s));
        assert!(a.note(addr(2), Standing::Own, t));
        assert!(a.note(addr(3), Standing::Own, t + s));
        assert!(a.note(addr(4), Standing::Echo, t + 2 * s));
        assert!(a.note(addr(5), Standing::Proved, t));
        assert_eq!(all(&a), [5, 3, 2, 4, 1].map(addr));
        assert!(!a.note(addr(2), Standing::Hint, t + 2 * s), "known, and keeps its standing");
        assert_eq!(all(&a), [5, 2, 3, 4, 1].map(addr));
    }

    #[test]
    fn private_addresses_of_elsewhere_come_last() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (named, teller, far) in [
            ("192.168.1.5", "203.0.113.9", true),
            ("192.168.1.5", "10.0.0.1", true),
            ("100.64.0.3", "192.168.1.1", true),
            ("100.128.0.3", "192.168.1.1", false),
            ("fd00::5", "2001:db8::1", true),
            ("fd00::5", "::ffff:10.0.0.1", true),
            ("192.168.1.5", "::ffff:192.168.9.9", false),
            ("10.1.0.5", "10.2.0.1", false),
            ("fd00::5", "fd01::1", false),
            ("203.0.113.9", "10.0.0.1", false),
            ("172.16.0.1", "172.32.0.1", true),
            ("192.168.1.5", "127.0.0.1", false),
            ("192.168.1.5", "fe80::1", false),
        ] {
            assert_eq!(is_far(ip(named), ip(teller)), far, "{named} of {teller}");
        }
        let (mut a, t) = (Addresses::default(), Instant::now());
        let s = Duration::from_secs(1);
        for n in 1..=20 {
            a.note(addr(n), Standing::FarHint, t + 9 * s);
        }
        assert_eq!(all(&a).len(), ADDRS_PER_PEER_MAX);
        assert!(a.note(addr(30), Standing::Hint, t), "one that means something takes the place of one that may not");
        assert_eq!(all(&a)[0], addr(30), "and is tried first, however fresh the others are");
        assert!(
            !a.note(addr(1), Standing::Hint, t) && all(&a)[..2].contains(&addr(1)),
            "named from near, it counts as near"
        );
        assert_eq!(a.for_others(ip("10.0.0.9")).count(), 0, "hints are not passed on");
    }

    #[test]
    fn hints_never_push_out_what_the_peer_itself_showed() {
        let (mut a, t) = (Addresses::default(), Instant::now());
        a.note(addr(1), Standing::Proved, t);
        a.note(addr(2), Standing::Own, t);
        for n in 3..=200 {
            a.note(addr(n), Standing::Hint, t + Duration::from_secs(n.into()));
        }
        assert_eq!(all(&a)[..2], [addr(1), addr(2)]);
        assert_eq!(all(&a).len(), ADDRS_PER_PEER_MAX);
        // Even a flood of spoofed sources leaves what TLS proved.
        for n in 3..=200 {
            a.note(addr(n), Standing::Own, t + Duration::from_secs(500 + u64::from(n)));
        }
        assert_eq!(all(&a)[0], addr(1));
        assert!(a.any_proved());
        assert_eq!(all(&a).len(), ADDRS_PER_PEER_MAX);
    }

    #[test]
    fn a_list_of_proved_addresses_takes_no_hint() {
        let (mut a, t) = (Addresses::default(), Instant::now());
        for n in 1..=ADDRS_PER_PEER_MAX as u8 {
            a.note(addr(n), Standing::Proved, t);
        }
        assert!(!a.note(addr(100), Standing::Own, t));
        a.failed(addr(1), t);
        assert!(a.note(addr(100), Standing::Own, t), "one that failed gives way");
        assert!(!all(&a).contains(&addr(1)));
    }

    #[test]
    fn a_failed_address_comes_last_until_it_rested_or_proved_itself() {
        let (mut a, t) = (Addresses::default(), Instant::now());
        a.note(addr(1), Standing::Proved, t);
        a.note(addr(2), Standing::Hint, t);
        a.failed(addr(1), t);
        assert_eq!(all(&a), [2, 1].map(addr));
        a.note(addr(1), Standing::Own, t + FAILED_ADDR_REST / 2);
        assert_eq!(all(&a), [2, 1].map(addr), "its own word does not help so soon");
        a.note(addr(1), Standing::Own, t + FAILED_ADDR_REST);
        assert_eq!(all(&a), [1, 2].map(addr));
        a.failed(addr(1), t);
        a.note(addr(1), Standing::Proved, t);
        assert_eq!(all(&a), [1, 2].map(addr));
    }

    #[test]
    fn an_offer_goes_where_the_peer_was_and_where_others_name_it_only_without_that() {
        let (mut a, t) = (Addresses::default(), Instant::now());
        let at = |n: u8, port| SocketAddr::from(([10, 0, 0, n], port));
        a.note(at(1, LOW_PORTS - 1), Standing::Hint, t);
        assert_eq!(a.for_offer(3), (vec![], true), "a service of the system");
        for n in 2..9 {
            a.note(at(n, LOW_PORTS), Standing::Hint, t);
        }
        assert_eq!(a.for_offer(3), ([2, 3, 4].map(|n| at(n, LOW_PORTS)).to_vec(), true));
        a.note(at(9, 443), Standing::Own, t);
        assert_eq!(a.for_offer(3), (vec![at(9, 443)], false));
        a.failed(at(9, 443), t);
        assert!(a.for_offer(3).1, "it failed, so that others may know better");
    }

    #[test]
    fn only_what_the_peer_itself_showed_is_told_to_others() {
        let (mut a, t) = (Addresses::default(), Instant::now());
        for (n, standing) in [Standing::Hint, Standing::Echo, Standing::Own, Standing::Proved].into_iter().enumerate() {
            a.note(addr(n as u8), standing, t);
        }
        let told: Vec<_> = a.for_others("10.0.0.9".parse().unwrap()).collect();
        assert_eq!(told, [3, 2].map(addr));
    }

    #[test]
    fn addresses_of_this_host_are_for_this_host() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        for local in ["127.0.0.1", "::1", "169.254.3.4", "::ffff:127.0.0.1"] {
            assert!(!crosses(ip(local), ip("10.0.0.9")), "{local}");
            assert!(crosses(ip(local), ip("127.0.0.1")) && crosses(ip(local), ip("::1")), "{local}");
        }
        assert!(!crosses(ip("fe80::1"), ip("127.0.0.1")) && !crosses(ip("fe80::1"), ip("fe80::2")), "without a scope");
        assert!(crosses(ip("192.168.1.1"), ip("10.0.0.9")) && crosses(ip("fd00::1"), ip("10.0.0.9")));
    }

    #[test]
    fn one_address_has_one_form_and_scopes_survive() {
        assert_eq!(canonical("[::ffff:10.0.0.1]:5".parse().unwrap()), SocketAddr::from(([10, 0, 0, 1], 5)));
        let scoped = SocketAddr::V6(std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 5, 0, 3));
        assert_eq!(canonical(scoped), scoped);
        for bad in ["0.0.0.0:1", "[::]:1", "239.1.1.1:1", "255.255.255.255:1", "10.0.0.1:0"] {
            assert!(!is_usable(bad.parse().unwrap()), "{bad}");
        }
    }
}
