//! What the agent learns of the managers, kept for the next start and told to whoever asks on a worker.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::control_gate::ControlGate;
use super::member::MemberFile;

/// Writes each change of `managers` into the member's file until the agent ends, and tells those who ask a node that is
/// no manager itself.
pub async fn keep(mut managers: watch::Receiver<Vec<String>>, data_dir: PathBuf, gate: Arc<ControlGate>) {
    while managers.changed().await.is_ok() {
        let now = managers.borrow_and_update().clone();
        gate.point_to(now.clone());
        if let Err(error) = MemberFile::update(&data_dir, |file| file.managers = now) {
            tracing::warn!(error = format!("{error:#}"), "the known managers were not written to disk");
        }
    }
}
