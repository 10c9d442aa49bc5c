//! TLS over a nonblocking TCP socket, with a deadline for every wait.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::identity::PeerId;
use crate::net::channel::{Channel, Opened};
use crate::net::error::StreamError;
use crate::net::incoming::Incoming;
use crate::net::outbox::Outbox;

/// A socket and the TLS session on it. Plaintext goes straight to where the caller wants it.
#[derive(Debug)]
pub(super) struct TlsPipe {
    pub(super) socket: TcpStream,
    pub(super) channel: Channel,
    pub(super) outgoing: Outbox,
    incoming: Incoming,
    /// Plaintext that arrived behind what was asked for; read from `spill_at` on.
    spill: Vec<u8>,
    spill_at: usize,
}

impl TlsPipe {
    pub(super) fn new(socket: TcpStream, channel: Channel) -> Self {
        let incoming = Incoming::new(HANDSHAKE_BUFFER_LEN);
        TlsPipe { socket, channel, outgoing: Outbox::new(), incoming, spill: Vec::new(), spill_at: 0 }
    }

    /// Makes the receive buffer at least `len` bytes long, for bodies.
    pub(super) fn grow(&mut self, len: usize) {
        self.incoming.grow(len);
    }

    /// Takes the session apart, with what has come and was not read: its plaintext, and the ciphertext of a record that
    /// is not whole.
    pub(super) fn take_apart(mut self) -> Result<(TcpStream, Channel, Vec<u8>, Vec<u8>), StreamError> {
        let mut plain = self.spill.split_off(self.spill_at);
        loop {
            let (data, out) = (self.incoming.data(), &mut self.outgoing);
            let (used, opened) = self.channel.open(data, out, &mut |bytes| plain.extend_from_slice(bytes))?;
            self.incoming.take(used);
            match opened {
                Opened::Data => (),
                Opened::Starved => break,
                Opened::Ended => return Err(StreamError::Closed),
            }
        }
        self.flush(Instant::now())?;
        let sealed = self.incoming.data().to_vec();
        Ok((self.socket, self.channel, plain, sealed))
    }

    /// Whether bytes have arrived that were not read.
    pub(super) fn has_input(&self) -> bool {
        self.spill_at < self.spill.len() || !self.incoming.is_empty()
    }

    /// Sends the first message of the handshake, as far as the socket takes it now.
    pub(super) fn begin(&mut self) -> Result<(), StreamError> {
        self.channel.open(&mut [], &mut self.outgoing, &mut |_| ())?;
        match self.flush(Instant::now()) {
            Err(StreamError::TimedOut) => Ok(()),
            sent => sent,
        }
    }

    /// Exchanges the other messages, until TLS has proved the key of the peer.
    pub(super) fn shake_hands(&mut self, deadline: Instant) -> Result<PeerId, StreamError> {
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
                    // The alert gives the peer the reason; its arrival changes nothing here.
                    let _ = self.flush(Instant::now());
                    return Err(e.into());
                }
            }
        }
    }

    /// Reads exactly `into.len()` bytes of plaintext; `progress` gets the number of bytes of each
    /// step, and the read times out once it returns false.
    pub(super) fn read_exact(
        &mut self,
        into: &mut [u8],
        wait: ReadWait,
        progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<(), StreamError> {
        let mut filled = self.take_spill(into);
        if filled > 0 && !progress(filled) {
            return Err(StreamError::TimedOut);
        }
        let mut late = false;
        while filled < into.len() {
            let before = filled;
            let opened = self.open_into(into, &mut filled)?;
            if filled > before && !progress(filled - before) {
                return Err(StreamError::TimedOut);
            }
            match opened {
                Opened::Data => (),
                Opened::Ended => return Err(StreamError::Closed),
                Opened::Starved if filled == into.len() => (),
                // Checked after each read, or a peer that sends one byte at a time would never be
                // late.
                Opened::Starved if late => return Err(StreamError::TimedOut),
                Opened::Starved => {
                    self.fill(wait.deadline())?;
                    late = wait.is_over();
                }
            }
        }
        Ok(())
    }

    /// Decrypts received records until `into` is full; the rest of the last record goes to `spill`.
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

    /// Waits for bytes from the socket and reads as many as fit.
    fn fill(&mut self, deadline: Instant) -> Result<(), StreamError> {
        loop {
            match self.socket.read(self.incoming.room()) {
                Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                Ok(n) => {
                    self.incoming.added(n);
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::IN, deadline)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Writes everything that is sealed to the socket.
    pub(super) fn flush(&mut self, deadline: Instant) -> Result<(), StreamError> {
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
pub(super) enum ReadWait {
    /// Until a point in time, for all bytes together.
    Until(Instant),
    /// This long after the last byte.
    Idle(Duration),
}

impl ReadWait {
    fn deadline(self) -> Instant {
        match self {
            ReadWait::Until(deadline) => deadline,
            ReadWait::Idle(idle) => Instant::now() + idle,
        }
    }

    /// Whether no further byte can be in time.
    fn is_over(self) -> bool {
        matches!(self, ReadWait::Until(deadline) if Instant::now() >= deadline)
    }
}

/// Waits until `socket` can do `what`, or fails at it in the next call. False when the deadline
/// comes first.
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

/// Bytes of the receive buffer of a session that has not received a body yet.
const HANDSHAKE_BUFFER_LEN: usize = 20 * 1024;
