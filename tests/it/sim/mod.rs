//! A group of thousands of peers that all fetch one file, under a virtual clock.
//!
//! Every decision is made by the code that makes it in production: what to ask whom ([`DownloadState`], its picker and
//! [`Requester`]), whom to dial and let go ([`Mesh`]), whom to serve, when and with what ([`FairQueue`], [`UploadGate`], [`Sent`],
//! [`Arrivals`]), when to announce ([`AnnounceSchedule`]) and who is there ([`PeerTable`]). Sizes of messages are those of the real
//! encoders. What is simulated is the world around: hosts, links, time, and the threads that call those decisions.
//!
//! What is left out, and why it does not change the picture:
//! * A host's uplink sends blocks of at most 64 KiB, one connection after the other; its downlink takes them in the order
//!   in which they come. A sender has at most four blocks of a connection on the way, as TCP on a full link. Requests take
//!   the delay of the path, but no bandwidth; all answers do. Headers of TCP/IP and TLS records of bodies are not counted.
//! * On a path that takes longer than a block, acknowledgements take the way back, and what is on the way begins as one
//!   block and doubles with each round trip up to twice bandwidth times delay: TCP's slow start, a little quicker.
//! * A lost block comes late by the time of a retransmission, and holds up what follows on its connection. On a long path,
//!   what is on the way becomes less by 3 in 10, and then more by a block each round trip, as in CUBIC and Reno.
//! * Hashing and disks take no time. TCP and TLS take two round trips, `Hello` none, and all the bytes in [`download`].
//! * Everyone may know everyone, but each peer's download hears of a sample of the group only, drawn when either joins:
//!   whom it dials of all it knows is left to chance anyway. Only the first few peers have a whole [`PeerTable`], by which
//!   all judge the size of the group; signatures are of the right length, but not checked.
//! * A peer downloads over one connection to each other one (with others fetching, [`ConnectionScaler`] adds none).
//!
//! [`DownloadState`]: gpb::internals::swarm::DownloadState
//! [`Requester`]: gpb::internals::swarm::Requester
//! [`Mesh`]: gpb::internals::swarm::Mesh
//! [`FairQueue`]: gpb::internals::swarm::FairQueue
//! [`UploadGate`]: gpb::internals::swarm::UploadGate
//! [`Sent`]: gpb::internals::swarm::Sent
//! [`Arrivals`]: gpb::internals::swarm::Arrivals
//! [`AnnounceSchedule`]: gpb::internals::swarm::AnnounceSchedule
//! [`PeerTable`]: gpb::internals::swarm::PeerTable
//! [`ConnectionScaler`]: gpb::internals::swarm::ConnectionScaler

mod ask;
mod content;
mod download;
mod group;
mod link;
mod peer;
mod report;
mod serve;
#[cfg(test)]
mod tests;
mod world;

use std::time::Duration;

pub use report::{HEADING, Outcome};

/// What is simulated. The same configuration always has the same outcome.
#[derive(Debug, Clone)]
pub struct Config {
    /// Peers that fetch the file.
    pub peers: u32,
    /// Hosts that have it at first; they come before the peers.
    pub holders: u32,
    /// Length of the file in bytes.
    pub file_len: u64,
    /// Seed of all random choices.
    pub seed: u64,
    /// Bytes a second that each host sends at most.
    pub up: u64,
    /// Bytes a second that each host receives at most.
    pub down: u64,
    /// Time that anything takes from host to host.
    pub delay: Duration,
    /// What the place of a host adds to that, each way: host `n` is at place `n` of these, which begin again after the
    /// last one.
    pub places: Vec<Duration>,
    /// Share of datagrams that get lost, and of blocks that come late.
    pub loss: f64,
    /// Peers begin within this time.
    pub join: Duration,
    /// How long a peer goes on serving once it has the file; `None`: to the end.
    pub stay: Option<Duration>,
    /// Peers that leave without a word when they have half of the file.
    pub leavers: u32,
    /// Peers that stop answering then, but keep their connections.
    pub freezers: u32,
    /// Peers that say they have the whole file and send wrong bytes.
    pub liars: u32,
    /// Peers whose uplink has a tenth of the rate.
    pub slow: u32,
}

impl Config {
    /// `peers` with equal links of 1 Gbit/s that begin at the same time and stay.
    pub fn equal(peers: u32, file_len: u64) -> Self {
        Config {
            peers,
            holders: 1,
            file_len,
            seed: 1,
            up: 125_000_000,
            down: 125_000_000,
            delay: Duration::from_micros(100),
            places: Vec::new(),
            loss: 0.0,
            join: Duration::ZERO,
            stay: None,
            leavers: 0,
            freezers: 0,
            liars: 0,
            slow: 0,
        }
    }

    /// Time that anything takes from one host to another one.
    pub fn path(&self, from: u32, to: u32) -> Duration {
        let place = |host: u32| match self.places.len() {
            0 => Duration::ZERO,
            n => self.places[host as usize % n],
        };
        self.delay + place(from) + place(to)
    }

    /// The least time in seconds in which all can have the file (Mundinger, Weber, Weiss: *Optimal scheduling of
    /// peer-to-peer file dissemination*): its M chunks leave the first holder one after the other, and the last of them
    /// doubles until all have it: `(1 + floor(log2 N) / M) * F / u`.
    pub fn lower_bound_s(&self) -> f64 {
        let chunks = f64::from(gpb::internals::content::Geometry::new(self.file_len).chunk_count());
        (1.0 + f64::from(self.peers.max(1).ilog2()) / chunks) * self.file_len as f64 / self.up as f64
    }
}

/// Simulates until every peer that stays has the file, or nothing goes on.
pub fn run(config: &Config) -> Outcome {
    world::World::new(config).run()
}
