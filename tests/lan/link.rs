//! A link that is long: two TAP devices, and between them a thread each way that keeps each packet for a while.
//!
//! The kernel has no `netem` everywhere. TCP, IPv6, ARP and multicast pass as over a cable; only time, rate and losses are
//! made here. A packet costs some microseconds of a processor, so that a gigabit passes on a machine that has one to
//! spare for each direction.

use std::collections::VecDeque;
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

/// What a link does to packets, in each direction.
#[derive(Debug, Clone, Copy)]
pub struct Distance {
    /// Time there and back.
    pub round_trip: Duration,
    /// Megabits a second; without a limit if `None`.
    pub rate_mbit: Option<u32>,
    /// Part of the packets that are lost.
    pub loss: f64,
    /// Decides which.
    pub seed: u64,
}

/// A link between two namespaces. Its devices vanish with it.
pub struct Link {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    passed: Arc<[AtomicU64; 2]>,
}

/// One direction.
struct Direction {
    from: Arc<Tap>,
    to: Arc<Tap>,
    distance: Distance,
    random: u64,
    /// Packets on their way, and when they arrive.
    queue: VecDeque<(Instant, Vec<u8>)>,
    /// When the narrow place has sent all that came to it.
    free_at: Instant,
}

impl Distance {
    /// A long way without other faults.
    pub const fn ms(round_trip_ms: u64) -> Self {
        Distance { round_trip: Duration::from_millis(round_trip_ms), rate_mbit: None, loss: 0.0, seed: 1 }
    }
}

impl Link {
    /// Makes the device `here.1` in the namespace at the path `here.0`, and likewise `there`.
    pub fn new(here: (&str, &str), there: (&str, &str), distance: Distance) -> Self {
        let (a, b) = (Arc::new(tap(here)), Arc::new(tap(there)));
        let (ends, passed) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
        let ways = [(a.clone(), b.clone()), (b, a)];
        let start = |(way, (from, to)): (usize, (Arc<Tap>, Arc<Tap>))| {
            let random = distance.seed.wrapping_mul(2).wrapping_add(way as u64);
            let now = Instant::now();
            let mut direction = Direction { from, to, distance, random, queue: VecDeque::new(), free_at: now };
            let (ends, passed) = (ends.clone(), passed.clone());
            thread::spawn(move || direction.run(&ends, &passed[way]))
        };
        let threads = ways.into_iter().enumerate().map(start).collect();
        Link { ends, threads, passed }
    }

    /// Packets that arrived, each way.
    pub fn passed(&self) -> [u64; 2] {
        [0, 1].map(|way| self.passed[way].load(Ordering::Relaxed))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

impl Direction {
    fn run(&mut self, ends: &AtomicBool, passed: &AtomicU64) {
        let mut packet = vec![0; PACKET_LEN_MAX];
        while !ends.load(Ordering::Relaxed) {
            let now = Instant::now();
            while let Some((_, packet)) = self.queue.front().filter(|(at, _)| *at <= now) {
                // A device that is down, or whose queue is full, drops it as a cable would.
                passed.fetch_add(u64::from(self.to.send(packet).is_ok()), Ordering::Relaxed);
                self.queue.pop_front();
            }
            let mut received = 0;
            while received < PACKETS_AT_ONCE
                && let Ok(len) = self.from.recv(&mut packet)
            {
                received += 1;
                self.take(&packet[..len]);
            }
            if received == 0 {
                let due = self.queue.front().map_or(LOOK, |(at, _)| at.saturating_duration_since(now).min(LOOK));
                let due = Timespec { tv_sec: 0, tv_nsec: due.as_nanos() as i64 };
                let _ = poll(&mut [PollFd::new(&*self.from, PollFlags::IN)], Some(&due));
            }
        }
    }

    fn take(&mut self, packet: &[u8]) {
        let now = Instant::now();
        if self.distance.loss > 0.0 && self.unit() < self.distance.loss {
            return;
        }
        let mut leaves = now;
        if let Some(mbit) = self.distance.rate_mbit {
            let waits = self.free_at.saturating_duration_since(now);
            if waits > QUEUE_TIME.max(self.distance.round_trip) {
                return;
            }
            leaves = self.free_at.max(now) + Duration::from_secs_f64(packet.len() as f64 * 8e-6 / f64::from(mbit));
            self.free_at = leaves;
        }
        if self.queue.len() < PACKETS_MAX {
            self.queue.push_back((leaves + self.distance.round_trip / 2, packet.to_vec()));
        }
    }

    /// SplitMix64, as a number in `0..1`.
    fn unit(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
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
/// Most packets on their way in one direction: a gigabit for half a second.
const PACKETS_MAX: usize = 50_000;
/// Packets that would wait for longer at the narrow place, and for longer than the round trip, are dropped there.
const QUEUE_TIME: Duration = Duration::from_millis(20);
/// Longest time until the end is noticed.
const LOOK: Duration = Duration::from_millis(20);
