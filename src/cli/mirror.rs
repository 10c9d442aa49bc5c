//! The options of a server that keeps copies of what others share.

use std::path::Path;
use std::time::Duration;

use crate::cli::limits::{MIRROR_FROM_MAX, MIRROR_PATTERNS_MAX};
use crate::cli::select::{checked, peer};
use crate::cli::sources::{Setting, Settings};
use crate::cli::value;
use crate::identity::KeyPrefix;

/// What a server mirrors, and how long copies stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorOptions {
    /// What is mirrored, each a valid [`Pattern`](crate::Pattern).
    pub patterns: Vec<String>,
    /// The peers whose names are mirrored; all without any.
    pub from: Vec<KeyPrefix>,
    /// How long copies stay that are not used.
    pub retain: Option<Duration>,
    /// Most bytes of copies.
    pub quota: Option<u64>,
}

impl MirrorOptions {
    /// Reads the options. A name in `from` is looked up in the file `trusted`; without that file the
    /// group is open, and a mirror must name the peers that it follows and a quota.
    pub(crate) fn read(settings: &Settings, trusted: Option<&Path>) -> Result<Self, String> {
        let many = |name: &str, max: usize| {
            let all = settings.all(name);
            if all.len() > max { Err(format!("{}: more than {max} are given", all[max].source)) } else { Ok(all) }
        };
        let pattern = |setting: &Setting| setting.read(checked);
        let from = |setting: &Setting| setting.read(|text| peer(text, trusted));
        let options = MirrorOptions {
            patterns: many("mirror", MIRROR_PATTERNS_MAX)?.iter().map(pattern).collect::<Result<_, _>>()?,
            from: many("from", MIRROR_FROM_MAX)?.iter().map(from).collect::<Result<_, _>>()?,
            retain: settings.one("retain").map(|s| s.read(value::age)).transpose()?,
            quota: settings.one("quota").map(|s| s.read(value::size)).transpose()?,
        };
        let is_bound = !options.from.is_empty() && options.quota.is_some();
        if !options.patterns.is_empty() && trusted.is_none() && !is_bound {
            return Err("--mirror in an open group needs --from PEER and --quota SIZE; --trusted FILE closes it".into());
        }
        if options.patterns.is_empty() && settings.flag("from").is_some() {
            return Err("--from belongs to --mirror; say what to mirror".into());
        }
        Ok(options)
    }
}
