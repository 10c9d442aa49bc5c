//! What a fetch would do, reported without doing it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Stdout};
use std::path::Path;

use gpb::error::StoreError;
use gpb::internals::cli::{Output, PlanTotals};
use gpb::internals::client::{FoundBare, LiesThere, Tree};
use gpb::internals::store::{Disk, Forecast};
use gpb::{FailedFile, FetchError, FileId, FoundFile, RelPath};

/// A fetch that is only planned.
pub(crate) struct Plan<'d> {
    /// None where the directory would be made.
    disk: Option<&'d Disk>,
    /// Names that become symbolic links, with their texts.
    links: HashMap<RelPath, Box<str>>,
    /// Names that become further names of a file.
    names: HashSet<RelPath>,
    /// Names of what has no content: links with their texts, and empty directories.
    bare: BTreeMap<RelPath, Option<Box<str>>>,
    /// Places by content, since one partial file serves all of them.
    missing: BTreeMap<FileId, usize>,
    totals: PlanTotals,
}

impl<'d> Plan<'d> {
    /// `tree` is what would be made, or nothing for contents alone.
    pub(crate) fn new(disk: Option<&'d Disk>, tree: Tree) -> Self {
        let dirs = tree.dirs.into_iter().map(|(path, _)| (path, None));
        let (to_files, others): (Vec<_>, Vec<_>) = tree.links.into_iter().partition(|link| link.id.is_some());
        let bare = dirs.chain(others.into_iter().map(|link| (link.text.path, Some(link.text.target)))).collect();
        let links = to_files.into_iter().map(|link| (link.text.path, link.text.target)).collect();
        let names = tree.names.into_iter().map(|name| name.file.path).collect();
        Plan { disk, links, names, bare, missing: BTreeMap::new(), totals: PlanTotals::default() }
    }

    /// What would be done at `place`, the name of `file` on the disk.
    pub(crate) fn forecast(&self, file: &FoundFile, place: &RelPath) -> Result<Forecast, StoreError> {
        let Some(disk) = self.disk else { return Ok(Forecast::New) };
        match self.links.get(&file.path) {
            Some(text) if disk.has_link(place, text) => Ok(Forecast::Here),
            _ => disk.forecast(place, &file.id),
        }
    }

    /// Adds a file to the sums. Links and further names of a file need no bytes.
    pub(crate) fn count(&mut self, file: &FoundFile, forecast: Forecast) {
        self.totals.files += 1;
        if forecast != Forecast::Here && !self.links.contains_key(&file.path) && !self.names.contains(&file.path) {
            self.totals.fetch += 1;
            self.totals.bytes += file.id.len;
            if self.disk.is_some_and(|disk| disk.copy_of(&file.id).is_some()) {
                self.totals.reused += file.id.len;
            }
            *self.missing.entry(file.id).or_default() += 1;
        }
    }

    /// Tells of the links and empty directories that would be made below `dir`. What lies in the place of
    /// one may keep it from that, and is `failed`, unless it `goes_first`.
    pub(crate) fn tell_bare(
        &mut self,
        dir: &Path,
        output: &mut Output<Stdout>,
        failed: &mut Vec<FailedFile>,
        goes_first: &dyn Fn(&str) -> bool,
    ) -> io::Result<()> {
        for (path, target) in std::mem::take(&mut self.bare) {
            let target = target.as_deref();
            let forecast = self.disk.map_or(Ok(Forecast::New), |disk| disk.forecast_bare(&path, target));
            let forecast = match forecast {
                Err(_) if goes_first(path.as_str()) => Forecast::New,
                Err(e) => {
                    failed.push(FailedFile::new(path.as_str(), FetchError::from(e)));
                    continue;
                }
                Ok(forecast) => forecast,
            };
            self.totals.make += u64::from(forecast != Forecast::Here);
            output.plan_bare(&path, target, &dir.join(path.as_str()), forecast)?;
        }
        Ok(())
    }

    /// The sums, on a disk with so many free bytes.
    pub(crate) fn totals(self, free: u64) -> PlanTotals {
        let needs = self.missing.into_iter().map(|(id, places)| match self.disk {
            Some(disk) => disk.needed_for(&id, places),
            None => id.len.saturating_mul(places as u64),
        });
        PlanTotals { needed: needs.fold(0, u64::saturating_add), free, ..self.totals }
    }
}

/// Why the file system of `disk` lets nothing of a plan be done below `dir`, where something is to be done.
pub(crate) fn hindrance(disk: &Disk, dir: &Path, totals: &PlanTotals) -> Option<FailedFile> {
    if totals.fetch == 0 && totals.make == 0 {
        return None;
    }
    let full = || StoreError::NoSpace { path: dir.into(), needed: totals.needed, free: totals.free };
    let error = disk.check_writable().err().or_else(|| (totals.needed > totals.free).then(full))?;
    Some(FailedFile::new(dir.to_string_lossy(), FetchError::from(error)))
}

/// What a fetch of these makes besides files.
pub(crate) fn tree_of(files: &[FoundFile], bare: Vec<FoundBare>) -> Tree {
    Tree::plan(files.to_vec(), bare, &|_, _| LiesThere::Nothing)
}
