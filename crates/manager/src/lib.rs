//! Control API, dispatcher, CA, and the leader loop that turns decisions into proposals.
//!
//! ```text
//!  command line ─▶ control ─▶ admission, deploy ─▶ store ─▶ leader loop ─▶ store ─▶ dispatcher ─▶ agents
//!                                                    ▲                                │
//!                                                    └── liveness, reports ◀──────────┘
//! ```
//! A manager holds no state of the cluster outside the store, but for who is connected to it.

pub mod admission;
mod assignments;
mod ca;
mod clock;
mod control;
pub mod deploy;
mod dispatcher;
mod fanout;
pub mod leader;
mod liveness;
mod refusal;
mod reports;
mod resolve;
mod sessions;

use std::sync::Arc;

use skep_api::Server;
use skep_identity::NodeClock;
use skep_model::IdSource;
use skep_store::Store;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use assignments::{AssignmentSet, assignments_for, delta};
pub use clock::wall_clock;
pub use resolve::{ImageResolver, ResolvedImage};

use ca::CaService;
pub use control::ControlService;
use dispatcher::DispatcherService;
use fanout::Fanout;
use reports::Reports;
use sessions::Sessions;

/// A running manager: its loops, and the services that it answers with.
pub struct Manager<R> {
    control: Arc<ControlService<R>>,
    dispatcher: Arc<DispatcherService>,
    ca: Arc<CaService>,
    loops: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl<R: ImageResolver> Manager<R> {
    /// Starts the loops over an open store. `seed` must be random.
    pub fn start(store: Store, clock: Arc<NodeClock>, resolver: R, seed: u128) -> Self {
        let mut seeds = IdSource::from_seed(seed);
        let mut ids = || IdSource::from_seed(seeds.next_id::<()>().as_u128());
        let stop = CancellationToken::new();
        let sessions = Arc::new(Sessions::default());
        let (reports, queue) = Reports::new(Arc::clone(&sessions));
        let fanout = Arc::new(Fanout::new(&store));
        let loops = vec![
            tokio::spawn(fanout::run(store.clone(), Arc::clone(&fanout), stop.clone())),
            tokio::spawn(leader::run(store.clone(), ids(), stop.clone())),
            tokio::spawn(liveness::watch(store.clone(), Arc::clone(&sessions), stop.clone())),
            tokio::spawn(reports::write(store.clone(), Arc::clone(&sessions), queue, stop.clone())),
        ];
        let control =
            ControlService { store: store.clone(), sessions: Arc::clone(&sessions), resolver, ids: Mutex::new(ids()) };
        let ca = CaService { store: store.clone(), clock, ids: Mutex::new(ids()) };
        let dispatcher = DispatcherService { store, sessions, fanout, reports };
        Self { control: Arc::new(control), dispatcher: Arc::new(dispatcher), ca: Arc::new(ca), loops, stop }
    }

    /// Adds what nodes ask for to a server on the cluster's port.
    pub fn serve_nodes(&self, server: Server) -> Server {
        let control = Arc::clone(&self.control);
        server.control(control).dispatcher(Arc::clone(&self.dispatcher)).ca(Arc::clone(&self.ca))
    }

    /// The control service, for the socket on this machine.
    pub fn control(&self) -> Arc<ControlService<R>> {
        Arc::clone(&self.control)
    }

    /// Stops the loops; the store is its owner's to shut down.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.loops {
            // A loop that panicked has said so; the others are still to be waited for.
            let _ = task.await;
        }
    }
}
