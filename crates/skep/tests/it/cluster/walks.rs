//! The two walks that everybody who comes from Swarm tries first.

use skep_lab::find_tool;

use super::Cluster;
use super::network::{WHO, get};

#[test]
fn stacks_meet_on_a_network_that_neither_of_them_owns_and_redeploy_in_either_order() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    let web = |version: &str| {
        format!(
            "{WHO}services:\n  web: {{ <<: *who, environment: {{ V: \"{version}\" }}, networks: [proxy], \
             deploy: {{ placement: {{ constraints: [\"node.hostname == n2\"] }} }} }}\n\
             networks: {{ proxy: {{ external: true }} }}\n"
        )
    };
    let front = |version: &str| {
        format!(
            "services:\n  front: {{ <<: *idle, environment: {{ V: \"{version}\" }}, networks: [proxy], \
             deploy: {{ placement: {{ constraints: [\"node.hostname == n3\"] }} }} }}\n\
             networks: {{ proxy: {{ external: true }} }}\n"
        )
    };
    let missing = world.deploy("a", &web("1"));
    assert!(!missing.is_ok() && missing.stderr.contains("skep network create"), "{missing}");
    world.ok(&["network", "create", "-d", "overlay", "--attachable", "proxy"]);
    let reach = || world.until("front reaches web", || get(world, "b_front.1", "http://a_web/host"));
    world.up("a", &web("1"));
    world.up("b", &front("1"));
    reach();
    world.up("a", &web("2"));
    reach();
    world.up("b", &front("2"));
    world.up("a", &web("3"));
    reach();
    let used = world.refused(&["network", "rm", "proxy"]);
    assert!(used.contains("proxy"), "{used}");
    world.ok(&["stack", "rm", "a"]);
    world.ok(&["stack", "rm", "b"]);
    world.until("nothing uses the network", || match world.skep(&["network", "rm", "proxy"]) {
        removed if removed.is_ok() => Ok(()),
        refused => Err(refused.to_string()),
    });
}

#[test]
fn a_registry_that_is_a_service_serves_pulls_on_every_node_wherever_it_runs() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    let program = find_tool("docker-registry").unwrap();
    let storage = world.shared_folder("registry");
    world.up(
        "r",
        &format!(
            "configs:\n  settings: {{ content: \"version: 0.1\\nstorage: {{ filesystem: {{ rootdirectory: /data }} }}\\nhttp: {{ addr: ':5000' }}\\n\" }}\n\
             services:\n  registry:\n    image: ${{REGISTRY}}/python:3-slim\n    command: [/registry, serve, /settings.yml]\n\
             \x20   stop_grace_period: 1s\n    ports: [\"5000:5000\"]\n    configs: [{{ source: settings, target: /settings.yml }}]\n\
             \x20   volumes: [\"{}:/registry:ro\", \"{}:/data\"]\n",
            program.display(),
            storage.display()
        ),
    );
    let push = |tag: &str| {
        let (from, to) =
            (format!("docker://{}/busybox:1", world.images()), format!("docker://127.0.0.1:5000/app:{tag}"));
        let args = ["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to];
        world.until("an image is pushed", || match cluster.node(2).run("skopeo", &args).unwrap() {
            pushed if pushed.is_ok() => Ok(()),
            failed => Err(failed.to_string()),
        });
    };
    let everywhere = |stack: &str, tag: &str| {
        let image = format!("127.0.0.1:5000/app:{tag}");
        world.up(stack, &format!("services: {{ a: {{ <<: *idle, image: \"{image}\", deploy: {{ mode: global }} }} }}"));
        world.running(&format!("{stack}_a"))
    };
    push("1");
    assert_eq!(everywhere("one", "1").len(), 3);
    let its_node = world.running("r_registry")[0].node.clone();
    world.ok(&["node", "update", "--availability", "drain", &its_node]);
    world.until("the registry runs elsewhere", || match world.running("r_registry").as_slice() {
        [task] if task.node != its_node => Ok(()),
        tasks => Err(format!("{tasks:?}")),
    });
    push("2");
    assert_eq!(everywhere("two", "2").len(), 2, "all but the drained one");
}
