//! What users read when something is wrong: every mistake, its place, what would be right.

use expect_test::{Expect, expect};

use crate::{load, shown};

fn check(text: &str, expected: Expect) {
    let diagnostics = load(text).map(|loaded| format!("loaded\n{}", shown(&loaded.warnings)));
    expected.assert_eq(&diagnostics.unwrap_or_else(|errors| shown(&errors)));
}

#[test]
fn three_mistakes_are_three_errors() {
    check(
        "services:
  web:
    imge: nginx
    ports: [\"80:http\"]
    deploy:
      replicas: many
",
        expect![[r#"
            compose.yml:3:5: error: services.web has no attribute `imge`
                3 |     imge: nginx
                  |     ^^^^
                   help: did you mean `image`?
            compose.yml:4:13: error: invalid port `80:http`: `http` is not a port
                4 |     ports: ["80:http"]
                  |             ^^^^^^^^^
                   help: write "8080:80", "127.0.0.1:8080:80", "8000-8005:8000-8005/udp", or target: and published:
            compose.yml:6:17: error: services.web.deploy.replicas must be a whole number, not `many`
                6 |       replicas: many
                  |                 ^^^^
        "#]],
    );
}
