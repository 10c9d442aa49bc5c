//! The floors of the crate: a module uses only lower floors, never a sibling, and the lower four floors do no I/O, start
//! no threads, read no clock and write no log.
//!
//! Read from the source text, so that a violation is named with its file and line.

use std::fmt;
use std::path::{Path, PathBuf};

/// Every top-level module and its floor. A new one must be entered here.
const FLOORS: [(&str, u8); 15] = [
    ("limits", 0),
    ("content", 1),
    ("identity", 1),
    ("proto", 2),
    ("swarm", 3),
    ("store", 4),
    ("net", 4),
    ("runtime", 4),
    ("share", 5),
    ("discovery", 5),
    ("server", 5),
    ("client", 5),
    ("node", 6),
    ("cli", 7),
    ("bin", 8),
];

/// Floors up to this one are pure.
const PURE: u8 = 3;

/// Paths that a pure module does not mention, from their beginning.
const IMPURE_PATHS: [&[&str]; 17] = [
    &["std", "fs"],
    &["std", "thread"],
    &["std", "process"],
    &["std", "env"],
    &["std", "net", "TcpStream"],
    &["std", "net", "TcpListener"],
    &["std", "net", "UdpSocket"],
    &["std", "net", "ToSocketAddrs"],
    &["std", "os"],
    &["log"],
    &["mio"],
    &["socket2"],
    &["rustls"],
    &["rustix"],
    &["redb"],
    &["notify"],
    &["crossbeam"],
];

/// Calls that read a clock, wherever they stand in a path.
const CLOCKS: [[&str; 2]; 2] = [["Instant", "now"], ["SystemTime", "now"]];

/// Macros that write somewhere.
const WRITERS: [&str; 10] =
    ["error", "warn", "info", "debug", "trace", "print", "println", "eprint", "eprintln", "dbg"];

#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

#[test]
fn modules_use_only_lower_floors() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&src, &mut files);
    assert!(files.len() > 40, "only {} source files found", files.len());
    let mut violations = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        violations.extend(check(file.strip_prefix(&src).unwrap(), &text));
    }
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(lines.is_empty(), "the floors are broken:\n{}", lines.join("\n"));
}

/// What breaks the floors in the file `path` (relative to `src`) with this text.
fn check(path: &Path, text: &str) -> Vec<Violation> {
    let names: Vec<&str> = path.iter().map(|p| p.to_str().unwrap()).collect();
    let is_tests = names.iter().any(|n| *n == "tests" || n.ends_with("tests.rs"));
    if names == ["lib.rs"] || is_tests {
        return Vec::new();
    }
    let module = names[0].trim_end_matches(".rs");
    let at = |line, what: String| Violation { file: path.to_path_buf(), line, what };
    let Some(floor) = floor_of(module) else {
        return vec![at(1, format!("`{module}` has no floor; give it one in tests/it/floors.rs"))];
    };
    // How many `super` lead from a top-level item of this file to the root of the crate.
    let is_folder_root = names.last() == Some(&"mod.rs");
    let depth = names.len() - usize::from(is_folder_root);

    let tokens = without_test_items(tokenize(text));
    let mut violations = Vec::new();
    for used in paths(&tokens) {
        let supers = used.names.iter().take_while(|n| **n == "super").count();
        let target = match used.names.first() {
            Some(&"crate") => used.names.get(1),
            Some(&"super") if supers >= depth => used.names.get(supers),
            _ => None,
        };
        if let Some(target) = target.filter(|t| **t != module) {
            match floor_of(target) {
                None => {
                    violations.push(at(used.line, format!("`crate::{target}` is no module; name the floor it is on")))
                }
                Some(f) if f == floor => {
                    violations.push(at(used.line, format!("`{module}` uses its sibling `{target}` on floor {f}")));
                }
                Some(f) if f > floor => {
                    violations.push(at(used.line, format!("`{module}` on floor {floor} uses `{target}` on floor {f}")));
                }
                Some(_) => {}
            }
        }
        if floor <= PURE && is_impure(&used.names) {
            violations.push(at(used.line, format!("`{}` in `{module}`, which is pure", used.names.join("::"))));
        }
    }
    if floor <= PURE {
        for pair in tokens.windows(2) {
            let name = pair[0].text;
            if pair[1].text == "!" && WRITERS.contains(&name) {
                violations.push(at(pair[0].line, format!("`{name}!` in `{module}`, which is pure")));
            }
            if name == "." && pair[1].text == "elapsed" {
                violations.push(at(pair[1].line, format!("`elapsed` reads the clock in `{module}`, which is pure")));
            }
        }
    }
    violations.dedup();
    violations
}

fn floor_of(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

fn is_impure(names: &[&str]) -> bool {
    IMPURE_PATHS.iter().any(|p| names.len() >= p.len() && names[..p.len()] == **p && (names.len() > 1 || p.len() > 1))
        || CLOCKS.iter().any(|clock| names.windows(2).any(|w| w == clock))
}

fn source_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// A name, `::`, or one character of punctuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// A path as it stands in the text, with `{..}` of imports unfolded.
struct Used<'a> {
    names: Vec<&'a str>,
    line: usize,
}

/// The tokens that matter here: no comments, no literals, no lifetimes.
fn tokenize(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let (mut tokens, mut i, mut line) = (Vec::new(), 0, 1);
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || !b.is_ascii();
    while i < bytes.len() {
        let start = i;
        let rest = &bytes[i..];
        if rest.starts_with(b"//") {
            i += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        } else if rest.starts_with(b"/*") {
            let mut depth = 0;
            while i < bytes.len() {
                match &bytes[i..bytes.len().min(i + 2)] {
                    b"/*" => (depth, i) = (depth + 1, i + 2),
                    b"*/" => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 {
                    break;
                }
            }
        } else if let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let open = text[i..].find('"').unwrap() + 1;
            i += open + text[i + open..].find(&end).map_or(rest.len() - open, |n| n + end.len());
        } else if rest[0] == b'"' || rest.starts_with(b"b\"") || rest.starts_with(b"c\"") {
            i += 1 + usize::from(rest[0] != b'"');
            while i < bytes.len() && bytes[i] != b'"' {
                i += if bytes[i] == b'\\' { 2 } else { 1 };
            }
            i += 1;
        } else if rest[0] == b'\'' {
            let c = text[i + 1..].chars().next().map_or(1, char::len_utf8);
            if rest.get(1) == Some(&b'\\') {
                i += 3 + rest[3..].iter().position(|b| *b == b'\'').unwrap_or(0) + 1;
            } else if rest.get(1 + c) == Some(&b'\'') {
                i += 2 + c;
            } else {
                i += 1 + rest[1..].iter().take_while(|b| is_name(**b)).count();
            }
        } else if is_name(rest[0]) {
            i += rest.iter().take_while(|b| is_name(**b)).count();
            tokens.push(Token { text: &text[start..i], line });
        } else if rest.starts_with(b"::") {
            i += 2;
            tokens.push(Token { text: "::", line });
        } else {
            i += 1;
            if !rest[0].is_ascii_whitespace() {
                tokens.push(Token { text: &text[start..i], line });
            }
        }
        i = i.min(bytes.len());
        line += bytes[start..i].iter().filter(|b| **b == b'\n').count();
    }
    tokens
}

/// The number of `#` if a raw string starts here.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = ["r", "br", "cr"].iter().find(|p| rest.starts_with(p.as_bytes()))?.len();
    let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
    (rest.get(prefix + hashes) == Some(&b'"')).then_some(hashes)
}

/// Leaves out every item behind `#[cfg(test)]`.
fn without_test_items(tokens: Vec<Token<'_>>) -> Vec<Token<'_>> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        if tokens.len() - i >= ATTRIBUTE.len() && (0..ATTRIBUTE.len()).all(|k| tokens[i + k].text == ATTRIBUTE[k]) {
            i = item_end(&tokens, i + ATTRIBUTE.len());
        } else {
            kept.push(tokens[i]);
            i += 1;
        }
    }
    kept
}

/// The index behind the item that starts at `i`: behind its `;`, its `,` or its closing brace.
fn item_end(tokens: &[Token<'_>], mut i: usize) -> usize {
    let mut depth = 0;
    while i < tokens.len() {
        match tokens[i].text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        // An attribute's bracket ends at depth 0 too, but no item ends there.
        let ends = match tokens[i].text {
            ";" | "," => depth == 0,
            "}" => depth <= 0,
            _ => false,
        };
        i += 1;
        if ends {
            break;
        }
    }
    i
}

/// All paths in the text.
fn paths<'a>(tokens: &[Token<'a>]) -> Vec<Used<'a>> {
    let mut found = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let continues = i > 0 && matches!(tokens[i - 1].text, "::" | ".");
        if is_word(tokens[i].text) && !continues { path(tokens, &mut i, &[], &mut found) } else { i += 1 }
    }
    found
}

/// Reads one path, or one tree of an import, from `i` on.
fn path<'a>(tokens: &[Token<'a>], i: &mut usize, prefix: &[&'a str], found: &mut Vec<Used<'a>>) {
    let mut names = prefix.to_vec();
    let line = tokens[*i].line;
    while *i < tokens.len() && is_word(tokens[*i].text) {
        names.push(tokens[*i].text);
        *i += 1;
        if tokens.get(*i).is_none_or(|t| t.text != "::") {
            break;
        }
        *i += 1;
        if tokens.get(*i).is_some_and(|t| t.text == "{") {
            *i += 1;
            while *i < tokens.len() && tokens[*i].text != "}" {
                if is_word(tokens[*i].text) { path(tokens, i, &names, found) } else { *i += 1 }
            }
            *i += 1;
            return;
        }
    }
    found.push(Used { names, line });
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

#[cfg(test)]
mod samples {
    use super::*;

    #[track_caller]
    fn broken(path: &str, text: &str) -> Vec<(usize, String)> {
        check(Path::new(path), text).into_iter().map(|v| (v.line, v.what)).collect()
    }

    #[track_caller]
    fn assert_broken(path: &str, text: &str, line: usize, part: &str) {
        let found = broken(path, text);
        let named = found.iter().any(|(_, what)| what.contains(part));
        assert!(named && found.iter().all(|(l, _)| *l == line), "{path}: {text}\n{found:?}");
    }

    #[test]
    fn a_higher_floor_or_a_sibling_is_a_violation() {
        assert_broken("content/geometry.rs", "//! Doc.\n\nuse crate::proto::Frame;", 3, "`proto` on floor 2");
        assert_broken("store/disk.rs", "use crate::{content::Root, net::Stream};", 1, "sibling `net`");
        assert_broken(
            "store/disk.rs",
            "fn f() {\n    let x = crate::runtime::Shutdown::new();\n}",
            2,
            "sibling `runtime`",
        );
        assert_broken("store/mod.rs", "use super::client::X;", 1, "`client` on floor 5");
        assert_broken("store/disk.rs", "use super::super::node::Node;", 1, "`node` on floor 6");
        assert_broken(
            "client/fetch.rs",
            "pub(crate) use crate::{\n  limits::A,\n  server::{B, C as D},\n};",
            3,
            "`server`",
        );
        assert_broken("client/fetch.rs", "use crate::Node;", 1, "is no module");
        assert_broken("utils/mod.rs", "", 1, "has no floor");
    }

    #[test]
    fn a_pure_floor_does_nothing_outside() {
        assert_broken("swarm/picker.rs", "use std::{fmt, thread};", 1, "std::thread");
        assert_broken("proto/frame.rs", "use std::net::{IpAddr, UdpSocket};", 1, "UdpSocket");
        assert_broken("content/merkle.rs", "fn f() { std::fs::read(\"x\"); }", 1, "std::fs::read");
        assert_broken("swarm/pace.rs", "fn f() { let t = std::time::Instant::now(); }", 1, "Instant::now");
        assert_broken("swarm/pace.rs", "fn f(t: Instant) -> Duration { t.elapsed() }", 1, "elapsed");
        assert_broken("identity/keypair.rs", "fn f() { log::info!(\"x\") }", 1, "log::info");
        assert_broken("identity/keypair.rs", "fn f() { warn!(\"x\") }", 1, "warn!");
    }

    #[test]
    fn what_is_allowed_is_no_violation() {
        for (path, text) in [
            ("swarm/picker.rs", "use std::net::{IpAddr, SocketAddr};\nuse std::time::{Duration, Instant};"),
            ("swarm/picker.rs", "use crate::content::{Bitfield, ChunkIndex};\nuse crate::swarm::pace::Pace;"),
            ("store/disk.rs", "use std::fs::File;\nuse super::journal::Journal;\nuse crate::store::reader;"),
            (
                "swarm/picker.rs",
                "#[cfg(test)]\n#[allow(dead_code)]\nmod tests { use std::thread; fn f() { crate::node::f() } }",
            ),
            ("swarm/picker.rs", "#[cfg(test)]\nuse std::thread;\nfn f<'a>(x: &'a str) -> char { '\"' }"),
            (
                "swarm/picker.rs",
                "/// [`crate::node::Node`]\nfn f() { let x = \"crate::node\"; let y = r#\"std::fs\"#; }",
            ),
            ("swarm/picker.rs", "/* use /* crate::node; */ std::fs; */ fn f() -> u8 { b'\\'' }"),
            ("swarm/mod.rs", "mod picker;\npub use picker::Picker;\npub use self::pace::Pace;"),
            ("bin/gpb-server.rs", "use gpb::cli;"),
            ("swarm/picker/tests.rs", "use std::thread;"),
        ] {
            assert_eq!(broken(path, text), [], "{path}: {text}");
        }
    }
}
