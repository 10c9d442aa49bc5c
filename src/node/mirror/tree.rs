//! The links and empty directories of a mirror, which it makes once their files are here.

use std::collections::HashSet;
use std::time::Instant;

use crate::chain::Chain;
use crate::content::{Bare, Catalogue, FileId, RelPath};
use crate::identity::NodeId;
use crate::node::fetch::Fetch;
use crate::node::mirror::jobs::{MirrorJobs, is_end, setback};
use crate::node::mirror::links::{MirrorWant, OfferedLinks};
use crate::runtime::LimitedLog;
use crate::swarm::mirror::limits::MIRROR_TREE_RETRY;
use crate::swarm::{BareOffers, MirrorOffer, MirrorOffers, MirrorPlan, Setback};

/// Knows what peers offer besides files, and fetches it.
#[derive(Default)]
pub(super) struct MirrorTree {
    offers: BareOffers,
    /// Something may be to be made that was not, and from when on.
    is_due: bool,
    /// The revision of the own catalogue at which something was left out until its target is here.
    lacking_at: Option<u64>,
    not_before: Option<Instant>,
    running: Option<(Fetch, Vec<RelPath>)>,
}

/// What is here.
pub(super) struct OwnNames<'a> {
    pub(super) catalogue: &'a Catalogue,
    /// Whether that content has expired under the name, which the catalogue may still have.
    pub(super) has_expired: &'a dyn Fn(&RelPath, &FileId) -> bool,
}

impl MirrorTree {
    /// Takes what `node` lists; `names` says whether its names count.
    pub(super) fn listed(&mut self, node: NodeId, bare: Vec<(RelPath, Bare)>, names: bool) {
        if !self.offers.replace(node, bare, names) {
            log::warn!("links and directories left out, too many are mirrored peer={}", node.peer);
        }
        // A file may have become a link, too.
        self.is_due = true;
    }

    /// `node` is gone: what it offered stays.
    pub(super) fn left(&mut self, node: NodeId) {
        self.offers.remove(node);
    }

    /// Files have come to which links may lead.
    pub(super) fn has_news(&mut self) {
        self.is_due = true;
    }

    /// When it is tried again.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.not_before
    }

    /// Takes what was made, and makes what is due while no file is being fetched. Returns the names that
    /// were made.
    pub(super) fn turn(
        &mut self,
        plan: &MirrorPlan,
        jobs: &mut MirrorJobs,
        own: &OwnNames<'_>,
        log: &LimitedLog,
        now: Instant,
    ) -> Vec<RelPath> {
        let mut made = Vec::new();
        if let Some((fetch, names)) = self.running.take_if(|(fetch, _)| fetch.wait_for(std::time::Duration::ZERO)) {
            self.end(&fetch, log, now);
            jobs.hold(HashSet::new());
            made = names;
        }
        self.is_due |= self.not_before.take_if(|at| *at <= now).is_some();
        self.is_due |= self.lacking_at.is_some_and(|revision| revision != own.catalogue.revision());
        if self.is_due && self.running.is_none() && jobs.running() == 0 && !plan.has_due(now) {
            self.is_due = false;
            self.start(plan.offers(), jobs, own, now);
        }
        made
    }

    /// What is known of links and directories.
    pub(super) fn links<'o>(&'o self, offers: &'o MirrorOffers) -> OfferedLinks<'o> {
        OfferedLinks { offers, bare: &self.offers }
    }

    fn start(&mut self, offers: &MirrorOffers, jobs: &mut MirrorJobs, own: &OwnNames<'_>, now: Instant) {
        let want = {
            let links = self.links(offers);
            let want = Self::missing(&links, &|path| jobs.placed(path).is_some(), own);
            (want.lacks(), want.files().cloned().collect(), want.finish())
        };
        self.lacking_at = want.0.then(|| own.catalogue.revision());
        let (held, Some((want, names))) = (want.1, want.2) else { return };
        match jobs.fetch(want) {
            Ok(fetch) => {
                jobs.hold(held);
                self.running = Some((fetch, names));
            }
            Err(e) => {
                log::warn!("mirrored links not made error=\"{e}\"");
                self.not_before = Some(now + MIRROR_TREE_RETRY);
            }
        }
    }

    /// What is to be made, with the files that are here to which links lead.
    ///
    /// A sharer's word replaces what a fetch made here, and nothing of the user's. Without a sharer a
    /// copy that is here is as good as others: theirs is made only where nothing has the name, so two
    /// mirrors never follow each other, and no link takes the place of the last copy of a file.
    fn missing<'o, 'l>(
        links: &'l OfferedLinks<'o>,
        is_placed: &dyn Fn(&RelPath) -> bool,
        own: &OwnNames<'_>,
    ) -> MirrorWant<'o, 'l> {
        let offers = links.offers;
        let (catalogue, is_here) = (own.catalogue, |offer: &MirrorOffer| own.has(offer));
        let mut want = MirrorWant::new(links);
        for (path, what) in links.bare.agreed() {
            let (bare, file) = (catalogue.bare().get(path.as_str()), catalogue.get(path.as_str()));
            let is_wanted = match (bare, file) {
                _ if what.is_copy() => !is_placed(path) && is_free(catalogue, path),
                (Some(own), _) if !own.is_copy() => false,
                (_, Some(own)) if !own.marks.copy => false,
                (Some(own), _) => !own.is_as(what) || own.mtime_ns() != what.mtime_ns(),
                (None, _) => true,
            };
            if is_wanted && offers.meant(path).is_none() {
                want.take_bare(path, what, is_here);
            }
        }
        // Links whose content is here, under another text or as a copy, and copies that are links here.
        let own_links = catalogue.bare().all().iter().filter(|(_, what)| matches!(what, Bare::Link { copy: true, .. }));
        for path in offers.links().chain(own_links.map(|(path, _)| path)) {
            let Some(offer) = offers.meant(path) else { continue };
            if !is_here(offer) {
                want.lack();
                continue;
            }
            let own = match catalogue.bare().get(path.as_str()) {
                Some(Bare::Link { to, .. }) => Some(&*to.target),
                _ => None,
            };
            let is_copy = catalogue.get(path.as_str()).is_some_and(|own| own.marks.copy);
            let is_made = own == offer.link.as_deref().map(|to| &*to.target);
            if is_copy && !is_made && (offer.link.is_none() || want.take_target(offer, is_here)) {
                want.take(offer);
            }
        }
        want
    }

    fn end(&mut self, fetch: &Fetch, log: &LimitedLog, now: Instant) {
        let Err(failed) = fetch.wait() else { return };
        let named = &failed.report.failed;
        for one in named {
            let line = format_args!("not mirrored for now path={} error=\"{}\"", one.path, Chain(&*one.error));
            log.log(log::Level::Warn, now, line);
        }
        if named.is_empty() && !is_end(&failed.error) {
            let line = format_args!("links and directories not mirrored for now error=\"{}\"", Chain(&*failed.error));
            log.log(log::Level::Warn, now, line);
        }
        // What is the user's stays so until something changes.
        if named.is_empty() || named.iter().any(|one| setback(&one.error) == Setback::Later) {
            self.not_before = Some(now + MIRROR_TREE_RETRY);
        }
    }
}

impl OwnNames<'_> {
    fn has(&self, offer: &MirrorOffer) -> bool {
        self.catalogue.get(offer.path.as_str()).is_some_and(|own| own.id == offer.id)
            && !(self.has_expired)(&offer.path, &offer.id)
    }
}

/// Whether nothing has the name `path` here, a directory above it, or a name below it.
fn is_free(catalogue: &Catalogue, path: &RelPath) -> bool {
    let bare = catalogue.bare();
    let has = |name: &str| catalogue.get(name).is_some() || matches!(bare.get(name), Some(Bare::Link { .. }));
    let mut above =
        std::iter::successors(path.as_str().rsplit_once('/'), |(dir, _)| dir.rsplit_once('/')).map(|(dir, _)| dir);
    let name = path.as_str();
    !has(name)
        && bare.get(name).is_none()
        && !above.any(has)
        && catalogue.positions_below(name).is_empty()
        && bare.positions_below(name).is_empty()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::content::{BareNames, Digest, Entry, LinkTo, Marks, Root, Stamp};
    use crate::identity::PeerId;

    fn name(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn dir(mtime_ns: i64, copy: bool) -> Bare {
        Bare::EmptyDir { mtime_ns, copy }
    }

    fn link(target: &str, copy: bool) -> Bare {
        Bare::Link { to: LinkTo { target: target.into(), mtime_ns: 1 }, copy }
    }

    fn own(files: &[(&str, bool)], bare: &[(&str, Bare)]) -> Catalogue {
        let file = |(path, copy): &(&str, bool)| Entry {
            path: name(path),
            id: FileId { root: Root(Digest([1; 32])), len: 5 },
            stamp: Stamp::default(),
            marks: Marks { copy: *copy, ..Marks::default() },
        };
        let bare: BTreeMap<_, _> = bare.iter().map(|(path, bare)| (name(path), Some(bare.clone()))).collect();
        let all = Catalogue::new(1, files.iter().map(file).collect());
        all.with_bare(Arc::new(BareNames::default().changed(&bare)))
    }

    /// What is made where a peer has `what` at `d`.
    fn made(what: Bare, catalogue: &Catalogue) -> Vec<String> {
        let mut tree = MirrorTree::default();
        let node = NodeId::new(PeerId([2; 32]), 1);
        tree.listed(node, vec![(name("d"), what)], true);
        let mut offers = MirrorOffers::default();
        let id = FileId { root: Root(Digest([1; 32])), len: 5 };
        let file = |path| MirrorOffer {
            path: name(path),
            id,
            copy: true,
            temporary: false,
            attributes: Default::default(),
            link: None,
        };
        offers.replace(node, vec![file("v1/f"), file("v2/f")], true);
        let links = tree.links(&offers);
        let own = OwnNames { catalogue, has_expired: &|_, _| false };
        let want = MirrorTree::missing(&links, &|_| false, &own).finish();
        want.map_or(Vec::new(), |(_, names)| names.iter().map(RelPath::to_string).collect())
    }

    /// Cause: a link of another mirror counted as a sharer's. Effect: two mirrors whose sharer was gone followed each
    /// other for ever, and a link or directory that one of them still had took the place of a file.
    #[test]
    fn a_copy_of_another_mirror_takes_the_place_of_nothing() {
        let v = [("v1/f", true), ("v2/f", true)];
        let with = |path: &'static str, copy| [&v[..], &[(path, copy)]].concat();
        for theirs in [link("v1", true), dir(9, true)] {
            assert_eq!(made(theirs.clone(), &own(&v, &[])), ["d"], "nothing has the name");
            for here in [link("v2", true), dir(5, true), link("v2", false), dir(5, false)] {
                assert_eq!(made(theirs.clone(), &own(&v, &[("d", here)])), [""; 0]);
            }
            for file in [with("d", true), with("d/x", true), with("d", false)] {
                assert_eq!(made(theirs.clone(), &own(&file, &[])), [""; 0]);
            }
        }
    }

    #[test]
    fn the_word_of_a_sharer_replaces_copies_and_nothing_of_the_users() {
        let v = [("v1/f", true), ("v2/f", true)];
        let with = |copy| [&v[..], &[("d", copy)]].concat();
        for theirs in [link("v1", false), dir(9, false)] {
            for (here, copy) in
                [(link("v2", true), true), (dir(5, true), true), (link("v2", false), false), (dir(5, false), false)]
            {
                let expected = if copy { vec!["d"] } else { vec![] };
                assert_eq!(made(theirs.clone(), &own(&v, &[("d", here)])), expected);
            }
            assert_eq!(made(theirs.clone(), &own(&with(true), &[])), ["d"]);
            assert_eq!(made(theirs.clone(), &own(&with(false), &[])), [""; 0]);
            assert_eq!(made(theirs.clone(), &own(&v, &[("d", theirs.clone().marked(true))])), [""; 0], "as it is");
        }
    }
}
