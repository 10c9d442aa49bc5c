//! The tiers of the crate: a module uses only lower tiers, never a sibling, and the lower four tiers do no I/O, start
//! no threads, read no clock and write no log.

use proc_macro2::TokenTree;

use super::assert_none;
use super::source::{Source, inside, is_punct, sources};

/// Every top-level module and its tier. A new one must be entered here.
pub(super) const TIERS: [(&str, u8); 19] = [
    ("chain", 0),
    ("limits", 0),
    ("sync", 0),
    ("content", 1),
    ("identity", 1),
    ("proto", 2),
    ("swarm", 3),
    ("store", 4),
    ("net", 4),
    ("runtime", 4),
    ("peers", 5),
    ("share", 6),
    ("discovery", 6),
    ("server", 6),
    ("client", 6),
    ("node", 7),
    ("cli", 8),
    ("testing", 8),
    ("bin", 9),
];

/// Tiers up to this one are pure.
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

#[test]
fn modules_use_only_lower_tiers() {
    let violations: Vec<String> = sources().iter().flat_map(check).collect();
    assert_none("the tiers are broken", &violations);
}

/// What breaks the tiers in one file.
fn check(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some(name) = module.first() else { return Vec::new() };
    let at = |line: usize, what: String| format!("{}:{line}: {what}", source.path.display());
    let Some(tier) = tier_of(name) else {
        return vec![at(1, format!("`{name}` has no tier; give it one in tests/it/house/tiers.rs"))];
    };
    let mut violations = Vec::new();
    for used in source.paths() {
        let supers = used.names.iter().take_while(|n| *n == "super").count();
        let target = match used.names.first().map(String::as_str) {
            Some("crate") => used.names.get(1),
            Some("super") if supers >= module.len() => used.names.get(supers),
            _ => None,
        };
        if let Some(target) = target.filter(|t| *t != name) {
            match tier_of(target) {
                None => {
                    violations.push(at(used.line, format!("`crate::{target}` is no module; name the tier it is on")));
                }
                Some(t) if t == tier => {
                    violations.push(at(used.line, format!("`{name}` uses its sibling `{target}` on tier {t}")));
                }
                Some(t) if t > tier => {
                    violations.push(at(used.line, format!("`{name}` on tier {tier} uses `{target}` on tier {t}")));
                }
                Some(_) => {}
            }
        }
        if tier <= PURE && is_impure(&used.names) {
            violations.push(at(used.line, format!("`{}` in `{name}`, which is pure", used.names.join("::"))));
        }
    }
    if tier <= PURE {
        let mut impure = Vec::new();
        impure_calls(&source.tokens, &mut impure);
        violations
            .extend(impure.into_iter().map(|(line, what)| at(line, format!("{what} in `{name}`, which is pure"))));
    }
    violations.dedup();
    violations
}

pub(super) fn tier_of(module: &str) -> Option<u8> {
    TIERS.iter().find(|(name, _)| *name == module).map(|(_, tier)| *tier)
}

fn is_impure(names: &[String]) -> bool {
    IMPURE_PATHS.iter().any(|p| names.len() >= p.len() && names[..p.len()] == **p && (names.len() > 1 || p.len() > 1))
        || CLOCKS.iter().any(|clock| names.windows(2).any(|w| w == clock))
}

/// Macros that write, and `.elapsed()`, which reads the clock.
fn impure_calls(tokens: &[TokenTree], found: &mut Vec<(usize, String)>) {
    for (i, token) in tokens.iter().enumerate() {
        if let Some((_, inner)) = inside(token) {
            impure_calls(&inner, found);
        }
        let TokenTree::Ident(ident) = token else { continue };
        let (name, line) = (ident.to_string(), ident.span().start().line);
        if WRITERS.contains(&name.as_str()) && tokens.get(i + 1).is_some_and(|t| is_punct(t, '!')) {
            found.push((line, format!("`{name}!`")));
        }
        if name == "elapsed" && i > 0 && is_punct(&tokens[i - 1], '.') {
            found.push((line, "`elapsed`".to_string()));
        }
    }
}

#[cfg(test)]
mod samples {
    use std::path::Path;

    use super::*;

    fn broken(path: &str, text: &str) -> Vec<String> {
        check(&Source::new(Path::new(path), text))
    }

    #[track_caller]
    fn assert_broken(path: &str, text: &str, line: usize, part: &str) {
        let found = broken(path, text);
        let named = found.iter().any(|what| what.contains(part));
        let start = format!("{path}:{line}: ");
        assert!(named && found.iter().all(|what| what.starts_with(&start)), "{path}: {text}\n{found:?}");
    }

    #[test]
    fn a_higher_tier_or_a_sibling_is_a_violation() {
        assert_broken("content/geometry.rs", "//! Doc.\n\nuse crate::proto::Frame;", 3, "`proto` on tier 2");
        assert_broken("store/disk.rs", "use crate::{content::Root, net::Stream};", 1, "sibling `net`");
        assert_broken(
            "store/disk.rs",
            "fn f() {\n    let x = crate::runtime::Shutdown::new();\n}",
            2,
            "sibling `runtime`",
        );
        assert_broken("store/mod.rs", "use super::client::X;", 1, "`client` on tier 6");
        assert_broken("store/disk.rs", "use super::super::node::Node;", 1, "`node` on tier 7");
        assert_broken(
            "client/fetch.rs",
            "pub(crate) use crate::{\n  limits::A,\n  server::{B, C as D},\n};",
            3,
            "`server`",
        );
        assert_broken("client/fetch.rs", "use crate::Node;", 1, "is no module");
        assert_broken("utils/mod.rs", "", 1, "has no tier");
    }

    #[test]
    fn a_pure_tier_does_nothing_outside() {
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
            ("bin/gpb-server.rs", "use gpb::internals::cli;"),
        ] {
            assert_eq!(broken(path, text), Vec::<String>::new(), "{path}: {text}");
        }
    }
}
