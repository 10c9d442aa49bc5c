//! What a fetch makes besides files: empty directories, names of one inode, symbolic links. No I/O.
//!
//! A listing may say anything, so a link is made only if it leads, over links that are made as well,
//! to what the fetch puts in place too: to a file of the very content that the link is listed with, or
//! to a directory. A link whose content is offered, and which is not made, arrives as a copy.

use std::collections::{HashMap, HashSet};

use crate::client::{FoundBare, FoundFile};
use crate::content::{Attributes, Bare, FileId, RelPath, dirs_above};
use crate::store::LinkText;

mod links;

use links::LinkWays;

/// What a fetch puts in place below one directory, each name once.
#[derive(Debug, Default)]
pub struct Tree {
    /// Files that are written.
    pub files: Vec<FoundFile>,
    /// Further names of one of these files.
    pub names: Vec<OtherName>,
    /// Empty directories, with their modification times in ns since the Unix epoch.
    pub dirs: Vec<(RelPath, i64)>,
    /// Symbolic links.
    pub links: Vec<TreeLink>,
}

/// What lies at a name before the fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiesThere {
    /// A file of the length that is to be there.
    SameLength,
    /// Nothing.
    Nothing,
    /// Something else.
    Other,
}

/// A symbolic link to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeLink {
    /// Its name and text.
    pub text: LinkText,
    /// The content of the file to which it leads, if it leads to one.
    pub id: Option<FileId>,
    /// What that file is besides its content.
    pub attributes: Attributes,
    /// The path to which it leads, no part of which is a link; empty for the directory itself.
    pub end: String,
    /// The links on its way, in their order.
    pub over: Vec<RelPath>,
    /// How many links are followed on its way, itself among them.
    pub hops: u32,
}

/// A name that becomes a hard link of another one.
#[derive(Debug, Clone)]
pub struct OtherName {
    /// What was found under the name.
    pub file: FoundFile,
    /// The name of the file that is written.
    pub first: RelPath,
}

impl Tree {
    /// Decides what becomes of each name. Both lists are sorted by path, and no path is in `files`
    /// twice. `look` tells what lies at a name where a file of that length goes: one that may be it becomes
    /// the one that the other names of its inode are linked to.
    pub fn plan(files: Vec<FoundFile>, bare: Vec<FoundBare>, look: &dyn Fn(&RelPath, u64) -> LiesThere) -> Self {
        let mut solid: Vec<RelPath> = files.iter().map(|file| file.path.clone()).collect();
        let mut dirs: Vec<(RelPath, i64)> = Vec::new();
        let mut links: HashMap<String, LinkText> = HashMap::new();
        let is_free =
            |path: &RelPath| !stands_at(&solid, path) && !dirs_above(path.as_str()).any(|dir| has(&solid, dir));
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
        let is_below = |link: &&LinkText| dirs_above(link.path.as_str()).any(|dir| links.contains_key(dir));
        let below_links: Vec<RelPath> = links.values().filter(is_below).map(|link| link.path.clone()).collect();
        below_links.iter().for_each(|path| drop(links.remove(path.as_str())));
        let is_below_link = |path: &RelPath| dirs_above(path.as_str()).any(|dir| links.contains_key(dir));
        dirs.retain(|(path, _)| !is_below_link(path) && !is_dir(&solid, path.as_str()));
        let mut made = LinkWays::new(&links, &files, &solid).settle();
        let mut tree = Tree { dirs, ..Tree::default() };
        for file in files {
            match made.remove(file.path.as_str()) {
                Some(link) => tree.links.push(link),
                None => tree.files.push(file),
            }
        }
        tree.links.extend(made.into_values());
        tree.links.sort_by(|a, b| a.text.path.cmp(&b.text.path));
        tree.gather_names(look);
        tree
    }

    /// Whether nothing is made besides files.
    pub(crate) fn is_empty(&self) -> bool {
        self.paths().next().is_none()
    }

    /// Number of names that have a content and are not written.
    pub(crate) fn names_with_content(&self) -> usize {
        self.names.len() + self.links.iter().filter(|link| link.id.is_some()).count()
    }

    /// What the names with a content are besides that, wherever they come to be files of their own.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (RelPath, Attributes)> {
        let names = self.names.iter().map(|name| (name.file.path.clone(), name.file.attributes));
        let links = self.links.iter().filter(|link| link.id.is_some());
        names.chain(links.map(|link| (link.text.path.clone(), link.attributes)))
    }

    /// All that is made besides files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &RelPath> {
        let names = self.names.iter().map(|name| &name.file.path);
        names.chain(self.dirs.iter().map(|(path, _)| path)).chain(self.links.iter().map(|link| &link.text.path))
    }

    /// Leaves out what is made besides files and is not to stay.
    pub(crate) fn retain(&mut self, stays: impl Fn(&RelPath) -> bool) {
        self.names.retain(|name| stays(&name.file.path));
        self.dirs.retain(|(path, _)| stays(path));
        self.links.retain(|link| stays(&link.text.path));
    }

    /// Takes, for each file of `blocked` that is the first of its inode, another name of it as the first,
    /// the best one by what lies there. Returns what is found under these.
    pub fn take_firsts(
        &mut self,
        blocked: &HashSet<&str>,
        look: &dyn Fn(&RelPath, u64) -> LiesThere,
    ) -> Vec<FoundFile> {
        let mut best: HashMap<RelPath, (LiesThere, usize)> = HashMap::new();
        for (at, name) in self.names.iter().enumerate().filter(|(_, name)| blocked.contains(name.first.as_str())) {
            let there = look(&name.file.path, name.file.id.len);
            // What is blocked is a file of the user's, so the free name is the best one.
            let rank = |there: LiesThere| [LiesThere::Nothing, LiesThere::SameLength].iter().position(|t| *t == there);
            let best = best.entry(name.first.clone()).or_insert((there, at));
            if rank(there).unwrap_or(2) < rank(best.0).unwrap_or(2) {
                *best = (there, at);
            }
        }
        let mut taken = Vec::with_capacity(best.len());
        let mut new: HashMap<RelPath, RelPath> = HashMap::with_capacity(best.len());
        let firsts: HashSet<usize> = best.values().map(|(_, at)| *at).collect();
        let names = std::mem::take(&mut self.names);
        for (at, name) in names.into_iter().enumerate() {
            if firsts.contains(&at) {
                new.insert(name.first, name.file.path.clone());
                taken.push(name.file);
            } else {
                self.names.push(name);
            }
        }
        for name in &mut self.names {
            if let Some(first) = new.get(&name.first) {
                name.first = first.clone();
            }
        }
        taken
    }

    /// Leaves one of the names of each inode among the files.
    fn gather_names(&mut self, look: &dyn Fn(&RelPath, u64) -> LiesThere) {
        let mut groups: HashMap<(u64, FileId), Vec<RelPath>> = HashMap::new();
        for file in self.files.iter().filter(|file| file.attributes.link_group != 0) {
            groups.entry((file.attributes.link_group, file.id)).or_default().push(file.path.clone());
        }
        let mut first_of: HashMap<RelPath, RelPath> = HashMap::new();
        for ((_, id), paths) in groups.into_iter().filter(|(_, paths)| paths.len() > 1) {
            let may_be_it = |path: &&RelPath| look(path, id.len) == LiesThere::SameLength;
            let first = paths.iter().find(may_be_it).unwrap_or(&paths[0]).clone();
            first_of.extend(paths.into_iter().filter(|path| *path != first).map(|path| (path, first.clone())));
        }
        for file in std::mem::take(&mut self.files) {
            match first_of.remove(&file.path) {
                Some(first) => self.names.push(OtherName { file, first }),
                None => self.files.push(file),
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, LinkTo, Root};

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
        let tree = Tree::plan(files, bare, &|path, _| match path.as_str().starts_with("here") {
            true => LiesThere::SameLength,
            false => LiesThere::Nothing,
        });
        let text = |all: Vec<String>| all.join(" ");
        [
            text(tree.files.iter().map(|f| f.path.to_string()).collect()),
            text(tree.names.iter().map(|n| format!("{}={}", n.file.path, n.first)).collect()),
            text(tree.dirs.iter().map(|d| d.0.to_string()).collect()),
            text(
                tree.links
                    .iter()
                    .map(|l| format!("{}>{}{}", l.text.path, l.text.target, if l.id.is_some() { "" } else { "/" }))
                    .collect(),
            ),
        ]
    }

    #[test]
    fn a_link_is_made_where_its_target_is_fetched_and_is_a_copy_elsewhere() {
        let got = plan(vec![file("v2/a", 1, 0), linked("latest", "v2/a"), linked("gone", "v1/a")], vec![]);
        assert_eq!(got, ["gone v2/a", "", "", "latest>v2/a"]);
        let got = plan(vec![file("v2/a", 1, 0), linked("m", "now/a")], vec![link("now", "v2"), link("old", "v1")]);
        assert_eq!(got, ["v2/a", "", "", "m>now/a now>v2/"], "a link may lead over another");
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
        assert_eq!(got, ["b e", "", "", "a>b c>a"]);
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

    #[test]
    fn links_over_links_are_made_if_all_of_them_are() {
        let chain = || vec![file("v2/a", 1, 0), linked("l1", "l2"), linked("l2", "d/l3"), linked("d/l3", "../v2/a")];
        let got = plan(chain(), vec![]);
        assert_eq!(got, ["v2/a", "", "", "d/l3>../v2/a l1>l2 l2>d/l3"]);
        // The last one of the chain has another content, so it is a copy, and the others lead to that.
        let mut other = chain();
        other[0] = file("v2/a", 2, 0);
        assert_eq!(plan(other, vec![]), ["d/l3 v2/a", "", "", "l1>l2 l2>d/l3"]);
        // Directories on the way, and a circle among them.
        let got = plan(
            vec![file("v2/a", 1, 0), file("x/b", 2, 0), linked("m", "now/sub/a"), linked("n", "round/a")],
            vec![
                link("now", "v2x"),
                link("v2x", "x"),
                link("x/sub", "../v2"),
                link("round", "trip"),
                link("trip", "round"),
            ],
        );
        assert_eq!(got, ["n v2/a x/b", "", "", "m>now/sub/a now>v2x/ v2x>x/ x/sub>../v2/"]);
        let mut chain = chain();
        chain.sort_by(|a, b| a.path.cmp(&b.path));
        let tree = Tree::plan(chain, vec![], &|_, _| LiesThere::Nothing);
        let hops: Vec<_> = tree.links.iter().map(|l| (l.text.path.as_str(), l.hops, l.over.len(), &*l.end)).collect();
        assert_eq!(hops, [("d/l3", 1, 0, "v2/a"), ("l1", 3, 1, "v2/a"), ("l2", 2, 1, "v2/a")]);
    }

    #[test]
    fn a_chain_is_as_long_as_the_system_follows() {
        let link_to = |n: u32| linked(&format!("l{n:02}"), &format!("l{:02}", n + 1));
        let mut chain: Vec<FoundFile> = (0..50).map(link_to).collect();
        chain.push(file("l50", 1, 0));
        let got = plan(chain, vec![]);
        assert_eq!(got[3].split(' ').count(), 40, "{got:?}");
        assert_eq!(got[0].split(' ').count(), 11, "{got:?}");
        assert!(got[3].starts_with("l10>l11") && got[0].ends_with("l09 l50"), "{got:?}");
    }

    #[test]
    fn another_name_of_an_inode_becomes_the_first() {
        let all = vec![file("a", 1, 7), file("b", 1, 7), file("c", 1, 7), file("d", 1, 8), file("e", 1, 8)];
        let mut tree = Tree::plan(all, vec![], &|_, _| LiesThere::Other);
        let look = |path: &RelPath, _| match path.as_str() {
            "c" => LiesThere::Nothing,
            _ => LiesThere::Other,
        };
        let pairs = |tree: &Tree| tree.names.iter().map(|n| format!("{}={}", n.file.path, n.first)).collect::<Vec<_>>();
        let taken = tree.take_firsts(&HashSet::from(["a"]), &look);
        assert_eq!((taken.len(), taken[0].path.as_str(), pairs(&tree)), (1, "c", vec!["b=c".into(), "e=d".into()]));
        let taken = tree.take_firsts(&HashSet::from(["c", "d"]), &look);
        assert_eq!((taken.len(), tree.names.len()), (2, 0));
        assert!(tree.take_firsts(&HashSet::from(["b", "e"]), &look).is_empty());
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
        let tree = Tree::plan(groups, bare, &|_, _| LiesThere::Nothing);
        assert_eq!((tree.files.len(), tree.links.len(), tree.names.len()), (50_000, 0, 0));
        assert!(begun.elapsed() < std::time::Duration::from_secs(120), "{:?}", begun.elapsed());
    }
}
