//! The control service over a unix socket, as the command line uses it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use skep_api::*;
use skep_model::{Cluster, Kind, Labels, LookupError, Secret, Service, Task, TaskId, Timestamp, Version};
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use crate::arbitrary::draw;

/// Answers from a cluster value; `exec` echoes.
pub struct Fake {
    pub cluster: Cluster,
}

impl Fake {
    pub fn new(seed: u64) -> Self {
        let cluster = Cluster::from_tables(
            Version(7),
            Some(draw(seed)),
            vec![draw(seed)],
            vec![draw::<Service>(seed), draw(seed + 1)],
            vec![draw::<Task>(seed)],
            vec![draw(seed)],
            vec![draw::<Secret>(seed)],
            vec![draw(seed)],
            vec![draw(seed)],
        );
        Self { cluster }
    }

    fn objects(&self, kind: Kind) -> Vec<Object> {
        match kind {
            Kind::Cluster => self.cluster.config.iter().cloned().map(Object::Cluster).collect(),
            Kind::Node => self.cluster.nodes.values().cloned().map(Object::Node).collect(),
            Kind::Service => self.cluster.services.values().cloned().map(Object::Service).collect(),
            Kind::Task => self.cluster.tasks.values().cloned().map(Object::Task).collect(),
            Kind::Network => self.cluster.networks.values().cloned().map(Object::Network).collect(),
            Kind::Secret => self.cluster.secrets.values().cloned().map(Object::Secret).collect(),
            Kind::Config => self.cluster.configs.values().cloned().map(Object::Config).collect(),
            Kind::Stack => self.cluster.stacks.values().cloned().map(Object::Stack).collect(),
        }
    }
}

fn written(text: &str) -> Result<Written, Refusal> {
    Ok(Written { id: text.to_owned(), version: Version(8), warnings: vec!["a warning".to_owned()] })
}

impl Control for Fake {
    async fn info(&self, caller: Caller, (): ()) -> Result<ClusterInfo, Refusal> {
        let config = self.cluster.config.as_ref().expect("drawn");
        Ok(ClusterInfo {
            id: config.id,
            meta: config.meta,
            spec: config.spec.clone(),
            ca_certificate: format!("{caller:?}"),
            leader: Some(draw(1)),
            nodes: 3,
            managers: 1,
        })
    }

    async fn confirm(&self, _: Caller, (): ()) -> Result<Confirmed, Refusal> {
        Ok(Confirmed { stale: Some("no quorum".to_owned()) })
    }

    async fn list(&self, _: Caller, request: ListRequest) -> Result<ObjectList, Refusal> {
        let objects = self.objects(request.kind).into_iter().map(Readable::from).collect();
        Ok(ObjectList { version: self.cluster.version, objects })
    }

    async fn get(&self, _: Caller, request: GetRequest) -> Result<Readable, Refusal> {
        if request.wanted == "missing" {
            let hint = Some("counter_web".to_owned());
            return Err(LookupError::NotFound { kind: request.kind, wanted: request.wanted, hint }.into());
        }
        Ok(self.objects(request.kind).remove(0).into())
    }

    async fn create(&self, _: Caller, request: CreateRequest) -> Result<Written, Refusal> {
        written(&format!("{request:?}"))
    }

    async fn update(&self, _: Caller, request: UpdateRequest) -> Result<Written, Refusal> {
        written(&format!("{request:?}"))
    }

    async fn remove(&self, _: Caller, request: RemoveRequest) -> Result<Removed, Refusal> {
        let RemoveRequest { kind, wanted, force: _ } = request;
        Ok(Removed { objects: vec![RemovedObject { kind, id: "1".to_owned(), name: wanted }] })
    }

    async fn scale(&self, _: Caller, request: ScaleRequest) -> Result<Written, Refusal> {
        written(&format!("{request:?}"))
    }

    async fn rollback_service(&self, _: Caller, request: RollbackServiceRequest) -> Result<Written, Refusal> {
        written(&format!("{request:?}"))
    }

    async fn rollback_stack(&self, _: Caller, request: RollbackStackRequest) -> Result<Deployed, Refusal> {
        let warnings = vec![format!("{request:?}")];
        Ok(Deployed { revision: 2, version: Version(8), objects: Vec::new(), warnings })
    }

    async fn rebalance(&self, _: Caller, request: RebalanceRequest) -> Result<Written, Refusal> {
        written(&format!("{request:?}"))
    }

    async fn diagnose(&self, _: Caller, (): ()) -> Result<skep_api::Diagnosis, Refusal> {
        Ok(skep_api::Diagnosis { nodes: Vec::new() })
    }

    async fn explain(&self, _: Caller, request: ExplainRequest) -> Result<Explanation, Refusal> {
        let verdict = NodeVerdict {
            id: "n".to_owned(),
            hostname: "n1".to_owned(),
            refused_by: "resources".to_owned(),
            why: "1GiB free".to_owned(),
            service_tasks: 1,
            tasks: 2,
        };
        let hints = vec!["add a node".to_owned()];
        Ok(Explanation { service: request.wanted, tasks: Vec::new(), nodes: vec![verdict], hints })
    }

    async fn deploy_stack(&self, _: Caller, request: DeployRequest) -> Result<Deployed, Refusal> {
        let object = |secret: &NewContent| DeployedObject {
            kind: Kind::Secret,
            id: secret.data.len().to_string(),
            name: secret.name.clone(),
            action: DeployAction::Created,
        };
        let objects = request.secrets.iter().map(object).collect();
        Ok(Deployed { revision: 1, version: Version(9), objects, warnings: vec![] })
    }

    async fn rotate_ca(&self, _: Caller, request: RotateCaRequest) -> Result<RotatedCa, Refusal> {
        let certificate = format!("{request:?}");
        let (issuer, worker_token, manager_token) = ("i".to_owned(), "w".to_owned(), "m".to_owned());
        Ok(RotatedCa { certificate, issuer, worker_token, manager_token })
    }

    async fn rotate_join_token(&self, _: Caller, request: RotateJoinTokenRequest) -> Result<JoinTokenText, Refusal> {
        Ok(JoinTokenText { token: format!("SKEP-1-{:?}", request.role) })
    }

    async fn autolock(&self, _: Caller, request: AutolockRequest) -> Result<AutolockState, Refusal> {
        Ok(AutolockState { unlock_key: request.change.map(|change| format!("SKEPKEY-1-{change:?}")) })
    }

    async fn watch(&self, _: Caller, request: WatchRequest) -> Result<Messages<WatchEvent>, Refusal> {
        let after = request.after.0;
        let refusal = Refusal::new(RefusalKind::Unavailable, "the quorum is gone");
        let events = stream::iter(after + 1..=after + 3).map(|version| Ok(WatchEvent { version: Version(version) }));
        Ok(events.chain(stream::once(async { Err(refusal) })).boxed())
    }

    async fn events(&self, _: Caller, request: EventsRequest) -> Result<Messages<EventMessage>, Refusal> {
        let event = Event {
            at: request.since.unwrap_or_default(),
            kind: Kind::Service,
            action: EventAction::Update,
            id: "1".to_owned(),
            attributes: Labels::from([("name".to_owned(), "web".to_owned())]),
        };
        let begins = EventMessage::BeginsAt(request.until.unwrap_or_default());
        Ok(stream::iter([Ok(begins), Ok(EventMessage::Event(event))]).boxed())
    }

    async fn logs(&self, _: Caller, request: LogsRequest) -> Result<Messages<LogEntry>, Refusal> {
        let entry = LogEntry {
            task: TaskId::from_u128(5),
            node: draw(3),
            stream: OutputStream::Stderr,
            at: request.options.since.unwrap_or_default(),
            data: Bytes::from(format!("{:?}\n", request.source)),
        };
        Ok(stream::iter([Ok(entry)]).boxed())
    }

    async fn exec(&self, _: Caller, mut input: Messages<ExecRequest>) -> Result<Messages<ExecOutput>, Refusal> {
        let Some(ExecRequest::Start(target)) = input.next().await.transpose()? else {
            return Err(Refusal::new(RefusalKind::Invalid, "the first message of an exec session must be `Start`"));
        };
        let started = [Ok(ExecOutput::Started), Ok(ExecOutput::Stderr(Bytes::from(target.spec.argv.join(" "))))];
        let echo = input.map(|message| {
            Ok(match message? {
                ExecRequest::Input(ExecInput::Stdin(data)) => ExecOutput::Stdout(data),
                ExecRequest::Input(ExecInput::Resize(size)) => ExecOutput::Stdout(Bytes::from(format!("{size:?}"))),
                ExecRequest::Input(ExecInput::End) => ExecOutput::Exit(-3),
                ExecRequest::Start(_) => return Err(Refusal::new(RefusalKind::Invalid, "started twice")),
            })
        });
        Ok(stream::iter(started).chain(echo).boxed())
    }
}

/// A daemon's socket in a folder of its own; it stops when the sender is dropped.
async fn socket(folder: &Path) -> Result<(ControlClient, oneshot::Sender<()>)> {
    let path = folder.join("skep.sock");
    let listener = UnixListener::bind(&path)?;
    let (stop, stopped) = oneshot::channel();
    let server = Server::new().control(Arc::new(Fake::new(1)));
    tokio::spawn(server.serve_unix(listener, async {
        let _ = stopped.await;
    }));
    Ok((ControlClient::new(connect_unix(&path).await?), stop))
}

#[tokio::test]
async fn the_caller_of_the_socket_is_known() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (client, _stop) = socket(folder.path()).await?;
    let info = client.info(()).await?;
    let pid = std::process::id();
    assert!(info.ca_certificate.starts_with("Local { uid: "), "{}", info.ca_certificate);
    assert!(info.ca_certificate.contains(&format!("pid: Some({pid})")), "{}", info.ca_certificate);
    Ok(())
}

#[tokio::test]
async fn readers_get_objects_but_no_secrets() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (client, _stop) = socket(folder.path()).await?;
    (0..50).for_each(|seed| assert_without_credentials(&Fake::new(seed)));
    let fake = Fake::new(1).cluster;
    let filter = Filter::default;
    assert_eq!(client.nodes(filter()).await?.len(), 1);
    assert_eq!(client.services(filter()).await?.len(), 2);
    assert_eq!(client.tasks(filter()).await?[0].id, fake.tasks.values().next().expect("one").id);
    assert_eq!(client.networks(filter()).await?[0], **fake.networks.values().next().expect("one"));
    assert_eq!(client.configs(filter()).await?[0], **fake.configs.values().next().expect("one"));
    assert_eq!(client.stacks(filter()).await?.len(), 1);
    let secret = client.secret("any").await?;
    assert_eq!(secret.name, fake.secrets.values().next().expect("one").name);
    assert!(secret.contents.revisions.values().all(|revision| revision.data.is_empty()));
    assert!(client.services(filter()).await?.iter().all(|s| s.spec.task.container.registry_auth.is_none()));
    let cluster = client.get(GetRequest { kind: Kind::Cluster, wanted: String::new() }).await?.into_object();
    match cluster {
        Object::Cluster(config) => {
            assert_eq!((config.ca_key.as_str(), config.join_tokens.worker.as_str()), ("", ""));
            assert_eq!(config.unlock_key, None);
        }
        other => panic!("asked for the cluster, got a {}", other.kind()),
    }
    Ok(())
}

/// No drawn object keeps credentials once it is readable.
fn assert_without_credentials(fake: &Fake) {
    for kind in [Kind::Service, Kind::Task, Kind::Stack] {
        for object in fake.objects(kind) {
            let auth_free = |text: String| !text.contains("registry_auth: Some");
            assert!(auth_free(format!("{:?}", Readable::from(object))));
        }
    }
}

#[tokio::test]
async fn a_refusal_arrives_with_its_kind_and_its_words() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (client, _stop) = socket(folder.path()).await?;
    let refusal = client.service("missing").await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NotFound);
    assert_eq!(refusal.message, "service `missing` not found; did you mean `counter_web`?");

    let mut events = client.watch(WatchRequest { after: Version(4) }).await?;
    for version in 5..8 {
        assert_eq!(events.next().await.expect("an event")?.version, Version(version));
    }
    let refusal = events.next().await.expect("the refusal").unwrap_err();
    assert_eq!(refusal, Refusal::new(RefusalKind::Unavailable, "the quorum is gone"));

    let wrong = stream::iter([ExecRequest::Input(ExecInput::End)]);
    assert_eq!(client.exec(wrong).await.err().expect("refused").kind, RefusalKind::Invalid);
    Ok(())
}

#[tokio::test]
async fn events_say_where_the_memory_begins_and_what_happened() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (client, _stop) = socket(folder.path()).await?;
    let request = EventsRequest { since: Some(Timestamp(5)), until: Some(Timestamp(9)) };
    let told: Vec<EventMessage> = client.events(request).await?.map(|message| message.expect("told")).collect().await;
    assert_eq!(told[0], EventMessage::BeginsAt(Timestamp(9)));
    let EventMessage::Event(event) = &told[1] else { panic!("{told:?}") };
    assert_eq!((event.at, event.action, event.attributes["name"].as_str()), (Timestamp(5), EventAction::Update, "web"));
    Ok(())
}

#[tokio::test]
async fn exec_carries_bytes_sizes_and_the_exit_code() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (client, _stop) = socket(folder.path()).await?;
    let spec = ExecSpec { argv: vec!["sh".to_owned(), "-c".to_owned()], tty: true, ..ExecSpec::default() };
    let input = stream::iter([
        ExecRequest::Start(ExecTarget { task: "web.1".to_owned(), spec }),
        ExecRequest::Input(ExecInput::Stdin(Bytes::from_static(b"\x00\xff"))),
        ExecRequest::Input(ExecInput::Resize(TerminalSize { rows: 24, columns: 80 })),
        ExecRequest::Input(ExecInput::End),
    ]);
    let output: Vec<ExecOutput> = client.exec(input).await?.map(|output| output.expect("echoed")).collect().await;
    let expected = [
        ExecOutput::Started,
        ExecOutput::Stderr(Bytes::from_static(b"sh -c")),
        ExecOutput::Stdout(Bytes::from_static(b"\x00\xff")),
        ExecOutput::Stdout(Bytes::from_static(b"TerminalSize { rows: 24, columns: 80 }")),
        ExecOutput::Exit(-3),
    ];
    assert_eq!(output, expected);
    Ok(())
}

#[tokio::test]
async fn a_stack_with_all_its_secrets_fits_one_request() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (client, _stop) = socket(folder.path()).await?;
    let secret = |number: u32| NewContent {
        name: format!("secret-{number}"),
        labels: draw(1),
        data: Bytes::from(vec![7; 500 * 1024]),
        template: draw(u64::from(number)),
    };
    let request = DeployRequest {
        name: "counter".to_owned(),
        services: vec![draw(1), draw(2)],
        networks: vec![draw(3)],
        secrets: (0..40).map(secret).collect(),
        configs: vec![],
        prune: Prune::No,
        mode: DeployMode::Apply,
    };
    let deployed = client.deploy_stack(request).await?;
    assert_eq!(deployed.objects.len(), 40);
    assert!(deployed.objects.iter().all(|object| object.id == "512000"));
    Ok(())
}

#[tokio::test]
async fn updates_name_what_they_change() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (client, _stop) = socket(folder.path()).await?;
    for seed in 0..20 {
        let service =
            ServiceUpdate { id: draw(seed), expected: Version(seed), spec: draw(seed), as_given: seed % 2 == 0 };
        let request = UpdateRequest::Service(Box::new(service));
        assert_eq!(client.update(request.clone()).await?.id, format!("{request:?}"));
        for request in [CreateRequest::Network(draw(seed)), CreateRequest::ServiceAsGiven(Box::new(draw(seed)))] {
            assert_eq!(client.create(request.clone()).await?.id, format!("{request:?}"));
        }
        let to = Some(Version(seed));
        let request = RollbackServiceRequest { service: "web".to_owned(), to };
        assert_eq!(client.rollback_service(request.clone()).await?.id, format!("{request:?}"));
        let request = RollbackStackRequest { stack: "demo".to_owned(), to: None };
        assert_eq!(client.rollback_stack(request.clone()).await?.warnings, [format!("{request:?}")]);
    }
    Ok(())
}

#[tokio::test]
async fn no_daemon_is_told_apart_from_a_closed_door() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("skep.sock");
    assert!(matches!(connect_unix(&path).await, Err(ConnectError::NoDaemon { .. })));
    // A socket that a killed daemon left behind.
    drop(UnixListener::bind(&path)?);
    let error = connect_unix(&path).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoDaemon { .. }));
    assert!(error.to_string().contains("skep init"), "{error}");
    Ok(())
}
