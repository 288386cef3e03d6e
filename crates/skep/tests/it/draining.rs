//! Tasks that stop while they are asked: who is with one finishes, and nobody new is led to it.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use skep_lab::http_get;

use crate::world::World;

/// A web server that ends at once when it is told to; `/slow` takes three seconds for its answer.
pub const WEB: &str = r#"
x-web: &web
  image: "${REGISTRY}/python:3-slim"
  ports: ["8080:80"]
  stop_grace_period: 1s
  command:
    - python3
    - -c
    - |
      import http.server, signal, time, os
      signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
      class Handler(http.server.BaseHTTPRequestHandler):
          def do_GET(self):
              parts = 30 if self.path == "/slow" else 1
              self.send_response(200)
              self.send_header("Content-Length", str(parts))
              self.end_headers()
              for part in range(parts):
                  if part: time.sleep(0.1)
                  self.wfile.write(b"x")
          def log_message(self, *_): pass
      http.server.ThreadingHTTPServer(("", 80), Handler).serve_forever()
  healthcheck:
    test: ["CMD", "python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 80), 1)"]
    interval: 30s
    start_period: 60s
    start_interval: 100ms
"#;

const CLIENTS: usize = 12;

/// As many slow answers as are asked for while `act` runs; each is whole or broken off.
fn slow_answers_during(world: &World, act: impl FnOnce()) -> Vec<bool> {
    let address = SocketAddr::new(world.node().address().into(), 8080);
    thread::scope(|scope| {
        let ask = || world.lab().outside(|| http_get(address, "/slow")).unwrap();
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        world.until("every client is being answered", || {
            let sockets = world.lab().outside(|| fs::read_to_string("/proc/thread-self/net/tcp")).unwrap().unwrap();
            // The remote port, 8080, and the state ESTABLISHED.
            let established = |line: &&str| {
                line.split_whitespace().nth(2).is_some_and(|to| to.ends_with(":1F90"))
                    && line.split_whitespace().nth(3) == Some("01")
            };
            match sockets.lines().filter(established).count() {
                CLIENTS => Ok(()),
                other => Err(format!("{other} of {CLIENTS}")),
            }
        });
        act();
        let whole = |answer: anyhow::Result<skep_lab::HttpAnswer>| answer.is_ok_and(|answer| answer.body.len() == 30);
        clients.into_iter().map(|client| whole(client.join().expect("a client does not panic"))).collect()
    })
}

#[test]
fn connections_that_a_stopping_task_has_are_finished_unless_the_drain_is_off() {
    let world = World::new();
    world.up("s", &format!("{WEB}services: {{ web: {{ <<: *web, deploy: {{ replicas: 2 }} }} }}\n"));
    let whole = slow_answers_during(&world, || {
        world.ok(&["service", "scale", "s_web=1"]);
    });
    assert_eq!(whole, [true; CLIENTS]);
    world.up(
        "s",
        &format!("{WEB}services: {{ web: {{ <<: *web, deploy: {{ replicas: 2 }}, x-skep: {{ drain: 0s }} }} }}\n"),
    );
    let whole = slow_answers_during(&world, || {
        world.ok(&["service", "scale", "s_web=1"]);
    });
    assert!(whole.contains(&false), "the task that stopped had some of {CLIENTS}");
}

#[test]
fn no_request_fails_during_a_rolling_update() {
    let world = World::new();
    let deploy = |order: &str, version: u32| {
        world.up(
            "s",
            &format!(
                "{WEB}services:\n  web:\n    <<: *web\n    environment: {{ VERSION: \"{version}\" }}\n    \
                 deploy: {{ replicas: 2, update_config: {{ order: {order}, monitor: 100ms }} }}\n"
            ),
        );
    };
    deploy("start-first", 1);
    let address = SocketAddr::new(world.node().address().into(), 8080);
    let over = AtomicBool::new(false);
    let answers = thread::scope(|scope| {
        let client = || {
            let mut answers = Vec::new();
            while !over.load(Ordering::Relaxed) {
                answers.push(world.lab().outside(|| http_get(address, "/")).unwrap());
            }
            answers
        };
        let clients = [scope.spawn(client), scope.spawn(client)];
        deploy("start-first", 2);
        deploy("stop-first", 3);
        over.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("a client does not panic")).collect::<Vec<_>>()
    });
    let failed: Vec<String> =
        answers.iter().filter_map(|answer| answer.as_ref().err()).map(|e| format!("{e:#}")).collect();
    assert_eq!(failed, [""; 0], "of {} requests", answers.len());
    assert!(answers.len() > 20, "{} requests", answers.len());
}
