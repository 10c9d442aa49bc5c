//! Peers that are remembered from one start to the next: which keys TLS proved, where, and when.
//!
//! The text form is one line a peer, `KEY SECONDS ADDRESS,ADDRESS NETWORK`, between a first line that
//! names the form and a last one with the number of peers, so that a torn file shows. What is read is
//! a hint: an address is dialed for its key alone, and only while that is trusted.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::identity::PeerId;
use crate::limits::{ADDRS_PER_PEER_MAX, NETWORK_LEN_MAX};
use crate::proto::Announce;
use crate::swarm::membership::addresses::is_usable;
use crate::swarm::membership::limits::{
    CLOCK_SET_MIN_S, REMEMBERED_AGE_MAX_S, REMEMBERED_MAX, REMEMBERED_PER_HOST_MAX, REMEMBERED_STEP_S,
};

/// At most [`REMEMBERED_MAX`] peers of all networks that share a state directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RememberedPeers {
    peers: BTreeMap<(String, PeerId), RememberedPeer>,
}

/// Where and when a key was proved last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RememberedPeer {
    /// The key.
    pub peer: PeerId,
    /// When it was proved last, in seconds since 1970.
    pub seen_s: u64,
    /// Its addresses, at least one and at most [`ADDRS_PER_PEER_MAX`], the best first.
    pub addrs: Vec<SocketAddr>,
}

/// Why a text is no list of remembered peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RememberedError {
    /// The first line is another one.
    #[error("it is no list of peers, or of another version")]
    Form,
    /// A line is no peer.
    #[error("line {0} is no peer")]
    Line(usize),
    /// The end is missing.
    #[error("it is cut off")]
    Torn,
    /// More peers than are remembered.
    #[error("it has more than {REMEMBERED_MAX} peers")]
    TooMany,
}

impl RememberedPeers {
    /// Reads the text form.
    ///
    /// # Errors
    /// [`RememberedError`]: the first thing that is wrong; nothing of such a text counts.
    pub fn parse(text: &str) -> Result<Self, RememberedError> {
        let rest = text.strip_prefix(HEADER).ok_or(RememberedError::Form)?;
        let whole = rest.strip_suffix('\n').ok_or(RememberedError::Torn)?;
        let mut lines: Vec<&str> = whole.split('\n').take(REMEMBERED_MAX + 2).collect();
        let end = lines.pop().and_then(|line| line.strip_prefix(END)).ok_or(match lines.len() > REMEMBERED_MAX {
            true => RememberedError::TooMany,
            false => RememberedError::Torn,
        })?;
        if lines.len() > REMEMBERED_MAX {
            return Err(RememberedError::TooMany);
        }
        if end.parse() != Ok(lines.len()) {
            return Err(RememberedError::Torn);
        }
        let mut all = RememberedPeers::default();
        for (at, line) in lines.into_iter().enumerate() {
            let (network, peer) = parse_line(line).ok_or(RememberedError::Line(at + 2))?;
            all.peers.insert((network.to_string(), peer.peer), peer);
        }
        Ok(all)
    }

    /// Takes note that `peer` of `network` was proved and has these addresses. True if that is worth
    /// to be kept: the peer is new, has other addresses, or was noted more than
    /// [`REMEMBERED_STEP_S`] ago.
    pub fn note(&mut self, network: &str, peer: PeerId, addrs: &[SocketAddr], now_s: u64) -> bool {
        let usable = addrs.iter().copied().filter(|addr| is_usable(*addr));
        let addrs: Vec<SocketAddr> = usable.take(ADDRS_PER_PEER_MAX).collect();
        if addrs.is_empty() {
            return false;
        }
        let key = (network.to_string(), peer);
        let is_same = |known: &RememberedPeer| {
            let all = known.addrs.len() == addrs.len() && addrs.iter().all(|addr| known.addrs.contains(addr));
            all && now_s.saturating_sub(known.seen_s) < REMEMBERED_STEP_S
        };
        if self.peers.get(&key).is_some_and(is_same) {
            return false;
        }
        if !self.peers.contains_key(&key) && !self.make_room(addrs[0].ip(), now_s) {
            return false;
        }
        self.peers.insert(key, RememberedPeer { peer, seen_s: now_s, addrs });
        true
    }

    /// Makes room for a newcomer at `host`: the oldest of a host gives way to a further one of it, and
    /// the oldest of a full list, unless that was proved just now. So neither one host nor a large
    /// group puts the list in motion for ever.
    fn make_room(&mut self, host: IpAddr, now_s: u64) -> bool {
        let at_host = |known: &RememberedPeer| host_of(known.addrs[0].ip()) == host_of(host);
        let is_crowded = self.peers.values().filter(|known| at_host(known)).count() >= REMEMBERED_PER_HOST_MAX;
        if !is_crowded && self.peers.len() < REMEMBERED_MAX {
            return true;
        }
        let mut candidates: Vec<_> = self.peers.iter().filter(|(_, known)| !is_crowded || at_host(known)).collect();
        candidates.sort_by_key(|(_, known)| known.seen_s);
        let oldest = candidates.first().filter(|(_, known)| now_s.saturating_sub(known.seen_s) >= REMEMBERED_STEP_S);
        let Some(key) = oldest.map(|(key, _)| (*key).clone()) else { return false };
        self.peers.remove(&key).is_some()
    }

    /// Takes over what another process has noted later.
    pub fn merge(&mut self, other: Self) {
        for (key, peer) in other.peers {
            if self.peers.get(&key).is_none_or(|known| known.seen_s < peer.seen_s) {
                self.peers.insert(key, peer);
            }
        }
        self.bound();
    }

    /// Forgets the peers that were not proved for [`REMEMBERED_AGE_MAX_S`], and peers of `network`
    /// that are not `trusted`. A time to come counts as now. So does one of a clock that was not set, which
    /// becomes the present time once that is known.
    pub fn forget(&mut self, network: &str, trusted: impl Fn(&PeerId) -> bool, now_s: u64) {
        self.peers.retain(|(of, _), known: &mut RememberedPeer| {
            if known.seen_s < CLOCK_SET_MIN_S {
                known.seen_s = now_s;
            }
            now_s.saturating_sub(known.seen_s) <= REMEMBERED_AGE_MAX_S && (of != network || trusted(&known.peer))
        });
    }

    /// The peers of `network`, the last proved first.
    pub fn of_network(&self, network: &str) -> Vec<&RememberedPeer> {
        let of = self.peers.iter().filter(|((of, _), _)| of == network);
        let mut all: Vec<&RememberedPeer> = of.map(|(_, peer)| peer).collect();
        all.sort_by_key(|known| std::cmp::Reverse(known.seen_s));
        all
    }

    /// Number of peers, of all networks.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Leaves out the peers that were proved the longest ago.
    fn bound(&mut self) {
        while self.peers.len() > REMEMBERED_MAX {
            let oldest = self.peers.iter().min_by_key(|(_, known)| known.seen_s).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            self.peers.remove(&oldest);
        }
    }
}

impl fmt::Display for RememberedPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        for ((network, _), known) in &self.peers {
            let addrs: Vec<String> = known.addrs.iter().map(SocketAddr::to_string).collect();
            writeln!(f, "{} {} {} {network}", known.peer, known.seen_s, addrs.join(","))?;
        }
        writeln!(f, "{END}{}", self.peers.len())
    }
}

/// What counts as one host: an IPv4 address, or an IPv6 network of 64 bits.
fn host_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        ip => ip,
    }
}

fn parse_line(line: &str) -> Option<(&str, RememberedPeer)> {
    let mut parts = line.splitn(4, ' ');
    let mut next = || parts.next();
    let (peer, seen_s, addrs, network) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?, next()?);
    let addrs: Option<Vec<SocketAddr>> =
        addrs.split(',').take(ADDRS_PER_PEER_MAX + 1).map(|addr| addr.parse().ok()).collect();
    let addrs = addrs.filter(|all| all.len() <= ADDRS_PER_PEER_MAX && all.iter().all(|addr| is_usable(*addr)))?;
    Announce::is_network_name(network).then_some((network, RememberedPeer { peer, seen_s, addrs }))
}

const HEADER: &str = "GPB peers 1\n";
const END: &str = "end ";
/// More bytes than the longest line: key, time, addresses with zones, network.
const LINE_LEN_MAX: usize = 80 + 24 + ADDRS_PER_PEER_MAX * 72 + NETWORK_LEN_MAX;
/// More bytes than the longest list.
pub(crate) const REMEMBERED_TEXT_LEN_MAX: usize = 64 + REMEMBERED_MAX * LINE_LEN_MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_S: u64 = 24 * 3600;
    const STEP_S: u64 = REMEMBERED_STEP_S;

    fn id(n: u16) -> PeerId {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_le_bytes());
        PeerId(key)
    }

    fn addr(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 27420))
    }

    const BEGIN_S: u64 = CLOCK_SET_MIN_S;

    fn some() -> RememberedPeers {
        let mut all = RememberedPeers::default();
        assert!(all.note("gpb", id(1), &[addr(1), "[fe80::1%3]:9".parse().unwrap()], BEGIN_S + 1000));
        assert!(all.note("a net", id(2), &[addr(2)], BEGIN_S + 2000));
        all
    }

    #[test]
    fn what_is_written_is_read_again() {
        let all = some();
        let text = all.to_string();
        assert_eq!(RememberedPeers::parse(&text), Ok(all));
        assert!(
            text.contains(" 1577837800 10.0.0.1:27420,[fe80::1%3]:9 gpb\n") && text.ends_with("\nend 2\n"),
            "{text}"
        );
        let none = RememberedPeers::default();
        assert_eq!(RememberedPeers::parse(&none.to_string()), Ok(none));
    }

    #[test]
    fn a_torn_or_altered_text_counts_for_nothing() {
        let text = some().to_string();
        for len in 0..text.len() {
            assert!(RememberedPeers::parse(&text[..len]).is_err(), "{:?}", &text[..len]);
        }
        for (from, to) in
            [("ed25519:", "ed:"), (" 1577837800 ", " -1 "), (":9 ", ":0 "), ("10.0.0.1", "0.0.0.0"), ("2\n", "3\n")]
        {
            assert!(RememberedPeers::parse(&text.replacen(from, to, 1)).is_err(), "{from}");
        }
        let addrs = vec![addr(1).to_string(); ADDRS_PER_PEER_MAX + 1].join(",");
        let long = format!("{HEADER}{} 1 {addrs} gpb\nend 1\n", id(1));
        assert_eq!(RememberedPeers::parse(&long), Err(RememberedError::Line(2)));
        let line = format!("{} 1 {} gpb\n", id(1), addr(1));
        let many = format!("{HEADER}{}end 300\n", line.repeat(300));
        assert_eq!(RememberedPeers::parse(&many), Err(RememberedError::TooMany));
    }

    #[test]
    fn only_news_are_worth_to_be_kept() {
        let mut all = some();
        assert!(!all.note("a net", id(2), &[addr(2)], BEGIN_S + 2000 + STEP_S - 1));
        assert!(all.note("a net", id(2), &[addr(2)], BEGIN_S + 2000 + STEP_S));
        assert!(all.note("a net", id(2), &[addr(3), addr(2)], BEGIN_S + 2001 + STEP_S));
        assert!(!all.note("a net", id(2), &[addr(2), addr(3)], BEGIN_S + 2001 + STEP_S), "the same in another order");
        assert!(all.note("gpb", id(2), &[addr(2)], BEGIN_S + 2001), "the same key in another network");
        assert!(!all.note("gpb", id(3), &["0.0.0.0:1".parse().unwrap()], 1), "nothing to dial");
        assert_eq!(all.of_network("a net").len(), 1);
    }

    #[test]
    fn the_list_is_bounded_and_the_oldest_goes_first() {
        let mut all = RememberedPeers::default();
        let at = |n: u16| [SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 27420))];
        let begin = STEP_S * 9;
        for n in 0..600 {
            assert_eq!(all.note("gpb", id(n), &at(n), begin + u64::from(n)), usize::from(n) < REMEMBERED_MAX, "{n}");
        }
        // A full list of fresh peers stays as it is; an hour later, newcomers take the places of the oldest.
        for n in 600..700 {
            assert!(all.note("gpb", id(n), &at(n), begin + 300 + STEP_S + u64::from(n)));
        }
        let kept = all.of_network("gpb");
        assert_eq!((kept.len(), kept[0].peer, kept[255].peer), (REMEMBERED_MAX, id(699), id(100)));
        // One host has few places, of which its oldest gives way.
        for n in 1000..1100 {
            all.note("gpb", id(n), &at(0), begin + STEP_S * u64::from(n));
        }
        let of_host = |known: &&&RememberedPeer| known.addrs == at(0);
        assert_eq!(all.of_network("gpb").iter().filter(of_host).count(), REMEMBERED_PER_HOST_MAX);
        assert_eq!(all.len(), REMEMBERED_MAX);
        let many: Vec<SocketAddr> = (1..=40).map(addr).collect();
        all.note("gpb", id(1099), &many, begin + STEP_S * 9999);
        assert_eq!(all.of_network("gpb")[0].addrs, many[..ADDRS_PER_PEER_MAX]);
        assert!(all.to_string().len() <= REMEMBERED_TEXT_LEN_MAX);
    }

    #[test]
    fn a_month_without_proof_and_lost_trust_are_forgotten() {
        let mut all = some();
        all.note("gpb", id(3), &[addr(3)], BEGIN_S + 1_000_000_000);
        all.forget("gpb", |_| true, BEGIN_S + 1000 + 30 * DAY_S);
        assert_eq!(all.len(), 3);
        assert_eq!(all.of_network("gpb")[0].seen_s, BEGIN_S + 1_000_000_000, "a clock that was ahead, or is behind");
        all.forget("gpb", |peer| *peer != id(3), BEGIN_S + 1001 + 30 * DAY_S);
        assert_eq!((all.of_network("gpb").len(), all.of_network("a net").len()), (0, 1));
    }

    /// A host without a battery for its clock begins in 1970. What it remembered then was forgotten as soon as the clock was set.
    #[test]
    fn what_was_proved_before_the_clock_was_set_is_remembered() {
        let mut all = RememberedPeers::default();
        all.note("gpb", id(1), &[addr(1)], 60_000);
        all.forget("gpb", |_| true, BEGIN_S + 2000 * DAY_S);
        assert_eq!(all.len(), 1);
        all.forget("gpb", |_| true, BEGIN_S + 2031 * DAY_S);
        assert!(all.is_empty());
    }

    #[test]
    fn the_later_of_two_processes_wins() {
        let (mut one, mut other) = (some(), some());
        other.note("gpb", id(1), &[addr(9)], BEGIN_S + 5000);
        one.note("a net", id(2), &[addr(8)], BEGIN_S + 6000);
        one.merge(other);
        assert_eq!(one.of_network("gpb")[0].addrs, [addr(9)]);
        assert_eq!(one.of_network("a net")[0].addrs, [addr(8)]);
    }

    proptest! {
        #[test]
        fn no_text_panics(lines in proptest::collection::vec("[ -~]{0,60}", 0..8), end in 0_usize..9) {
            let _ = RememberedPeers::parse(&format!("{HEADER}{}\nend {end}\n", lines.join("\n")));
            let _ = RememberedPeers::parse(&lines.join("\n"));
        }
    }
}
