//! The machine's own routes, and those of the cluster's ranges that they collide with.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use skep_model::HostRoute;
use skep_overlay::RealizeError;

/// Where this machine's packets go without skep; blocks.
pub fn host_routes() -> Result<Vec<HostRoute>, RealizeError> {
    let told = |route: skep_overlay::HostRoute| {
        let skep_overlay::HostRoute { to, interface, source } = route;
        HostRoute { to, interface, source }
    };
    Ok(skep_overlay::host_routes()?.into_iter().map(told).collect())
}

/// In words, for the node's operator: a route that came after the node.
pub fn collisions(routes: &[HostRoute], ranges: &BTreeSet<Ipv4Net>) -> Vec<String> {
    let collides = |route: &&HostRoute| ranges.iter().any(|range| route.collides(range));
    let say = |HostRoute { to, interface, .. }: &HostRoute| {
        let of = |range: &&Ipv4Net| range.contains(to) || to.contains(*range);
        let range = ranges.iter().find(of).map(Ipv4Net::to_string).unwrap_or_default();
        format!(
            "this machine's route to {to} by {interface} collides with {range} of the cluster: containers and that network \
             hide each other; remove the route (ip route del {to} dev {interface}), or give that interface another network"
        )
    };
    routes.iter().filter(collides).map(say).collect()
}
