//! What discovery can and cannot do here. Pure: made of what was seen.

use std::time::Duration;

use crate::chain::Chain;
use crate::client::{FetchError, FoundPeer, SeenBy};
use crate::discovery::{DhtStats, DiscoveryStats, DnsSdState, KnownBefore};
use crate::identity::PeerId;
use crate::limits::{CLOCK_SKEW_MAX, LOW_PORTS};
use crate::net::{Link, LinkError};
use crate::node::limits::UNREACHED_SHOWN_MAX;
use crate::node::{Config, Share, State};
use crate::peers::{Hindrance, TurnedStats};
use crate::proto::DialState;
use crate::swarm::{Dropped, PeerCounts, RefusalCause, UnreachedPeer};

/// One result of [`Node::diagnose`](crate::Node::diagnose).
///
/// ```no_run
/// use std::time::Duration;
///
/// # let node = gpb::Node::builder().start()?;
/// for finding in node.diagnose(Duration::from_secs(2))? {
///     let mark = if finding.problem.is_none() { "ok " } else { "BAD" };
///     println!("{mark} {}: {}", finding.check, finding.detail);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Finding {
    /// What was looked at, such as `interface eth0 10.0.0.1`.
    pub check: String,
    /// What was seen.
    pub detail: String,
    /// What is wrong with it; nothing if all is well.
    pub problem: Option<DiscoveryProblem>,
}

/// What is wrong with discovery; part of a [`Finding`].
///
/// ```
/// use gpb::DiscoveryProblem;
///
/// fn advice(problem: DiscoveryProblem) -> &'static str {
///     match problem {
///         DiscoveryProblem::LinkSilent => "look at the firewall of this host",
///         DiscoveryProblem::Clock => "set the clock",
///         _ => "see the log",
///     }
/// }
/// # assert_eq!(advice(DiscoveryProblem::Clock), "set the clock");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum DiscoveryProblem {
    /// There is no interface to announce on: none is up, or
    /// [`Config::interfaces`] and [`Config::bind`] leave none.
    NoInterface,
    /// An interface cannot send or receive; its address or routes are wrong.
    LinkFails,
    /// An interface sends, and not even this host's own packets come back: a firewall drops them.
    LinkSilent,
    /// Nodes of another [`Config::network`] are on the same wire.
    OtherNetwork,
    /// Nodes are here whose keys are not in [`Config::trust`].
    Untrusted,
    /// Nodes are here that do not trust this node's key.
    Refused,
    /// Nodes are here that speak another version of the protocol.
    OtherVersion,
    /// This node's clock or that of another node is wrong.
    Clock,
    /// Another program uses the UDP port of discovery.
    PortTaken,
    /// No peer answers. Both ways need UDP and TCP on port 27420.
    NoAnswer,
    /// A peer is known, and cannot be connected to: a firewall is between, or it is behind an address
    /// translator.
    Unreached,
    /// A peer cannot dial this node: a firewall, or an address translator, is between.
    NotReachable,
    /// No node of the DHT answers.
    DhtSilent,
    /// The system does not let this node take part in multicast DNS.
    DnsSdFails,
}

/// What was seen.
pub(super) struct Looked<'a> {
    pub(super) config: &'a Config,
    pub(super) links: Vec<Link>,
    pub(super) stats: DiscoveryStats,
    /// What stands in the way of reaching peers.
    pub(super) hindrance: Option<Hindrance>,
    /// Peers that are known and were not reached.
    pub(super) unreached: Vec<UnreachedPeer>,
    /// How the peers were found.
    pub(super) counts: PeerCounts,
    pub(super) answers: Result<Vec<FoundPeer>, FetchError>,
    /// What some of them say of this node.
    pub(super) seen_by: Vec<SeenBy>,
    /// Where this node listens; 0 if it does not.
    pub(super) port: u16,
}

/// All findings: the links first, then the peers that came over them, then what these say.
pub(super) fn findings(looked: &Looked<'_>) -> Vec<Finding> {
    let Looked { config, links, stats, counts, answers, seen_by, port, hindrance, unreached } = looked;
    let mut all: Vec<Finding> = links.iter().map(link).collect();
    if !config.multicast {
        all.push(good("multicast", "switched off; only named peers, and the peers that they know, are found"));
    } else if links.is_empty() {
        all.push(bad("multicast", "no interface to announce on", DiscoveryProblem::NoInterface));
    }
    all.extend(drops(stats));
    let by_datagram = [Dropped::Stale, Dropped::Future].iter().any(|reason| stats.dropped(*reason) > 0);
    if *hindrance == Some(Hindrance::ClocksDiffer) && !by_datagram {
        let detail = format!("some that peers pass on are dropped, over {} h off", hours(CLOCK_SKEW_MAX));
        all.push(bad("announces", &detail, DiscoveryProblem::Clock));
    }
    let named_by = [(config.dns_sd, "DNS-SD"), (config.dht.is_some(), "DHT")].map(|(is, name)| is.then_some(name));
    let named_by: Vec<&str> = named_by.into_iter().flatten().collect();
    if !named_by.is_empty() {
        all.push(good(&format!("found by {}", named_by.join(" and ")), &hints(stats)));
    }
    match answers {
        Ok(peers) => all.extend(peers.iter().map(|p| {
            let detail =
                format!("answers at {} with {} {}", p.addr, p.files, if p.files == 1 { "file" } else { "files" });
            good(&format!("peer {}", p.peer), &detail)
        })),
        Err(e) => all.push(bad("peers", &Chain(e).to_string(), unanswered(e, stats.untrusted, unreached))),
    }
    // Where others answer, it may be one that only opens sessions itself.
    let problem = answers.is_err().then_some(DiscoveryProblem::Unreached);
    let unreached = unreached.iter().filter(|peer| peer.failed || problem.is_some()).take(UNREACHED_SHOWN_MAX);
    all.extend(unreached.map(|UnreachedPeer { peer, addr, .. }| {
        let (check, detail) = (format!("peer {peer}"), format!("is known, and was not reached at {addr}"));
        Finding { check, detail, problem }
    }));
    if counts.known > 0 {
        all.push(good("ways", &ways(counts)));
    }
    let closed_port = config.trust.is_open() && *port < LOW_PORTS;
    all.extend(seen_by.iter().flat_map(|seen| seen_as(seen, (*port, closed_port))));
    all
}

/// Why no peer answers: a firewall is blamed for nothing that has another cause.
fn unanswered(error: &FetchError, untrusted: Option<PeerId>, unreached: &[UnreachedPeer]) -> DiscoveryProblem {
    match error {
        FetchError::NoPeer(_) if !unreached.is_empty() => DiscoveryProblem::Unreached,
        FetchError::NoPeer(_) if untrusted.is_some() => DiscoveryProblem::Untrusted,
        FetchError::ClocksDiffer(_) => DiscoveryProblem::Clock,
        FetchError::Refused { peers } => match peers.first().map(|(_, cause)| cause) {
            Some(RefusalCause::NotTrustedHere) => DiscoveryProblem::Untrusted,
            Some(RefusalCause::OtherNetwork) => DiscoveryProblem::OtherNetwork,
            Some(RefusalCause::OtherVersion) => DiscoveryProblem::OtherVersion,
            _ => DiscoveryProblem::Refused,
        },
        _ => DiscoveryProblem::NoAnswer,
    }
}

/// What was known of peers before discovery found any.
pub(super) fn known_before(config: &Config, known: KnownBefore, counts: &PeerCounts) -> Vec<Finding> {
    let KnownBefore { remembered, in_file } = known;
    let memory = match config.remember && config.state != State::Memory {
        true => format!("{remembered} of earlier runs, {} found that way", counts.by_memory),
        false => "switched off".into(),
    };
    let file = config.peer_file.iter().map(|file| {
        let detail = format!("names {in_file}, {} found that way", counts.by_peer_file);
        good(&format!("peer file {}", file.display()), &detail)
    });
    file.chain([good("remembered peers", &memory)]).collect()
}

fn link(link: &Link) -> Finding {
    let check = format!("interface {} {}", link.interface, link.addr);
    let reach = if link.hops > 1 { format!(", up to {} hops", link.hops) } else { String::new() };
    let detail = format!("group {}{reach}: {} sent, {} heard", link.group, link.sent, link.heard);
    match &link.error {
        Some(error @ LinkError::PortTaken) => bad(&check, &error.to_string(), DiscoveryProblem::PortTaken),
        Some(error) => bad(&check, &format!("{detail}; {error}"), DiscoveryProblem::LinkFails),
        None if link.sent > 0 && link.heard == 0 => bad(&check, &detail, DiscoveryProblem::LinkSilent),
        None => good(&check, &detail),
    }
}

/// How the nodes that are there became known.
fn ways(counts: &PeerCounts) -> String {
    let PeerCounts { known, by_multicast, by_exchange, by_contact, by_session, .. } = counts;
    format!(
        "{known} found: {by_multicast} by multicast, {by_exchange} named by peers, {by_contact} contacted by address, \
         {by_session} contacted this node"
    )
}

/// What reaches beyond the links of this node.
pub(super) fn beyond(
    sessions: &TurnedStats,
    (dns, stats): (&DnsSdState, &DhtStats),
    config: &Config,
) -> impl Iterator<Item = Finding> {
    let dns = config.dns_sd.then(|| dns_sd(dns));
    turned(sessions).into_iter().chain(dns).chain(config.dht.as_ref().map(|_| dht(stats, config)))
}

/// What DNS-SD does.
fn dns_sd(state: &DnsSdState) -> Finding {
    let DnsSdState { published, found, error } = state;
    let said = if *published { "this node is published" } else { "this node is not published" };
    match error {
        Some(error) => bad("DNS-SD", error, DiscoveryProblem::DnsSdFails),
        None => good("DNS-SD", &format!("{said}, {found} others found")),
    }
}

/// The turned sessions, if there are any.
fn turned(stats: &TurnedStats) -> Option<Finding> {
    let TurnedStats { answered, asking, offered } = *stats;
    let own = format!("this node answers {answered} peers on sessions that it opened, and {asking} of them asked");
    let others = format!("{offered} unused sessions of others are open here, on which they answer");
    (answered + offered > 0).then(|| good("sessions around NAT", &format!("{own}; {others}")))
}

/// What came of the DHT.
fn dht(stats: &DhtStats, config: &Config) -> Finding {
    let DhtStats { nodes, published, keys, found, seen_as } = *stats;
    if nodes == 0 {
        return bad("DHT", "none of its nodes answers", DiscoveryProblem::DhtSilent);
    }
    let said = match (config.share, published) {
        (_, true) => "addresses published",
        (Share::Directory, false) => "no addresses published so far",
        (_, false) => "nothing published, as no directory is shared",
    };
    let sought = match config.trust.is_open() {
        true => format!("{found} addresses found"),
        false => format!("found {found} of {keys} keys"),
    };
    let seen = seen_as.map_or_else(String::new, |ip| format!(", they see {ip}"));
    good("DHT", &format!("{nodes} nodes{seen}, {said}, {sought}"))
}

/// What came of the places that DNS-SD or the DHT named.
fn hints(stats: &DiscoveryStats) -> String {
    let DiscoveryStats { hints_dialed, hints_proved, hints_dropped, .. } = stats;
    format!("{hints_dialed} addresses dialed, {hints_proved} answered with their key, {hints_dropped} dropped")
}

/// Which address a peer sees, and whether it can dial this node: at `port`, which may be one `that_none_tries`.
fn seen_as(seen: &SeenBy, (port, that_none_tries): (u16, bool)) -> Vec<Finding> {
    let ip = seen.seen.ip();
    let is_own = ip == seen.here || ip.is_loopback();
    let address = match is_own {
        true => format!("{ip}, an address of this host"),
        false => format!("{ip}, while this host has {}: an address translator (NAT) is between", seen.here),
    };
    let address = good(&format!("seen by {}", seen.peer), &address);
    let check = format!("dialed by {}", seen.peer);
    let dialed = match seen.dialed {
        _ if port == 0 => return vec![address],
        DialState::Reached => good(&check, &format!("it reaches port {port} here")),
        DialState::Failed => {
            let detail = format!("it does not reach port {port} here");
            bad(&check, &detail, DiscoveryProblem::NotReachable)
        }
        DialState::NotTried if that_none_tries => good(
            &check,
            &format!("it does not try port {port} here: in an open group no port below {LOW_PORTS} is tried"),
        ),
        // A dial that lasts this long waits for the dials of other hosts.
        DialState::NotTried | DialState::Trying => good(&check, "it did not try yet; each host has one try a minute"),
    };
    vec![address, dialed]
}

/// Announces that were dropped for a reason that a person can change.
fn drops(stats: &DiscoveryStats) -> Vec<Finding> {
    let problems = [
        (Dropped::Network, DiscoveryProblem::OtherNetwork),
        (Dropped::Untrusted, DiscoveryProblem::Untrusted),
        (Dropped::Version, DiscoveryProblem::OtherVersion),
        (Dropped::Stale, DiscoveryProblem::Clock),
        (Dropped::Future, DiscoveryProblem::Clock),
    ];
    let seen = |&(reason, problem): &(Dropped, DiscoveryProblem)| {
        let count = stats.dropped(reason);
        let detail = match problem {
            DiscoveryProblem::Clock => format!("{count} dropped, over {} h off ({reason})", hours(CLOCK_SKEW_MAX)),
            DiscoveryProblem::Untrusted => {
                let first = stats.untrusted.map_or_else(String::new, |peer| format!(", such as of {peer}"));
                format!("{count} dropped ({reason}){first}")
            }
            _ => format!("{count} dropped ({reason})"),
        };
        (count > 0).then(|| bad("announces", &detail, problem))
    };
    problems.iter().filter_map(seen).collect()
}

fn hours(time: Duration) -> u64 {
    time.as_secs() / 3600
}

fn good(check: &str, detail: &str) -> Finding {
    Finding { check: check.into(), detail: detail.into(), problem: None }
}

fn bad(check: &str, detail: &str, problem: DiscoveryProblem) -> Finding {
    Finding { check: check.into(), detail: detail.into(), problem: Some(problem) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eth(sent: u64, heard: u64, error: Option<&str>) -> Link {
        Link {
            interface: "eth0".into(),
            addr: "10.0.0.1".parse().unwrap(),
            group: "239.255.71.80:27420".parse().unwrap(),
            hops: 1,
            sent,
            heard,
            error: error.map(|e| LinkError::Failed(e.into())),
        }
    }

    fn looked<'a>(config: &'a Config, links: &[Link], answers: Result<Vec<FoundPeer>, FetchError>) -> Looked<'a> {
        let (stats, counts) = (DiscoveryStats::default(), PeerCounts::default());
        let (links, seen_by) = (links.to_vec(), Vec::new());
        Looked { config, links, stats, counts, answers, seen_by, port: 0, hindrance: None, unreached: Vec::new() }
    }

    /// A node that others alone tell of was left out without a word.
    #[test]
    fn a_wrong_clock_of_a_node_that_peers_tell_of_is_named() {
        let off = Config { multicast: false, ..Config::default() };
        let looked = Looked { hindrance: Some(Hindrance::ClocksDiffer), ..looked(&off, &[], Ok(Vec::new())) };
        let clock = findings(&looked).into_iter().find(|f| f.problem == Some(DiscoveryProblem::Clock)).unwrap();
        assert_eq!(clock.detail, "some that peers pass on are dropped, over 24 h off");
    }

    #[test]
    fn what_peers_say_of_this_node_is_told() {
        let seen_by = |seen: &str, dialed| SeenBy {
            peer: crate::identity::Keypair::generate().peer_id(),
            here: "10.0.0.1".parse().unwrap(),
            seen: seen.parse().unwrap(),
            dialed,
        };
        let told = |seen: &str, dialed, port| {
            let all = seen_as(&seen_by(seen, dialed), (port, port == 443));
            all.into_iter().map(|f| (f.detail, f.problem)).collect::<Vec<_>>()
        };
        let own = ("10.0.0.1, an address of this host".to_string(), None);
        let reached = ("it reaches port 7 here".to_string(), None);
        assert_eq!(told("10.0.0.1:9", DialState::Reached, 7), [own.clone(), reached]);
        assert_eq!(told("10.0.0.1:9", DialState::NotTried, 0), [own], "a node that does not listen is not dialed");
        let behind = told("192.0.2.1:9", DialState::Failed, 7);
        assert!(behind[0].0.starts_with("192.0.2.1, while this host has 10.0.0.1") && behind[0].1.is_none());
        assert_eq!(behind[1].1, Some(DiscoveryProblem::NotReachable));
        for state in [DialState::NotTried, DialState::Trying] {
            assert_eq!(told("10.0.0.1:9", state, 7)[1].1, None);
        }
        // Cause: such a port looked like one whose turn did not come. Effect: the advice to wait a minute, for ever.
        let low = told("10.0.0.1:9", DialState::NotTried, 443);
        assert!(low[1].0.contains("no port below 1024 is tried") && !low[1].0.contains("a minute"), "{low:?}");
    }

    fn found(links: &[Link], config: &Config) -> Vec<(String, Option<DiscoveryProblem>)> {
        let all = findings(&looked(config, links, Ok(Vec::new())));
        all.into_iter().map(|f| (f.check, f.problem)).collect()
    }

    #[test]
    fn an_interface_that_hears_nothing_is_bad() {
        let (on, check) = (Config::default(), "interface eth0 10.0.0.1".to_string());
        assert_eq!(found(&[eth(3, 3, None)], &on), [(check.clone(), None)]);
        assert_eq!(found(&[eth(3, 0, None)], &on), [(check.clone(), Some(DiscoveryProblem::LinkSilent))]);
        assert_eq!(found(&[eth(0, 0, None)], &on), [(check.clone(), None)]);
        assert_eq!(
            found(&[eth(3, 3, Some("network is unreachable"))], &on),
            [(check, Some(DiscoveryProblem::LinkFails))]
        );
    }

    #[test]
    fn turned_sessions_are_told_of_if_there_are_any() {
        assert_eq!(turned(&TurnedStats::default()), None);
        let told = turned(&TurnedStats { answered: 3, asking: 1, offered: 2 }).unwrap().detail;
        assert!(told.contains("answers 3 peers") && told.contains("1 of them asked"), "{told}");
        assert!(told.contains("2 unused sessions"), "{told}");
    }

    #[test]
    fn the_dht_is_told_of_for_open_and_closed_groups() {
        let told = |stats: DhtStats, share, trust| {
            let found = dht(&stats, &Config { share, trust, ..Config::default() });
            (found.detail, found.problem)
        };
        let some = DhtStats { nodes: 9, published: true, keys: 3, found: 2, seen_as: None };
        let closed = || crate::Trust::keys([]).unwrap();
        let detail = |text: &str| (text.to_string(), None);
        assert_eq!(told(some, Share::Directory, closed()), detail("9 nodes, addresses published, found 2 of 3 keys"));
        let unpublished = DhtStats { published: false, ..some };
        let seen = DhtStats { seen_as: Some([192, 0, 2, 7].into()), ..some };
        let told_of = told(seen, Share::Directory, closed()).0;
        assert!(told_of.starts_with("9 nodes, they see 192.0.2.7, addresses published"), "{told_of}");
        let quiet = "9 nodes, nothing published, as no directory is shared, 2 addresses found";
        assert_eq!(told(unpublished, Share::Fetched, crate::Trust::open()), detail(quiet));
        assert_eq!(told(DhtStats::default(), Share::Directory, closed()).1, Some(DiscoveryProblem::DhtSilent));
    }

    #[test]
    fn dns_sd_says_what_it_does_or_why_not() {
        let works = DnsSdState { published: true, found: 2, error: None };
        assert_eq!(dns_sd(&works).detail, "this node is published, 2 others found");
        let fails = dns_sd(&DnsSdState { error: Some("no socket".into()), ..works });
        assert_eq!((fails.detail.as_str(), fails.problem), ("no socket", Some(DiscoveryProblem::DnsSdFails)));
    }

    #[test]
    fn what_goes_beyond_the_link_says_how_far() {
        let said = |hops| link(&Link { hops, ..eth(3, 2, None) }).detail;
        assert_eq!(said(1), "group 239.255.71.80:27420: 3 sent, 2 heard");
        assert_eq!(said(4), "group 239.255.71.80:27420, up to 4 hops: 3 sent, 2 heard");
    }

    #[test]
    fn missing_interfaces_and_answers_are_problems() {
        let off = Config { multicast: false, ..Config::default() };
        assert_eq!(found(&[], &Config::default()), [("multicast".into(), Some(DiscoveryProblem::NoInterface))]);
        assert_eq!(found(&[], &off), [("multicast".into(), None)]);
        let all = findings(&looked(&off, &[], Err(FetchError::NoPeer(off.timeout))));
        assert!(all.iter().any(|f| f.check == "peers" && f.problem == Some(DiscoveryProblem::NoAnswer)));
    }

    /// A wrong clock and a missing key were advised to open the firewall.
    #[test]
    fn the_cause_of_no_answer_is_told() {
        let refused = |cause| FetchError::Refused { peers: vec![(crate::PeerId([1; 32]), cause)] };
        let wait = Config::default().timeout;
        let cause = |error: &FetchError| unanswered(error, None, &[]);
        assert_eq!(cause(&FetchError::ClocksDiffer(wait)), DiscoveryProblem::Clock);
        assert_eq!(cause(&FetchError::NoPeer(wait)), DiscoveryProblem::NoAnswer);
        assert_eq!(cause(&refused(RefusalCause::NotTrustedThere)), DiscoveryProblem::Refused);
        assert_eq!(cause(&refused(RefusalCause::NotTrustedHere)), DiscoveryProblem::Untrusted);
        let peer = crate::PeerId([1; 32]);
        assert_eq!(unanswered(&FetchError::NoPeer(wait), Some(peer), &[]), DiscoveryProblem::Untrusted);
        let heard = [UnreachedPeer { peer, addr: "10.0.0.9:27420".parse().unwrap(), failed: false }];
        assert_eq!(unanswered(&FetchError::NoPeer(wait), Some(peer), &heard), DiscoveryProblem::Unreached);
        let config = Config::default();
        let looked = Looked { unreached: heard.into(), ..looked(&config, &[], Err(FetchError::NoPeer(wait))) };
        let told = findings(&looked).pop().unwrap();
        assert_eq!(told.check, format!("peer {peer}"));
        assert_eq!(
            (told.detail.as_str(), told.problem),
            ("is known, and was not reached at 10.0.0.9:27420", Some(DiscoveryProblem::Unreached))
        );
    }
}
