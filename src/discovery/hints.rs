//! Places where a key is said to answer, as directories tell that anybody can write to. Each is
//! dialed, and nothing is believed before TLS proves the key there.
//!
//! The dials are bounded: how many at once, how often for a key, how many wait.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::discovery::DiscoveryContext;
use crate::discovery::exchange::contact;
use crate::discovery::limits::{
    CONTACT_TIMEOUT, HINT_ADDRS_MAX, HINT_DIAL_EVERY, HINT_DIAL_TIMEOUT, HINTED_AT_ONCE, HINTS_PER_KEY_MAX,
    HINTS_REMEMBERED_MAX, HINTS_WAITING_MAX,
};
use crate::identity::PeerId;
use crate::limits::ANNOUNCE_INTERVAL;
use crate::runtime::Workers;
use crate::swarm::{ContactSource, Dropped};
use crate::sync::lock;

/// Where a key is said to answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyHint {
    /// Any key of the network, in an open group, if there is none.
    pub(super) peer: Option<PeerId>,
    /// The first [`HINT_ADDRS_MAX`] are dialed.
    pub(super) addrs: Vec<SocketAddr>,
    /// Whether they may be far away: a handshake, and a packet that is sent again, take longer.
    pub(super) is_far: bool,
}

/// Takes hints in, and has them dialed.
pub(super) struct Hints {
    shared: Arc<DiscoveryContext>,
    queue: Sender<KeyHint>,
    /// When each place was last dialed. By place and not by key: a wrong place of a key must not keep
    /// the right one from being dialed.
    dialed: Mutex<BTreeMap<KeyHint, Instant>>,
}

impl Hints {
    /// Starts the threads that dial; they end when this is dropped.
    pub(super) fn start(shared: &Arc<DiscoveryContext>, workers: &mut Workers) -> io::Result<Arc<Self>> {
        let (queue, waiting) = bounded(HINTS_WAITING_MAX);
        for n in 0..HINTED_AT_ONCE {
            let (shared, waiting) = (shared.clone(), waiting.clone());
            workers.spawn(&format!("gpb-hint-{n}"), move || dial(&shared, &waiting))?;
        }
        Ok(Arc::new(Hints { shared: shared.clone(), queue, dialed: Mutex::default() }))
    }

    /// Has the hint dialed, unless its key was seen anyway or it was dialed within an
    /// [`ANNOUNCE_INTERVAL`].
    ///
    /// # Errors
    /// [`Dropped`]: the key is not trusted, or too many hints wait or name the key.
    pub(super) fn offer(&self, hint: KeyHint, now: Instant) -> Result<(), Dropped> {
        let (directory, trust) = (self.shared.directory(), self.shared.directory().trust());
        if !hint.peer.map_or(trust.is_open(), |peer| trust.allows(&peer)) {
            return Err(Dropped::Untrusted);
        }
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < ANNOUNCE_INTERVAL;
        let seen = hint.peer.and_then(|peer| directory.read(|t| t.last_seen(peer)));
        if seen.is_some_and(|at| is_recent(&at)) {
            return Ok(());
        }
        let mut dialed = lock(&self.dialed);
        if dialed.get(&hint).is_some_and(is_recent) {
            return Ok(());
        }
        let first = KeyHint { peer: hint.peer, addrs: Vec::new(), is_far: false };
        let of_key = dialed.range(first..).take_while(|(other, _)| other.peer == hint.peer);
        if hint.peer.is_some() && of_key.filter(|(_, at)| is_recent(at)).count() >= HINTS_PER_KEY_MAX {
            return Err(Dropped::Flood);
        }
        if dialed.len() >= HINTS_REMEMBERED_MAX {
            dialed.retain(|_, at| is_recent(at));
        }
        if dialed.len() >= HINTS_REMEMBERED_MAX || self.queue.try_send(hint.clone()).is_err() {
            return Err(Dropped::Flood);
        }
        dialed.insert(hint, now);
        Ok(())
    }
}

/// Dials until the queue ends; the body of a thread.
fn dial(shared: &DiscoveryContext, waiting: &Receiver<KeyHint>) {
    for KeyHint { peer, addrs, is_far } in waiting {
        let time = if is_far { CONTACT_TIMEOUT } else { HINT_DIAL_TIMEOUT };
        for addr in addrs.into_iter().take(HINT_ADDRS_MAX) {
            if shared.shutdown.has_begun() {
                return;
            }
            let result = contact(shared, addr, peer, Some(ContactSource::Directory), time);
            shared.drops.count_hint(result.is_ok());
            if let Err(e) = &result {
                let peer = peer.map_or("any".to_string(), |peer| peer.to_string());
                log::debug!("hint leads nowhere peer={peer} addr={addr} error=\"{e}\"");
            }
            // Strangers choose where, so they do not choose how often.
            if shared.shutdown.wait(HINT_DIAL_EVERY) {
                return;
            }
            if result.is_ok() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::discovery::drops::Drops;
    use crate::identity::Keypair;
    use crate::net::Tls;
    use crate::peers::fake::directory_of;
    use crate::peers::{Dialer, Directory};
    use crate::runtime::Shutdown;
    use crate::runtime::keystore::{Trust, TrustView};

    /// Hints that nothing dials: they stay in the queue.
    fn hints(trust: Trust) -> (Hints, Receiver<KeyHint>) {
        let keypair = Keypair::generate();
        let (tls, shutdown) = (Tls::new(&keypair).unwrap(), Shutdown::new());
        let trust = TrustView::new(trust, keypair.peer_id());
        let directory: Arc<Directory> = directory_of(keypair, 1, trust);
        let dialer = Dialer::new(directory, tls, shutdown.clone());
        let shared = DiscoveryContext {
            offering: dialer.clone(),
            dialer,
            drops: Drops::default(),
            links: Mutex::default(),
            remembered: Default::default(),
            interfaces: Vec::new(),
            in_file: Default::default(),
            dht: Default::default(),
            dns_sd: Default::default(),
            shutdown,
        };
        let (queue, waiting) = bounded(HINTS_WAITING_MAX);
        (Hints { shared: Arc::new(shared), queue, dialed: Mutex::default() }, waiting)
    }

    fn hint() -> KeyHint {
        KeyHint {
            peer: Some(Keypair::generate().peer_id()),
            addrs: vec!["192.0.2.7:27420".parse().unwrap()],
            is_far: true,
        }
    }

    #[test]
    fn a_place_is_dialed_once_an_interval_and_few_wait() {
        let (hints, waiting) = hints(Trust::open());
        let (first, start) = (hint(), Instant::now());
        for after in [Duration::ZERO, ANNOUNCE_INTERVAL / 2] {
            assert_eq!(hints.offer(first.clone(), start + after), Ok(()));
            assert_eq!(waiting.len(), 1, "at {after:?}");
        }
        hints.offer(first, start + ANNOUNCE_INTERVAL).unwrap();
        assert_eq!(waiting.len(), 2);
        while waiting.len() < HINTS_WAITING_MAX {
            hints.offer(hint(), start).unwrap();
        }
        assert_eq!(hints.offer(hint(), start), Err(Dropped::Flood));
        assert!(lock(&hints.dialed).len() < HINTS_WAITING_MAX, "what was dropped may be offered again");
    }

    #[test]
    fn a_wrong_place_of_a_key_does_not_hide_the_right_one() {
        let (hints, waiting) = hints(Trust::open());
        let (peer, start) = (hint().peer, Instant::now());
        let place = |n: usize| KeyHint { peer, addrs: vec![([10, 0, 0, 1], 2000 + n as u16).into()], is_far: false };
        for n in 0..HINTS_PER_KEY_MAX {
            assert_eq!(hints.offer(place(n), start), Ok(()));
        }
        assert_eq!(waiting.len(), HINTS_PER_KEY_MAX);
        assert_eq!(hints.offer(place(99), start), Err(Dropped::Flood));
        assert_eq!(hints.offer(place(99), start + ANNOUNCE_INTERVAL), Ok(()));
    }

    #[test]
    fn places_that_are_remembered_are_bounded() {
        let (hints, waiting) = hints(Trust::open());
        let start = Instant::now();
        for _ in 0..HINTS_REMEMBERED_MAX {
            hints.offer(hint(), start).unwrap();
            waiting.recv().unwrap();
        }
        assert_eq!(hints.offer(hint(), start), Err(Dropped::Flood));
        assert_eq!(hints.offer(hint(), start + ANNOUNCE_INTERVAL), Ok(()));
        assert_eq!(lock(&hints.dialed).len(), 1);
    }

    #[test]
    fn only_trusted_keys_are_dialed() {
        let trusted = hint();
        let (hints, waiting) = hints(Trust::keys(trusted.peer).unwrap());
        assert_eq!(hints.offer(hint(), Instant::now()), Err(Dropped::Untrusted));
        hints.offer(trusted, Instant::now()).unwrap();
        assert_eq!(waiting.len(), 1);
        let nobody = KeyHint { peer: None, ..hint() };
        assert_eq!(hints.offer(nobody, Instant::now()), Err(Dropped::Untrusted), "a place without a key");
    }

    #[test]
    fn places_without_a_key_are_dialed_in_an_open_group() {
        let (hints, waiting) = hints(Trust::open());
        let place =
            |n: usize| KeyHint { peer: None, addrs: vec![([11, 0, 0, 1], 2000 + n as u16).into()], is_far: true };
        for n in 0..2 * HINTS_PER_KEY_MAX {
            assert_eq!(hints.offer(place(n), Instant::now()), Ok(()));
        }
        assert_eq!(hints.offer(place(0), Instant::now()), Ok(()), "once an interval");
        assert_eq!(waiting.len(), 2 * HINTS_PER_KEY_MAX);
    }
}
