//! What discovery can and cannot do here, and what to change. Pure: made of what was seen.

use crate::client::{FetchError, FoundPeer};
use crate::discovery::Stats;
use crate::limits::{CLOCK_SKEW_MAX, PORT};
use crate::net::Link;
use crate::node::Config;
use crate::swarm::Dropped;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, such as `interface eth0`.
    pub check: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// What to change; empty if all is well.
    pub advice: String,
}

/// Everything worth telling, the ways first, then who came over them.
pub(super) fn findings(
    config: &Config,
    links: &[Link],
    stats: &Stats,
    answers: Result<Vec<FoundPeer>, FetchError>,
) -> Vec<Finding> {
    let mut all: Vec<Finding> = links.iter().map(link).collect();
    if !config.multicast {
        all.push(good("multicast", "switched off; only peers named with --peer, and whom they know, are found"));
    } else if links.is_empty() {
        let advice = "bring an interface up, or look at --interface and --bind";
        all.push(bad("multicast", "no interface to announce on", advice));
    }
    all.extend(drops(stats));
    match answers {
        Ok(peers) => all.extend(peers.iter().map(|p| {
            let detail = format!("answers at {} with {} files", p.addr, p.files);
            good(&format!("peer {}", p.peer), &detail)
        })),
        Err(e) => all.push(bad("peers", &e.to_string(), &format!("let UDP and TCP port {PORT} through the firewalls"))),
    }
    all
}

fn link(link: &Link) -> Finding {
    let check = format!("interface {} {}", link.interface, link.addr);
    let detail = format!("group {}: {} sent, {} heard", link.group, link.sent, link.heard);
    match &link.error {
        Some(error) => bad(&check, &format!("{detail}; {error}"), "look at the interface's address and routes"),
        None if link.sent > 0 && link.heard == 0 => {
            bad(&check, &detail, "nothing comes back, not even the own packets: look at the firewall of this host")
        }
        None => good(&check, &detail),
    }
}

/// Announces that came and were not taken in, where that means something to a person.
fn drops(stats: &Stats) -> Vec<Finding> {
    let advice = [
        (Dropped::Network, "other networks are here; --network chooses one"),
        (Dropped::Untrusted, "keys that are not in the trusted file"),
        (Dropped::Version, "other versions of gpb are here; update them"),
        (Dropped::Stale, "a clock is wrong; set it"),
        (Dropped::Future, "a clock is wrong; set it"),
    ];
    let seen = |&(reason, advice): &(Dropped, &str)| {
        let count = stats.dropped(reason);
        let hours = CLOCK_SKEW_MAX.as_secs() / 3600;
        let detail = match reason {
            Dropped::Stale | Dropped::Future => format!("{count} dropped, over {hours} h off ({reason})"),
            _ => format!("{count} dropped ({reason})"),
        };
        (count > 0).then(|| bad("announces", &detail, advice))
    };
    advice.iter().filter_map(seen).collect()
}

fn good(check: &str, detail: &str) -> Finding {
    Finding { check: check.into(), ok: true, detail: detail.into(), advice: String::new() }
}

fn bad(check: &str, detail: &str, advice: &str) -> Finding {
    Finding { check: check.into(), ok: false, detail: detail.into(), advice: advice.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eth(sent: u64, heard: u64, error: Option<&str>) -> Link {
        Link {
            interface: "eth0".into(),
            addr: "10.0.0.1".parse().unwrap(),
            group: "239.255.71.80:27420".parse().unwrap(),
            sent,
            heard,
            error: error.map(Into::into),
        }
    }

    fn told(links: &[Link], config: &Config) -> Vec<(String, bool)> {
        let all = findings(config, links, &Stats::default(), Ok(Vec::new()));
        all.into_iter().map(|f| (f.check, f.ok)).collect()
    }

    #[test]
    fn an_interface_that_hears_nothing_is_bad() {
        let (on, check) = (Config::default(), "interface eth0 10.0.0.1".to_string());
        assert_eq!(told(&[eth(3, 3, None)], &on), [(check.clone(), true)]);
        assert_eq!(told(&[eth(3, 0, None)], &on), [(check.clone(), false)]);
        assert_eq!(told(&[eth(0, 0, None)], &on), [(check.clone(), true)]);
        assert_eq!(told(&[eth(3, 3, Some("network is unreachable"))], &on), [(check, false)]);
    }

    #[test]
    fn without_interfaces_or_answers_something_is_to_be_changed() {
        let off = Config { multicast: false, ..Config::default() };
        assert_eq!(told(&[], &Config::default()), [("multicast".into(), false)]);
        assert_eq!(told(&[], &off), [("multicast".into(), true)]);
        let all = findings(&off, &[], &Stats::default(), Err(FetchError::NoPeer(off.timeout)));
        assert!(all.iter().any(|f| f.check == "peers" && !f.ok && f.advice.contains("27420")));
    }
}
