//! The last step of a fetch: what it makes besides files.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;

use crate::client::{DownloadEnd, FailedFile, FetchError, FileReport, OtherName, Resolved, Tree};
use crate::content::{FileId, RelPath};
use crate::limits::LINKS_ON_WAY_MAX;
use crate::node::fetch_job::{FetchJob, Place};
use crate::store::{Disk, LinkText, StoreError};
use crate::sync::lock;

impl FetchJob {
    /// Parts what was found into files to fetch, which stay in `found`, and what is made behind them.
    /// What would lie where files of this node itself do fails.
    pub(super) fn plan_tree(&self, found: &mut Resolved) -> Tree {
        let (files, bare) = (std::mem::take(&mut found.files), std::mem::take(&mut found.bare));
        let Place::Dir { dir, .. } = &self.place else {
            found.files = files;
            return Tree::default();
        };
        if self.options.contents_only {
            found.files = files;
            return Tree::default();
        }
        let is_there = |path: &RelPath, len: u64| {
            std::fs::symlink_metadata(dir.join(path.as_str())).is_ok_and(|meta| meta.is_file() && meta.len() == len)
        };
        let mut tree = Tree::plan(files, bare, &is_there);
        found.files = std::mem::take(&mut tree.files);
        self.refuse_own(dir, &mut tree, &mut found.failed);
        tree
    }

    fn refuse_own(&self, dir: &Path, tree: &mut Tree, failed: &mut Vec<FailedFile>) {
        let names: Vec<RelPath> = tree.paths().cloned().collect();
        let mut refused: BTreeMap<&RelPath, StoreError> = BTreeMap::new();
        for (at, error) in self.own_files.refused(dir, names.iter().map(RelPath::as_str)) {
            refused.insert(&names[at], error);
        }
        if !refused.is_empty() {
            tree.retain(|path| !refused.contains_key(path));
            failed.extend(refused.into_iter().map(|(path, e)| FailedFile::new(path.as_str(), FetchError::from(e))));
        }
    }

    /// Makes what belongs to the fetch besides files, behind the download with this `end`.
    pub(super) fn place_tree(&self, disk: &Disk, tree: &Tree, end: DownloadEnd) -> DownloadEnd {
        let is_cut = matches!(end.error.as_deref(), Some(FetchError::Cancelled | FetchError::Stopped));
        if tree.is_empty() || is_cut {
            return end;
        }
        let mut failed = end.report.failed;
        let fail = |failed: &mut Vec<FailedFile>, path: &RelPath, error: StoreError| {
            log::debug!("not made path={path} error=\"{error}\"");
            failed.push(FailedFile::new(path.as_str(), FetchError::from(error)));
        };
        for (made, (path, _)) in disk.make_dirs(&tree.dirs).into_iter().zip(&tree.dirs) {
            if let Err(e) = made {
                fail(&mut failed, path, e);
            }
        }
        self.make_names(disk, &tree.names, &mut failed);
        let mut pending: Vec<&(LinkText, Option<FileId>)> = tree.links.iter().collect();
        // A link may lead over others, which are made before it.
        for _ in 0..=LINKS_ON_WAY_MAX {
            let (ready, later): (Vec<_>, Vec<_>) =
                pending.into_iter().partition(|(link, _)| is_target_there(disk, link));
            pending = later;
            let texts: Vec<LinkText> = ready.iter().map(|(link, _)| link.clone()).collect();
            for (made, (link, id)) in disk.make_links(&texts).into_iter().zip(&ready) {
                match (made, id) {
                    (Ok(is_new), Some(id)) => self.report_name(&link.path, *id, !is_new),
                    (Ok(_), None) => {}
                    (Err(e), _) => fail(&mut failed, &link.path, e),
                }
            }
            if ready.is_empty() || pending.is_empty() {
                break;
            }
        }
        for (link, _) in pending {
            fail(
                &mut failed,
                &link.path,
                StoreError::at(disk.path().join(link.path.as_str()), io::Error::other(NO_TARGET)),
            );
        }
        disk.finish_record();
        let error = FailedFile::gravest(&failed).cloned().or(end.error);
        DownloadEnd { report: self.state.report(failed), error }
    }

    /// Gives the files that are in place their further names.
    fn make_names(&self, disk: &Disk, names: &[OtherName], failed: &mut Vec<FailedFile>) {
        let in_place: HashSet<RelPath> = lock(&self.state.stats.reports).iter().map(|r| r.out.clone()).collect();
        let (ready, others): (Vec<&OtherName>, Vec<_>) = names.iter().partition(|name| in_place.contains(&name.first));
        for name in others {
            let of_first = failed.iter().find(|failed| failed.path == name.first.as_str());
            if let Some(error) = of_first.map(|failed| failed.error.clone()) {
                failed.push(FailedFile::new(name.path.as_str(), error));
            }
        }
        let triples: Vec<_> = ready.iter().map(|n| (n.path.clone(), n.first.clone(), n.id)).collect();
        for (made, name) in disk.make_names(&triples).into_iter().zip(&ready) {
            match made {
                Ok(is_new) => self.report_name(&name.path, name.id, !is_new),
                Err(e) => failed.push(FailedFile::new(name.path.as_str(), FetchError::from(e))),
            }
        }
        let Some(fetched) = &self.client.ctx.fetched else { return };
        let firsts: BTreeMap<&RelPath, FileId> = ready.iter().map(|name| (&name.first, name.id)).collect();
        for (first, id) in firsts {
            if let Some(stamp) = disk.stamp_at(first) {
                fetched.restamp(&id, disk.path(), first, stamp);
            }
        }
    }

    fn report_name(&self, path: &RelPath, id: FileId, skipped: bool) {
        let seconds = self.state.stats.begun.elapsed().as_secs_f64();
        let report = FileReport { path: path.clone(), id, out: path.clone(), seconds, skipped };
        lock(&self.state.stats.reports).push(report);
    }
}

/// Whether there is something where the link is to lead.
fn is_target_there(disk: &Disk, link: &LinkText) -> bool {
    let parent = link.path.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
    let (at, target) = (disk.path().join(parent), Path::new(&*link.target));
    // Its own directory may still be missing, and `x/..` is nothing then.
    let starts_above = target.starts_with("..") && !at.exists();
    let at = if starts_above { lexically(&at, target) } else { at.join(target) };
    at.exists()
}

/// `target` from `at`, of which no part is a link, by the texts alone.
fn lexically(at: &Path, target: &Path) -> std::path::PathBuf {
    let mut at = at.to_path_buf();
    for part in target {
        match part.to_str() {
            Some("..") => drop(at.pop()),
            Some(".") => {}
            _ => at.push(part),
        }
    }
    at
}

const NO_TARGET: &str = "its target was not fetched";
