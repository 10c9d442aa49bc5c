//! How many files this process may hold open, each connection being one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::limits::{CONNECTIONS_MIN, DESCRIPTORS_RESERVED};

/// Raises the limit as far as the system lets a process do that by itself, and returns how many connections fit. The
/// usual soft limit of 1,024 is for programs that cannot count further; one host could use it up.
pub(crate) fn connections_that_fit() -> usize {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
        if let Err(e) = raised {
            log::debug!("limit of open files stays as it is error=\"{e}\"");
        }
    }
    let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    log::debug!("limit of open files was={} is={files}", before.current.unwrap_or(u64::MAX));
    files.saturating_sub(DESCRIPTORS_RESERVED).max(CONNECTIONS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_can_be_and_leaves_room_for_files() {
        let fit = connections_that_fit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert!(limit.current.is_none_or(|n| fit == CONNECTIONS_MIN || fit as u64 + DESCRIPTORS_RESERVED as u64 == n));
    }
}
