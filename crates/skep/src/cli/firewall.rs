//! What must be open between nodes, and the commands for it of the firewall that is in force.

use skep_api::Firewall;

/// The ports of a node; a worker has none for TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodePorts {
    pub control: Option<u16>,
    pub tunnel: u16,
}

pub fn name(firewall: Firewall) -> &'static str {
    match firewall {
        Firewall::Ufw => "ufw",
        Firewall::Firewalld => "firewalld",
    }
}

/// What lets other nodes in, and containers' packets through.
pub fn commands(firewall: Firewall, ports: NodePorts) -> Vec<String> {
    let NodePorts { control, tunnel } = ports;
    match firewall {
        Firewall::Ufw => {
            let open = match control {
                // Without a protocol it is both.
                Some(control) if control == tunnel => vec![format!("ufw allow {tunnel}")],
                Some(control) => vec![format!("ufw allow {control}/tcp"), format!("ufw allow {tunnel}/udp")],
                None => vec![format!("ufw allow {tunnel}/udp")],
            };
            let through = [
                "ufw allow in on sk-tunnel",
                "for i in skv-+ sk-ingress; do ufw route allow in on $i; ufw route allow out on $i; done",
            ];
            open.into_iter().chain(through.map(str::to_owned)).collect()
        }
        Firewall::Firewalld => {
            let control = control.map(|control| format!(" --add-port={control}/tcp")).unwrap_or_default();
            vec![
                format!("firewall-cmd --permanent{control} --add-port={tunnel}/udp"),
                "firewall-cmd --permanent --zone=trusted --add-interface=sk-tunnel --add-interface=sk-ingress \
                 --add-interface=skv-+"
                    .to_owned(),
                "firewall-cmd --reload".to_owned(),
            ]
        }
    }
}

/// For a newcomer's eyes: the ports, and the commands where a firewall would close them. Every line after the first is
/// indented like a value of `init`'s table.
pub fn lines(firewall: Option<Firewall>, ports: NodePorts) -> Vec<String> {
    let NodePorts { control, tunnel } = ports;
    let control_text = control.map(|control| format!("{control}/tcp (nodes), ")).unwrap_or_default();
    let mut lines = vec![format!("Ports       {control_text}{tunnel}/udp (networks), and what your services publish")];
    if let Some(firewall) = firewall {
        let name = name(firewall);
        lines.push(format!(
            "Firewall    {name} is active: other nodes and containers' packets pass it once these have run"
        ));
        lines.extend(commands(firewall, ports).into_iter().map(|command| format!("            {command}")));
    }
    lines
}

/// Lets `from` in at a port; with no firewall that is known, in words.
pub fn open(firewall: Option<Firewall>, from: &[&str], port: u16, protocol: &str) -> String {
    match firewall {
        Some(Firewall::Ufw) => {
            let rule = |from: &&str| format!("ufw allow proto {protocol} from {from} to any port {port}");
            from.iter().map(rule).collect::<Vec<_>>().join("; ")
        }
        Some(Firewall::Firewalld) => {
            format!("firewall-cmd --permanent --add-port={port}/{protocol} && firewall-cmd --reload")
        }
        None => format!("let {port}/{protocol} in from {} in every firewall on the way", from.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(firewall: Option<Firewall>, control: Option<u16>, tunnel: u16, expected: &Expect) {
        expected.assert_eq(&(lines(firewall, NodePorts { control, tunnel }).join("\n") + "\n"));
    }

    #[test]
    fn a_machine_without_a_firewall_is_told_its_ports_in_one_line() {
        check(
            None,
            Some(7377),
            7377,
            &expect![[r#"
            Ports       7377/tcp (nodes), 7377/udp (networks), and what your services publish
        "#]],
        );
        check(
            None,
            None,
            7399,
            &expect![[r#"
            Ports       7399/udp (networks), and what your services publish
        "#]],
        );
    }

    #[test]
    fn a_firewall_is_named_with_its_own_commands() {
        check(
            Some(Firewall::Ufw),
            Some(7377),
            7377,
            &expect![[r#"
            Ports       7377/tcp (nodes), 7377/udp (networks), and what your services publish
            Firewall    ufw is active: other nodes and containers' packets pass it once these have run
                        ufw allow 7377
                        ufw allow in on sk-tunnel
                        for i in skv-+ sk-ingress; do ufw route allow in on $i; ufw route allow out on $i; done
        "#]],
        );
        check(
            Some(Firewall::Firewalld),
            Some(7377),
            7399,
            &expect![[r#"
            Ports       7377/tcp (nodes), 7399/udp (networks), and what your services publish
            Firewall    firewalld is active: other nodes and containers' packets pass it once these have run
                        firewall-cmd --permanent --add-port=7377/tcp --add-port=7399/udp
                        firewall-cmd --permanent --zone=trusted --add-interface=sk-tunnel --add-interface=sk-ingress --add-interface=skv-+
                        firewall-cmd --reload
        "#]],
        );
        assert_eq!(commands(Firewall::Ufw, NodePorts { control: None, tunnel: 7377 })[0], "ufw allow 7377/udp");
        assert_eq!(
            commands(Firewall::Ufw, NodePorts { control: Some(1), tunnel: 2 })[..2],
            ["ufw allow 1/tcp", "ufw allow 2/udp"]
        );
    }

    #[test]
    fn one_port_is_opened_to_those_who_need_it() {
        let from = ["192.0.2.1", "192.0.2.3"];
        assert_eq!(
            open(Some(Firewall::Ufw), &from, 7377, "udp"),
            "ufw allow proto udp from 192.0.2.1 to any port 7377; ufw allow proto udp from 192.0.2.3 to any port 7377"
        );
        assert_eq!(
            open(None, &from, 7377, "udp"),
            "let 7377/udp in from 192.0.2.1, 192.0.2.3 in every firewall on the way"
        );
    }
}
