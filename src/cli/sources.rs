//! The sources of settings: flags, `GPB_*` variables and the configuration file, strongest first.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::cli::args::Typed;
use crate::cli::limits::{CONFIG_FILE_LEN_MAX, PIPE_WAIT};
use crate::cli::spec::{OPTIONS, Spec, ValueKind, nearest};
use crate::cli::text::escape;
use crate::cli::text_file::read_text;
use crate::cli::value;

/// The arguments and variables of a program.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The arguments after the program's name.
    pub args: Vec<OsString>,
    /// The environment variables.
    pub variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// This process's arguments and variables.
    pub fn of_process() -> Self {
        Environment { args: std::env::args_os().skip(1).collect(), variables: std::env::vars_os().collect() }
    }

    /// A variable that is set to something.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|v| !v.is_empty())
    }

    /// `$NAME/gpb`, or `$HOME/<below_home>/gpb`; relative paths do not count (XDG Base Directory).
    pub(crate) fn xdg_dir(&self, name: &str, below_home: &str) -> Option<PathBuf> {
        let absolute = |n: &str| self.variable(n).map(Path::new).filter(|p| p.is_absolute());
        let base = absolute(name).map(Path::to_path_buf).or_else(|| absolute("HOME").map(|h| h.join(below_home)))?;
        Some(base.join("gpb"))
    }
}

/// One value and its source.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) value: OsString,
    pub(crate) source: SettingSource,
}

/// The source of a value, as errors name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SettingSource {
    Flag(&'static str),
    Variable(String),
    File { file: PathBuf, line: usize, key: &'static str },
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingSource::Flag(flag) => f.write_str(flag),
            SettingSource::Variable(name) => f.write_str(name),
            SettingSource::File { file, line, key } => write!(f, "{}:{line}: {key}", file.display()),
        }
    }
}

impl Setting {
    /// The value read by `parse`; its error gets the source's name.
    pub(crate) fn read<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
        let text = self.value.to_str().ok_or_else(|| format!("{}: the value is not UTF-8", self.source))?;
        parse(text).map_err(|e| format!("{}: {e}", self.source))
    }
}

/// All settings, by the name of their option.
#[derive(Debug)]
pub(crate) struct Settings {
    flags: BTreeMap<&'static str, Vec<Setting>>,
    variables: BTreeMap<&'static str, Vec<Setting>>,
    file: BTreeMap<&'static str, Vec<Setting>>,
    config_file: Option<PathBuf>,
}

impl Settings {
    /// Gathers everything; reads the configuration file.
    ///
    /// # Errors
    /// One line: an unknown variable or key with the nearest known one, or a file that cannot be
    /// read.
    pub(crate) fn gather(typed: &Typed, env: &Environment) -> Result<Self, String> {
        let flags = OPTIONS.iter().filter_map(|spec| Some((spec, typed.options.get(spec.name())?)));
        let flags = flags.map(|(spec, values)| {
            let one = |value: &OsString| Setting { value: value.clone(), source: SettingSource::Flag(spec.flag) };
            let on = || Setting { value: "true".into(), source: SettingSource::Flag(spec.flag) };
            (spec.name(), if spec.kind == ValueKind::Switch { vec![on()] } else { values.iter().map(one).collect() })
        });
        let (flags, variables) = (flags.collect(), from_variables(env)?);
        let mut all = Settings { flags, variables, file: BTreeMap::new(), config_file: None };
        let named = all.one("config").map(|s| PathBuf::from(&s.value));
        let default = || env.xdg_dir("XDG_CONFIG_HOME", ".config").map(|d| d.join("config.toml"));
        let is_named = named.is_some();
        all.config_file = named.or_else(default);
        if let Some(path) = &all.config_file
            && let Some(content) = read_file(path, is_named)?
        {
            all.file = from_file(path, &content)?;
        }
        Ok(all)
    }

    /// The configuration file, named or the default one, whether it is there or not.
    pub(crate) fn config_file(&self) -> Option<&Path> {
        self.config_file.as_deref()
    }

    /// The values of an option from the first source that has it: lists are replaced, not joined.
    pub(crate) fn all(&self, name: &str) -> &[Setting] {
        self.layers().into_iter().find_map(|layer| layer.get(name)).map_or(&[], Vec::as_slice)
    }

    /// The value of a flag, without variable and key: an option of `gpb-keygen` has neither, though
    /// another option of the same name may.
    pub(crate) fn flag(&self, name: &str) -> Option<&Setting> {
        self.flags.get(name).and_then(|all| all.first())
    }

    /// The value of an option that is not repeatable.
    pub(crate) fn one(&self, name: &str) -> Option<&Setting> {
        self.all(name).first()
    }

    /// The value of a switch from the first source that has it; not set is false.
    pub(crate) fn switch(&self, name: &str) -> Result<bool, String> {
        self.one(name).map_or(Ok(false), |s| s.read(value::switch))
    }

    /// The three sources, strongest first.
    pub(crate) fn layers(&self) -> [&BTreeMap<&'static str, Vec<Setting>>; 3] {
        [&self.flags, &self.variables, &self.file]
    }
}

/// Reads the `GPB_*` variables; one that is set to nothing counts as not set.
fn from_variables(env: &Environment) -> Result<BTreeMap<&'static str, Vec<Setting>>, String> {
    let mut found = BTreeMap::new();
    for (name, value) in &env.variables {
        let name = name.to_string_lossy();
        if !name.starts_with("GPB_") || OTHERS.contains(&&*name) {
            continue;
        }
        let known = || OPTIONS.iter().filter(|o| o.is_variable());
        let Some(spec) = known().find(|o| o.variable() == name) else {
            let names: Vec<String> = known().map(Spec::variable).collect();
            let near = nearest(&name, names.iter().map(String::as_str)).unwrap_or_default();
            return Err(format!("unknown variable {}; the nearest is {near}", escape(&name)));
        };
        if value.is_empty() {
            continue;
        }
        let setting = |value: OsString| Setting { value, source: SettingSource::Variable(spec.variable()) };
        let settings = match (spec.kind, value.to_str()) {
            (ValueKind::Texts(_), Some(list)) => items(list).into_iter().map(|v| setting(v.trim().into())).collect(),
            _ => vec![setting(value.clone())],
        };
        found.insert(spec.name(), settings);
    }
    Ok(found)
}

/// What stands between the commas of a list; those in braces, as of `{a,b}.txt`, are part of a pattern.
fn items(list: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let cuts = |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    let items = list.split(cuts).collect();
    if depth == 0 { items } else { list.split(',').collect() }
}

/// The content of a configuration file. The default one may be missing, a named one may not.
fn read_file(path: &Path, named: bool) -> Result<Option<String>, String> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let shown = path.display();
    match read_text(path, CONFIG_FILE_LEN_MAX, PIPE_WAIT) {
        Err(e) if !named && matches!(e.kind(), NotFound | NotADirectory) => Ok(None),
        Err(e) => Err(format!("cannot read configuration {shown}: {e}; name another one with --config")),
        Ok(content) if content.len() as u64 > CONFIG_FILE_LEN_MAX => {
            Err(format!("configuration {shown} is longer than {CONFIG_FILE_LEN_MAX} bytes"))
        }
        Ok(content) => Ok(Some(content)),
    }
}

fn from_file(path: &Path, content: &str) -> Result<BTreeMap<&'static str, Vec<Setting>>, String> {
    let line_of = |at: usize| content.as_bytes()[..at.min(content.len())].iter().filter(|b| **b == b'\n').count() + 1;
    let place = |at: usize| format!("{}:{}", path.display(), line_of(at));
    let table = DeTable::parse(content).map_err(|e| {
        format!("{}: {}", place(e.span().map_or(0, |s| s.start)), escape(&e.message().replace('\n', ", ")))
    })?;
    let mut found = BTreeMap::new();
    for (key, value) in table.get_ref() {
        let known = || OPTIONS.iter().filter(|o| o.is_key());
        let Some(spec) = known().find(|o| o.name() == key.get_ref()) else {
            let near = nearest(key.get_ref(), known().map(Spec::name)).unwrap_or_default();
            return Err(format!(
                "{}: unknown key {}; the nearest is {near}",
                place(key.span().start),
                escape(key.get_ref())
            ));
        };
        let setting = |value: &Spanned<DeValue<'_>>, accepted: Accepted| {
            let source = SettingSource::File { file: path.into(), line: line_of(value.span().start), key: spec.name() };
            match accepted.text_of(value.get_ref()) {
                Some(text) if text.is_empty() => Err(format!("{source}: the value is empty; leave the key out")),
                Some(text) => Ok(Setting { value: text.into(), source }),
                None => Err(format!("{source}: must be {accepted}, not {}", value.get_ref().type_str())),
            }
        };
        let settings = match (spec.kind, value.get_ref()) {
            (ValueKind::Switch, _) => vec![setting(value, Accepted::Switch)?],
            (ValueKind::Number(_), _) => vec![setting(value, Accepted::Number)?],
            (ValueKind::Text(_), _) => vec![setting(value, Accepted::Text)?],
            (ValueKind::Texts(_), DeValue::Array(list)) => {
                list.iter().map(|v| setting(v, Accepted::Text)).collect::<Result<_, _>>()?
            }
            (ValueKind::Texts(_), _) => vec![setting(value, Accepted::Text)?],
        };
        found.insert(spec.name(), settings);
    }
    Ok(found)
}

/// The type that a key takes.
#[derive(Clone, Copy)]
enum Accepted {
    Switch,
    Number,
    Text,
}

impl Accepted {
    fn text_of(self, value: &DeValue<'_>) -> Option<String> {
        match (self, value) {
            (Accepted::Switch, DeValue::Boolean(b)) => Some(b.to_string()),
            (Accepted::Number, DeValue::Integer(i)) => Some(i.to_string()),
            (Accepted::Number, DeValue::Float(f)) => Some(f.to_string()),
            (Accepted::Number | Accepted::Text, DeValue::String(s)) => Some(s.to_string()),
            _ => None,
        }
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accepted::Switch => "true or false",
            Accepted::Number => "a number or a text",
            Accepted::Text => "a text",
        })
    }
}

/// Variables of programs that start these ones, such as benchmarks. They are inherited and mean
/// nothing here.
const OTHERS: [&str; 9] = [
    "GPB_ALL_PEERS",
    "GPB_BIN",
    "GPB_DISCOVER",
    "GPB_FETCH",
    "GPB_INDEX",
    "GPB_LEECH",
    "GPB_PEER_FLAG",
    "GPB_READY",
    "GPB_SERVE",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Cause: each comma cut. Effect: `GPB_EXCLUDE='{a,b}.txt'` left out neither.
    #[test]
    fn commas_in_braces_cut_no_item() {
        assert_eq!(items("a, b,"), ["a", " b", ""]);
        assert_eq!(items("d/{a,b{c,d}}.txt,e"), ["d/{a,b{c,d}}.txt", "e"]);
        for odd in ["{a,b", "a},b", "}{,"] {
            assert_eq!(items(odd), odd.split(',').collect::<Vec<_>>(), "{odd}");
        }
    }
}
