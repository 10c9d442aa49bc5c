//! Hosts and the network between them.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::link::{Distance, Link};
use crate::process::{Log, Process};

/// Ends the test as skipped where there are no namespaces; otherwise an empty network.
macro_rules! lan_or_skip {
    () => {
        match crate::net::Lan::new() {
            Ok(lan) => lan,
            Err(why) => {
                assert!(std::env::var_os("TESTS_REQUIRE_ALL").is_none_or(|v| v != "1"), "must not be skipped: {why}");
                println!("skipped: {}: {why}", std::thread::current().name().unwrap_or("a test"));
                return;
            }
        }
    };
}

/// The same where also long links are needed.
macro_rules! long_lan_or_skip {
    () => {{
        let lan = lan_or_skip!();
        if let Err(why) = crate::link::usable() {
            assert!(std::env::var_os("TESTS_REQUIRE_ALL").is_none_or(|v| v != "1"), "must not be skipped: {why}");
            println!("skipped: {}: {why}", std::thread::current().name().unwrap_or("a test"));
            return;
        }
        lan
    }};
}

/// The same where also NAT is needed.
macro_rules! nat_or_skip {
    () => {{
        let lan = lan_or_skip!();
        if std::process::Command::new("nft").arg("--version").stdout(std::process::Stdio::null()).status().is_err() {
            assert!(std::env::var_os("TESTS_REQUIRE_ALL").is_none_or(|v| v != "1"), "needs the program nft");
            println!("skipped: {}: needs the program nft", std::thread::current().name().unwrap_or("a test"));
            return;
        }
        lan
    }};
}

/// A network of hosts on one bridge. Everything ends when it is dropped, and the output of all programs is printed if
/// the test failed.
pub struct Lan {
    bridge: Rc<Namespace>,
    hosts: Cell<u8>,
    shared: Rc<Shared>,
}

/// A host: `lo`, and `eth0` towards the bridge unless it has no network.
pub struct Host {
    /// How logs call it.
    pub name: String,
    /// Its IPv4 address; 127.0.0.1 for a host without a network.
    pub ip: String,
    namespace: Rc<Namespace>,
    bridge: Rc<Namespace>,
    port: String,
    link: Option<Link>,
    /// What is between it and the bridge.
    router: Option<Box<Host>>,
    shared: Rc<Shared>,
}

/// Which addresses a host has on `eth0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4 and a link-local IPv6 address, as on most networks.
    Both,
    /// Only a link-local IPv6 address.
    OnlyV6,
}

struct Shared {
    dir: tempfile::TempDir,
    logs: RefCell<Vec<Arc<Log>>>,
    _permit: Permit,
}

/// A process that holds a network namespace open. It ends when its stdin closes, and with the thread that made it.
struct Namespace {
    holder: Child,
}

impl Lan {
    /// An empty network, or why there can be none here. Waits for its turn: only so many tests run at once.
    pub fn new() -> Result<Self, String> {
        static USABLE: OnceLock<Result<(), String>> = OnceLock::new();
        USABLE.get_or_init(usable).clone()?;
        let permit = Permit::wait();
        let bridge = Rc::new(Namespace::new());
        bridge.sh("ip link add br0 type bridge mcast_snooping 0 forward_delay 0 && ip link set br0 up");
        let dir = tempfile::Builder::new().prefix("gpb-lan-").tempdir().unwrap();
        let shared = Rc::new(Shared { dir, logs: RefCell::default(), _permit: permit });
        Ok(Lan { bridge, hosts: Cell::new(0), shared })
    }

    /// A directory for this test, removed at its end.
    pub fn dir(&self) -> &Path {
        self.shared.dir.path()
    }

    /// A new directory in [`dir`](Self::dir).
    pub fn new_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A new host; what it sends has at most `rate_mbit` megabits a second.
    pub fn host(&self, name: &str, rate_mbit: Option<u32>) -> Host {
        self.host_with(name, rate_mbit, Addresses::Both)
    }

    /// A new host with these addresses.
    pub fn host_with(&self, name: &str, rate_mbit: Option<u32>, addresses: Addresses) -> Host {
        let host = self.bare_host(name);
        let (port, holder) = (&host.port, host.namespace.holder.id());
        self.bridge.sh(&format!(
            "ip link add {port} type veth peer name eth0 netns {holder} && ip link set {port} master br0 up"
        ));
        host.set_up(addresses);
        if let Some(rate) = rate_mbit {
            host.sh(&format!("tc qdisc add dev eth0 root tbf rate {rate}mbit burst 64kb latency 20ms"));
        }
        host
    }

    /// A new host that is so far from the bridge.
    pub fn far_host(&self, name: &str, distance: Distance) -> Host {
        let mut host = self.bare_host(name);
        let place = |namespace: &Namespace| format!("/proc/{}/ns/net", namespace.holder.id());
        let (here, there) = (place(&host.namespace), place(&host.bridge));
        let link = Link::new((&here, "eth0"), (&there, &host.port), distance);
        // A burst waits for the link's thread, or TCP would see losses that are none of the link's.
        self.bridge.sh(&format!("ip link set {} txqueuelen {QUEUE_PACKETS} master br0 up", host.port));
        host.sh(&format!("ip link set eth0 txqueuelen {QUEUE_PACKETS}"));
        host.link = Some(link);
        host.set_up(Addresses::Both);
        host
    }

    fn bare_host(&self, name: &str) -> Host {
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        let (port, ip) = (format!("p{number}"), format!("10.77.0.{number}"));
        let (bridge, shared) = (Rc::clone(&self.bridge), Rc::clone(&self.shared));
        Host {
            name: name.into(),
            ip,
            namespace: Rc::new(Namespace::new()),
            bridge,
            port,
            link: None,
            router: None,
            shared,
        }
    }

    /// A host whose only interface is `lo`.
    pub fn lonely_host(&self, name: &str) -> Host {
        let namespace = Rc::new(Namespace::new());
        namespace.sh("ip link set lo up");
        let (bridge, shared) = (Rc::clone(&self.bridge), Rc::clone(&self.shared));
        Host {
            name: name.into(),
            ip: "127.0.0.1".into(),
            namespace,
            bridge,
            port: String::new(),
            link: None,
            router: None,
            shared,
        }
    }

    /// Plugs `host` into a second network, with the interface `eth1`, and returns its address there.
    pub fn plug(&self, host: &Host) -> String {
        let (number, holder) = (&host.port[1..], host.namespace.holder.id());
        self.bridge.sh(&format!(
            "ip link show br1 > /dev/null 2>&1 || {{ ip link add br1 type bridge mcast_snooping 0 forward_delay 0 && \
             ip link set br1 up; }}; \
             ip link add q{number} type veth peer name eth1 netns {holder} && ip link set q{number} master br1 up"
        ));
        let ip = format!("10.78.0.{number}");
        host.sh(&format!(
            "for o in accept_dad disable_ipv6; do echo 0 > /proc/sys/net/ipv6/conf/eth1/$o; done; \
             ip addr add {ip}/24 brd + dev eth1; ip link set eth1 up"
        ));
        until("eth1 is up with its addresses", Duration::from_secs(5), || {
            let addrs = host.sh("ip -o addr show dev eth1; ip -o link show dev eth1");
            let ready = ["fe80::", &ip, "LOWER_UP"].iter().all(|part| addrs.contains(part));
            (ready && !addrs.contains("tentative")).then_some(())
        });
        ip
    }

    /// A host behind a router with NAT (masquerade): it reaches the hosts on the bridge, and none of them reaches it. The
    /// router refuses what it gets for itself, or drops it. Its address is that of the router.
    pub fn host_behind_nat(&self, name: &str, drops: bool) -> Host {
        let router = self.host(&format!("{name}-router"), None);
        let mut host = self.lonely_host(name);
        router.translate_for(&host, "eth0", drops);
        (host.ip, host.router) = (router.ip.clone(), Some(Box::new(router)));
        host
    }

    /// From now on the bridge passes neither multicast nor broadcast. The hosts, which must be all that there are, have
    /// learned each other's IPv4 addresses before, so that they need neither to reach each other.
    pub fn filter_discovery(&self, hosts: &[&Host]) {
        for host in hosts {
            let mac = host.sh("ip -o link show dev eth0");
            let mac = mac.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
            for other in hosts.iter().filter(|other| other.ip != host.ip) {
                other.sh(&format!("ip neigh replace {} lladdr {mac} nud permanent dev eth0", host.ip));
            }
        }
        self.filter_multicast();
        for port in 1..=self.hosts.get() {
            self.bridge.sh(&format!("bridge link set dev p{port} bcast_flood off"));
        }
    }

    /// From now on the bridge passes no multicast, as on many wireless networks.
    pub fn filter_multicast(&self) {
        for port in 1..=self.hosts.get() {
            self.bridge.sh(&format!("bridge link set dev p{port} mcast_flood off"));
        }
    }
}

impl Host {
    /// Waits until `eth0`, which exists, is up with its addresses.
    fn set_up(&self, addresses: Addresses) {
        // Without duplicate address detection an address can be used at once.
        let mut setup = String::from(
            "for f in all default eth0; do echo 0 > /proc/sys/net/ipv6/conf/$f/accept_dad; \
             echo 0 > /proc/sys/net/ipv6/conf/$f/disable_ipv6; done; set -e; ip link set lo up; ",
        );
        if addresses == Addresses::Both {
            write!(setup, "ip addr add {}/24 brd + dev eth0; ", self.ip).unwrap();
        }
        // A device that was up already gets its link-local address now.
        setup.push_str("ip link set eth0 down; ip link set eth0 up; ");
        self.sh(&setup);
        until("eth0 is up with its addresses", Duration::from_secs(5), || {
            let addrs = self.sh("ip -o addr show dev eth0; ip -o link show dev eth0");
            let v4 = addresses == Addresses::OnlyV6 || addrs.contains(&self.ip);
            (addrs.contains("fe80::") && !addrs.contains("tentative") && addrs.contains("LOWER_UP") && v4).then_some(())
        });
    }

    /// Makes this host the router, with NAT, of `host`, which gets the interface `dev` towards it.
    pub fn translate_for(&self, host: &Host, dev: &str, drops: bool) {
        let holder = host.namespace.holder.id();
        let verdict = if drops { "drop" } else { "reject with tcp reset" };
        self.sh(&format!(
            "ip link add eth1 type veth peer name {dev} netns {holder}; ip addr add 192.168.7.1/24 dev eth1; \
             ip link set eth1 up; echo 1 > /proc/sys/net/ipv4/ip_forward; set -e; \
             nft add table ip nat; nft add chain ip nat out '{{ type nat hook postrouting priority 100; }}'; \
             nft add rule ip nat out oifname eth0 masquerade; \
             nft add table ip wall; nft add chain ip wall in '{{ type filter hook input priority 0; }}'; \
             nft add rule ip wall in iifname eth0 meta l4proto tcp ct state new {verdict}"
        ));
        host.sh(&format!(
            "set -e; ip addr add 192.168.7.2/24 brd + dev {dev}; ip link set {dev} up; \
             ip route add default via 192.168.7.1"
        ));
    }

    /// Packets that its long link has passed on, from it and to it.
    pub fn passed(&self) -> [u64; 2] {
        self.link.as_ref().map_or([0; 2], Link::passed)
    }

    /// Its long link.
    pub fn link_of(&self) -> &Link {
        self.link.as_ref().expect("it is far")
    }

    /// Runs a shell script and returns what it writes; it must succeed.
    pub fn sh(&self, script: &str) -> String {
        self.namespace.sh(script)
    }

    /// Starts a program. Its environment has nothing of the tester's own settings, and its home is a directory of
    /// this host.
    pub fn spawn(&self, program: impl AsRef<OsStr>, args: &[&str]) -> Process {
        let mut command = self.namespace.command();
        command.arg(program.as_ref()).args(args);
        let home = self.home();
        std::fs::create_dir_all(&home).unwrap();
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("GPB_") || key.to_string_lossy().starts_with("XDG_") {
                command.env_remove(key);
            }
        }
        command.env("HOME", &home).env("TERM", "dumb");
        let program = Path::new(program.as_ref()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let process = Process::start(format!("{}: {program} {}", self.name, args.join(" ")), command);
        self.shared.logs.borrow_mut().push(Arc::clone(process.log()));
        process
    }

    /// Where programs of this host have their home.
    pub fn home(&self) -> PathBuf {
        self.shared.dir.path().join("home").join(&self.name)
    }

    /// Plugs the cable in or pulls it out.
    pub fn link(&self, up: bool) {
        self.bridge.sh(&format!("ip link set {} {}", self.port, if up { "up" } else { "down" }));
    }

    /// Takes the host out of the network, or back in, without a sign of it at the host: `eth0` stays up.
    pub fn part(&self, out: bool) {
        self.bridge.sh(&format!("bridge link set dev {} state {}", self.port, if out { 0 } else { 3 }));
    }

    /// Runs `f` on a thread of this host: its sockets, and those of threads that it starts, are on the host's network.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.namespace.holder.id())).unwrap();
        let enter = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            f()
        };
        std::thread::scope(|scope| scope.spawn(enter).join()).unwrap()
    }

    /// Bytes that `eth0` (or `lo`, on a host without a network) has received.
    pub fn received(&self) -> u64 {
        self.counter(0)
    }

    /// The same of another interface.
    pub fn received_on(&self, interface: &str) -> u64 {
        self.counter_of(&format!("{interface}:"), 0)
    }

    /// Bytes that it has sent, likewise.
    pub fn sent(&self) -> u64 {
        self.counter(8)
    }

    /// Packets that it has sent.
    pub fn packets_sent(&self) -> u64 {
        self.counter(9)
    }

    fn counter(&self, column: usize) -> u64 {
        self.counter_of(if self.port.is_empty() { "lo:" } else { "eth0:" }, column)
    }

    fn counter_of(&self, dev: &str, column: usize) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/net/dev", self.namespace.holder.id())).unwrap();
        let line = text.lines().find_map(|l| l.trim().strip_prefix(dev)).unwrap();
        line.split_whitespace().nth(column).unwrap().parse().unwrap()
    }

    /// Waits until `bytes` more than `since` have been received.
    pub fn wait_received(&self, since: u64, bytes: u64, within: Duration) {
        until(&format!("{} received {bytes} bytes", self.name), within, || {
            (self.received() >= since + bytes).then_some(())
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in self.logs.borrow().iter() {
                log.print();
            }
        }
    }
}

impl Namespace {
    fn new() -> Self {
        let mut holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "-n", "sh", "-c", "echo up; read _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "a namespace could not be made");
        Namespace { holder }
    }

    /// A command that will run inside; it dies with the calling thread.
    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter"]);
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--");
        command
    }

    fn sh(&self, script: &str) -> String {
        let output = self.command().args(["bash", "-c", script]).stdin(Stdio::null()).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {err}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Packets that wait in a device for the thread of a long link.
const QUEUE_PACKETS: u32 = 10_000;
/// Tests that run at once. What they wait for is mostly time on slow links.
const TESTS_AT_ONCE: usize = 2;

struct Permit;

static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Permit {
    fn wait() -> Self {
        let running = RUNNING.0.lock().unwrap();
        *RUNNING.1.wait_while(running, |n| *n >= TESTS_AT_ONCE).unwrap() += 1;
        Permit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *RUNNING.0.lock().unwrap() -= 1;
        RUNNING.1.notify_one();
    }
}

/// Calls `f` until it returns something; fails after `within`.
#[track_caller]
pub fn until<T>(what: &str, within: Duration, mut f: impl FnMut() -> Option<T>) -> T {
    let within = within * PATIENCE;
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = f() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The deadlines in tests are those of a machine that has little else to do. A loaded one has so many times as long: what is
/// waited for comes, or does not come at all.
pub const PATIENCE: u32 = 3;

/// Seconds, as deadlines are written in tests.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Tries what every test needs, once.
fn usable() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root".into());
    }
    for tool in ["setpriv", "unshare", "nsenter", "ip", "tc", "bridge", "bash"] {
        if Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            return Err(format!("needs the program {tool}"));
        }
    }
    let script = "ip link add p0 type veth peer name eth0 && ip link add br0 type bridge && ip link set p0 up && \
                  tc qdisc add dev p0 root tbf rate 100mbit burst 64kb latency 20ms";
    let output = Command::new("unshare").args(["-n", "bash", "-c", script]).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("needs network namespaces: {}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ")))
    }
}

/// What the other tests rely on: multicast arrives unless it is filtered, a rate holds, a cut link carries nothing.
#[test]
fn the_network_is_what_the_tests_think() {
    let lan = lan_or_skip!();
    let (a, b) = (lan.host("a", Some(80)), lan.host("b", None));
    a.sh("ip route add 224.0.0.0/4 dev eth0");
    let arrived_after_sending_5_mb = |to: &str| {
        let (before, started) = (b.received(), Instant::now());
        // Nobody listens there; what comes back as an error does not matter.
        a.sh(&format!(
            "printf -v kb %01000d 0; exec 3> /dev/udp/{to}/9; for i in {{1..5000}}; do printf $kb >&3; done 2> /dev/null; true"
        ));
        (b.received() - before, started.elapsed())
    };
    let (bytes, took) = arrived_after_sending_5_mb("239.255.71.80");
    assert!(bytes > 1_000_000, "{bytes} bytes of multicast arrived");
    assert!(bytes as f64 / took.as_secs_f64() < 12e6, "{bytes} bytes in {took:?} are over the rate");
    lan.filter_multicast();
    assert!(arrived_after_sending_5_mb("239.255.71.80").0 < 100_000, "multicast is filtered");
    assert!(
        arrived_after_sending_5_mb(&b.ip).0 > 1_000_000,
        "the rest is not, neither is the broadcast that ARP needs"
    );
    a.link(false);
    assert!(arrived_after_sending_5_mb(&b.ip).0 < 10_000, "a cut link carries nothing");
}
