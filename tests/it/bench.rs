//! `scripts/bench.sh` works with files of a few MiB, and leaves nothing behind however it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The script with the programs of this build, or `None` where it cannot run.
fn bench(dir: &Path) -> Option<Command> {
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(std::env::var_os("TESTS_REQUIRE_ALL").is_none_or(|v| v != "1"), "there is no python3");
        println!("skipped: scripts/bench.sh: there is no python3");
        return None;
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_gpb-client")).parent().unwrap();
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bench.sh"));
    command.arg("--quick").arg("--dir").arg(dir).env("GPB_BIN", programs).stdin(Stdio::null());
    Some(command)
}

/// Neither files nor processes that were started with a path in `dir`.
fn assert_nothing_left(dir: &Path) {
    let files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.is_empty(), "left behind: {files:?}");
    for process in fs::read_dir("/proc").unwrap() {
        // Processes of others come and go meanwhile.
        let line = fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(!line.contains(dir.to_str().unwrap()), "still runs: {line}");
    }
}

/// Runs it, and looks for a table of each of these scenarios with so many rows of GPB.
fn assert_tables(command: &mut Command, wanted: &[(&str, usize)]) {
    let output = command.output().unwrap();
    let (tables, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {tables}\n{said}", output.status);
    for &(scenario, rows) in wanted {
        let name = scenario.split([' ', ':']).next().unwrap().replace("Scale", "scale");
        if tables.contains(&format!("skipped: {name}: ")) {
            assert!(std::env::var_os("TESTS_REQUIRE_ALL").is_none_or(|v| v != "1"), "must not be skipped: {tables}");
            continue;
        }
        let at = tables.find(&format!("**{scenario}")).unwrap_or_else(|| panic!("no {scenario} in {tables}"));
        let table: Vec<_> =
            tables[at..].lines().skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|')).collect();
        assert_eq!(table.iter().filter(|l| l.starts_with("| **GPB")).count(), rows, "{table:#?}");
        let columns = |line: &str| line.matches('|').count();
        assert!(table.iter().all(|l| columns(l) == columns(table[0])), "{table:#?}");
    }
}

#[test]
fn the_benchmark_measures_every_scenario() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut command) = bench(dir.path()) else { return };
    let (servers, swarms) = ([("S1", 1), ("S2", 1), ("S3", 2)], [("S4: swarms", 4), ("S4: one", 2)]);
    let hashing = [("S8: hash one", 2), ("S8: hash 220", 2)];
    let far = [("S9: one", 1), ("S9: 20 files", 1)];
    assert_tables(&mut command, &[&servers[..], &swarms, &hashing, &far].concat());
    assert_nothing_left(dir.path());
}

#[test]
fn a_program_that_transfers_nothing_fails() {
    let (dir, fakes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(mut command) = bench(dir.path()) else { return };
    let tar = fakes.path().join("tar");
    fs::write(&tar, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&tar, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", fakes.path().display(), std::env::var("PATH").unwrap());
    let output = command.arg("S2").env("PATH", path).output().unwrap();
    let tables = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{tables}");
    assert!(tables.contains("\ntar over TCP failed: other files were received than sent\n"), "{tables}");
    assert!(tables.contains("| **GPB** |") && !tables.contains("| tar over TCP |"), "{tables}");
    assert_nothing_left(dir.path());
}

#[test]
fn the_benchmark_shows_how_costs_grow() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut command) = bench(dir.path()) else { return };
    assert_tables(command.arg("scale"), &[("Scale of a sparse file", 3), ("Scale of files", 6)]);
    assert_nothing_left(dir.path());
}

#[test]
fn a_benchmark_that_is_stopped_leaves_nothing() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let dir = tempfile::tempdir().unwrap();
        let Some(mut command) = bench(dir.path()) else { return };
        let mut child =
            command.args(["--runs", "10000", "S2"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // After a first line it is in the midst of the next run.
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut said).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        while stderr.read_line(&mut said).unwrap() > 0 {}
        assert_eq!(child.wait().unwrap().code(), Some(code), "{said}");
        assert_nothing_left(dir.path());
    }
}
