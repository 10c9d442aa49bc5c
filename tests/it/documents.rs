//! The documents say what the programs do: the same options in both languages and in `--help`, and links that lead
//! somewhere.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const READMES: [&str; 2] = ["README.md", "README.pt-BR.md"];

const DOCUMENTS: [&str; 11] = [
    "ARCHITECTURE.md",
    "README.md",
    "README.pt-BR.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/benchmarks.md",
    "docs/json.md",
    "docs/service.md",
    "keys/README.md",
    "src/proto/WIRE.md",
];

/// Folders at the top level; what a document names below them must be there.
const FOLDERS: [&str; 8] = [".ci/", "benches/", "docs/", "examples/", "fuzz/", "scripts/", "src/", "tests/"];

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The long options in a text.
fn options(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for word in text.split(|c: char| !(c.is_ascii_lowercase() || c == '-')) {
        if let Some(name) = word.strip_prefix("--").filter(|n| n.starts_with(|c: char| c.is_ascii_lowercase())) {
            found.insert(name.trim_end_matches('-').to_string());
        }
    }
    found
}

/// The lines of the tables in a text.
fn tables(text: &str) -> String {
    text.lines().filter(|l| l.starts_with('|')).collect::<Vec<_>>().join("\n")
}

/// What `--help` of a program, and of each of its commands, prints.
fn help() -> String {
    let mut all = String::new();
    for args in [
        vec![env!("CARGO_BIN_EXE_gpb-keygen"), "--help"],
        vec![env!("CARGO_BIN_EXE_gpb-server"), "--help"],
        vec![env!("CARGO_BIN_EXE_gpb-client"), "--help"],
        vec![env!("CARGO_BIN_EXE_gpb-client"), "peers", "--help"],
        vec![env!("CARGO_BIN_EXE_gpb-client"), "list", "--help"],
        vec![env!("CARGO_BIN_EXE_gpb-client"), "get", "--help"],
        vec![env!("CARGO_BIN_EXE_gpb-client"), "doctor", "--help"],
    ] {
        // The tester's own settings may be wrong for these programs.
        let output = Command::new(args[0]).args(&args[1..]).env_clear().output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        all.push_str(&String::from_utf8(output.stdout).unwrap());
    }
    all
}

#[test]
fn the_options_in_the_tables_are_those_of_the_programs() {
    let mut of_help = options(&help());
    // Everybody knows these; the tables do not repeat them, and name the next two by their short form.
    for name in ["help", "version", "quiet", "verbose"] {
        of_help.remove(name);
    }
    for name in READMES {
        let of_readme = options(&tables(&read(name)));
        let missing: Vec<_> = of_help.difference(&of_readme).collect();
        let unknown: Vec<_> = of_readme.difference(&of_help).collect();
        assert!(missing.is_empty() && unknown.is_empty(), "{name} lacks {missing:?}, and no program has {unknown:?}");
    }
}

#[test]
fn both_languages_say_the_same() {
    let [en, pt] = READMES.map(read);
    let count = |text: &str, start: &str| text.lines().filter(|l| l.starts_with(start)).count();
    for start in ["#", "```", "|", "* "] {
        assert_eq!(count(&en, start), count(&pt, start), "lines that start with `{start}`");
    }
    assert_eq!(options(&en), options(&pt));
    let first_cells = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|l| l.starts_with("| `") || l.starts_with("| 1") || l.starts_with("| 2"));
        rows.map(|l| l.split(" | ").next().unwrap().to_string()).collect()
    };
    assert_eq!(first_cells(&en), first_cells(&pt));
}

/// What stands between backticks, in lines and in blocks.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The names of the events in a text of the source: `event: "done"`.
fn events(source: &str) -> impl Iterator<Item = &str> {
    source.split("event: \"").skip(1).filter_map(|rest| rest.split('"').next())
}

#[test]
fn each_json_line_has_its_row() {
    let rows = read("docs/json.md");
    let mut source: Vec<_> = ["exit", "output", "progress"].map(|name| read(&format!("src/cli/{name}.rs"))).into();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/output");
    source.extend(std::fs::read_dir(folder).unwrap().map(|f| std::fs::read_to_string(f.unwrap().path()).unwrap()));
    // Those of a sync are the argument of one function.
    let named = source.iter().flat_map(|text| events(text)).chain(["remove", "removed"]);
    let named: BTreeSet<&str> = named.collect();
    assert!(named.len() > 15, "{named:?}");
    for event in &named {
        assert!(rows.contains(&format!("\n| `{event}` | ")), "docs/json.md has no row `{event}`");
    }
    let first_cells = rows.split("| event |").nth(1).unwrap().lines().filter_map(|l| l.strip_prefix("| `"));
    let told: BTreeSet<&str> = first_cells.filter_map(|l| l.split('`').next()).collect();
    assert_eq!(told, named);
}

#[test]
fn files_that_are_named_exist() {
    for name in DOCUMENTS {
        for word in read(name).split(|c: char| c.is_whitespace() || "`()[],;|".contains(c)) {
            let word = word.trim_end_matches(['.', ':']);
            if FOLDERS.iter().any(|folder| word.starts_with(folder)) {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(word);
                assert!(path.exists(), "{name} names {word}, which does not exist");
            }
        }
    }
}

/// The short figures of the front page are those of the tables, and the commands beside the tables can be run.
#[test]
fn benchmarks_are_quoted_and_can_be_repeated() {
    let tables = read("docs/benchmarks.md");
    let figure = |row: &str, cell: usize| -> String {
        let line = tables.lines().find(|l| l.starts_with(row)).unwrap_or_else(|| panic!("no row {row}"));
        line.split('|').nth(cell).unwrap().trim().split(' ').next().unwrap().to_string()
    };
    let big = [figure("| **GPB** | 1", 2), figure("| rsync daemon | 1", 2)];
    let four = figure("| **GPB** | 8", 3).parse::<f64>().unwrap().round().to_string();
    for (name, point) in READMES.into_iter().zip([".", ","]) {
        let text = read(name);
        for seconds in &big {
            let shown = format!("{} s", seconds.replace('.', point));
            assert!(text.contains(&shown), "{name} does not say {shown}");
        }
        assert!(text.contains(&format!("{four} %")), "{name} does not say {four} %");
    }

    let scenarios = read("scripts/bench/__main__.py");
    for command in code(&tables).iter().filter(|c| c.contains("scripts/bench.sh")) {
        for scenario in command.split(' ').filter(|w| w.starts_with('S') || *w == "scale") {
            assert!(scenarios.contains(&format!("'{scenario}':")), "`{command}`: there is no scenario {scenario}");
        }
    }
    for command in code(&tables).iter().filter(|c| c.starts_with("cargo ")) {
        let words: Vec<&str> = command.split(' ').collect();
        let (kind, target) = (words[words.len() - 2], words[words.len() - 1]);
        let folder = if kind == "--bench" { "benches" } else { "examples" };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target).with_extension("rs");
        assert!(file.exists(), "`{command}`: there is no {folder}/{target}.rs");
    }
}

#[test]
fn links_lead_somewhere() {
    for name in DOCUMENTS {
        let text = read(name);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name).parent().unwrap().to_path_buf();
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if file.starts_with("http") || file.contains("::") {
                continue;
            }
            assert!(folder.join(file).exists(), "{name} links to {file}, which does not exist");
            if !anchor.is_empty() {
                let linked = std::fs::read_to_string(folder.join(file)).unwrap();
                let headings = linked.lines().filter(|l| l.starts_with('#'));
                let slug = |l: &str| l.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                assert!(
                    headings.into_iter().any(|l| slug(l) == anchor),
                    "{name} links to #{anchor}, which does not exist"
                );
            }
        }
    }
}

/// The names of all tests below a folder, each with the modules that its file is in.
fn tests_below(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let modules = path.with_extension("").to_string_lossy().replace('/', "::");
            for test in text.split("#[test]").skip(1) {
                let name = test.split("fn ").nth(1).unwrap_or_default().split('(').next().unwrap_or_default();
                found.push((modules.clone(), name.to_string()));
            }
        }
    }
}

/// A claim is worth its test: each that is named is there, in a file or folder of that name.
#[test]
fn tests_that_security_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = Vec::new();
    ["src", "tests"].iter().for_each(|folder| tests_below(&root.join(folder), &mut tests));
    for entry in std::fs::read_dir(root.join("fuzz/fuzz_targets")).unwrap() {
        let target = entry.unwrap().path();
        tests.push(("::fuzz".into(), target.file_stem().unwrap().to_string_lossy().into_owned()));
    }
    let text = read("SECURITY.md");
    let rows = text.lines().filter(|l| l.starts_with("| ") && l.contains("::"));
    let mut named = 0;
    for row in rows {
        for word in code(row).into_iter().filter(|w| w.contains("::")) {
            let (file, name) = word.split_once("::").unwrap();
            let is_there = |(modules, test): &(String, String)| test == name && modules.split("::").any(|m| m == file);
            assert!(tests.iter().any(is_there), "SECURITY.md names the test {word}, which does not exist");
            named += 1;
        }
    }
    assert!(named > 50, "only {named} tests are named");
    for row in text.lines().skip_while(|l| !l.starts_with("| claim ")).skip(2).take_while(|l| l.starts_with('|')) {
        assert!(row.contains("::"), "no test for: {row}");
    }
}
