//! Where a peer is, as a person names it: `HOST[:PORT]`.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::limits::{HOST_LEN_MAX, PORT};
use crate::net::Interface;

/// The address of a peer that is contacted without multicast: a host name or an IP address, and a
/// TCP port.
///
/// As text it is `HOST`, `HOST:PORT`, an IPv6 address, or `[IPv6]:PORT`; the port is 27420 where
/// none is given, and an IPv6 address may end in `%ZONE`.
///
/// ```
/// use gpb::PeerAddr;
///
/// let lab: PeerAddr = "lab3".parse()?;
/// assert_eq!((lab.host(), lab.port()), ("lab3", 27420));
/// assert_eq!("[fe80::1%eth0]:9".parse::<PeerAddr>()?.host(), "fe80::1%eth0");
/// assert!("lab3:0".parse::<PeerAddr>().is_err());
///
/// let socket: std::net::SocketAddr = "10.0.0.7:27420".parse()?;
/// assert_eq!(PeerAddr::from(socket).to_string(), "10.0.0.7:27420");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddr {
    /// A name or an address without brackets.
    host: String,
    port: u16,
}

/// Why a text is no [`PeerAddr`].
///
/// ```
/// use gpb::{PeerAddr, error::ParsePeerAddrError};
///
/// let error = "lab3:http".parse::<PeerAddr>().unwrap_err();
/// assert_eq!(error, ParsePeerAddrError::Port("lab3:http".into()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePeerAddrError {
    /// Not of the form `HOST[:PORT]`.
    #[error(
        "`{}` is no HOST[:PORT] (such as lab3, 10.0.0.7:27420 or [fe80::1%eth0]:27420)",
        .0.escape_debug()
    )]
    Form(String),
    /// A port that is no number from 1 to 65535.
    #[error("`{}` has no usable port (1 to 65535)", .0.escape_debug())]
    Port(String),
    /// A link-local IPv6 address, which means another host on each link, without its interface.
    #[error("`{}` is a link-local address and needs its interface, as in [fe80::1%eth0]:27420", .0.escape_debug())]
    Zone(String),
}

impl PeerAddr {
    /// The host name or IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket address, if it needs no look-up: the host is an IP address without a named zone.
    pub(crate) fn literal(&self) -> Option<SocketAddr> {
        // A numeric zone, `fe80::1%3`, is understood in brackets only.
        let bracketed = format!("[{}]:{}", self.host, self.port);
        let ip = self.host.parse::<IpAddr>().ok();
        ip.map(|ip| SocketAddr::new(ip, self.port)).or_else(|| bracketed.parse().ok())
    }
}

impl FromStr for PeerAddr {
    type Err = ParsePeerAddrError;

    fn from_str(text: &str) -> Result<Self, ParsePeerAddrError> {
        let bad = || ParsePeerAddrError::Form(text.into());
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, tail) = rest.split_once(']').ok_or_else(bad)?;
            if !is_ipv6(host) || !(tail.is_empty() || tail.starts_with(':')) {
                return Err(bad());
            }
            (host, tail.strip_prefix(':'))
        } else if is_ipv6(text) {
            (text, None)
        } else {
            // Two colons are an IPv6 address that is none, whatever stands behind the first.
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            if port.is_some_and(|port| port.contains(':')) {
                return Err(bad());
            }
            (host, port)
        };
        if !is_ipv6(host) && !is_host(host) {
            return Err(bad());
        }
        if host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_unicast_link_local()) {
            return Err(ParsePeerAddrError::Zone(text.into()));
        }
        let number = |p: &str| p.bytes().all(|b| b.is_ascii_digit()).then(|| p.parse().ok()).flatten();
        let port = port.map_or(Some(PORT), number).filter(|&port| port != 0);
        let port = port.ok_or_else(|| ParsePeerAddrError::Port(text.into()))?;
        Ok(PeerAddr { host: host.into(), port })
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

impl From<SocketAddr> for PeerAddr {
    fn from(addr: SocketAddr) -> Self {
        let host = match addr {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
            _ => addr.ip().to_string(),
        };
        PeerAddr { host, port: addr.port() }
    }
}

impl TryFrom<&str> for PeerAddr {
    type Error = ParsePeerAddrError;

    fn try_from(text: &str) -> Result<Self, ParsePeerAddrError> {
        text.parse()
    }
}

impl TryFrom<String> for PeerAddr {
    type Error = ParsePeerAddrError;

    fn try_from(text: String) -> Result<Self, ParsePeerAddrError> {
        text.parse()
    }
}

impl From<Infallible> for ParsePeerAddrError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

fn is_ipv6(text: &str) -> bool {
    let (ip, zone) = text.split_once('%').unwrap_or((text, "0"));
    // A bracket in the zone belongs to another spelling, one whose other bracket is missing.
    let zone = Some(zone).filter(|zone| !zone.contains(['[', ']']));
    ip.parse::<Ipv6Addr>().is_ok() && matches!(zone.map(str::parse), Some(Ok(Interface::Name(_))))
}

fn is_host(text: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    (1..=HOST_LEN_MAX).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_and_without_a_port() {
        for (typed, shown, literal) in [
            ("lab-7", "lab-7:27420", false),
            ("lab.example:9", "lab.example:9", false),
            ("a_b.example.org.:1", "a_b.example.org.:1", false),
            ("10.0.0.1", "10.0.0.1:27420", true),
            ("10.0.0.1:65535", "10.0.0.1:65535", true),
            ("fd00::1", "[fd00::1]:27420", true),
            ("[fd00::1]", "[fd00::1]:27420", true),
            ("[fd00::1]:80", "[fd00::1]:80", true),
            ("[fe80::1%3]:80", "[fe80::1%3]:80", true),
            ("fe80::1%eth0", "[fe80::1%eth0]:27420", false),
            ("[fe80::1%eth0]:80", "[fe80::1%eth0]:80", false),
            ("[fe80::1%eth0.7]", "[fe80::1%eth0.7]:27420", false),
            ("::ffff:10.0.0.1", "[::ffff:10.0.0.1]:27420", true),
            ("gpb.default.svc.cluster.local:27420", "gpb.default.svc.cluster.local:27420", false),
        ] {
            let peer: PeerAddr = typed.parse().unwrap();
            assert_eq!((peer.to_string().as_str(), peer.literal().is_some()), (shown, literal), "{typed}");
            assert_eq!(shown.parse(), Ok(peer), "{typed}");
        }
    }

    #[test]
    fn socket_addresses_keep_their_zone() {
        for text in ["10.0.0.1:9", "[fd00::1]:9", "[fe80::1%3]:9"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(PeerAddr::from(addr).literal(), Some(addr));
        }
    }

    #[test]
    fn what_is_no_peer_is_an_error() {
        for text in [
            "",
            ":",
            ":5",
            "a b",
            "a,b",
            "[::1",
            "::1]",
            "[::1]5",
            "[lab3]:5",
            "-x",
            "a/b",
            "h\nx",
            "[]",
            "ü",
            "h{x",
            "[fe80::1%]:5",
            "[::1] :5",
            "fe80::1%eth0:9",
            "fe80::1%eth0]:9",
            "[fe80::1%[eth0]:9",
            "a:b:c",
            "fd00::zz",
        ] {
            let error = text.parse::<PeerAddr>().unwrap_err();
            assert!(matches!(error, ParsePeerAddrError::Form(_)), "{text}: {error}");
            assert!(!error.to_string().contains('\n'), "{error:?}");
        }
        for text in ["fe80::1", "[fe80::1]", "[fe80::1]:9", "febf::1"] {
            assert!(matches!(text.parse::<PeerAddr>(), Err(ParsePeerAddrError::Zone(_))), "{text}");
        }
        for text in ["h:0", "h:", "h:65536", "h:+1", "[::1]:", "h: 1"] {
            assert!(matches!(text.parse::<PeerAddr>(), Err(ParsePeerAddrError::Port(_))), "{text}");
        }
    }
}
