//! The memory of the sessions that no worker has, in all and by account.

use std::collections::HashMap;

use crate::limits::PARKED_OUTPUT_MAX;
use crate::server::connection_slots::Account;
use crate::server::limits::PARKED_SHARE_MIN;

/// What is parked: half read requests, and answers that peers do not take.
///
/// When half of the bound is used up, accounts that have more than their share produce little at
/// once. Others are served as before: readers that are slow, however many, cost a quick one nothing.
/// Over the bound, the account that has most of it loses sessions first.
#[derive(Debug, Default)]
pub(crate) struct ParkedMemory {
    len: usize,
    by_account: HashMap<Account, usize>,
}

impl ParkedMemory {
    /// A session of `account` is parked with `len` bytes.
    pub(crate) fn add(&mut self, account: Account, len: usize) {
        if len > 0 {
            self.len += len;
            *self.by_account.entry(account).or_default() += len;
        }
    }

    /// It is parked no longer.
    pub(crate) fn remove(&mut self, account: Account, len: usize) {
        if let (Some(of_account), 1..) = (self.by_account.get_mut(&account), len) {
            self.len -= len;
            *of_account -= len;
            if *of_account == 0 {
                self.by_account.remove(&account);
            }
        }
    }

    /// Whether sessions of `account` are to produce little at once.
    pub(crate) fn is_scarce_for(&self, account: Account) -> bool {
        let share = PARKED_OUTPUT_MAX / 2 / self.by_account.len().max(1);
        self.len > PARKED_OUTPUT_MAX / 2 && self.of(account) > share.max(PARKED_SHARE_MIN)
    }

    /// Whether more is parked than may be.
    pub(crate) fn is_over(&self) -> bool {
        self.len > PARKED_OUTPUT_MAX
    }

    /// Bytes that the sessions of `account` take.
    pub(crate) fn of(&self, account: Account) -> usize {
        self.by_account.get(&account).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::limits::{KIB, MIB};

    fn account(n: u8) -> Account {
        Account::Addr(IpAddr::from([10, 0, 0, n]))
    }

    /// Cause: that memory is scarce was said to all sessions. Effect: 500 slow readers took a third of
    /// the rate from a quick one, whose answers went out in parts of 16 KiB. Mend: only accounts with
    /// more than their share produce little.
    #[test]
    fn memory_is_scarce_for_those_who_have_it() {
        let mut parked = ParkedMemory::default();
        (1..=4).for_each(|n| parked.add(account(n), 2 * MIB));
        parked.add(account(5), 100 * KIB);
        assert!((1..=4).all(|n| parked.is_scarce_for(account(n))), "more than a fifth of 8 MiB each");
        assert!(!parked.is_scarce_for(account(5)) && !parked.is_scarce_for(account(6)) && !parked.is_over());
        parked.remove(account(1), 2 * MIB);
        assert!(!parked.is_scarce_for(account(2)), "less than half of all");
        parked.add(account(6), PARKED_OUTPUT_MAX);
        assert!(parked.is_over() && parked.of(account(6)) == PARKED_OUTPUT_MAX);
        (2..=4).for_each(|n| parked.remove(account(n), 2 * MIB));
        parked.remove(account(5), 100 * KIB);
        parked.remove(account(6), PARKED_OUTPUT_MAX);
        assert!(parked.len == 0 && parked.by_account.is_empty());
    }
}
