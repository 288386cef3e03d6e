//! A worker: session with a manager, one driver task per assigned task, status reports, logs, exec.
