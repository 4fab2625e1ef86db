//! placeholder until the room arrives
use super::Room;
use crate::{config::{Directive, Module}, http::exchange::Exchange};
use std::net::IpAddr;
#[derive(Clone, Debug, Default)]
pub struct Conf;
impl Module for Conf { const DIRECTIVES: &'static [Directive<Self>] = &[]; }
impl Room for Conf { type State = (); }
pub async fn resolve(_exchange: &Exchange, name: &str) -> Result<Vec<IpAddr>, String> { Err(format!("no resolver defined to resolve {name}")) }
