//! The accepting end of a session, blocking.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::FRAME_HEADER_LEN_MAX;
use crate::net::{Channel, Opened, Outbox, Tls, TurnedEnd};
use crate::proto::{FramePrefix, Request};

/// A connection of a [`FaultyPeer`](crate::testing::FaultyPeer). `None` means that it has ended.
pub(super) struct Wire<'a> {
    socket: TcpStream,
    channel: Channel,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    out: Outbox,
    /// Bytes until it ends itself.
    left: u64,
    /// Bytes sent on all connections of the peer.
    sent: &'a AtomicU64,
}

impl<'a> Wire<'a> {
    /// Takes `socket` over, which ends after `left` bytes.
    pub(super) fn accept(socket: TcpStream, tls: &Tls, left: u64, sent: &'a AtomicU64) -> Option<Self> {
        socket.set_nodelay(true).ok()?;
        let channel = Channel::accept(tls).ok()?;
        Some(Wire { socket, channel, sealed: Vec::new(), plain: Vec::new(), out: Outbox::new(), left, sent })
    }

    /// Takes a connection over that this side opened and is to answer on.
    pub(super) fn turned(end: TurnedEnd, sent: &'a AtomicU64) -> Option<Self> {
        let TurnedEnd { socket, channel, plain, sealed, .. } = end;
        socket.set_nonblocking(false).ok()?;
        Some(Wire { socket, channel, sealed, plain, out: Outbox::new(), left: u64::MAX, sent })
    }

    /// The next request.
    pub(super) fn receive(&mut self) -> Option<Request> {
        let prefix = FramePrefix::from_bytes(self.read(8)?.try_into().ok()?);
        if prefix.header_len as usize > FRAME_HEADER_LEN_MAX {
            return None;
        }
        let header = self.read(prefix.header_len as usize)?;
        let body = self.read(prefix.body_len as usize)?;
        Request::decode(prefix.kind, &header, &body).ok()
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.channel.seal(bytes, &mut self.out).ok()?;
        self.flush()
    }

    /// Reads what comes, and answers nothing, until the other side ends the connection.
    pub(super) fn hang(&mut self) -> Option<()> {
        loop {
            self.receive()?;
        }
    }

    /// Ends the connection.
    pub(super) fn end(&mut self) -> Option<()> {
        // It may have ended already.
        let _ = self.socket.shutdown(Shutdown::Both);
        None
    }

    fn read(&mut self, len: usize) -> Option<Vec<u8>> {
        while self.plain.len() < len {
            let (plain, mut used) = (&mut self.plain, 0);
            loop {
                let (n, opened) = self
                    .channel
                    .open(&mut self.sealed[used..], &mut self.out, &mut |p| plain.extend_from_slice(p))
                    .ok()?;
                used += n;
                match opened {
                    Opened::Data => {}
                    Opened::Starved => break,
                    Opened::Ended => return None,
                }
            }
            self.sealed.drain(..used);
            self.flush()?;
            if self.plain.len() >= len {
                break;
            }
            let mut buf = [0; 65536];
            let n = self.socket.read(&mut buf).ok().filter(|&n| n > 0)?;
            self.sealed.extend_from_slice(&buf[..n]);
        }
        Some(self.plain.drain(..len).collect())
    }

    fn flush(&mut self) -> Option<()> {
        let bytes = self.out.data();
        let len = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.socket.write_all(&bytes[..len]).ok()?;
        self.sent.fetch_add(len as u64, Ordering::Relaxed);
        self.left -= len as u64;
        self.out.clear();
        if self.left == 0 { self.end() } else { Some(()) }
    }
}
