//! How often each account may report chunks as bad: each report has a chunk read and hashed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::limits::BAD_REPORTS_PER_MIN;
use crate::server::connection_slots::Account;
use crate::server::limits::{REPORTERS_MAX, REPORTERS_PER_NET_MAX};

/// The reports of the accounts that sent any in the last minute, at most [`REPORTERS_MAX`] of them.
///
/// Counted by account and not by connection: one that connects again, or has many connections, may
/// report no more.
#[derive(Debug, Default)]
pub(crate) struct BadReports {
    by_account: HashMap<Account, ReportCount>,
}

#[derive(Debug)]
struct ReportCount {
    /// When its present minute began.
    began: Instant,
    count: u32,
}

impl BadReports {
    /// Whether one more report of `account` may be looked into.
    pub(crate) fn may_report(&mut self, account: Account, now: Instant) -> bool {
        let account = self.reporter(account);
        let is_over = |count: &ReportCount| now.saturating_duration_since(count.began) >= MINUTE;
        if self.by_account.len() >= REPORTERS_MAX && !self.by_account.contains_key(&account) {
            self.by_account.retain(|_, count| !is_over(count));
            if self.by_account.len() >= REPORTERS_MAX {
                return false;
            }
        }
        let reports = self.by_account.entry(account).or_insert(ReportCount { began: now, count: 0 });
        if is_over(reports) {
            *reports = ReportCount { began: now, count: 0 };
        }
        reports.count = reports.count.saturating_add(1);
        reports.count <= BAD_REPORTS_PER_MIN
    }

    /// The account that a report counts for. A host has all addresses of an IPv6 network (/64), and may
    /// have many of an IPv4 network (/24), of which all beyond [`REPORTERS_PER_NET_MAX`] are one
    /// account. Counted by address alone, one host could take the places of all reporters.
    fn reporter(&self, account: Account) -> Account {
        let account = account.of_host();
        let Account::Addr(IpAddr::V4(addr)) = account else { return account };
        if self.by_account.contains_key(&account) {
            return account;
        }
        let net = |addr: Ipv4Addr| addr.to_bits() & !0xff;
        let is_near = |of: &&Account| matches!(of, Account::Addr(IpAddr::V4(of)) if net(*of) == net(addr));
        let is_full = self.by_account.keys().filter(is_near).count() >= REPORTERS_PER_NET_MAX;
        Account::Addr(if is_full { Ipv4Addr::from_bits(net(addr)) } else { addr }.into())
    }
}

/// The time over which reports are counted.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn account(n: u32) -> Account {
        Account::Addr(IpAddr::from((n << 8).to_be_bytes()))
    }

    /// A host with 1,024 addresses of a few networks kept all others from reporting.
    #[test]
    fn many_addresses_of_an_ipv4_network_take_few_places() {
        let (mut reports, t) = (BadReports::default(), Instant::now());
        let addr = |net: u8, host: u8| Account::Addr([10, 0, net, host].into());
        let all = (0..4).flat_map(|net| (1..=255).map(move |host| (net, host)));
        for (net, host) in all.flat_map(|of| [of; 40]) {
            reports.may_report(addr(net, host), t);
        }
        assert_eq!(reports.by_account.len(), 4 * (REPORTERS_PER_NET_MAX + 1));
        assert!(!reports.may_report(addr(1, 200), t) && reports.may_report(addr(9, 1), t));
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_are_one_reporter() {
        let (mut reports, t) = (BadReports::default(), Instant::now());
        let addr = |net: u16, host: u16| Account::Addr(Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, host).into());
        let may = (0..u16::MAX).filter(|host| reports.may_report(addr(1, *host), t)).count();
        assert_eq!((may as u32, reports.by_account.len()), (BAD_REPORTS_PER_MIN, 1));
        assert!(reports.may_report(addr(2, 0), t));
    }

    /// Counted by connection, eight connections that came again and again took half of the rate of all others.
    #[test]
    fn an_account_reports_so_often_in_a_minute_however_it_connects() {
        let (mut reports, t) = (BadReports::default(), Instant::now());
        let of =
            |reports: &mut BadReports, n, at| (0..100).filter(|_| reports.may_report(account(n), at)).count() as u32;
        assert_eq!(of(&mut reports, 1, t), BAD_REPORTS_PER_MIN);
        assert_eq!(
            (of(&mut reports, 1, t + MINUTE / 2), of(&mut reports, 2, t + MINUTE / 2)),
            (0, BAD_REPORTS_PER_MIN)
        );
        assert_eq!(of(&mut reports, 1, t + MINUTE), BAD_REPORTS_PER_MIN);
    }

    #[test]
    fn the_number_of_accounts_is_bounded_and_comes_back() {
        let (mut reports, t) = (BadReports::default(), Instant::now());
        let all = (0..2 * REPORTERS_MAX as u32).filter(|n| reports.may_report(account(*n), t)).count();
        assert_eq!(all, REPORTERS_MAX);
        assert!(reports.may_report(account(9_999_999), t + MINUTE) && reports.by_account.len() == 1);
    }
}
