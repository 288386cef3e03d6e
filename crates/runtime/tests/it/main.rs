//! Real containers on this kernel, through the real keeper executable.
//! Every test has its own run folder, cgroup parent and network namespaces, and removes them however it ends.

mod cgroup;
mod exec;
mod faults;
mod files;
mod lease;
mod limits;
mod measure;
mod node;
mod pure_v2;
mod run;
