//! Templates and what becomes of them: values, blocks, and each way in which one is refused.

use std::sync::Arc;

use expect_test::{Expect, expect};
use skep_model::{DesiredState, IdSource, Labels, Meta, TaskSpec, TaskState, TaskStatus, Timestamp};

use super::*;

fn task() -> Task {
    let labels = [("tier", "front"), ("zone", "a")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    Task {
        id: IdSource::from_seed(1).next_id(),
        meta: Meta::default(),
        service: IdSource::from_seed(2).next_id(),
        service_name: "web".to_owned(),
        slot: Slot::Replica(2),
        spec: Arc::new(TaskSpec::new("nginx:1")),
        spec_version: Default::default(),
        networks: Vec::new(),
        host_ports: Vec::new(),
        node: None,
        desired: DesiredState::Running,
        status: TaskStatus::new(TaskState::Assigned, Timestamp(0), ""),
        not_before: None,
        failures_before: 0,
        iteration: None,
        running_since: None,
        withdrawn: false,
        generic: Vec::new(),
        stop_reason: None,
        home: None,
        service_labels: Labels::from(labels),
    }
}

fn show(source: &str) -> String {
    let facts =
        NodeFacts { id: "node1".into(), hostname: "host".into(), os: "linux".into(), architecture: "x86_64".into() };
    let outside = |function: &str, name: &str| match (function, name) {
        ("secret", "password") => Ok("hush".to_owned()),
        ("env", "EMPTY") => Ok(String::new()),
        _ => Err(format!("no {function} `{name}`")),
    };
    render(source, &task(), &facts, &outside).unwrap_or_else(|error| format!("! {error}"))
}

fn check(cases: &[&str], expected: Expect) {
    let shown: Vec<String> = cases.iter().map(|case| format!("{case:?}\n    {:?}\n", show(case))).collect();
    expected.assert_eq(&shown.concat());
}

#[test]
fn values_and_functions_are_swarms_and_gos() {
    check(
        &[
            "plain } text {",
            "{{.Service.Name}}.{{ .Task.Slot }} on {{.Node.Hostname}} {{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}",
            "{{.Service.Labels.tier}} {{index .Service.Labels \"zone\"}} {{index .Service.Labels \"none\"}} {{.Service.Labels}}",
            "{{secret \"password\"}}{{env \"EMPTY\"}}",
            "{{join \"-\" .Service.Name .Task.Slot \"x\"}} {{\"a}}b\"}} {{`c\"d`}} {{-7}} {{true}}",
            "{{printf \"%s=%d%% %q %v %t\" .Service.Name 3 \"a\\\"b\" 4 false}}",
            "{{print 1 2 \"x\" 3}} {{println \"a\" 1}}{{len .Service.Name}}{{len .Service.Labels}}",
            "{{.Service.Name | printf \"%s-%s\" \"x\" | printf \"<%s>\"}} {{(printf \"%s\" \"y\") | len}}",
            "{{and \"\" \"x\"}}|{{and \"x\" \"y\"}}|{{or \"\" \"y\"}}|{{or 0 \"\"}}|{{not \"\"}}|{{\"z\" | or \"\"}}",
            "{{eq .Task.Slot \"1\" \"2\"}} {{ne 1 2}} {{lt 1 2}} {{ge \"b\" \"a\"}} {{le 2 1}} {{gt 1 1}}",
        ],
        expect![[r#"
            "plain } text {"
                "plain } text {"
            "{{.Service.Name}}.{{ .Task.Slot }} on {{.Node.Hostname}} {{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}"
                "web.2 on host linux/x86_64"
            "{{.Service.Labels.tier}} {{index .Service.Labels \"zone\"}} {{index .Service.Labels \"none\"}} {{.Service.Labels}}"
                "front a  map[tier:front zone:a]"
            "{{secret \"password\"}}{{env \"EMPTY\"}}"
                "hush"
            "{{join \"-\" .Service.Name .Task.Slot \"x\"}} {{\"a}}b\"}} {{`c\"d`}} {{-7}} {{true}}"
                "web-2-x a}}b c\"d -7 true"
            "{{printf \"%s=%d%% %q %v %t\" .Service.Name 3 \"a\\\"b\" 4 false}}"
                "web=3% \"a\\\"b\" 4 false"
            "{{print 1 2 \"x\" 3}} {{println \"a\" 1}}{{len .Service.Name}}{{len .Service.Labels}}"
                "1 2x3 a 1\n32"
            "{{.Service.Name | printf \"%s-%s\" \"x\" | printf \"<%s>\"}} {{(printf \"%s\" \"y\") | len}}"
                "<x-web> 1"
            "{{and \"\" \"x\"}}|{{and \"x\" \"y\"}}|{{or \"\" \"y\"}}|{{or 0 \"\"}}|{{not \"\"}}|{{\"z\" | or \"\"}}"
                "|y|y||true|z"
            "{{eq .Task.Slot \"1\" \"2\"}} {{ne 1 2}} {{lt 1 2}} {{ge \"b\" \"a\"}} {{le 2 1}} {{gt 1 1}}"
                "true true true true false false"
        "#]],
    );
}

#[test]
fn blocks_choose_repeat_and_trim() {
    check(
        &[
            "{{if eq .Task.Slot \"1\"}}first{{else if eq .Task.Slot \"2\"}}second{{else}}other{{end}}",
            "{{if .Service.Labels}}labels{{end}}{{if env \"EMPTY\"}}set{{else}}unset{{end}}",
            "{{range $key, $value := .Service.Labels}}{{$key}}={{$value}};{{end}} {{range .Service.Labels}}<{{.}}>{{end}}",
            "{{with .Node}}{{.Hostname}} of {{$.Service.Name}}{{end}}{{with \"\"}}x{{else}}empty{{end}}",
            "{{$x := .Task.Slot}}{{if true}}{{$x := \"inner\"}}{{$x}}{{end}}{{$x}}{{$x = \"new\"}}{{$x}}",
            "a  {{- \" b \" -}}  c {{/* nothing }} */}}d\n{{- /* nothing */ -}}\n e",
            "{{if true}}\n  x\n{{- end}}\n",
        ],
        expect![[r#"
            "{{if eq .Task.Slot \"1\"}}first{{else if eq .Task.Slot \"2\"}}second{{else}}other{{end}}"
                "second"
            "{{if .Service.Labels}}labels{{end}}{{if env \"EMPTY\"}}set{{else}}unset{{end}}"
                "labelsunset"
            "{{range $key, $value := .Service.Labels}}{{$key}}={{$value}};{{end}} {{range .Service.Labels}}<{{.}}>{{end}}"
                "tier=front;zone=a; <front><a>"
            "{{with .Node}}{{.Hostname}} of {{$.Service.Name}}{{end}}{{with \"\"}}x{{else}}empty{{end}}"
                "host of webempty"
            "{{$x := .Task.Slot}}{{if true}}{{$x := \"inner\"}}{{$x}}{{end}}{{$x}}{{$x = \"new\"}}{{$x}}"
                "inner2new"
            "a  {{- \" b \" -}}  c {{/* nothing }} */}}d\n{{- /* nothing */ -}}\n e"
                "a b c de"
            "{{if true}}\n  x\n{{- end}}\n"
                "\n  x\n"
        "#]],
    );
}

#[test]
fn what_cannot_be_rendered_is_told_with_its_place() {
    check(
        &[
            "one\n two {{.Service.Nam}}",
            "{{.Service}}",
            "{{.Service.Labels.none}}",
            "{{.Service.Name.Length}}",
            "{{secret \"other\"}}",
            "{{secret}}",
            "{{toUpper .Service.Name}}",
            "{{template \"x\"}}",
            "{{define \"x\"}}{{end}}",
            "{{if true}}x",
            "{{end}}",
            "{{if true}}{{else}}{{else}}{{end}}",
            "{{.Service.Name",
            "{{}}",
            "{{if}}x{{end}}",
            "{{$x}}",
            "{{.Service.Name \"x\"}}",
            "{{\"open}}",
            "{{1.5}}",
            "{{'c'}}",
            "{{eq 1 \"1\"}}",
            "{{printf \"%5s\" \"x\"}}",
            "{{printf \"%s\"}}",
            "{{range .Service.Name}}{{end}}",
            "{{(len \"x\"}}",
            "{{len \"x\")}}",
            "{{/* open",
        ],
        expect![[r#"
            "one\n two {{.Service.Nam}}"
                "! line 2, column 8: `.Nam` is not known; use .ID, .Labels, .Name"
            "{{.Service}}"
                "! line 1, column 1: this has parts and cannot be printed as a whole: use .ID, .Labels, .Name"
            "{{.Service.Labels.none}}"
                "! line 1, column 3: no label is named `none`; there are tier, zone"
            "{{.Service.Name.Length}}"
                "! line 1, column 3: `.Length` is asked of a text, which has no parts"
            "{{secret \"other\"}}"
                "! line 1, column 3: no secret `other`"
            "{{secret}}"
                "! line 1, column 3: `secret` takes one name: {{secret \"NAME\"}}"
            "{{toUpper .Service.Name}}"
                "! line 1, column 3: the function `toUpper` is not supported in templates; there are env, secret, config, join, and, or, not, eq, ne, lt, le, gt, ge, len, index, print, println, printf"
            "{{template \"x\"}}"
                "! line 1, column 1: `template` is not supported in templates; use if, with and range"
            "{{define \"x\"}}{{end}}"
                "! line 1, column 1: `define` is not supported in templates; use if, with and range"
            "{{if true}}x"
                "! line 1, column 1: this `if` has no `{{end}}`"
            "{{end}}"
                "! line 1, column 1: `{{end}}` ends no if, with or range"
            "{{if true}}{{else}}{{else}}{{end}}"
                "! line 1, column 20: a second `else`"
            "{{.Service.Name"
                "! line 1, column 1: the action that begins here has no closing `}}`"
            "{{}}"
                "! line 1, column 1: an action says nothing: `{{}}`"
            "{{if}}x{{end}}"
                "! line 1, column 1: a value is missing here"
            "{{$x}}"
                "! line 1, column 3: the variable `$x` is not known"
            "{{.Service.Name \"x\"}}"
                "! line 1, column 3: only a function can be given a value; this is none"
            "{{\"open}}"
                "! line 1, column 3: a \" is not closed on its line"
            "{{1.5}}"
                "! line 1, column 3: `1.5` is not a whole number in digits"
            "{{'c'}}"
                "! line 1, column 3: `'` has no meaning in a template"
            "{{eq 1 \"1\"}}"
                "! line 1, column 3: `eq` cannot compare a number with a text"
            "{{printf \"%5s\" \"x\"}}"
                "! line 1, column 3: `printf` knows %s, %q, %d, %t, %v and %%, not %5"
            "{{printf \"%s\"}}"
                "! line 1, column 3: `printf` has no value for its %s"
            "{{range .Service.Name}}{{end}}"
                "! line 1, column 1: `range` goes over labels, not over a text"
            "{{(len \"x\"}}"
                "! line 1, column 3: this `(` is not closed"
            "{{len \"x\")}}"
                "! line 1, column 10: this `)` closes nothing"
            "{{/* open"
                "! line 1, column 1: a comment has no closing */"
        "#]],
    );
}

#[test]
fn what_grows_without_end_is_refused() {
    let deep = show(&format!("{}x", "{{if true}}".repeat(100)));
    assert!(deep.contains("more than 64 blocks within each other"), "{deep}");
    let wide = show(&("{{range $.Service.Labels}}".repeat(20) + &"{{end}}".repeat(20)));
    assert!(wide.contains("takes more than 100000 steps"), "{wide}");
    let long = show(&("{{range $.Service.Labels}}".repeat(14) + &"x".repeat(1000) + &"{{end}}".repeat(14)));
    assert!(long.contains("has more than 4194304 bytes"), "{long}");
}
