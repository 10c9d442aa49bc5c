//! The table of all options: name, value, help, and the programs that take it.
//!
//! Flags, variables, keys of the configuration file and the help text come from this one table.

use std::fmt;

/// One of the three programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `gpb-keygen`
    Keygen,
    /// `gpb-server`
    Server,
    /// `gpb-client`
    Client,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Program::Keygen => "gpb-keygen",
            Program::Server => "gpb-server",
            Program::Client => "gpb-client",
        })
    }
}

/// An option.
#[derive(Debug)]
pub(crate) struct Spec {
    /// The long form, with its dashes.
    pub(crate) flag: &'static str,
    /// The short form, or nothing.
    pub(crate) short: &'static str,
    pub(crate) kind: ValueKind,
    pub(crate) scope: Scope,
    pub(crate) help: &'static str,
}

/// What an option takes; the text stands for the value in the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueKind {
    Switch,
    Text(&'static str),
    Number(&'static str),
    /// Repeatable.
    Texts(&'static str),
}

/// The programs that take an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All programs; also a variable and a key of the configuration file.
    Shared,
    /// All programs; also a variable, but no key: it names the configuration file.
    Config,
    /// These commands of the client; also a variable and a key of the configuration file.
    Commands(&'static [&'static str]),
    /// The server, and these commands of the client; also a variable and a key of the configuration file.
    Serving(&'static [&'static str]),
    /// These commands of the client, as a flag only: an option that replaces files of the user is
    /// always typed.
    Typed(&'static [&'static str]),
    /// `gpb-keygen`, as a flag only: an option that replaces a key is always typed.
    Keygen,
    /// All programs, as a flag only: prints a text about the program.
    About,
}

/// The commands of the client.
pub(crate) const COMMANDS: [&str; 6] = ["peers", "list", "get", "sync", "verify", "doctor"];

pub(crate) const OPTIONS: [Spec; 48] = [
    text("--dir", "DIR", "the shared directory (/tmp/dataset)"),
    number("--port", "N", "TCP port to serve on, 0 for any (server 27420, client any)"),
    text("--bind", "ADDR", "address to serve on ([::], or 0.0.0.0 without IPv6)"),
    text("--state", "DIR", "where key and index are kept ($XDG_STATE_HOME/gpb)"),
    text("--key", "FILE", "secret key, made on first use (<state>/key.pem)"),
    text("--trusted", "FILE", "talk only to the keys in FILE (everyone)"),
    texts("--peer", "HOST[:PORT]", "contact this peer too; repeatable (port 27420)"),
    text("--peer-file", "FILE", "contact the peers in FILE too: one HOST[:PORT] a line"),
    switch("--no-remember", "", "neither use nor keep the addresses of proved peers"),
    switch("--no-multicast", "", "neither send nor hear multicast"),
    texts("--interface", "NAME|IP", "discover only here; repeatable (all interfaces)"),
    number("--hops", "N", "let multicast pass N - 1 routers, where they route it (1)"),
    switch("--dns-sd", "", "find and be found by DNS-SD, too: all on the link read key and network"),
    switch("--dht", "", "look for the group in the public DHT; a server publishes its addresses there"),
    text("--dht-secret", "TEXT", "what an open group needs there: 16 characters or more"),
    texts("--dht-bootstrap", "HOST:PORT", "begin with this node of the DHT; repeatable (the public DHT)"),
    text("--network", "NAME", "see only peers of this network (gpb)"),
    number("--timeout", "SECS", "give up after this time without progress (10)"),
    Spec { scope: Scope::Config, ..text("--config", "FILE", "configuration ($XDG_CONFIG_HOME/gpb/config.toml)") },
    text("--log-file", "FILE", "append the log to FILE as well; at 64 MiB it becomes FILE.1"),
    text("--log-level", "LEVEL", "off, error, warn, info, debug or trace"),
    number("--upload-limit", "RATE", "most bytes sent a second: 10MB, 500KiB (no limit)"),
    number("--download-limit", "RATE", "most bytes received a second (no limit)"),
    switch("--quiet", "-q", "log errors only, show no progress"),
    switch("--verbose", "-v", "log what is done and why"),
    switch("--json", "", "one JSON object a line on standard output"),
    command(number("--wait", "SECS", "wait so long for answers (2)"), &["peers", "list", "verify"]),
    command(text("--out", "PATH", "file for the one file fetched, else a directory"), &["get"]),
    command(switch("--no-share", "", "do not serve others what is being fetched"), &["get", "sync"]),
    command(switch("--no-attributes", "", "fetch contents alone: no times, program bits and links"), &["get"]),
    command(number("--seed", "SECS", "go on serving so long when all is fetched"), &["get"]),
    command(texts("--exclude", "PATTERN", "leave out what this means; repeatable"), &["get", "sync"]),
    command(switch("--hidden", "", "let wildcards take names that begin with a dot"), &["list", "get"]),
    serving(
        texts("--from", "PEER", "mirror, or take where names clash, this peer's: a key, 12 letters of it, its name"),
        &["get", "sync"],
    ),
    serving(texts("--mirror", "PATTERN", "keep copies of what others share of this; repeatable"), &[]),
    serving(number("--retain", "TIME", "let copies expire that were not used for so long: 7d, 12h (never)"), &[]),
    serving(number("--quota", "SIZE", "let copies expire beyond so many bytes: 100GiB (no limit)"), &[]),
    command(switch("--temporary", "", "what is fetched may expire: see gpb-server --retain and --quota"), &["get"]),
    typed(
        switch("--force", "", "replace files that were not fetched, or were changed since"),
        &["get", "sync", "verify"],
    ),
    command(switch("--backup", "", "replace such files, and keep each as NAME~"), &["get"]),
    command(switch("--dry-run", "", "only say what would be fetched, and the room for it"), &["get", "sync"]),
    typed(switch("--repair", "", "fetch the chunks that the disk has damaged"), &["verify"]),
    command(text("--max-delete", "N|N%", "remove nothing if that would be more files (50%)"), &["sync"]),
    keygen(text("--out", "FILE", "where to write the key (as --key)")),
    keygen(switch("--force", "", "replace a key that is there; it is lost")),
    keygen(text("--show", "FILE", "print peer id and trusted line of a key")),
    about("--help", "-h", "this text"),
    about("--version", "-V", "name and version"),
];

impl Spec {
    /// The name as a key of the configuration file.
    pub(crate) fn name(&self) -> &'static str {
        self.flag.trim_start_matches('-')
    }

    /// The name of its variable.
    pub(crate) fn variable(&self) -> String {
        format!("GPB_{}", self.name().to_ascii_uppercase().replace('-', "_"))
    }

    /// Whether `program` knows it as a flag.
    pub(crate) fn is_flag_of(&self, program: Program) -> bool {
        match self.scope {
            Scope::Shared | Scope::Config | Scope::About => true,
            Scope::Commands(_) | Scope::Typed(_) => program == Program::Client,
            Scope::Serving(commands) => {
                program == Program::Server || program == Program::Client && !commands.is_empty()
            }
            Scope::Keygen => program == Program::Keygen,
        }
    }

    /// Whether it has a variable.
    pub(crate) fn is_variable(&self) -> bool {
        self.is_key() || self.scope == Scope::Config
    }

    /// Whether it may stand in the configuration file.
    pub(crate) fn is_key(&self) -> bool {
        matches!(self.scope, Scope::Shared | Scope::Commands(_) | Scope::Serving(_))
    }

    /// The placeholder of the value in a help text.
    pub(crate) fn value_name(&self) -> Option<&'static str> {
        match self.kind {
            ValueKind::Switch => None,
            ValueKind::Text(name) | ValueKind::Number(name) | ValueKind::Texts(name) => Some(name),
        }
    }
}

/// The name among `known` that is most like `typed`: one that it begins, else the one with the
/// fewest edits.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bare = |s: &str| s.trim_start_matches('-').to_ascii_lowercase().replace('_', "-");
    // The cut bounds the cost; no name is as long.
    let typed: String = bare(typed).chars().take(TYPED_CHARS_MAX).collect();
    known.into_iter().min_by_key(|name| {
        let name = bare(name);
        if typed.len() >= 3 && name.starts_with(&typed) { 1 } else { 2 * edits(&typed, &name) }
    })
}

/// The number of characters to insert, delete or replace that turns `a` into `b` (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let cost = (diagonal + usize::from(ca != *cb)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()]
}

const fn text(flag: &'static str, value: &'static str, help: &'static str) -> Spec {
    Spec { flag, short: "", kind: ValueKind::Text(value), scope: Scope::Shared, help }
}

const fn number(flag: &'static str, value: &'static str, help: &'static str) -> Spec {
    Spec { kind: ValueKind::Number(value), ..text(flag, value, help) }
}

const fn texts(flag: &'static str, value: &'static str, help: &'static str) -> Spec {
    Spec { kind: ValueKind::Texts(value), ..text(flag, value, help) }
}

const fn switch(flag: &'static str, short: &'static str, help: &'static str) -> Spec {
    Spec { flag, short, kind: ValueKind::Switch, scope: Scope::Shared, help }
}

const fn command(spec: Spec, commands: &'static [&'static str]) -> Spec {
    Spec { scope: Scope::Commands(commands), ..spec }
}

const fn serving(spec: Spec, commands: &'static [&'static str]) -> Spec {
    Spec { scope: Scope::Serving(commands), ..spec }
}

const fn typed(spec: Spec, commands: &'static [&'static str]) -> Spec {
    Spec { scope: Scope::Typed(commands), ..spec }
}

const fn keygen(spec: Spec) -> Spec {
    Spec { scope: Scope::Keygen, ..spec }
}

const fn about(flag: &'static str, short: &'static str, help: &'static str) -> Spec {
    Spec { flag, short, kind: ValueKind::Switch, scope: Scope::About, help }
}

const TYPED_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_within_a_program_and_within_the_file() {
        for program in [Program::Keygen, Program::Server, Program::Client] {
            let mut flags: Vec<_> = OPTIONS.iter().filter(|o| o.is_flag_of(program)).map(|o| o.flag).collect();
            let all = flags.len();
            flags.sort_unstable();
            flags.dedup();
            assert_eq!(flags.len(), all, "{program}");
        }
        let mut keys: Vec<_> = OPTIONS.iter().filter(|o| o.is_variable()).map(Spec::variable).collect();
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }

    #[test]
    fn the_nearest_name_is_what_was_meant() {
        let flags: Vec<_> = OPTIONS.iter().map(|o| o.flag).collect();
        for (typed, meant) in [
            ("--prot", "--port"),
            ("--peers", "--peer"),
            ("--truste", "--trusted"),
            ("--no-multicat", "--no-multicast"),
            ("--interfaces", "--interface"),
            ("--upload", "--upload-limit"),
            ("--jsn", "--json"),
            ("--LOG_LEVEL", "--log-level"),
        ] {
            assert_eq!(nearest(typed, flags.iter().copied()), Some(meant), "{typed}");
        }
        assert_eq!(nearest("lst", COMMANDS), Some("list"));
        assert_eq!(nearest("download", []), None);
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, n) in [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ü", "u", 1)] {
            assert_eq!(edits(a, b), n, "{a} {b}");
        }
    }
}
