//! Secrets and configs that are templates: what a task finds in them, and what becomes of one that cannot be rendered.

use crate::world::World;

const TEMPLATE: &str = "server {{.Service.Name}}.{{.Task.Slot}} on {{.Node.Hostname}} for {{env \"WHOM\"}} {{.Service.Labels.tier}}\n\
    {{- if eq .Task.Slot \"1\" }}\nfirst {{secret \"token\" | printf \"%q\"}} {{config \"plain\"}}{{end}}\n";

fn yaml(more: &str) -> String {
    format!(
        "services:\n  a:\n    <<: *idle\n    environment: {{ WHOM: \"of {{{{.Task.Slot}}}}\" }}\n\
         \x20   deploy: {{ labels: {{ tier: front }}, restart_policy: {{ condition: none }} }}\n\
         \x20   secrets: [token, url]\n    configs: [page, {{ source: plain, target: plain }}]\n{more}\
         secrets: {{ token: {{ file: ./token.txt }}, url: {{ file: ./url.txt, template_driver: golang }} }}\n\
         configs: {{ page: {{ file: ./page.txt, template_driver: golang }}, plain: {{ file: ./plain.txt }} }}\n"
    )
}

#[test]
fn templates_are_rendered_for_each_task_and_again_when_what_they_hold_changes() {
    let world = World::new();
    world.file("token.txt", "hush");
    world.file("plain.txt", "{{as it is}}");
    world.file("url.txt", "db://user:{{secret \"token\"}}@db");
    world.file("page.txt", TEMPLATE);
    let told = "    command: [\"sh\", \"-c\", \"trap 'cat /run/secrets/url >> /told' HUP; while :; do sleep 0.1; done\"]\n\
                \x20   x-skep: { on-change: SIGHUP }\n";
    world.up("s", &yaml(told));
    let node = world.sh("s_a.1", "cat /page");
    let hostname = world.ok(&["node", "ls", "--format", "{{.Hostname}}"]);
    let expected = format!("server s_a.1 on {} for of 1 front\nfirst \"hush\" {{{{as it is}}}}", hostname.trim());
    assert_eq!(node, expected);
    assert_eq!(world.sh("s_a.1", "cat /run/secrets/url; stat -c %a /run/secrets/url"), "db://user:hush@db444");
    let inspected = world.ok(&["config", "inspect", "s_page"]);
    assert!(inspected.contains("\"Templating\""), "{inspected}");

    // Another content of what the template holds: the same task has it rendered anew.
    let before = world.running("s_a")[0].id.clone();
    world.file("token.txt", "psst");
    world.up("s", &yaml(told));
    world.until("the container has been told", || match world.exec("s_a.1", &["cat", "/told"]).stdout {
        text if text == "db://user:psst@db" => Ok(()),
        text => Err(text),
    });
    assert_eq!(world.running("s_a")[0].id, before);
    // One that cannot be rendered any more leaves it as it is, and says so.
    world.file("url.txt", "db://{{secret \"nobody\"}}");
    world.start("s", &yaml(told));
    world.until("the task complains", || match world.running("s_a").as_slice() {
        [task] if task.error.contains("line 1, column 8") && task.id == before => Ok(()),
        tasks => Err(format!("{tasks:?}")),
    });
    assert_eq!(world.sh("s_a.1", "cat /run/secrets/url"), "db://user:psst@db");
}

#[test]
fn a_template_that_cannot_be_rendered_is_refused_with_its_place() {
    let world = World::new();
    for (name, text) in [("token.txt", "hush"), ("plain.txt", "text"), ("url.txt", "x")] {
        world.file(name, text);
    }
    world.file("page.txt", "one\ntwo {{ .Service.Nam }}\n");
    let outcome = world.deploy("s", &yaml(""));
    assert_eq!(outcome.code, 1, "{outcome}");
    let task = &world.tasks("s_a")[0];
    assert_eq!(task.state, "Rejected", "{task:?}");
    let place = "config s_page is a template: line 2, column 8: `.Nam` is not known; use .ID, .Labels, .Name";
    assert!(task.error.contains(place), "{task:?}");
    // By hand, and a driver that nobody knows.
    let file = world.file("hand.txt", "{{.Task.Slot}}");
    world.ok(&["config", "create", "--template-driver", "golang", "hand", file.to_str().unwrap()]);
    world.up("t", "services: { a: { <<: *idle, configs: [hand] } }\nconfigs: { hand: { external: true } }\n");
    assert_eq!(world.sh("t_a.1", "cat /hand"), "1");
    let refused =
        world.deploy("u", &yaml("").replace("template_driver: golang }, plain", "template_driver: jinja }, plain"));
    assert!(refused.stderr.contains("template_driver `jinja` is not known"), "{refused}");
}
