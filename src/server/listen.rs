//! Opening the port.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::server::limits::LISTEN_BACKLOG;

/// Why a server cannot start. Each message is one line with the thing and the cause.
///
/// ```
/// use gpb::{Keypair, Node, StartError, error::ServerError};
///
/// let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let node = Node::builder().key(Keypair::generate()).bind("127.0.0.1");
/// let error = node.port(taken.local_addr()?.port()).start().unwrap_err();
/// assert!(matches!(error, StartError::Listen(ServerError::PortInUse { .. })));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another program listens there.
    #[error("port {port} is in use on {addr}")]
    PortInUse {
        /// The address.
        addr: IpAddr,
        /// The port.
        port: u16,
    },
    /// A port below 1024 without the right to it, or a security policy.
    #[error("not allowed to listen on port {port}")]
    Forbidden {
        /// The port.
        port: u16,
    },
    /// The address is none of this host.
    #[error("{0} is no address of this host")]
    NoSuchAddress(IpAddr),
    /// Something else.
    #[error("cannot listen on {addr}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// No thread, or nothing to wait with.
    #[error("cannot start the server")]
    Start(#[source] io::Error),
}

/// Opens `port` (0: any free one) on `addr`; without one on all addresses, IPv6 and IPv4 in one
/// socket where there is IPv6, else IPv4.
///
/// # Errors
/// [`ServerError`]
pub fn listen(addr: Option<IpAddr>, port: u16) -> Result<TcpListener, ServerError> {
    if let Some(addr) = addr {
        return open(SocketAddr::new(addr, port)).map_err(|e| explain(SocketAddr::new(addr, port), e));
    }
    let (v6, v4) = (SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    match open(v6) {
        Err(e) if e.kind() == ErrorKind::AddrInUse || e.kind() == ErrorKind::PermissionDenied => Err(explain(v6, e)),
        Err(_) => open(v4).map_err(|e| explain(v4, e)),
        Ok(listener) => Ok(listener),
    }
}

fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for old connections to be forgotten; two servers on one port are
    // still refused. On Windows the option would allow just that.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn explain(addr: SocketAddr, source: io::Error) -> ServerError {
    match source.kind() {
        ErrorKind::AddrInUse => ServerError::PortInUse { addr: addr.ip(), port: addr.port() },
        ErrorKind::PermissionDenied => ServerError::Forbidden { port: addr.port() },
        ErrorKind::AddrNotAvailable => ServerError::NoSuchAddress(addr.ip()),
        _ => ServerError::Listen { addr, source },
    }
}

/// IPv4 addresses as such, not as a dual-stack socket gives them.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// Whether an error of `accept` concerns only the connection that it would have given.
pub(crate) fn is_of_one_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let first = listen(None, 0).unwrap();
        let port = first.local_addr().unwrap().port();
        let error = listen(None, port).unwrap_err().to_string();
        assert!(error.contains(&port.to_string()), "{error}");
        let v4 = listen(Some(Ipv4Addr::LOCALHOST.into()), port);
        assert!(matches!(v4, Err(ServerError::PortInUse { .. })), "{v4:?}");
    }

    #[test]
    fn a_foreign_address_is_named() {
        let error = listen(Some([192, 0, 2, 1].into()), 0).unwrap_err();
        assert!(matches!(error, ServerError::NoSuchAddress(_)), "{error}");
    }
}
