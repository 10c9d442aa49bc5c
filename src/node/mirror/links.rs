//! What a mirror fetches together so that links are made as their sharers have them.

use std::collections::BTreeMap;

use crate::client::{FoundBare, FoundFile, Want};
use crate::content::{Bare, FileId, RelPath, follow_link};
use crate::swarm::{BareOffers, MirrorOffer, MirrorOffers, MirrorVerdict};

/// What peers offer, to find out where links lead.
pub(super) struct OfferedLinks<'o> {
    pub(super) offers: &'o MirrorOffers,
    /// Empty directories, and links without a content.
    pub(super) bare: &'o BareOffers,
}

/// What is fetched together.
pub(super) struct MirrorWant<'o, 'l> {
    links: &'l OfferedLinks<'o>,
    files: BTreeMap<RelPath, FoundFile>,
    bare: BTreeMap<RelPath, FoundBare>,
    /// Something was left out until its target is here.
    lacks: bool,
}

impl OfferedLinks<'_> {
    /// The name to which a link to a file leads, if `path` is one with the content `id`.
    pub(super) fn end_of(&self, path: &RelPath, id: &FileId) -> Option<RelPath> {
        let link = self.offers.offered(path, id)?.link.as_ref()?;
        RelPath::new(&self.way(path, &link.target)?.0).ok()
    }

    /// Where a link leads, and the links on its way there.
    fn way(&self, at: &RelPath, target: &str) -> Option<(String, Vec<RelPath>)> {
        let mut over = Vec::new();
        let mut link_at = |path: &str| {
            let path = RelPath::new(path).ok()?;
            let text = match self.bare.agreed_at(&path) {
                Some(Bare::Link { to, .. }) => to.target.to_string(),
                _ => self.offers.meant(&path)?.link.as_ref()?.target.to_string(),
            };
            over.push(path);
            Some(text)
        };
        let end = follow_link(at, target, &mut link_at).ok()?;
        Some((end, over))
    }
}

impl<'o, 'l> MirrorWant<'o, 'l> {
    pub(super) fn new(links: &'l OfferedLinks<'o>) -> Self {
        MirrorWant { links, files: BTreeMap::new(), bare: BTreeMap::new(), lacks: false }
    }

    /// Whether something was left out until its target is here.
    pub(super) fn lacks(&self) -> bool {
        self.lacks
    }

    /// Something is left out until its target is here.
    pub(super) fn lack(&mut self) {
        self.lacks = true;
    }

    /// Adds a file.
    pub(super) fn take(&mut self, offer: &MirrorOffer) {
        let MirrorOffer { path, id, copy, attributes, link, .. } = offer.clone();
        let holders = self.links.offers.holders(&path, &id).into();
        self.files.insert(path.clone(), FoundFile { path, id, holders, shared: !copy, attributes, link });
    }

    /// Adds what a link to a file needs so that it is made, if it leads to a file of its content that
    /// `is_there`, and that its name means: it is a copy otherwise.
    pub(super) fn take_target(&mut self, link: &MirrorOffer, is_there: impl Fn(&MirrorOffer) -> bool) -> bool {
        let Some((end, over)) = link.link.as_ref().and_then(|to| self.links.way(&link.path, &to.target)) else {
            return false;
        };
        let end = RelPath::new(&end).ok();
        // Where sharers differ about that name, what is here stays.
        let is_meant =
            |end: &RelPath| matches!(self.links.offers.verdict(end), MirrorVerdict::One { id, .. } if id == link.id);
        let end = end.filter(is_meant);
        let target = end.and_then(|end| self.links.offers.offered(&end, &link.id)).filter(|target| is_there(target));
        self.lacks |= target.is_none();
        if let Some(target) = target {
            self.take(target);
            self.take_links(&over);
        }
        target.is_some()
    }

    /// Adds an empty directory, or a link to a directory that has something that `is_here`.
    pub(super) fn take_bare(&mut self, path: &RelPath, bare: &Bare, is_here: impl Fn(&MirrorOffer) -> bool) {
        if let Bare::Link { to, .. } = bare {
            let Some((end, over)) = self.links.way(path, &to.target) else { return };
            let empty = RelPath::new(&end).ok().and_then(|end| Some((self.links.bare.agreed_at(&end)?, end)));
            match (self.links.offers.first_below(&end, is_here), empty) {
                (Some(anchor), _) => self.take(anchor),
                (None, Some((what @ Bare::EmptyDir { .. }, dir))) => self.insert(&dir, what),
                _ if end.is_empty() => {}
                _ => return self.lack(),
            }
            self.take_links(&over);
        }
        self.insert(path, bare);
    }

    /// Adds the links at these names.
    fn take_links(&mut self, names: &[RelPath]) {
        for name in names {
            match (self.links.bare.agreed_at(name), self.links.offers.meant(name)) {
                (Some(bare), _) => self.insert(name, bare),
                (None, Some(offer)) => self.take(offer),
                (None, None) => {}
            }
        }
    }

    fn insert(&mut self, path: &RelPath, bare: &Bare) {
        self.bare.insert(path.clone(), FoundBare { path: path.clone(), bare: bare.clone() });
    }

    /// The names of its files.
    pub(super) fn files(&self) -> impl Iterator<Item = &RelPath> {
        self.files.keys()
    }

    /// All of it, and the names of its links and empty directories; none if it is nothing.
    pub(super) fn finish(self) -> Option<(Want, Vec<RelPath>)> {
        let files: Vec<FoundFile> = self.files.into_values().collect();
        let bare: Vec<FoundBare> = self.bare.into_values().collect();
        let links = files.iter().filter(|file| file.link.is_some()).map(|file| &file.path);
        let names = bare.iter().map(|bare| &bare.path).chain(links).cloned().collect();
        (!files.is_empty() || !bare.is_empty()).then(|| (Want::found(&files, &bare), names))
    }
}
