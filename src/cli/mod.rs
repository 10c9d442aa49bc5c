//! What the three programs share: reading their command line, logging, telling results and ending. Feature `cli`;
//! Tier 8.
//!
//! A program is a call of [`keygen`], [`server`] or [`client`] with what it does; these read arguments, variables and
//! the configuration file, answer `--help`, set up the log, and turn a [`Failure`] into a line and an exit code.

mod advice;
mod args;
mod exit;
mod help;
pub mod limits;
mod log;
mod node;
mod output;
mod progress;
mod report;
mod resolve;
mod signal;
mod sources;
mod spec;
mod text;
mod value;

use std::io::{self, Write};
use std::process::ExitCode;

use args::Typed;

pub use exit::{Exit, Failure};
pub use output::Output;
pub use progress::ProgressDisplay;
pub use report::{LogOptions, ReportOptions, Screen, Verbosity};
pub use resolve::{ClientOptions, Command, KeygenOptions, KeygenTask, Options};
pub use signal::StopSignals;
pub use sources::Environment;
pub use spec::Program;

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

/// What `gpb-keygen` means when it is started so; none if a text about it is asked for.
///
/// # Errors
/// [`Exit::Usage`] with one line.
pub fn resolve_keygen(env: &Environment) -> Result<Option<KeygenOptions>, Failure> {
    resolved(Program::Keygen, env, resolve::keygen)
}

/// What `gpb-server` means when it is started so; none if a text about it is asked for.
///
/// # Errors
/// [`Exit::Usage`] with one line.
pub fn resolve_server(env: &Environment) -> Result<Option<Options>, Failure> {
    resolved(Program::Server, env, resolve::server)
}

/// What `gpb-client` means when it is started so; none if a text about it is asked for.
///
/// # Errors
/// [`Exit::Usage`] with one line.
pub fn resolve_client(env: &Environment) -> Result<Option<ClientOptions>, Failure> {
    resolved(Program::Client, env, resolve::client)
}

/// What a program was asked for.
enum Asked<O> {
    /// A text about the program.
    Text(String),
    /// To do its work.
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
            report.log.install(&screen).map_err(|e| Failure::new(Exit::Usage, e))?;
            body(options, &screen)
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

/// How an error is told that comes before the options are known.
fn wants_json(env: &Environment) -> bool {
    let variable = || env.variable("GPB_JSON").and_then(|v| v.to_str()).and_then(|v| value::switch(v).ok());
    args::wants_json(&env.args) || variable().unwrap_or(false)
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
