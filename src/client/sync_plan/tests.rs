use std::sync::Arc;

use super::*;
use crate::content::{Digest, LinkTo, Root};
use crate::identity::{NodeId, PeerId};

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn id(n: u8) -> FileId {
    FileId { root: Root(Digest([n; 32])), len: 5 }
}

/// What the peer has: a name that ends with `/` is an empty directory, one with `@` a link, and else a file.
fn listing(names: &[(&str, u8)]) -> WholeListing {
    let holders: Arc<[NodeId]> = [NodeId::new(PeerId([1; 32]), 1)].into();
    let mut all = WholeListing { node: holders[0], revision: 7, complete: true, files: Vec::new(), bare: Vec::new() };
    for (name, n) in names {
        match (name.strip_suffix('/'), name.strip_suffix('@')) {
            (Some(dir), _) => {
                all.bare.push(FoundBare { path: path(dir), bare: Bare::EmptyDir { mtime_ns: 1, copy: false } });
            }
            (_, Some(link)) => {
                let to = LinkTo { target: "target".into(), mtime_ns: 1 };
                all.bare.push(FoundBare { path: path(link), bare: Bare::Link { to, copy: false } });
            }
            _ => all.files.push(FoundFile {
                path: path(name),
                id: id(*n),
                holders: holders.clone(),
                shared: true,
                attributes: Default::default(),
                link: None,
            }),
        }
    }
    all
}

/// What is here, by the same letters; content 0 is the user's.
fn plan(listing: WholeListing, local: &[(&str, u8)], limits: SyncLimits) -> SyncPlan {
    let mut tree = LocalTree::default();
    let mut contents = HashMap::new();
    for (name, n) in local {
        let plain = path(name.trim_end_matches(['/', '@', '|']));
        for dir in dirs_above(plain.as_str()).map(path).collect::<Vec<_>>().into_iter().rev() {
            if !tree.dirs.contains(&dir) {
                tree.dirs.push(dir);
            }
        }
        if name.ends_with('/') {
            tree.dirs.push(plain);
            continue;
        }
        let kind = match name.as_bytes().last() {
            Some(b'@') => LocalKind::Link,
            Some(b'|') => LocalKind::Other,
            _ => LocalKind::File,
        };
        contents.insert(plain.clone(), *n);
        tree.names.push(LocalName::made_up(plain, kind));
    }
    let local = LocalSide {
        tree,
        fetched_as: &|name| contents.get(&name.path).filter(|n| **n > 0).map(|n| id(*n)),
        is_made_dir: &|dir| dir.as_str().ends_with("made"),
        is_left_out: &|path| path.as_str() == "key" || path.is_below("out"),
        is_same: &|_, twin| twin == "folded",
    };
    SyncPlan::new(listing, local, limits)
}

const ALL: SyncLimits = SyncLimits { force: false, max_delete: MaxDelete::Percent(100) };
const FORCE: SyncLimits = SyncLimits { force: true, max_delete: MaxDelete::Files(0) };

fn texts<'p>(paths: impl IntoIterator<Item = &'p RelPath>) -> Vec<&'p str> {
    paths.into_iter().map(RelPath::as_str).collect()
}

#[test]
fn what_the_peer_has_not_goes_and_what_is_the_users_stays() {
    let local = [("a", 1), ("gone", 2), ("mine", 0), ("d/gone", 3), ("d/e/gone@", 4), ("fifo|", 0), ("key", 0)];
    let all = [&local[..], &[("out/x", 5), ("kept/", 0), ("link@", 6), ("dir/", 0)]].concat();
    let listed = || listing(&[("a", 9), ("b", 8), ("link@", 0), ("dir/", 0)]);
    let normal = plan(listed(), &all, ALL);
    assert_eq!(texts(&normal.remove), ["d/e/gone", "d/gone", "gone"]);
    let kept: Vec<_> = normal.kept.iter().map(|kept| (kept.path.as_str(), kept.reason)).collect();
    assert_eq!(kept, [("fifo", KeptReason::Special), ("mine", KeptReason::Users)]);
    assert_eq!(texts(&normal.dirs), ["d/e", "d"], "an empty directory of the user's stays");
    assert_eq!((normal.hindrance, normal.files.len(), normal.revision), (None, 2, 7));
    let forced = plan(listed(), &all, FORCE);
    assert_eq!(texts(&forced.remove), ["d/e/gone", "d/gone", "gone", "mine"]);
    assert_eq!((texts(&forced.dirs), forced.hindrance), (vec!["kept", "d/e", "d"], None));
}

#[test]
fn nothing_goes_by_a_list_that_is_not_complete_or_beyond_the_bound() {
    let mut half = listing(&[("a", 1)]);
    half.complete = false;
    for limits in [ALL, FORCE] {
        let plan = plan(half.clone(), &[("a", 1), ("b", 2)], limits);
        assert_eq!(plan.hindrance, Some(SyncHindrance::Incomplete));
    }
    let hindrance = |local: &[(&str, u8)], max_delete| {
        plan(listing(&[("a", 1), ("moved", 2)]), local, SyncLimits { force: false, max_delete }).hindrance
    };
    let too_many = |files, all, max| Some(SyncHindrance::TooMany { files, all, max });
    let local = [("a", 1), ("b", 5), ("c", 6), ("mine", 0)];
    assert_eq!(hindrance(&local, MaxDelete::default()), None);
    assert_eq!(hindrance(&local[..3], MaxDelete::default()), too_many(2, 3, MaxDelete::default()));
    assert_eq!(hindrance(&local, MaxDelete::Files(1)), too_many(2, 4, MaxDelete::Files(1)));
    assert_eq!(hindrance(&[("old", 2)], MaxDelete::Files(0)), None, "its content has another name now");
    assert_eq!(hindrance(&[("mine", 0)], MaxDelete::Files(0)), None);
}

/// A file becomes a directory, and a directory a file.
#[test]
fn what_lies_where_other_names_go_is_removed_first() {
    let listed = listing(&[("x/y", 1), ("d", 2), ("e/", 0)]);
    let plan = plan(listed, &[("x", 3), ("d/1", 4), ("d/s/2", 5), ("d/mine", 0), ("e", 6), ("z", 7)], ALL);
    assert_eq!(texts(plan.in_the_way.iter().map(|name| &name.path)), ["d/1", "d/s/2", "e", "x"]);
    assert_eq!(texts(plan.later.iter().map(|name| &name.path)), ["z"]);
    assert_eq!(texts(&plan.dirs), ["d/s", "d"]);
    assert_eq!(texts(plan.kept.iter().map(|kept| &kept.path)), ["d/mine"]);
}

#[test]
fn another_spelling_of_a_wanted_name_is_the_same_file() {
    let plan = plan(listing(&[("folded", 1), ("other", 2)]), &[("Folded", 1), ("Other", 2)], ALL);
    assert_eq!(texts(&plan.remove), ["Other"], "two files where cases are told apart");
    let both = self::plan(listing(&[("folded", 1)]), &[("Folded", 1), ("folded", 1)], ALL);
    assert_eq!(texts(&both.remove), ["Folded"], "two names of one file");
}

#[test]
fn empty_directories_go_that_fetches_made_and_the_peer_has_no_more() {
    let local = [("made/", 0), ("d/made/", 0), ("stays/made/", 0), ("out/made/", 0), ("x/made/", 0), ("users/", 0)];
    let listed = || listing(&[("stays/made/", 0), ("x", 1)]);
    let gone = plan(listed(), &local, SyncLimits { max_delete: MaxDelete::Files(3), ..ALL });
    assert_eq!((texts(&gone.remove), gone.hindrance), (vec!["d/made", "made", "x/made"], None));
    assert_eq!(texts(&gone.dirs), ["x/made", "x", "d/made", "d", "made"]);
    assert_eq!(texts(&gone.dirs_in_the_way), ["x/made", "x"]);
    // Cause: they did not count. Effect: a tree of directories went whatever the bound.
    let max_delete = MaxDelete::Files(2);
    let many = plan(listed(), &local, SyncLimits { max_delete, ..ALL });
    assert_eq!(many.hindrance, Some(SyncHindrance::TooMany { files: 3, all: 4, max: max_delete }));
    let incomplete = plan(WholeListing { complete: false, ..listed() }, &local, ALL);
    assert_eq!(incomplete.hindrance, Some(SyncHindrance::Incomplete));
}
