//! What came of it.

use std::fmt;

use super::Config;
use super::world::World;

/// The head of the table whose lines are [`Outcome`]s.
pub const HEADING: &str = "   peers |    MiB |  done |  last s | bound s | ratio | mean s | copies | waste % | \
                           messages | control % | dials | packets | peak/s | heard KiB";

/// What came of a simulation.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Peers that were to fetch the file.
    pub peers: u32,
    /// Length of the file in bytes.
    pub file_len: u64,
    /// Of those that do not leave or freeze, how many have the file.
    pub done: u32,
    /// When the last of them had it, in seconds.
    pub last_s: f64,
    /// When they had it on average.
    pub mean_s: f64,
    /// The least possible time for the last one with equal links.
    pub bound_s: f64,
    /// How often the first holders sent the length of the file.
    pub copies: f64,
    /// Bytes that came in vain, in all that was needed.
    pub waste: f64,
    /// Requests, and answers without a chunk, for each peer.
    pub messages: f64,
    /// Bytes that were no chunks, announces included as often as they are received, in those that were.
    pub control: f64,
    /// Connections that each peer opened.
    pub dials: f64,
    /// Packets of announces in all.
    pub packets: u64,
    /// Most of them in one second.
    pub packets_peak: u32,
    /// Bytes of announces that each peer received.
    pub announce_bytes: f64,
    /// Most nodes in a table.
    pub nodes: usize,
    /// Steps of the simulation.
    pub events: u64,
}

impl Outcome {
    pub(super) fn of(world: &World) -> Self {
        let Config { peers, file_len, .. } = world.config;
        let (holders, fetching) = world.peers.split_at(world.config.holders as usize);
        let fetchers = || fetching.iter().filter(|p| p.is_to_fetch());
        let times: Vec<f64> = fetchers().filter_map(|p| p.done_ns).map(|ns| ns as f64 / 1e9).collect();
        let done = times.len() as u32;
        let all = f64::from(done.max(1));
        let payload = all * file_len as f64;
        let heard = |p: &super::peer::Peer| p.tally.announces + world.group.bytes - p.joined.2;
        let announces: u64 = fetching.iter().filter(|p| p.here).map(heard).sum();
        let sum = |of: fn(&super::peer::Tally) -> u64| fetching.iter().map(|p| of(&p.tally)).sum::<u64>() as f64;
        Outcome {
            peers,
            file_len,
            done,
            last_s: times.iter().copied().fold(0.0, f64::max),
            mean_s: times.iter().sum::<f64>() / all,
            bound_s: world.config.lower_bound_s(),
            copies: holders.iter().map(|p| p.tally.given).sum::<u64>() as f64 / file_len as f64,
            waste: sum(|t| t.wasted) / payload,
            messages: sum(|t| t.messages) / all,
            control: (sum(|t| t.control) + announces as f64) / payload,
            dials: sum(|t| t.dials.into()) / all,
            packets: world.group.packets + sum(|t| t.packets) as u64,
            packets_peak: world.group.by_second.iter().copied().max().unwrap_or(0),
            announce_bytes: announces as f64 / all,
            nodes: world.group.tables.iter().map(gpb::internals::swarm::PeerTable::nodes).max().unwrap_or(0),
            events: world.events,
        }
    }

    /// The time of the last peer over the least possible one.
    pub fn ratio(&self) -> f64 {
        self.last_s / self.bound_s
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8} | {:>6} | {:>5} | {:>7.2} | {:>7.2} | {:>5.3} | {:>6.2} | {:>6.2} | {:>7.3} | {:>8.0} | {:>9.3} | \
             {:>5.1} | {:>7} | {:>6} | {:>9.1}",
            self.peers,
            self.file_len >> 20,
            self.done,
            self.last_s,
            self.bound_s,
            self.ratio(),
            self.mean_s,
            self.copies,
            self.waste * 100.0,
            self.messages,
            self.control * 100.0,
            self.dials,
            self.packets,
            self.packets_peak,
            self.announce_bytes / 1024.0,
        )
    }
}
