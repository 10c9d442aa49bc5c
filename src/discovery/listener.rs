//! The thread that owns the beacon: it receives, answers, announces, and says goodbye.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::discovery::DiscoveryContext;
use crate::discovery::limits::GOODBYES;
use crate::identity::NodeId;
use crate::limits::ANNOUNCE_LEN_MAX;
use crate::net::{Beacon, Datagram, To};
use crate::proto::{Announce, Flags};
use crate::runtime::Subscription;
use crate::swarm::{AnnounceSchedule, Dropped, GroupSize, Outgoing, PeerTable, Question, Way, parse_announce};
use crate::sync::lock;

pub(super) struct Listener {
    shared: Arc<DiscoveryContext>,
    beacon: Box<dyn Beacon>,
    schedule: AnnounceSchedule,
    housekeep_at: Instant,
    links_up: u64,
    /// The revision of the catalogue that was announced last.
    revision: u64,
    _on_revision: Subscription,
}

impl Listener {
    pub(super) fn new(shared: Arc<DiscoveryContext>, beacon: Box<dyn Beacon>, now: Instant) -> Self {
        let (links_up, wake) = (beacon.links_up(), beacon.waker());
        let own = shared.directory().own();
        let _on_revision = own.on_revision(move || wake());
        let (revision, schedule, housekeep_at) =
            (own.revision(), AnnounceSchedule::new(rand::random(), now), now + HOUSEKEEP);
        Listener { shared, beacon, schedule, housekeep_at, links_up, revision, _on_revision }
    }

    /// The body of the thread; ends when the shutdown begins.
    pub(super) fn run(mut self) {
        // One byte more than the longest announce, so that longer datagrams show.
        let mut buffer = [0; ANNOUNCE_LEN_MAX + 1];
        while !self.shared.shutdown.has_begun() {
            let now = Instant::now();
            let revision = self.shared.directory().own().revision();
            if std::mem::replace(&mut self.revision, revision) != revision {
                self.schedule.changed(now);
            }
            if std::mem::replace(&mut self.links_up, self.beacon.links_up()) < self.links_up {
                self.schedule.restart(now);
            }
            self.send_due(now);
            if now >= self.housekeep_at {
                self.housekeep_at = now + HOUSEKEEP;
                self.shared.housekeep(now);
                *lock(&self.shared.links) = self.beacon.links();
            }
            if let Some(datagram) = self.beacon.receive(&mut buffer, self.schedule.next_due().min(self.housekeep_at)) {
                self.hear(&buffer[..datagram.len.min(buffer.len())], &datagram, Instant::now());
            }
        }
        self.leave();
    }

    fn send_due(&mut self, now: Instant) {
        let nodes = self.group_size();
        while let Some(what) = self.schedule.due(nodes, now) {
            self.shared.directory().own().set_ttl_s(self.schedule.ttl_s());
            let (flags, to) = match what {
                Outgoing::QueryUnicast => (Flags::QUERY.with(Flags::UNICAST), To::Group),
                Outgoing::Query => (Flags::QUERY, To::Group),
                Outgoing::Broadcast => (Flags::QUERY.with(Flags::UNICAST), To::Broadcast),
                Outgoing::Announce => (Flags::default(), To::Group),
            };
            self.send(self.shared.directory().own().seal(flags).as_bytes(), to);
        }
    }

    fn send(&mut self, announce: &[u8], to: To) {
        self.shared.drops.count_sent();
        self.beacon.send(announce, to);
    }

    fn hear(&mut self, bytes: &[u8], datagram: &Datagram, now: Instant) {
        match self.shared.directory().datagram(bytes, datagram, now) {
            Ok((announce, is_new)) => {
                self.shared.drops.count_heard();
                self.shared.drops.count_admitted();
                if !datagram.local {
                    self.schedule.received(datagram.way, datagram.from.ip(), is_new, now);
                }
                let node = NodeId::new(announce.peer, announce.instance);
                if datagram.way == Way::Group && announce.revision > 0 && announce.port != 0 {
                    let is_member = self.shared.directory().read(|t| t.is_member(node));
                    self.schedule.answered(is_member, datagram.from.ip(), now);
                }
                self.answer(&announce, datagram, now);
            }
            Err(Dropped::Own) => {}
            Err(reason) => {
                self.shared.drops.count_heard();
                self.shared.drops.count(reason);
                if reason == Dropped::Untrusted || reason.is_of_clocks() {
                    self.hear_stranger(bytes, reason, now);
                }
                log::trace!("announce dropped addr={} error=\"{reason}\"", datagram.from);
            }
        }
    }

    fn answer(&mut self, announce: &Announce, datagram: &Datagram, now: Instant) {
        // A node that serves nothing is not what a query looks for.
        let asked = announce.flags.contains(Flags::QUERY) && !announce.flags.contains(Flags::GOODBYE);
        if !asked || self.shared.directory().own().port() == 0 {
            return;
        }
        let unicast = announce.flags.contains(Flags::UNICAST);
        let (nodes, shared) = (self.group_size(), &self.shared);
        let offering =
            || (shared.directory().own().revision() > 0).then(|| shared.directory().read(PeerTable::offering) + 1);
        if self.schedule.asked(&question(announce, unicast), nodes, offering, now) {
            let answer = self.shared.directory().own().current();
            self.send(answer.as_bytes(), To::Node(datagram.link, datagram.from));
        }
    }

    /// A query of a node that is not trusted, or of another time. It gets no answer of its own, but may bring
    /// forward the announce that goes to the group anyway: then that node can dial and is refused, or drops it for
    /// its time, and its user learns the reason within a second.
    fn hear_stranger(&mut self, bytes: &[u8], reason: Dropped, now: Instant) {
        let Ok((_, mut announce)) = parse_announce(bytes, self.shared.directory().own().network()) else { return };
        if reason == Dropped::Untrusted {
            self.shared.drops.note_untrusted(announce.peer);
        } else {
            // Its queries must count as new once its clock is set right.
            announce.seq = 0;
        }
        if announce.flags.contains(Flags::QUERY) && self.shared.directory().own().port() != 0 {
            let nodes = self.group_size();
            self.schedule.asked(&question(&announce, false), nodes, || None, now);
        }
    }

    /// Says goodbye, more than once, as no node asks again for a lost one.
    fn leave(&mut self) {
        for _ in 0..GOODBYES {
            self.send(self.shared.directory().own().seal(Flags::GOODBYE).as_bytes(), To::Group);
        }
    }

    fn group_size(&self) -> GroupSize {
        self.shared.directory().read(PeerTable::size)
    }
}

fn question(announce: &Announce, unicast: bool) -> Question {
    Question { asker: NodeId::new(announce.peer, announce.instance), seq: announce.seq, unicast }
}

const HOUSEKEEP: Duration = Duration::from_secs(1);
