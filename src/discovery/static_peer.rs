//! A peer that the user names, `HOST[:PORT]`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::limits::{HOST_LEN_MAX, PORT};

/// The place of a peer, as typed: a name or an address, and a port, [`PORT`] if none is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticPeer {
    host: String,
    port: u16,
}

/// Not of the form `HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form HOST[:PORT]")]
pub struct ParseStaticPeerError(String);

impl StaticPeer {
    /// The address, if the host is one and no name.
    pub fn literal(&self) -> Option<SocketAddr> {
        // A full address with its scope, `fe80::1%3`, is only understood in brackets.
        let bracketed = format!("[{}]:{}", self.host, self.port);
        let ip = self.host.parse::<IpAddr>().ok();
        ip.map(|ip| SocketAddr::new(ip, self.port)).or_else(|| bracketed.parse().ok())
    }

    /// The name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for StaticPeer {
    type Err = ParseStaticPeerError;

    fn from_str(s: &str) -> Result<Self, ParseStaticPeerError> {
        let error = || ParseStaticPeerError(s.into());
        let (host, port) = if let Some(rest) = s.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(error)?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(error)?) };
            (host, port)
        } else {
            match s.split_once(':') {
                // More than one colon is an IPv6 address without brackets.
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                Some(_) => (s, None),
                None => (s, None),
            }
        };
        let port = port.map_or(Ok(PORT), |p| p.parse::<u16>().map_err(|_| error()))?;
        let peer = StaticPeer { host: host.into(), port };
        let name = !host.contains(':') && !host.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/');
        if host.is_empty() || host.len() > HOST_LEN_MAX || port == 0 || !(name || peer.literal().is_some()) {
            return Err(error());
        }
        Ok(peer)
    }
}

impl fmt::Display for StaticPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_and_without_a_port() {
        for (typed, shown, literal) in [
            ("lab-7", "lab-7:27420", false),
            ("lab.example:9", "lab.example:9", false),
            ("10.0.0.1", "10.0.0.1:27420", true),
            ("10.0.0.1:80", "10.0.0.1:80", true),
            ("fd00::1", "[fd00::1]:27420", true),
            ("[fd00::1]", "[fd00::1]:27420", true),
            ("[fd00::1]:80", "[fd00::1]:80", true),
            ("[fe80::1%3]:80", "[fe80::1%3]:80", true),
        ] {
            let peer: StaticPeer = typed.parse().unwrap();
            assert_eq!((peer.to_string().as_str(), peer.literal().is_some()), (shown, literal), "{typed}");
        }
    }

    #[test]
    fn what_is_no_host_is_an_error() {
        for typed in
            ["", ":80", "a:", "a:0", "a:70000", "a:b", "[fd00::1", "[fd00::1]80", "a b", "http://a", "fd00::zz"]
        {
            assert!(typed.parse::<StaticPeer>().is_err(), "{typed:?}");
        }
        assert_eq!("a:b".parse::<StaticPeer>().unwrap_err().to_string(), "\"a:b\" is not of the form HOST[:PORT]");
    }
}
