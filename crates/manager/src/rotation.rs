//! The leader's watch over a rotation of the CA: it ends it when every node that is up has renewed.

use skep_identity::NodeClock;
use skep_store::{Leadership, Store};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::trust;

pub async fn watch(store: Store, clock: Arc<NodeClock>, stop: CancellationToken) {
    let (mut cluster, mut leadership) = (store.watch(), store.leadership());
    loop {
        let picture = cluster.borrow_and_update().clone();
        let leads = matches!(*leadership.borrow_and_update(), Leadership::Leader { .. });
        if let Some(change) = trust::settle(&picture, clock.now()).filter(|_| leads) {
            match store.propose(vec![change]).await {
                Ok(_) => tracing::info!("the rotation of the CA is over: every node that is up has renewed"),
                // The next change of the cluster, or of who leads, is the next try.
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the end of the CA's rotation could not be written"
                ),
            }
        }
        let over = tokio::select! {
            changed = cluster.changed() => changed.is_err(),
            changed = leadership.changed() => changed.is_err(),
            () = stop.cancelled() => true,
        };
        if over {
            return;
        }
    }
}
