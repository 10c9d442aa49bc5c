//! The last step of a fetch: what it makes besides files.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use crate::client::{
    DownloadEnd, FailedFile, FetchError, FileReport, FoundFile, LiesThere, OtherName, Resolved, Target, Tree, TreeLink,
};
use crate::content::{FileId, RelPath};
use crate::node::fetch_job::{FetchJob, Place};
use crate::node::limits::{FIRST_NAME_TRIES, LINK_ROUNDS_MAX};
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
        let look = |path: &RelPath, len| lies_there(dir, path, len);
        let mut tree = Tree::plan(files, bare, &look);
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

    /// Where the name under which an inode was to be written is blocked, writes it under another one, so
    /// that its other names follow. Continues from the download with this `end`.
    pub(super) fn write_other_firsts(&self, disk: &Arc<Disk>, tree: &mut Tree, mut end: DownloadEnd) -> DownloadEnd {
        let look = |path: &RelPath, len| lies_there(disk.path(), path, len);
        let mut tried = HashSet::new();
        for _ in 0..FIRST_NAME_TRIES {
            let is_of_place = |failed: &&FailedFile| match &*failed.error {
                FetchError::Storage(e) => !e.is_of_whole_disk(disk.path()),
                _ => false,
            };
            let failed = &end.report.failed;
            let blocked = failed.iter().filter(is_of_place).map(|failed| failed.path.as_str());
            let firsts = tree.take_firsts(&blocked.filter(|path| !tried.contains(*path)).collect(), &look);
            if firsts.is_empty() || self.is_cut(&end) {
                break;
            }
            tried.extend(failed.iter().map(|failed| failed.path.clone()));
            let target = |file: FoundFile| {
                let out = file.path.clone();
                Target { path: file.path, id: file.id, out, holders: file.holders }
            };
            let failed = std::mem::take(&mut end.report.failed);
            end = self.download(disk, firsts.into_iter().map(target).collect(), failed);
        }
        end
    }

    fn is_cut(&self, end: &DownloadEnd) -> bool {
        matches!(end.error.as_deref(), Some(FetchError::Cancelled | FetchError::Stopped))
    }

    /// Makes what belongs to the fetch besides files, behind the download with this `end`.
    pub(super) fn place_tree(&self, disk: &Disk, tree: &Tree, end: DownloadEnd) -> DownloadEnd {
        if tree.is_empty() || self.is_cut(&end) {
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
        let causes: BTreeMap<&str, &Arc<FetchError>> = failed.iter().map(|one| (&*one.path, &one.error)).collect();
        let cause = |name: &OtherName| causes.get(name.first.as_str()).map(|cause| Arc::clone(cause));
        let fails = |name: &OtherName| Some(FailedFile::new(name.file.path.as_str(), cause(name)?));
        let without_first: Vec<FailedFile> = others.into_iter().filter_map(fails).collect();
        failed.extend(without_first);
        let triples: Vec<_> = ready.iter().map(|n| (n.file.path.clone(), n.first.clone(), n.file.id)).collect();
        for (made, name) in disk.make_names(&triples, &self.stop()).into_iter().zip(&ready) {
            match made {
                Ok(is_new) => self.report_name(&name.file.path, name.file.id, !is_new),
                Err(e) => failed.push(FailedFile::new(name.file.path.as_str(), FetchError::from(e))),
            }
        }
        let Some(fetched) = &self.client.ctx.fetched else { return };
        let firsts: BTreeMap<&RelPath, FileId> = ready.iter().map(|name| (&name.first, name.file.id)).collect();
        for (first, id) in firsts {
            if let Some(stamp) = disk.stamp_at(first) {
                fetched.restamp(&id, disk.path(), first, stamp);
            }
        }
    }

    /// Makes the links whose end this fetch put in place or found there, if every link on the way is one
    /// that it makes: each after those on its way.
    fn make_links(&self, disk: &Disk, tree: &Tree, failed: &mut Vec<FailedFile>) {
        let in_place: BTreeMap<RelPath, FileId> =
            lock(&self.state.stats.reports).iter().map(|r| (r.out.clone(), r.id)).collect();
        let mut held: BTreeSet<&str> = in_place.keys().map(RelPath::as_str).collect();
        held.extend(tree.dirs.iter().map(|(path, _)| path.as_str()));
        let is_end_there = |link: &TreeLink, made: &BTreeSet<&str>| match link.id {
            None if link.end.is_empty() => true,
            id => RelPath::new(&link.end).is_ok_and(|end| match id {
                Some(id) => in_place.get(&end) == Some(&id) && disk.is_file_at(&end),
                None => {
                    let dir = end.as_str();
                    disk.is_dir_at(&end) && (held.contains(dir) || has_below(&held, dir) || has_below(made, dir))
                }
            }),
        };
        let (mut links, mut made) = (tree.links.iter().collect::<Vec<_>>(), BTreeSet::<&str>::new());
        let mut copies: Vec<&TreeLink> = Vec::new();
        for _ in 0..LINK_ROUNDS_MAX {
            let is_over_made = |link: &TreeLink| link.over.iter().all(|over| made.contains(over.as_str()));
            let is_ready = |link: &&TreeLink| is_over_made(link) && is_end_there(link, &made);
            let (ready, others): (Vec<&TreeLink>, Vec<_>) = links.into_iter().partition(is_ready);
            links = others;
            if ready.is_empty() {
                break;
            }
            let texts: Vec<LinkText> = ready.iter().map(|link| link.text.clone()).collect();
            for (result, link) in disk.make_links(&texts, &self.stop()).into_iter().zip(&ready) {
                match result {
                    Err(StoreError::NoLinks { .. }) if link.id.is_some() => copies.push(link),
                    Err(StoreError::Exists { .. }) if self.is_content_there(disk, link) => {
                        made.insert(link.text.path.as_str());
                        link.id.into_iter().for_each(|id| self.report_name(&link.text.path, id, true));
                    }
                    Err(e) => fail(failed, &link.text.path, e),
                    Ok(is_new) => {
                        made.insert(link.text.path.as_str());
                        link.id.into_iter().for_each(|id| self.report_name(&link.text.path, id, !is_new));
                    }
                }
            }
        }
        if !copies.is_empty() {
            let is_copy = |link: &&TreeLink| link.id.is_some() && is_end_there(link, &BTreeSet::new());
            let (more, others): (Vec<&TreeLink>, Vec<_>) = links.into_iter().partition(is_copy);
            copies.extend(more);
            links = others;
        }
        self.copy_ends(disk, &copies, failed);
        let by_name: BTreeMap<&str, &Arc<FetchError>> = failed.iter().map(|one| (&*one.path, &one.error)).collect();
        let mut causes = Vec::with_capacity(links.len());
        for link in links {
            let path = disk.path().join(link.text.path.as_str());
            let no_target = || StoreError::at(path, io::Error::other(NO_TARGET)).into();
            causes.push((&link.text.path, cause_of(link, &by_name).unwrap_or_else(|| Arc::new(no_target()))));
        }
        failed.extend(causes.into_iter().map(|(path, error)| FailedFile::new(path.as_str(), error)));
    }

    /// Whether a file of the user's, which has the very content that the link leads to, has its name.
    fn is_content_there(&self, disk: &Disk, link: &TreeLink) -> bool {
        disk.is_file_at(&link.text.path)
            && link.id.is_some_and(|id| disk.has_content(&link.text.path, &id, &self.stop()))
    }

    /// Where no links can be made, their names get the contents to which they lead.
    fn copy_ends(&self, disk: &Disk, links: &[&TreeLink], failed: &mut Vec<FailedFile>) {
        let copy = |link: &&TreeLink| Some((link.text.path.clone(), RelPath::new(&link.end).ok()?, link.id?));
        let copies: Vec<(RelPath, RelPath, FileId)> = links.iter().filter_map(copy).collect();
        for (made, (path, _, id)) in disk.make_copies(&copies, "symbolic link", &self.stop()).into_iter().zip(&copies) {
            match made {
                Ok(is_new) => self.report_name(path, *id, !is_new),
                Err(e) => fail(failed, path, e),
            }
        }
    }

    fn report_name(&self, path: &RelPath, id: FileId, skipped: bool) {
        let seconds = self.state.stats.begun.elapsed().as_secs_f64();
        let report = FileReport { path: path.clone(), id, out: path.clone(), seconds, skipped };
        lock(&self.state.stats.reports).push(report);
    }
}

/// Whether one of `names` lies in the directory `dir`.
fn has_below(names: &BTreeSet<&str>, dir: &str) -> bool {
    let dir = format!("{dir}/");
    let next = names.range::<str, _>((Bound::Included(&*dir), Bound::Unbounded)).next();
    next.is_some_and(|path| path.starts_with(&dir))
}

/// Why what the link leads to, or over, is not in place.
fn cause_of(link: &TreeLink, failed: &BTreeMap<&str, &Arc<FetchError>>) -> Option<Arc<FetchError>> {
    let on_way = std::iter::once(&*link.end).chain(link.over.iter().map(RelPath::as_str));
    let below = || {
        let dir = format!("{}/", link.end);
        let next = failed.range::<str, _>((Bound::Included(&*dir), Bound::Unbounded)).next();
        next.filter(|(path, _)| link.id.is_none() && path.starts_with(&dir)).map(|(_, error)| *error)
    };
    on_way.filter_map(|path| failed.get(path).copied()).next().or_else(below).cloned()
}

fn fail(failed: &mut Vec<FailedFile>, path: &RelPath, error: StoreError) {
    log::debug!("not made path={path} error=\"{error}\"");
    failed.push(FailedFile::new(path.as_str(), FetchError::from(error)));
}

/// What lies where a file of `len` bytes is to go.
fn lies_there(dir: &Path, path: &RelPath, len: u64) -> LiesThere {
    match std::fs::symlink_metadata(dir.join(path.as_str())) {
        Ok(meta) if meta.is_file() && meta.len() == len => LiesThere::SameLength,
        Err(e) if e.kind() == io::ErrorKind::NotFound => LiesThere::Nothing,
        _ => LiesThere::Other,
    }
}

const NO_TARGET: &str = "its target was not fetched";
