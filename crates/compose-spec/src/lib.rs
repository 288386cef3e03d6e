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
