//! The `tidegate` command.

use std::process::ExitCode;
use tidegate::process::allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    tidegate::cli::main(tidegate::generation::Server::default)
}
