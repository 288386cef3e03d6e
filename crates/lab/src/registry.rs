//! A real registry (Debian's `docker-registry`) inside a lab's namespace.
//!
//! Many labs serve one storage folder at once, so it is served read-only; only [`Registry::start_writable`] takes pushes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::holder::Holder;
use crate::process::{ProcessId, StopSignal};
use crate::tools;

const PORT: u16 = 5000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A running registry. It ends with its lab, or with [`Registry::stop`].
#[derive(Debug)]
pub struct Registry {
    process: ProcessId,
    address: Ipv4Addr,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    Writable,
}

impl Registry {
    pub(crate) fn start(holder: &Holder, address: Ipv4Addr, images: &Path, folder: &Path) -> Result<Registry> {
        Registry::launch(holder, address, images, folder, Access::ReadOnly)
    }

    /// As a lab's registry, but taking pushes: for whoever makes the images. `lab` should be used by nobody else.
    pub fn start_writable(lab: &crate::Lab, images: &Path) -> Result<Registry> {
        let holder = lab.outside_holder();
        Registry::launch(holder, Ipv4Addr::LOCALHOST, images, &lab.info().folder, Access::Writable)
    }

    /// `ADDRESS:PORT`, as it begins an image's name.
    pub fn name(&self) -> String {
        format!("{}:{PORT}", self.address)
    }

    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Ends it, for tests of what happens without a registry.
    pub fn stop(self) -> Result<()> {
        self.process.stop(StopSignal::Kill, PATIENCE)?;
        self.process.reap();
        Ok(())
    }

    fn launch(holder: &Holder, address: Ipv4Addr, images: &Path, folder: &Path, access: Access) -> Result<Registry> {
        let program = tools::find_tool("docker-registry")?;
        let config = folder.join("registry.yml");
        let log_file = folder.join("registry.log");
        fs::write(&config, configuration(address, images, access))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let log = fs::File::create(&log_file).with_context(|| format!("cannot create {}", log_file.display()))?;
        let mut command = holder.enter();
        command.arg(program).arg("serve").arg(&config);
        command.stdin(Stdio::null()).stdout(log.try_clone().context("cannot share the log")?).stderr(log);
        let mut child = command.spawn().context("cannot start the registry")?;
        let deadline = Instant::now() + PATIENCE;
        while !holder.in_netns(|| TcpStream::connect(SocketAddr::from((address, PORT))).is_ok())? {
            let ended = child.try_wait().context("cannot wait for the registry")?.is_some();
            if ended || Instant::now() > deadline {
                bail!("the registry does not answer: {}", fs::read_to_string(&log_file).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let pid = i32::try_from(child.id()).context("process number does not fit")?;
        Ok(Registry { process: ProcessId::of(pid).context("the registry ended at once")?, address })
    }
}

fn configuration(address: Ipv4Addr, images: &Path, access: Access) -> String {
    let readonly = access == Access::ReadOnly;
    format!(
        "version: 0.1\n\
         log: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage:\n\
         \x20 filesystem: {{rootdirectory: {}}}\n\
         \x20 maintenance: {{uploadpurging: {{enabled: false}}, readonly: {{enabled: {readonly}}}}}\n\
         http: {{addr: \"{address}:{PORT}\"}}\n",
        images.display()
    )
}
