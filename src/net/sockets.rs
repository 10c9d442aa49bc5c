//! The UDP sockets of a link: options, binding, membership.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use crate::limits::{GROUP_V4, GROUP_V6, PORT};
use crate::net::interfaces::InterfaceAddr;

/// Opens the receiver and the sender of an IPv4 interface; the last value is the group with its
/// port.
pub(super) fn open_v4(addr: Ipv4Addr, index: u32) -> io::Result<(Socket, Socket, SocketAddr)> {
    let group = SocketAddr::from((GROUP_V4, PORT));
    let receiver = shared_socket(Domain::IPV4, group)?;
    receiver.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index))?;
    let sender = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // A sender that is bound to the address sends by its interface, whatever the routes say.
    sender.bind(&SocketAddr::from((addr, 0)).into())?;
    sender.set_multicast_if_v4(&addr)?;
    sender.set_multicast_ttl_v4(1)?;
    sender.set_multicast_loop_v4(true)?;
    sender.set_broadcast(true)?;
    Ok((receiver, sender, group))
}

/// The same for an IPv6 interface.
pub(super) fn open_v6(place: &InterfaceAddr) -> io::Result<(Socket, Socket, SocketAddr)> {
    let IpAddr::V6(addr) = place.addr else { return Err(io::ErrorKind::InvalidInput.into()) };
    let index = place.index;
    let group = SocketAddr::V6(SocketAddrV6::new(GROUP_V6, PORT, 0, index));
    let receiver = shared_socket(Domain::IPV6, group)?;
    receiver.join_multicast_v6(&GROUP_V6, index)?;
    let sender = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    sender.set_only_v6(true)?;
    let scope = if addr.is_unicast_link_local() { index } else { 0 };
    sender.bind(&SocketAddr::V6(SocketAddrV6::new(addr, 0, 0, scope)).into())?;
    sender.set_multicast_if_v6(index)?;
    sender.set_multicast_hops_v6(1)?;
    sender.set_multicast_loop_v6(true)?;
    Ok((receiver, sender, group))
}

/// Opens the receiver of IPv4 broadcasts, which come over any interface.
pub(super) fn open_wildcard() -> io::Result<Socket> {
    shared_socket(Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)))
}

/// Opens a receiver on the common port, which all nodes of a host share. It receives only what its
/// own memberships bring.
fn shared_socket(domain: Domain, addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    // SO_REUSEADDR is enough on Linux. With SO_REUSEPORT, recent kernels (6.18 does) give a
    // datagram to any socket of the port, chosen by hash, even if another one is the only member:
    // it then counts for the wrong link, or is lost.
    #[cfg(all(unix, not(target_os = "linux")))]
    socket.set_reuse_port(true)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    #[cfg(target_os = "linux")]
    if domain == Domain::IPV6 {
        // Kernels before 4.20 have no such option; being bound to the interface's scope does it
        // there.
        drop(socket.set_multicast_all_v6(false));
    } else {
        socket.set_multicast_all_v4(false)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}
