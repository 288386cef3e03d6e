//! `skep unlock`, which takes its key from standard input.

use std::io::Write;
use std::process::{Output, Stdio};

use skep_lab::Node;

use crate::world::World;

/// `skep unlock` with a key on its standard input.
pub fn unlock(world: &World, node: &Node, key: &str) -> Output {
    let mut command = world.command(node, &["unlock"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("skep runs");
    child.stdin.take().expect("it is piped").write_all(format!("{key}\n").as_bytes()).expect("skep reads the key");
    child.wait_with_output().expect("skep ends")
}

/// What a command wrote to standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
