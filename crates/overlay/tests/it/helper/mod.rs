//! The net helper as a process of its own: this test binary, started again.

mod dns;
mod life;
mod names;
mod ports;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use skep_overlay::helper::{Helper, HelperConfig, HelperError};
use skep_overlay::snapshot::{Listener, Outside, Protocol, RESOLVER_PORT, ServeError, Snapshot};
use tokio::runtime::{Builder, Runtime};

use crate::lab::Lab;

/// Makes [`net_helper_process`] be the helper; to the test harness it is one more filter.
const MARK: &str = "run-as-net-helper";

/// Not a test but the helper's main, when it is asked for.
#[test]
fn net_helper_process() {
    if !std::env::args().any(|argument| argument == MARK) {
        return;
    }
    let run_dir = std::env::var_os("SKEP_RUN_DIR").unwrap();
    runtime().block_on(skep_overlay::helper::run(Path::new(&run_dir))).unwrap();
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn config(lab: &Lab) -> HelperConfig {
    config_at(&lab.config.run_dir)
}

pub fn config_at(run_dir: &Path) -> HelperConfig {
    let args = ["--exact", "helper::net_helper_process", "--nocapture", MARK];
    HelperConfig {
        run_dir: run_dir.to_owned(),
        program: std::env::current_exe().unwrap(),
        args: args.map(str::to_owned).to_vec(),
        cgroup_parent: None,
    }
}

/// The daemon's side, as the agent has it. Its end is the helper's too, also when a test fails.
pub struct Daemon {
    runtime: Runtime,
    helper: Option<Helper>,
}

impl Daemon {
    fn start(lab: &Lab) -> Self {
        Self::with(config(lab))
    }

    pub fn with(config: HelperConfig) -> Self {
        let runtime = runtime();
        let helper = runtime.block_on(Helper::start(config)).unwrap();
        Self { runtime, helper: Some(helper) }
    }

    pub fn helper(&self) -> &Helper {
        self.helper.as_ref().unwrap()
    }

    pub fn apply(&self, snapshot: &Snapshot) -> Vec<ServeError> {
        self.runtime.block_on(self.helper().apply(snapshot.clone())).unwrap()
    }

    pub fn serve(&self, snapshot: &Snapshot) {
        assert_eq!(self.apply(snapshot), []);
    }

    pub fn ask<T>(&self, question: impl Future<Output = T>) -> T {
        self.runtime.block_on(question)
    }

    pub fn pid(&self) -> i32 {
        self.helper().pid().unwrap()
    }

    /// Lets the daemon's side run until it has another helper.
    pub fn wait_for_another(&self, than: i32) {
        let changed = async {
            while self.helper().pid().is_none_or(|pid| pid == than) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), changed).await }).unwrap();
    }

    fn stop(mut self) -> Result<(), HelperError> {
        let helper = self.helper.take().unwrap();
        self.runtime.block_on(helper.stop())
    }

    /// As if it had been killed: the helper is not told.
    pub fn crash(mut self) {
        self.helper = None;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(helper) = self.helper.take() {
            // A test that fails already says more than this could.
            let _ = self.runtime.block_on(helper.stop());
        }
    }
}

/// Returns when the process has ended, its sockets closed.
pub fn kill(pid: i32) {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let process = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&process, Signal::KILL).unwrap();
    poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
}

fn nothing() -> Snapshot {
    Snapshot {
        format: skep_overlay::snapshot::FORMAT,
        resolver_port: RESOLVER_PORT,
        upstreams: vec![],
        zones: Default::default(),
        sandboxes: Default::default(),
        listeners: vec![],
        tunnel: None,
    }
}

fn ports(listeners: &[Listener]) -> Snapshot {
    Snapshot { listeners: listeners.to_vec(), ..nothing() }
}

fn listener(protocol: Protocol, port: u16, backends: &[(Ipv4Addr, u16)]) -> Listener {
    Listener {
        protocol,
        bind: None,
        port,
        backends: backends.iter().map(|backend| (*backend).into()).collect(),
        by_client: false,
    }
}

fn forwards(snapshot: &Snapshot, sandbox: &str) -> bool {
    snapshot.sandboxes[sandbox].outside == Outside::Forward
}
