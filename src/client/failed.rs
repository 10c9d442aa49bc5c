//! What could not be fetched, and why.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::client::FetchError;
use crate::content::RelPath;
use crate::swarm::FileNo;

/// A name that was asked for and is not there; part of a [`Report`](crate::Report).
///
/// ```
/// # fn show(report: &gpb::Report) {
/// for failed in &report.failed {
///     println!("{}: {}", failed.path, failed.error);
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct FailedFile {
    /// Its name, or the text that was asked for if no file was found for it.
    pub path: String,
    /// Why it is not there. Files that fail together share the error.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::chain::as_text"))]
    pub error: Arc<FetchError>,
}

impl FailedFile {
    /// A name with the reason why it is not there.
    #[doc(hidden)]
    pub fn new(path: impl Into<String>, error: impl Into<Arc<FetchError>>) -> Self {
        FailedFile { path: path.into(), error: error.into() }
    }

    /// The error that stands for all of `failed`: the first by the order of causes.
    pub fn gravest(failed: &[Self]) -> Option<&Arc<FetchError>> {
        failed.iter().map(|f| &f.error).min_by_key(|e| e.rank())
    }
}

/// The places of a running download that cannot be used.
#[derive(Debug, Default)]
pub(crate) struct FailedPlaces {
    /// In the order in which they failed.
    pub(crate) all: Vec<FailedFile>,
    /// The same by file.
    by_file: HashMap<FileNo, HashSet<RelPath>>,
}

impl FailedPlaces {
    /// The names in `failed` are known to fail before the download begins.
    pub(crate) fn new(failed: Vec<FailedFile>) -> Self {
        FailedPlaces { all: failed, by_file: HashMap::new() }
    }

    /// `place` of a file cannot be used. `name` stands for it in the report.
    pub(crate) fn add(&mut self, file: FileNo, place: &RelPath, name: &RelPath, error: Arc<FetchError>) {
        let failed = self.by_file.entry(file).or_default();
        if failed.insert(place.clone()) {
            self.all.push(FailedFile::new(name.as_str(), error));
        }
    }

    /// The places among `outs` where the file can still go; `None` for all of them.
    pub(crate) fn usable(&self, file: FileNo, outs: &[RelPath]) -> Option<Vec<RelPath>> {
        let failed = self.by_file.get(&file)?;
        Some(outs.iter().filter(|out| !failed.contains(*out)).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::StoreError;

    #[test]
    fn the_gravest_cause_stands_for_all() {
        let wait = Duration::from_secs(1);
        let blocked = || FetchError::Storage(StoreError::MissingDirectory { path: "/x".into() });
        let missing = || FetchError::NotFound { what: "x".into(), answered: 1 };
        let clash = || FetchError::Ambiguous { what: "x".into(), candidates: vec![] };
        let all = [FetchError::Silent { what: "x".into(), wait }, missing(), blocked(), clash(), missing(), blocked()];
        let failed = all.map(|e| FailedFile::new("x", e));
        assert!(matches!(&**FailedFile::gravest(&failed).unwrap(), FetchError::Ambiguous { .. }));
        assert!(matches!(&**FailedFile::gravest(&failed[..3]).unwrap(), FetchError::Storage(_)));
        assert!(matches!(&**FailedFile::gravest(&failed[..2]).unwrap(), FetchError::NotFound { .. }));
        assert!(FailedFile::gravest(&[]).is_none());
    }

    #[test]
    fn a_place_fails_once() {
        let name = |n: &str| RelPath::new(n).unwrap();
        let (mut failed, outs) = (FailedPlaces::default(), [name("a"), name("b")]);
        assert_eq!(failed.usable(3, &outs), None);
        for _ in 0..2 {
            failed.add(3, &outs[0], &outs[0], FetchError::Cancelled.into());
        }
        assert_eq!((failed.all.len(), failed.usable(3, &outs)), (1, Some(vec![name("b")])));
    }
}
