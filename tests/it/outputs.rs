//! What the real programs do when their output, or a file, can take no more.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::programs::{Server, program};

const FILES: usize = 200;

fn serve(home: &Path) -> Server {
    let dir = home.join("data");
    fs::create_dir(&dir).unwrap();
    for number in 0..FILES {
        fs::write(dir.join(number.to_string()), vec![number as u8; 3000]).unwrap();
    }
    fs::write(dir.join("large"), vec![7; 3_000_000]).unwrap();
    Server::start(home, &["--dir", dir.to_str().unwrap()])
}

fn get(server: &Server, home: &Path, args: &[&str]) -> Command {
    let mut command = program(assert_cmd::cargo::cargo_bin!("gpb-client"), home, &["get", "**", "--dir", "into"]);
    fs::create_dir_all(home.join("into")).unwrap();
    command.args(["--no-multicast", "--bind", "127.0.0.1", "--peer", server.addr()]).args(args);
    command
}

fn here(home: &Path) -> usize {
    fs::read_dir(home.join("into")).unwrap().flatten().filter(|e| e.file_type().unwrap().is_file()).count()
}

/// `get '**' | head -3` ended with 0 when half of the files were there.
#[test]
fn a_reader_that_goes_away_does_not_end_a_fetch() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(home.path());
    for json in [&[][..], &["--json"]] {
        let home = tempfile::tempdir().unwrap();
        let mut command = get(&server, home.path(), json);
        let mut child = command.arg("--download-limit").arg("6MB").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        let status = child.wait().unwrap();
        assert_eq!((status.code(), here(home.path())), (Some(0), FILES + 1), "{json:?}");
    }
}

#[test]
fn an_output_that_is_full_is_told_when_everything_is_there() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(home.path());
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let client = tempfile::tempdir().unwrap();
    let output = get(&server, client.path(), &[]).stdout(full()).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), here(client.path())), (Some(1), FILES + 1), "{text}");
    assert!(text.contains("error: cannot write to standard output"), "{text}");
}

/// `gpb-server | head -1` ended with 0 when all files were hashed.
#[test]
fn a_server_outlives_the_reader_of_its_output() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("data")).unwrap();
    let args = ["--dir", "data", "--bind", "127.0.0.1", "--port", "0", "--no-multicast"];
    let mut command = program(assert_cmd::cargo::cargo_bin!("gpb-server"), home.path(), &args);
    // The reader is gone before the first line.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let told = lines.find(|line| line.contains("cannot write to standard output"));
    let ended = child.try_wait().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told.is_some() && ended.is_none(), "{told:?} {ended:?}");
}

/// The signal of that limit ended the client without a word.
#[test]
fn a_limit_of_file_size_is_told() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(home.path());
    let client = tempfile::tempdir().unwrap();
    let get = get(&server, client.path(), &[]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 1000; exec \"$0\" \"$@\""]).arg(get.get_program()).args(get.get_args());
    limited.env_clear().env("HOME", client.path()).current_dir(client.path());
    let output = limited.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{text}");
    assert!(text.contains("larger than a file may be here; raise the limit of file size"), "{text}");
}

/// With a umask of 002, which groups that work together use, the others could not write to what one had fetched.
#[test]
fn new_files_get_what_the_umask_leaves() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(home.path());
    for (umask, file, dir) in [("002", 0o664, 0o775), ("077", 0o600, 0o700), ("000", 0o666, 0o777)] {
        let client = tempfile::tempdir().unwrap();
        let get = get(&server, client.path(), &["--out", "new/"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask $UMASK; exec \"$0\" \"$@\""]).arg(get.get_program()).args(get.get_args());
        shell.env_clear().env("UMASK", umask).env("HOME", client.path()).current_dir(client.path());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let mode = |name: &str| fs::metadata(client.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode("new/0"), mode("new/large"), mode("new")], [file, file, dir], "{umask}");
    }
}
