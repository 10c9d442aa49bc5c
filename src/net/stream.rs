//! A dialed session: blocking, with a deadline for every wait.
//!
//! One system call reads many records, and a body is decrypted in the receive buffer and copied
//! once, to where the caller wants it.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::identity::PeerId;
use crate::limits::FRAME_HEADER_LEN_MAX;
use crate::net::channel::Channel;
use crate::net::error::StreamError;
use crate::net::limits::{RECEIVE_BUFFER_LEN, REQUEST_RECORD_LEN};
use crate::net::pipe::{ReadWait, TlsPipe, wait_for};
use crate::net::secure::Tls;
use crate::net::turned::{TurnedEnd, keep_alive};
use crate::proto::{FRAME_PREFIX_LEN, FrameError, FramePrefix};

/// The dialer's end of a session: frames over TLS over TCP, blocking.
#[derive(Debug)]
pub struct Dialed {
    addr: SocketAddr,
    peer: PeerId,
    handshake: Duration,
    /// The other side opened the connection, and offered to answer on it.
    is_turned: bool,
    pipe: TlsPipe,
}

/// The dialer's end of a connection whose handshake has begun.
#[derive(Debug)]
pub struct Greeting {
    addr: SocketAddr,
    begun: Instant,
    pipe: TlsPipe,
}

impl Dialed {
    /// Connects and shakes hands, in at most `timeout` in all.
    ///
    /// # Errors
    /// [`StreamError`]; with `expect`, [`SecureError::OtherKey`](crate::net::SecureError::OtherKey)
    /// when the peer proves another key.
    pub fn dial(addr: SocketAddr, expect: Option<PeerId>, tls: &Tls, timeout: Duration) -> Result<Self, StreamError> {
        Self::dial_held(addr, expect, tls, timeout, drop).map(|(session, ())| session)
    }

    /// As [`dial`](Self::dial), for a caller that must be able to end the dial from another thread:
    /// `hold` gets a [`closer`](Self::closer) before the first wait, and its result is returned
    /// with the session.
    ///
    /// # Errors
    /// As [`dial`](Self::dial).
    pub fn dial_held<H>(
        addr: SocketAddr,
        expect: Option<PeerId>,
        tls: &Tls,
        timeout: Duration,
        hold: impl FnOnce(TcpStream) -> H,
    ) -> Result<(Self, H), StreamError> {
        let deadline = Instant::now() + timeout;
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let begun = socket.connect(&addr.into());
        let socket = TcpStream::from(socket);
        // `shutdown` has an effect only after `connect` has begun, so this comes after it.
        let held = hold(socket.try_clone()?);
        finish_connect(begun, &socket, deadline)?;
        let greeting = Greeting::begin(socket, addr, expect, tls)?;
        Ok((greeting.finish(deadline)?, held))
    }

    /// The asking end of a session that the other side opened and offered to answer on.
    ///
    /// # Errors
    /// [`StreamError::Closed`]: its handshake is not over; [`StreamError::Io`]: its socket cannot be used.
    pub fn turned(end: TurnedEnd) -> Result<Self, StreamError> {
        let TurnedEnd { socket, channel, addr, .. } = end;
        let peer = channel.peer().ok_or(StreamError::Closed)?;
        socket.set_nonblocking(true)?;
        let pipe = TlsPipe::new(socket, channel);
        Ok(Dialed { addr, peer, handshake: Duration::MAX, is_turned: true, pipe })
    }

    /// Whether the other side opened the connection.
    pub fn is_turned(&self) -> bool {
        self.is_turned
    }

    /// The answering end of the same session, once the other side has taken the offer to ask from now on.
    ///
    /// # Errors
    /// [`StreamError`]: the session has ended.
    pub fn turn(self) -> Result<TurnedEnd, StreamError> {
        let addr = self.addr;
        let (socket, channel, plain, sealed) = self.pipe.take_apart()?;
        keep_alive(&socket);
        Ok(TurnedEnd { socket, channel, addr, plain, sealed })
    }

    /// The key that TLS proved.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Where the session goes to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How long the TLS handshake took: a round trip, and the work of both ends.
    pub fn handshake(&self) -> Duration {
        self.handshake
    }

    /// The address that this end has on the way there.
    ///
    /// # Errors
    /// What the system reports.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.pipe.socket.local_addr()
    }

    /// Sends whole frames, as `encode_request` writes them, and flushes. The caller keeps its
    /// unanswered frames under `UNANSWERED_LEN_MAX` bytes in all: a server that cannot send
    /// reads no further.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn send(&mut self, frames: &[u8], deadline: Instant) -> Result<(), StreamError> {
        for record in frames.chunks(REQUEST_RECORD_LEN) {
            self.pipe.channel.seal(record, &mut self.pipe.outgoing)?;
        }
        self.pipe.flush(deadline)
    }

    /// Reads a frame's prefix and its postcard header into `header` (cleared first; bounded by
    /// `FRAME_HEADER_LEN_MAX`). The body must be read with `read_body` before the next call; its
    /// length is not bounded here, see [`FramePrefix::check_response`].
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn read_head(&mut self, header: &mut Vec<u8>, deadline: Instant) -> Result<FramePrefix, StreamError> {
        let mut prefix = [0; FRAME_PREFIX_LEN];
        self.pipe.read_exact(&mut prefix, ReadWait::Until(deadline), &mut |_| true)?;
        let prefix = FramePrefix::from_bytes(prefix);
        if prefix.header_len as usize > FRAME_HEADER_LEN_MAX {
            return Err(FrameError::HeaderTooLong(prefix.header_len as usize).into());
        }
        header.clear();
        header.resize(prefix.header_len as usize, 0);
        self.pipe.read_exact(header, ReadWait::Until(deadline), &mut |_| true)?;
        Ok(prefix)
    }

    /// Reads exactly `into.len()` bytes of the body. `idle` is the longest wait without a single
    /// byte; `progress` gets the number of bytes of each step and says whether to read further:
    /// the caller judges whether a peer that is not silent is too slow.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn read_body(
        &mut self,
        into: &mut [u8],
        idle: Duration,
        progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<(), StreamError> {
        self.pipe.grow(RECEIVE_BUFFER_LEN);
        self.pipe.read_exact(into, ReadWait::Idle(idle), progress)
    }

    /// Reads exactly `into.len()` bytes of the body before `deadline`, however slowly they arrive.
    /// Bytes that have arrived already count as in time.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn read_until(&mut self, into: &mut [u8], deadline: Instant) -> Result<(), StreamError> {
        self.pipe.grow(RECEIVE_BUFFER_LEN);
        self.pipe.read_exact(into, ReadWait::Until(deadline), &mut |_| true)
    }

    /// Whether bytes of an answer have arrived, so that reading a head hardly waits for the
    /// network.
    pub fn has_input(&self) -> bool {
        self.pipe.has_input()
    }

    /// A handle to the same socket: `shutdown(Both)` on it makes reads and writes of this session
    /// fail at once, from any thread.
    ///
    /// # Errors
    /// What the system reports.
    pub fn closer(&self) -> io::Result<TcpStream> {
        self.pipe.socket.try_clone()
    }

    /// Sends close_notify and closes, without waiting.
    pub fn close(mut self) {
        if self.pipe.channel.seal_close(&mut self.pipe.outgoing).is_ok() {
            let _ = self.pipe.flush(Instant::now());
        }
        let _ = self.pipe.socket.shutdown(Shutdown::Write);
    }
}

impl Greeting {
    /// Begins the handshake over `socket`, which is connected and does not block; it leads to
    /// `addr`. `expect` is the only key that is accepted there, if given.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn begin(socket: TcpStream, addr: SocketAddr, expect: Option<PeerId>, tls: &Tls) -> Result<Self, StreamError> {
        let begun = Instant::now();
        let mut pipe = TlsPipe::new(socket, Channel::dial(tls, expect)?);
        pipe.begin()?;
        Ok(Greeting { addr, begun, pipe })
    }

    /// Ends the handshake.
    ///
    /// # Errors
    /// As [`Dialed::dial`].
    pub fn finish(mut self, deadline: Instant) -> Result<Dialed, StreamError> {
        let peer = self.pipe.shake_hands(deadline)?;
        let handshake = self.begun.elapsed();
        Ok(Dialed { addr: self.addr, peer, handshake, is_turned: false, pipe: self.pipe })
    }
}

/// Waits for the end of a connect that would block.
fn finish_connect(begun: io::Result<()>, socket: &TcpStream, deadline: Instant) -> Result<(), StreamError> {
    match begun {
        Err(e) if e.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) || e.kind() == ErrorKind::WouldBlock => {}
        begun => return Ok(begun?),
    }
    if !wait_for(socket, PollFlags::OUT, deadline)? {
        // Unlike a peer that takes the connection and is silent.
        return Err(io::Error::from(ErrorKind::TimedOut).into());
    }
    socket.take_error()?.map_or(Ok(()), |e| Err(e.into()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::identity::Keypair;
    use crate::net::Outbox;

    #[test]
    fn a_dial_that_hangs_can_be_given_up() {
        // Nothing accepts: once the backlog is full, further connections are not answered at all.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let filling = (0..8).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&addr.into());
            socket
        });
        let _filling: Vec<Socket> = filling.collect();
        let (tls, forever) = (Tls::new(&Keypair::generate()).unwrap(), Duration::from_secs(600));
        let (tell, told) = std::sync::mpsc::channel();
        let dialing = std::thread::spawn(move || {
            let hold = |socket| tell.send(socket).unwrap();
            Dialed::dial_held(addr, None, &tls, forever, hold).map(drop)
        });
        told.recv().unwrap().shutdown(Shutdown::Both).unwrap();
        let result = dialing.join().unwrap();
        assert!(matches!(result, Err(StreamError::Io(_))), "{result:?}");
    }

    /// Cause: many requests were one record, which is longer than what a connection sends at first. Effect: over a long
    /// path the first one was read a round trip after it had come.
    #[test]
    fn a_request_is_read_as_soon_as_it_has_come() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let tls = Tls::new(&Keypair::generate()).unwrap();
        let theirs = tls.clone();
        let reading = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let (mut channel, mut out, mut held) = (Channel::accept(&theirs).unwrap(), Outbox::new(), vec![]);
            let (mut came, mut plain) = (0, 0);
            while plain == 0 {
                let shaken = channel.peer().is_some();
                let mut bytes = [0; 100];
                let n = socket.read(&mut bytes).unwrap();
                came += if shaken { n } else { 0 };
                held.extend_from_slice(&bytes[..n]);
                let (used, _) = channel.open(&mut held, &mut out, &mut |data| plain += data.len()).unwrap();
                held.drain(..used);
                socket.write_all(out.data()).unwrap();
                out.clear();
            }
            (came, plain)
        });
        let mut session = Dialed::dial(addr, None, &tls, Duration::from_secs(60)).unwrap();
        session.send(&[7; 10_000], Instant::now() + Duration::from_secs(60)).unwrap();
        let (came, plain) = reading.join().unwrap();
        assert!(came <= 1448, "{plain} bytes were read after {came}");
    }

    #[test]
    fn a_body_that_trickles_in_ends_at_the_deadline() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let tls = Tls::new(&Keypair::generate()).unwrap();
        let theirs = tls.clone();
        let dripping = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let (mut channel, mut out, mut held) = (Channel::accept(&theirs).unwrap(), Outbox::new(), vec![]);
            while channel.peer().is_none() {
                let mut bytes = [0; 4096];
                let n = socket.read(&mut bytes).unwrap();
                held.extend_from_slice(&bytes[..n]);
                let (used, _) = channel.open(&mut held, &mut out, &mut |_| ()).unwrap();
                held.drain(..used);
                socket.write_all(out.data()).unwrap();
                out.clear();
            }
            // Until the other side has enough.
            loop {
                channel.seal(&[1], &mut out).unwrap();
                if socket.write_all(out.data()).is_err() {
                    return;
                }
                out.clear();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let mut session = Dialed::dial(addr, None, &tls, Duration::from_secs(60)).unwrap();
        session.read_until(&mut [0; 3], Instant::now() + Duration::from_secs(60)).unwrap();
        let began = Instant::now();
        let result = session.read_until(&mut [0; 100_000], began + Duration::from_millis(200));
        assert!(matches!(result, Err(StreamError::TimedOut)), "{result:?}");
        // All of them would take more than a minute and a half.
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        drop(session);
        dripping.join().unwrap();
    }
}
