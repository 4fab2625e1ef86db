//! Settings to answers: from an `http` block to bytes on a connection.

pub mod agent;
pub mod arriving;
pub mod body;
pub mod body_file;
pub mod connection;
pub mod content;
pub mod dates;
pub mod deadline;
pub mod exchange;
pub mod files;
pub mod generation;
pub mod heads;
pub mod level;
pub mod limit_rate;
pub mod limit_zone;
pub mod listener;
pub mod location_tree;
pub mod media_types;
pub mod modules;
pub mod names;
pub mod network;
pub mod not_modified;
pub mod packing;
pub mod phase;
pub mod pipeline;
pub mod placing;
pub mod range;
pub mod ranges;
pub mod redirect;
pub mod regex;
pub mod request_body;
pub mod response;
pub mod special;
pub mod status;
pub mod strftime;
pub mod subrequest;
pub mod temp_files;
pub mod template;
#[cfg(test)]
pub mod testing;
pub mod uri;
pub mod validators;
pub mod variables;
pub mod worker;

pub use generation::Http;
