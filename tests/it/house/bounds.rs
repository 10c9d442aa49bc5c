//! Everything is bounded, and this is the one place that shows by what: the constants of `src/limits.rs` and of the
//! file `limits.rs` of each module. `cargo test --test it house::bounds -- --show-output` prints them all.

use std::collections::BTreeMap;
use std::path::Path;

use proc_macro2::{Delimiter, TokenTree};

use super::assert_none;
use super::source::{Source, inside, is_ident, is_punct, sources};

struct Bound {
    file: String,
    line: usize,
    name: String,
    kind: String,
    value: String,
    doc: String,
}

#[test]
fn every_bound_is_documented_with_its_unit() {
    let bounds = bounds();
    for bound in &bounds {
        println!("{}:{} {} = {}  {}", bound.file, bound.line, bound.name, bound.value, bound.doc);
    }
    println!("{} bounds", bounds.len());
    assert!(bounds.len() > 150, "only {} bounds found", bounds.len());
    assert_none("bounds that do not say what they are", &bounds.iter().filter_map(fault).collect::<Vec<_>>());
}

#[test]
fn no_two_bounds_share_a_name() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for bound in bounds() {
        places.entry(bound.name).or_default().push(bound.file);
    }
    let twice: Vec<String> = places.iter().filter(|(_, f)| f.len() > 1).map(|(n, f)| format!("{n} {f:?}")).collect();
    assert_none("names of several bounds", &twice);
}

#[test]
fn bounds_that_the_wire_names_exist() {
    let names: Vec<String> = bounds().into_iter().map(|b| b.name).collect();
    let wire = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proto/WIRE.md")).unwrap();
    let is_name = |code: &&str| code.contains('_') && code.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let named: Vec<&str> = wire.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(named.len() > 10, "only {named:?} found");
    let unknown: Vec<String> = named.iter().filter(|n| !names.iter().any(|b| b == *n)).map(|n| n.to_string()).collect();
    assert_none("WIRE.md names bounds that do not exist", &unknown);
}

/// What is wrong with a bound: without a text nobody knows what it bounds, and a bare number needs its unit.
fn fault(bound: &Bound) -> Option<String> {
    let says = |words: &[&str]| words.iter().any(|w| bound.doc.to_lowercase().contains(w));
    let named = |parts: &[&str]| bound.name.split('_').any(|p| parts.contains(&p));
    let timed = ["TIMEOUT", "INTERVAL", "AFTER", "EVERY", "RETRY", "WAIT", "REST", "DELAY", "WITHIN", "PATIENCE"];
    let what = if bound.doc.is_empty() {
        "has no documentation"
    } else if named(&["LEN"]) && !says(&["byte", "ciphertext", "plaintext", "character", "components", "kib"]) {
        "is a length and does not say of what"
    } else if named(&timed) && !bound.kind.contains("Duration") && !named(&["MS", "S", "NS"]) {
        "is a time and not a `Duration`, nor does its name say the unit"
    } else {
        return None;
    };
    Some(format!("src/{}:{}: {} {what}", bound.file, bound.line, bound.name))
}

fn bounds() -> Vec<Bound> {
    sources().iter().filter(|s| s.path.file_name().is_some_and(|n| n == "limits.rs")).flat_map(constants).collect()
}

/// The named constants at the top level of a file.
fn constants(source: &Source) -> Vec<Bound> {
    let mut found = Vec::new();
    let mut doc = String::new();
    let mut tokens = source.tokens.iter().peekable();
    while let Some(token) = tokens.next() {
        if let Some(line) = doc_line(token) {
            doc = format!("{doc} {}", line.trim()).trim().to_string();
        } else if is_ident(token, "const")
            && let Some(TokenTree::Ident(name)) = tokens.next_if(|t| !is_ident(t, "_"))
        {
            let (mut kind, mut value) = (Vec::new(), Vec::new());
            tokens.by_ref().take_while(|t| !is_punct(t, '=')).for_each(|t| kind.push(t));
            tokens.by_ref().take_while(|t| !is_punct(t, ';')).for_each(|t| value.push(t));
            found.push(Bound {
                file: source.path.display().to_string(),
                line: name.span().start().line,
                name: name.to_string(),
                kind: text(&kind[1..]),
                value: text(&value),
                doc: std::mem::take(&mut doc),
            });
        } else if is_ident(token, "use") {
            doc.clear();
        }
    }
    found
}

/// The text of a line of documentation, which is an attribute to the compiler.
fn doc_line(token: &TokenTree) -> Option<String> {
    let (Delimiter::Bracket, inner) = inside(token)? else { return None };
    let [name, _, TokenTree::Literal(text)] = inner.as_slice() else { return None };
    is_ident(name, "doc").then(|| text.to_string().trim_matches('"').to_string())
}

/// The text of the source from the first of these tokens to the last.
fn text(tokens: &[&TokenTree]) -> String {
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return String::new() };
    first.span().join(last.span()).and_then(|span| span.source_text()).unwrap_or_default()
}
