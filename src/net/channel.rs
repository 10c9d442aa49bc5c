//! TLS records without I/O: ciphertext in, plaintext out, and back. Both ends of a session use it.
//!
//! Buffers belong to the caller, so that an idle session holds none and a busy one moves many
//! records a system call.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CommonState, Error};

use crate::identity::PeerId;
use crate::net::outbox::Outbox;
use crate::net::secure::{SecureError, Tls, proved_peer};

/// One end of a TLS session.
pub struct Channel {
    side: Side,
    peer: Option<PeerId>,
    /// The peer sent close_notify.
    ended: bool,
    /// A call of `open` failed. TLS must not be asked again then.
    failed: bool,
}

/// How a call of [`Channel::open`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// Plaintext was handed over; there may be more.
    Data,
    /// Nothing more without further ciphertext.
    Starved,
    /// The peer sent close_notify: it sends no more.
    Ended,
}

enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What to do when the session can send.
enum ToSend<'a> {
    Nothing,
    Data(&'a [u8]),
    Close,
}

/// What one step of the TLS state machine did.
enum TlsStep {
    Again,
    Data,
    Ended,
    Sent,
    Blocked,
}

impl Channel {
    /// The dialing end; `expect` is the only key that it accepts, if given.
    ///
    /// # Errors
    /// [`SecureError::Tls`]
    pub fn dial(tls: &Tls, expect: Option<PeerId>) -> Result<Self, SecureError> {
        Ok(Channel { side: Side::Client(Box::new(tls.dial(expect)?)), peer: None, ended: false, failed: false })
    }

    /// The accepting end.
    ///
    /// # Errors
    /// [`SecureError::Tls`]
    pub fn accept(tls: &Tls) -> Result<Self, SecureError> {
        Ok(Channel { side: Side::Server(Box::new(tls.accept()?)), peer: None, ended: false, failed: false })
    }

    /// The key that the peer proved; `None` until the handshake is over.
    pub fn peer(&self) -> Option<PeerId> {
        self.peer
    }

    /// Decrypts records from the front of `incoming`, in place, until one gave plaintext to `take`
    /// or no whole record is left. Returns how many bytes of `incoming` are used up. Messages
    /// that TLS itself must send are appended to `out`, also on failure.
    ///
    /// The dialing end begins the handshake by a call without input.
    ///
    /// # Errors
    /// [`SecureError`]; the session is over, and every later call fails.
    pub fn open(
        &mut self,
        incoming: &mut [u8],
        out: &mut Outbox,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(usize, Opened), SecureError> {
        if self.failed {
            return Err(has_failed());
        }
        let opened = self.open_records(incoming, out, take);
        self.failed = opened.is_err();
        opened
    }

    fn open_records(
        &mut self,
        incoming: &mut [u8],
        out: &mut Outbox,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(usize, Opened), SecureError> {
        let mut used = 0;
        loop {
            let (n, step) = self.step(&mut incoming[used..], out, take, &ToSend::Nothing);
            used += n;
            let step = match step {
                Ok(step) => step,
                Err(e) => {
                    self.flush_alert(&mut incoming[used..], out, take);
                    return Err(e.into());
                }
            };
            if self.peer.is_none() && !self.common().is_handshaking() {
                self.peer = Some(proved_peer(self.common())?);
            }
            match step {
                TlsStep::Again => (),
                TlsStep::Data => return Ok((used, Opened::Data)),
                TlsStep::Ended => self.ended = true,
                TlsStep::Sent | TlsStep::Blocked => {
                    // A whole record that stays in the buffer is a handshake message cut in two.
                    // None is legitimate after the handshake, and sealing relies on there being
                    // none.
                    if self.peer.is_some() && !self.ended && holds_record(&incoming[used..]) {
                        return Err(Error::General("fragmented handshake message after the handshake".into()).into());
                    }
                    return Ok((used, if self.ended { Opened::Ended } else { Opened::Starved }));
                }
            }
        }
    }

    /// Appends the records of `plain` to `out`. Only after the handshake.
    ///
    /// # Errors
    /// [`SecureError::Tls`]
    pub fn seal(&mut self, plain: &[u8], out: &mut Outbox) -> Result<(), SecureError> {
        self.send(&ToSend::Data(plain), out)
    }

    /// Appends close_notify to `out`: this end sends no more.
    ///
    /// # Errors
    /// [`SecureError::Tls`]
    pub fn seal_close(&mut self, out: &mut Outbox) -> Result<(), SecureError> {
        self.send(&ToSend::Close, out)
    }

    fn send(&mut self, what: &ToSend<'_>, out: &mut Outbox) -> Result<(), SecureError> {
        if self.peer.is_none() {
            return Err(Error::HandshakeNotComplete.into());
        }
        if self.failed {
            return Err(has_failed());
        }
        loop {
            match self.step(&mut [], out, &mut |_| (), what).1? {
                TlsStep::Sent => return Ok(()),
                TlsStep::Again | TlsStep::Data => (),
                TlsStep::Ended => self.ended = true,
                TlsStep::Blocked => return Err(Error::General("session is closed".into()).into()),
            }
        }
    }

    fn step(
        &mut self,
        incoming: &mut [u8],
        out: &mut Outbox,
        take: &mut dyn FnMut(&[u8]),
        what: &ToSend<'_>,
    ) -> (usize, Result<TlsStep, Error>) {
        match &mut self.side {
            Side::Client(c) => advance(c.process_tls_records(incoming), out, take, what),
            Side::Server(s) => advance(s.process_tls_records(incoming), out, take, what),
        }
    }

    /// After an error: what is queued, at the end of it the alert that tells the peer why.
    fn flush_alert(&mut self, incoming: &mut [u8], out: &mut Outbox, take: &mut dyn FnMut(&[u8])) {
        // What is queued is handed out before any input is looked at; the failed input must not be
        // looked at again.
        while self.common().wants_write() {
            if self.step(incoming, out, take, &ToSend::Nothing).1.is_err() {
                return;
            }
        }
    }

    fn common(&self) -> &CommonState {
        match &self.side {
            Side::Client(c) => c,
            Side::Server(s) => s,
        }
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("peer", &self.peer).field("ended", &self.ended).finish_non_exhaustive()
    }
}

fn has_failed() -> SecureError {
    Error::General("session has failed before".into()).into()
}

fn advance<D>(
    status: UnbufferedStatus<'_, '_, D>,
    out: &mut Outbox,
    take: &mut dyn FnMut(&[u8]),
    what: &ToSend<'_>,
) -> (usize, Result<TlsStep, Error>) {
    let mut used = status.discard;
    let step = match status.state {
        Err(e) => Err(e),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut failed = None;
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        used += record.discard;
                        take(record.payload);
                    }
                    Err(e) => failed = Some(e),
                }
            }
            failed.map_or(Ok(TlsStep::Data), Err)
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let room = with_room(out, HANDSHAKE_ROOM, |into| match data.encode(into) {
                Ok(n) => Ok(Ok(n)),
                Err(EncodeError::InsufficientSize(e)) => Err(e.required_size),
                Err(e @ EncodeError::AlreadyEncoded) => Ok(Err(Error::General(e.to_string()))),
            });
            room.map(|()| TlsStep::Again)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // The encoded bytes are in `out`; its owner sends them.
            data.done();
            Ok(TlsStep::Again)
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match what {
            ToSend::Nothing => Ok(TlsStep::Blocked),
            ToSend::Data(plain) => {
                let room = plain.len() + (plain.len() / RECORD_LEN_MAX + 1) * RECORD_OVERHEAD_MAX;
                with_room(out, room, |into| encrypted(traffic.encrypt(plain, into))).map(|()| TlsStep::Sent)
            }
            ToSend::Close => with_room(out, HANDSHAKE_ROOM, |into| encrypted(traffic.queue_close_notify(into)))
                .map(|()| TlsStep::Sent),
        },
        Ok(ConnectionState::PeerClosed) => Ok(TlsStep::Ended),
        Ok(_) => Ok(TlsStep::Blocked),
    };
    (used, step)
}

/// Lets `write` append to `out`, with `room` bytes at first and with as many as it asks for if that
/// was too little.
fn with_room(
    out: &mut Outbox,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<Result<usize, Error>, usize>,
) -> Result<(), Error> {
    let mut room = room;
    for _ in 0..2 {
        match write(out.room(room)) {
            Ok(written) => {
                out.added(written?);
                return Ok(());
            }
            Err(needed) => room = needed,
        }
    }
    Err(Error::General("no room for a TLS record".into()))
}

fn encrypted(result: Result<usize, EncryptError>) -> Result<Result<usize, Error>, usize> {
    match result {
        Ok(n) => Ok(Ok(n)),
        Err(EncryptError::InsufficientSize(e)) => Err(e.required_size),
        Err(EncryptError::EncryptExhausted) => Ok(Err(Error::EncryptError)),
    }
}

/// Whether `bytes` begin with a whole TLS record.
fn holds_record(bytes: &[u8]) -> bool {
    bytes.len() >= 5 && bytes.len() - 5 >= u16::from_be_bytes([bytes[3], bytes[4]]) as usize
}

/// Plaintext bytes of the longest record.
const RECORD_LEN_MAX: usize = 16 * 1024;
/// Bytes that a record adds to its plaintext at most: header, content type, tag.
const RECORD_OVERHEAD_MAX: usize = 5 + 1 + 16;
/// Room in which most handshake messages and alerts fit.
const HANDSHAKE_ROOM: usize = 1024;
/// Bytes of the longest record as it travels; a buffer of that size always makes progress.
pub(crate) const WIRE_RECORD_LEN_MAX: usize = RECORD_LEN_MAX + 2048 + 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keypair;

    /// One direction of a wire between two channels, delivered `step` bytes at a time.
    fn deliver(
        from: &mut Outbox,
        to: &mut Channel,
        held: &mut Vec<u8>,
        out: &mut Outbox,
        plain: &mut Vec<u8>,
        step: usize,
    ) -> Result<Opened, SecureError> {
        let mut last = Opened::Starved;
        while !from.is_empty() {
            let n = step.min(from.len());
            held.extend_from_slice(&from.data()[..n]);
            from.sent(n);
            loop {
                let (used, opened) = to.open(held, out, &mut |p| plain.extend_from_slice(p))?;
                held.drain(..used);
                last = opened;
                if opened != Opened::Data {
                    break;
                }
            }
        }
        Ok(last)
    }

    struct Pair {
        client: Channel,
        server: Channel,
        up: Outbox,
        down: Outbox,
        held: [Vec<u8>; 2],
    }

    impl Pair {
        fn new(client: &Tls, server: &Tls, expect: Option<PeerId>) -> Self {
            let (client, server) = (Channel::dial(client, expect).unwrap(), Channel::accept(server).unwrap());
            Pair { client, server, up: Outbox::new(), down: Outbox::new(), held: Default::default() }
        }

        fn shake_hands(&mut self, step: usize) -> Result<(), SecureError> {
            self.client.open(&mut [], &mut self.up, &mut |_| ())?;
            for _ in 0..4 {
                let (up, down) = (&mut self.up, &mut self.down);
                deliver(up, &mut self.server, &mut self.held[0], down, &mut vec![], step)?;
                deliver(down, &mut self.client, &mut self.held[1], up, &mut vec![], step)?;
            }
            Ok(())
        }
    }

    fn node() -> (Tls, PeerId) {
        let keypair = Keypair::generate();
        (Tls::new(&keypair).unwrap(), keypair.peer_id())
    }

    #[test]
    fn both_ends_prove_their_keys_however_the_bytes_are_cut() {
        for step in [1, 7, 1000, usize::MAX] {
            let ((a, a_id), (b, b_id)) = (node(), node());
            let mut pair = Pair::new(&a, &b, Some(b_id));
            pair.shake_hands(step).unwrap();
            assert_eq!((pair.client.peer(), pair.server.peer()), (Some(b_id), Some(a_id)));
        }
    }

    #[test]
    fn another_key_than_the_expected_one_ends_the_handshake() {
        let ((a, _), (b, b_id), (_, other)) = (node(), node(), node());
        let mut pair = Pair::new(&a, &b, Some(other));
        match pair.shake_hands(usize::MAX) {
            Err(SecureError::OtherKey(who)) => assert_eq!(who, b_id),
            result => panic!("{result:?}"),
        }
        assert!(!pair.up.is_empty(), "an alert tells the other side");
        assert_eq!(pair.client.peer(), None);
    }

    #[test]
    fn data_of_every_length_arrives_and_goodbye_ends_it() {
        let ((a, _), (b, _)) = (node(), node());
        let mut pair = Pair::new(&a, &b, None);
        pair.shake_hands(usize::MAX).unwrap();
        for len in [1, 16_383, 16_384, 16_385, 300_000] {
            let data: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let (mut wire, mut got) = (Outbox::new(), vec![]);
            pair.server.seal(&data, &mut wire).unwrap();
            deliver(&mut wire, &mut pair.client, &mut pair.held[1], &mut Outbox::new(), &mut got, 5000).unwrap();
            assert_eq!(got, data);
        }
        let mut wire = Outbox::new();
        pair.server.seal_close(&mut wire).unwrap();
        let end = deliver(&mut wire, &mut pair.client, &mut pair.held[1], &mut Outbox::new(), &mut vec![], 9).unwrap();
        assert_eq!(end, Opened::Ended);
        // The other direction is still open.
        pair.client.seal(b"bye", &mut wire).unwrap();
        assert!(pair.client.open(&mut [], &mut Outbox::new(), &mut |_| ()).is_ok());
    }

    #[test]
    fn another_protocol_ends_the_handshake_with_an_alert() {
        let ((a, _), (b, _)) = (node(), node());
        let mut pair = Pair::new(&a.with_alpn_for_test(vec![b"h2".to_vec()]), &b, None);
        assert!(matches!(pair.shake_hands(usize::MAX), Err(SecureError::Alpn)));
        let (down, held) = (&mut pair.down, &mut pair.held[1]);
        let told = deliver(down, &mut pair.client, held, &mut Outbox::new(), &mut vec![], usize::MAX);
        assert!(matches!(told, Err(SecureError::Alpn)), "{told:?}");
    }

    #[test]
    fn sealing_before_the_handshake_is_refused() {
        let (a, _) = node();
        assert!(Channel::dial(&a, None).unwrap().seal(b"x", &mut Outbox::new()).is_err());
    }

    #[test]
    fn altered_ciphertext_is_noticed() {
        let ((a, _), (b, _)) = (node(), node());
        let mut pair = Pair::new(&a, &b, None);
        pair.shake_hands(usize::MAX).unwrap();
        let mut wire = Outbox::new();
        pair.server.seal(&[1; 1000], &mut wire).unwrap();
        let mut bytes = wire.data().to_vec();
        bytes[500] ^= 1;
        let mut wire = Outbox::new();
        wire.push(&bytes);
        let result = deliver(&mut wire, &mut pair.client, &mut vec![], &mut Outbox::new(), &mut vec![], usize::MAX);
        assert!(result.is_err());
    }

    /// Cause: a record that cannot be decrypted queues a fatal alert, and so does each that follows.
    /// Effect: a caller that went on reading ran into an assertion of the TLS library in debug
    /// builds, and sent a second alert in others. Mend: the first failure is the last call of it.
    #[test]
    fn a_session_that_failed_does_nothing_more() {
        let ((a, _), (b, _)) = (node(), node());
        let mut pair = Pair::new(&a, &b, None);
        pair.shake_hands(usize::MAX).unwrap();
        let garbage = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
        let mut out = Outbox::new();
        assert!(pair.client.open(&mut garbage.clone(), &mut out, &mut |_| ()).is_err());
        let alert = out.data().to_vec();
        assert!(pair.client.open(&mut garbage.clone(), &mut out, &mut |_| ()).is_err());
        assert!(pair.client.seal(b"x", &mut out).is_err() && pair.client.seal_close(&mut out).is_err());
        assert_eq!(out.data(), alert, "one alert");
    }
}
