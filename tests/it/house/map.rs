//! ARCHITECTURE.md is a map of this very code: what it names between backticks exists, in the file that the name leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{Delimiter, TokenTree};

use super::assert_none;
use super::source::{Source, inside, is_ident, is_punct, sources};
use super::tiers::{TIERS, tier_of};

/// What each file defines, by the modules that lead to it.
type Defined = BTreeMap<Vec<String>, BTreeSet<String>>;

/// Programs, directories, and a name of a program that peers see.
const NO_THREADS: [&str; 5] = ["gpb-client", "gpb-keygen", "gpb-server", "gpb-state", "gpb-testing"];

#[test]
fn every_item_on_the_map_exists() {
    let defined = defined(&sources());
    let map = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let items: Vec<&str> = items(&map).collect();
    assert!(items.len() > 60, "only {} items on the map", items.len());
    let missing: Vec<String> = items.iter().filter(|i| !exists(&defined, i)).map(|i| i.to_string()).collect();
    assert_none("ARCHITECTURE.md names what does not exist", &missing);
}

#[test]
fn the_map_has_every_module_on_its_tier() {
    let map = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let is_shown = |name: &str, tier: u8| {
        let mut rows = map.lines().filter(|line| line.starts_with(&format!("| {tier} |")));
        rows.any(|row| row.contains(&format!("`{name}`")) || row.contains(&format!("`{name}::")))
    };
    let missing: Vec<String> = TIERS
        .iter()
        .filter(|(name, tier)| !is_shown(name, *tier))
        .map(|(name, tier)| format!("{tier} {name}"))
        .collect();
    assert_none("modules that ARCHITECTURE.md does not show on their tier", &missing);
}

/// A thread without a row in the table of threads would be a thread without an owner. The last column of a row leads to a file that
/// names the thread: it starts it.
#[test]
fn every_thread_is_on_the_map_with_the_file_that_starts_it() {
    let map = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let rows: Vec<(&str, &str)> = map.lines().filter_map(thread_row).collect();
    let sources = sources();
    let defined = defined(&sources);
    let mut threads: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in &sources {
        let mut found = BTreeSet::new();
        thread_names(&source.tokens, &mut found);
        found.retain(|name| !NO_THREADS.contains(&name.as_str()));
        for name in found {
            threads.entry(name).or_default().insert(source.module().join("::"));
        }
    }
    assert!(threads.len() > 10, "only {threads:?} found");
    let mut wrong: Vec<String> = threads.keys().filter(|t| rows.iter().all(|(name, _)| name != t)).cloned().collect();
    for (name, owners) in rows {
        let mut files = items(owners).filter_map(|item| file_of(&defined, item)).map(|(file, _)| file.join("::"));
        if !files.any(|file| threads.get(name).is_some_and(|starting| starting.contains(&file))) {
            wrong.push(format!("{name}: {owners}"));
        }
    }
    assert_none("threads that ARCHITECTURE.md does not name with the file that starts them", &wrong);
}

/// The name in a row of the table of threads, up to the number, and the last column of the row.
fn thread_row(line: &str) -> Option<(&str, &str)> {
    let (name, _) = line.strip_prefix("| `")?.split_once('`')?;
    let owners = line.strip_suffix(" |")?.rsplit(" | ").next()?;
    name.starts_with("gpb-").then(|| (name.trim_end_matches("-N"), owners))
}

/// The items that `text` names between backticks.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|code| is_item(code))
}

/// `module::..::Item`, with a module of this crate.
fn is_item(code: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    code.contains("::") && code.chars().all(word) && tier_of(code.split("::").next().unwrap()).is_some()
}

fn defined(sources: &[Source]) -> Defined {
    sources.iter().map(|s| (s.module(), names(&s.tokens))).collect()
}

/// The file that the first names of `item` lead to, and the other names.
fn file_of(defined: &Defined, item: &str) -> Option<(Vec<String>, Vec<String>)> {
    let mut file: Vec<String> = item.split("::").map(str::to_string).collect();
    let depth = (1..=file.len()).rev().find(|n| defined.contains_key(&file[..*n]))?;
    let rest = file.split_off(depth);
    Some((file, rest))
}

/// Whether the last names are defined in the very file that the first ones lead to.
fn exists(defined: &Defined, item: &str) -> bool {
    let Some((file, rest)) = file_of(defined, item) else { return false };
    // A lower case name before the last one would be a module that is not there.
    let is_module = |name: &String| name.starts_with(|c: char| c.is_ascii_lowercase());
    !rest.iter().rev().skip(1).any(is_module) && rest.iter().all(|name| defined[&file].contains(name))
}

/// The names of all items, of the variants of enums and the fields of structs, and of the types that are implemented.
fn names(tokens: &[TokenTree]) -> BTreeSet<String> {
    const KEYWORDS: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod"];
    let mut found = BTreeSet::new();
    for (i, token) in tokens.iter().enumerate() {
        if is_ident(token, "impl") {
            let header = tokens[i..].iter().take_while(|t| inside(t).is_none());
            found.extend(header.filter(|t| matches!(t, TokenTree::Ident(_))).map(|t| t.to_string()));
        }
        let Some(TokenTree::Ident(name)) = tokens.get(i + 1).filter(|_| KEYWORDS.iter().any(|k| is_ident(token, k)))
        else {
            if let Some((_, inner)) = inside(token) {
                found.extend(names(&inner));
            }
            continue;
        };
        found.insert(name.to_string());
        let (is_enum, is_struct) = (is_ident(token, "enum"), is_ident(token, "struct"));
        let item = tokens[i..].iter().take_while(|t| !is_punct(t, ';'));
        let body = item.filter_map(inside).find(|(delimiter, _)| *delimiter == Delimiter::Brace);
        let body = body.filter(|_| is_enum || is_struct).map(|(_, body)| body).unwrap_or_default();
        let is_named = |at: &usize| is_enum || body.get(at + 1).is_some_and(|t| is_punct(t, ':'));
        let named = (0..body.len()).filter(is_named).map(|at| &body[at]);
        found.extend(named.filter(|t| matches!(t, TokenTree::Ident(_))).map(|t| t.to_string()));
    }
    found
}

/// The texts in a file that name threads: `gpb-` and what follows up to a number.
fn thread_names(tokens: &[TokenTree], found: &mut BTreeSet<String>) {
    for token in tokens {
        if let Some((_, inner)) = inside(token) {
            thread_names(&inner, found);
        }
        let text = token.to_string();
        if let Some(name) = text.strip_prefix("\"gpb-").and_then(|rest| rest.strip_suffix('"')) {
            let end = name.find(['{', ' ']).unwrap_or(name.len());
            found.insert(format!("gpb-{}", name[..end].trim_end_matches('-')));
        }
    }
}
