//! `$proxy_protocol_addr` and its kin: what the balancer in front of us says of the client, on a `listen` with
//! `proxy_protocol`.

use super::{
    Room,
    core::{number, put},
};
use crate::{
    config::{Directive, Module},
    http::{
        exchange::Exchange,
        variables::{Prefixed, Variable},
    },
    observe::error_log::Level,
    upstream::wire::proxy_protocol::{Header, TlvError},
};

/// The room has variables only.
#[derive(Clone, Debug, Default)]
pub struct Conf {}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[];
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] = &[
        Variable::new("proxy_protocol_addr", |ex, out| text(ex, out, |header| &header.source_address)),
        Variable::new("proxy_protocol_port", |ex, out| port(ex, out, |header| header.source_port)),
        Variable::new("proxy_protocol_server_addr", |ex, out| text(ex, out, |header| &header.destination_address)),
        Variable::new("proxy_protocol_server_port", |ex, out| port(ex, out, |header| header.destination_port)),
    ];
    const FAMILIES: &'static [Prefixed] = &[Prefixed { prefix: "proxy_protocol_tlv_", get: tlv }];
    type State = ();
}

fn text(exchange: &Exchange, out: &mut Vec<u8>, part: fn(&Header) -> &str) -> bool {
    exchange.connection.proxied.get().is_some_and(|header| put(out, part(header).as_bytes()))
}

/// A port of 0 is none, but there is a value.
fn port(exchange: &Exchange, out: &mut Vec<u8>, part: fn(&Header) -> u16) -> bool {
    exchange.connection.proxied.get().is_some_and(|header| match part(header) {
        0 => true,
        port => number(out, u64::from(port)),
    })
}

/// `$proxy_protocol_tlv_name` (`ngx_http_variable_proxy_protocol_tlv`).
fn tlv(exchange: &Exchange, name: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(header) = exchange.connection.proxied.get() else { return false };
    match header.tlv(&String::from_utf8_lossy(name)) {
        Ok(value) => value.is_some_and(|value| put(out, &value)),
        Err(TlvError::ShortSsl) => false,
        Err(error) => {
            exchange.log(Level::Err, &error.to_string());
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::get;

    #[test]
    fn without_a_header_there_are_no_values() {
        let config =
            "location / { return 200 \"[$proxy_protocol_addr$proxy_protocol_port$proxy_protocol_tlv_alpn]\"; }";
        assert_eq!(get(config, "/").text(), "[]");
    }
}
