//! A dialed session: blocking, with a deadline for every wait.
//!
//! The socket is nonblocking and waited for with `poll`, so that data that is already there costs one system call for
//! many records. Bodies are decrypted in the receive buffer and copied once, to where the caller wants them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::identity::PeerId;
use crate::limits::FRAME_HEADER_LEN_MAX;
use crate::net::channel::{Channel, Opened};
use crate::net::limits::RECEIVE_BUFFER_LEN;
use crate::net::outbox::Outbox;
use crate::net::secure::{SecureError, Tls};
use crate::proto::{FRAME_PREFIX_LEN, FrameError, FramePrefix};

/// The dialer's end of a session: frames over TLS over TCP, blocking.
#[derive(Debug)]
pub struct Dialed {
    socket: TcpStream,
    addr: SocketAddr,
    peer: PeerId,
    channel: Channel,
    incoming: Incoming,
    /// Plaintext that arrived behind what was asked for; taken from `spill_at` on.
    spill: Vec<u8>,
    spill_at: usize,
    outgoing: Outbox,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// TCP said so; `UnexpectedEof` when the other side closed without a goodbye.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nothing arrived, or nothing could be sent, before the deadline.
    #[error("timed out")]
    TimedOut,
    /// The other side said goodbye.
    #[error("closed by peer")]
    Closed,
    /// TLS said so.
    #[error("{0}")]
    Secure(#[from] SecureError),
    /// A frame breaks the rules.
    #[error("{0}")]
    Frame(#[from] FrameError),
}

impl Dialed {
    /// Connects and shakes hands, in at most `timeout` in all.
    ///
    /// # Errors
    /// [`StreamError`]; [`SecureError::OtherKey`] when `expect` is given and somebody else lives there.
    pub fn dial(addr: SocketAddr, expect: Option<PeerId>, tls: &Tls, timeout: Duration) -> Result<Self, StreamError> {
        Self::dial_held(addr, expect, tls, timeout, drop).map(|(session, ())| session)
    }

    /// As [`dial`](Self::dial), for who must be able to give it up meanwhile: `hold` gets a [`closer`](Self::closer)
    /// before anything is waited for, and what it makes of it comes back with the session.
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
        // Only a connection that has begun can be shut down.
        let held = hold(socket.try_clone()?);
        finish_connect(begun, &socket, deadline)?;
        let mut session = Dialed {
            socket,
            addr,
            peer: PeerId([0; 32]),
            channel: Channel::dial(tls, expect)?,
            incoming: Incoming::new(HANDSHAKE_BUFFER_LEN),
            spill: Vec::new(),
            spill_at: 0,
            outgoing: Outbox::new(),
        };
        session.peer = session.shake_hands(deadline)?;
        Ok((session, held))
    }

    /// The key that TLS proved.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Where the session goes to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address that this end has on the way there.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Sends whole frames (as `encode_request` writes them) and flushes. Keep the frames that are not answered yet
    /// under `UNANSWERED_LEN_MAX` bytes in all: a server reads no further than that while it answers.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn send(&mut self, frames: &[u8], deadline: Instant) -> Result<(), StreamError> {
        self.channel.seal(frames, &mut self.outgoing)?;
        self.flush(deadline)
    }

    /// Reads a frame's prefix and its postcard header into `header` (cleared first; bounded by
    /// `FRAME_HEADER_LEN_MAX`). The body must be read with `read_body` before the next call; its length is not
    /// bounded here, see [`FramePrefix::check_response`].
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn read_head(&mut self, header: &mut Vec<u8>, deadline: Instant) -> Result<FramePrefix, StreamError> {
        let mut prefix = [0; FRAME_PREFIX_LEN];
        self.read_exact(&mut prefix, Wait::Until(deadline), &mut |_| ())?;
        let prefix = FramePrefix::from_bytes(prefix);
        if prefix.header_len as usize > FRAME_HEADER_LEN_MAX {
            return Err(FrameError::HeaderTooLong(prefix.header_len as usize).into());
        }
        header.clear();
        header.resize(prefix.header_len as usize, 0);
        self.read_exact(header, Wait::Until(deadline), &mut |_| ())?;
        Ok(prefix)
    }

    /// Reads exactly `into.len()` bytes of the body. `idle` is the longest wait without a single byte.
    /// `progress` hears how many bytes came.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn read_body(
        &mut self,
        into: &mut [u8],
        idle: Duration,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), StreamError> {
        self.incoming.grow(RECEIVE_BUFFER_LEN);
        self.read_exact(into, Wait::Idle(idle), progress)
    }

    /// Reads exactly `into.len()` bytes of the body, all of them before `deadline`, however they trickle in. What is
    /// here already counts as in time.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn read_until(&mut self, into: &mut [u8], deadline: Instant) -> Result<(), StreamError> {
        self.incoming.grow(RECEIVE_BUFFER_LEN);
        self.read_exact(into, Wait::Until(deadline), &mut |_| ())
    }

    /// Whether bytes of an answer are here already, so that reading a head will not wait for the network (for long).
    pub fn has_input(&self) -> bool {
        self.spill_at < self.spill.len() || self.incoming.start < self.incoming.end
    }

    /// A handle to the same socket: `shutdown(Both)` on it makes reads and writes of this session fail at once, from
    /// any thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn closer(&self) -> io::Result<TcpStream> {
        self.socket.try_clone()
    }

    /// Says goodbye (close_notify) and closes. Does not wait.
    pub fn close(mut self) {
        if self.channel.seal_close(&mut self.outgoing).is_ok() {
            let _ = self.flush(Instant::now());
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    fn shake_hands(&mut self, deadline: Instant) -> Result<PeerId, StreamError> {
        let spill = &mut self.spill;
        self.channel.open(&mut [], &mut self.outgoing, &mut |plain| spill.extend_from_slice(plain))?;
        loop {
            self.flush(deadline)?;
            if let Some(peer) = self.channel.peer() {
                return Ok(peer);
            }
            if Instant::now() >= deadline {
                return Err(StreamError::TimedOut);
            }
            self.fill(deadline)?;
            let spill = &mut self.spill;
            let (data, out) = (self.incoming.data(), &mut self.outgoing);
            let result = self.channel.open(data, out, &mut |plain| spill.extend_from_slice(plain));
            match result {
                Ok((used, opened)) => {
                    self.incoming.take(used);
                    if opened == Opened::Ended {
                        return Err(StreamError::Closed);
                    }
                }
                Err(e) => {
                    // The alert tells the other side why; whether it arrives changes nothing here.
                    let _ = self.flush(Instant::now());
                    return Err(e.into());
                }
            }
        }
    }

    fn read_exact(&mut self, into: &mut [u8], wait: Wait, progress: &mut dyn FnMut(usize)) -> Result<(), StreamError> {
        let mut filled = self.take_spill(into);
        if filled > 0 {
            progress(filled);
        }
        let mut late = false;
        while filled < into.len() {
            let before = filled;
            let opened = self.open_into(into, &mut filled)?;
            if filled > before {
                progress(filled - before);
            }
            match opened {
                Opened::Data => (),
                Opened::Ended => return Err(StreamError::Closed),
                Opened::Starved if filled == into.len() => (),
                // A peer that always has one more byte would never be waited for.
                Opened::Starved if late => return Err(StreamError::TimedOut),
                Opened::Starved => {
                    self.fill(wait.deadline())?;
                    late = wait.is_over();
                }
            }
        }
        Ok(())
    }

    /// Decrypts what is here until `into` is full; what the last record holds beyond it is spilled.
    fn open_into(&mut self, into: &mut [u8], filled: &mut usize) -> Result<Opened, StreamError> {
        loop {
            let spill = &mut self.spill;
            let (used, opened) = self.channel.open(self.incoming.data(), &mut self.outgoing, &mut |plain| {
                let n = plain.len().min(into.len() - *filled);
                into[*filled..*filled + n].copy_from_slice(&plain[..n]);
                *filled += n;
                spill.extend_from_slice(&plain[n..]);
            })?;
            self.incoming.take(used);
            if opened != Opened::Data || *filled == into.len() {
                return Ok(opened);
            }
        }
    }

    fn take_spill(&mut self, into: &mut [u8]) -> usize {
        let n = into.len().min(self.spill.len() - self.spill_at);
        into[..n].copy_from_slice(&self.spill[self.spill_at..self.spill_at + n]);
        self.spill_at += n;
        if self.spill_at == self.spill.len() {
            self.spill.clear();
            self.spill_at = 0;
        }
        n
    }

    /// Waits for bytes from the socket, and takes as many as there are and fit.
    fn fill(&mut self, deadline: Instant) -> Result<(), StreamError> {
        loop {
            match self.socket.read(self.incoming.room()) {
                Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                Ok(n) => {
                    self.incoming.end += n;
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::IN, deadline)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn flush(&mut self, deadline: Instant) -> Result<(), StreamError> {
        while !self.outgoing.is_empty() {
            match self.socket.write(self.outgoing.data()) {
                Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
                Ok(n) => self.outgoing.sent(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::OUT, deadline)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn wait(&self, what: PollFlags, deadline: Instant) -> Result<(), StreamError> {
        match wait_for(&self.socket, what, deadline)? {
            true => Ok(()),
            false => Err(StreamError::TimedOut),
        }
    }
}

/// How long a read may wait.
#[derive(Clone, Copy)]
enum Wait {
    Until(Instant),
    /// So long from the last byte on.
    Idle(Duration),
}

impl Wait {
    fn deadline(self) -> Instant {
        match self {
            Wait::Until(deadline) => deadline,
            Wait::Idle(idle) => Instant::now() + idle,
        }
    }

    /// Whether no further byte can be in time.
    fn is_over(self) -> bool {
        matches!(self, Wait::Until(deadline) if Instant::now() >= deadline)
    }
}

/// Ciphertext as it comes from the socket: `bytes[start..end]` is not used up yet.
#[derive(Debug)]
struct Incoming {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Incoming {
    fn new(len: usize) -> Self {
        Incoming { bytes: vec![0; len], start: 0, end: 0 }
    }

    fn grow(&mut self, len: usize) {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
    }

    fn data(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    fn take(&mut self, used: usize) {
        self.start += used;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Where to read to. What is left is at most the beginning of a record, since reading happens only when nothing
    /// whole is left; it moves to the front.
    fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }
}

/// Waits until `socket` can do `what` (or is broken, which the next call tells), or the deadline is over: then false.
pub(crate) fn wait_for(socket: &impl std::os::fd::AsFd, what: PollFlags, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(socket, what)], Some(&left)) {
            Ok(n) => return Ok(n > 0),
            Err(Errno::INTR) => (),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Waits for the end of a connect that would block.
fn finish_connect(begun: io::Result<()>, socket: &TcpStream, deadline: Instant) -> Result<(), StreamError> {
    match begun {
        Err(e) if e.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) || e.kind() == ErrorKind::WouldBlock => {}
        begun => return Ok(begun?),
    }
    if !wait_for(socket, PollFlags::OUT, deadline)? {
        return Err(StreamError::TimedOut);
    }
    socket.take_error()?.map_or(Ok(()), |e| Err(e.into()))
}

/// Receive buffer of a session that has not received a body yet.
const HANDSHAKE_BUFFER_LEN: usize = 20 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keypair;

    #[test]
    fn a_dial_that_hangs_can_be_given_up() {
        // Nobody accepts: once the backlog is full, further connections are not answered at all.
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
        let mut session = Dialed::dial(addr, None, &tls, Duration::from_secs(10)).unwrap();
        session.read_until(&mut [0; 3], Instant::now() + Duration::from_secs(10)).unwrap();
        let began = Instant::now();
        let result = session.read_until(&mut [0; 100_000], began + Duration::from_millis(200));
        assert!(matches!(result, Err(StreamError::TimedOut)), "{result:?}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        drop(session);
        dripping.join().unwrap();
    }
}
