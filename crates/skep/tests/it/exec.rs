//! `exec` and `logs`: exit codes, streams, users, terminals, and how much of a log is kept.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::world::World;

#[test]
fn exec_passes_on_streams_and_the_exit_code() {
    let world = World::new();
    world.up("s", "services: { a: { <<: *idle, environment: { OWN: 1 } } }");
    let outcome = world.exec("s_a.1", &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (7, "out\n", "err\n"));
    let missing = world.exec("s_a.1", &["no-such-program"]);
    assert_eq!(missing.code, 127, "{missing}");
    assert!(missing.stderr.contains("no-such-program"), "{missing}");
    assert_eq!(world.exec("s_a.1", &["/etc"]).code, 126);
    let options =
        ["exec", "-u", "nobody", "-w", "/tmp", "-e", "MORE=2", "s_a.1", "sh", "-c", "id -u; pwd; echo $OWN$MORE"];
    assert_eq!(world.ok(&options), "65534\n/tmp\n12\n");
    let stranger = world.skep(&["exec", "nobody.1", "true"]);
    assert_eq!(stranger.code, 1, "{stranger}");
    assert!(stranger.stderr.contains("nobody.1"), "{stranger}");
}

#[test]
fn exec_feeds_its_input_and_ends_with_it() {
    let world = World::new();
    world.up("s", "services: { a: { <<: *idle } }");
    let mut command = world.command(world.node(), &["exec", "-i", "s_a.1", "wc", "-c"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&vec![b'x'; 3_000_000]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "3000000");
}

#[test]
fn exec_with_a_terminal_gives_one() {
    let world = World::new();
    world.up("s", "services: { a: { <<: *idle } }");
    let skep = world.node().binary().unwrap();
    let line = format!("{} exec -it s_a.1 sh -c 'tty; stty size; exit 5'", skep.display());
    // `script` gives the command line a terminal, as a user has.
    let mut command = world.node().command("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let open = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(open);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("/dev/pts/0") || said.contains("/dev/console"), "{said}");
    assert_eq!(output.status.code(), Some(5), "{said}");
}

#[test]
fn logs_hold_both_streams_in_order_and_can_be_cut_and_followed() {
    let world = World::new();
    let talk = "echo oops >&2; for i in 1 2 3 4 5; do sleep 0.2; echo line $$i; done; sleep 100000";
    world.up("s", &format!("services: {{ a: {{ <<: *idle, command: [\"sh\", \"-c\", \"{talk}\"] }} }}"));
    let outcome = world.until("all is written", || {
        let outcome = world.skep(&["service", "logs", "--raw", "s_a"]);
        if outcome.stdout.contains("line 5") { Ok(outcome) } else { Err(outcome.to_string()) }
    });
    assert_eq!((outcome.stdout.lines().count(), outcome.stderr.trim()), (5, "oops"), "{outcome}");
    assert_eq!(world.ok(&["logs", "--tail", "2", "s_a.1"]).lines().collect::<Vec<_>>(), ["line 4", "line 5"]);
    let stamped = world.ok(&["service", "logs", "-t", "s_a"]);
    let first = stamped.lines().find(|line| line.contains("line 1")).unwrap();
    assert!(first.starts_with("20") && first.contains("s_a.1.") && first.ends_with("| line 1"), "{first}");

    // Not under a watchdog: what is killed below is the follower itself.
    let mut command = world.node().command(world.node().binary().unwrap());
    command.args(["service", "logs", "-f", "--raw", "--tail", "0", "s_a"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    // Written again and again, for nothing tells when the follower listens.
    let line = world.until("a line is followed", || {
        world.sh("s_a.1", "echo written later > /proc/1/fd/1");
        lines.recv_timeout(Duration::from_millis(200)).map_err(|error| error.to_string())
    });
    assert_eq!(line, "written later");
    drop(lines);
    child.kill().unwrap();
    child.wait().unwrap();
    // It ends with its input, or with nobody who listens.
    let _ = reader.join().unwrap();
}

#[test]
fn a_log_is_capped_at_three_files_of_ten_megabytes() {
    let world = World::new();
    // 60 MB in lines of 100 bytes, then a last word.
    let talk = "yes 123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789 | head -c 45000000; echo the end; sleep 100000";
    world.up("s", &format!("services: {{ a: {{ <<: *idle, command: [\"sh\", \"-c\", \"{talk}\"] }} }}"));
    world.until("all is written", || {
        let tail = world.ok(&["service", "logs", "--raw", "--tail", "1", "s_a"]);
        if tail.contains("the end") { Ok(()) } else { Err(tail) }
    });
    let id = world.running("s_a")[0].id.clone();
    let files: Vec<u64> = fs::read_dir(world.node().data_dir().join("containers").join(id))
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("log"))
        .map(|entry| entry.metadata().unwrap().len())
        .collect();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files.iter().all(|size| *size <= 10_000_000 + 65_536), "{files:?}");
}
