//! Text to statements, with places kept. Knows no directive but `include`, and opens no file itself.

pub mod fault;
pub mod span;
pub mod statement;

pub use fault::{Fault, Severity, Stage};
pub use span::{Source, Sources, Span};
pub use statement::{Block, Statement, Word};
