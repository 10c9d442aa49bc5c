//! What the programs say about themselves and about wrong command lines.

use std::fs;
use std::process::{Command, Output, Stdio};

type Variables<'a> = &'a [(&'a str, &'a str)];

/// `gpb-keygen` with a home of its own and the given variables. What is read here is common to the three programs.
fn keygen(args: &[&str], variables: Variables<'_>) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("gpb-keygen"));
    command.env_clear().env("HOME", home.path()).current_dir(home.path());
    command.args(args).envs(variables.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = keygen(&["--bogus", "--help"], &[("GPB_BOGUS", "1")]);
    assert!(help.status.success() && help.stderr.is_empty());
    assert!(stdout(&help).contains("Usage: gpb-keygen [--out FILE] [--force]"));
    let version = keygen(&["-V"], &[]);
    assert_eq!(stdout(&version), format!("gpb-keygen {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn usage_errors_are_one_line_and_code_2() {
    let cases: [(&[&str], Variables<'_>, &str); 6] = [
        (&["--outt", "x"], &[], "error: unknown option --outt; the nearest is --out\n"),
        (&["--out"], &[], "error: --out needs a value: --out FILE\n"),
        (&["stray\n"], &[], "error: gpb-keygen takes no argument `stray\\n`\n"),
        (&[], &[("GPB_PROT", "1")], "error: unknown variable GPB_PROT; the nearest is GPB_PORT\n"),
        (&[], &[("GPB_PORT", "x")], "error: GPB_PORT: `x` is no port (0 to 65535)\n"),
        (
            &["--log-file", "none/log"],
            &[],
            "error: cannot open log file none/log: No such file or directory (os error 2); name another one with --log-file\n",
        ),
    ];
    for (args, variables, expected) in cases {
        let output = keygen(args, variables);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(std::str::from_utf8(&output.stderr).unwrap(), expected);
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn variables_of_programs_around_it_are_no_settings() {
    let output = keygen(&["--version"], &[("GPB_BIN", "target/release"), ("GPB_SERVE", "x")]);
    assert!(output.status.success());
    let output = keygen(&["--show", "none"], &[("GPB_BIN", "target/release")]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("GPB_BIN"));
}

#[test]
fn json_is_asked_for_by_flag_or_variable_even_when_the_rest_is_wrong() {
    for (args, variables) in [(&["--json", "--outt"][..], &[][..]), (&["--outt"], &[("GPB_JSON", "1")])] {
        let output = keygen(args, variables);
        let json: serde_json::Value = serde_json::from_str(stdout(&output).trim_end()).unwrap();
        assert_eq!((json["event"].as_str(), json["code"].as_u64()), (Some("error"), Some(2)));
        assert!(json["message"].as_str().unwrap().contains("--out") && output.stderr.is_empty());
        assert_eq!((output.status.code(), stdout(&output).lines().count()), (Some(2), 1));
    }
}

#[test]
fn the_log_file_gets_what_happens_with_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let key = dir.path().join("key.pem");
    let args = ["--out", key.to_str().unwrap(), "--log-file", log.to_str().unwrap(), "--force"];
    for lines in 1..=2 {
        assert!(keygen(&args, &[]).status.success());
        let text = fs::read_to_string(&log).unwrap();
        assert_eq!(text.lines().count(), lines, "{text}");
        let last = text.lines().last().unwrap();
        assert!(last.contains("Z [INFO] key made peer=ed25519:"), "{last}");
    }
}

#[test]
fn standard_error_says_as_much_as_asked_for() {
    for (option, said) in [("-v", true), ("--log-level=info", true), ("-q", false), ("--json", false)] {
        let output = keygen(&[option], &[]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success());
        assert_eq!(
            (stderr.contains("key made peer="), stderr.lines().count()),
            (said, said.into()),
            "{option} {stderr}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("gpb-keygen"));
    command.env_clear().args(["--help"]).current_dir(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
