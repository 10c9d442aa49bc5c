//! The address that a node listens on.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address to listen on, as [`NodeBuilder::bind`](crate::NodeBuilder::bind) takes it: an
/// [`IpAddr`] or its text.
///
/// ```
/// use gpb::BindAddr;
///
/// assert_eq!("127.0.0.1".parse::<BindAddr>()?, BindAddr([127, 0, 0, 1].into()));
/// assert!("localhost".parse::<BindAddr>().is_err());
/// # Ok::<(), gpb::error::ParseBindAddrError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindAddr(pub IpAddr);

/// A text is no IP address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no IP address to listen on", .0.escape_debug())]
pub struct ParseBindAddrError(String);

impl FromStr for BindAddr {
    type Err = ParseBindAddrError;

    fn from_str(text: &str) -> Result<Self, ParseBindAddrError> {
        text.parse().map(BindAddr).map_err(|_| ParseBindAddrError(text.into()))
    }
}

impl fmt::Display for BindAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<IpAddr> for BindAddr {
    fn from(addr: IpAddr) -> Self {
        BindAddr(addr)
    }
}

impl From<Ipv4Addr> for BindAddr {
    fn from(addr: Ipv4Addr) -> Self {
        BindAddr(addr.into())
    }
}

impl From<Ipv6Addr> for BindAddr {
    fn from(addr: Ipv6Addr) -> Self {
        BindAddr(addr.into())
    }
}

impl TryFrom<&str> for BindAddr {
    type Error = ParseBindAddrError;

    fn try_from(text: &str) -> Result<Self, ParseBindAddrError> {
        text.parse()
    }
}

impl TryFrom<String> for BindAddr {
    type Error = ParseBindAddrError;

    fn try_from(text: String) -> Result<Self, ParseBindAddrError> {
        text.parse()
    }
}

impl From<Infallible> for ParseBindAddrError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
