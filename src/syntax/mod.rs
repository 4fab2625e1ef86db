//! Text to statements, with places kept. Knows no directive but `include`, and opens no file itself.

pub mod dump;
pub mod fault;
pub mod include;
pub mod parser;
pub mod span;
pub mod statement;

pub use fault::{Fault, Line, Severity, Stage};
pub use include::{Loader, Tree, glob_match, load};
pub use parser::parse;
pub use span::{Source, Sources, Span};
pub use statement::{Block, Statement, Word};
