//! Which links of a fetch lead to what it puts in place, and over which others. No I/O.

use std::collections::HashMap;

use super::{TreeLink, has, is_dir};
use crate::client::FoundFile;
use crate::client::limits::LINK_STEPS_MAX;
use crate::content::{Attributes, RelPath, follow_link};
use crate::limits::LINKS_ON_WAY_MAX;
use crate::store::LinkText;

/// The links of a fetch, by name, none of them below another, and what else it puts in place.
pub(super) struct LinkWays<'l, 'f> {
    links: &'l HashMap<String, LinkText>,
    files: &'f [FoundFile],
    /// Names of files and empty directories, sorted.
    solid: &'f [RelPath],
    /// The links about which is decided; none for one that is not made.
    settled: HashMap<&'l str, Option<TreeLink>>,
    steps_left: u32,
}

/// What is known of a link.
enum LinkLook {
    /// It leads over one about which nothing is decided yet.
    Open,
    /// It is made, or not.
    Settled(Option<TreeLink>),
}

impl<'l, 'f> LinkWays<'l, 'f> {
    pub(super) fn new(links: &'l HashMap<String, LinkText>, files: &'f [FoundFile], solid: &'f [RelPath]) -> Self {
        LinkWays { links, files, solid, settled: HashMap::new(), steps_left: LINK_STEPS_MAX }
    }

    /// The links to make, without any that lead in a circle or over more links than the system follows.
    pub(super) fn settle(mut self) -> HashMap<&'l str, TreeLink> {
        let mut open: Vec<(&LinkText, Option<String>)> = self.links.values().map(|l| (l, link_end(l))).collect();
        open.sort_by(|a, b| a.0.path.cmp(&b.0.path));
        for _ in 0..LINKS_ON_WAY_MAX {
            let before = open.len();
            open.retain(|(link, end)| match self.look(link, end.as_deref()) {
                LinkLook::Open => true,
                LinkLook::Settled(made) => {
                    self.settled.insert(link.path.as_str(), made);
                    false
                }
            });
            if open.len() == before {
                break;
            }
        }
        if self.steps_left == 0 {
            log::warn!("too many links to follow them all, some are copies or are not made");
        }
        let refused = |path: &str| log::debug!("link not made path={path}");
        open.iter().for_each(|(link, _)| refused(link.path.as_str()));
        let made = self.settled.into_iter();
        made.filter_map(|(path, made)| Some((path, made.or_else(|| (refused(path), None).1)?))).collect()
    }

    /// Follows a link part by part along the path that its text means, if it means one.
    fn look(&mut self, link: &LinkText, text_end: Option<&str>) -> LinkLook {
        let Some(text_end) = text_end else { return LinkLook::Settled(None) };
        let file = self.file_at(link.path.as_str());
        let (id, attributes) = (file.map(|file| file.id), file.map_or(Attributes::default(), |file| file.attributes));
        let mut way = TreeLink { text: link.clone(), id, attributes, end: String::new(), over: Vec::new(), hops: 1 };
        let mut parts = text_end.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            self.steps_left = self.steps_left.saturating_sub(1);
            if self.steps_left == 0 {
                return LinkLook::Settled(None);
            }
            if !way.end.is_empty() {
                way.end.push('/');
            }
            way.end.push_str(part);
            let Some(over) = self.links.get(&way.end) else { continue };
            match self.settled.get(over.path.as_str()) {
                None => return LinkLook::Open,
                // A link that is not made may be a copy of a file.
                Some(None) if parts.peek().is_none() => break,
                Some(None) => return LinkLook::Settled(None),
                Some(Some(made)) => {
                    way.over.push(over.path.clone());
                    way.hops = way.hops.saturating_add(made.hops);
                    way.end.clone_from(&made.end);
                }
            }
        }
        let fits = way.hops <= LINKS_ON_WAY_MAX && self.is_end(&way);
        LinkLook::Settled(fits.then_some(way))
    }

    /// Whether what the link is to lead to comes to be at its end.
    fn is_end(&self, way: &TreeLink) -> bool {
        let (end, there) = (way.end.as_str(), self.file_at(&way.end).map(|file| file.id));
        match way.id {
            Some(_) => there == way.id,
            None => end.is_empty() || has(self.solid, end) && there.is_none() || is_dir(self.solid, end),
        }
    }

    fn file_at(&self, path: &str) -> Option<&FoundFile> {
        let at = self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok()?;
        Some(&self.files[at])
    }
}

/// The path below the directory to which a link leads if no part of its way is a link; empty for
/// the directory itself. Nothing for a text that has a `..` behind a name or leads out.
fn link_end(link: &LinkText) -> Option<String> {
    let parts = link.target.split('/').filter(|part| !matches!(*part, "" | "."));
    if parts.skip_while(|part| *part == "..").any(|part| part == "..") {
        return None;
    }
    follow_link(&link.path, &link.target, &mut |_| None).ok()
}
