//! What `skep --help` says: one screen, in the order of a first day.

pub const TEXT: &str = "\
skep: your compose file, on all your machines

Usage: skep [GLOBAL OPTIONS] COMMAND

Start
  init                    start the daemon if none runs, and make this node a cluster
  join, leave             become a member of a cluster, or stop being one
  join-token              make a new token for workers or managers
  unlock, swarm           a manager that waits for its key; the cluster's settings
  daemon                  run the daemon in the foreground
Deploy
  stack deploy|rm         bring a compose file up, or take it down
  stack config            show a compose file as skep understands it
  stack history|rollback  what was deployed before, and the way back
  service create|update|rollback|restart|scale|rm    one service
  secret, config          create, ls, inspect, rm
  network, volume, image  what stacks use: ls, rm, and more
Look
  stack ls|ps|services    what is deployed, and how it is
  service ls|ps|inspect   one service, and each of its tasks
  ps, events              containers of this node; what happens in the cluster
  info, version           this node and its cluster
Mend
  doctor                  what is wrong with the nodes and the network, and what mends it
  logs, service logs      what a task or a service wrote
  exec                    run a command in a running task
  cluster backup|restore|recover    when machines are lost
Nodes
  node ls|inspect         the machines of the cluster
  node update|rm          drain, label or remove a machine
  swarm ca                show the cluster's CA, or rotate it
  lab up|status|down      a cluster on this machine, to try things out and to break them

Global options
      --data-dir DIR, --run-dir DIR, --config FILE    (SKEP_DATA_DIR, SKEP_RUN_DIR, SKEP_CONFIG)
      --host unix:///PATH    the daemon to talk to    (SKEP_HOST)
  -h, --help, -V, --version  `skep COMMAND --help` says more
";
