//! Attackers: a host that opens connections and sends datagrams from many addresses.
//!
//! An attacker runs in the namespace of its host, as this test program once more: [`attacker`] is its body, and a
//! variable says what it does. It ends with the test, like any program there.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant, SystemTime};

use gpb::internals::content::{Digest, FileId, Geometry, Root};
use gpb::internals::identity::{Keypair, PeerId};
use gpb::internals::limits::{GROUP_V4, PORT, WIRE_VERSION};
use gpb::internals::net::{Channel, Opened, Outbox, Tls};
use gpb::internals::proto::{
    Announce, ChunkAsk, ChunkRef, Flags, Hello, ListFrom, Request, SignedAnnounce, encode_request,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::{Host, secs};
use crate::process::Process;

/// Starts an attacker on `enemy` against `victim`, and waits until it says that it is at work. `what` is the name of an
/// attack and its numbers.
pub fn attack(enemy: &Host, victim: &Host, what: &str) -> Process {
    let mut process = attack_only(enemy, victim, what);
    process.wait_line(&["attacking"], secs(120));
    process
}

/// Starts one, and does not wait.
pub fn attack_only(enemy: &Host, victim: &Host, what: &str) -> Process {
    // All of these addresses are the enemy's, and on the link of the victim.
    let net = 100 + enemy.ip.rsplit('.').next().unwrap().parse::<u8>().unwrap();
    enemy.sh(&format!("ip route replace local 10.{net}.0.0/16 dev lo; ip route replace 224.0.0.0/4 dev eth0"));
    victim.sh(&format!("ip route replace 10.{net}.0.0/16 dev eth0"));
    let (variable, program) = (format!("LAN_ATTACK={} {what} {net}", victim.ip), std::env::current_exe().unwrap());
    let body = ["attack::attacker", "--exact", "--ignored", "--nocapture"];
    enemy.spawn("env", &[&[variable.as_str(), program.to_str().unwrap()][..], &body].concat())
}

/// `small`, or `full` if `LAN_LOAD=full` is set.
pub fn size(small: usize, full: usize) -> usize {
    if std::env::var_os("LAN_LOAD").is_some_and(|v| v == "full") { full } else { small }
}

/// How a file is named to an attacker.
pub fn file(listed: &serde_json::Value) -> String {
    format!("{}:{}", listed["root"].as_str().unwrap(), listed["len"].as_u64().unwrap())
}

#[test]
#[ignore = "the body of attackers"]
fn attacker() {
    let Ok(text) = std::env::var("LAN_ATTACK") else { return };
    let words: Vec<&str> = text.split(' ').collect();
    let target = SocketAddr::new(words[0].parse().unwrap(), PORT);
    let number = |at: usize| words[at].parse::<usize>().unwrap();
    match words[1] {
        "idle" => idle(target, number(2), number(3)),
        "half-open" => half_open(target, number(2), number(3)),
        "slow" => slow(target, number(2), number(3), file_id(words[4])),
        "fetch" => fetch(target, number(2), number(3), file_id(words[4])),
        "trickle" => trickle(target, number(2), words[3] == "after", number(4)),
        "locate" | "glob" => busy(target, number(2), words[1] == "glob"),
        "garbage" => garbage(number(2), number(3), false),
        "forged" => garbage(number(2), number(3), true),
        "members" => members(number(2), number(3), number(4)),
        "announces" => announces(number(2), number(3)),
        "mute" => mute(number(2), number(3)),
        other => panic!("no attack {other}"),
    }
}

fn file_id(text: &str) -> FileId {
    let (root, len) = text.split_once(':').unwrap();
    let bytes: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&root[2 * i..2 * i + 2], 16).unwrap()).collect();
    FileId { root: Root(Digest(bytes.try_into().unwrap())), len: len.parse().unwrap() }
}

/// Address `n` of the enemy. The number of its network is the last word of the variable.
fn source(n: usize) -> Ipv4Addr {
    static NET: LazyLock<u8> = LazyLock::new(|| {
        let text = std::env::var("LAN_ATTACK").unwrap();
        text.rsplit(' ').next().unwrap().parse().unwrap()
    });
    Ipv4Addr::new(10, *NET, (n / 250) as u8, (1 + n % 250) as u8)
}

fn connect(n: usize, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((source(n), 0)).into())?;
    socket.connect_timeout(&target.into(), Duration::from_secs(10))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(socket.into())
}

/// A session that said `Hello`.
struct Session {
    socket: TcpStream,
    channel: Channel,
    held: Vec<u8>,
    out: Outbox,
}

impl Session {
    fn open(n: usize, target: SocketAddr, tls: &Tls) -> std::io::Result<Self> {
        let channel = Channel::dial(tls, None).unwrap();
        let mut session = Session { socket: connect(n, target)?, channel, held: vec![], out: Outbox::new() };
        session.channel.open(&mut [], &mut session.out, &mut |_| ()).unwrap();
        while session.channel.peer().is_none() {
            session.flush()?;
            session.read()?;
        }
        let hello = Hello {
            version: WIRE_VERSION,
            network: "gpb".into(),
            instance: n as u64,
            announce: vec![],
            agent: "attacker".into(),
        };
        session.ask(&[Request::Hello(hello)])?;
        while session.read()? == 0 {}
        Ok(session)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.socket.write_all(self.out.data())?;
        self.out.clear();
        Ok(())
    }

    fn ask(&mut self, requests: &[Request]) -> std::io::Result<()> {
        let mut frames = vec![];
        requests.iter().for_each(|request| encode_request(request, &mut frames));
        self.channel.seal(&frames, &mut self.out).unwrap();
        self.flush()
    }

    /// Reads once; the number of bytes of plaintext that came.
    fn read(&mut self) -> std::io::Result<usize> {
        let (mut bytes, mut plain) = (vec![0; 256 * 1024], 0);
        let n = self.socket.read(&mut bytes)?;
        self.held.extend_from_slice(&bytes[..n]);
        loop {
            let opened = self.channel.open(&mut self.held, &mut self.out, &mut |p| plain += p.len());
            let (used, opened) = opened.map_err(std::io::Error::other)?;
            self.held.drain(..used);
            match opened {
                Opened::Data => {}
                Opened::Starved if n > 0 => return Ok(plain),
                Opened::Starved | Opened::Ended => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

/// Opens `count` sessions from `sources` addresses on four threads.
fn sessions(target: SocketAddr, count: usize, sources: usize) -> Vec<Session> {
    raise_limit();
    let all = Mutex::new(vec![]);
    let tls = Tls::new(&Keypair::generate()).unwrap();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (all, tls) = (&all, &tls);
            scope.spawn(move || {
                for n in (part..count).step_by(4) {
                    let session = Session::open(n % sources, target, tls).unwrap();
                    all.lock().unwrap().push(session);
                }
            });
        }
    });
    all.into_inner().unwrap()
}

fn raise_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn say(text: &str) {
    println!("{text}");
    std::io::stdout().flush().unwrap();
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

/// Sessions that say nothing after `Hello`.
fn idle(target: SocketAddr, count: usize, sources: usize) {
    let all: Vec<TcpStream> = sessions(target, count, sources).into_iter().map(|s| s.socket).collect();
    say(&format!("attacking connections={}", all.len()));
    park();
}

/// Connections that begin a handshake and say no more; those that are closed are replaced.
fn half_open(target: SocketAddr, count: usize, sources: usize) {
    raise_limit();
    let mut all: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
    for round in 0.. {
        for (n, socket) in all.iter_mut().enumerate() {
            let is_open = |s: &TcpStream| {
                s.set_nonblocking(true).unwrap();
                matches!((&*s).read(&mut [0; 64]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
            };
            if !socket.as_ref().is_some_and(is_open) {
                *socket = connect(n % sources, target).ok();
                if let Some(socket) = socket {
                    let _ = socket.write_all(&[0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xf0]);
                }
            }
        }
        if round == 0 {
            say("attacking");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn chunks(id: FileId, count: u32) -> Vec<Request> {
    let chunk = |index| Request::Chunk(ChunkAsk { chunk: ChunkRef { file: id, index }, since: 0 });
    (0..count.min(Geometry::new(id.len).chunk_count())).map(chunk).collect()
}

/// Waits until no further byte comes.
fn wait_until_full(all: &[Session]) {
    let waiting = || all.iter().map(|session| rustix::io::ioctl_fionread(&session.socket).unwrap()).sum::<u64>();
    let mut before = 0;
    loop {
        let now = waiting();
        if now > 0 && now == before {
            return;
        }
        before = now;
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Sessions that ask for 16 chunks each, and read 64 bytes five times a second.
fn slow(target: SocketAddr, count: usize, sources: usize, id: FileId) {
    let mut all = sessions(target, count, sources);
    let tls = Tls::new(&Keypair::generate()).unwrap();
    all.iter_mut().for_each(|session| session.ask(&chunks(id, 16)).unwrap());
    // What fits their sockets they get as anybody who asks does. What is measured is the time after that.
    wait_until_full(&all);
    say("attacking");
    for _ in 0..u64::MAX {
        for (n, session) in all.iter_mut().enumerate() {
            session.socket.set_nonblocking(true).unwrap();
            let is_over = matches!(session.socket.read(&mut [0; 64]), Ok(0));
            if is_over && let Ok(again) = Session::open(n % sources, target, &tls) {
                *session = again;
                let _ = session.ask(&chunks(id, 16));
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Fetches chunks on `count` connections of one address for `seconds`, and says how many bytes came.
fn fetch(target: SocketAddr, count: usize, seconds: usize, id: FileId) {
    let all = sessions(target, count, 1);
    say("attacking");
    let end = Instant::now() + Duration::from_secs(seconds as u64);
    let run = |mut session: Session| {
        let (mut bytes, wave) = (0, chunks(id, 4));
        let of_wave = Geometry::new(id.len).chunk_len() * wave.len() as u64;
        let mut asked = 0;
        session.socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        while Instant::now() < end {
            while asked < bytes + 2 * of_wave {
                session.ask(&wave).unwrap();
                asked += of_wave;
            }
            match session.read() {
                Ok(n) => bytes += n as u64,
                // Some requests were deferred.
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => asked = bytes,
                Err(e) => panic!("{e}"),
            }
        }
        bytes
    };
    let bytes: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = all.into_iter().map(|session| scope.spawn(move || run(session))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    say(&format!("fetched bytes={bytes}"));
    park();
}

/// Connections that send a byte every `us` microseconds: of a handshake that never ends, or of a request.
fn trickle(target: SocketAddr, count: usize, after_hello: bool, us: usize) {
    let tls = Tls::new(&Keypair::generate()).unwrap();
    let open = || -> std::io::Result<Session> {
        if after_hello {
            return Session::open(0, target, &tls);
        }
        let channel = Channel::dial(&tls, None).unwrap();
        let mut socket = connect(0, target)?;
        socket.write_all(&[0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xf0])?;
        Ok(Session { socket, channel, held: vec![], out: Outbox::new() })
    };
    std::thread::scope(|scope| {
        for n in 0..count {
            scope.spawn(move || {
                let mut session = open().unwrap();
                if n == 0 {
                    say("attacking");
                }
                for _ in 0..u64::MAX {
                    let sent = match after_hello {
                        // A request of another kind than any, which is answered.
                        true => {
                            session.channel.seal(&[200, 0, 0, 0, 0, 0, 0, 0], &mut session.out).unwrap();
                            session.flush()
                        }
                        false => session.socket.write_all(&[0]),
                    };
                    session.socket.set_nonblocking(true).unwrap();
                    let _ = session.socket.read(&mut [0; 4096]);
                    session.socket.set_nonblocking(false).unwrap();
                    if sent.is_err() {
                        session = open().unwrap();
                    }
                    std::thread::sleep(Duration::from_micros(us as u64));
                }
            });
        }
    });
}

/// Connections that ask for what takes much work and few bytes, again and again.
fn busy(target: SocketAddr, count: usize, is_glob: bool) {
    let unknown = (0..512u32).map(|n| FileId { root: Root(Digest([n as u8; 32])), len: u64::from(n) + 1 }).collect();
    let request = match is_glob {
        true => Request::List(ListFrom { pattern: "*x".repeat(250), after: String::new(), revision: 0 }),
        false => Request::Locate(unknown),
    };
    let all = sessions(target, count, 1);
    say("attacking");
    std::thread::scope(|scope| {
        for mut session in all {
            let request = request.clone();
            scope.spawn(move || while session.ask(std::slice::from_ref(&request)).is_ok() && session.read().is_ok() {});
        }
    });
}

/// A socket that sends to the group from address `n`.
fn group_socket(n: usize) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    // Its address belongs to no device, by which the system would choose the way.
    socket.bind_device(Some(b"eth0")).unwrap();
    socket.bind(&SocketAddr::from((source(n), 0)).into()).unwrap();
    socket.into()
}

fn announce(peer: PeerId, seq: u64) -> Announce {
    let flags = Flags::default();
    Announce { version: 1, network: "gpb".into(), peer, instance: 1, seq, ttl_s: 3600, port: PORT, revision: 1, flags }
}

fn now_ms() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

/// Sends `count` packets evenly over `time`.
fn evenly(count: usize, time: Duration, mut send: impl FnMut(usize)) {
    let begun = Instant::now();
    for n in 0..count {
        let at = begun + time.mul_f64(n as f64 / count as f64);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        send(n);
    }
}

/// `count` datagrams to the group within `seconds`, from 200 addresses: noise, or announces that are forged.
fn garbage(count: usize, seconds: usize, forged: bool) {
    let sockets: Vec<UdpSocket> = (0..200).map(group_socket).collect();
    let key = Keypair::generate();
    let mut packet = SignedAnnounce::seal(&announce(key.peer_id(), now_ms()), &key).as_bytes().to_vec();
    say("attacking");
    evenly(count, Duration::from_secs(seconds as u64), |n| {
        // Another signature each time, and none of them right.
        let at = packet.len() - 8;
        let noise = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        packet[if forged { at } else { 0 }..][..8].copy_from_slice(&noise);
        sockets[n % sockets.len()].send_to(&packet, (GROUP_V4, PORT)).unwrap();
    });
    say("done");
    park();
}

/// `count` made-up members from `sources` addresses, each announced once, within `seconds`.
fn members(count: usize, sources: usize, seconds: usize) {
    let sockets: Vec<UdpSocket> = (0..sources).map(group_socket).collect();
    let seal = |_| {
        let key = Keypair::generate();
        SignedAnnounce::seal(&announce(key.peer_id(), now_ms()), &key)
    };
    let all: Vec<SignedAnnounce> = (0..count).map(seal).collect();
    say("attacking");
    evenly(count, Duration::from_secs(seconds as u64), |n| {
        sockets[n % sources].send_to(all[n].as_bytes(), (GROUP_V4, PORT)).unwrap();
    });
    say("done");
    park();
}

/// `rate` valid announces a second of a thousand made-up members from `sources` addresses, without end.
fn announces(rate: usize, sources: usize) {
    let sockets: Vec<UdpSocket> = (0..sources).map(group_socket).collect();
    let keys: Vec<Keypair> = (0..1000).map(|_| Keypair::generate()).collect();
    say("attacking");
    evenly(usize::MAX >> 32, Duration::from_secs((usize::MAX >> 32) as u64 / rate as u64), |n| {
        let key = &keys[n % keys.len()];
        let signed = SignedAnnounce::seal(&announce(key.peer_id(), now_ms()), key);
        sockets[n % sources].send_to(signed.as_bytes(), (GROUP_V4, PORT)).unwrap();
    });
}

/// As [`announces`]. Where they are said to serve, the system takes connections, and nobody answers.
fn mute(rate: usize, sources: usize) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into()).unwrap();
    socket.listen(4096).unwrap();
    announces(rate, sources);
}
