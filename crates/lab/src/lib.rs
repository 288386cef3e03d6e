//! N nodes on one machine, in network namespaces: try-out, tests, benchmarks, faults.
