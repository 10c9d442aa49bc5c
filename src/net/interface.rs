//! An interface as a person names it.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An interface to discover peers on: its name in the system, or one of its addresses.
///
/// ```
/// use gpb::Interface;
///
/// assert_eq!("eth0".parse::<Interface>()?, Interface::Name("eth0".into()));
/// assert_eq!("10.0.0.1".parse::<Interface>()?, Interface::Ip([10, 0, 0, 1].into()));
/// assert!("a/b".parse::<Interface>().is_err());
/// # Ok::<(), gpb::error::ParseInterfaceError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interface {
    /// By its name in the system, such as `eth0`.
    Name(String),
    /// By an address that it has.
    Ip(IpAddr),
}

/// A text is neither an IP address nor a name that an interface can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is neither an IP address nor the name of an interface", .0.escape_debug())]
pub struct ParseInterfaceError(String);

impl FromStr for Interface {
    type Err = ParseInterfaceError;

    fn from_str(text: &str) -> Result<Self, ParseInterfaceError> {
        if let Ok(ip) = text.parse() {
            return Ok(Interface::Ip(ip));
        }
        let fits = (1..=NAME_LEN_MAX).contains(&text.len());
        if !fits || text.contains(|c: char| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control()) {
            return Err(ParseInterfaceError(text.into()));
        }
        Ok(Interface::Name(text.into()))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interface::Name(name) => f.write_str(name),
            Interface::Ip(ip) => ip.fmt(f),
        }
    }
}

impl From<IpAddr> for Interface {
    fn from(ip: IpAddr) -> Self {
        Interface::Ip(ip)
    }
}

impl TryFrom<&str> for Interface {
    type Error = ParseInterfaceError;

    fn try_from(text: &str) -> Result<Self, ParseInterfaceError> {
        text.parse()
    }
}

impl TryFrom<String> for Interface {
    type Error = ParseInterfaceError;

    fn try_from(text: String) -> Result<Self, ParseInterfaceError> {
        text.parse()
    }
}

impl From<Infallible> for ParseInterfaceError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Longest name of an interface in bytes (Linux).
const NAME_LEN_MAX: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        for (text, read) in [
            ("eth0", Interface::Name("eth0".into())),
            ("10.0.0.1", Interface::Ip([10, 0, 0, 1].into())),
            ("::1", Interface::Ip([0, 0, 0, 0, 0, 0, 0, 1].into())),
        ] {
            assert_eq!(text.parse(), Ok(read.clone()));
            assert_eq!(read.to_string(), text);
        }
        for text in ["", "a b", "a/b", "eth0:1", "0123456789abcdef", "a\n"] {
            let error = text.parse::<Interface>().unwrap_err();
            assert!(!error.to_string().contains('\n'), "{error:?}");
        }
    }
}
