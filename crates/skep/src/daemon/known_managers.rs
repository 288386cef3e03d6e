//! What the agent learns of the managers, kept for the next start and told to whoever asks on a worker.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::watch;

use super::control_gate::ControlGate;
use super::member::MemberFile;

/// Writes each change of `managers` into the member's file until the agent ends. `pointing` is the gate of a node that
/// is not a manager itself.
pub async fn keep(mut managers: watch::Receiver<Vec<String>>, data_dir: PathBuf, pointing: Option<Arc<ControlGate>>) {
    while managers.changed().await.is_ok() {
        let now = managers.borrow_and_update().clone();
        if let Some(gate) = &pointing {
            gate.point_to(now.clone());
        }
        if let Err(error) = write(&data_dir, now) {
            tracing::warn!(error = format!("{error:#}"), "the known managers were not written to disk");
        }
    }
}

fn write(data_dir: &Path, managers: Vec<String>) -> Result<()> {
    match MemberFile::load(data_dir)? {
        Some(file) if file.managers != managers => MemberFile { managers, ..file }.store(data_dir),
        Some(_) | None => Ok(()),
    }
}
