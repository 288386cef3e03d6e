//! The keeper's executable: static, embedded in `skep`, started from a sealed memfd. See `skep_runtime::keeper`.

use std::process::ExitCode;

fn main() -> ExitCode {
    skep_runtime::keeper::main(std::env::args().skip(1).collect())
}
