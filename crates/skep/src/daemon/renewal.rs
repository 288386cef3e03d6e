//! Keeping a member's certificate and its knowledge of the CAs fresh, by itself.
//!
//! ```text
//!  its time (50–80 % of its life) ┐
//!  refused as lapsed, new role    ├─▶ renew: at another manager, else from the own replica ─▶ disk ─▶ Tls::replace
//!  a manager says: the CA changed ┘
//! ```
//! A manager asks the others first: its own replica may have missed a rotation, and what it signs then is good for
//! renewal only. When nobody answers it signs for itself, so that managers whose certificates have all expired while
//! they were off find each other again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use skep_agent::{ManagersWord, chain};
use skep_api::{CaClient, IssuedCertificate, RenewRequest, connect_tls};
use skep_identity::{Credentials, Expect, IdentityDir, NodeKey, Tls};
use skep_manager::CaService;
use skep_model::Role;
use skep_store::{Leadership, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::node_clock::ClockKeeper;

/// The longest sleep: a clock that was set meanwhile is noticed.
const NAP_MAX: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Connecting has its own, shorter limit.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// What signs this node's certificates beside other managers.
pub struct OwnCa {
    pub ca: Arc<CaService>,
    pub store: Store,
}

pub struct RenewalSetup {
    pub identity: IdentityDir,
    pub tls: Tls,
    /// `host:port` of the managers that the node knows from its start.
    pub managers: Vec<String>,
    /// On managers.
    pub own: Option<OwnCa>,
    pub word: watch::Receiver<ManagersWord>,
    /// Random, in 0..=1: where in its life a certificate is renewed.
    pub spread: f64,
}

/// The running loop; stop it before what it signs with.
pub struct Renewal {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Renewal {
    /// `credentials`: what the node starts with. Its key may be locked on disk.
    pub fn start(setup: RenewalSetup, credentials: Credentials) -> Self {
        let stop = CancellationToken::new();
        let clock = ClockKeeper::new(setup.identity.clone(), setup.tls.clock().clone());
        let keeping = Keeping { setup, credentials, clock, pause: RETRY, times_heard: 0, earliest: None };
        Self { task: tokio::spawn(keeping.run(stop.clone())), stop }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        // If it panicked it has said so.
        let _ = self.task.await;
    }
}

struct Keeping {
    setup: RenewalSetup,
    credentials: Credentials,
    clock: ClockKeeper,
    pause: Duration,
    times_heard: u64,
    /// What was just issued is not due, whatever a wrong clock says.
    earliest: Option<Instant>,
}

enum Event {
    Nap,
    Asked,
    Word,
    Stop,
}

impl Keeping {
    async fn run(mut self, stop: CancellationToken) {
        let mut wanted = false;
        loop {
            self.clock.tick();
            let due = self.until_due().is_zero();
            if wanted || due || self.stranded() {
                let renewed = tokio::select! {
                    renewed = self.renew(wanted || due) => renewed,
                    () = stop.cancelled() => Ok(()),
                };
                wanted = self.note(renewed, wanted);
            }
            let trying = wanted || self.until_due().is_zero() || self.stranded();
            let nap = if trying { self.pause } else { self.until_due().min(NAP_MAX) };
            let event = tokio::select! {
                () = tokio::time::sleep(nap) => Event::Nap,
                () = self.setup.tls.renewal_asked() => Event::Asked,
                changed = self.setup.word.changed() => if changed.is_ok() { Event::Word } else { Event::Stop },
                () = stop.cancelled() => Event::Stop,
            };
            match event {
                Event::Nap => {}
                Event::Asked => wanted = true,
                Event::Word => wanted |= self.take_word(),
                Event::Stop => {
                    self.clock.stop();
                    return;
                }
            }
        }
    }

    /// Whether renewal is still wanted; and longer pauses as long as it fails.
    fn note(&mut self, renewed: Result<()>, wanted: bool) -> bool {
        match renewed {
            Ok(()) => {
                self.pause = RETRY;
                // Without a leader the next look at the others can wait.
                if self.stranded() {
                    self.pause = Duration::from_secs(60);
                }
                false
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), retry_in = ?self.pause, "the certificate is not renewed yet");
                self.pause = (self.pause * 2).min(RETRY_MAX);
                wanted
            }
        }
    }

    fn until_due(&self) -> Duration {
        let (due, now) = (self.credentials.renew_at(self.setup.spread), self.setup.tls.clock().now());
        let early = self.earliest.map(|earliest| earliest.saturating_duration_since(Instant::now()));
        Duration::from_nanos(due.0.saturating_sub(now.0)).max(early.unwrap_or_default())
    }

    /// A manager that finds no leader may have missed a rotation: the others would tell it so only here.
    fn stranded(&self) -> bool {
        let Some(own) = &self.setup.own else { return false };
        let leaderless = matches!(*own.store.leadership().borrow(), Leadership::Follower { leader: None });
        leaderless && !self.others().is_empty()
    }

    /// Managers beside this node, as far as it knows.
    fn others(&self) -> Vec<String> {
        let Some(own) = &self.setup.own else { return self.setup.managers.clone() };
        let (cluster, raft_id) = (own.store.cluster(), own.store.raft_id());
        let managers = cluster.nodes.values().filter_map(|node| node.manager.as_ref());
        managers.filter(|manager| manager.raft_id != raft_id).map(|manager| manager.address.clone()).collect()
    }

    async fn renew(&mut self, wanted: bool) -> Result<()> {
        let csr = self.credentials.key().request().context("failed to write the request")?;
        let mut problems = Vec::new();
        let mut issued = None;
        for manager in self.others() {
            match self.ask(&manager, &csr).await {
                Ok(certificate) => {
                    issued = Some(certificate);
                    break;
                }
                Err(problem) => problems.push(format!("{manager}: {problem:#}")),
            }
        }
        if let (None, Some(own), true) = (&issued, &self.setup.own, wanted) {
            match own.ca.renew_own(self.credentials.identity(), &csr).await {
                Ok(certificate) => issued = Some(certificate),
                Err(refusal) => problems.push(format!("this manager itself: {refusal}")),
            }
        }
        match issued {
            Some(issued) => self.adopt(&issued, wanted),
            None if wanted => bail!("{}", problems.join("; ")),
            None => Ok(()),
        }
    }

    async fn ask(&self, manager: &str, csr: &[u8]) -> Result<IssuedCertificate> {
        let asked = async {
            let connector = self.setup.tls.connector(Expect::Role(Role::Manager));
            let connection = connect_tls(manager, connector).await.map_err(|error| anyhow!(chain(&error)))?;
            let request = RenewRequest { csr: Bytes::copy_from_slice(csr) };
            CaClient::new(connection).renew(request).await.map_err(|refusal| anyhow!(refusal.message))
        };
        tokio::time::timeout(ANSWER_WAIT, asked).await.context("no answer")?
    }

    /// Makes what was issued this node's certificate. Without need for it, only for the news of the CAs in it.
    fn adopt(&mut self, issued: &IssuedCertificate, wanted: bool) -> Result<()> {
        if !wanted && self.credentials.has_authorities(&issued.authorities)? {
            return Ok(());
        }
        let key = NodeKey::from_pem(&self.credentials.key().to_pem())?;
        let credentials = Credentials::new(key, &issued.certificate, &issued.authorities)?;
        let (role, certificate) = (credentials.identity().role, *credentials.certificate());
        self.put(credentials)?;
        let life = Duration::from_nanos(certificate.not_after.0.saturating_sub(certificate.not_before.0));
        self.earliest = Instant::now().checked_add(life / 4);
        tracing::info!(node.role = ?role, "certificate renewed");
        Ok(())
    }

    fn put(&mut self, credentials: Credentials) -> Result<()> {
        self.setup.identity.store(&credentials).context("failed to store the node's certificate")?;
        self.setup.tls.replace(&credentials).context("failed to use the node's new certificate")?;
        self.credentials = credentials;
        Ok(())
    }

    /// Takes a manager's word on the CAs; whether it asks for renewal.
    fn take_word(&mut self) -> bool {
        let word = self.setup.word.borrow_and_update().clone();
        let Some(update) = word.trust.filter(|_| word.times_told > self.times_heard) else { return false };
        self.times_heard = word.times_told;
        let taken = match self.credentials.has_authorities(&update.authorities) {
            Ok(true) => Ok(()),
            Ok(false) => self.credentials.with_authorities(&update.authorities).map_err(anyhow::Error::from).and_then(
                |credentials| {
                    tracing::info!("the cluster's CAs have changed");
                    self.put(credentials)
                },
            ),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = taken {
            tracing::error!(error = format!("{error:#}"), "what a manager said of the CAs cannot be used");
        }
        update.renew
    }
}
