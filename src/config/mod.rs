//! Statements to settings: how a directive is declared, checked and read. Knows no HTTP.

pub mod args;
pub mod contexts;
mod harmless;
pub mod known;
pub mod registry;
pub mod render;
pub mod scope;
pub mod values;

pub use args::{Args, Declared, FromArgs, Leveled, List, Slot};
pub use contexts::*;
pub use registry::{Declarations, Directive, Module, Registry};
pub use scope::{Handle, Inputs, Kind, Scope};
