//! What is wrong with the interfaces of this host: each trouble is logged once, until it is over.

use std::collections::BTreeSet;
use std::io;

use crate::net::beacon::{Link, LinkError};
use crate::net::interfaces::InterfaceAddr;
use crate::net::limits::LINK_TROUBLES_MAX;

/// The troubles of the interfaces.
#[derive(Default)]
pub(crate) struct Troubles {
    /// The kinds of trouble that last and have been logged.
    logged: BTreeSet<String>,
    /// Addresses that could not be used at the last look, for the first time.
    tentative: BTreeSet<InterfaceAddr>,
    /// The interfaces that could not be used at the last look.
    unusable: Vec<Link>,
}

impl Troubles {
    /// Logs trouble of one kind, unless it lasts since it was logged before.
    pub(crate) fn warn_once(&mut self, what: &str, text: impl FnOnce() -> String) {
        if self.logged.len() < LINK_TROUBLES_MAX && self.logged.insert(what.into()) {
            log::warn!("{}", text());
        }
    }

    /// A trouble of that kind is over.
    pub(crate) fn over(&mut self, what: &str) {
        self.logged.remove(what);
    }

    /// Begins a new look at the interfaces.
    pub(crate) fn begin_look(&mut self) {
        self.unusable.clear();
    }

    /// The interfaces that could not be used at the last look.
    pub(crate) fn unusable(&self) -> impl Iterator<Item = Link> {
        self.unusable.iter().cloned()
    }

    /// `place` can be used.
    pub(crate) fn usable(&mut self, place: &InterfaceAddr) {
        self.tentative.remove(place);
        self.over(&name_of(place));
    }

    /// `place` cannot be used, because of `error`. An address that has just come up may not be
    /// ready: IPv6 looks for duplicates first (RFC 4862), so only the second failure of that kind
    /// is logged.
    pub(crate) fn failed(&mut self, place: InterfaceAddr, error: &io::Error) {
        let group = place.group();
        let cause = match error.kind() {
            io::ErrorKind::AddrInUse => LinkError::PortTaken,
            _ => LinkError::Failed(error.to_string()),
        };
        let is_tentative = error.kind() == io::ErrorKind::AddrNotAvailable && self.tentative.insert(place.clone());
        if !is_tentative {
            let name = name_of(&place);
            self.warn_once(&name, || format!("interface cannot be used link={name:?} error=\"{cause}\""));
        }
        let InterfaceAddr { interface, addr, hops, .. } = place;
        self.unusable.push(Link { interface, addr, group, hops, sent: 0, heard: 0, error: Some(cause) });
    }
}

fn name_of(place: &InterfaceAddr) -> String {
    let scope = if place.addr.is_ipv6() && place.hops > 1 { " site" } else { "" };
    format!("{} {}{scope}", place.interface, place.addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_has_just_come_up_gets_a_second_look() {
        let (interface, addr) = ("eth0".into(), "fe80::1".parse().unwrap());
        let place = InterfaceAddr { interface, index: 2, addr, prefix_len: 64, hops: 1 };
        let mut troubles = Troubles::default();
        let not_yet = io::Error::from(io::ErrorKind::AddrNotAvailable);
        troubles.failed(place.clone(), &not_yet);
        assert!(troubles.logged.is_empty() && troubles.unusable().count() == 1);
        troubles.begin_look();
        troubles.failed(place.clone(), &not_yet);
        assert_eq!((troubles.logged.len(), troubles.unusable().count()), (1, 1));
        troubles.begin_look();
        troubles.usable(&place);
        assert!(troubles.logged.is_empty() && troubles.unusable().count() == 0);
        troubles.failed(place, &io::ErrorKind::AddrInUse.into());
        assert_eq!(troubles.unusable().next().unwrap().error, Some(LinkError::PortTaken));
    }
}
