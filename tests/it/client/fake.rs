//! Faulty peers that are made known to the parts of a client by hand.

use gpb::internals::peers::Directory;
use gpb::internals::proto::{Announce, Flags, SignedAnnounce};
use gpb::testing::{Fault, FaultyPeer, TestFile};

use crate::directory::{announce, hear};

pub fn fake(fault: impl Into<Option<Fault>>, files: &[TestFile]) -> FaultyPeer {
    FaultyPeer::start(files, fault.into().as_slice()).unwrap()
}

pub fn file(path: &str, len: usize, seed: u64) -> TestFile {
    TestFile::random(path, len, seed).unwrap()
}

pub fn with_bytes(path: &str, bytes: Vec<u8>) -> TestFile {
    TestFile::new(path, bytes).unwrap()
}

/// What only these tests do with a faulty peer.
pub trait ByHand {
    /// What it announces.
    fn says(&self) -> Announce;

    /// Makes it known.
    fn join(&self, peers: &Directory);

    /// Says goodbye.
    fn leave(&self, peers: &Directory);

    /// Has it say this of itself in `Welcome`.
    fn say(&self, announce: &Announce);
}

impl ByHand for FaultyPeer {
    fn says(&self) -> Announce {
        announce(self.keypair(), self.node().instance, self.addr())
    }

    fn join(&self, peers: &Directory) {
        hear(peers, &self.says(), self.keypair(), self.addr());
    }

    fn leave(&self, peers: &Directory) {
        hear(peers, &Announce { flags: Flags::GOODBYE, ..self.says() }, self.keypair(), self.addr());
    }

    fn say(&self, announce: &Announce) {
        self.welcome_with(SignedAnnounce::seal(announce, self.keypair()).as_bytes());
    }
}
