//! The binary: arguments to exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    posthouse::app::main().into()
}
