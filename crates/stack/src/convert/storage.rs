//! What a task finds in its file system: mounts, and the files of secrets and configs.

use skep_compose_spec::Span;
use skep_compose_spec::project::{Content, ContentSource, FileReference, MountKind, Service, Volume};
use skep_model::{ConfigRef, FileTarget, Labels, MemoryBytes, Mount, Propagation, SecretRef, VolumeSource};

use super::Context;

pub(super) fn mounts(cx: &mut Context<'_>, service: &Service) -> Vec<Mount> {
    let all = service.mounts.iter().chain(&service.tmpfs);
    all.map(|mount| {
        let kind = kind(cx, service, &mount.kind, mount.span);
        Mount { target: mount.target.clone(), read_only: mount.read_only, kind }
    })
    .collect()
}

fn kind(cx: &mut Context<'_>, service: &Service, kind: &MountKind, at: Span) -> skep_model::MountKind {
    match kind {
        MountKind::Bind(bind) => skep_model::MountKind::Bind {
            source: bind.source.clone(),
            propagation: match bind.propagation.as_deref() {
                Some("private") => Propagation::Private,
                Some("shared") => Propagation::Shared,
                Some("rshared") => Propagation::RShared,
                Some("slave") => Propagation::Slave,
                Some("rslave") => Propagation::RSlave,
                _ => Propagation::RPrivate,
            },
            create_source: bind.create_host_path,
            non_recursive: bind.non_recursive,
        },
        MountKind::Tmpfs { size, mode, options } => {
            if !options.is_empty() {
                let options = options.join(",");
                cx.report.warning(
                    at,
                    format!(
                        "services.{}: tmpfs options `{options}` are not supported yet and have no effect",
                        service.name
                    ),
                );
            }
            skep_model::MountKind::Tmpfs { size: size.map(MemoryBytes), mode: *mode }
        }
        MountKind::Volume { key: None, no_copy, subpath, labels } => skep_model::MountKind::Volume {
            name: None,
            no_copy: *no_copy,
            subpath: subpath.clone(),
            driver: None,
            options: Labels::new(),
            labels: labels.clone(),
        },
        MountKind::Volume { key: Some(key), no_copy, subpath, labels } => {
            let none = Volume::default();
            let volume = cx.project.volumes.get(key).unwrap_or(&none);
            driver_is_local(cx, key, volume);
            let mut all = labels.clone();
            all.extend(volume.labels.clone());
            skep_model::MountKind::Volume {
                name: Some(cx.full_name(key, volume.name.as_deref(), volume.external)),
                no_copy: *no_copy,
                subpath: subpath.clone(),
                // By its name an older node knows that it does not know them.
                driver: (!volume.driver_opts.is_empty()).then(|| "local".to_owned()),
                options: volume.driver_opts.clone(),
                // Another stack's, or nobody's, volume is not this stack's to label.
                labels: if volume.external { Labels::new() } else { cx.labels(&all) },
            }
        }
    }
}

/// Data in the wrong place is worse than no start.
fn driver_is_local(cx: &mut Context<'_>, key: &str, volume: &Volume) {
    if let Some(driver) = volume.driver.as_deref().filter(|driver| *driver != "local") {
        cx.report
            .error(volume.span, format!("volumes.{key}: driver `{driver}` is not supported"))
            .with_help("volumes are folders of the node: remove driver, or mount the storage on the nodes and bind it");
    }
    if let Err(problem) = VolumeSource::of(&volume.driver_opts) {
        cx.report
            .error(volume.span, format!("volumes.{key}.driver_opts: {problem}"))
            .with_help("type, device and o are what `mount -t TYPE -o O DEVICE` is given");
    }
}

pub(super) fn secrets(cx: &mut Context<'_>, service: &Service) -> Vec<SecretRef> {
    let mut references = Vec::new();
    for reference in &service.secrets {
        let Some(content) = cx.project.secrets.get(&reference.source) else { continue };
        let secret = name_of(cx, &reference.source, content);
        if content.source == ContentSource::External {
            cx.spec.external.secrets.insert(secret.clone());
        }
        let file = file(reference);
        references.push(SecretRef { secret, digest: None, file });
    }
    references.sort_by(|a, b| (&a.secret, &a.file.path).cmp(&(&b.secret, &b.file.path)));
    references
}

pub(super) fn configs(cx: &mut Context<'_>, service: &Service) -> Vec<ConfigRef> {
    let mut references = Vec::new();
    for reference in &service.configs {
        let Some(content) = cx.project.configs.get(&reference.source) else { continue };
        let config = name_of(cx, &reference.source, content);
        if content.source == ContentSource::External {
            cx.spec.external.configs.insert(config.clone());
        }
        let file = file(reference);
        references.push(ConfigRef { config, digest: None, file });
    }
    references.sort_by(|a, b| (&a.config, &a.file.path).cmp(&(&b.config, &b.file.path)));
    references
}

fn name_of(cx: &Context<'_>, key: &str, content: &Content) -> String {
    cx.full_name(key, content.name.as_deref(), content.source == ContentSource::External)
}

/// Without a target the file is named as its key, in /run/secrets or at the root.
fn file(reference: &FileReference) -> FileTarget {
    let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
    FileTarget {
        path: reference.target.clone().unwrap_or_else(|| reference.source.clone()),
        uid: number(&reference.uid),
        gid: number(&reference.gid),
        mode: reference.mode.unwrap_or(0o444),
    }
}
