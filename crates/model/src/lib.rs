//! Ids, units, specs, objects, task states, and Cluster: an in-memory value with apply(Change).
