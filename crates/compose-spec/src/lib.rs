//! A Compose file as Rust types: parse, interpolate, merge, extend, include, validate; knows no cluster.
//!
//! ```text
//! text ── yaml ──> tree with places ── interpolate ── canonical ── paths ──┐ per file
//!                                                                         │
//!        Project <── check <── files, variables <── decode <── merge <─────┘ include, extend
//! ```
//!
//! One loader for both dialects that exist, `docker compose`'s and `docker stack deploy`'s.
//! Every mistake is reported at once, each with file, line, column and what would be right; what is known
//! but has no effect is a warning, never silence.
//!
//! Where it departs from `docker compose`, and why:
//! - a one-letter volume (`v:/data`) is a named volume, not a Windows drive;
//! - shell operators in a command given as a string stay words, with a warning, where compose drops them
//!   and everything after them in silence;
//! - a date stays a string, and numbers are taken where a list wants strings (`[sleep, 5]`);
//! - words of a choice (`mode`, `protocol`, `restart`, …), addresses and variable names are checked;
//! - how to build an image is not read, only that there is something to build.
//!
//! The crate is pure: [`load`] says which files and variables it wants and is called again with them.

mod assemble;
mod canonical;
mod check;
mod decode;
mod diagnostic;
mod dotenv;
mod interpolate;
mod load;
mod merge;
mod paths;
pub mod project;
mod render;
mod scalar;
mod source;
mod suggest;
mod units;
mod value;
mod words;
mod yaml;

pub use diagnostic::{Diagnostic, Report, Severity};
pub use load::{FileContent, Loaded, Outcome, Request, Wanted, load, load_with};
pub use project::Project;
pub use source::{Location, Sources, Span};
pub use units::{bytes, nano_cpus};
pub use words::{SplitError, Words, split};
