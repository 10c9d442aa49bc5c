//! The last step of a fetch: what it makes besides files.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;

use crate::client::{DownloadEnd, FailedFile, FetchError, FileReport, OtherName, Resolved, Tree, link_end};
use crate::content::{FileId, RelPath};
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
        let failed_before = end.report.failed.clone();
        let mut failed = end.report.failed;
        for (made, (path, _)) in disk.make_dirs(&tree.dirs, &self.stop()).into_iter().zip(&tree.dirs) {
            if let Err(e) = made {
                fail(&mut failed, path, e);
            }
        }
        self.make_names(disk, &tree.names, &mut failed);
        self.make_links(disk, tree, &mut failed);
        disk.finish_record();
        if let Some(error) = self.cut() {
            return self.failed(error, failed_before);
        }
        let error = FailedFile::gravest(&failed).cloned().or(end.error);
        DownloadEnd { report: self.state.report(failed), error }
    }

    /// Why the fetch is to end before it is done.
    fn cut(&self) -> Option<FetchError> {
        match self.client.ctx.shutdown.has_begun() {
            true => Some(FetchError::Stopped),
            false => self.state.canceller.is_cancelled().then_some(FetchError::Cancelled),
        }
    }

    /// Whether it is, asked while the disk is at work.
    fn stop(&self) -> impl Fn() -> bool + Sync + use<> {
        let (shutdown, canceller) = (self.client.ctx.shutdown.clone(), self.state.canceller.clone());
        move || shutdown.has_begun() || canceller.is_cancelled()
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
        for (made, name) in disk.make_names(&triples, &self.stop()).into_iter().zip(&ready) {
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

    /// Makes the links whose end this fetch put in place or found there, reached over no link.
    fn make_links(&self, disk: &Disk, tree: &Tree, failed: &mut Vec<FailedFile>) {
        let in_place: BTreeMap<RelPath, FileId> =
            lock(&self.state.stats.reports).iter().map(|r| (r.out.clone(), r.id)).collect();
        let held = |dir: &RelPath| {
            let behind = in_place.range(dir.clone()..).map(|(path, _)| path);
            behind.take_while(|path| path.as_str().starts_with(dir.as_str())).any(|path| path.is_below(dir.as_str()))
                || tree.dirs.iter().any(|(path, _)| path == dir || path.is_below(dir.as_str()))
        };
        let is_end_there = |(link, id): &&(LinkText, Option<FileId>)| match (link_end(link), id) {
            (Some(end), None) if end.is_empty() => true,
            (Some(end), id) => RelPath::new(&end).is_ok_and(|end| match id {
                Some(id) => in_place.get(&end) == Some(id) && disk.is_file_at(&end),
                None => disk.is_dir_at(&end) && held(&end),
            }),
            (None, _) => false,
        };
        let (ready, others): (Vec<_>, Vec<_>) = tree.links.iter().partition(is_end_there);
        let texts: Vec<LinkText> = ready.iter().map(|(link, _)| link.clone()).collect();
        for (made, (link, id)) in disk.make_links(&texts, &self.stop()).into_iter().zip(&ready) {
            match (made, id) {
                (Ok(is_new), Some(id)) => self.report_name(&link.path, *id, !is_new),
                (Ok(_), None) => {}
                (Err(e), _) => fail(failed, &link.path, e),
            }
        }
        for (link, _) in others {
            let path = disk.path().join(link.path.as_str());
            fail(failed, &link.path, StoreError::at(path, io::Error::other(NO_TARGET)));
        }
    }

    fn report_name(&self, path: &RelPath, id: FileId, skipped: bool) {
        let seconds = self.state.stats.begun.elapsed().as_secs_f64();
        let report = FileReport { path: path.clone(), id, out: path.clone(), seconds, skipped };
        lock(&self.state.stats.reports).push(report);
    }
}

fn fail(failed: &mut Vec<FailedFile>, path: &RelPath, error: StoreError) {
    log::debug!("not made path={path} error=\"{error}\"");
    failed.push(FailedFile::new(path.as_str(), FetchError::from(error)));
}

const NO_TARGET: &str = "its target was not fetched";
