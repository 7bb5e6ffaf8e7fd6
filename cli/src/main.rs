//! `chiptide`: the people's hand. Asks a daemon over its HTTP API and prints what it says; `chiptide up` runs a whole
//! cluster on this machine.
//!
//! Data goes to stdout and talk to stderr. Exit codes: 0 done, 1 error, 2 usage, 3 not found, 4 refused. It never touches
//! the database and decides nothing.

mod args;
mod connect;
mod events;
mod failure;
mod job;
mod job_file;
mod lease;
mod list;
mod logs;
mod output;
mod places;
mod policy;
mod show;
mod span;
mod token;
mod up;
mod wait;

use args::{Args, Command};
use clap::{CommandFactory, Parser};
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    // Fails only if a provider is installed already, and then there is one.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    // The runtime's main future runs on this thread, which lasts as long as the process: `up` forks its children here.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report(),
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(args: Args) -> Result<(), Failure> {
    let out = output::Out::new(args.output);
    match args.command {
        Command::Job(command) => job::run(command, &connect::client(&args.daemon)?, out).await,
        Command::Explain { job } => {
            let told = connect::client(&args.daemon)?.explain_job(job).await?;
            out.print(&told, |told| show::explanation(told, chrono::Utc::now()))
        }
        Command::Queue(args::Queue::List) => {
            let queues = connect::client(&args.daemon)?.queues().await?.items;
            out.print(queues.as_slice(), show::queues)
        }
        Command::Policy(command) => policy::run(command, &connect::client(&args.daemon)?, out).await,
        Command::Lease(command) => lease::run(command, &connect::client(&args.daemon)?, out).await,
        Command::Node(command) => list::node(command, &connect::client(&args.daemon)?, out).await,
        Command::Chip(command) => list::chip(command, &connect::client(&args.daemon)?, out).await,
        Command::Events(asked) => events::print(&asked, &connect::client(&args.daemon)?, out).await,
        Command::Token(command) => token::run(command, &connect::client(&args.daemon)?, out).await,
        Command::Audit(wanted) => token::audit(wanted, &connect::client(&args.daemon)?, out).await,
        Command::Whoami => token::whoami(&connect::client(&args.daemon)?, out).await,
        Command::Up(up) => up::run(&up).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "chiptide", &mut std::io::stdout());
            Ok(())
        }
        Command::Version => output::line(concat!("chiptide ", env!("CARGO_PKG_VERSION"))),
    }
}
