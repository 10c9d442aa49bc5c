//! ARCHITECTURE.md is a map of this very code: what it names between backticks exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{Delimiter, TokenTree};

use super::assert_none;
use super::source::{inside, is_ident, sources};
use super::tiers::{TIERS, tier_of};

/// What each file defines, by the modules that lead to it.
type Defined = BTreeMap<Vec<String>, BTreeSet<String>>;

/// Programs, directories, and a name of a program that peers see.
const NO_THREADS: [&str; 5] = ["gpb-client", "gpb-keygen", "gpb-server", "gpb-state", "gpb-testing"];

#[test]
fn every_item_on_the_map_exists() {
    let defined: Defined = sources().iter().map(|s| (s.module(), names(&s.tokens))).collect();
    let map = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let items: Vec<&str> = map.split('`').skip(1).step_by(2).filter(|code| is_item(code)).collect();
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

/// A thread without a row in the table of threads would be a thread without an owner.
#[test]
fn every_thread_is_on_the_map() {
    let map = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let mut threads = BTreeSet::new();
    sources().iter().for_each(|s| thread_names(&s.tokens, &mut threads));
    threads.retain(|name| !NO_THREADS.contains(&name.as_str()));
    assert!(threads.len() > 10, "only {threads:?} found");
    let missing: Vec<String> = threads.into_iter().filter(|name| !map.contains(&format!("`{name}"))).collect();
    assert_none("threads that ARCHITECTURE.md does not name", &missing);
}

/// `module::..::Item`, with a module of this crate.
fn is_item(code: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    code.contains("::") && code.chars().all(word) && tier_of(code.split("::").next().unwrap()).is_some()
}

/// Whether the last names are defined in the file that the first ones lead to, or in a file below it.
fn exists(defined: &Defined, item: &str) -> bool {
    let names: Vec<String> = item.split("::").map(str::to_string).collect();
    let Some(depth) = (1..=names.len()).rev().find(|n| defined.contains_key(&names[..*n])) else { return false };
    let (module, rest) = names.split_at(depth);
    if rest.iter().rev().skip(1).any(|name| name.starts_with(|c: char| c.is_ascii_lowercase())) {
        // A module that is not there.
        return false;
    }
    let here: BTreeSet<&String> = defined.iter().filter(|(m, _)| m.starts_with(module)).flat_map(|(_, n)| n).collect();
    rest.iter().all(|name| here.contains(name))
}

/// The names of all items and of the variants of enums, and of the types that are implemented.
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
        if is_ident(token, "enum") {
            let body = tokens[i..].iter().filter_map(inside).find(|(delimiter, _)| *delimiter == Delimiter::Brace);
            let variants = body.into_iter().flat_map(|(_, inner)| inner);
            found.extend(variants.filter(|t| matches!(t, TokenTree::Ident(_))).map(|t| t.to_string()));
        }
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
