//! `service create` and `service update`: flags become a spec, and the spec a container, looked at from inside.

use std::thread;

use serde_json::Value;

use crate::world::World;

impl World {
    /// `service create` of a container that does nothing.
    fn create(&self, name: &str, flags: &[&str]) -> String {
        let image = format!("{}/busybox:1", self.images());
        let start = ["service", "create", "-q", "--name", name, "--stop-grace-period", "1s"];
        self.ok(&[&start, flags, &[&image, "sleep", "100000"]].concat()).trim().to_owned()
    }

    /// `service update`, which must succeed within its wait.
    fn update(&self, name: &str, flags: &[&str]) {
        let line = [&["service", "update", "-q", "--update-monitor", "1s"], flags, &[name]].concat();
        assert_eq!(self.ok(&line), format!("{name}\n"));
    }

    /// The same for a job, which has no rules of updates.
    fn update_job(&self, name: &str, flags: &[&str]) {
        self.ok(&[&["service", "update", "-q"], flags, &[name]].concat());
    }

    fn spec(&self, name: &str) -> Value {
        let text = self.ok(&["service", "inspect", "--format", "json", name]);
        let object: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        object.get(0).unwrap_or(&object)["Spec"].clone()
    }
}

#[test]
fn every_family_of_flags_is_found_in_the_container() {
    let world = World::new();
    let secret = world.file("secret", "hidden");
    world.ok(&["secret", "create", "db", secret.to_str().unwrap()]);
    world.ok(&["config", "create", "conf", secret.to_str().unwrap()]);
    world.ok(&["network", "create", "back"]);
    let env = world.file("a.env", "# none\nFROM_FILE=file \"literal\"\nBOTH=file\n");
    let shared = world.shared_folder("shared");
    let bind = format!("type=bind,source={},target=/shared,readonly", shared.display());
    let id = world.create(
        "web",
        &[
            &["--env-file", env.to_str().unwrap(), "-e", "BOTH=own", "-e", "EMPTY="][..],
            &["--secret", "source=db,target=/etc/db,uid=33,gid=34,mode=0400", "--secret", "db", "--config", "conf"],
            &[
                "--mount",
                &bind,
                "--mount",
                "source=data,target=/data",
                "--mount",
                "type=tmpfs,target=/tmpfs,tmpfs-size=2m",
            ],
            &[
                "--network",
                "name=back,alias=store",
                "--hostname",
                "{{.Service.Name}}-{{.Task.Slot}}-{{.Node.Hostname}}",
            ],
            &["--host", "other:10.9.8.7", "--dns-search", "example.org", "--dns-option", "ndots:3"],
            &["--user", "1234:5678", "--group", "4711", "--workdir", "/made", "--init"],
            &[
                "--cap-drop",
                "ALL",
                "--cap-add",
                "chown",
                "--ulimit",
                "nofile=111:222",
                "--sysctl",
                "net.ipv4.ip_unprivileged_port_start=7",
            ],
            &[
                "--limit-pids",
                "77",
                "--limit-memory",
                "64m",
                "--limit-cpu",
                "0.5",
                "--read-only",
                "--oom-score-adj",
                "100",
            ],
            &["-l", "a=b", "--container-label", "c=d", "--constraint", "node.role==manager", "--stop-signal", "SIGINT"],
            &["--log-opt", "max-size=1m", "--restart-max-attempts", "4", "--replicas-max-per-node", "2"],
        ]
        .concat(),
    );
    assert_eq!(world.ok(&["service", "ls", "--no-trunc", "-q"]).trim(), id, "what was printed is its id");
    let task = "web.1";
    let environment = world.sh(task, "env");
    for line in ["FROM_FILE=file \"literal\"", "BOTH=own", "EMPTY="] {
        assert!(environment.lines().any(|has| has == line), "{line} in {environment}");
    }
    assert_eq!(
        world.sh(task, "cat /run/secrets/db /conf; stat -c '%u %g %a' /etc/db /conf"),
        "hiddenhidden33 34 400\n0 0 444"
    );
    assert_eq!(world.sh(task, "pwd; hostname; id -u; id -g"), "/made\nweb-1-n1\n1234\n5678");
    assert!(world.sh(task, "grep Groups: /proc/1/status").contains("4711"));
    assert_eq!(world.sh(task, "grep other /etc/hosts | cut -f1"), "10.9.8.7");
    let resolver = world.sh(task, "cat /etc/resolv.conf");
    assert!(resolver.contains("search example.org") && resolver.contains("ndots:3"), "{resolver}");
    let mounts = world.sh(task, "grep -E ' /(shared|data|tmpfs) ' /proc/mounts | cut -d' ' -f2,4");
    assert!(mounts.lines().any(|line| line.starts_with("/shared ro")), "{mounts}");
    assert!(mounts.contains("/tmpfs rw") && mounts.contains("size=2048k") && mounts.contains("/data rw"), "{mounts}");
    assert_eq!(world.sh(task, "ulimit -Sn; ulimit -Hn"), "111\n222");
    assert_eq!(world.sh(task, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "7");
    assert_eq!(world.sh(task, "grep CapBnd /proc/self/status | cut -f2"), "0000000000000001");
    assert!(!world.exec(task, &["touch", "/file"]).is_ok(), "its root is read only");
    assert_ne!(world.sh(task, "cat /proc/1/comm"), "sleep", "a reaper is the first process");
    let lookup = world.sh(task, "nslookup -type=a store 127.0.0.11");
    assert!(lookup.contains("Address: "), "{lookup}");
    let spec = world.spec("web");
    assert_eq!(spec["Labels"]["a"], "b");
    let template = &spec["TaskTemplate"];
    assert_eq!(template["ContainerSpec"]["Labels"]["c"], "d");
    assert_eq!(template["ContainerSpec"]["StopSignal"], "SIGINT");
    assert_eq!(template["ContainerSpec"]["OomScoreAdj"], 100);
    assert_eq!(
        template["Resources"]["Limits"],
        serde_json::json!({ "NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20, "Pids": 77 })
    );
    assert_eq!(template["RestartPolicy"]["MaxAttempts"], 4);
    assert_eq!(template["Placement"]["MaxReplicas"], 2);
    assert_eq!(template["LogDriver"]["Options"]["max-size"], "1m");
    assert!(
        template["ContainerSpec"]["Image"].as_str().unwrap().contains("@sha256:"),
        "the image is pinned: {template}"
    );
}

#[test]
fn updates_change_what_they_name_and_keep_the_rest() {
    let world = World::new();
    let content = world.file("content", "one");
    world.ok(&["secret", "create", "one", content.to_str().unwrap()]);
    world.ok(&["secret", "create", "two", content.to_str().unwrap()]);
    world.create("web", &["-e", "A=1", "-e", "B=2", "--secret", "one", "-p", "8080:80", "--label", "x=1"]);
    let variable = |name: &str| world.sh("web.1", &format!("echo ${name}"));
    world.update("web", &["--env-rm", "A", "--env-add", "B=3", "--secret-rm", "one", "--secret-add", "two"]);
    assert_eq!((variable("A"), variable("B")), (String::new(), "3".to_owned()));
    assert_eq!(world.sh("web.1", "ls /run/secrets"), "two");
    world.update("web", &["--args", "sleep 100001", "--user", "33", "--mount-add", "type=tmpfs,target=/t"]);
    assert_eq!(
        world.sh("web.1", "tr '\\0' ' ' < /proc/1/cmdline; id -u; grep -c ' /t ' /proc/mounts"),
        "sleep 100001 33\n1"
    );
    assert_eq!(variable("B"), "3", "what was not named stays");
    world.update(
        "web",
        &["--mount-rm", "/t", "--host-add", "db:10.0.0.9", "--dns-add", "9.9.9.9", "--limit-memory", "64m"],
    );
    assert_eq!(world.sh("web.1", "grep -c ' /t ' /proc/mounts; grep db /etc/hosts | cut -f1"), "0\n10.0.0.9");
    let before = world.running("web")[0].id.clone();
    world.update("web", &["--label-add", "y=3", "--label-rm", "x"]);
    assert_eq!(world.running("web")[0].id, before, "labels of the service restart nothing");
    assert_eq!(world.spec("web")["Labels"], serde_json::json!({ "y": "3" }));
    world.update("web", &["--force"]);
    assert_ne!(world.running("web")[0].id, before, "--force replaces every task");
    world.update("web", &["--network-add", "default", "--constraint-add", "node.role==manager", "--read-only", "-t"]);
    assert_eq!(world.spec("web")["TaskTemplate"]["ContainerSpec"]["TTY"], true);
    world.update("web", &["--publish-rm", "80", "--publish-add", "8090:80", "--replicas", "2", "--no-healthcheck"]);
    world.until_running("web", 2);
    let ports = world.ok(&["service", "ls", "--format", "{{.Ports}}"]);
    assert_eq!(ports.trim(), "*:8090->80/tcp");
    let refused = world.refused(&["service", "update", "--image", "", "web"]);
    assert!(refused.contains("not the name of an image"), "{refused}");
    let refused = world.refused(&["service", "update", "--secret-add", "three", "web"]);
    assert!(refused.contains("secret three not found"), "{refused}");
    let refused = world.refused(&["service", "update", "--rollback", "--force", "web"]);
    assert!(refused.contains("other flags may not be combined with --rollback"), "{refused}");
}

#[test]
fn a_published_port_of_a_service_without_a_network_answers() {
    let world = World::new();
    let image = format!("{}/busybox:1", world.images());
    let serve = "mkdir /w; echo hello > /w/index.html; exec httpd -f -p 80 -h /w";
    world.ok(&["service", "create", "-q", "--name", "web", "-p", "8080:80", &image, "sh", "-c", serve]);
    let answer = world.until("the port answers", || world.get_inside([127, 0, 0, 1], 8080));
    assert_eq!(answer.body.trim(), "hello");
    world.update("web", &["--publish-rm", "80", "--publish-add", "8081:80"]);
    world.until("the new port answers", || world.get_inside([127, 0, 0, 1], 8081));
    assert!(world.get_inside([127, 0, 0, 1], 8080).is_err(), "and the old one no more");
    assert!(world.ok(&["network", "ls", "--format", "{{.Name}}"]).lines().any(|name| name == "default"));
}

#[test]
fn edits_of_two_people_at_once_are_both_made() {
    let world = World::new();
    world.create("web", &[]);
    thread::scope(|scope| {
        for number in 0..6 {
            let world = &world;
            scope.spawn(move || {
                world.ok(&["service", "update", "-d", "--env-add", &format!("V{number}={number}"), "web"])
            });
        }
    });
    let env = world.spec("web")["TaskTemplate"]["ContainerSpec"]["Env"].clone();
    assert_eq!(env.as_array().map(Vec::len), Some(6), "{env}");
}

#[test]
fn what_a_cluster_cannot_do_is_refused_before_anything_is_made() {
    let world = World::new();
    let image = format!("{}/busybox:1", world.images());
    world.create("taken", &["-p", "8080:80"]);
    for (flags, word) in [
        (&["--name", "taken"][..], "already exists"),
        (&["--name", "x-"], "name must be valid"),
        (&["--name", "b", "-p", "8080:81"], "8080"),
        (&["--name", "b", "--network", "nowhere"], "network nowhere not found"),
        (&["--name", "b", "--secret", "nothing"], "secret nothing not found"),
        (
            &["--name", "b", "--mode", "replicated-job", "--update-parallelism", "2"],
            "jobs may not have an update config",
        ),
        (&["--name", "b", "--network", "host", "-p", "8081:80"], "port 80 cannot be published"),
        (&["--name", "b", "--log-driver", "syslog"], "not supported"),
    ] {
        let refused = world.refused(&[&["service", "create"], flags, &[&image]].concat());
        assert!(refused.contains(word), "{flags:?}: {refused}");
    }
    assert_eq!(world.ok(&["service", "ls", "--format", "{{.Name}}"]), "taken\n");
}

#[test]
fn a_service_that_cannot_come_up_says_why_and_a_global_one_is_not_scaled() {
    let world = World::new();
    let image = format!("{}/busybox:1", world.images());
    let create = |flags: &[&str], command: &[&str]| {
        world.skep(&[&["service", "create", "--restart-delay", "100ms"], flags, &[&image], command].concat())
    };
    let failing = create(&["--name", "failing"], &["sh", "-c", "echo it is broken; exit 3"]);
    assert_eq!(failing.code, 1, "{failing}");
    assert!(failing.stderr.contains("keeps failing") && failing.stderr.contains("it is broken"), "{failing}");
    let nowhere = create(&["--name", "nowhere", "--constraint", "node.labels.x==y"], &["sleep", "9"]);
    assert_eq!(nowhere.code, 2, "{nowhere}");
    assert!(nowhere.stderr.contains("cannot be placed"), "{nowhere}");
    let slow = create(
        &[
            "--name",
            "slow",
            "--timeout",
            "1s",
            "--health-cmd",
            "false",
            "--health-interval",
            "1s",
            "--health-retries",
            "99",
        ],
        &["sleep", "999"],
    );
    assert_eq!(slow.code, 124, "{slow}");
    world.ok(&["service", "create", "-q", "--name", "all", "--mode", "global", &image, "sleep", "9999"]);
    let refused = world.refused(&["service", "update", "--replicas", "2", "all"]);
    assert!(refused.contains("global service"), "{refused}");
    let made = world.ok(&["service", "create", "-d", &image, "sleep", "9999"]);
    let name = world.ok(&["service", "ls", "--format", "{{.ID}} {{.Name}}"]);
    let row = name.lines().find(|row| made.starts_with(row.split(' ').next().unwrap())).unwrap().to_owned();
    assert!(row.contains(" busybox_"), "a name is made of the image's: {row}");
}

#[test]
fn a_job_is_created_by_flags_and_waited_for_until_it_is_done() {
    let world = World::new();
    let image = format!("{}/busybox:1", world.images());
    let job = ["--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "1"];
    world.ok(&[&["service", "create", "-q", "--name", "job"], &job[..], &[&image, "sh", "-c", "echo done"]].concat());
    assert_eq!(world.ok(&["service", "ls", "--format", "{{.Replicas}}"]), "0/1 (3/3 completed)\n");
    assert_eq!(world.ok(&["service", "logs", "--raw", "job"]).matches("done").count(), 3);
    world.update_job("job", &["--env-add", "A=1"]);
    assert_eq!(world.ok(&["service", "logs", "--raw", "job"]).matches("done").count(), 6, "an update runs it again");
    let refused = world.refused(&["service", "create", "--max-concurrent", "2", &image]);
    assert!(refused.contains("--max-concurrent belongs to jobs"), "{refused}");
}

#[test]
fn small_mistakes_are_told_and_change_nothing() {
    let world = World::new();
    world.create("web", &[]);
    let content = world.file("content", "one");
    let content = content.to_str().unwrap();
    for (line, word) in [
        (&["service", "scale", "web=two"][..], "`two` is not a number of replicas"),
        (&["service", "scale", "web"], "does not say how many"),
        (&["service", "scale", "web=2", "nobody=3"], "nobody"),
        (&["service", "ps", "web", "--filter", "desired-state=up"], "invalid desired-state filter: `up`"),
        (&["secret", "create", "--template-driver", "jinja", "sec", content], "`jinja` is not known; golang is"),
        (&["config", "create", "--driver", "vault", "conf", content], "not supported"),
        (&["unlock"], "this node is not locked"),
        (&["network", "create", "default"], "already exists"),
    ] {
        let refused = world.refused(line);
        assert!(refused.contains(word), "{line:?}: {refused}");
    }
    assert_eq!(world.running("web").len(), 1);
    assert_eq!(world.ok(&["secret", "ls", "-q"]), "");
}

#[test]
fn an_image_is_taken_as_it_is_written_when_that_is_asked_for() {
    let world = World::new();
    world.create("web", &["--no-resolve-image"]);
    let image = || world.spec("web")["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap().to_owned();
    assert!(!image().contains('@'), "{}", image());
    world.update("web", &["--image", &format!("{}/busybox:1", world.images())]);
    assert!(image().contains("@sha256:"), "{}", image());
    let pinned = image();
    world.update("web", &["--env-add", "A=1"]);
    assert_eq!(image(), pinned);
}

#[test]
fn logs_of_a_created_service_lie_in_files_of_the_size_that_was_asked_for() {
    let world = World::new();
    let image = format!("{}/busybox:1", world.images());
    let chatter =
        "i=0; while [ $i -lt 3000 ]; do echo line $i and some more words to fill it; i=$((i+1)); done; sleep 99999";
    world.ok(&[
        "service",
        "create",
        "-q",
        "--name",
        "web",
        "--log-opt",
        "max-size=10k",
        "--log-opt",
        "max-file=2",
        &image,
        "sh",
        "-c",
        chatter,
    ]);
    let text = world.until("the last line is there", || {
        let text = world.ok(&["service", "logs", "--raw", "web"]);
        if text.contains("line 2999 ") { Ok(text) } else { Err(text) }
    });
    assert!(!text.contains("line 1 and"), "the oldest are gone");
}
