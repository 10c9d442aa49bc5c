//! A session whose roles are exchanged: the side that opened the connection answers on it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};

use socket2::{SockRef, TcpKeepalive};

use crate::net::channel::Channel;
use crate::net::limits::{KEEPALIVE_AFTER, KEEPALIVE_INTERVAL, KEEPALIVE_TRIES};

/// One end of a session on its way from the service that had it to the one that takes it over.
#[derive(Debug)]
pub struct TurnedEnd {
    /// The connection.
    pub socket: TcpStream,
    /// TLS on it, with the handshake behind it.
    pub channel: Channel,
    /// Where the other side is.
    pub addr: SocketAddr,
    /// Plaintext that has come and was not read.
    pub plain: Vec<u8>,
    /// Ciphertext of a record that is not whole yet.
    pub sealed: Vec<u8>,
}

impl TurnedEnd {
    /// The asking end, which has read all that came. Its socket does not block.
    pub fn asking(socket: TcpStream, channel: Channel, addr: SocketAddr) -> Self {
        keep_alive(&socket);
        TurnedEnd { socket, channel, addr, plain: Vec::new(), sealed: Vec::new() }
    }

    /// Whether the other side waits to be asked: it is there, and has sent nothing.
    pub fn is_silent(&self) -> bool {
        let looked = self.socket.peek(&mut [0]);
        looked.is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted))
    }
}

/// Has the system keep the way open: a NAT forgets connections without traffic, and a dead peer sends no end.
pub(super) fn keep_alive(socket: &TcpStream) {
    let how = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
    // Without it the session ends earlier, as any idle one.
    let _ = SockRef::from(socket).set_tcp_keepalive(&how.with_retries(KEEPALIVE_TRIES));
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::identity::Keypair;
    use crate::net::Tls;

    #[test]
    fn the_way_is_kept_open_while_nothing_is_asked() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let _far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, addr) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let channel = Channel::accept(&Tls::new(&Keypair::generate()).unwrap()).unwrap();
        let end = TurnedEnd::asking(socket, channel, addr);
        let socket = SockRef::from(&end.socket);
        assert!(socket.keepalive().unwrap() && end.is_silent());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
    }
}
