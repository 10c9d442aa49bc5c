//! The links and empty directories of a mirror, which it makes once their files are here.

use std::time::Instant;

use crate::client::Want;
use crate::content::{Bare, Catalogue, RelPath};
use crate::identity::NodeId;
use crate::node::fetch::Fetch;
use crate::node::mirror::jobs::{MirrorJobs, setback};
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
    not_before: Option<Instant>,
    running: Option<(Fetch, Vec<RelPath>)>,
}

impl MirrorTree {
    /// Takes what `node` lists; `names` says whether its names count.
    pub(super) fn listed(&mut self, node: NodeId, bare: Vec<(RelPath, Bare)>, names: bool) {
        self.offers.replace(node, bare, names);
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
        jobs: &MirrorJobs,
        catalogue: &Catalogue,
        log: &LimitedLog,
        now: Instant,
    ) -> Vec<RelPath> {
        let mut made = Vec::new();
        if let Some((fetch, names)) = self.running.take_if(|(fetch, _)| fetch.wait_for(std::time::Duration::ZERO)) {
            self.end(&fetch, log, now);
            made = names;
        }
        self.is_due |= self.not_before.take_if(|at| *at <= now).is_some();
        if self.is_due && self.running.is_none() && jobs.running() == 0 && !plan.has_due(now) {
            self.is_due = false;
            self.start(plan.offers(), jobs, catalogue);
        }
        made
    }

    /// What is known of links and directories.
    pub(super) fn links<'o>(&'o self, offers: &'o MirrorOffers) -> OfferedLinks<'o> {
        OfferedLinks { offers, agreed: self.offers.agreed() }
    }

    fn start(&mut self, offers: &MirrorOffers, jobs: &MirrorJobs, catalogue: &Catalogue) {
        let Some((want, names)) = self.missing(offers, catalogue) else { return };
        match jobs.fetch(want) {
            Ok(fetch) => self.running = Some((fetch, names)),
            Err(e) => log::warn!("mirrored links not made error=\"{e}\""),
        }
    }

    /// What is to be made, with the files that are here to which links lead.
    fn missing(&self, offers: &MirrorOffers, catalogue: &Catalogue) -> Option<(Want, Vec<RelPath>)> {
        let is_here = |offer: &MirrorOffer| catalogue.get(offer.path.as_str()).is_some_and(|own| own.id == offer.id);
        let links = self.links(offers);
        let mut want = MirrorWant::new(&links);
        for (path, what) in &links.agreed {
            let own = catalogue.bare().get(path.as_str());
            let is_made = own.is_some_and(|own| own.is_as(what) && own.mtime_ns() == what.mtime_ns());
            if !is_made && offers.meant(path).is_none() {
                want.take_bare(path, what, is_here);
            }
        }
        // Links whose content is here, under another text or as a copy, and copies that are links here.
        let own_links = catalogue.bare().all().iter().filter(|(_, what)| matches!(what, Bare::Link { copy: true, .. }));
        for path in offers.links().chain(own_links.map(|(path, _)| path)) {
            let Some(offer) = offers.meant(path).filter(|offer| is_here(offer)) else { continue };
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
        want.finish()
    }

    fn end(&mut self, fetch: &Fetch, log: &LimitedLog, now: Instant) {
        let Err(failed) = fetch.wait() else { return };
        for one in &failed.report.failed {
            let line = format_args!("not mirrored for now path={} error=\"{}\"", one.path, one.error);
            log.log(log::Level::Warn, now, line);
        }
        // What is the user's stays so until something changes.
        if failed.report.failed.iter().any(|one| setback(&one.error) == Setback::Later) {
            self.not_before = Some(now + MIRROR_TREE_RETRY);
        }
    }
}
