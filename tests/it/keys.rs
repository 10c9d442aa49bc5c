//! Key files between gpb and openssl, and what `gpb-keygen` does.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64ct::{Base64, Encoding};
use gpb::internals::identity::{Keypair, PeerId};
use gpb::internals::runtime::keystore::{TrustView, load_key, write_key};

/// A place of its own for every run of a program: no variable of the caller's gets in.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Home(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn keygen(&self, args: &[&str]) -> Output {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("gpb-keygen"));
        command.env_clear().env("HOME", self.0.path()).env("USER", "ana").current_dir(self.0.path()).args(args);
        command.output().unwrap()
    }
}

fn openssl(args: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(args).output().expect("openssl is installed");
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The public key that openssl sees in a key file: the last 32 bytes of its DER form.
fn openssl_id(key: &Path) -> PeerId {
    let der = openssl(&["pkey", "-in", key.to_str().unwrap(), "-pubout", "-outform", "DER"]);
    PeerId(der[der.len() - 32..].try_into().unwrap())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn refused(output: &Output, code: i32, words: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{stderr:?}");
    assert!(stderr.contains(words), "{stderr:?} lacks {words:?}");
}

#[test]
fn openssl_and_gpb_see_the_same_public_key() {
    let home = Home::new();
    let theirs = home.path("theirs.pem");
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", theirs.to_str().unwrap()]);
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(load_key(&theirs).unwrap().peer_id(), openssl_id(&theirs));

    let ours = home.path("ours.pem");
    let key = Keypair::generate();
    write_key(&ours, &key, false).unwrap();
    assert_eq!(key.peer_id(), openssl_id(&ours));
    assert_eq!(fs::read(&ours).unwrap(), openssl(&["pkey", "-in", ours.to_str().unwrap()]));
}

#[test]
fn a_signature_of_ours_is_good_to_openssl() {
    let home = Home::new();
    let (key, file) = (Keypair::generate(), home.path("key.pem"));
    write_key(&file, &key, false).unwrap();
    let (message, signature) = (home.path("message"), home.path("signature"));
    fs::write(&message, b"chunk").unwrap();
    fs::write(&signature, key.sign(b"chunk")).unwrap();
    let [file, message, signature] = [&file, &message, &signature].map(|p| p.to_str().unwrap());
    openssl(&["pkeyutl", "-verify", "-rawin", "-inkey", file, "-in", message, "-sigfile", signature]);
}

#[test]
fn other_kinds_of_key_are_named() {
    let home = Home::new();
    let file = home.path("key.pem");
    let name = file.to_str().unwrap();
    let kinds: [(&[&str], &str); 6] = [
        (&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", name], "for RSA"),
        (&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name], "for EC"),
        (&["genpkey", "-algorithm", "X25519", "-out", name], "for X25519"),
        (&["genpkey", "-algorithm", "Ed448", "-out", name], "for Ed448"),
        (&["genpkey", "-algorithm", "ed25519", "-aes-128-cbc", "-pass", "pass:x", "-out", name], "encrypted"),
        (&["genpkey", "-algorithm", "ed25519", "-outform", "DER", "-out", name], "binary, not PEM"),
    ];
    for (args, words) in kinds {
        openssl(args);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        refused(&home.keygen(&["--show", name]), 2, words);
        fs::remove_file(&file).unwrap();
    }
    write_key(&file, &Keypair::generate(), false).unwrap();
    let public = openssl(&["pkey", "-in", name, "-pubout"]);
    fs::write(&file, public).unwrap();
    refused(&home.keygen(&["--show", name]), 2, "a public key");
}

#[test]
fn keygen_makes_a_key_where_the_other_programs_look_for_it() {
    let home = Home::new();
    let output = home.keygen(&[]);
    let file = home.path(".local/state/gpb/key.pem");
    let id = load_key(&file).unwrap().peer_id();
    assert_eq!(text(&output.stdout), format!("key={}\npeer={id}\n", file.display()));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn keygen_shows_the_line_for_a_trusted_file() {
    let home = Home::new();
    assert!(home.keygen(&["--out", "key.pem"]).status.success());
    let output = home.keygen(&["--show", "key.pem"]);
    let id = openssl_id(&home.path("key.pem"));
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], format!("peer={id}"));
    assert!(lines[1].starts_with(&format!("{id} ana")), "{lines:?}");
    assert_eq!(id.to_string(), format!("ed25519:{}", Base64::encode_string(&id.0)));

    let trusted = home.path("trusted");
    fs::write(&trusted, format!("{}\n", lines[1])).unwrap();
    assert!(TrustView::closed(&trusted, PeerId([0; 32])).unwrap().allows(&id));

    let json: serde_json::Value =
        serde_json::from_slice(&home.keygen(&["--show", "key.pem", "--json"]).stdout).unwrap();
    assert_eq!((json["peer"].as_str(), json["trusted"].as_str()), (Some(&lines[0][5..]), Some(lines[1])));
}

#[test]
fn keygen_overwrites_only_by_force() {
    let home = Home::new();
    assert!(home.keygen(&["--out", "key.pem"]).status.success());
    let first = fs::read(home.path("key.pem")).unwrap();
    refused(&home.keygen(&["--out", "key.pem"]), 2, "--force");
    assert_eq!(fs::read(home.path("key.pem")).unwrap(), first);
    assert!(home.keygen(&["--out", "key.pem", "--force"]).status.success());
    assert_ne!(fs::read(home.path("key.pem")).unwrap(), first);
    let left: Vec<_> = fs::read_dir(home.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["key.pem"]);
}

#[test]
fn keygen_ends_with_the_code_of_the_trouble() {
    let home = Home::new();
    refused(&home.keygen(&["--show", "none.pem"]), 2, "gpb-keygen --out none.pem");
    assert!(home.keygen(&["--out", "key.pem"]).status.success());
    fs::set_permissions(home.path("key.pem"), fs::Permissions::from_mode(0o640)).unwrap();
    refused(&home.keygen(&["--show", "key.pem"]), 2, "chmod 600 key.pem");
    refused(&home.keygen(&["--out", "key.pem/x.pem"]), 7, "cannot write");
    refused(&home.keygen(&["--out", "."]), 2, "a directory");
    std::os::unix::fs::symlink("nowhere", home.path("link")).unwrap();
    refused(&home.keygen(&["--out", "link/x/key.pem"]), 7, "no directory can be made in link");
    let pipe = home.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    refused(&home.keygen(&["--out", "pipe", "--force"]), 2, "a special file");

    // SIGXFSZ ended the program without a word.
    let mut limited = Command::new("bash");
    limited.args(["-c", "ulimit -f 0; exec \"$0\" --out limited/key.pem"]).current_dir(home.0.path());
    refused(&limited.arg(assert_cmd::cargo::cargo_bin!("gpb-keygen")).output().unwrap(), 7, "File too large");
    assert_eq!(fs::read_dir(home.path("limited")).unwrap().count(), 0);
}
