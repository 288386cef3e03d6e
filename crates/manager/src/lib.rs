//! Control API, dispatcher, CA, and the leader loop that turns decisions into proposals.
//!
//! ```text
//!  command line ─▶ control ─▶ admission, deploy ─▶ store ─▶ leader loop ─▶ store ─▶ dispatcher ─▶ agents
//!                                                    ▲                                │
//!                                                    └── liveness, reports ◀──────────┘
//! ```
//! A manager holds no state of the cluster outside the store, but for who is connected to it.

pub mod admission;
mod admission_cluster;
mod admission_network;
mod admission_node;
mod admission_order;
mod allowance;
mod assignments;
mod ca;
mod clock;
mod control;
pub mod deploy;
mod description;
mod dispatcher;
pub mod events;
mod fanout;
mod fellows;
pub mod judgement;
pub mod leader;
mod leases;
pub mod levels;
mod liveness;
mod peers;
mod presence;
mod reach;
pub mod rebirth;
mod refusal;
mod reports;
mod resolve;
mod role_news;
pub mod rollback;
pub mod roster;
mod roster_service;
mod rotation;
mod sessions;
mod settling;
pub mod standing;
pub mod trust;
mod tunnels;

use std::sync::Arc;

use skep_api::Server;
use skep_identity::Tls;
use skep_model::IdSource;
use skep_store::Store;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use admission_node::even_number;
pub use assignments::{AssignmentSet, assignments_for, delta};
pub use clock::wall_clock;
pub use reports::must_be_written;
pub use resolve::{ImageResolver, ResolvedImage};

use allowance::Allowance;
pub use ca::CaService;
pub use control::ControlService;
use dispatcher::DispatcherService;
use events::EventLog;
use fanout::Fanout;
use fellows::Fellows;
use leases::LeaseAuthority;
use reach::Reach;
use reports::Reports;
use roster_service::RosterService;

use sessions::Sessions;
use settling::Settling;

/// A running manager: its loops, and the services that it answers with.
pub struct Manager<R> {
    control: Arc<ControlService<R>>,
    dispatcher: Arc<DispatcherService>,
    ca: Arc<CaService>,
    roster: Arc<RosterService>,
    loops: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl<R: ImageResolver> Manager<R> {
    /// Starts the loops over an open store. `seed` must be random.
    pub fn start(store: Store, tls: &Tls, resolver: R, seed: u128) -> Self {
        let clock = Arc::clone(tls.clock());
        let mut seeds = IdSource::from_seed(seed);
        let mut ids = || IdSource::from_seed(seeds.next_id::<()>().as_u128());
        let stop = CancellationToken::new();
        let sessions = Arc::new(Sessions::default());
        let fellows = Arc::new(Fellows::new(store.clone(), tls.clone()));
        let reach = Arc::new(Reach { sessions: Arc::clone(&sessions), fellows: Arc::clone(&fellows) });
        let (reports, queue) = Reports::new(Arc::clone(&sessions), store.clone());
        let (tunnels, said) = mpsc::unbounded_channel();
        let authority = LeaseAuthority::new(store.clone());
        let fanout = Arc::new(Fanout::new(&store));
        let events = Arc::new(EventLog::new());
        let loops = vec![
            tokio::spawn(Arc::clone(&authority).run(stop.clone())),
            tokio::spawn(leases::fence(store.clone(), stop.clone())),
            tokio::spawn(fanout::run(store.clone(), Arc::clone(&fanout), stop.clone())),
            tokio::spawn(leader::run(store.clone(), ids(), stop.clone())),
            tokio::spawn(roster::keep(store.clone(), stop.clone())),
            tokio::spawn(presence::tell(store.clone(), Arc::clone(&sessions), Arc::clone(&fellows), stop.clone())),
            tokio::spawn(liveness::watch(store.clone(), Arc::clone(&sessions), stop.clone())),
            tokio::spawn(rotation::watch(store.clone(), Arc::clone(&clock), stop.clone())),
            tokio::spawn(reports::write(store.clone(), Arc::clone(&sessions), queue, stop.clone())),
            tokio::spawn(events::watch(store.clone(), Arc::clone(&events), stop.clone())),
            tokio::spawn(tunnels::write(store.clone(), said, stop.clone())),
        ];
        let control = ControlService {
            store: store.clone(),
            reach: Arc::clone(&reach),
            resolver,
            ids: Mutex::new(ids()),
            clock: Arc::clone(&clock),
            events,
        };
        let ca = CaService::new(store.clone(), Arc::clone(&clock), ids());
        let settling = Arc::new(Settling::new(store.clone(), Arc::clone(&fanout), fellows));
        let roster = RosterService { store: store.clone(), reach: Arc::clone(&reach), settling: Arc::clone(&settling) };
        let allowance = Allowance::new(dispatcher::SESSIONS);
        let dispatcher = DispatcherService {
            store,
            sessions,
            reach,
            fanout,
            reports,
            tunnels,
            authority,
            clock,
            settling,
            allowance,
        };
        let (control, dispatcher) = (Arc::new(control), Arc::new(dispatcher));
        Self { control, dispatcher, ca: Arc::new(ca), roster: Arc::new(roster), loops, stop }
    }

    /// Adds what nodes ask for to a server on the cluster's port.
    pub fn serve_nodes(&self, server: Server) -> Server {
        let control = Arc::clone(&self.control);
        let server = server.control(control).dispatcher(Arc::clone(&self.dispatcher)).ca(Arc::clone(&self.ca));
        server.roster(Arc::clone(&self.roster)).peer(self.control.store.peer_service())
    }

    /// The control service, for the socket on this machine.
    pub fn control(&self) -> Arc<ControlService<R>> {
        Arc::clone(&self.control)
    }

    /// The own certificates' issuer.
    pub fn ca(&self) -> Arc<CaService> {
        Arc::clone(&self.ca)
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
