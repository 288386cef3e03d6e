//! A project as a Compose file again: what `stack config` prints.
//!
//! Everything is in its long form, filled in, and in the order of names, so that equal projects give equal
//! texts, and loading the text gives the project again.
//! The shape is that of `docker compose config`.

mod emit;
mod parts;

use crate::project::{At, Attachment, Content, ContentSource, Network, Project, Service, Volume};
use crate::units;
use emit::Tree;

impl Project {
    /// The resolved project as YAML; secrets' bytes are not in it.
    pub fn to_yaml(&self) -> String {
        let mut root = Tree::map();
        root.set("name", Tree::text(&self.name));
        root.set("services", Tree::map_of(self.services.iter().map(|(key, service)| (key, service_tree(service)))));
        root.set(
            "networks",
            Tree::map_of(self.used_networks().into_iter().map(|(key, n)| (key, self.network(key, n)))),
        );
        root.set("volumes", Tree::map_of(self.volumes.iter().map(|(key, volume)| (key, self.volume(key, volume)))));
        root.set("secrets", Tree::map_of(self.secrets.iter().map(|(key, secret)| (key, self.content(key, secret)))));
        root.set("configs", Tree::map_of(self.configs.iter().map(|(key, config)| (key, self.content(key, config)))));
        root.to_yaml()
    }

    /// The networks of the files, and `default` where a service has no other.
    fn used_networks(&self) -> std::collections::BTreeMap<&str, Network> {
        let mut networks: std::collections::BTreeMap<&str, Network> =
            self.networks.iter().map(|(key, network)| (key.as_str(), network.clone())).collect();
        let on_default = |service: &Service| match &service.attachment {
            Attachment::Networks(named) => named.is_empty() || named.contains_key("default"),
            Attachment::None | Attachment::Host | Attachment::Mode(_) => false,
        };
        if self.services.values().any(on_default) {
            networks.entry("default").or_default();
        }
        networks
    }

    fn named(&self, key: &str, name: Option<&str>, external: bool) -> Tree {
        let mut tree = Tree::map();
        tree.set("name", Tree::text(&Project::full_name(&self.name, key, name, external)));
        if external {
            tree.set("external", Tree::raw("true"));
        }
        tree
    }

    fn network(&self, key: &str, network: Network) -> Tree {
        let mut tree = self.named(key, network.name.as_deref(), network.external);
        tree.set("driver", Tree::optional(network.driver.map(|at| at.value)));
        tree.set("driver_opts", Tree::strings_map(&network.driver_opts));
        let mut ipam = Tree::map();
        ipam.set("driver", Tree::optional(network.ipam_driver.map(|at| at.value)));
        ipam.set(
            "config",
            Tree::list(network.ipam.into_iter().map(|config| {
                let mut tree = Tree::map();
                tree.set("subnet", Tree::optional(config.subnet.map(|at| at.value)));
                tree.set("ip_range", Tree::optional(config.ip_range.map(|at| at.value)));
                tree.set("gateway", Tree::optional(config.gateway.map(|at| at.value)));
                tree.set("aux_addresses", Tree::strings_map(&config.aux_addresses));
                tree
            })),
        );
        tree.set("ipam", ipam);
        tree.flag("internal", network.internal);
        tree.flag("attachable", network.attachable);
        if let Some(at) = network.enable_ipv6 {
            tree.set("enable_ipv6", Tree::raw(at.value));
        }
        tree.set("labels", Tree::strings_map(&network.labels));
        tree
    }

    fn volume(&self, key: &str, volume: &Volume) -> Tree {
        let mut tree = self.named(key, volume.name.as_deref(), volume.external);
        tree.set("driver", Tree::optional(volume.driver.as_ref()));
        tree.set("driver_opts", Tree::strings_map(&volume.driver_opts));
        tree.set("labels", Tree::strings_map(&volume.labels));
        tree
    }

    fn content(&self, key: &str, content: &Content) -> Tree {
        let external = content.source == ContentSource::External;
        let mut tree = self.named(key, content.name.as_deref(), external);
        match &content.source {
            ContentSource::External => {}
            ContentSource::File { path, .. } => tree.set("file", Tree::text(path)),
            ContentSource::Environment { variable, .. } => tree.set("environment", Tree::text(variable)),
            ContentSource::Inline { data } => tree.set("content", Tree::text(&String::from_utf8_lossy(data))),
        }
        tree.set("labels", Tree::strings_map(&content.labels));
        tree.set("template_driver", Tree::optional(content.template_driver.as_ref().map(|at| &at.value)));
        tree
    }
}

fn service_tree(service: &Service) -> Tree {
    let mut tree = Tree::map();
    let s = service;
    tree.set("annotations", Tree::strings_map(&s.annotations));
    if let Some(context) = &s.build_context {
        tree.set("build", Tree::map_of([("context", Tree::text(context))]));
    }
    tree.set("cap_add", Tree::strings(&s.cap_add));
    tree.set("cap_drop", Tree::strings(&s.cap_drop));
    tree.optional_list("command", s.command.as_deref());
    tree.set("configs", parts::references(&s.configs, None));
    tree.set("container_name", Tree::optional(s.container_name.as_ref()));
    tree.set("depends_on", parts::depends_on(&s.depends_on));
    tree.set("deploy", parts::deploy(&s.deploy));
    tree.set("devices", parts::devices(&s.devices));
    tree.set("dns", Tree::strings(s.dns.iter().map(|at| &at.value)));
    tree.set("dns_opt", Tree::strings(&s.dns_opt));
    tree.set("dns_search", Tree::strings(&s.dns_search));
    tree.set("domainname", Tree::optional(s.domainname.as_ref()));
    tree.optional_list("entrypoint", s.entrypoint.as_deref());
    tree.set("environment", parts::environment(&s.environment));
    tree.set("expose", Tree::strings(&s.expose));
    tree.set("extra_hosts", Tree::strings(s.extra_hosts.iter().map(|(name, address)| format!("{name}={address}"))));
    tree.set("group_add", Tree::strings(&s.group_add));
    tree.set("healthcheck", s.healthcheck.as_ref().map_or(Tree::map(), parts::healthcheck));
    tree.set("hostname", Tree::optional(s.hostname.as_ref()));
    tree.set("image", Tree::optional(s.image.as_ref()));
    if let Some(init) = s.init {
        tree.set("init", Tree::raw(init));
    }
    tree.set("labels", Tree::strings_map(&s.labels));
    tree.set("logging", s.logging.as_ref().map_or(Tree::map(), parts::logging));
    match &s.attachment {
        Attachment::Networks(networks) => tree.set("networks", parts::networks(networks)),
        Attachment::None => tree.set("network_mode", Tree::text("none")),
        Attachment::Host => tree.set("network_mode", Tree::text("host")),
        Attachment::Mode(mode) => tree.set("network_mode", Tree::text(mode)),
    }
    if let Some(score) = s.oom_score_adj {
        tree.set("oom_score_adj", Tree::raw(score));
    }
    tree.set("platform", Tree::optional(s.platform.as_ref()));
    tree.set("ports", Tree::list(s.ports.iter().map(parts::port)));
    tree.set("post_start", Tree::list(s.post_start.iter().map(parts::hook)));
    tree.set("pre_stop", Tree::list(s.pre_stop.iter().map(parts::hook)));
    tree.flag("privileged", s.privileged);
    tree.set("profiles", Tree::strings(&s.profiles));
    tree.set("pull_policy", Tree::optional(s.pull_policy.as_ref().map(parts::pull_policy)));
    tree.flag("read_only", s.read_only);
    tree.set("restart", Tree::optional(s.restart.as_ref().map(|at| parts::restart(at.value))));
    tree.set("secrets", parts::references(&s.secrets, Some("/run/secrets/")));
    tree.set("security_opt", Tree::strings(s.security_opt.iter().map(|at| &at.value)));
    if let Some(size) = s.shm_size {
        tree.set("shm_size", Tree::text(&size.to_string()));
    }
    tree.flag("stdin_open", s.stdin_open);
    tree.set("stop_grace_period", Tree::optional(s.stop_grace_period.map(units::duration_text)));
    tree.set("stop_signal", Tree::optional(s.stop_signal.as_ref()));
    tree.set("sysctls", Tree::strings_map(&s.sysctls));
    tree.set("tmpfs", Tree::strings(s.tmpfs.iter().map(parts::tmpfs)));
    tree.flag("tty", s.tty);
    tree.set("ulimits", parts::ulimits(&s.ulimits));
    tree.set("user", Tree::optional(s.user.as_ref()));
    tree.set("volumes", Tree::list(s.mounts.iter().map(parts::mount)));
    tree.set("working_dir", Tree::optional(s.working_dir.as_ref()));
    let mut skep = Tree::map();
    if let Some(at) = &s.skep.at_most_one {
        skep.set("at-most-one", Tree::raw(at.value));
    }
    skep.set("drain", Tree::optional(s.skep.drain.map(units::duration_text)));
    let at = |at: &Option<At<String>>| Tree::optional(at.as_ref().map(|at| at.value.clone()));
    skep.set(
        "progress-deadline",
        Tree::optional(s.skep.progress_deadline.as_ref().map(|at| units::duration_text(at.value))),
    );
    skep.set("schedule", at(&s.skep.schedule));
    skep.set("timezone", at(&s.skep.timezone));
    skep.set("concurrency", Tree::optional(s.skep.concurrency.as_ref().map(|at| parts::concurrency(at.value))));
    skep.set("on-change", Tree::optional(s.skep.on_change.as_ref().map(|at| &at.value)));
    parts::skep_placement(&mut skep, &s.skep);
    parts::skep_balancing(&mut skep, &s.skep);
    tree.set("x-skep", skep);
    tree
}
