//! What a fetch makes besides files: empty directories, names of one inode, symbolic links. No I/O.
//!
//! A listing may say anything, so a link is made only if it leads, over no other link, to what the
//! fetch puts in place too: to a file of the very content that the link is listed with, or to a
//! directory. A link whose content is offered, and which is not made, arrives as a copy.

use std::collections::HashMap;

use crate::client::limits::LINK_STEPS_MAX;
use crate::client::{FoundBare, FoundFile};
use crate::content::{Bare, FileId, RelPath, follow_link};
use crate::store::LinkText;

/// What a fetch puts in place below one directory, each name once.
#[derive(Debug, Default)]
pub struct Tree {
    /// Files that are written.
    pub files: Vec<FoundFile>,
    /// Further names of one of these files.
    pub names: Vec<OtherName>,
    /// Empty directories, with their modification times in ns since the Unix epoch.
    pub dirs: Vec<(RelPath, i64)>,
    /// Symbolic links, with the content of those that lead to a file.
    pub links: Vec<(LinkText, Option<FileId>)>,
}

/// A name that becomes a hard link of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherName {
    /// The name.
    pub path: RelPath,
    /// The name of the file that is written.
    pub first: RelPath,
    /// Their content.
    pub id: FileId,
}

impl Tree {
    /// Decides what becomes of each name. Both lists are sorted by path, and no path is in `files`
    /// twice. `is_there` tells whether a file of that length lies at a name already: it becomes the
    /// one that the other names of its inode are linked to.
    pub fn plan(files: Vec<FoundFile>, bare: Vec<FoundBare>, is_there: &dyn Fn(&RelPath, u64) -> bool) -> Self {
        let mut solid: Vec<RelPath> = files.iter().map(|file| file.path.clone()).collect();
        let mut dirs: Vec<(RelPath, i64)> = Vec::new();
        let mut links: HashMap<String, LinkText> = HashMap::new();
        let is_free = |path: &RelPath| !stands_at(&solid, path) && !above(path).any(|dir| has(&solid, dir));
        for FoundBare { path, bare } in bare.into_iter().filter(|bare| is_free(&bare.path)) {
            match bare {
                Bare::EmptyDir { mtime_ns, .. } => dirs.push((path, mtime_ns)),
                Bare::Link { to, .. } => {
                    let text = LinkText { path: path.clone(), target: to.target, mtime_ns: to.mtime_ns };
                    links.insert(path.to_string(), text);
                }
            }
        }
        for file in &files {
            if let Some(to) = file.link.as_deref() {
                let text = LinkText { path: file.path.clone(), target: to.target.clone(), mtime_ns: to.mtime_ns };
                links.insert(file.path.to_string(), text);
            }
        }
        solid.extend(dirs.iter().map(|(path, _)| path.clone()));
        solid.sort();
        // What lies below a name makes it a directory, whatever else is said of it.
        links.retain(|path, _| !is_dir(&solid, path));
        let is_below = |link: &&LinkText| above(&link.path).any(|dir| links.contains_key(dir));
        let below_links: Vec<RelPath> = links.values().filter(is_below).map(|link| link.path.clone()).collect();
        below_links.iter().for_each(|path| drop(links.remove(path.as_str())));
        let is_below_link = |path: &RelPath| above(path).any(|dir| links.contains_key(dir));
        dirs.retain(|(path, _)| !is_below_link(path) && !is_dir(&solid, path.as_str()));
        let made = Self::links_to_make(&links, &files, &solid);
        let mut tree = Tree { dirs, ..Tree::default() };
        for file in files {
            match made.get(file.path.as_str()) {
                Some(link) => tree.links.push(((*link).clone(), Some(file.id))),
                None => tree.files.push(file),
            }
        }
        let without_content = made.values().filter(|link| !has(&solid, link.path.as_str()));
        tree.links.extend(without_content.map(|link| ((*link).clone(), None)));
        tree.links.sort_by(|a, b| a.0.path.cmp(&b.0.path));
        tree.gather_names(is_there);
        tree
    }

    /// Whether nothing is made besides files.
    pub(crate) fn is_empty(&self) -> bool {
        self.paths().next().is_none()
    }

    /// Number of names that have a content and are not written.
    pub(crate) fn names_with_content(&self) -> usize {
        self.names.len() + self.links.iter().filter(|(_, id)| id.is_some()).count()
    }

    /// All that is made besides files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &RelPath> {
        let names = self.names.iter().map(|name| &name.path);
        names.chain(self.dirs.iter().map(|(path, _)| path)).chain(self.links.iter().map(|(link, _)| &link.path))
    }

    /// Leaves out what is made besides files and is not to stay.
    pub(crate) fn retain(&mut self, stays: impl Fn(&RelPath) -> bool) {
        self.names.retain(|name| stays(&name.path));
        self.dirs.retain(|(path, _)| stays(path));
        self.links.retain(|(link, _)| stays(&link.path));
    }

    /// The links that lead straight to what is put in place: a file of their content, or a directory.
    fn links_to_make<'l>(
        links: &'l HashMap<String, LinkText>,
        files: &[FoundFile],
        solid: &[RelPath],
    ) -> HashMap<&'l str, &'l LinkText> {
        let mut steps_left = LINK_STEPS_MAX;
        let id_at = |path: &str| {
            let at = files.binary_search_by(|file| file.path.as_str().cmp(path)).ok()?;
            Some(files[at].id)
        };
        let leads_there = |(path, link): &(&'l str, &'l LinkText)| {
            let Some(end) = link_end(link) else {
                log::debug!("link not made path={path} target={:?}", link.target);
                return false;
            };
            let id = id_at(path);
            let fits = match id {
                Some(_) => id_at(&end) == id,
                None => end.is_empty() || has(solid, &end) && id_at(&end).is_none() || is_dir(solid, &end),
            };
            fits && std::iter::successors(Some(end.as_str()), |at| at.rsplit_once('/').map(|(dir, _)| dir)).all(|at| {
                steps_left = steps_left.saturating_sub(1);
                steps_left > 0 && !links.contains_key(at)
            })
        };
        links.iter().map(|(path, link)| (path.as_str(), link)).filter(leads_there).collect()
    }

    /// Leaves one of the names of each inode among the files.
    fn gather_names(&mut self, is_there: &dyn Fn(&RelPath, u64) -> bool) {
        let mut groups: HashMap<(u64, FileId), Vec<RelPath>> = HashMap::new();
        for file in self.files.iter().filter(|file| file.attributes.link_group != 0) {
            groups.entry((file.attributes.link_group, file.id)).or_default().push(file.path.clone());
        }
        let mut first_of: HashMap<RelPath, RelPath> = HashMap::new();
        for ((_, id), paths) in groups.into_iter().filter(|(_, paths)| paths.len() > 1) {
            let first = paths.iter().find(|path| is_there(path, id.len)).unwrap_or(&paths[0]).clone();
            first_of.extend(paths.into_iter().filter(|path| *path != first).map(|path| (path, first.clone())));
        }
        let names = &mut self.names;
        self.files.retain(|file| {
            let first = first_of.remove(&file.path);
            let is_first = first.is_none();
            names.extend(first.map(|first| OtherName { path: file.path.clone(), first, id: file.id }));
            is_first
        });
    }
}

/// The path below the directory to which a link leads if no part of its way is a link; empty for
/// the directory itself. Nothing for a text that has a `..` behind a name or leads out.
pub(crate) fn link_end(link: &LinkText) -> Option<String> {
    let parts = link.target.split('/').filter(|part| !matches!(*part, "" | "."));
    if parts.skip_while(|part| *part == "..").any(|part| part == "..") {
        return None;
    }
    follow_link(&link.path, &link.target, &mut |_| None).ok()
}

/// Whether the sorted `paths` have `path`.
fn has(paths: &[RelPath], path: &str) -> bool {
    paths.binary_search_by(|p| p.as_str().cmp(path)).is_ok()
}

/// Whether one of the sorted `paths` lies below `dir`.
fn is_dir(paths: &[RelPath], dir: &str) -> bool {
    let behind = |p: &RelPath| p.as_str().as_bytes().iter().cmp(dir.as_bytes().iter().chain(b"/")).is_lt();
    paths.get(paths.partition_point(behind)).is_some_and(|p| p.is_below(dir))
}

/// Whether one of `paths` is `path` or lies below it.
fn stands_at(paths: &[RelPath], path: &RelPath) -> bool {
    has(paths, path.as_str()) || is_dir(paths, path.as_str())
}

/// The directories above a name.
fn above(path: &RelPath) -> impl Iterator<Item = &str> {
    std::iter::successors(path.as_str().rsplit_once('/'), |(dir, _)| dir.rsplit_once('/')).map(|(dir, _)| dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Attributes, Digest, LinkTo, Root};

    fn name(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    fn file(path: &str, content: u8, link_group: u64) -> FoundFile {
        let id = FileId { root: Root(Digest([content; 32])), len: 5 };
        let attributes = Attributes { link_group, ..Attributes::default() };
        FoundFile { path: name(path), id, holders: [].into(), shared: true, attributes, link: None }
    }

    fn linked(path: &str, target: &str) -> FoundFile {
        FoundFile { link: Some(Box::new(to(target))), ..file(path, 1, 0) }
    }

    fn to(target: &str) -> LinkTo<Box<str>> {
        LinkTo { target: target.into(), mtime_ns: 3 }
    }

    fn link(path: &str, target: &str) -> FoundBare {
        FoundBare { path: name(path), bare: Bare::Link { to: to(target), copy: false } }
    }

    fn dir(path: &str) -> FoundBare {
        FoundBare { path: name(path), bare: Bare::EmptyDir { mtime_ns: 4, copy: false } }
    }

    /// Files, further names, directories and links, in short.
    fn plan(mut files: Vec<FoundFile>, bare: Vec<FoundBare>) -> [String; 4] {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let tree = Tree::plan(files, bare, &|path, _| path.as_str().starts_with("here"));
        let text = |all: Vec<String>| all.join(" ");
        [
            text(tree.files.iter().map(|f| f.path.to_string()).collect()),
            text(tree.names.iter().map(|n| format!("{}={}", n.path, n.first)).collect()),
            text(tree.dirs.iter().map(|d| d.0.to_string()).collect()),
            text(
                tree.links
                    .iter()
                    .map(|(l, id)| format!("{}>{}{}", l.path, l.target, if id.is_some() { "" } else { "/" }))
                    .collect(),
            ),
        ]
    }

    #[test]
    fn a_link_is_made_where_its_target_is_fetched_and_is_a_copy_elsewhere() {
        let got = plan(vec![file("v2/a", 1, 0), linked("latest", "v2/a"), linked("gone", "v1/a")], vec![]);
        assert_eq!(got, ["gone v2/a", "", "", "latest>v2/a"]);
        let got = plan(vec![file("v2/a", 1, 0), linked("m", "now/a")], vec![link("now", "v2"), link("old", "v1")]);
        assert_eq!(got, ["m v2/a", "", "", "now>v2/"], "no link leads over another");
        let got = plan(vec![linked("m", "now/a")], vec![link("now", "v2")]);
        assert_eq!(got, ["m", "", "", ""], "nothing of v2 is fetched");
        let got = plan(vec![], vec![dir("d/e"), link("l", "d"), link("d/up", "..")]);
        assert_eq!(got, ["", "", "d/e", "d/up>../ l>d/"]);
    }

    #[test]
    fn a_link_to_other_content_than_its_own_is_a_copy() {
        let got = plan(vec![file("b", 2, 0), linked("a", "b"), linked("c", "./d"), file("d", 1, 0)], vec![]);
        assert_eq!(got, ["a b d", "", "", "c>./d"]);
        let got = plan(vec![file("b", 1, 0), linked("a", "b"), linked("c", "a"), linked("e", "x/../b")], vec![]);
        assert_eq!(got, ["b c e", "", "", "a>b"]);
        assert_eq!(plan(vec![file("b", 2, 0)], vec![link("a", "b")])[3], "", "a link without content to a file");
    }

    #[test]
    fn hostile_links_are_not_made() {
        let secret = || file("a/b/secret", 1, 0);
        for (path, target) in [
            ("q", "/etc/passwd"),
            ("q", "../secret"),
            ("a/q", "../../a/b/secret"),
            ("q", "a/b/l/../secret"),
            ("q", "q"),
            ("q", "a/b/secret\n"),
            ("q", ".gpb/x"),
            ("q", ""),
        ] {
            let got = plan(vec![secret(), linked(path, target)], vec![link("a/b/l", "../..")]);
            assert!(!got[3].contains(&format!("{path}>")), "{target}: {got:?}");
            assert!(got[0].split(' ').any(|file| file == path), "{target}: it is a copy, {got:?}");
        }
        let long = "x/".repeat(2100) + "../";
        assert_eq!(plan(vec![secret(), linked("q", &long)], vec![])[3], "");
        // Links that are directories for others, files that are directories, and the same name twice.
        let got = plan(
            vec![secret()],
            vec![link("a", "elsewhere"), link("a/b/secret", "x"), dir("a/b"), dir("a/b/secret/x")],
        );
        assert_eq!(got, ["a/b/secret", "", "", ""]);
        let got = plan(vec![secret()], vec![link("m", "a"), dir("m/d"), link("m/l", "../a")]);
        assert_eq!((&*got[2], &*got[3]), ("m/d", "m/l>../a/"), "{got:?}");
        let got = plan(vec![secret()], vec![link("m", "a"), link("m/l", "../a")]);
        assert_eq!(got[3], "m>a/", "{got:?}");
    }

    #[test]
    fn names_of_one_inode_and_content_are_one_file() {
        let all = vec![
            file("b", 1, 7),
            file("here/c", 1, 7),
            file("a", 1, 7),
            file("other content", 2, 7),
            file("other group", 1, 8),
            file("x", 1, 9),
            file("y", 1, 9),
        ];
        let got = plan(all, vec![]);
        assert_eq!(got[0], "here/c other content other group x");
        assert_eq!(got[1], "a=here/c b=here/c y=x");
    }

    /// A listing of the size that one peer may have, made to cost as much as it can.
    #[test]
    fn a_great_many_links_and_groups_end_soon() {
        let begun = std::time::Instant::now();
        let chain = |n: usize| link(&format!("l{n:06}"), &format!("l{:06}/../l{:06}", n + 1, n + 1));
        let deep = |n: usize| link(&format!("m{n:06}"), &format!("l{n:06}/{}", "d/".repeat(400)));
        let groups = (0..50_000).map(|n| file(&format!("f{n:06}"), 1, n + 1)).collect();
        let mut bare: Vec<FoundBare> = (0..2_000).map(chain).collect();
        bare.extend((0..2_000).map(deep));
        let tree = Tree::plan(groups, bare, &|_, _| false);
        assert_eq!((tree.files.len(), tree.links.len(), tree.names.len()), (50_000, 0, 0));
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}
