//! `cluster`: the cluster as a whole, when machines are lost: backup, restore, recover.

use std::env;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use futures::{StreamExt, stream};
use skep_api::{
    BackupPart, BackupRequest, LocalClient, RecoverRequest, RestoreOptions, RestorePart, decode_cluster, encode_cluster,
};
use skep_manager::wall_clock;
use skep_store::{read_backup, write_backup};

use super::Result;
use super::hidden_input;
use super::host::Host;
use super::output::{self, size, time};
use super::start;

const PASSPHRASE: &str = "SKEP_BACKUP_PASSPHRASE";
/// Bytes of a restored cluster in one message.
const PART: usize = 1 << 20;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write everything the cluster knows to one encrypted file
    Backup(BackupOptions),
    /// Make this node the first manager of the cluster in a backup
    Restore(RestoreArguments),
    /// Go on with this manager alone, when most managers are lost for good
    Recover(RecoverOptions),
}

#[derive(Debug, Args)]
pub struct BackupOptions {
    /// The file to write; it must not be there yet
    file: PathBuf,
    #[command(flatten)]
    passphrase: Passphrase,
}

#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// A file that `skep cluster backup` wrote
    file: PathBuf,
    #[command(flatten)]
    passphrase: Passphrase,
    /// The address that other nodes reach this one under; by default the one of the way out
    #[arg(long, value_name = "ADDRESS")]
    advertise_addr: Option<String>,
}

#[derive(Debug, Args)]
pub struct RecoverOptions {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Also while a majority of the managers answers
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
struct Passphrase {
    /// A file whose first line is the passphrase; by default SKEP_BACKUP_PASSPHRASE, or what is typed
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Passphrase {
    fn given(&self) -> Result<Option<String>> {
        if let Some(path) = &self.passphrase_file {
            return hidden_input::from_file(path).map(Some);
        }
        Ok(env::var(PASSPHRASE).ok().filter(|passphrase| !passphrase.is_empty()))
    }

    fn chosen(&self) -> Result<String> {
        if let Some(given) = self.given()? {
            return Ok(given);
        }
        let typed = hidden_input::ask("Passphrase for the backup: ")?;
        if typed.is_empty() {
            bail!(
                "a backup needs a passphrase: it holds every secret of the cluster; type one, set {PASSPHRASE}, or name a --passphrase-file"
            );
        }
        if std::io::stdin().is_terminal() && hidden_input::ask("Once more: ")? != typed {
            bail!("the two passphrases differ; nothing was written");
        }
        Ok(typed)
    }

    fn known(&self) -> Result<String> {
        match self.given()? {
            Some(given) => Ok(given),
            None => hidden_input::ask("Passphrase of the backup: "),
        }
    }
}

pub async fn run(command: Command, host: &Host) -> Result {
    match command {
        Command::Backup(options) => backup(options, host).await,
        Command::Restore(options) => restore(options, host).await,
        Command::Recover(options) => recover(options.yes, options.force, host).await,
    }
}

async fn backup(options: BackupOptions, host: &Host) -> Result {
    let BackupOptions { file, passphrase } = options;
    if std::fs::symlink_metadata(&file).is_ok() {
        bail!("`{}` is there already; give the backup another name", file.display());
    }
    let mut parts = host.local().await?.backup(BackupRequest {}).await?;
    let mut data = Vec::new();
    while let Some(part) = parts.next().await {
        match part? {
            BackupPart::Stale(why) => output::complain(format_args!("warning: {why}")),
            BackupPart::Data(part) => data.extend_from_slice(&part),
        }
    }
    let cluster = decode_cluster(&data).context("the daemon's answer cannot be read")?;
    let passphrase = passphrase.chosen()?;
    let header = write_backup(&file, passphrase.as_bytes(), &cluster, wall_clock())?;
    let bytes = std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
    output::line(format_args!(
        "Cluster {} at version {} is in {} ({}): services, secrets, configs, networks, nodes and the CA.",
        header.cluster,
        header.version.0,
        file.display(),
        size::decimal(bytes)
    ))?;
    output::line("Volumes are not in it. Without its passphrase nobody can read it, you neither.")?;
    Ok(())
}

async fn restore(options: RestoreArguments, host: &Host) -> Result {
    let RestoreArguments { file, passphrase, advertise_addr } = options;
    // Before a daemon is started for nothing.
    let cluster = open(&file, &passphrase)?;
    let (connection, started) = start::connect_or_start(host, "cluster restore").await?;
    let data = Bytes::from(encode_cluster(&cluster));
    let count = data.len().div_ceil(PART);
    let parts = (0..count).map(move |at| RestorePart::Data(data.slice(at * PART..data.len().min((at + 1) * PART))));
    let start = RestorePart::Start(RestoreOptions { advertise_address: advertise_addr });
    let restored = match LocalClient::new(connection).restore(stream::iter(std::iter::once(start).chain(parts))).await {
        Ok(restored) => restored,
        Err(refusal) => {
            if let Some(started) = started
                && let Err(error) = started.undo(host)
            {
                output::complain(format_args!("warning: the daemon still runs: {error:#}"));
            }
            return Err(refusal.into());
        }
    };
    output::line(format_args!(
        "This node ({}) is now the one manager of cluster {}, with its {} services.",
        restored.node, restored.cluster, restored.services
    ))?;
    if !restored.lost_nodes.is_empty() {
        output::line(format_args!(
            "\nThese nodes count as down until they are back: {}",
            restored.lost_nodes.join(", ")
        ))?;
        output::line("  Remove those that never will be: skep node rm NODE")?;
    }
    output::line(format_args!(
        "\nEarlier join tokens are worthless. To add a worker, run on it:\n\n    skep join --token {} {}\n\nand to add a manager:\n\n    skep join --token {} {}\n",
        restored.worker_token, restored.advertise_address, restored.manager_token, restored.advertise_address
    ))?;
    if restored.autolock {
        output::line("Autolock is on: a restart of this manager asks for the unlock key that the cluster had.")?;
    }
    output::line("Volumes were not in the backup: put their files back before services need them.")?;
    Ok(())
}

fn open(file: &Path, passphrase: &Passphrase) -> Result<skep_model::Cluster> {
    std::fs::metadata(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let passphrase = passphrase.known()?;
    let (header, cluster) = read_backup(file, passphrase.as_bytes())?;
    output::line(format_args!(
        "Backup of cluster {} at version {}, made {} by skep {}.",
        header.cluster,
        header.version.0,
        time::rfc3339(header.made_at),
        header.skep_version
    ))?;
    Ok(cluster)
}

pub async fn recover(yes: bool, force: bool, host: &Host) -> Result {
    let local = host.local().await?;
    let checked = local.recover(RecoverRequest { check: true, force }).await?;
    let lost = match checked.lost_managers.is_empty() {
        true => "no other manager".to_owned(),
        false => checked.lost_managers.join(", "),
    };
    if !yes {
        output::complain(format_args!(
            "This makes a cluster of one out of what this manager has. Given up as managers for good: {lost}.\n\
             Writes that only they knew are lost. If one of them is ever started again, run `skep leave --force` on it first.\n\
             Raft's files of now are kept beside {}.",
            checked.kept_in
        ));
        if !hidden_input::confirm("Type yes to go on: ")? {
            bail!("nothing was changed; answer `yes`, or give --yes");
        }
    }
    let done = local.recover(RecoverRequest { check: false, force }).await?;
    output::line(format_args!(
        "This node is now the cluster's only manager. Raft's files of before are in {}.",
        done.kept_in
    ))?;
    if done.unconfirmed > 0 {
        output::line(format_args!(
            "{} writes were not known to be confirmed by a majority; they count as made.",
            done.unconfirmed
        ))?;
    }
    output::line(format_args!("No managers any more: {lost}"))?;
    output::line("\nNext: skep node rm NODE for those that are lost, skep join-token manager to add managers again.")?;
    Ok(())
}
