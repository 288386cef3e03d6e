//! Which task a service's connections lead to: from the file to the spec, and what is refused with its place.

use expect_test::expect;
use skep_model::{Feature, SessionAffinity};

use crate::{convert_with, converted};

#[test]
fn what_is_asked_of_the_choice_of_tasks_is_the_services_and_new() {
    let asked = |line: &str| {
        let text = format!("services: {{a: {{image: x, x-skep: {{{line}}}}}}}");
        let service = converted(&text).spec.services[0].clone();
        let new = service.needs().into_iter().filter(|(feature, _)| *feature == Feature::Balancing).count();
        (service.endpoint.session_affinity, service.endpoint.prefer_local, new)
    };
    assert_eq!(asked("session-affinity: client-ip"), (Some(SessionAffinity::ClientIp), false, 1));
    assert_eq!(asked("prefer-local: true"), (None, true, 1));
    assert_eq!(asked("session-affinity: none, prefer-local: false"), (None, false, 0));
}

#[test]
fn clients_that_choose_themselves_are_led_by_nobody() {
    let text = "services: {a: {image: x, deploy: {endpoint_mode: dnsrr}, x-skep: {session-affinity: client-ip, \
                prefer-local: true}}}";
    expect![[r#"
        compose.yml:1:85: error: services.a: x-skep.session-affinity has no effect with endpoint_mode: dnsrr
            1 | services: {a: {image: x, deploy: {endpoint_mode: dnsrr}, x-skep: {session-affinity: client-ip, prefer-local: true}}}
              |                                                                                     ^^^^^^^^^
               help: with dnsrr clients choose a task themselves; use endpoint_mode: vip, or remove the line
        compose.yml:1:110: error: services.a: x-skep.prefer-local has no effect with endpoint_mode: dnsrr
            1 | dnsrr}, x-skep: {session-affinity: client-ip, prefer-local: true}}}
              |                                                             ^^^^
               help: with dnsrr clients choose a task themselves; use endpoint_mode: vip, or remove the line
    "#]].assert_eq(&convert_with(text, &[]).unwrap_err());
}
