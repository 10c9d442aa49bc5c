//! The values that options take, and their one-line errors.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::limits::SECONDS_MAX;
use crate::cli::text::escape;
use crate::limits::{HOPS_MAX, NETWORK_LEN_MAX};
use crate::net::{Interface, ParseInterfaceError, ParsePeerAddrError, PeerAddr};
use crate::proto::{DhtSecret, DhtSecretError};

/// A port; 0 stands for any.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    digits(text).and_then(|d| d.parse().ok()).ok_or_else(|| format!("`{}` is no port (0 to 65535)", escape(text)))
}

/// An IP address, IPv6 with or without brackets.
pub(crate) fn bind(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let ip = match bare {
        Some(inner) => inner.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
        None => text.parse().ok(),
    };
    ip.ok_or_else(|| match text.parse::<std::net::SocketAddr>() {
        Ok(addr) => format!("`{text}` has a port; write {} here and --port {}", addr.ip(), addr.port()),
        Err(_) => format!("`{}` is no IP address (such as 192.168.1.5, 0.0.0.0 or ::)", escape(text)),
    })
}

/// A peer to contact: `HOST[:PORT]`.
pub(crate) fn peer(text: &str) -> Result<PeerAddr, String> {
    text.parse().map_err(|e: ParsePeerAddrError| escape(&e.to_string()).into())
}

/// A node of a DHT. Its port has no default: no number is usual.
pub(crate) fn dht_node(text: &str) -> Result<PeerAddr, String> {
    let has_port = text.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    if has_port { peer(text) } else { Err(format!("`{}` is no HOST:PORT", escape(text))) }
}

/// What an open group shares in a DHT.
pub(crate) fn dht_secret(text: &str) -> Result<DhtSecret, String> {
    // The text is not shown.
    text.parse().map_err(|e: DhtSecretError| e.to_string())
}

/// The name or an address of an interface.
pub(crate) fn interface(text: &str) -> Result<Interface, String> {
    text.parse().map_err(|e: ParseInterfaceError| escape(&e.to_string()).into())
}

/// How far multicast goes.
pub(crate) fn hops(text: &str) -> Result<u8, String> {
    let hops = digits(text).and_then(|d| d.parse().ok()).filter(|n| (1..=HOPS_MAX).contains(n));
    hops.ok_or_else(|| format!("`{}` is no number of hops (1 to {HOPS_MAX})", escape(text)))
}

/// The name of a network.
pub(crate) fn network(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NETWORK_LEN_MAX || text.chars().any(char::is_control) {
        return Err(format!("a network name has 1 to {NETWORK_LEN_MAX} bytes and no control characters"));
    }
    Ok(text.into())
}

/// A time in seconds, decimals allowed, 0 too.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let plain = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let seconds = text.parse::<f64>().ok().filter(|s| plain && *s <= SECONDS_MAX);
    let time = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
    time.ok_or_else(|| format!("`{}` is no time in seconds (such as 10 or 0.5)", escape(text)))
}

/// A time in seconds, decimals allowed, more than 0.
pub(crate) fn seconds_positive(text: &str) -> Result<Duration, String> {
    let time = seconds(text)?;
    if time.is_zero() { Err("must be more than 0 seconds".into()) } else { Ok(time) }
}

/// Bytes a second: a number, decimals allowed, and a unit. `kB`, `MB`, `GB` are powers of 1000,
/// `KiB`, `MiB`, `GiB` powers of 1024, `B` or nothing is bytes; only the first letter's case is
/// free, and `/s` may follow.
pub(crate) fn rate(text: &str) -> Result<NonZeroU64, String> {
    let bad = || {
        format!("`{}` is no rate (such as 10MB, 500KiB or 2.5GB a second; B, kB, MB, GB, KiB, MiB, GiB)", escape(text))
    };
    let bare = text.strip_suffix("/s").unwrap_or(text);
    let unit_at = bare.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(bare.len());
    let (number, unit) = (&bare[..unit_at], bare[unit_at..].trim_start());
    let mut letters = unit.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    let scale: u64 = match (first, letters.as_str()) {
        (None | Some('B'), "") => 1,
        (Some('K'), "B") => 1_000,
        (Some('M'), "B") => 1_000_000,
        (Some('G'), "B") => 1_000_000_000,
        (Some('K'), "iB") => 1 << 10,
        (Some('M'), "iB") => 1 << 20,
        (Some('G'), "iB") => 1 << 30,
        _ => return Err(bad()),
    };
    let value = match digits(number) {
        Some(whole) => whole.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)),
        None => number.parse::<f64>().ok().map(|n| n * scale as f64).filter(|n| *n < 1e18).map(|n| n as u64),
    };
    NonZeroU64::new(value.ok_or_else(bad)?)
        .ok_or_else(|| "0 would stop everything; leave the option out for no limit".into())
}

/// A number of bytes, as in a [`rate`], also in `TB` and `TiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bad = || {
        format!("`{}` is no size (such as 100GiB, 1.5TB or 500MB; B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)", escape(text))
    };
    let of = |unit: &str, scale: f64| {
        let number = text.strip_suffix(unit)?.trim_end();
        let plain = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.');
        number.parse::<f64>().ok().filter(|_| plain).map(|n| n * scale)
    };
    let tera = of("TiB", (1_u64 << 40) as f64).or_else(|| of("TB", 1e12));
    match tera {
        Some(bytes) if (1.0..1e18).contains(&bytes) => Ok(bytes as u64),
        Some(_) => Err(bad()),
        None if text.ends_with("/s") => Err(bad()),
        None => rate(text).map(NonZeroU64::get).map_err(|_| bad()),
    }
}

/// A time of some seconds, minutes, hours, days or weeks: `45s`, `30m`, `12h`, `7d`, `2w`. A number alone is
/// refused: copies that were to stay 7 days would be gone after 7 seconds.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{}` is no time (such as 7d, 12h, 30m or 2w)", escape(text));
    let (number, scale) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1.0),
        Some((at, 'm')) => (&text[..at], 60.0),
        Some((at, 'h')) => (&text[..at], 3600.0),
        Some((at, 'd')) => (&text[..at], 86_400.0),
        Some((at, 'w')) => (&text[..at], 604_800.0),
        _ => return Err(bad()),
    };
    let time = seconds(number).map_err(|_| bad())?.mul_f64(scale);
    if time.is_zero() || time.as_secs_f64() > SECONDS_MAX { Err(bad()) } else { Ok(time) }
}

/// Where a download goes. A file is written at random places, which standard output has not.
pub(crate) fn out_file(value: &OsStr) -> Result<PathBuf, String> {
    if value == "-" {
        Err("`--out -`: a download is not written to standard output; name a file (`./-` for one named `-`)".into())
    } else {
        Ok(value.into())
    }
}

/// A log level.
pub(crate) fn level(text: &str) -> Result<log::LevelFilter, String> {
    text.parse().map_err(|_| format!("`{}` is no level (off, error, warn, info, debug, trace)", escape(text)))
}

/// The value of a switch in a variable or in the configuration file.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("`{}` is neither 1, true, 0 nor false", escape(text))),
    }
}

fn digits(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates() {
        for (text, bytes) in [
            ("1", 1),
            ("500", 500),
            ("7B", 7),
            ("7b", 7),
            ("1kB", 1_000),
            ("1KB", 1_000),
            ("10MB", 10_000_000),
            ("10mB", 10_000_000),
            ("2GB", 2_000_000_000),
            ("500KiB", 512_000),
            ("500kiB", 512_000),
            ("1MiB", 1 << 20),
            ("3GiB", 3 << 30),
            ("1.5MB", 1_500_000),
            ("0.5KiB", 512),
            ("10 MB", 10_000_000),
            ("10MB/s", 10_000_000),
        ] {
            assert_eq!(rate(text).map(NonZeroU64::get), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "MB",
            "-1",
            "+1",
            "1e3",
            "10Mb",
            "10mb",
            "10MBit",
            "k",
            "1k",
            "1TB",
            "1..5MB",
            "1.2.3",
            "ten",
            "18446744073709551616",
            "99999999999999999GB",
            "nan",
            ".",
        ] {
            assert!(rate(text).unwrap_err().contains("no rate"), "{text}");
        }
        for text in ["0", "0MB", "0.1B", "0.0"] {
            assert!(rate(text).unwrap_err().contains("leave the option out"), "{text}");
        }
    }

    #[test]
    fn sizes_and_ages() {
        for (text, bytes) in
            [("100GiB", 100_u64 << 30), ("1.5TB", 1_500_000_000_000), ("2TiB", 2 << 40), ("7", 7), ("1 MB", 1_000_000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "GiB", "1GiB/s", "-1TB", "1e3TB", "TB", "99999999TB", "x", "1PB"] {
            assert!(size(text).unwrap_err().contains("no size"), "{text}");
        }
        let days = |n: u64| Duration::from_secs(n * 86_400);
        for (text, time) in [
            ("7d", days(7)),
            ("2w", days(14)),
            ("12h", days(1) / 2),
            ("1.5d", days(3) / 2),
            ("45s", Duration::from_secs(45)),
        ] {
            assert_eq!(age(text), Ok(time), "{text}");
        }
        for text in ["", "7", "d", "0d", "-1d", "7x", "7dd", "1e3d", "99999999999w", "ü"] {
            assert!(age(text).unwrap_err().contains("no time"), "{text}");
        }
    }

    #[test]
    fn addresses_and_interfaces() {
        assert_eq!(bind("[::]"), Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        assert_eq!((bind("::1").is_ok(), bind("0.0.0.0").is_ok()), (true, true));
        assert!(bind("127.0.0.1:80").unwrap_err().contains("--port 80"));
        for text in ["", "localhost", "[127.0.0.1]", "[::", "1.2.3"] {
            assert!(bind(text).unwrap_err().contains("no IP address"), "{text}");
        }
        assert!(interface("a/b").unwrap_err().contains("name of an interface"));
        assert!(peer("h\u{202e}x").unwrap_err().contains("`h\\u{202e}x` is no HOST[:PORT]"));
    }

    #[test]
    fn times_ports_names_and_switches() {
        assert_eq!((seconds("0"), seconds("0.25")), (Ok(Duration::ZERO), Ok(Duration::from_millis(250))));
        assert!(seconds_positive("0").is_err() && seconds_positive("0.0").is_err() && seconds_positive("1").is_ok());
        for text in ["", "-1", "1e3", "inf", "NaN", "10s", ".", "9999999999999"] {
            assert!(seconds(text).is_err() && seconds_positive(text).is_err(), "{text}");
        }
        assert_eq!((port("0"), port("65535")), (Ok(0), Ok(65535)));
        for text in ["", "65536", "-1", "+1", " 1", "http"] {
            assert!(port(text).is_err(), "{text}");
        }
        assert_eq!((hops("1"), hops("32")), (Ok(1), Ok(32)));
        for text in ["", "0", "33", "-1", "256", "many"] {
            assert!(hops(text).unwrap_err().contains("1 to 32"), "{text}");
        }
        assert!(network("gpb").is_ok() && network(&"x".repeat(64)).is_ok());
        assert!(network("").is_err() && network(&"x".repeat(65)).is_err() && network("a\nb").is_err());
        assert_eq!((switch("TRUE"), switch("0")), (Ok(true), Ok(false)));
        assert!(switch("yes").is_err() && switch("").is_err());
        assert_eq!(level("Debug"), Ok(log::LevelFilter::Debug));
        assert!(level("loud").unwrap_err().contains("off, error, warn"));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_errors_are_one_line(text in "\\PC{0,8}|[0-9.]{0,30}[a-zA-Z/ ]{0,4}|[\\[\\]:0-9a-f%.]{0,20}|\\s\\PC{0,3}") {
            let errors = [
                port(&text).err(),
                bind(&text).err(),
                peer(&text).err(),
                interface(&text).err(),
                hops(&text).err(),
                network(&text).err(),
                seconds_positive(&text).err(),
                rate(&text).err(),
                level(&text).err(),
                switch(&text).err(),
            ];
            for e in errors.into_iter().flatten() {
                prop_assert!(!e.chars().any(char::is_control), "{e:?}");
            }
        }
    }
}
