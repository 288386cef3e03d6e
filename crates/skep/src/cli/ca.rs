//! `swarm ca`: the cluster's CA, shown or rotated.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;
use skep_api::{
    Connection, ControlClient, Filter, GivenCa, ListRequest, LocalClient, Object, RotateCaRequest, RotatedCa,
    WatchRequest,
};
use skep_model::{Kind, NodeState};

use super::Result;
use super::host::Host;
use super::membership::reachable_at;
use super::output;

#[derive(Debug, Args)]
pub struct Options {
    /// Make a new CA; nodes renew their certificates by themselves
    #[arg(long)]
    rotate: bool,
    /// How long certificates are valid from now on, at least 1h (with --rotate)
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "rotate")]
    cert_expiry: Option<Duration>,
    /// Do not wait until every node that is up has renewed
    #[arg(short, long)]
    detach: bool,
    /// Say nothing while it waits
    #[arg(short, long)]
    quiet: bool,
    /// The new CA: a root certificate that was made elsewhere, as PEM (with --rotate and --ca-key)
    #[arg(long, value_name = "FILE", requires = "rotate", requires = "ca_key")]
    ca_cert: Option<PathBuf>,
    /// Its private key, as PEM (PKCS#8, not encrypted)
    #[arg(long, value_name = "FILE", requires = "rotate", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    /// Not supported: managers sign certificates themselves
    #[arg(long, value_name = "SPEC")]
    external_ca: Option<String>,
}

pub async fn run(options: Options, host: &Host) -> Result {
    if options.external_ca.is_some() {
        bail!("--external-ca is not supported: managers sign certificates themselves; leave the option out");
    }
    let given = match (&options.ca_cert, &options.ca_key) {
        (Some(certificate), Some(key)) => Some(GivenCa { certificate: read(certificate)?, key: read(key)? }),
        _ => None,
    };
    let connection = host.connect().await?;
    let control = ControlClient::new(connection.clone());
    if !options.rotate {
        let info = control.info(()).await?;
        output::line(info.ca_certificate.trim_end())?;
        return Ok(());
    }
    let request = RotateCaRequest { certificate_validity: options.cert_expiry, given: given.clone() };
    let rotated = control.rotate_ca(request).await?;
    if given.is_some_and(|given| given.certificate != rotated.certificate) {
        bail!(
            "the daemon is older than this command: it has made a new CA and not taken the given one; update the daemon"
        );
    }
    let local = LocalClient::new(connection.clone()).info(()).await?;
    if !options.quiet {
        let address = reachable_at(&local);
        output::complain("The CA was rotated: earlier join tokens are worthless. To add a worker, run on it:");
        output::complain(format_args!("\n    skep join --token {} {address}\n", rotated.worker_token));
        output::complain("To add a manager, run on it:");
        output::complain(format_args!("\n    skep join --token {} {address}\n", rotated.manager_token));
    }
    if !options.detach {
        wait(&connection, &rotated, options.quiet).await?;
    }
    output::line(rotated.certificate.trim_end())?;
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Waits until every node that is up has a certificate of the new CA; those that are down renew when they are back.
async fn wait(connection: &Connection, rotated: &RotatedCa, quiet: bool) -> Result {
    let control = ControlClient::new(connection.clone());
    let mut said = String::new();
    // Open before the first look: no change falls between the two.
    let mut changes = control.watch(WatchRequest::default()).await?;
    loop {
        let request = ListRequest { kind: Kind::Node, filter: Filter::default() };
        let listed = control.list(request).await?;
        let (mut renewed, mut waiting, mut down) = (0, Vec::new(), 0);
        for object in listed.objects {
            let Object::Node(node) = object.into_object() else { continue };
            if node.certificate.issuer == rotated.issuer {
                renewed += 1;
            } else if node.status.state == NodeState::Down {
                down += 1;
            } else {
                waiting.push(node.hostname().to_owned());
            }
        }
        let mut words = format!("{renewed} nodes have renewed");
        if !waiting.is_empty() {
            words = format!("{words}, waiting for {}", waiting.join(", "));
        }
        if down > 0 {
            words = format!("{words}; {down} that are down renew when they are back");
        }
        if !quiet && words != said {
            output::complain(&words);
            said = words;
        }
        if waiting.is_empty() {
            return Ok(());
        }
        match changes.next().await.transpose()? {
            Some(_) => {}
            None => bail!("the manager ended the watch; `skep swarm ca --rotate` has begun and goes on by itself"),
        }
    }
}

/// `2160h`, `1h30m`, `45m`: Docker's durations, in the units that make sense here.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration such as 2160h or 1h30m");
    let (mut total, mut number) = (0u64, String::new());
    for character in text.chars() {
        let unit = match character {
            '0'..='9' => {
                number.push(character);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        let part = number.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        number.clear();
    }
    match number.is_empty() && total > 0 {
        true => Ok(Duration::from_secs(total)),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_docker_writes_them() {
        assert_eq!(duration("2160h0m0s"), Ok(Duration::from_secs(2160 * 3600)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "90", "1d", "h", "-1h", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
