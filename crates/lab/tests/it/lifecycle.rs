//! Starting, finding and ending a node's daemon, with this test executable in the daemon's place: started as `… daemon`, it runs
//! the one test here whose name holds that word.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::{env, fs};

use skep_lab::{Lab, StopSignal};

/// `listen` or `fail`, for the test in the daemon's place.
const PART: &str = "SKEP_LAB_TEST_PART";

#[test]
fn plays_daemon() {
    match env::var(PART).as_deref() {
        Ok("listen") => {
            let socket = PathBuf::from(env::var("SKEP_RUN_DIR").unwrap()).join("skep.sock");
            if socket.exists() {
                fs::remove_file(&socket).unwrap();
            }
            for caller in UnixListener::bind(socket).unwrap().incoming() {
                drop(caller.unwrap());
            }
        }
        Ok("fail") => {
            eprintln!("the cluster is on fire");
            std::process::exit(3);
        }
        // In an ordinary run of the tests there is nothing to play.
        _ => {}
    }
}

#[test]
fn it_is_found_ended_and_started_again() {
    let lab = Lab::builder().binary(env::current_exe().unwrap()).build().unwrap();
    let node = lab.node(1);
    assert_eq!(node.daemon().unwrap(), None);
    for signal in [StopSignal::Kill, StopSignal::Term] {
        let started = node.start_daemon_with(&[], &[(PART, "listen")]).unwrap();
        assert_eq!(node.daemon().unwrap(), Some(started));
        assert!(node.processes().unwrap().contains(&started.pid));
        node.kill_daemon(signal).unwrap();
        assert!(!started.is_alive());
        assert_eq!(node.daemon().unwrap(), None);
    }
    let error = node.kill_daemon(StopSignal::Kill).unwrap_err().to_string();
    assert!(error.contains("skep.sock"), "{error}");
}

#[test]
fn a_paused_one_answers_nobody_until_it_goes_on_and_ends_in_order_all_the_same() {
    let lab = Lab::builder().binary(env::current_exe().unwrap()).build().unwrap();
    let node = lab.node(1);
    assert!(node.pause().unwrap_err().to_string().contains("no daemon"));
    let daemon = node.start_daemon_with(&[], &[(PART, "listen")]).unwrap();
    node.pause().unwrap();
    assert!(daemon.is_paused());
    // The kernel still takes connections for it.
    assert_eq!(node.daemon().unwrap(), Some(daemon));
    node.resume().unwrap();
    assert!(!daemon.is_paused());
    node.pause().unwrap();
    node.kill_daemon(StopSignal::Term).unwrap();
    assert!(!daemon.is_alive());
}

#[test]
fn one_that_fails_shows_its_last_words() {
    let lab = Lab::builder().binary(env::current_exe().unwrap()).build().unwrap();
    let error = lab.node(1).start_daemon_with(&["--nocapture"], &[(PART, "fail")]).unwrap_err().to_string();
    assert!(error.contains("the cluster is on fire"), "{error}");
}
