//! Where a symbolic link leads, worked out from texts alone.

use crate::content::RelPath;
use crate::limits::{LINK_PARTS_MAX, LINK_TARGET_LEN_MAX, LINKS_ON_WAY_MAX, PATH_LEN_MAX};

/// Why a link counts as none that can be made again elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkRefusal {
    /// Its target is empty, longer than [`LINK_TARGET_LEN_MAX`], or no text of names.
    #[error("its target is no path")]
    Target,
    /// Its target is absolute.
    #[error("its target is absolute")]
    Absolute,
    /// It leads out of the directory, on its way or at its end.
    #[error("it leads out of the directory")]
    Leaves,
    /// Its target has a `..` behind a link, which leads elsewhere than it reads.
    #[error("its target has `..` behind a link")]
    BehindLink,
    /// It leads over more than [`LINKS_ON_WAY_MAX`] links, perhaps in a circle, or by more than
    /// [`LINK_PARTS_MAX`] names.
    #[error("it leads over too many links")]
    TooMany,
}

/// The path below the directory to which the link `at` with the text `target` leads, every link on
/// its way resolved; empty for the directory itself. `link_at` gives the text of the link at a path,
/// if one is there.
///
/// The path is resolved part by part, as the kernel does it. A `..` is taken only where it goes up
/// from names that are no links: behind a link the text means another directory than it names.
///
/// # Errors
/// [`LinkRefusal`]; nothing is said about whether something is at the end.
pub fn follow_link(
    at: &RelPath,
    target: &str,
    link_at: &mut dyn FnMut(&str) -> Option<String>,
) -> Result<String, LinkRefusal> {
    let mut way = LinkWay { here: String::new(), links_left: LINKS_ON_WAY_MAX, parts_left: LINK_PARTS_MAX, link_at };
    let parents = at.as_str().rsplit_once('/').map_or("", |(parents, _)| parents);
    // The directory of the link is reached by names that may be links themselves.
    if !parents.is_empty() {
        way.follow(parents)?;
    }
    way.follow(target)?;
    let path = way.here;
    if path.is_empty() || RelPath::new(&path).is_ok() { Ok(path) } else { Err(LinkRefusal::Target) }
}

/// A way through the directory.
struct LinkWay<'a> {
    /// The path so far, no part of which is a link.
    here: String,
    links_left: u32,
    parts_left: u32,
    link_at: &'a mut dyn FnMut(&str) -> Option<String>,
}

impl LinkWay<'_> {
    fn follow(&mut self, text: &str) -> Result<(), LinkRefusal> {
        if text.is_empty() || text.len() > LINK_TARGET_LEN_MAX || text.chars().any(char::is_control) {
            return Err(LinkRefusal::Target);
        }
        if text.starts_with('/') {
            return Err(LinkRefusal::Absolute);
        }
        let mut is_behind_link = false;
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." if is_behind_link => return Err(LinkRefusal::BehindLink),
                ".." if self.here.is_empty() => return Err(LinkRefusal::Leaves),
                ".." => self.here.truncate(self.here.rfind('/').unwrap_or(0)),
                name => is_behind_link |= self.enter(name)?,
            }
        }
        Ok(())
    }

    /// Steps to `name`; true if that is a link, which is followed.
    fn enter(&mut self, name: &str) -> Result<bool, LinkRefusal> {
        let above = self.here.len();
        self.parts_left = self.parts_left.checked_sub(1).ok_or(LinkRefusal::TooMany)?;
        if above + 1 + name.len() > PATH_LEN_MAX {
            return Err(LinkRefusal::Target);
        }
        if above > 0 {
            self.here.push('/');
        }
        self.here.push_str(name);
        let Some(target) = (self.link_at)(&self.here) else { return Ok(false) };
        self.here.truncate(above);
        self.links_left = self.links_left.checked_sub(1).ok_or(LinkRefusal::TooMany)?;
        self.follow(&target)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn follow(links: &[(&str, &str)], at: &str) -> Result<String, LinkRefusal> {
        let links: HashMap<&str, &str> = links.iter().copied().collect();
        let mut link_at = |path: &str| links.get(path).map(|text| text.to_string());
        follow_link(&RelPath::new(at).unwrap(), links[at], &mut link_at)
    }

    #[test]
    fn a_link_leads_where_the_kernel_would_go() {
        for (links, at, to) in [
            (&[("a/b/l", "../c")][..], "a/b/l", Ok("a/c")),
            (&[("l", "x/./y//z/")], "l", Ok("x/y/z")),
            (&[("a/l", "..")], "a/l", Ok("")),
            (&[("latest", "v2"), ("m", "latest/model.bin")], "m", Ok("v2/model.bin")),
            (&[("a/l", "../b"), ("q", "a/l/x")], "q", Ok("b/x")),
            (&[("d", "e"), ("d/l", "x")], "d/l", Ok("e/x")),
            (&[("l", "../x")], "l", Err(LinkRefusal::Leaves)),
            // It comes back, which only this very directory would let it do.
            (&[("a/l", "../../D/x")], "a/l", Err(LinkRefusal::Leaves)),
            (&[("l", "/etc/passwd")], "l", Err(LinkRefusal::Absolute)),
            (&[("m", "/etc"), ("l", "m/passwd")], "l", Err(LinkRefusal::Absolute)),
            // It reads as `a/b/secret`, and leads out.
            (&[("a/b/l", "../.."), ("q", "a/b/l/../secret")], "q", Err(LinkRefusal::BehindLink)),
            (&[("a/b/l", "../.."), ("q", "a/b/l/x")], "q", Ok("x")),
            (&[("l", "l")], "l", Err(LinkRefusal::TooMany)),
            (&[("l", "m/x"), ("m", "l/y")], "l", Err(LinkRefusal::TooMany)),
            (&[("l", "")], "l", Err(LinkRefusal::Target)),
            (&[("l", "a\nb")], "l", Err(LinkRefusal::Target)),
            (&[("l", ".gpb/key")], "l", Err(LinkRefusal::Target)),
        ] {
            assert_eq!(follow(links, at), to.map(String::from), "{links:?} {at}");
        }
        let long = "x/".repeat(2100);
        assert_eq!(follow(&[("l", &long)], "l"), Err(LinkRefusal::Target));
    }

    /// Each of these links doubles the way; the number of links on it is what is bounded.
    #[test]
    fn a_way_that_doubles_with_each_link_ends_soon() {
        let names: Vec<(String, String)> =
            (0..60).map(|n| (format!("l{n}"), format!("l{}/./l{}", n + 1, n + 1))).collect();
        let mut looks = 0;
        let mut link_at = |path: &str| {
            looks += 1;
            let name = path.rsplit('/').next()?;
            names.iter().find(|(link, _)| link == name).map(|(_, text)| text.clone())
        };
        let end = follow_link(&RelPath::new("l").unwrap(), "l0", &mut link_at);
        assert_eq!(end, Err(LinkRefusal::TooMany));
        assert!(looks < 200, "{looks}");
    }
}
