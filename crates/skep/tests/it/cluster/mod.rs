//! Clusters of several nodes under faults. `.config/nextest.toml` runs few of these at once: each is many processes.

mod lab_command;
