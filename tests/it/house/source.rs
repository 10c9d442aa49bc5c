//! The sources of the crate as token trees, without what only tests use.

use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One file below `src`.
pub(super) struct Source {
    /// Relative to `src`.
    pub(super) path: PathBuf,
    pub(super) tokens: Vec<TokenTree>,
    /// Lines of the file, those of tests left out.
    pub(super) lines: usize,
}

/// A path as it stands in the text, with the `{..}` of imports unfolded.
#[derive(Debug)]
pub(super) struct UsedPath {
    pub(super) names: Vec<String>,
    /// The name that an import gives it: its last one, or the one behind `as`.
    pub(super) alias: String,
    pub(super) line: usize,
}

impl Source {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        let stream: TokenStream = text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut left_out = 0;
        let tokens = without_test_items(stream, &mut left_out);
        Source { path: path.to_path_buf(), tokens, lines: text.lines().count() - left_out }
    }

    /// The modules that lead to this file: `["swarm", "picker"]`, empty for the root of the crate.
    pub(super) fn module(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.path.with_extension("").iter().map(|n| n.to_str().unwrap().to_string()).collect();
        names.pop_if(|last| *last == "mod" || *last == "lib");
        names
    }

    /// All paths in the file.
    pub(super) fn paths(&self) -> Vec<UsedPath> {
        let mut found = Vec::new();
        paths(&self.tokens, &mut found);
        found
    }

    /// The paths that the file imports at its top level.
    pub(super) fn imports(&self) -> Vec<UsedPath> {
        let mut found = Vec::new();
        for i in 0..self.tokens.len() {
            if is_ident(&self.tokens[i], "use") {
                path(&self.tokens, &mut (i + 1), &[], &mut found);
            }
        }
        found
    }
}

/// All files below `src` that are not tests.
pub(super) fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    files.sort();
    assert!(files.len() > 40, "only {} source files found", files.len());
    let read = |file: &PathBuf| Source::new(file.strip_prefix(&src).unwrap(), &std::fs::read_to_string(file).unwrap());
    files.iter().map(read).collect()
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if stem.ends_with("tests") {
            continue;
        }
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

pub(super) fn is_ident(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == name)
}

pub(super) fn is_punct(token: &TokenTree, c: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == c)
}

/// The trees inside a brace, parenthesis or bracket.
pub(super) fn inside(token: &TokenTree) -> Option<(Delimiter, Vec<TokenTree>)> {
    match token {
        TokenTree::Group(group) => Some((group.delimiter(), group.stream().into_iter().collect())),
        _ => None,
    }
}

/// Leaves out every item behind `#[cfg(test)]` at the top level and directly inside of braces there, and counts its lines.
fn without_test_items(stream: TokenStream, left_out: &mut usize) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut tokens = stream.into_iter();
    while let Some(token) = tokens.next() {
        match &token {
            TokenTree::Group(group) if group.to_string().replace(' ', "") == "[cfg(test)]" => {
                kept.pop();
                // The item ends with its body, its semicolon or, if it is a field or an argument, its comma.
                let ends = |t: &TokenTree| is_punct(t, ';') || is_punct(t, ',') || is_brace(t);
                let last = tokens.by_ref().find(ends).unwrap_or_else(|| token.clone());
                *left_out += last.span().end().line - token.span().start().line + 1;
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                let mut inner = proc_macro2::Group::new(
                    Delimiter::Brace,
                    without_test_items(group.stream(), left_out).into_iter().collect(),
                );
                inner.set_span(group.span());
                kept.push(inner.into());
            }
            _ => kept.push(token),
        }
    }
    kept
}

fn is_brace(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

fn paths(tokens: &[TokenTree], found: &mut Vec<UsedPath>) {
    let mut i = 0;
    while i < tokens.len() {
        // What follows `::` or `.` continues something that is not a path from a module.
        let continues = i > 0 && (is_punct(&tokens[i - 1], ':') && i > 1 && is_punct(&tokens[i - 2], ':'))
            || i > 0 && is_punct(&tokens[i - 1], '.');
        match &tokens[i] {
            TokenTree::Ident(_) if !continues => {
                path(tokens, &mut i, &[], found);
                continue;
            }
            TokenTree::Group(group) => paths(&group.stream().into_iter().collect::<Vec<_>>(), found),
            _ => {}
        }
        i += 1;
    }
}

/// Reads one path, or one tree of an import, from `i` on.
fn path(tokens: &[TokenTree], i: &mut usize, prefix: &[String], found: &mut Vec<UsedPath>) {
    let mut names = prefix.to_vec();
    let line = tokens.get(*i).map_or(0, |t| t.span().start().line);
    while let Some(TokenTree::Ident(ident)) = tokens.get(*i) {
        names.push(ident.to_string());
        *i += 1;
        let separated = |i: usize| tokens.get(i).is_some_and(|t| is_punct(t, ':'));
        if !(separated(*i) && separated(*i + 1)) {
            break;
        }
        *i += 2;
        if let Some((Delimiter::Brace, tree)) = tokens.get(*i).and_then(inside) {
            *i += 1;
            let mut at = 0;
            while at < tree.len() {
                if matches!(tree[at], TokenTree::Ident(_)) { path(&tree, &mut at, &names, found) } else { at += 1 }
            }
            return;
        }
    }
    if names.len() > 1 && names.last().is_some_and(|n| n == "self") {
        names.pop();
    }
    let mut alias = names.last().cloned().unwrap_or_default();
    if let (Some(as_), Some(TokenTree::Ident(name))) = (tokens.get(*i), tokens.get(*i + 1))
        && is_ident(as_, "as")
        && names.len() > 1
    {
        alias = name.to_string();
        *i += 2;
    }
    found.push(UsedPath { names, alias, line });
}
