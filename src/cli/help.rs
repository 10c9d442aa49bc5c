//! The texts of `--help` and `--version`.

use std::fmt::Write;

use crate::cli::spec::{OPTIONS, Program, Scope, Spec};

/// `NAME VERSION`
pub(crate) fn version(program: Program) -> String {
    format!("{program} {}\n", env!("CARGO_PKG_VERSION"))
}

/// The purpose of a program, or of one command of the client, and the options that it takes.
pub(crate) fn help(program: Program, command: Option<&str>) -> String {
    let mut text = match (program, command) {
        (Program::Keygen, _) => KEYGEN,
        (Program::Server, _) => SERVER,
        (Program::Client, Some("peers")) => PEERS,
        (Program::Client, Some("list")) => LIST,
        (Program::Client, Some("get")) => GET,
        (Program::Client, Some("sync")) => SYNC,
        (Program::Client, Some("verify")) => VERIFY,
        (Program::Client, Some("doctor")) => DOCTOR,
        (Program::Client, _) => CLIENT,
    }
    .to_string();
    let own = |o: &&Spec| match o.scope {
        Scope::Commands(commands) | Scope::Typed(commands) => {
            program == Program::Client && command.is_none_or(|c| commands.contains(&c))
        }
        Scope::Serving(commands) => match program {
            Program::Server => true,
            Program::Client => !commands.is_empty() && command.is_none_or(|c| commands.contains(&c)),
            Program::Keygen => false,
        },
        Scope::Keygen => program == Program::Keygen,
        Scope::Shared | Scope::Config | Scope::About => false,
    };
    // All three take the shared options, but most mean nothing to a program that only makes keys.
    let shared = |o: &&Spec| match o.scope {
        Scope::Commands(_) | Scope::Typed(_) | Scope::Serving(_) | Scope::Keygen => false,
        _ => program != Program::Keygen || KEYGEN_USES.contains(&o.flag),
    };
    section(&mut text, "Options", OPTIONS.iter().filter(own));
    section(&mut text, "Shared options", OPTIONS.iter().filter(shared));
    text.push_str(TAIL);
    text
}

fn section<'a>(text: &mut String, title: &str, options: impl Iterator<Item = &'a Spec>) {
    let lines: Vec<(String, &str)> = options.map(|o| (left(o), o.help)).collect();
    let width = lines.iter().map(|(l, _)| l.len()).max().unwrap_or(0);
    if lines.is_empty() {
        return;
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\n{title} (default):");
    for (left, help) in lines {
        let _ = writeln!(text, "  {left:width$}  {help}");
    }
}

fn left(o: &Spec) -> String {
    let short = if o.short.is_empty() { String::new() } else { format!("{}, ", o.short) };
    let value = o.value_name().map_or_else(String::new, |v| format!(" {v}"));
    format!("{short}{}{value}", o.flag)
}

/// The shared options that mean something to `gpb-keygen`.
const KEYGEN_USES: [&str; 10] = [
    "--state",
    "--key",
    "--config",
    "--log-file",
    "--log-level",
    "--quiet",
    "--verbose",
    "--json",
    "--help",
    "--version",
];

const KEYGEN: &str = "\
gpb-keygen makes the secret key that a gpb node is known by.

Usage: gpb-keygen [--out FILE] [--force]
       gpb-keygen --show FILE

The key is an Ed25519 key in PKCS#8 PEM, readable by its owner only; `openssl pkey` reads it, and keys made by
`openssl genpkey -algorithm ed25519` work as well. --show prints the peer id and the line for others' trusted files.
";

const SERVER: &str = "\
gpb-server shares a directory with the local network. Stop it with Ctrl-C.

Usage: gpb-server [OPTION...]

It prints `listening peer=ID addr=IP:PORT` when it can be reached, and `ready files=N bytes=N` when all is hashed,
with `unnamed=N` if files are left out because of their names.
With --mirror it keeps fetching what others share of a pattern, and new versions when they are whole, so that it is
there when their machine is not. A file of yours is never replaced, and nothing but copies expires.
";

const CLIENT: &str = "\
gpb-client finds peers on the local network and fetches files from all of them at once, every chunk verified.

Usage: gpb-client COMMAND [OPTION...]

Commands:
  peers                   who is there
  list [PATTERN...]       which files there are: path, size, root, number of holders
  get  WHAT...            fetch a name, a directory, a pattern (`*.iso`, `set/**`) or a root
  sync DIR --from PEER    make a directory equal to that peer's: as `get`, and remove what is gone there
  verify [PATH...]        hash files again: which match the index, the group, neither
  doctor                  which interface, group and port sends and hears, who answers, what to change

`gpb-client COMMAND --help` tells more about one.
";

const SYNC: &str = "\
gpb-client sync makes a directory equal to that of one peer: what the peer has is fetched, and what it does not have is
removed. See first what would happen, with --dry-run.

Usage: gpb-client sync DIRECTORY --from PEER [OPTION...]

DIRECTORY is its name there and below --dir; `.` is all of it. PEER is a key, at least 12 letters of it, or its name in
the trusted file. Removed is what earlier fetches put there and that did not change since, and only by a list that the
peer says is complete; what is yours stays, is named, and ends with code 7, unless --force is given. If more than
--max-delete would go, nothing does.
";

const VERIFY: &str = "\
gpb-client verify hashes files again, and compares them with what was recorded of them and with what the group offers.

Usage: gpb-client verify [PATH...] [--repair [--force]] [OPTION...]

PATH is a file or a directory below --dir; none is all. `damaged` has other bytes than were recorded, in the state that
was recorded: the disk is at fault, and --repair fetches the chunks that are wrong. `edited` was changed since, and
`differs` is not what the group has under that name, and `gone` was fetched, is offered and is not there: all are left
alone but with --force. The code is 7 for damaged, unreadable and missing files, else 1 for edited, different and gone
ones. Without a peer it compares with what was recorded.
";

const PEERS: &str = "\
gpb-client peers lists who is there: peer id, address, number of files, time since it was heard.

Usage: gpb-client peers [--wait SECS]

It ends 300 ms after the last new peer, and at most SECS after the start.
";

const LIST: &str = "\
gpb-client list lists the files that peers offer: path, size, root, number of holders.

Usage: gpb-client list [PATTERN...] [--hidden] [--wait SECS]

A pattern is a name, a directory, a glob (`*` stays within a directory, `**` does not) or a root or its first 8 digits.
'./NAME' means that name whatever characters it has.
";

const GET: &str = "\
gpb-client get fetches files from all holders at once and verifies every chunk.

Usage: gpb-client get NAME|DIRECTORY|PATTERN|ROOT... [OPTION...]

A pattern is a glob: `*` stays within a directory, `**` does not, and '**' alone means everything but names that begin
with a dot (--hidden). A name with such characters is meant by './NAME', or by a backslash before each of them. Relative
paths are kept under --dir. --out names the file for exactly one file, else a directory. All that can be fetched is
fetched; what could not is listed at the end. A file that was not fetched, or was changed since, is not replaced unless
--force or --backup is given. What was fetched before an interruption is not fetched again. Meanwhile the client serves
what it has verified, unless --no-share.
";

const DOCTOR: &str = "\
gpb-client doctor says which interface, group and port sends and hears, who answers, and what to change.

Usage: gpb-client doctor

Each line begins with ok or BAD. It ends with 0 whatever it finds; with --json, \"ok\" says so for each line.
";

const TAIL: &str = "
Each option is also a variable (--no-multicast: GPB_NO_MULTICAST=1; lists with commas) and a key of the TOML file
(no-multicast = true), except those of gpb-keygen. A flag goes before a variable, a variable before the file.

Exit codes: 0 done; 1 other trouble; 2 usage or key; 3 no peer; 4 nobody has it; 5 one name, two contents;
6 only liars left; 7 local storage; 8 silence for --timeout; 9 refused; 130 interrupted.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::spec::COMMANDS;

    #[test]
    fn help_fits_a_terminal_and_names_what_it_should() {
        let all = [Program::Keygen, Program::Server, Program::Client].map(|p| help(p, None));
        let commands = COMMANDS.map(|c| help(Program::Client, Some(c)));
        for text in all.iter().chain(&commands) {
            assert!(text.lines().all(|l| l.chars().count() <= 120), "{text}");
            assert!(text.contains("Usage: ") && text.contains("--help") && text.ends_with("interrupted.\n"));
        }
        assert!(all[0].contains("--force") && !all[0].contains("--upload-limit"));
        assert!(all[1].contains("--upload-limit RATE") && !all[1].contains("--seed"));
        assert!(all[2].contains("--seed SECS") && all[2].contains("-q, --quiet"));
        assert!(commands[0].contains("--wait SECS") && !commands[0].contains("--seed"));
        assert!(commands[2].contains("--seed SECS") && !commands[2].contains("--wait"));
    }
}
