//! The part that the three programs share: command line, log, results, exit codes. Feature `cli`;
//! tier 8.
//!
//! A program calls [`keygen`], [`server`] or [`client`] with a body. Each of these reads arguments,
//! variables and the configuration file, answers `--help`, sets up the log, runs the body, and
//! turns its [`Failure`] into a line and an exit code.

mod advice;
mod args;
mod companions;
mod exit;
mod help;
pub mod limits;
mod log;
mod log_file;
mod mirror;
mod node;
mod output;
mod panics;
mod progress;
mod report;
mod resolve;
mod select;
mod signal;
mod sources;
mod spec;
mod sync_options;
mod text;
mod text_file;
mod value;
mod verify_options;

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use args::Typed;

pub use advice::LeftOut;
pub use exit::{Exit, Failure};
pub use mirror::MirrorOptions;
pub use output::{Output, PlanTotals, count};
pub use progress::ProgressDisplay;
pub use report::{LogOptions, ReportOptions, Screen, Verbosity};
pub use resolve::{ClientOptions, Command, KeygenOptions, KeygenTask, Options};
pub use select::{SelectOptions, unknown_root};
pub use signal::StopSignals;
pub use sources::Environment;
pub use spec::Program;
pub use sync_options::SyncOptions;
pub use verify_options::VerifyOptions;

/// Runs `gpb-keygen`.
pub fn keygen(body: impl FnOnce(KeygenOptions, &Screen) -> Result<(), Failure>) -> ExitCode {
    run(Program::Keygen, resolve::keygen, |o| &o.report, body)
}

/// Runs `gpb-server`.
pub fn server(body: impl FnOnce(Options, &Screen) -> Result<(), Failure>) -> ExitCode {
    run(Program::Server, resolve::server, |o| &o.report, body)
}

/// Runs `gpb-client`.
pub fn client(body: impl FnOnce(ClientOptions, &Screen) -> Result<(), Failure>) -> ExitCode {
    run(Program::Client, resolve::client, |o| &o.node.report, body)
}

/// The options that `gpb-keygen` gets in this environment; none for `--help` and `--version`.
///
/// # Errors
/// [`Exit::Usage`] with one line.
pub fn resolve_keygen(env: &Environment) -> Result<Option<KeygenOptions>, Failure> {
    resolved(Program::Keygen, env, resolve::keygen)
}

/// The options that `gpb-server` gets in this environment; none for `--help` and `--version`.
///
/// # Errors
/// [`Exit::Usage`] with one line.
pub fn resolve_server(env: &Environment) -> Result<Option<Options>, Failure> {
    resolved(Program::Server, env, resolve::server)
}

/// The options that `gpb-client` gets in this environment; none for `--help` and `--version`.
///
/// # Errors
/// [`Exit::Usage`] with one line.
pub fn resolve_client(env: &Environment) -> Result<Option<ClientOptions>, Failure> {
    resolved(Program::Client, env, resolve::client)
}

/// What a command line asks a program for.
enum Asked<O> {
    /// A text about the program.
    Text(String),
    /// Its work, with these options.
    Work(O),
}

type Resolve<O> = fn(&Typed, &Environment) -> Result<O, String>;

fn run<O>(
    program: Program,
    resolve: Resolve<O>,
    report: impl FnOnce(&O) -> &ReportOptions,
    body: impl FnOnce(O, &Screen) -> Result<(), Failure>,
) -> ExitCode {
    let env = Environment::of_process();
    let mut json = wants_json(&env);
    let result = ask(program, &env, resolve).and_then(|asked| match asked {
        Asked::Text(text) => print(&text).map_err(|e| Failure::from_stdout(&e)),
        Asked::Work(options) => {
            let screen = Screen::new();
            let report = report(&options);
            json = report.json;
            signal::catch_file_size_limit().map_err(|e| Failure::new(Exit::Other, e.to_string()))?;
            report.log.install(&screen).map_err(|e| Failure::new(Exit::Usage, e))?;
            panics::log_panics();
            let ended = catch_unwind(AssertUnwindSafe(|| body(options, &screen)));
            ended.unwrap_or_else(|_| Err(Failure::new(Exit::Other, DEFECT)))
        }
    });
    let exit = match result {
        Ok(()) => Exit::Done,
        Err(failure) => failure.print(json, &mut io::stdout(), &mut io::stderr()),
    };
    ::log::logger().flush();
    exit.into()
}

fn ask<O>(program: Program, env: &Environment, resolve: Resolve<O>) -> Result<Asked<O>, Failure> {
    let usage = |e: String| Failure::new(Exit::Usage, e);
    let typed = Typed::parse(program, &env.args).map_err(usage)?;
    if typed.has("help") {
        let command = typed.free.first().map(|c| c.to_string_lossy());
        return Ok(Asked::Text(help::help(program, command.as_deref())));
    }
    if typed.has("version") {
        return Ok(Asked::Text(help::version(program)));
    }
    resolve(&typed, env).map(Asked::Work).map_err(usage)
}

fn resolved<O>(program: Program, env: &Environment, resolve: Resolve<O>) -> Result<Option<O>, Failure> {
    Ok(match ask(program, env, resolve)? {
        Asked::Text(_) => None,
        Asked::Work(options) => Some(options),
    })
}

/// Whether an error that comes before the options are known is printed as JSON.
fn wants_json(env: &Environment) -> bool {
    let variable = || env.variable("GPB_JSON").and_then(|v| v.to_str()).and_then(|v| value::switch(v).ok());
    args::wants_json(&env.args) || variable().unwrap_or(false)
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What is said when the body of a program panics.
const DEFECT: &str = "a defect of gpb ended the program; please report it with the line `defect` of the log";
