//! The UDP sockets of a link: options, binding, membership.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use crate::limits::PORT;
use crate::net::interfaces::InterfaceAddr;

/// Opens the receiver and the sender of an interface.
pub(super) fn open(place: &InterfaceAddr) -> io::Result<(Socket, Socket)> {
    match place.addr {
        IpAddr::V4(addr) => open_v4(place, addr),
        IpAddr::V6(addr) => open_v6(place, addr),
    }
}

fn open_v4(place: &InterfaceAddr, addr: Ipv4Addr) -> io::Result<(Socket, Socket)> {
    let receiver = shared_socket(Domain::IPV4, place.group())?;
    join(&receiver, place)?;
    let sender = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // A sender that is bound to the address sends by its interface, whatever the routes say.
    sender.bind(&SocketAddr::from((addr, 0)).into())?;
    sender.set_multicast_if_v4(&addr)?;
    sender.set_multicast_ttl_v4(place.hops.into())?;
    sender.set_multicast_loop_v4(true)?;
    sender.set_broadcast(true)?;
    Ok((receiver, sender))
}

fn open_v6(place: &InterfaceAddr, addr: Ipv6Addr) -> io::Result<(Socket, Socket)> {
    let index = place.index;
    let receiver = shared_socket(Domain::IPV6, place.group())?;
    // The address of a group with link-local scope says the interface. One with site-local scope does
    // not, and the system gives what any interface brings to each member. Old kernels leave the choice
    // of an interface to root: there a datagram may count for another link, too.
    #[cfg(target_os = "linux")]
    if place.hops > 1 {
        drop(receiver.bind_device(Some(place.interface.as_bytes())));
    }
    join(&receiver, place)?;
    let sender = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    sender.set_only_v6(true)?;
    let scope = if addr.is_unicast_link_local() { index } else { 0 };
    sender.bind(&SocketAddr::V6(SocketAddrV6::new(addr, 0, 0, scope)).into())?;
    sender.set_multicast_if_v6(index)?;
    sender.set_multicast_hops_v6(place.hops.into())?;
    sender.set_multicast_loop_v6(true)?;
    Ok((receiver, sender))
}

/// Makes `receiver` a member of the group.
pub(super) fn join(receiver: &Socket, place: &InterfaceAddr) -> io::Result<()> {
    match place.group().ip() {
        IpAddr::V4(group) => receiver.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(place.index)),
        IpAddr::V6(group) => receiver.join_multicast_v6(&group, place.index),
    }
}

/// Ends what [`join`] began.
pub(super) fn leave(receiver: &Socket, place: &InterfaceAddr) -> io::Result<()> {
    match place.group().ip() {
        IpAddr::V4(group) => receiver.leave_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(place.index)),
        IpAddr::V6(group) => receiver.leave_multicast_v6(&group, place.index),
    }
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
