//! No circles of files inside a module: where A uses B, B does not use A, directly or through others.
//!
//! A folder or file counts with all that lies below it, and what a file shares with its own sub-modules counts as its
//! own: circles are looked for among siblings only. A path leads to the file that defines the item, also through
//! `pub use`.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, sources};

/// Circles that are known, and that may only get fewer: the files of each, as `module: a b c`.
const KNOWN: [&str; 0] = [];

type Module = Vec<String>;

/// Which modules are files, and what each imports under which name.
struct Modules(BTreeMap<Module, BTreeMap<String, Vec<String>>>);

#[test]
fn files_of_a_module_form_no_circles() {
    let circles = circles(&sources());
    let known: BTreeSet<String> = KNOWN.iter().map(|k| k.to_string()).collect();
    let new: Vec<_> = circles.difference(&known).collect();
    let gone: Vec<_> = known.difference(&circles).collect();
    assert!(new.is_empty() && gone.is_empty(), "new circles: {new:#?}\nno longer there, to be unlisted: {gone:#?}");
}

fn circles(sources: &[Source]) -> BTreeSet<String> {
    let modules = Modules::new(sources);
    // Who uses whom, for each pair of siblings, as the whole module paths of both.
    let mut uses: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for source in sources {
        let from = source.module();
        for used in source.paths() {
            let Some(to) = modules.resolve(&from, &used.names, 0) else { continue };
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if common > 0 && common < from.len() && common < to.len() {
                uses.entry(from[..=common].to_vec()).or_default().insert(to[..=common].to_vec());
            }
        }
    }
    let mut found = BTreeSet::new();
    for start in uses.keys() {
        let ahead = reachable(&uses, start);
        let around: Vec<&str> =
            ahead.iter().filter(|m| reachable(&uses, m).contains(start)).map(|m| m.last().unwrap().as_str()).collect();
        if !around.is_empty() {
            found.insert(format!("{}: {}", start[..start.len() - 1].join("::"), around.join(" ")));
        }
    }
    found
}

/// Everything that is used from `start` on, itself only if a circle leads there.
fn reachable(uses: &BTreeMap<Module, BTreeSet<Module>>, start: &Module) -> BTreeSet<Module> {
    let mut seen = BTreeSet::new();
    let mut next = vec![start];
    while let Some(module) = next.pop() {
        for used in uses.get(module).into_iter().flatten() {
            if seen.insert(used.clone()) {
                next.push(used);
            }
        }
    }
    seen
}

impl Modules {
    fn new(sources: &[Source]) -> Self {
        let imports = |s: &Source| s.imports().into_iter().map(|used| (used.alias, used.names)).collect();
        Modules(sources.iter().map(|s| (s.module(), imports(s))).collect())
    }

    /// The module whose file defines what `names` lead to from inside of `from`; `None` for what is not of this crate.
    fn resolve(&self, from: &Module, names: &[String], depth: usize) -> Option<Module> {
        let supers = names.iter().take_while(|n| *n == "super").count();
        let (mut at, mut rest) = match names.first()?.as_str() {
            "crate" => (Vec::new(), &names[1..]),
            "self" => (from.clone(), &names[1..]),
            "super" => (from[..from.len().checked_sub(supers)?].to_vec(), &names[supers..]),
            // A name of this file: one of its sub-modules; an import has been counted where it stands.
            _ => (from.clone(), names),
        };
        let relative = rest.len() == names.len();
        while let Some(name) = rest.first() {
            let below: Module = at.iter().chain([name]).cloned().collect();
            if self.0.contains_key(&below) {
                (at, rest) = (below, &rest[1..]);
                continue;
            }
            if relative && at == *from {
                return None;
            }
            if let Some(import) = self.0.get(&at).and_then(|imports| imports.get(name)).filter(|_| depth < 8) {
                let whole: Vec<String> = import.iter().chain(&rest[1..]).cloned().collect();
                return self.resolve(&at, &whole, depth + 1);
            }
            break;
        }
        Some(at)
    }
}

#[cfg(test)]
mod samples {
    use std::path::Path;

    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(Path::new(path), text)).collect();
        circles(&sources).into_iter().collect()
    }

    #[test]
    fn a_circle_is_found_however_it_is_written() {
        let (a, b) = ("use crate::m::b::{B, C};", "struct B; fn f(_: super::a::A) {}");
        let root = ("m/mod.rs", "");
        assert_eq!(found(&[root, ("m/a.rs", a), ("m/b.rs", b)]), ["m: a b"]);
        let door = ("m/mod.rs", "mod a; mod b; pub use a::A; pub use b::B as Bee;");
        assert_eq!(found(&[door, ("m/a.rs", "use super::Bee;"), ("m/b.rs", "use crate::m::A;")]), ["m: a b"]);
        let around =
            [root, ("m/a.rs", "use super::b::B;"), ("m/b.rs", "use super::c::C;"), ("m/c.rs", "use super::a::A;")];
        assert_eq!(found(&around), ["m: a b c"]);
        let folders = [
            root,
            ("m/x/mod.rs", ""),
            ("m/y/mod.rs", ""),
            ("m/x/a.rs", "use crate::m::y::b;"),
            ("m/y/b.rs", "fn f() { super::super::x::a::g() }"),
        ];
        assert_eq!(found(&folders), ["m: x y"]);
    }

    #[test]
    fn what_is_no_circle_is_not_found() {
        for files in [
            // A file and its own sub-module.
            &[("m/mod.rs", ""), ("m/a.rs", "mod c; use c::C; struct A;"), ("m/a/c.rs", "use super::A;")][..],
            &[
                ("m/a.rs", "use super::b::B;"),
                ("m/b.rs", "struct B;\n#[cfg(test)]\nmod tests { use super::super::a; }"),
            ],
            &[
                ("m/mod.rs", ""),
                ("m/a.rs", "use super::b::B;"),
                ("m/b.rs", "/// [`A`](super::a::A)\nstruct B; fn f(a: A) { a.b.a() }"),
            ],
        ] {
            assert_eq!(found(files), Vec::<String>::new(), "{files:?}");
        }
    }
}
