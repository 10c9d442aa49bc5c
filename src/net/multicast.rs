//! The beacon on a real network: UDP multicast over every interface, IPv4 and IPv6.
//!
//! An interface has two sockets for each address family. The receiver is bound to the group on the
//! common port. The sender has a port of its own, from which everything is sent and to which
//! answers come: several nodes of a host share the common port, so a datagram to it cannot be meant
//! for one of them. One more receiver takes IPv4 broadcasts. The interfaces are compared with the
//! links every [`INTERFACE_POLL`]; one that fails is skipped, never fatal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use socket2::{SockRef, Socket};

use crate::limits::PORT;
use crate::net::beacon::{Beacon, Datagram, Link, LinkError, LinkId, To, Waker};
use crate::net::interfaces::{InterfaceAddr, Interfaces, LinkOptions, survey};
use crate::net::limits::{INTERFACE_POLL, MEMBERSHIP_RENEW, SOCKET_EVENTS_AT_ONCE};
use crate::net::sockets::{join, leave, open, open_wildcard};
use crate::net::troubles::Troubles;
use crate::swarm::Way;

/// Multicast over the interfaces of this host.
pub struct Multicast {
    options: LinkOptions,
    poll: Poll,
    events: Events,
    waker: Arc<mio::Waker>,
    woken: bool,
    links: BTreeMap<u32, LinkSockets>,
    next_link: u32,
    wildcard: Option<UdpSocket>,
    /// Sockets that may hold datagrams; each is read in turn until it is empty.
    ready: VecDeque<Token>,
    own: Vec<IpAddr>,
    due: Due,
    troubles: Troubles,
}

/// When to look at the interfaces, and when to renew the memberships.
struct Due {
    survey: Instant,
    renewal: Instant,
}

/// The sockets of one interface and address family, and how they fare.
struct LinkSockets {
    place: InterfaceAddr,
    receiver: UdpSocket,
    sender: UdpSocket,
    group: SocketAddr,
    sent: u64,
    heard: u64,
    error: Option<String>,
    /// The socket itself failed: the next look at the interfaces replaces it.
    broken: bool,
}

impl Multicast {
    /// Opens sockets on all interfaces. No interface at all is no error, since one may come later.
    ///
    /// # Errors
    /// The system has no means to wait for sockets to give.
    pub fn open(options: LinkOptions) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKE)?);
        let now = Instant::now();
        let mut this = Multicast {
            options,
            poll,
            events: Events::with_capacity(SOCKET_EVENTS_AT_ONCE),
            waker,
            woken: false,
            links: BTreeMap::new(),
            next_link: 0,
            wildcard: None,
            ready: VecDeque::new(),
            own: Vec::new(),
            due: Due { survey: now, renewal: now + MEMBERSHIP_RENEW },
            troubles: Troubles::default(),
        };
        this.look_again(now);
        Ok(this)
    }

    /// Compares the interfaces with the links, closes links without an interface and opens missing
    /// ones.
    fn look_again(&mut self, now: Instant) {
        self.due.survey = now + INTERFACE_POLL;
        let found = match survey(&self.options) {
            Ok(found) => found,
            Err(e) => {
                return self.troubles.warn_once("interfaces", || format!("interfaces cannot be listed error={e}"));
            }
        };
        self.troubles.over("interfaces");
        self.troubles.begin_look();
        let Interfaces { places, own, missing, left_out } = found;
        if left_out > 0 {
            let (what, used) = ("too many interfaces, choose those that count", places.len());
            self.troubles.warn_once("left out", || format!("{what} used={used} left_out={left_out}"));
        }
        self.own = own;
        for name in missing {
            self.troubles.warn_once(&format!("missing {name}"), || format!("interface is not there name={name}"));
        }
        let gone: Vec<u32> =
            self.links.iter().filter(|(_, l)| l.broken || !places.contains(&l.place)).map(|(id, _)| *id).collect();
        for id in gone {
            self.close(id);
        }
        let known: BTreeSet<InterfaceAddr> = self.links.values().map(|l| l.place.clone()).collect();
        for place in places.into_iter().filter(|p| !known.contains(p)) {
            match self.add(place.clone()) {
                Ok(()) => self.troubles.usable(&place),
                Err(e) => self.troubles.failed(place, &e),
            }
        }
        match self.links.is_empty() {
            true => self
                .troubles
                .warn_once("no link", || "no interface can be used, so no peer is found or finds this node".into()),
            false => self.troubles.over("no link"),
        }
        if self.wildcard.is_none() && self.links.values().any(|l| l.place.addr.is_ipv4()) {
            match open_wildcard().and_then(|s| self.register(s, WILDCARD)) {
                Ok(socket) => self.wildcard = Some(socket),
                Err(e) => self.troubles.warn_once("broadcast", || format!("broadcasts cannot be heard error={e}")),
            }
        }
        if now >= self.due.renewal {
            self.due.renewal = now + MEMBERSHIP_RENEW;
            self.links.values_mut().for_each(LinkSockets::renew);
        }
    }

    fn add(&mut self, place: InterfaceAddr) -> io::Result<()> {
        let id = self.next_link;
        let ((receiver, sender), group) = (open(&place)?, place.group());
        let receiver = self.register(receiver, receiver_token(id))?;
        let sender = self.register(sender, sender_token(id))?;
        // There is no event for datagrams that came before the registration.
        self.ready.extend([receiver_token(id), sender_token(id)]);
        log::info!("link up interface={} addr={} group={group}", place.interface, place.addr);
        let link = LinkSockets { place, receiver, sender, group, sent: 0, heard: 0, error: None, broken: false };
        self.links.insert(id, link);
        self.next_link = self.next_link.wrapping_add(1);
        Ok(())
    }

    fn close(&mut self, id: u32) {
        if let Some(mut link) = self.links.remove(&id) {
            log::info!("link down interface={} addr={}", link.place.interface, link.place.addr);
            // An error here changes nothing: the sockets close next.
            drop(self.poll.registry().deregister(&mut link.receiver));
            drop(self.poll.registry().deregister(&mut link.sender));
        }
    }

    fn register(&self, socket: Socket, token: Token) -> io::Result<UdpSocket> {
        socket.set_nonblocking(true)?;
        let mut socket = UdpSocket::from_std(socket.into());
        self.poll.registry().register(&mut socket, token, Interest::READABLE)?;
        Ok(socket)
    }

    /// Reads one datagram from the sockets that may hold some, in turn.
    fn take_ready(&mut self, buffer: &mut [u8]) -> Option<Datagram> {
        while let Some(token) = self.ready.pop_front() {
            let got = match token {
                WILDCARD => self.wildcard.as_ref().map(|s| s.recv_from(buffer)),
                Token(n) => self
                    .links
                    .get(&link_of(n))
                    .map(|l| if n % 2 == 0 { l.receiver.recv_from(buffer) } else { l.sender.recv_from(buffer) }),
            };
            match got {
                Some(Ok((len, from))) => {
                    self.ready.push_back(token);
                    if let Some(datagram) = self.identify(token, len, from) {
                        return Some(datagram);
                    }
                }
                Some(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => {}
                // An error about one datagram, such as a closed port at its target; the socket
                // works. Reading removes the error from the socket, so the loop ends.
                Some(Err(e)) if is_passing(&e) => self.ready.push_back(token),
                Some(Err(e)) => self.fail(token, &e),
                None => {}
            }
        }
        None
    }

    fn identify(&mut self, token: Token, len: usize, from: SocketAddr) -> Option<Datagram> {
        let (id, way) = match token {
            // A broadcast counts if it came over a link that is in use.
            WILDCARD => {
                let (id, _) = self.links.iter().find(|(_, l)| l.place.is_near(from.ip()))?;
                (*id, Way::Broadcast)
            }
            Token(n) if n % 2 == 0 => (link_of(n), Way::Group),
            Token(n) => (link_of(n), Way::Unicast),
        };
        self.links.get_mut(&id)?.heard += 1;
        Some(Datagram { len, from, link: LinkId(id), way, local: self.own.contains(&from.ip()) })
    }

    fn fail(&mut self, token: Token, error: &io::Error) {
        match token {
            WILDCARD => self.wildcard = None,
            Token(n) => {
                if let Some(link) = self.links.get_mut(&link_of(n)) {
                    link.note(Err(error));
                    link.broken = true;
                }
            }
        }
    }
}

impl Beacon for Multicast {
    fn send(&mut self, bytes: &[u8], to: To) {
        for (id, link) in &mut self.links {
            let dest = match to {
                To::Group => link.group,
                To::Broadcast if link.place.addr.is_ipv4() && !link.place.addr.is_loopback() => {
                    SocketAddr::from((Ipv4Addr::BROADCAST, PORT))
                }
                // A source is easily made up: an answer to another network would hit a bystander there.
                To::Node(via, addr) if via.0 == *id && link.place.is_neighbour(addr.ip()) => addr,
                _ => continue,
            };
            let result = link.sender.send_to(bytes, dest);
            link.sent += u64::from(result.is_ok());
            // Whether the link works shows with the group; broadcasts and answers fail for reasons
            // of their own.
            match result {
                Err(e) if is_passing(&e) || e.kind() == io::ErrorKind::WouldBlock => {}
                result if to == To::Group => link.note(result.as_ref().map(|_| ())),
                _ => {}
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8], until: Instant) -> Option<Datagram> {
        loop {
            let now = Instant::now();
            if now >= self.due.survey {
                self.look_again(now);
            }
            if std::mem::take(&mut self.woken) {
                return None;
            }
            if let Some(datagram) = self.take_ready(buffer) {
                return Some(datagram);
            }
            let wait = until.min(self.due.survey).saturating_duration_since(now);
            match self.poll.poll(&mut self.events, Some(wait)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    self.troubles.warn_once("poll", || format!("sockets cannot be waited for error={e}"));
                    std::thread::sleep(wait.min(POLL_FAILED_REST));
                }
            }
            for event in &self.events {
                match event.token() {
                    WAKE => self.woken = true,
                    token if self.ready.contains(&token) => {}
                    token => self.ready.push_back(token),
                }
            }
            if self.ready.is_empty() && !self.woken && Instant::now() >= until {
                return None;
            }
        }
    }

    fn waker(&self) -> Waker {
        let waker = self.waker.clone();
        // A wake-up that fails only delays what the next time-out does anyway.
        Arc::new(move || drop(waker.wake()))
    }

    fn links(&self) -> Vec<Link> {
        let link = |l: &LinkSockets| Link {
            interface: l.place.interface.clone(),
            addr: l.place.addr,
            group: l.group,
            hops: l.place.hops,
            sent: l.sent,
            heard: l.heard,
            error: l.error.clone().map(LinkError::Failed),
        };
        self.links.values().map(link).chain(self.troubles.unusable()).collect()
    }

    fn links_up(&self) -> u64 {
        // Each link has a number of its own.
        self.next_link.into()
    }
}

impl LinkSockets {
    /// Keeps how sending went; only changes are logged.
    fn note(&mut self, result: Result<(), &io::Error>) {
        let error = result.err().map(ToString::to_string);
        if error.is_some() != self.error.is_some() {
            let (name, addr) = (&self.place.interface, self.place.addr);
            match &error {
                Some(e) => log::warn!("link fails interface={name} addr={addr} error={e}"),
                None => log::info!("link works again interface={name} addr={addr}"),
            }
        }
        self.error = error;
    }

    /// Leaves the group and joins it again, so that switches with IGMP snooping keep the
    /// membership.
    fn renew(&mut self) {
        let socket = SockRef::from(&self.receiver);
        drop(leave(&socket, &self.place));
        if let Err(e) = join(&socket, &self.place) {
            self.note(Err(&e));
            self.broken = true;
        }
    }
}

/// Whether an error concerns one datagram only, not the socket.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | Interrupted)
}

fn receiver_token(id: u32) -> Token {
    Token(FIRST_LINK + 2 * id as usize)
}

fn sender_token(id: u32) -> Token {
    Token(FIRST_LINK + 2 * id as usize + 1)
}

fn link_of(token: usize) -> u32 {
    ((token - FIRST_LINK) / 2) as u32
}

const WAKE: Token = Token(0);
const WILDCARD: Token = Token(1);
/// Even, so that receivers have even tokens and senders odd ones.
const FIRST_LINK: usize = 2;
const POLL_FAILED_REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback_only() -> Multicast {
        let options = LinkOptions { interfaces: vec!["127.0.0.1".parse().unwrap()], ..LinkOptions::default() };
        Multicast::open(options).unwrap()
    }

    /// Reads until a datagram with these bytes comes: other nodes on this host may speak, too.
    fn hear(beacon: &mut Multicast, bytes: &[u8]) -> Option<Datagram> {
        let end = Instant::now() + Duration::from_secs(60);
        let mut buffer = [0; 600];
        while Instant::now() < end {
            match beacon.receive(&mut buffer, end) {
                Some(d) if buffer[..d.len] == *bytes => return Some(d),
                _ => {}
            }
        }
        None
    }

    #[test]
    fn nodes_of_one_host_hear_each_other_over_loopback() {
        let nonce = rand::random::<[u8; 16]>();
        let (mut a, mut b) = (loopback_only(), loopback_only());
        assert_eq!(a.links().len(), 1, "{:?}", a.links());
        a.send(&nonce, To::Group);
        let heard = hear(&mut b, &nonce).expect("the group is heard");
        assert!(heard.way == Way::Group && heard.local && heard.from.ip().is_loopback());
        assert!(hear(&mut a, &nonce).is_some(), "the sender hears itself");
        let answer = rand::random::<[u8; 16]>();
        b.send(&answer, To::Node(heard.link, heard.from));
        let back = hear(&mut a, &answer).expect("the answer is heard");
        assert_eq!(back.way, Way::Unicast);
        assert_ne!(back.from.port(), PORT, "nobody sends from the common port");
        assert_eq!(a.links()[0].error, None);
    }

    #[test]
    fn a_waker_ends_the_wait() {
        let mut a = loopback_only();
        let waker = a.waker();
        let start = Instant::now();
        std::thread::spawn(move || waker());
        // Datagrams of others may arrive before; the wake-up is not lost.
        while a.receive(&mut [0; 600], start + Duration::from_secs(90)).is_some() {}
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn an_interface_that_is_not_there_is_waited_for() {
        let options = LinkOptions { interfaces: vec!["nope0".parse().unwrap()], ..LinkOptions::default() };
        let mut a = Multicast::open(options).unwrap();
        assert!(a.links().is_empty());
        a.send(b"lost", To::Group);
        assert!(a.receive(&mut [0; 8], Instant::now()).is_none());
    }

    #[test]
    fn answers_go_to_neighbours_only() {
        let mut a = loopback_only();
        let sent = |beacon: &Multicast| beacon.links()[0].sent;
        let link = LinkId(*a.links.keys().next().unwrap());
        // 127.0.0.0 to 127.0.0.3.
        a.links.values_mut().for_each(|link| link.place.prefix_len = 30);
        for (to, times) in [("127.0.0.2:40000", 1), ("127.0.0.9:40000", 1), ("127.0.0.1:40000", 2)] {
            a.send(b"answer", To::Node(link, to.parse().unwrap()));
            assert_eq!(sent(&a), times, "{to}");
        }
    }
}
