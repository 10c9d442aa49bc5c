//! The command line as typed; [`resolve`](crate::cli::resolve) decides what it means.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::cli::spec::{OPTIONS, Program, Scope, Spec, ValueKind, nearest};
use crate::cli::text::escape;

/// Options and free arguments as typed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Typed {
    /// By name without dashes; a switch has no value.
    pub(crate) options: BTreeMap<&'static str, Vec<OsString>>,
    /// The free arguments: the client's command and its patterns.
    pub(crate) free: Vec<OsString>,
}

impl Typed {
    /// Reads the arguments behind the program's name.
    ///
    /// # Errors
    /// One line: an unknown option with the nearest known one, a missing or needless value, or an
    /// option that is given twice.
    pub(crate) fn parse(program: Program, args: &[OsString]) -> Result<Self, String> {
        let (args, after) = split_at_dashes(args);
        if let Some(about) = asked_about(args) {
            return Ok(Typed { options: BTreeMap::from([(about, Vec::new())]), free: named_command(program, args) });
        }
        check(program, args)?;
        let mut options = BTreeMap::new();
        let mut rest = pico_args::Arguments::from_vec(args.to_vec());
        for spec in OPTIONS.iter().filter(|o| o.is_flag_of(program)) {
            if let Some(values) = take(spec, &mut rest)? {
                options.insert(spec.name(), values);
            }
        }
        let mut free = rest.finish();
        free.extend_from_slice(after);
        Ok(Typed { options, free })
    }

    /// Whether the switch or option of this name was typed.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }
}

/// Whether `--json` was typed; for errors about a command line that cannot be parsed.
pub(crate) fn wants_json(args: &[OsString]) -> bool {
    split_at_dashes(args).0.iter().any(|a| a == "--json")
}

/// Takes all values of one option out of `rest`.
fn take(spec: &Spec, rest: &mut pico_args::Arguments) -> Result<Option<Vec<OsString>>, String> {
    if spec.kind == ValueKind::Switch {
        let keys = if spec.short.is_empty() { [spec.flag, spec.flag] } else { [spec.short, spec.flag] };
        let given = if spec.short.is_empty() { rest.contains(spec.flag) } else { rest.contains(keys) };
        return Ok(given.then(Vec::new));
    }
    let failed = |e: pico_args::Error| format!("{}: {e}", spec.flag);
    let own = |v: &OsStr| Ok::<_, std::convert::Infallible>(v.to_owned());
    let mut values = rest.values_from_os_str(spec.flag, own).map_err(failed)?;
    let own = |v: &str| Ok::<_, std::convert::Infallible>(OsString::from(v));
    values.extend(rest.values_from_fn(spec.flag, own).map_err(failed)?);
    Ok((!values.is_empty()).then_some(values))
}

/// Walks the arguments from left to right. pico-args looks for options by name at any place, so it
/// would take a value that looks like an option for one; such a value is refused here unless `=`
/// precedes it.
fn check(program: Program, args: &[OsString]) -> Result<(), String> {
    let mut seen: Vec<&str> = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        if !text.starts_with('-') || text == "-" {
            continue;
        }
        let (flag, joined) = match text.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (text.as_ref(), None),
        };
        let known = || OPTIONS.iter().filter(|o| o.is_flag_of(program));
        let Some(spec) = known().find(|o| o.flag == flag || o.short == flag) else {
            return Err(unknown(program, flag));
        };
        if joined.is_some() && arg.to_str().is_none() {
            return Err(format!("the value of {flag} is not UTF-8; write it behind a space instead of `=`"));
        }
        let repeated = seen.contains(&spec.flag);
        seen.push(spec.flag);
        match (spec.kind, joined) {
            (ValueKind::Switch, Some(_)) => return Err(format!("{flag} takes no value")),
            (ValueKind::Texts(_), _) => {}
            _ if repeated => return Err(format!("{flag} is given twice")),
            _ => {}
        }
        if let Some(name) = spec.value_name() {
            let next = if joined.is_none() { args.next().map(|v| v.to_string_lossy()) } else { None };
            match (joined, next) {
                (Some(""), _) | (None, None) => return Err(format!("{flag} needs a value: {flag} {name}")),
                (None, Some(v)) if v.starts_with('-') && v != "-" => {
                    return Err(format!(
                        "{flag} needs a value; `{}` looks like an option ({flag}=VALUE takes any)",
                        escape(&v)
                    ));
                }
                (None, Some(v)) if v.is_empty() => return Err(format!("{flag} needs a value: {flag} {name}")),
                _ => {}
            }
        }
    }
    Ok(())
}

fn unknown(program: Program, flag: &str) -> String {
    let shown = escape(flag);
    if let Some(other) = OPTIONS.iter().find(|o| o.flag == flag) {
        let owner = match other.scope {
            Scope::Keygen => Program::Keygen,
            Scope::Serving(_) if program != Program::Server => Program::Server,
            _ => Program::Client,
        };
        return format!("{program} has no option {shown}; it belongs to {owner}");
    }
    if !flag.starts_with("--") {
        let short = OPTIONS.iter().filter(|o| o.is_flag_of(program) && !o.short.is_empty()).map(|o| o.short);
        return format!("unknown option {shown}; the short ones are {}", short.collect::<Vec<_>>().join(", "));
    }
    let flags = OPTIONS.iter().filter(|o| o.is_flag_of(program)).map(|o| o.flag);
    match nearest(flag, flags) {
        Some(near) => format!("unknown option {shown}; the nearest is {near}"),
        None => format!("unknown option {shown}"),
    }
}

/// `--help` or `--version` at any place, or `help` at the first: help is given also when the rest is wrong.
fn asked_about(args: &[OsString]) -> Option<&'static str> {
    if args.first().is_some_and(|first| first == "help") {
        return Some("help");
    }
    let about = OPTIONS.iter().filter(|o| o.scope == Scope::About);
    about.into_iter().find(|o| args.iter().any(|a| a == o.flag || a == o.short)).map(Spec::name)
}

/// The command that help is asked about, if the first argument is one.
fn named_command(program: Program, args: &[OsString]) -> Vec<OsString> {
    let command = args.iter().find(|a| crate::cli::spec::COMMANDS.iter().any(|c| a.as_os_str() == *c));
    command.filter(|_| program == Program::Client).cloned().into_iter().collect()
}

fn split_at_dashes(args: &[OsString]) -> (&[OsString], &[OsString]) {
    match args.iter().position(|a| a == "--") {
        Some(i) => (&args[..i], &args[i + 1..]),
        None => (args, &[]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(program: Program, line: &[&str]) -> Result<Typed, String> {
        Typed::parse(program, &line.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn refused(program: Program, line: &[&str]) -> String {
        parse(program, line).unwrap_err()
    }

    #[test]
    fn options_and_patterns_may_stand_in_any_order() {
        let line = ["--json", "get", "a", "--dir=/d", "-q", "b", "--peer", "h1", "--peer=h2", "--", "--c", "--json"];
        let typed = parse(Program::Client, &line).unwrap();
        assert_eq!(typed.free, ["get", "a", "b", "--c", "--json"]);
        assert_eq!(typed.options["dir"], ["/d"]);
        assert_eq!(typed.options["peer"], ["h1", "h2"]);
        assert!(typed.has("json") && typed.has("quiet") && !typed.has("verbose"));
    }

    #[test]
    fn every_option_is_read_in_both_forms() {
        for program in [Program::Keygen, Program::Server, Program::Client] {
            for spec in OPTIONS.iter().filter(|o| o.is_flag_of(program) && o.scope != Scope::About) {
                let forms: Vec<Vec<String>> = match spec.kind {
                    ValueKind::Switch => vec![vec![spec.flag.into()]],
                    _ => vec![vec![spec.flag.into(), "5".into()], vec![format!("{}=5", spec.flag)]],
                };
                for form in forms {
                    let typed = parse(program, &form.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
                    assert!(typed.has(spec.name()) && typed.options.len() == 1 && typed.free.is_empty(), "{form:?}");
                }
            }
        }
    }

    #[test]
    fn unknown_options_name_the_nearest() {
        assert_eq!(refused(Program::Server, &["--prot", "1"]), "unknown option --prot; the nearest is --port");
        assert_eq!(refused(Program::Server, &["--prot=1"]), "unknown option --prot; the nearest is --port");
        assert_eq!(refused(Program::Server, &["-qv"]), "unknown option -qv; the short ones are -q, -v, -h, -V");
        assert!(refused(Program::Server, &["--a\nb"]).starts_with("unknown option --a\\nb"));
        assert!(refused(Program::Server, &["--seed", "3"]).contains("belongs to gpb-client"));
        assert!(refused(Program::Server, &["--force"]).contains("belongs to gpb-client"));
        assert!(refused(Program::Server, &["--show"]).contains("belongs to gpb-keygen"));
    }

    #[test]
    fn values_are_neither_missing_nor_too_many() {
        for line in [&["--dir"][..], &["--dir="], &["--dir", ""], &["--dir", "--json"], &["--json", "--dir", "--"]] {
            assert!(refused(Program::Server, line).starts_with("--dir needs a value"), "{line:?}");
        }
        assert_eq!(refused(Program::Server, &["--json=yes"]), "--json takes no value");
        assert_eq!(refused(Program::Server, &["--dir", "a", "--dir=b"]), "--dir is given twice");
        assert_eq!(refused(Program::Server, &["-q", "--quiet"]), "--quiet is given twice");
    }

    #[test]
    fn a_value_that_looks_like_an_option_is_one_only_behind_an_equals_sign() {
        let typed = parse(Program::Server, &["--network=--json", "--dir", "-"]).unwrap();
        assert_eq!((typed.options["network"].as_slice(), typed.has("json")), (&["--json".into()][..], false));
    }

    #[test]
    fn help_is_given_whatever_else_is_wrong() {
        let typed = parse(Program::Client, &["--bogus", "get", "-h"]).unwrap();
        assert!(typed.has("help") && typed.free == ["get"]);
        let typed = parse(Program::Client, &["help", "get"]).unwrap();
        assert!(typed.has("help") && typed.free == ["get"]);
        assert!(!parse(Program::Client, &["get", "help"]).unwrap().has("help"), "a name");
        assert!(parse(Program::Keygen, &["--version"]).unwrap().has("version"));
        assert!(!parse(Program::Client, &["get", "--", "--help"]).unwrap().has("help"));
    }

    #[cfg(unix)]
    #[test]
    fn paths_need_not_be_utf_8() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(vec![b'/', 0xff]);
        let typed = Typed::parse(Program::Server, &["--dir".into(), odd.clone()]).unwrap();
        assert_eq!(typed.options["dir"], std::slice::from_ref(&odd));
        let mut joined = OsString::from("--dir=");
        joined.push(&odd);
        assert!(Typed::parse(Program::Server, &[joined]).unwrap_err().contains("UTF-8"));
    }

    proptest! {
        #[test]
        fn no_line_panics_and_errors_are_one_line(line in proptest::collection::vec(
            "(--?[a-z-]{0,9}=?|--(dir|json|peer|port|out|wait)=?)?\\PC{0,6}\n?", 0..7)) {
            for program in [Program::Keygen, Program::Server, Program::Client] {
                let args: Vec<OsString> = line.iter().map(OsString::from).collect();
                if let Err(e) = Typed::parse(program, &args) {
                    prop_assert!(!e.contains('\n'), "{e:?}");
                }
            }
        }
    }
}
