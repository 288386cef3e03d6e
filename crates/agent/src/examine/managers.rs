//! Whether managers' control ports are reached: a TCP connection each, all at once.

use std::io;
use std::time::Duration;

use futures::future::join_all;
use skep_api::{ManagerProbe, ManagerTarget, Reached};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// A lost SYN is sent again after one second, and after three.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

pub async fn reach(managers: Vec<ManagerTarget>) -> Vec<ManagerProbe> {
    join_all(managers.into_iter().map(connect)).await
}

async fn connect(manager: ManagerTarget) -> ManagerProbe {
    let begun = Instant::now();
    let reached = match timeout(CONNECT_WAIT, TcpStream::connect(&manager.address)).await {
        Ok(Ok(_)) => Reached::Open,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Reached::Refused,
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Reached::Silent,
        Ok(Err(_)) => Reached::NoWay,
        Err(_) => Reached::Silent,
    };
    let connected_in = (reached == Reached::Open).then(|| begun.elapsed());
    ManagerProbe { manager, reached, connected_in }
}
