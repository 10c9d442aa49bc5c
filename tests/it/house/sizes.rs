//! What keeps a file readable at one sitting, and a name unmistakable.
//!
//! Each list of exceptions may only get shorter: an exception that is no longer needed fails the test as well.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenTree};

use super::source::{Source, inside, is_ident, is_punct, sources};
use super::tiers::tier_of;

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
/// `self` counts.
const PARAMETERS_MAX: usize = 6;
const FIELDS_MAX: usize = 12;

/// Files that may be longer: one idea each, that would only be torn apart. At most four.
const LONG_FILES: [&str; 0] = [];
const LONG_FUNCTIONS: [&str; 0] = [];
const MANY_PARAMETERS: [&str; 0] = [];
/// Structs that may have more fields. At most four.
const LARGE_STRUCTS: [&str; 2] = ["cli/resolve.rs: Options", "node/config.rs: Config"];
/// Names of types that several tiers have. None of them is a name that two modules of one tier have.
const SHARED_NAMES: [&str; 0] = [];

#[test]
fn files_are_short() {
    let long = sources().iter().filter(|s| s.lines > FILE_LINES_MAX).map(|s| s.path.display().to_string()).collect();
    assert_exceptions("files over 400 lines without tests", long, &LONG_FILES);
}

#[test]
fn functions_are_short_and_take_few_parameters() {
    let (mut long, mut wide) = (BTreeSet::new(), BTreeSet::new());
    for source in sources() {
        let mut found = Vec::new();
        functions(&source.tokens, &mut found);
        for function in found {
            let name = format!("{}: {}", source.path.display(), function.name);
            if function.lines > FUNCTION_LINES_MAX {
                long.insert(name.clone());
            }
            if function.parameters > PARAMETERS_MAX {
                wide.insert(name);
            }
        }
    }
    assert_exceptions("functions over 70 lines", long, &LONG_FUNCTIONS);
    assert_exceptions("functions of more than 6 parameters", wide, &MANY_PARAMETERS);
}

#[test]
fn structs_have_few_fields() {
    let mut large = BTreeSet::new();
    for source in sources() {
        for (name, tokens) in types(&source.tokens, &["struct"]) {
            let body = tokens.iter().filter_map(inside).find(|(delimiter, _)| *delimiter == Delimiter::Brace);
            if body.is_some_and(|(_, fields)| parts(&fields) > FIELDS_MAX) {
                large.insert(format!("{}: {name}", source.path.display()));
            }
        }
    }
    assert_exceptions("structs of more than 12 fields", large, &LARGE_STRUCTS);
}

#[test]
fn names_of_types_are_unique() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        for (name, _) in types(&source.tokens, &["struct", "enum", "trait", "type"]) {
            places.entry(name).or_default().push(source.path.display().to_string());
        }
    }
    places.retain(|_, files| files.len() > 1);
    let tier = |file: &String| tier_of(file.split(['/', '.']).next().unwrap());
    let same_tier = |files: &Vec<String>| files.iter().map(tier).collect::<BTreeSet<_>>().len() < files.len();
    let doubled = places.iter().filter(|(_, files)| same_tier(files)).map(|(n, f)| format!("{n} {f:?}")).collect();
    assert_exceptions("type names defined more than once on one tier", doubled, &[]);
    assert_exceptions("type names defined more than once", places.into_keys().collect(), &SHARED_NAMES);
}

#[track_caller]
fn assert_exceptions(what: &str, found: BTreeSet<String>, allowed: &[&str]) {
    let allowed: BTreeSet<String> = allowed.iter().map(|a| a.to_string()).collect();
    let new: Vec<_> = found.difference(&allowed).collect();
    let gone: Vec<_> = allowed.difference(&found).collect();
    assert!(new.is_empty() && gone.is_empty(), "{what}: {new:#?}\nno longer so, to be unlisted: {gone:#?}");
}

struct Function {
    name: String,
    lines: usize,
    parameters: usize,
}

/// All functions with a body, also those inside of others.
fn functions(tokens: &[TokenTree], found: &mut Vec<Function>) {
    for (i, token) in tokens.iter().enumerate() {
        if let Some((_, inner)) = inside(token) {
            functions(&inner, found);
        }
        let Some(TokenTree::Ident(name)) = tokens.get(i + 1).filter(|_| is_ident(token, "fn")) else { continue };
        let rest = tokens[i + 2..].iter().take_while(|t| !is_punct(t, ';'));
        let mut groups = rest.filter_map(|t| inside(t).map(|(delimiter, inner)| (t, delimiter, inner)));
        let parameters = groups.find(|(_, delimiter, _)| *delimiter == Delimiter::Parenthesis);
        let body = groups.find(|(_, delimiter, _)| *delimiter == Delimiter::Brace);
        if let (Some((_, _, parameters)), Some((body, _, _))) = (parameters, body) {
            let lines = body.span().end().line - token.span().start().line + 1;
            found.push(Function { name: name.to_string(), lines, parameters: parts(&parameters) });
        }
    }
}

/// The types of a file, each with the tokens behind its name.
fn types<'a>(tokens: &'a [TokenTree], kinds: &'a [&str]) -> impl Iterator<Item = (String, &'a [TokenTree])> {
    let is_kind = |t: &TokenTree| kinds.iter().any(|kind| is_ident(t, kind));
    (0..tokens.len()).filter(move |i| is_kind(&tokens[*i])).filter_map(|i| match tokens.get(i + 1) {
        Some(TokenTree::Ident(name)) => {
            let end = tokens[i..].iter().position(ends_item).map_or(tokens.len(), |n| i + n + 1);
            Some((name.to_string(), &tokens[i + 2..end]))
        }
        _ => None,
    })
}

fn ends_item(token: &TokenTree) -> bool {
    is_punct(token, ';') || matches!(inside(token), Some((Delimiter::Brace, _)))
}

/// How many parts commas make of a list, those inside of `<..>` left out.
fn parts(list: &[TokenTree]) -> usize {
    let (mut depth, mut count, mut open) = (0, 0, false);
    for (i, token) in list.iter().enumerate() {
        let arrow = i > 0 && is_punct(&list[i - 1], '-');
        match token {
            t if is_punct(t, '<') => depth += 1,
            t if is_punct(t, '>') && !arrow => depth -= 1,
            _ => {}
        }
        if depth == 0 && is_punct(token, ',') {
            open = false;
        } else if !open {
            (open, count) = (true, count + 1);
        }
    }
    count
}

#[cfg(test)]
mod samples {
    use std::path::Path;

    use super::*;

    #[test]
    fn parameters_fields_and_lines_are_counted() {
        let text = "struct S<T> {\n    #[doc = \"x\"]\n    a: Map<K, V>,\n    b: fn(A, B) -> C,\n}\n\
                    fn f(&self, a: HashMap<A, B>, (b, c): (B, C)) -> D\nwhere\n    X: Y,\n{\n    fn g() {}\n}\n\
                    #[cfg(test)]\nmod tests {\n    fn h() {}\n}\n";
        let source = Source::new(Path::new("m/a.rs"), text);
        assert_eq!(source.lines, 11);
        let mut found = Vec::new();
        functions(&source.tokens, &mut found);
        let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.lines, f.parameters)).collect();
        assert_eq!(found, [("f", 6, 3), ("g", 1, 0)]);
        let (name, tokens) = types(&source.tokens, &["struct"]).next().unwrap();
        let fields = tokens.iter().filter_map(inside).find(|(d, _)| *d == Delimiter::Brace).unwrap().1;
        assert_eq!((name.as_str(), parts(&fields)), ("S", 2));
    }
}
