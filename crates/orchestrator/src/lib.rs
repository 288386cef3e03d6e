//! Decides how many tasks and which lifecycles: replicated, global, restarts, reaper, allocator.
