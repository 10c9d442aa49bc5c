//! The texts of the library: none speaks of the command line, which the library knows nothing of.

use proc_macro2::TokenTree;

use super::assert_none;
use super::source::{Source, inside, is_ident, is_punct, sources};

/// The modules that are the command line.
const PROGRAMS: [&str; 2] = ["cli", "bin"];

#[test]
fn no_text_of_the_library_names_a_flag_or_a_program() {
    let mut found = Vec::new();
    for source in sources() {
        if source.module().first().is_some_and(|m| PROGRAMS.contains(&m.as_str())) {
            continue;
        }
        texts(&source, &source.tokens, &mut found);
    }
    assert_none("texts of the library that name flags or programs", &found);
}

#[test]
fn a_flag_in_a_text_is_found_and_one_in_a_comment_is_not() {
    let text = r#"
        /// See `--dir`.
        fn f() { g("name one with --dir", "run `gpb-keygen`", "-----BEGIN", "gpb-serve-1", a--b) }
    "#;
    let mut found = Vec::new();
    let source = Source::new(std::path::Path::new("x.rs"), text);
    texts(&source, &source.tokens, &mut found);
    assert_eq!(found, ["x.rs:3: \"name one with --dir\"", "x.rs:3: \"run `gpb-keygen`\""]);
}

fn texts(source: &Source, tokens: &[TokenTree], found: &mut Vec<String>) {
    for (i, token) in tokens.iter().enumerate() {
        if let TokenTree::Literal(literal) = token {
            let text = literal.to_string();
            if names_command_line(&text) {
                found.push(format!("{}:{}: {text}", source.path.display(), literal.span().start().line));
            }
        } else if let Some((_, inner)) = inside(token) {
            let is_doc = i > 0 && (is_punct(&tokens[i - 1], '#') || is_punct(&tokens[i - 1], '!'));
            if !(is_doc && inner.first().is_some_and(|t| is_ident(t, "doc"))) {
                texts(source, &inner, found);
            }
        }
    }
}

fn names_command_line(text: &str) -> bool {
    let flag = |at: usize| text[at + 2..].starts_with(|c: char| c.is_ascii_lowercase());
    ["gpb-keygen", "gpb-server", "gpb-client"].iter().any(|name| text.contains(name))
        || text.match_indices("--").any(|(at, _)| flag(at))
}
