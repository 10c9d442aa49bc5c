//! Targets: names of files, and the patterns that select them.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use gpb::internals::limits::{PATH_COMPONENT_LEN_MAX, PATH_LEN_MAX, PATTERN_LEN_MAX};
use gpb::{Catalogue, Digest, Entry, FileId, Marks, Pattern, RelPath, Root, Stamp};

/// Names, one a line, and the catalogue of them.
pub fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut wanted = BTreeMap::new();
    for (i, line) in text.split('\n').take(300).enumerate() {
        let Ok(path) = RelPath::new(line) else { continue };
        check_name(&path, line);
        wanted.insert(path, FileId { root: Root(Digest([i as u8 % 8; 32])), len: i as u64 });
    }
    let entry = |path: &RelPath, id| Entry { path: path.clone(), id, stamp: Stamp::default(), marks: Marks::default() };
    let entries = wanted.iter().map(|(path, id)| entry(path, *id));
    let catalogue = Catalogue::new(1, entries.collect());
    assert!(catalogue.iter().map(|e| e.path).eq(wanted.keys().map(RelPath::as_str)), "sorted, and whole");
    for (path, id) in &wanted {
        assert_eq!(catalogue.get(path.as_str()).map(|e| e.id), Some(*id));
        assert!(catalogue.find(id).any(|e| e.path == path.as_str()));
        if let Some((dir, _)) = path.as_str().rsplit_once('/') {
            let below = catalogue.entries(catalogue.positions_below(dir)).map(|e| e.path);
            assert!(below.eq(wanted.keys().filter(|p| p.is_below(dir)).map(RelPath::as_str)), "below {dir:?}");
        }
    }
    // What is taken out again leaves the rest as it was.
    let gone: BTreeMap<_, _> = wanted.keys().step_by(2).map(|path| (path.clone(), None)).collect();
    let rest = catalogue.changed(2, &gone);
    assert!(rest.iter().map(|e| e.path).eq(wanted.keys().skip(1).step_by(2).map(RelPath::as_str)));
}

fn check_name(path: &RelPath, text: &str) {
    assert_eq!(path.as_str(), text);
    assert!((1..=PATH_LEN_MAX).contains(&text.len()));
    assert!(!text.chars().any(char::is_control), "{text:?}");
    let joined = Path::new("/base").join(text);
    let mut parts = joined.components().skip(2);
    assert!(parts.all(|c| matches!(c, Component::Normal(name) if name.len() <= PATH_COMPONENT_LEN_MAX)), "{text:?}");
    assert_eq!(joined.components().count() - 2, path.components().count(), "{text:?}");
    assert_eq!(Some(path.file_name()), joined.file_name().and_then(|n| n.to_str()));
    assert!(!path.components().next().unwrap().eq_ignore_ascii_case(".gpb"));
}

/// A pattern in the first line, and names in the others.
pub fn patterns(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (first, names) = text.split_once('\n').unwrap_or((&text, ""));
    let pattern = match Pattern::parse(first) {
        Ok(pattern) => pattern,
        Err(e) => {
            let said = e.to_string();
            assert!(said.len() < 3 * PATTERN_LEN_MAX, "{said}");
            return;
        }
    };
    assert!((1..=PATTERN_LEN_MAX).contains(&first.len()));
    let id = FileId { root: Root(Digest([0xab; 32])), len: 64 };
    assert!(first.contains(':') || !pattern.matches_id(&id), "the length that can be forged");
    for name in names.split('\n').take(20).filter(|name| RelPath::new(name).is_ok()) {
        let matches = pattern.matches_path(name);
        assert_eq!(matches, pattern.matches_path(name));
        // A name asks for itself, and for what lies below it, whatever characters it has.
        let exact = format!("./{name}");
        if exact.len() <= PATTERN_LEN_MAX {
            let exact = Pattern::parse(&exact).unwrap();
            assert!(exact.matches_path(name) && exact.matches_path(&format!("{name}/x")), "{name:?}");
            assert!(!exact.matches_path(&format!("{name}x")) && !exact.matches_path("/"), "{name:?}");
        }
        let is_plain = !name.contains(['*', '?', '[', ']', '{', '}', '\\']) && name.parse::<Root>().is_err();
        if is_plain && first == name {
            assert!(matches, "{name:?}");
        }
    }
}
