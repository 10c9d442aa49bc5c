//! A link that is long: two TAP devices, and between them a thread each way that keeps each packet for a while.
//!
//! The kernel has no `netem` everywhere. TCP, IPv6, ARP and multicast pass as over a cable; only time, rate and losses are
//! made here. A packet costs some microseconds of a processor, so that a gigabit passes on a machine that has one to
//! spare for each direction.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tappers::{DeviceState, Interface, Tap};

pub use crate::way::Distance;
use crate::way::Way;

/// A link between two namespaces. Its devices vanish with it.
pub struct Link {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    seen: Arc<Seen>,
}

/// What passed a link.
///
/// Round trips are counted by what each end can know, as a logical clock does (Lamport 1978), so that a slow machine adds
/// none: a packet travels one way more than the furthest one that came to its sender before.
#[derive(Default)]
struct Seen {
    /// Packets that arrived, each way.
    passed: [AtomicU64; 2],
    /// How often the count began anew.
    counts: AtomicU64,
    /// Ways of the furthest packet that arrived, each way.
    ways: [AtomicU64; 2],
    /// The same of the first packet that was long.
    first_long: [AtomicU64; 2],
}

impl Link {
    /// Makes the device `here.1` in the namespace at the path `here.0`, and likewise `there`.
    pub fn new(here: (&str, &str), there: (&str, &str), distance: Distance) -> Self {
        let (a, b) = (Arc::new(tap(here)), Arc::new(tap(there)));
        let (ends, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
        let ways = [(a.clone(), b.clone()), (b, a)];
        let start = |(number, (from, to)): (usize, (Arc<Tap>, Arc<Tap>))| {
            let (ends, seen) = (ends.clone(), seen.clone());
            thread::spawn(move || run((Way::new(distance, number as u64), number), [&from, &to], &ends, &seen))
        };
        let threads = ways.into_iter().enumerate().map(start).collect();
        Link { ends, threads, seen }
    }

    /// Counts round trips from now on.
    pub fn count_trips(&self) {
        self.seen.counts.fetch_add(1, Ordering::Relaxed);
        self.seen.ways.iter().chain(&self.seen.first_long).for_each(|ways| ways.store(0, Ordering::Relaxed));
    }

    /// The round trips that the first long packet from here to there ended, since the count began.
    pub fn trips_to_data(&self) -> u64 {
        self.seen.first_long[0].load(Ordering::Relaxed) / 2
    }

    /// Packets that arrived, each way.
    pub fn passed(&self) -> [u64; 2] {
        [0, 1].map(|way| self.seen.passed[way].load(Ordering::Relaxed))
    }
}

impl Seen {
    /// The mark of a packet that leaves.
    fn leaves(&self, way: usize) -> u64 {
        (self.counts.load(Ordering::Relaxed) << WAYS_BITS) + self.ways[1 - way].load(Ordering::Relaxed) + 1
    }

    /// What left before the count began says nothing.
    fn arrives(&self, way: usize, packet: &[u8], mark: u64) {
        if mark >> WAYS_BITS != self.counts.load(Ordering::Relaxed) {
            return;
        }
        let ways = mark & ((1 << WAYS_BITS) - 1);
        self.ways[way].fetch_max(ways, Ordering::Relaxed);
        if packet.len() >= LONG_LEN {
            let _ = self.first_long[way].compare_exchange(0, ways, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// Moves packets from one device to the other, as `way` says.
fn run((mut way, number): (Way, usize), [from, to]: [&Tap; 2], ends: &AtomicBool, seen: &Seen) {
    let mut packet = vec![0; PACKET_LEN_MAX];
    while !ends.load(Ordering::Relaxed) {
        let now = Instant::now();
        while let Some((packet, mark)) = way.arrived(now) {
            seen.arrives(number, &packet, mark);
            // A device that is down, or whose queue is full, drops it as a cable would.
            seen.passed[number].fetch_add(u64::from(to.send(&packet).is_ok()), Ordering::Relaxed);
        }
        let mut received = 0;
        while received < PACKETS_AT_ONCE
            && let Ok(len) = from.recv(&mut packet)
        {
            received += 1;
            way.take(&packet[..len], len, seen.leaves(number), Instant::now());
        }
        if received == 0 {
            let due = way.next_at().map_or(LOOK, |at| at.saturating_duration_since(now).min(LOOK));
            let due = Timespec { tv_sec: 0, tv_nsec: due.as_nanos() as i64 };
            let _ = poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&due));
        }
    }
}

/// A TAP device of that name in a namespace, up and not blocking.
fn tap((namespace, name): (&str, &str)) -> Tap {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    // A thread of its own goes there, and does not come back.
    let make = move || -> io::Result<Tap> {
        let place = File::open(namespace)?;
        move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network))?;
        let mut tap = Tap::new_named(Interface::new(&name)?)?;
        tap.set_nonblocking(true)?;
        tap.set_state(DeviceState::Up)?;
        Ok(tap)
    };
    thread::spawn(make).join().unwrap().unwrap()
}

/// Whether there can be such links, or why not.
pub fn usable() -> Result<(), String> {
    File::open("/dev/net/tun").map(drop).map_err(|e| format!("needs /dev/net/tun: {e}"))
}

/// Longest packet with its Ethernet header.
const PACKET_LEN_MAX: usize = 1 << 16;
/// Packets that are read before those that are due are passed on.
const PACKETS_AT_ONCE: usize = 32;
/// Bits of a mark that are the number of ways.
const WAYS_BITS: u32 = 32;
/// A packet of at least that many bytes is long: no handshake and no short answer has it.
const LONG_LEN: usize = 1200;
/// Longest time until the end is noticed.
const LOOK: Duration = Duration::from_millis(20);
