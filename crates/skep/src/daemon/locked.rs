//! What a manager can do while autolock keeps its keys from it: be unlocked, or leave.

use std::time::Duration;

use anyhow::Result;
use skep_agent::chain;
use skep_api::{LeaveRequest, Left, Refusal, RefusalKind, UnlockRequest};
use skep_identity::{ClusterCa, Credentials, NodeKey, UnlockKey, UnlockKeyError};
use skep_manager::wall_clock;
use skep_model::{IdSource, Role};

use super::autolock::LOCKED;
use super::member::{MemberFile, random_seed};
use super::membership::{Membership, internal};

impl Membership {
    /// Opens the keys of a locked manager, and goes on as that manager.
    pub async fn unlock(&self, request: UnlockRequest) -> Result<(), Refusal> {
        let mut member = self.member.lock().await;
        if !self.vault.is_locked().map_err(internal)? {
            return Err(Refusal::new(RefusalKind::Conflict, "this node is not locked"));
        }
        let invalid = |words: String| Refusal::new(RefusalKind::Invalid, words);
        let key: UnlockKey = request.key.parse().map_err(|error: UnlockKeyError| invalid(chain(&error)))?;
        self.vault.unlock(&key).map_err(|error| invalid(format!("{error:#}")))?;
        let resumed = self.resume_as(&mut member).await;
        if resumed.is_err() {
            // The next try asks for the key again, and says the same.
            self.vault.forget();
            self.gate.lock();
        }
        resumed.map_err(internal)
    }

    pub fn refuse_locked(&self) -> Result<(), Refusal> {
        match self.vault.is_locked().map_err(internal)? {
            true => Err(Refusal::new(RefusalKind::Conflict, LOCKED)),
            false => Ok(()),
        }
    }

    /// A locked manager leaves without its keys: its agent starts as a stranger, and only to clear what runs here.
    pub(super) async fn leave_locked(&self, request: LeaveRequest) -> Result<Left, Refusal> {
        if !request.force {
            let message =
                format!("{LOCKED}; `skep leave --force` leaves without it, and with all that this manager knows");
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        let left = async {
            let ca = ClusterCa::create(IdSource::from_seed(random_seed()?).next_id(), wall_clock())?;
            let key = NodeKey::generate()?;
            let nobody = IdSource::from_seed(random_seed()?).next_id();
            let day = Duration::from_secs(24 * 3600);
            let certificate = ca.issue(&key.request()?, nobody, Role::Worker, wall_clock(), day)?;
            let credentials = Credentials::new(key, &certificate, ca.certificate_pem())?;
            let file = MemberFile {
                format: MemberFile::FORMAT,
                // Nobody listens there while this manager is locked.
                managers: vec![self.config.own_manager()],
                advertise_address: String::new(),
                raft_id: None,
                listen_address: None,
            };
            self.start(&credentials, file).await?.leave(&self.gate).await
        };
        let left = left.await;
        self.gate.close();
        self.erase(request.remove_volumes).await.map_err(internal)?;
        left.map_err(internal)?;
        self.left(Some("this manager was locked".to_owned()))
    }
}
