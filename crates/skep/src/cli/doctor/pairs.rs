//! Every way between two nodes as a row: what `doctor --verbose` adds.

use skep_api::{Diagnosis, PeerProbe};

use crate::cli::output::{table, time};

use super::judge::word;

pub fn table(diagnosis: &Diagnosis) -> String {
    let header = ["FROM", "TO", "ANSWERED", "ROUND TRIP", "LONGEST PACKET", "HANDSHAKE", "CONTROL PORT"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let name = |id| {
        let node = diagnosis.nodes.iter().find(|node| node.node == id);
        node.map(|node| node.hostname.clone()).filter(|name| !name.is_empty()).unwrap_or_else(|| id.short())
    };
    for (from, examined) in diagnosis.nodes.iter().filter_map(|node| Some((node, node.examined.as_ref()?))) {
        for probe in &examined.peers {
            let control = examined.managers.iter().find(|manager| manager.manager.node == Some(probe.node));
            let control = control.map(|manager| word(manager.reached).to_owned()).unwrap_or_default();
            rows.push(row(&name(from.node), &name(probe.node), probe, examined.interface_mtu, control));
        }
    }
    table::render(&rows)
}

fn row(from: &str, to: &str, probe: &PeerProbe, interface_mtu: u16, control: String) -> Vec<String> {
    let PeerProbe { sent, answered, round_trip, passes, handshake_age, .. } = probe;
    vec![
        from.to_owned(),
        to.to_owned(),
        format!("{answered}/{sent}"),
        round_trip.map(|took| format!("{:.2} ms", took.as_secs_f64() * 1e3)).unwrap_or_default(),
        passes.map(|passes| format!("{passes} of {interface_mtu}")).unwrap_or_default(),
        handshake_age.map(|age| format!("{} ago", time::rough(age))).unwrap_or_else(|| "none".to_owned()),
        control,
    ]
}
