//! Precedence, places and errors, over every option of the table.

use std::collections::BTreeMap;
use std::fs;

use super::*;

/// A program's start: arguments, variables, and what stands in the default configuration file.
struct Start {
    home: tempfile::TempDir,
    env: Environment,
}

impl Start {
    fn new(args: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let variables = BTreeMap::from([("HOME".into(), home.path().into())]);
        Start { home, env: Environment { args: args.iter().map(OsString::from).collect(), variables } }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.env.variables.insert(name.into(), value.into());
        self
    }

    fn file(self, content: &str) -> Self {
        let dir = self.home.path().join(".config/gpb");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.toml"), content).unwrap();
        self
    }

    fn typed(&self, program: Program) -> Result<Typed, String> {
        Typed::parse(program, &self.env.args)
    }

    fn server(&self) -> Result<Options, String> {
        server(&self.typed(Program::Server)?, &self.env)
    }

    fn client(&self) -> Result<ClientOptions, String> {
        client(&self.typed(Program::Client)?, &self.env)
    }

    fn keygen(&self) -> Result<KeygenOptions, String> {
        keygen(&self.typed(Program::Keygen)?, &self.env)
    }
}

/// What an option came to, as text, from whichever part of the result it went to.
fn outcome(name: &str, start: &Start) -> String {
    if SERVING.contains(&name) {
        let mirror = start.server().unwrap().mirror;
        return match name {
            "mirror" => format!("{:?}", mirror.patterns),
            "retain" => format!("{:?}", mirror.retain),
            _ => format!("{:?}", mirror.quota),
        };
    }
    let ClientOptions { node: o, command } = start.client().unwrap();
    let of_get = || match &command {
        Command::Get { out, share, seed, .. } => (out.clone(), *share, *seed),
        other => panic!("{other:?}"),
    };
    match name {
        "dir" => format!("{:?}", o.dir),
        "port" => o.port.to_string(),
        "bind" => format!("{:?}", o.bind),
        "state" => format!("{:?}", o.state.strip_prefix(start.home.path()).unwrap_or(&o.state)),
        "key" => format!("{:?}", o.key.strip_prefix(start.home.path()).unwrap_or(&o.key)),
        "trusted" => format!("{:?}", o.trusted),
        "peer" => format!("{:?}", o.peers.iter().map(|p| format!("{}:{}", p.host(), p.port())).collect::<Vec<_>>()),
        "peer-file" => format!("{:?}", o.peer_file),
        "no-remember" => (!o.remember).to_string(),
        "no-multicast" => (!o.multicast).to_string(),
        "interface" => format!("{:?}", o.interfaces),
        "hops" => o.hops.to_string(),
        "dns-sd" => o.dns_sd.to_string(),
        "dht" => o.dht.to_string(),
        "dht-secret" => o.dht_options.secret.is_some().to_string(),
        "dht-bootstrap" => {
            format!("{:?}", o.dht_options.bootstrap.iter().map(ToString::to_string).collect::<Vec<_>>())
        }
        "network" => o.network,
        "timeout" => format!("{:?}", o.timeout),
        "log-file" => format!("{:?}", o.report.log.file),
        "log-level" => format!("{:?}", o.report.log.level),
        "upload-limit" => format!("{:?}", o.upload_limit),
        "download-limit" => format!("{:?}", o.download_limit),
        "quiet" | "verbose" => format!("{:?}", o.report.log.verbosity),
        "json" => o.report.json.to_string(),
        "wait" => match command {
            Command::List { wait, .. } | Command::Peers { wait } => format!("{wait:?}"),
            other => panic!("{other:?}"),
        },
        "out" => format!("{:?}", of_get().0),
        "no-share" => (!of_get().1).to_string(),
        "no-attributes" => matches!(command, Command::Get { attributes: false, .. }).to_string(),
        "seed" => format!("{:?}", of_get().2),
        "exclude" => format!("{:?}", choice_of(&command).0.exclude),
        "hidden" => choice_of(&command).0.hidden.to_string(),
        "from" => format!("{:?}", choice_of(&command).0.from.map(|from| from.to_string())),
        "temporary" => matches!(command, Command::Get { life: Life::Temporary, .. }).to_string(),
        "dry-run" => matches!(command, Command::Get { dry_run: true, .. }).to_string(),
        "backup" => format!("{:?}", choice_of(&command).1),
        "max-delete" => match command {
            Command::Sync(options) => options.max_delete.to_string(),
            other => panic!("{other:?}"),
        },
        other => panic!("no outcome for {other}"),
    }
}

fn choice_of(command: &Command) -> (SelectOptions, Overwrite) {
    match command {
        Command::Get { select, overwrite, .. } => (select.clone(), *overwrite),
        other => panic!("{other:?}"),
    }
}

/// Name; default; then as flag, variable and file: what is written, and what it comes to.
type Row = (&'static str, &'static str, [(&'static str, &'static str); 3]);

/// Options of the server alone.
const SERVING: [&str; 3] = ["mirror", "retain", "quota"];

const SECRET: &str = "0123456789abcdef";

const TABLE: [Row; 39] = [
    ("dir", "\"/tmp/dataset\"", [("/a", "\"/a\""), ("/b", "\"/b\""), ("'/c'", "\"/c\"")]),
    ("port", "0", [("1", "1"), ("2", "2"), ("3", "3")]),
    ("bind", "None", [("[::1]", "Some(::1)"), ("10.0.0.1", "Some(10.0.0.1)"), ("'0.0.0.0'", "Some(0.0.0.0)")]),
    ("state", "\".local/state/gpb\"", [("/a", "\"/a\""), ("/b", "\"/b\""), ("'/c'", "\"/c\"")]),
    ("key", "\".local/state/gpb/key.pem\"", [("/a", "\"/a\""), ("/b", "\"/b\""), ("'/c'", "\"/c\"")]),
    ("trusted", "None", [("/a", "Some(\"/a\")"), ("/b", "Some(\"/b\")"), ("'/c'", "Some(\"/c\")")]),
    (
        "peer",
        "[]",
        [("a:1", "[\"a:1\"]"), ("b, c:2", "[\"b:27420\", \"c:2\"]"), ("['d', 'e:3']", "[\"d:27420\", \"e:3\"]")],
    ),
    ("peer-file", "None", [("/a", "Some(\"/a\")"), ("/b", "Some(\"/b\")"), ("'/c'", "Some(\"/c\")")]),
    ("no-remember", "false", [("", "true"), ("0", "false"), ("true", "true")]),
    ("no-multicast", "false", [("", "true"), ("0", "false"), ("true", "true")]),
    (
        "interface",
        "[]",
        [("a", "[Name(\"a\")]"), ("b,1.2.3.4", "[Name(\"b\"), Ip(1.2.3.4)]"), ("'c'", "[Name(\"c\")]")],
    ),
    ("hops", "1", [("2", "2"), ("3", "3"), ("32", "32")]),
    ("dns-sd", "false", [("", "true"), ("0", "false"), ("true", "true")]),
    ("dht", "false", [("", "true"), ("0", "false"), ("true", "true")]),
    ("dht-secret", "false", [(SECRET, "true"), (SECRET, "true"), ("'0123456789abcdef'", "true")]),
    ("dht-bootstrap", "[]", [("a:1", "[\"a:1\"]"), ("b:2", "[\"b:2\"]"), ("['[::1]:3']", "[\"[::1]:3\"]")]),
    ("network", "gpb", [("a", "a"), ("b", "b"), ("'c'", "c")]),
    ("timeout", "10s", [("1.5", "1.5s"), ("2", "2s"), ("0.25", "250ms")]),
    ("log-file", "None", [("/a", "Some(\"/a\")"), ("/b", "Some(\"/b\")"), ("'/c'", "Some(\"/c\")")]),
    ("log-level", "None", [("off", "Some(Off)"), ("warn", "Some(Warn)"), ("'trace'", "Some(Trace)")]),
    ("upload-limit", "None", [("1MB", "Some(1000000)"), ("2KiB", "Some(2048)"), ("3", "Some(3)")]),
    ("download-limit", "None", [("1MB", "Some(1000000)"), ("2KiB", "Some(2048)"), ("'3kB'", "Some(3000)")]),
    ("quiet", "Warn", [("", "Quiet"), ("0", "Warn"), ("true", "Quiet")]),
    ("verbose", "Warn", [("", "Verbose"), ("false", "Warn"), ("true", "Verbose")]),
    ("json", "false", [("", "true"), ("0", "false"), ("true", "true")]),
    ("wait", "2s", [("1", "1s"), ("0", "0ns"), ("3.5", "3.5s")]),
    ("out", "None", [("/a", "Some(\"/a\")"), ("/b", "Some(\"/b\")"), ("'/c'", "Some(\"/c\")")]),
    ("no-share", "false", [("", "true"), ("0", "false"), ("true", "true")]),
    ("no-attributes", "false", [("", "true"), ("0", "false"), ("true", "true")]),
    ("exclude", "[]", [("a", "[\"a\"]"), ("b, *.c", "[\"b\", \"*.c\"]"), ("['d', 'e/**']", "[\"d\", \"e/**\"]")]),
    ("hidden", "false", [("", "true"), ("0", "false"), ("true", "true")]),
    (
        "from",
        "None",
        [
            ("AbCdEfGhIjKl", "Some(\"ed25519:AbCdEfGhIjKl\")"),
            ("ed25519:bbbbbbbbbbbb", "Some(\"ed25519:bbbbbbbbbbbb\")"),
            ("'cccccccccccc'", "Some(\"ed25519:cccccccccccc\")"),
        ],
    ),
    ("mirror", "[]", [("**", "[\"**\"]"), ("b, *.c", "[\"b\", \"*.c\"]"), ("['d', 'e/**']", "[\"d\", \"e/**\"]")]),
    ("retain", "None", [("1d", "Some(86400s)"), ("2h", "Some(7200s)"), ("'3m'", "Some(180s)")]),
    ("quota", "None", [("1MB", "Some(1000000)"), ("2KiB", "Some(2048)"), ("'3kB'", "Some(3000)")]),
    ("temporary", "false", [("", "true"), ("0", "false"), ("true", "true")]),
    ("dry-run", "false", [("", "true"), ("0", "false"), ("true", "true")]),
    ("max-delete", "50%", [("7", "7"), ("20%", "20%"), ("'3'", "3")]),
    ("backup", "Refuse", [("", "Backup"), ("0", "Refuse"), ("true", "Backup")]),
];
const SEED: Row = ("seed", "None", [("1", "Some(1s)"), ("0", "None"), ("3", "Some(3s)")]);

#[test]
fn a_flag_goes_before_a_variable_before_the_file_before_the_default() {
    for (name, default, [flag, variable, file]) in TABLE.into_iter().chain([SEED]) {
        let spec = OPTIONS.iter().find(|o| o.name() == name && o.is_key()).unwrap();
        let command: &[&str] = match name {
            "wait" => &["list"],
            "max-delete" => &["sync", "d", "--from", "AbCdEfGhIjKl"],
            _ if SERVING.contains(&name) => &["--trusted", "/t"],
            _ => &["get", "x"],
        };
        let switch = flag.0.is_empty();
        let option = if switch { spec.flag.to_string() } else { format!("{}={}", spec.flag, flag.0) };
        let content = format!("{name} = {}\n", file.0);
        let with = |has: [bool; 3]| {
            let mut args = command.to_vec();
            if has[0] {
                args.push(&option);
            }
            let start = Start::new(&args);
            let start = if name.starts_with("dht-") { start.variable("GPB_DHT", "1") } else { start };
            let start = if has[1] { start.variable(&spec.variable(), variable.0) } else { start };
            if has[2] { start.file(&content) } else { start }
        };
        for (has, expected) in [
            ([false, false, false], default),
            ([false, false, true], file.1),
            ([false, true, true], variable.1),
            ([false, true, false], variable.1),
            ([true, true, true], flag.1),
            ([true, false, true], flag.1),
            ([true, false, false], flag.1),
        ] {
            assert_eq!(outcome(name, &with(has)), expected, "{name} {has:?}");
        }
    }
}

#[test]
fn a_wrong_secret_of_a_dht_is_not_shown_and_its_nodes_have_ports() {
    let refused = |option: &str, value: &str| Start::new(&["peers", option, value]).client().unwrap_err();
    let short = refused("--dht-secret", "hunter2");
    assert!(short.contains("--dht-secret") && short.contains("16 to 256") && !short.contains("hunter2"), "{short}");
    for node in ["a", "::1", "[::1]", "a:0", "a:b"] {
        assert!(refused("--dht-bootstrap", node).contains("--dht-bootstrap"), "{node}");
    }
    let options = Start::new(&["peers", "--dht", "--dht-secret", SECRET]).client().unwrap().node;
    assert!(!format!("{options:?}").contains(SECRET));
}

/// Cause: they were read and never used. Effect: a group that was given a secret, and not `--dht`, waited to be found. Mend: an
/// error says what lacks.
#[test]
fn options_that_would_be_ignored_are_refused_wherever_they_stand() {
    for (name, value) in [("dht-secret", SECRET), ("dht-bootstrap", "a:1")] {
        let option = format!("--{name}");
        let variable = format!("GPB_{}", name.to_uppercase().replace('-', "_"));
        let all = |args: &[&str], put: &dyn Fn(Start) -> Start| {
            let peers = [&["peers"], args].concat();
            let client = put(Start::new(&peers)).client().map(|o| o.node.dht);
            let server = put(Start::new(args)).server().map(|o| o.dht);
            assert_eq!(client, server);
            assert!(!args.is_empty() || put(Start::new(args)).keygen().is_ok(), "it discovers nothing");
            server
        };
        let typed = all(&[&option, value], &|start| start).unwrap_err();
        assert_eq!(typed, format!("{option} means nothing without --dht; add --dht"));
        assert!(all(&[&option, value], &|start| start.variable("GPB_DHT", "0")).is_err(), "typed, and switched off");
        let set = |start: Start| start.variable(&variable, value);
        assert!(all(&[], &set).unwrap_err().starts_with(&format!("{variable} means nothing without GPB_DHT; set ")));
        let content = format!("{name} = '{value}'\n");
        let (line, add) = (format!("config.toml:1: {name} means nothing without dht"), "add dht = true");
        let start = Start::new(&[]).file(&content);
        let said = start.server().unwrap_err();
        assert!(said.contains(&line) && said.contains(add) && !said.contains(value), "{said}");
        for off in ["dht = false", "dht = true"] {
            let put = |start: Start| start.file(&format!("{content}{off}\n"));
            assert_eq!(all(&[], &put), Ok(off.contains("true")), "said to wait");
            assert_eq!(all(&["--dht"], &put), Ok(true));
        }
        assert_eq!(all(&["--dht", &option, value], &|start| start), Ok(true));
    }
}

/// Scripts give all programs and commands the same options.
#[test]
fn options_that_another_one_takes_the_meaning_from_are_taken() {
    for args in [
        &["--seed", "5", "--no-share"][..],
        &["--hops", "3", "--no-multicast"],
        &["--interface", "lo", "--no-multicast"],
    ] {
        let start = Start::new(&[&["get", "x"], args].concat());
        assert!(start.client().is_ok(), "{args:?}");
    }
    assert!(Start::new(&["--interface", "lo", "--no-multicast"]).server().is_ok());
    assert!(Start::new(&["--network", "x"]).keygen().is_ok());
}

#[test]
fn the_table_leaves_no_option_out() {
    for spec in OPTIONS.iter().filter(|o| o.is_key()) {
        assert!(TABLE.iter().chain([&SEED]).any(|row| row.0 == spec.name()), "{}", spec.name());
    }
}

#[test]
fn a_mirror_in_an_open_group_says_whom_it_follows_and_how_much_it_takes() {
    let key = "AbCdEfGhIjKl";
    let refused = |args: &[&str]| Start::new(args).server().unwrap_err();
    for args in [&["--mirror", "**"][..], &["--mirror", "**", "--from", key], &["--mirror", "**", "--quota", "1GB"]] {
        assert!(refused(args).contains("open group needs --from PEER and --quota SIZE"), "{args:?}");
    }
    assert!(refused(&["--from", key]).contains("belongs to --mirror"));
    assert!(refused(&["--mirror", "a{"]).contains("--mirror") || Start::new(&["--mirror", "a{"]).server().is_err());
    let given =
        Start::new(&["--mirror", "a", "--mirror", "b", "--from", key, "--from", "BbCdEfGhIjKl", "--quota", "1GB"]);
    let mirror = given.server().unwrap().mirror;
    assert_eq!((mirror.patterns.len(), mirror.from.len(), mirror.quota), (2, 2, Some(1_000_000_000)));
    assert!(Start::new(&["--mirror", "**", "--trusted", "/t"]).server().is_ok());
    // One file serves both programs.
    let file = format!("from = ['{key}']\n");
    assert!(Start::new(&["--quota", "5GB"]).file(&file).server().is_ok());
    assert!(Start::new(&["get", "x"]).file(&file).client().is_ok());
    assert!(Start::new(&["get", "x", "--mirror", "a"]).typed(Program::Client).unwrap_err().contains("gpb-server"));
    assert!(Start::new(&["get", "x", "--from", key, "--from", key]).client().unwrap_err().contains("one peer"));
}

#[test]
fn programs_differ_in_port_and_verbosity() {
    let server = Start::new(&[]).server().unwrap();
    assert_eq!((server.port, server.report.log.verbosity), (PORT, Verbosity::Info));
    let client = Start::new(&["peers"]).client().unwrap().node;
    assert_eq!((client.port, client.report.log.verbosity), (0, Verbosity::Warn));
}

#[test]
fn the_configuration_may_lie_elsewhere() {
    let start = Start::new(&[]).file("network = 'home'");
    let other = start.home.path().join("other.toml");
    fs::write(&other, "network = 'other'").unwrap();
    assert_eq!(start.server().unwrap().network, "home");
    let other = other.to_str().unwrap().to_string();
    let mut start = start.variable("GPB_CONFIG", &other);
    assert_eq!(start.server().unwrap().network, "other");
    start.env.args = vec!["--config".into(), other.into()];
    let start = start.variable("GPB_CONFIG", "/nonexistent/x");
    assert_eq!(start.server().unwrap().network, "other");
    let xdg = Start::new(&[]);
    let dir = xdg.home.path().join("xdg");
    fs::create_dir_all(dir.join("gpb")).unwrap();
    fs::write(dir.join("gpb/config.toml"), "network = 'xdg'").unwrap();
    let xdg = xdg.variable("XDG_CONFIG_HOME", dir.to_str().unwrap()).variable("XDG_STATE_HOME", "relative");
    let options = xdg.server().unwrap();
    assert_eq!(options.network, "xdg");
    assert_eq!(options.state, xdg.home.path().join(".local/state/gpb"));
    assert_eq!(xdg.variable("XDG_STATE_HOME", "/s").server().unwrap().key, PathBuf::from("/s/gpb/key.pem"));
}

#[test]
fn a_named_configuration_must_exist_and_be_a_file() {
    for path in ["/nonexistent/x", "/tmp"] {
        assert!(Start::new(&["--config", path]).server().unwrap_err().contains("cannot read configuration"));
    }
    assert!(Start::new(&[]).server().is_ok());
}

#[test]
fn home_is_needed_only_for_defaults() {
    let bare = |args: &[&str]| {
        let mut start = Start::new(args);
        start.env.variables.clear();
        start
    };
    assert!(bare(&[]).server().unwrap_err().contains("give --state DIR"));
    assert!(bare(&["--state", "/s"]).server().is_ok());
    assert!(bare(&[]).keygen().unwrap_err().contains("give --state DIR"));
    assert!(bare(&["--show", "k"]).keygen().is_ok() && bare(&["--out", "k"]).keygen().is_ok());
    assert!(bare(&["--key", "k"]).keygen().is_ok());
}

#[test]
fn errors_name_the_place_and_the_nearest_name() {
    let said = |content: &str| {
        let start = Start::new(&[]).file(content);
        let text = start.server().unwrap_err();
        text.replace(start.home.path().to_str().unwrap(), "~")
    };
    let file = "~/.config/gpb/config.toml";
    assert_eq!(said("# x\nprot = 1\n"), format!("{file}:2: unknown key prot; the nearest is port"));
    assert_eq!(said("\n\nport = 70000\n"), format!("{file}:3: port: `70000` is no port (0 to 65535)"));
    assert_eq!(said("peer = [\n'a',\n'b c']"), format!("{file}:3: peer: {}", value::peer("b c").unwrap_err()));
    assert_eq!(said("json = 'yes'"), format!("{file}:1: json: must be true or false, not string"));
    assert_eq!(said("dir = 5"), format!("{file}:1: dir: must be a text, not integer"));
    assert_eq!(said("dir = ''"), format!("{file}:1: dir: the value is empty; leave the key out"));
    assert_eq!(said("[peer]\na = 1"), format!("{file}:1: peer: must be a text, not table"));
    assert_eq!(said("force = true"), format!("{file}:1: unknown key force; the nearest is {}", "port"));
    assert!(said("config = 'x'").contains("unknown key config"));
    assert!(said("port = \n").starts_with(&format!("{file}:1: ")), "{}", said("port = \n"));
    assert!(said("port = 1\nport = 2\n").starts_with(&format!("{file}:2: ")));
    assert!(!said("a = \"\n").contains('\n'));
    let unknown = Start::new(&[]).variable("GPB_PROT", "1").server().unwrap_err();
    assert_eq!(unknown, "unknown variable GPB_PROT; the nearest is GPB_PORT");
    let wrong = Start::new(&[]).variable("GPB_PORT", "x").server().unwrap_err();
    assert_eq!(wrong, "GPB_PORT: `x` is no port (0 to 65535)");
    assert_eq!(Start::new(&["--port", "x"]).server().unwrap_err(), "--port: `x` is no port (0 to 65535)");
}

#[test]
fn every_bad_value_is_refused_wherever_it_stands() {
    for (name, bad) in [
        ("port", "65536"),
        ("bind", "localhost"),
        ("peer", "a b"),
        ("no-multicast", "yes"),
        ("interface", "a/b"),
        ("hops", "0"),
        ("timeout", "0"),
        ("log-level", "loud"),
        ("upload-limit", "0"),
        ("download-limit", "10Mb"),
        ("quiet", "no"),
        ("verbose", "2"),
        ("json", "on"),
        ("wait", "-1"),
        ("no-share", "x"),
        ("seed", "1h"),
    ] {
        let spec = OPTIONS.iter().find(|o| o.name() == name && o.is_key()).unwrap();
        let variable = Start::new(&["peers"]).variable(&spec.variable(), bad).client();
        assert!(variable.unwrap_err().starts_with(&spec.variable()), "{name}");
        let file = Start::new(&["peers"]).file(&format!("{name} = '{bad}'")).client();
        assert!(file.unwrap_err().contains(&format!("config.toml:1: {name}: ")), "{name}");
    }
    assert!(Start::new(&["--network="]).server().unwrap_err().contains("needs a value"));
    assert!(Start::new(&[]).file(&format!("network = '{}'", "x".repeat(65))).server().is_err());
    assert!(Start::new(&["-q", "-v"]).server().unwrap_err().contains("exclude each other"));
    let many = format!("peer = [{}]", "'a',".repeat(STATIC_PEERS_MAX + 1));
    assert!(Start::new(&[]).file(&many).server().unwrap_err().contains("more than 256"));
}

#[test]
fn a_variable_set_to_nothing_is_not_set() {
    let start = Start::new(&[]).variable("GPB_PORT", "").variable("GPB_PEER", "").file("port = 7");
    let options = start.server().unwrap();
    assert_eq!((options.port, options.peers.len()), (7, 0));
}

#[test]
fn verbosity_is_one_setting() {
    let level = |start: Start| start.server().unwrap().report.log.verbosity;
    assert_eq!(level(Start::new(&["-v"]).variable("GPB_QUIET", "1")), Verbosity::Verbose);
    assert_eq!(level(Start::new(&[]).variable("GPB_QUIET", "1").file("verbose = true")), Verbosity::Quiet);
    assert_eq!(level(Start::new(&[]).variable("GPB_VERBOSE", "0").file("verbose = true")), Verbosity::Info);
}

#[test]
fn commands_and_what_belongs_to_them() {
    let said = |args: &[&str]| Start::new(args).client().unwrap_err();
    assert!(said(&[]).starts_with("which command? peers, list, get, sync, verify, doctor"));
    assert!(said(&["gt", "x"]).contains("unknown command `gt`; the nearest is get"));
    assert!(said(&["get"]).starts_with("get what?"));
    assert!(said(&["peers", "x"]).contains("takes no argument `x`"));
    assert!(said(&["doctor", "x"]).contains("takes no argument"));
    assert_eq!(said(&["peers", "--seed", "1"]), "--seed belongs to `gpb-client get`");
    assert_eq!(
        said(&["get", "x", "--wait=1"]),
        "--wait belongs to `gpb-client peers` and `gpb-client list` and `gpb-client verify`"
    );
    assert!(Start::new(&["get", "a["]).client().is_ok(), "a name");
    assert!(said(&["get", &"{a,".repeat(250)]).contains("pattern is too complex"));
    assert!(said(&["list", ""]).contains("empty"));
    assert!(Start::new(&["x"]).server().unwrap_err().contains("takes no argument"));
    let get = Start::new(&["get", "a", "--", "--b"]).client().unwrap().command;
    let patterns = vec!["a".into(), "--b".into()];
    let (select, overwrite) = (SelectOptions::default(), Overwrite::Refuse);
    let (life, out, seed, dry_run) = (Life::Kept, None, None, false);
    let expected =
        Command::Get { patterns, select, overwrite, dry_run, life, out, share: true, attributes: true, seed };
    assert_eq!(get, expected);
    assert_eq!(Start::new(&["doctor"]).client().unwrap().command, Command::Doctor);
}

/// Cause: `-` was a name as any other. Effect: a file `-` in place of what went into the pipe. Mend: an error that says how.
#[test]
fn standard_output_is_no_place_for_a_download() {
    let out = |place: &str| Start::new(&["get", "a", "--out", place]).client();
    let error = out("-").unwrap_err();
    assert!(error.contains("standard output") && error.contains("`./-`"), "{error}");
    assert!(out("./-").is_ok());
}

#[test]
fn keygen_takes_a_place_from_out_or_key_or_state() {
    let task = |args: &[&str]| Start::new(args).keygen().map(|o| o.task);
    let make = |out: &str, force| Ok(KeygenTask::Make { out: out.into(), force });
    assert_eq!(task(&["--out", "/o", "--key", "/k", "--force"]), make("/o", true));
    assert_eq!(task(&["--key", "/k"]), make("/k", false));
    assert_eq!(task(&["--state", "/s"]), make("/s/key.pem", false));
    assert_eq!(task(&["--show", "/k"]), Ok(KeygenTask::Show { file: "/k".into() }));
    assert!(task(&["--show", "/k", "--out", "/o"]).is_err() && task(&["--show", "/k", "--force"]).is_err());
}

/// The client's `out` is where downloads go: no key must land there.
#[test]
fn keygen_heeds_no_out_but_its_own_flag() {
    let start = Start::new(&["--key", "/k"]).variable("GPB_OUT", "/downloads").file("out = '/d'");
    assert_eq!(start.keygen().unwrap().task, KeygenTask::Make { out: "/k".into(), force: false });
}

#[test]
fn what_is_meant_and_what_is_replaced() {
    let get = |args: &[&str]| match Start::new(args).client().unwrap().command {
        Command::Get { select, overwrite, .. } => (select, overwrite),
        other => panic!("{other:?}"),
    };
    let key = crate::identity::PeerId([7; 32]).to_string();
    let (select, overwrite) = get(&["get", "**", "--exclude", "*.o", "--exclude", "tmp", "--hidden", "--from", &key]);
    assert_eq!((select.exclude.len(), select.hidden, overwrite), (2, true, Overwrite::Refuse));
    assert_eq!(select.from.map(|f| f.to_string()), Some(key));
    assert_eq!(get(&["get", "x", "--force"]).1, Overwrite::Replace);
    assert_eq!(get(&["get", "x", "--backup"]).1, Overwrite::Backup);
    assert_eq!(get(&["get", "x", "--backup", "--force"]).1, Overwrite::Backup);
}
