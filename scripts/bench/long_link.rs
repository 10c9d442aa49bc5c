//! A long link between two TAP devices, which are its standard input and output.
//!
//! Arguments: round trip in ms, Mbit/s or 0 without a limit, part of the packets that is lost, seed. Packets have the
//! header of `IFF_VNET_HDR`, and may be segments of 64 KiB, so that a gigabit costs a few thousand of them a second. It runs
//! until it is killed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use way::{Distance, Way};

#[path = "../../tests/lan/way.rs"]
mod way;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("long_link: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<f64> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let [round_trip_ms, mbit, loss, seed] = arguments[..] else { return Err("needs 4 numbers".into()) };
    let rate_mbit = (mbit > 0.0).then_some(mbit as u32);
    let distance = Distance { rate_mbit, loss, seed: seed as u64, ..Distance::ms(round_trip_ms as u64) };
    let ends = [io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?];
    let [one, other] = ends.map(|end| Arc::new(File::from(end)));
    let ways = [(one.clone(), other.clone()), (other, one)];
    let threads = ways.into_iter().enumerate().flat_map(|(number, (from, to))| {
        let way = Arc::new((Mutex::new(Way::new(distance, number as u64)), Condvar::new()));
        let taken = way.clone();
        [thread::spawn(move || take(&from, &taken)), thread::spawn(move || give(&to, &way))]
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

/// Takes what one device sends.
fn take(mut from: &File, (way, changed): &(Mutex<Way>, Condvar)) -> io::Result<()> {
    let mut packet = vec![0; PACKET_LEN_MAX];
    loop {
        let len = from.read(&mut packet)?;
        let now = Instant::now();
        way.lock().unwrap().take(&packet[..len], len.saturating_sub(HEADER_LEN), 0, now);
        changed.notify_one();
    }
}

/// Gives it to the other one when its time has come.
fn give(mut to: &File, (way, changed): &(Mutex<Way>, Condvar)) -> io::Result<()> {
    let mut held = way.lock().unwrap();
    loop {
        let now = Instant::now();
        if let Some((packet, _)) = held.arrived(now) {
            drop(held);
            // A device that is down, or whose queue is full, drops it as a cable would.
            let _ = to.write(&packet);
            held = way.lock().unwrap();
            continue;
        }
        let wait = held.next_at().map_or(Duration::MAX, |at| at - now);
        held = changed.wait_timeout(held, wait.min(LOOK)).unwrap().0;
    }
}

/// Longest packet with both headers.
const PACKET_LEN_MAX: usize = 1 << 17;
/// Of `struct virtio_net_hdr` in front of each packet.
const HEADER_LEN: usize = 10;
/// Longest wait for a packet at once.
const LOOK: Duration = Duration::from_secs(1);
