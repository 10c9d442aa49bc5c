//! Which network interfaces, and which of their addresses, discovery uses.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use if_addrs::{IfAddr, IfOperStatus, get_if_addrs};

use crate::limits::{GROUP_V4, GROUP_V6, GROUP_V6_SITE, PORT};
use crate::net::Interface;
use crate::net::limits::LINKS_MAX;

/// Which interfaces discovery may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkOptions {
    /// Only these interfaces; all if empty.
    pub interfaces: Vec<Interface>,
    /// The address that the node listens on: announces go out only where peers can reach it. `::`
    /// means all interfaces, `0.0.0.0` all of IPv4.
    pub bind: IpAddr,
    /// Routers, and one more, that an announce passes at most: 1 stays on the link.
    pub hops: u8,
}

/// The address of an interface to send from; one for each interface and address family, and with more
/// than one hop one more for IPv6: its groups with link-local and site-local scope are two.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InterfaceAddr {
    pub(crate) interface: String,
    pub(crate) index: u32,
    pub(crate) addr: IpAddr,
    pub(crate) prefix_len: u8,
    /// The hop limit of what is sent to the group, IPv4's time to live.
    pub(crate) hops: u8,
}

/// The interfaces of this host that the options select.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    /// Where to send and receive, at most [`LINKS_MAX`].
    pub(crate) places: Vec<InterfaceAddr>,
    /// How many more there are.
    pub(crate) left_out: usize,
    /// All addresses of this host.
    pub(crate) own: Vec<IpAddr>,
    /// Wanted interfaces that are not there.
    pub(crate) missing: Vec<Interface>,
}

impl Default for LinkOptions {
    fn default() -> Self {
        LinkOptions { interfaces: Vec::new(), bind: Ipv6Addr::UNSPECIFIED.into(), hops: 1 }
    }
}

impl LinkOptions {
    fn wants(&self, interface: &if_addrs::Interface, all: &[if_addrs::Interface]) -> bool {
        let named = |wanted: &Interface| match wanted {
            Interface::Name(name) => *name == interface.name,
            Interface::Ip(ip) => {
                all.iter().any(|other| other.name == interface.name && other.ip() == ip.to_canonical())
            }
        };
        self.interfaces.is_empty() || self.interfaces.iter().any(named)
    }

    fn covers(&self, addr: IpAddr) -> bool {
        match self.bind.to_canonical() {
            IpAddr::V6(bind) if bind.is_unspecified() => true,
            IpAddr::V4(bind) if bind.is_unspecified() => addr.is_ipv4(),
            bind => bind == addr,
        }
    }
}

impl InterfaceAddr {
    /// The group to send to and to hear, with its port.
    pub(crate) fn group(&self) -> SocketAddr {
        match (self.addr, self.hops) {
            (IpAddr::V4(_), _) => (GROUP_V4, PORT).into(),
            (IpAddr::V6(_), 0 | 1) => SocketAddrV6::new(GROUP_V6, PORT, 0, self.index).into(),
            (IpAddr::V6(_), _) => (GROUP_V6_SITE, PORT).into(),
        }
    }

    /// Whether `ip` is in the subnet of this address.
    pub(crate) fn is_near(&self, ip: IpAddr) -> bool {
        let (IpAddr::V4(own), IpAddr::V4(other)) = (self.addr, ip.to_canonical()) else { return false };
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len.min(32))).unwrap_or(0);
        u32::from(own) & mask == u32::from(other) & mask
    }

    /// Whether a host with the address `ip` is on the link of this address: it is link-local or in
    /// the same subnet.
    pub(crate) fn is_neighbour(&self, ip: IpAddr) -> bool {
        match (self.addr, ip.to_canonical()) {
            (IpAddr::V4(_), IpAddr::V4(other)) => other.is_link_local() || self.is_near(ip),
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_len.min(128))).unwrap_or(0);
                other.is_unicast_link_local() || u128::from(own) & mask == u128::from(other) & mask
            }
            _ => false,
        }
    }
}

/// Whether `ip` is in the network of an interface of this host.
#[cfg(feature = "dns-sd")]
pub(crate) fn is_on_link(ip: IpAddr) -> bool {
    let places = get_if_addrs().unwrap_or_default().into_iter().map(|interface| {
        let (addr, prefix_len) = match &interface.addr {
            IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
            IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
        };
        InterfaceAddr { interface: interface.name, index: 0, addr, prefix_len, hops: 1 }
    });
    places.filter(|place| place.prefix_len > 0).any(|place| place.is_neighbour(ip))
}

/// The addresses of this host on the interfaces that `options` chooses, and where its listener is.
pub(crate) fn own_addrs(options: &LinkOptions) -> Vec<IpAddr> {
    let all = get_if_addrs().unwrap_or_default();
    let up = all.iter().filter(|i| i.oper_status == IfOperStatus::Up && options.wants(i, &all));
    up.map(if_addrs::Interface::ip).filter(|ip| options.covers(*ip)).collect()
}

/// Whether packets to `addr` leave by one of these interfaces, or any may be used as there are none. What stays in this host
/// leaves by loopback. The system is asked for the way, which sends nothing.
pub(crate) fn leads_over(interfaces: &[Interface], addr: SocketAddr) -> bool {
    if interfaces.is_empty() {
        return true;
    }
    let options = LinkOptions { interfaces: interfaces.to_vec(), ..LinkOptions::default() };
    let all = get_if_addrs().unwrap_or_default();
    let chosen: Vec<&if_addrs::Interface> = all.iter().filter(|i| options.wants(i, &all)).collect();
    match addr {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => chosen.iter().any(|i| i.index == Some(v6.scope_id())),
        _ => {
            let Ok(from) = source_to(addr) else { return false };
            let is_here = from == addr.ip();
            chosen.iter().any(|i| i.ip() == from || is_here && i.ip().is_loopback())
        }
    }
}

/// The address that packets to `addr` have as their source.
fn source_to(addr: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(addr)?;
    Ok(socket.local_addr()?.ip())
}

/// Looks at the interfaces of this host.
pub(crate) fn survey(options: &LinkOptions) -> io::Result<Interfaces> {
    Ok(choose(get_if_addrs()?, options))
}

fn choose(all: Vec<if_addrs::Interface>, options: &LinkOptions) -> Interfaces {
    let mut best: BTreeMap<(&str, bool, u8), InterfaceAddr> = BTreeMap::new();
    for interface in &all {
        let (addr, prefix_len) = match &interface.addr {
            IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
            IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
        };
        // Linux does not deliver IPv6 multicast over loopback.
        let usable = interface.oper_status == IfOperStatus::Up && (addr.is_ipv4() || !addr.is_loopback());
        let Some(index) = interface.index.filter(|_| usable && options.wants(interface, &all)) else { continue };
        if !options.covers(addr) {
            continue;
        }
        let place = |hops| InterfaceAddr { interface: interface.name.clone(), index, addr, prefix_len, hops };
        let near = if addr.is_ipv4() { options.hops } else { 1 };
        best.entry((&interface.name, addr.is_ipv4(), near))
            // Link-local is the IPv6 address that every neighbour can reach.
            .and_modify(|known| {
                if is_link_local(addr) && !is_link_local(known.addr) {
                    *known = place(near);
                }
            })
            .or_insert_with(|| place(near));
        // No router passes on what comes from a link-local address (RFC 4291, 2.5.6).
        if options.hops > 1 && addr.is_ipv6() && !is_link_local(addr) {
            best.entry((&interface.name, false, options.hops)).or_insert_with(|| place(options.hops));
        }
    }
    let mut places: Vec<InterfaceAddr> = best.into_values().collect();
    // IPv4 first where the bound cuts: more hosts have it.
    places.sort_by_key(|p| !p.addr.is_ipv4());
    let left_out = places.len().saturating_sub(LINKS_MAX);
    places.truncate(LINKS_MAX);
    let absent = |wanted: &&Interface| match wanted {
        Interface::Name(name) => !all.iter().any(|i| i.name == *name),
        Interface::Ip(ip) => !all.iter().any(|i| i.ip() == ip.to_canonical()),
    };
    let missing = options.interfaces.iter().filter(absent).cloned().collect();
    Interfaces { places, left_out, own: all.iter().map(if_addrs::Interface::ip).collect(), missing }
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use if_addrs::{Ifv4Addr, Ifv6Addr};

    use super::*;

    fn interface(name: &str, index: u32, ip: &str, prefixlen: u8) -> if_addrs::Interface {
        let addr = match ip.parse().unwrap() {
            IpAddr::V4(ip) => IfAddr::V4(Ifv4Addr { ip, netmask: [0; 4].into(), prefixlen, broadcast: None }),
            IpAddr::V6(ip) => IfAddr::V6(Ifv6Addr { ip, netmask: [0; 16].into(), prefixlen, broadcast: None }),
        };
        if_addrs::Interface {
            name: name.into(),
            addr,
            index: Some(index),
            oper_status: IfOperStatus::Up,
            is_p2p: false,
        }
    }

    fn host() -> Vec<if_addrs::Interface> {
        vec![
            interface("lo", 1, "127.0.0.1", 8),
            interface("lo", 1, "::1", 128),
            interface("eth0", 2, "192.0.2.2", 24),
            interface("eth0", 2, "192.0.2.9", 24),
            interface("eth0", 2, "fd00::2", 64),
            interface("eth0", 2, "fe80::2", 64),
            interface("eth1", 3, "fe80::3", 64),
            // What an interface without a carrier shows.
            if_addrs::Interface { oper_status: IfOperStatus::Unknown, ..interface("eth2", 4, "10.0.0.1", 8) },
        ]
    }

    fn chosen(interfaces: &[&str], bind: &str) -> Vec<String> {
        let options = LinkOptions {
            interfaces: interfaces.iter().map(|s| s.parse().unwrap()).collect(),
            bind: bind.parse().unwrap(),
            hops: 1,
        };
        shown(&options)
    }

    fn shown(options: &LinkOptions) -> Vec<String> {
        let places = choose(host(), options).places;
        places.into_iter().map(|p| format!("{} {}", p.interface, p.addr)).collect()
    }

    #[test]
    fn what_crosses_routers_has_a_group_and_an_address_that_do() {
        let places = choose(host(), &LinkOptions { hops: 3, ..LinkOptions::default() }).places;
        let all: Vec<_> = places.iter().map(|p| format!("{} {} {}", p.addr, p.group(), p.hops)).collect();
        assert_eq!(
            all,
            [
                "192.0.2.2 239.255.71.80:27420 3",
                "127.0.0.1 239.255.71.80:27420 3",
                "fe80::2 [ff02::4750:4231%2]:27420 1",
                "fd00::2 [ff05::4750:4231]:27420 3",
                "fe80::3 [ff02::4750:4231%3]:27420 1",
            ]
        );
        let bound = LinkOptions { bind: "fd00::2".parse().unwrap(), hops: 2, ..LinkOptions::default() };
        assert_eq!(shown(&bound), ["eth0 fd00::2", "eth0 fd00::2"], "one for each scope");
    }

    #[test]
    fn each_interface_is_used_once_a_family() {
        assert_eq!(chosen(&[], "::"), ["eth0 192.0.2.2", "lo 127.0.0.1", "eth0 fe80::2", "eth1 fe80::3"]);
    }

    #[test]
    fn what_the_user_names_is_all_that_is_used() {
        assert_eq!(chosen(&["eth1"], "::"), ["eth1 fe80::3"]);
        assert_eq!(chosen(&["fd00::2"], "::"), ["eth0 192.0.2.2", "eth0 fe80::2"]);
        assert_eq!(chosen(&["127.0.0.1", "nope"], "::"), ["lo 127.0.0.1"]);
        let options = LinkOptions {
            interfaces: vec!["nope".parse().unwrap(), "192.0.2.9".parse().unwrap()],
            ..LinkOptions::default()
        };
        assert_eq!(choose(host(), &options).missing, [Interface::Name("nope".into())]);
    }

    #[test]
    fn a_node_is_announced_only_where_it_listens() {
        assert_eq!(chosen(&[], "0.0.0.0"), ["eth0 192.0.2.2", "lo 127.0.0.1"]);
        assert_eq!(chosen(&[], "127.0.0.1"), ["lo 127.0.0.1"]);
        assert_eq!(chosen(&[], "192.0.2.9"), ["eth0 192.0.2.9"]);
        assert_eq!(chosen(&[], "fd00::2"), ["eth0 fd00::2"]);
        assert_eq!(chosen(&[], "10.9.9.9"), Vec::<String>::new());
    }

    #[test]
    fn neighbours_are_told_by_the_subnet() {
        let place = |ip: &str, prefix_len| InterfaceAddr {
            interface: "x".into(),
            index: 1,
            addr: ip.parse().unwrap(),
            prefix_len,
            hops: 1,
        };
        let near = |p: &InterfaceAddr, ip: &str| p.is_near(ip.parse().unwrap());
        let p = place("192.0.2.2", 24);
        assert!(near(&p, "192.0.2.200") && near(&p, "::ffff:192.0.2.3") && !near(&p, "192.0.3.2"));
        assert!(near(&place("10.0.0.1", 0), "8.8.8.8") && !near(&place("10.0.0.1", 32), "10.0.0.2"));
        assert!(!near(&place("fe80::1", 64), "fe80::2"));
        let neighbour = |p: &InterfaceAddr, ip: &str| p.is_neighbour(ip.parse().unwrap());
        assert!(neighbour(&p, "192.0.2.200") && neighbour(&p, "169.254.7.7"));
        assert!(!neighbour(&p, "192.0.3.2") && !neighbour(&p, "8.8.8.8") && !neighbour(&p, "fe80::2"));
        assert!(neighbour(&place("fe80::1", 64), "fe80::2") && !neighbour(&place("fe80::1", 64), "2001:db8::2"));
        assert!(neighbour(&place("fd00::1", 64), "fd00::2") && !neighbour(&place("fd00::1", 64), "fd00:0:0:1::2"));
    }

    #[test]
    fn the_way_to_an_address_leads_over_one_interface() {
        let over = |interfaces: &[&str], addr: &str| {
            let interfaces: Vec<Interface> = interfaces.iter().map(|name| name.parse().unwrap()).collect();
            leads_over(&interfaces, addr.parse().unwrap())
        };
        assert!(over(&[], "192.0.2.7:1") && over(&["nope", "127.0.0.1"], "127.0.0.1:1"));
        for (interface, addr) in
            [("nope", "127.0.0.1:1"), ("127.0.0.1", "192.0.2.7:1"), ("127.0.0.1", "[fe80::7%9999]:1")]
        {
            assert!(!over(&[interface], addr), "{interface} {addr}");
        }
    }

    #[test]
    fn this_host_can_be_looked_at() {
        let survey = survey(&LinkOptions::default()).unwrap();
        assert!(survey.own.iter().any(IpAddr::is_loopback));
    }
}
