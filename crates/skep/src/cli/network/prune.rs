//! `network prune`: what no service and no task is on.

use std::collections::BTreeSet;

use anyhow::bail;
use clap::Args;
use skep_api::{ControlClient, Filter, RefusalKind, RemoveRequest};
use skep_model::{Kind, Network, NetworkId, Timestamp};

use crate::cli::Result;
use crate::cli::hidden_input;
use crate::cli::output::filter::{Facet, Filters};
use crate::cli::output::{self, time};
use crate::cli::tasks::natural;

#[derive(Debug, Args)]
pub struct Options {
    /// Do not ask first
    #[arg(short, long)]
    force: bool,
    /// Only some: until=24h, label=name, label!=name; may be given several times
    #[arg(long = "filter", value_name = "FILTER")]
    filter: Vec<String>,
}

/// Which networks are in use.
pub struct Uses {
    names: BTreeSet<String>,
    ids: BTreeSet<NetworkId>,
}

impl Uses {
    pub async fn ask(control: &ControlClient) -> Result<Self> {
        let services = control.services(Filter::default()).await?;
        let tasks = control.tasks(Filter::default()).await?;
        let named = services.iter().flat_map(|service| &service.spec.task.networks);
        let living = tasks.iter().filter(|task| task.occupies_node());
        Ok(Self {
            names: named.map(|attachment| attachment.network.to_lowercase()).collect(),
            ids: living.flat_map(|task| task.networks.iter().copied()).collect(),
        })
    }

    pub fn contain(&self, network: &Network) -> bool {
        self.names.contains(&network.spec.name.to_lowercase()) || self.ids.contains(&network.id)
    }
}

/// What is to be spared or not, of those that nothing uses.
struct Wanted {
    before: Option<Timestamp>,
    with: Filters,
    without: Vec<Filters>,
}

impl Wanted {
    fn parse(filters: &[String], now: Timestamp) -> Result<Self> {
        let of = |prefix: &str| -> Vec<String> {
            filters
                .iter()
                .filter_map(|filter| filter.strip_prefix(prefix))
                .map(|rest| format!("label={rest}"))
                .collect()
        };
        let mut before = None;
        for filter in filters {
            match filter.split_once('=') {
                Some(("until", _)) if before.is_some() => bail!("--filter until may be given once"),
                Some(("until", time)) => before = Some(time::parse_since(time, now)?),
                Some(("label" | "label!", _)) => {}
                _ => bail!("`{filter}` is nothing to filter by here; use until=24h, label=name or label!=name"),
            }
        }
        let with = Filters::parse(&of("label="), &["label"])?;
        let without = of("label!=").into_iter().map(|one| Filters::parse(&[one], &["label"])).collect::<Result<_>>()?;
        Ok(Self { before, with, without })
    }

    fn contain(&self, network: &Network) -> bool {
        let labels: Vec<Facet> = Facet::labels("label", &network.spec.labels).collect();
        let spared = self.without.iter().any(|filter| filter.keep(&labels));
        self.before.is_none_or(|before| network.meta.created_at < before) && self.with.keep(&labels) && !spared
    }
}

pub async fn run(options: Options, control: &ControlClient) -> Result {
    let wanted = Wanted::parse(&options.filter, time::now())?;
    if !options.force {
        output::complain("WARNING! This will remove all networks that no service and no task is on.");
        if !hidden_input::confirm("Type yes to go on: ")? {
            bail!("nothing was removed; --force does not ask");
        }
    }
    let uses = Uses::ask(control).await?;
    let mut unused = control.networks(Filter::default()).await?;
    unused.retain(|network| !uses.contain(network) && wanted.contain(network));
    unused.sort_by(|a, b| natural(&a.spec.name, &b.spec.name));
    let mut removed = Vec::new();
    for network in unused {
        let request = RemoveRequest { kind: Kind::Network, wanted: network.id.to_string(), force: false };
        match control.remove(request).await {
            Ok(_) => removed.push(network.spec.name.clone()),
            // Somebody took it into use, or away, in between.
            Err(refusal) if matches!(refusal.kind, RefusalKind::Conflict | RefusalKind::NotFound) => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
    if !removed.is_empty() {
        output::line("Deleted Networks:")?;
    }
    for name in removed {
        output::line(name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use skep_model::{IdSource, Meta, NetworkSpec};

    use super::*;

    #[test]
    fn age_and_labels_choose_what_goes() {
        let now = Timestamp(Duration::from_secs(100_000).as_nanos() as u64);
        let network = Network {
            id: IdSource::from_seed(1).next_id(),
            meta: Meta::new(Timestamp(now.0 - Duration::from_secs(3600).as_nanos() as u64)),
            spec: NetworkSpec { labels: [("keep".to_owned(), "yes".to_owned())].into(), ..NetworkSpec::default() },
            subnet: "10.1.0.0/24".parse().unwrap(),
            gateway: [10, 1, 0, 1].into(),
            blocks: Default::default(),
            subnet_v6: None,
        };
        let goes = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            Wanted::parse(&filters, now).unwrap().contain(&network)
        };
        assert!(goes(&[]) && goes(&["until=30m"]) && goes(&["label=keep"]) && goes(&["label!=other"]));
        assert!(
            !goes(&["until=2h"]) && !goes(&["label=other"]) && !goes(&["label!=keep"]) && !goes(&["label!=keep=yes"])
        );
        assert!(Wanted::parse(&["name=x".to_owned()], now).is_err());
    }
}
