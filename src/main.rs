//! The callscope binary: reads the command line, runs one command, chooses how the process ends.

use std::io::Write;
use std::process::ExitCode;

use callscope::cli::Cli;
use clap::Parser;

/// Events are short-lived texts by the dozen: with it, folding costs a tenth less than with the system's. It asks for no huge
/// pages (`no_thp`): what the kernel zeroes of them and nobody fills costs another tenth, and memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match callscope::command::run(cli, std::env::vars()) {
        Ok(code) => code.into(),
        Err(failure) => {
            if failure.code != callscope::cli::ExitCode::Ok {
                let told = callscope::logging::chain(&failure.error);
                let _gone = writeln!(std::io::stderr(), "callscope: {told}");
            }
            failure.code.into()
        }
    }
}
