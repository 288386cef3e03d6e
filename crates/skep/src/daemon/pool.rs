//! The cluster's address pool and this machine's own routes, which are not to hide each other.

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use skep_model::{ClusterSpec, HostRoute};

/// After the usual one, where that is in use. Docker's own defaults are none of them.
const OTHERS: [[u8; 4]; 3] = [[10, 128, 0, 0], [10, 192, 0, 0], [10, 0, 0, 0]];
const PREFIX: u8 = 10;

/// This machine's routes to other networks than the cluster's.
pub async fn own_routes() -> Result<Vec<HostRoute>> {
    let listed = tokio::task::spawn_blocking(skep_agent::host_routes).await;
    listed.context("listing the routes panicked")?.context("failed to list this machine's routes")
}

/// The pool that was asked for, if it collides with none of `routes`, else the first of the defaults that does not.
pub fn choose(asked: Option<Ipv4Net>, routes: &[HostRoute]) -> Result<Ipv4Net, String> {
    let collision = |pool: &Ipv4Net| routes.iter().find(|route| route.collides(pool));
    let usual = ClusterSpec::default().address_pool;
    if let Some(pool) = asked {
        return match collision(&pool) {
            None => Ok(pool),
            Some(HostRoute { to, interface, .. }) => Err(format!(
                "the address pool {pool} collides with this machine's route to {to} by {interface}: containers and that \
                 network would hide each other; take another pool, or leave --default-addr-pool out"
            )),
        };
    }
    let others = OTHERS.map(|first| Ipv4Net::new_assert(first.into(), PREFIX));
    let chosen = [usual].into_iter().chain(others).find(|pool| collision(pool).is_none());
    if let Some(pool) = chosen.filter(|pool| *pool != usual) {
        tracing::info!(%pool, %usual, "this machine has a route into the usual address pool: another one is taken");
    }
    chosen.ok_or_else(|| {
        "this machine has routes into every usual address pool; name a free one: skep init --default-addr-pool CIDR"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(asked: Option<&str>, routes: &[&str]) -> Result<String, String> {
        let route = |to: &&str| HostRoute { to: to.parse().unwrap(), interface: "eth1".to_owned(), source: None };
        let routes: Vec<_> = routes.iter().map(route).collect();
        choose(asked.map(|pool| pool.parse().unwrap()), &routes).map(|pool| pool.to_string())
    }

    #[test]
    fn a_pool_that_is_in_use_is_avoided_or_refused_by_name() {
        assert_eq!(chosen(None, &["192.168.1.0/24", "172.17.0.0/16"]).unwrap(), "10.64.0.0/10");
        assert_eq!(chosen(None, &["10.100.0.0/24"]).unwrap(), "10.128.0.0/10");
        assert_eq!(chosen(None, &["10.100.0.0/24", "10.130.0.0/16", "10.200.0.0/16"]).unwrap(), "10.0.0.0/10");
        let refused = chosen(Some("10.0.0.0/9"), &["10.100.0.0/24"]).unwrap_err();
        assert!(refused.contains("10.0.0.0/9") && refused.contains("10.100.0.0/24 by eth1"), "{refused}");
        assert_eq!(chosen(Some("10.0.0.0/10"), &["10.100.0.0/24"]).unwrap(), "10.0.0.0/10");
        assert!(chosen(None, &["10.0.0.0/16", "10.100.0.0/24", "10.130.0.0/16", "10.200.0.0/16"]).is_err());
    }
}
