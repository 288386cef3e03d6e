//! Disaster: backups of the cluster, a cluster from a backup, and a cluster that goes on without its lost managers.
//!
//! ```text
//!  recover:  stop ─▶ raft.recovered/ written whole ─▶ its member.json (the commit point) ─▶ swap ─▶ start
//!  restore:  raft/ from the backup ─▶ member.json ─▶ certificate (the commit point, as at init) ─▶ start
//! ```
//! A recovery that a crash cut short after its commit point is finished at the next start; before it, nothing happened.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use futures::{StreamExt, stream};
use skep_api::{
    BackupPart, Messages, RecoverRequest, Recovered, Refusal, RefusalKind, RestoreOptions, RestorePart, Restored,
    connect_tls, encode_cluster,
};
use skep_identity::{ClusterCa, Credentials, Expect, JoinToken, write_private};
use skep_manager::rebirth::{self, Survivor};
use skep_manager::wall_clock;
use skep_model::{CertificateRecord, Cluster, IdSource, JoinTokenHashes, Meta, Node, NodeSpec, NodeStatus, Role};
use skep_store::{Place, ReadError, create_from, read_local};

use super::address::default_address;
use super::member::{Member, MemberFile, random_seed, store_config};
use super::membership::{Membership, internal, remove_if_there};

/// Bytes of the cluster in one message.
const PART: usize = 1 << 20;
/// How long the other managers may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a restored cluster's versions are ahead of its backup's: the old cluster went on after the backup, and
/// nothing that somebody saw of it then may be taken for the new cluster's.
const VERSIONS_AHEAD: u64 = 1_000_000;

/// The folder that a recovery is prepared in.
const RECOVERED: &str = "raft.recovered";
/// What the folders with Raft's files of before are called.
const KEPT: &str = "raft-before-recovery-";

impl Membership {
    /// The whole cluster, as the newest that a majority confirms, or as this manager last knew it.
    pub async fn backup(&self) -> Result<Messages<BackupPart>, Refusal> {
        self.refuse_locked()?;
        let store = self.look(|member| member.store().cloned()).await.flatten().ok_or_else(not_a_manager)?;
        let stale = match tokio::time::timeout(PATIENCE, store.linearizable()).await {
            Ok(Ok(_)) => None,
            // Another manager leads, and this one follows it.
            Ok(Err(ReadError::NotLeader { leader: Some(_), .. })) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("too few managers answer".to_owned()),
        };
        let stale = stale.map(|why| {
            BackupPart::Stale(format!(
                "{why}; the backup holds what this manager last knew, and may miss the newest writes"
            ))
        });
        let cluster = Bytes::from(encode_cluster(&store.cluster()));
        let count = cluster.len().div_ceil(PART);
        let parts = (0..count).map(move |at| cluster.slice(at * PART..cluster.len().min((at + 1) * PART)));
        Ok(stream::iter(stale.into_iter().chain(parts.map(BackupPart::Data)).map(Ok)).boxed())
    }

    /// Makes this node the one manager of the cluster in a backup.
    pub async fn restore(&self, mut input: Messages<RestorePart>) -> Result<Restored, Refusal> {
        let invalid = |message: &str| Refusal::new(RefusalKind::Invalid, message);
        let Some(Ok(RestorePart::Start(options))) = input.next().await else {
            return Err(invalid("a restore begins with its options"));
        };
        let mut data = Vec::new();
        while let Some(part) = input.next().await {
            match part? {
                RestorePart::Data(part) => data.extend_from_slice(&part),
                RestorePart::Start(_) => return Err(invalid("a restore has its options only once")),
            }
        }
        let cluster = skep_api::decode_cluster(&data)?;
        let mut member = self.member.lock().await;
        self.refuse_member(member.as_ref())?;
        let (own, version) = (skep_agent::own_level(), env!("CARGO_PKG_VERSION"));
        skep_manager::levels::refuse_older(&cluster, own, version)
            .map_err(|message| Refusal::new(RefusalKind::Unsupported, message))?;
        let (credentials, file, restored) = self.begin_from(&cluster, options).await.map_err(internal)?;
        match self.start(&credentials, file).await {
            Ok(started) => *member = Some(started),
            Err(error) => {
                for folder in ["identity", "raft"] {
                    remove_if_there(&self.config.data_dir.join(folder)).map_err(internal)?;
                }
                return Err(internal(error));
            }
        }
        Ok(restored)
    }

    async fn begin_from(
        &self,
        backup: &Cluster,
        options: RestoreOptions,
    ) -> Result<(Credentials, MemberFile, Restored)> {
        let now = wall_clock();
        let mut cluster = backup.clone();
        let config = cluster.config.as_mut().context("the backup holds no cluster")?;
        let ca = ClusterCa::from_pem(config.id, &config.ca_certificate, &config.ca_key)?;
        // Of the old tokens only hashes are left, which tell nobody how to join.
        let (worker, manager) = (JoinToken::generate(ca.digest())?, JoinToken::generate(ca.digest())?);
        let raft_id = config.next_raft_id;
        let (cluster_id, autolock) = (config.id, config.spec.autolock);
        let validity = config.spec.node_certificate_validity;
        std::sync::Arc::make_mut(config).join_tokens =
            JoinTokenHashes { worker: worker.secret_hash().to_string(), manager: manager.secret_hash().to_string() };
        let node_id = IdSource::from_seed(random_seed()?).next_id();
        let advertise =
            options.advertise_address.or_else(|| self.config.advertise_address.clone()).unwrap_or_else(default_address);
        let address = format!("{advertise}:{}", self.config.listen_address().port());
        let node = Node {
            id: node_id,
            meta: Meta::new(now),
            spec: NodeSpec { role: Role::Manager, ..NodeSpec::default() },
            description: None,
            status: NodeStatus::default(),
            manager: None,
            certificate: CertificateRecord::default(),
            tunnel: None,
        };
        let lost_nodes = cluster.nodes.values().map(|node| rebirth::name_of(node)).collect();
        let survivor = Survivor { node: node_id, raft_id, address: address.clone() };
        let place = Place { index: cluster.version.0 + VERSIONS_AHEAD, term: 1 };
        let cluster =
            rebirth::restored(&cluster, &survivor, node, place.index, now).context("the backup holds no cluster")?;
        let data_dir = &self.config.data_dir;
        // An earlier init or restore may have been cut short; without a certificate it never was.
        remove_if_there(&data_dir.join("raft"))?;
        let store = store_config(&self.config, &self.vault, raft_id, &advertise)?;
        let services = cluster.services.len() as u64;
        tokio::task::spawn_blocking(move || create_from(&store, &cluster, place))
            .await?
            .context("failed to write the cluster")?;
        let identity = self.identity();
        let key = identity.key()?;
        let certificate = ca.issue(&key.request()?, node_id, Role::Manager, now, validity)?;
        let credentials = Credentials::new(key, &certificate, ca.certificate_pem())?;
        let file = MemberFile {
            format: MemberFile::FORMAT,
            managers: vec![address.clone()],
            advertise_address: advertise,
            raft_id: Some(raft_id),
            listen_address: None,
        };
        file.store(data_dir)?;
        identity.store(&credentials)?;
        let restored = Restored {
            node: node_id,
            cluster: cluster_id,
            advertise_address: address,
            worker_token: worker.to_string(),
            manager_token: manager.to_string(),
            lost_nodes,
            services,
            autolock,
        };
        Ok((credentials, file, restored))
    }

    /// Makes a cluster of one out of what this manager has.
    pub async fn recover(&self, request: RecoverRequest) -> Result<Recovered, Refusal> {
        self.refuse_locked()?;
        let mut member = self.member.lock().await;
        let Some(present) = member.as_ref() else { return Err(not_a_manager()) };
        let Some(store) = present.store() else { return Err(not_a_manager()) };
        let lost = rebirth::other_managers(&store.cluster(), present.tls.identity().node_id);
        if !request.force {
            refuse_while_majority(present, &lost).await?;
        }
        let raft = self.config.data_dir.join("raft");
        let lost_managers = lost.iter().map(|node| rebirth::name_of(node)).collect();
        if request.check {
            return Ok(Recovered { kept_in: raft.display().to_string(), lost_managers, unconfirmed: 0 });
        }
        let (file, node) = (present.file.clone(), present.tls.identity().node_id);
        if let Some(running) = member.take() {
            running.stop(&self.gate).await;
        }
        let done = self.begin_again(file, node).await;
        // Whether it went well or not: this node goes on as what its files now say.
        let resumed = self.resume_as(&mut member).await;
        let (kept_in, unconfirmed) = done.map_err(internal)?;
        resumed.map_err(internal)?;
        Ok(Recovered { kept_in: kept_in.display().to_string(), lost_managers, unconfirmed })
    }

    async fn begin_again(&self, file: MemberFile, node: skep_model::NodeId) -> Result<(PathBuf, u64)> {
        let data_dir = self.config.data_dir.clone();
        let raft_id = file.raft_id.context("this node has no Raft id")?;
        let old = store_config(&self.config, &self.vault, raft_id, &file.advertise_address)?;
        let port = self.config.listen_address().port();
        let work = move || {
            let local = read_local(&old).context("failed to read this manager's own state")?;
            let next = local.cluster.config.as_ref().map(|config| config.next_raft_id);
            let raft_id = next.context("this manager's state holds no cluster")?;
            let address = format!("{}:{port}", file.advertise_address);
            let survivor = Survivor { node, raft_id, address };
            // One further: what was decided by the lost managers at this place must not pass for this.
            let place = Place { index: local.place.index + 1, ..local.place };
            let cluster = rebirth::recovered(&local.cluster, &survivor, place.index, wall_clock())
                .context("this manager's state does not hold this node")?;
            let folder = data_dir.join(RECOVERED);
            remove_if_there(&folder)?;
            let new = skep_store::StoreConfig { dir: folder.clone(), raft_id, ..old };
            create_from(&new, &cluster, place).context("failed to write the recovered state")?;
            let file = MemberFile { raft_id: Some(raft_id), managers: vec![survivor.address], ..file };
            write_private(&folder.join("member.json"), &file.to_json())
                .context("failed to write the node's membership")?;
            let kept_in = finish_recovery(&data_dir)?.context("the recovery was finished by somebody else")?;
            Ok((kept_in, local.unconfirmed))
        };
        tokio::task::spawn_blocking(work).await?
    }
}

/// Puts the files of a recovery in their place, if one got as far as that. Returns where the old ones are.
///
/// Each step is skipped when it was done before a crash. Blocking.
pub fn finish_recovery(data_dir: &Path) -> Result<Option<PathBuf>> {
    let (raft, folder) = (data_dir.join("raft"), data_dir.join(RECOVERED));
    let decided = folder.join("member.json");
    if !fs::exists(&decided).with_context(|| format!("failed to look at {}", decided.display()))? {
        return Ok(None);
    }
    let rename = |from: &Path, to: &Path| {
        fs::rename(from, to).with_context(|| format!("failed to rename {} to {}", from.display(), to.display()))
    };
    let kept = data_dir.join(format!("{KEPT}{}", wall_clock().0 / 1_000_000_000));
    if fs::exists(&raft).with_context(|| format!("failed to look at {}", raft.display()))? {
        // For whoever wants to go back: the Raft id is in it.
        let (before, beside) = (data_dir.join("identity/member.json"), raft.join("member.json"));
        fs::copy(&before, &beside).with_context(|| format!("failed to copy {}", before.display()))?;
        rename(&raft, &kept)?;
    }
    let json = fs::read(&decided).with_context(|| format!("failed to read {}", decided.display()))?;
    write_private(&data_dir.join("identity/member.json"), &json).context("failed to write the node's membership")?;
    rename(&folder, &raft)?;
    let leftover = raft.join("member.json");
    fs::remove_file(&leftover).with_context(|| format!("failed to remove {}", leftover.display()))?;
    fs::File::open(data_dir).and_then(|folder| folder.sync_all()).context("failed to sync the data folder")?;
    Ok(Some(kept))
}

/// Folders that recoveries kept.
pub fn kept_folders(data_dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(data_dir).with_context(|| format!("failed to list {}", data_dir.display()))?;
    let mut kept = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("failed to list {}", data_dir.display()))?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(KEPT) || name == RECOVERED {
            kept.push(entry.path());
        }
    }
    Ok(kept)
}

/// Two clusters of one name would be worse than none: refused while enough managers answer to elect a leader.
async fn refuse_while_majority(present: &Member, lost: &[std::sync::Arc<Node>]) -> Result<(), Refusal> {
    let managers = lost.len() + 1;
    if managers == 1 {
        let message =
            "this is the cluster's only manager: there is nobody to go on without; `skep node ls` shows the nodes";
        return Err(Refusal::new(RefusalKind::Conflict, message));
    }
    let asked = lost.iter().map(|node| async move {
        let address = node.manager.as_ref().map(|manager| manager.address.clone())?;
        let connecting = connect_tls(&address, present.tls.connector(Expect::Node(node.id)));
        let answered = matches!(tokio::time::timeout(PATIENCE, connecting).await, Ok(Ok(_)));
        answered.then(|| rebirth::name_of(node))
    });
    let answering: Vec<String> = futures::future::join_all(asked).await.into_iter().flatten().collect();
    if answering.len() < managers / 2 {
        return Ok(());
    }
    let message = format!(
        "{} of {managers} managers answer ({} and this one), which is a majority: the cluster elects a leader by itself, see \
         `skep node ls`. If they never will, stop skep on them and repeat with --force: whatever they still run would be a \
         second cluster",
        answering.len() + 1,
        answering.join(", ")
    );
    Err(Refusal::new(RefusalKind::Conflict, message))
}

fn not_a_manager() -> Refusal {
    Refusal::new(RefusalKind::Conflict, anyhow!("this node is not a manager of a cluster; run this on one").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(with_old: bool) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["identity", RECOVERED] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("identity/member.json"), "old").unwrap();
        fs::write(dir.path().join(RECOVERED).join("state"), "new").unwrap();
        if with_old {
            fs::create_dir(dir.path().join("raft")).unwrap();
            fs::write(dir.path().join("raft/state"), "old").unwrap();
        }
        dir
    }

    #[test]
    fn a_recovery_counts_from_its_commit_point_and_is_finished_after_a_crash() {
        let dir = folders(true);
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        assert!(finish_recovery(dir.path()).unwrap().is_none(), "it was not decided yet");
        assert_eq!(read("raft/state"), "old");
        fs::write(dir.path().join(RECOVERED).join("member.json"), "new").unwrap();
        let kept = finish_recovery(dir.path()).unwrap().unwrap();
        assert_eq!((read("raft/state"), read("identity/member.json")), ("new".into(), "new".into()));
        assert_eq!(fs::read_to_string(kept.join("state")).unwrap(), "old");
        assert_eq!(fs::read_to_string(kept.join("member.json")).unwrap(), "old");
        assert_eq!(kept_folders(dir.path()).unwrap(), [kept]);
        assert!(finish_recovery(dir.path()).unwrap().is_none(), "once");

        // The crash came after the old files were moved away.
        let dir = folders(false);
        fs::write(dir.path().join(RECOVERED).join("member.json"), "new").unwrap();
        finish_recovery(dir.path()).unwrap().unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("raft/state")).unwrap(), "new");
        assert!(!dir.path().join("raft/member.json").exists());
    }
}
