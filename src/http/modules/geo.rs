//! `geo`: a variable whose value depends on an address.

use super::{Room, realip};
use crate::{
    config::{Args, Directive, FromArgs, HTTP, Handle, Kind, List, Module, Scope, registry::on_statement_line},
    http::{
        exchange::Exchange,
        network::Network,
        variables::{Computed, define_stored},
    },
    syntax::{Fault, Statement, Word},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    sync::Arc,
};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    geos: List<Arc<Geo>>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("geo", HTTP, |conf| &mut conf.geos)];
}

impl Room for Conf {
    type State = ();

    fn computed(&self) -> Vec<(Handle, Computed)> {
        self.geos.iter().map(|geo| (geo.variable, Computed::Geo(Arc::clone(geo)))).collect()
    }
}

/// One `geo`.
#[derive(Debug)]
pub struct Geo {
    /// Its value may differ each time it is asked for within one request.
    pub volatile: bool,
    variable: Handle,
    /// The variable that holds the address; the client's without one.
    source: Option<Handle>,
    /// `proxy` and `proxy_recursive`.
    proxies: realip::Trusted,
    recursive: bool,
    places: Places,
}

/// Which addresses have which value.
#[derive(Debug)]
enum Places {
    /// The networks of each number of bits, by their first address; the default has no bits.
    Networks(BTreeMap<u8, HashMap<IpAddr, Bytes>>),
    /// Ranges by their first address, with the last; and the default.
    Ranges(BTreeMap<u32, (u32, Bytes)>, Option<Bytes>),
}

/// The address of who has none (`INADDR_NONE`).
const NONE: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

impl Geo {
    /// Appends the value for a request; it always has one, be it empty.
    pub fn evaluate(&self, exchange: &Exchange, out: &mut Vec<u8>) -> bool {
        let address = self.address(exchange).unwrap_or(NONE).to_canonical();
        if let Some(value) = self.places.find(address) {
            out.extend_from_slice(value);
        }
        true
    }

    /// The address in question: the client's or the variable's, or whom trusted proxies name.
    fn address(&self, exchange: &Exchange) -> Option<IpAddr> {
        let address = match self.source {
            None => exchange.remote_address(),
            Some(handle) => {
                let value = exchange.variable_bytes(handle)?;
                Some(std::str::from_utf8(&value).ok()?.parse().ok()?)
            }
        };
        let lists: Vec<&[u8]> = exchange.head.fields.get_all("x-forwarded-for").collect();
        let named = self.proxies.forwarded(self.recursive, address, lists.into_iter().rev());
        named.map(|(address, _)| address).or(address)
    }

    /// Reads one row of the block (`ngx_http_geo`).
    fn row(&mut self, row: &Statement, scope: &Scope<'_>) -> Result<(), Fault> {
        let key = &row.name;
        let [value] = &row.args[..] else {
            match &key.value[..] {
                b"ranges" if row.args.is_empty() => {
                    if !self.places.is_new() {
                        let text = "the \"ranges\" directive must be the first directive inside \"geo\" block";
                        return Err(Fault::at(key.span, text));
                    }
                    self.places = Places::Ranges(BTreeMap::new(), None);
                }
                b"proxy_recursive" if row.args.is_empty() => self.recursive = true,
                b"volatile" if row.args.is_empty() => self.volatile = true,
                _ => return Err(Fault::at(key.span, "invalid number of the geo parameters")),
            }
            return Ok(());
        };
        if &key.value[..] == b"proxy" {
            self.proxies.0.push(network(value, scope)?.0);
            return Ok(());
        }
        let (net, value) = match &key.value[..] {
            b"delete" => (value, None),
            _ => (key, Some(Bytes::copy_from_slice(&value.value))),
        };
        match &mut self.places {
            Places::Networks(networks) => set_network(networks, net, value, scope),
            Places::Ranges(_, default) if &net.value[..] == b"default" && value.is_some() => {
                if let (Some(old), Some(new)) = (&default, &value) {
                    let text = [b"duplicate default geo range value: \"", &new[..], b"\", old value: \"", old, b"\""];
                    scope.fault(Fault::at(net.span, text.concat()).warn());
                }
                *default = value;
                Ok(())
            }
            Places::Ranges(ranges, _) => set_range(ranges, net, value, scope),
        }
    }
}

impl Places {
    fn is_new(&self) -> bool {
        matches!(self, Self::Networks(networks) if networks.is_empty())
    }

    fn find(&self, address: IpAddr) -> Option<&Bytes> {
        match self {
            Self::Networks(networks) => networks.iter().rev().find_map(|(bits, nets)| {
                // Those of the other family have more bits than this one.
                let fits = address.is_ipv6() || *bits <= 32;
                fits.then(|| nets.get(&Network::first(address, *bits))).flatten()
            }),
            Self::Ranges(ranges, default) => {
                let address = match address {
                    IpAddr::V4(address) => u32::from(address),
                    IpAddr::V6(_) => u32::MAX,
                };
                let found = ranges.range(..=address).next_back().filter(|(_, (end, _))| *end >= address);
                found.map(|(_, (_, value))| value).or(default.as_ref())
            }
        }
    }
}

/// Gives a network a value, or takes it away.
fn set_network(
    networks: &mut BTreeMap<u8, HashMap<IpAddr, Bytes>>,
    net: &Word,
    value: Option<Bytes>,
    scope: &Scope<'_>,
) -> Result<(), Fault> {
    let places = match (&net.value[..], &value) {
        (b"default", Some(_)) => vec![(IpAddr::from([0; 4]), 0), (IpAddr::from([0; 16]), 0)],
        _ => vec![network(net, scope).map(|(_, place)| place)?],
    };
    for (address, bits) in places {
        let nets = networks.entry(bits).or_default();
        let Some(value) = &value else {
            if nets.remove(&address).is_none() {
                let text = [b"no network \"", &net.value[..], b"\" to delete"].concat();
                scope.fault(Fault::at(net.span, text).warn());
            }
            continue;
        };
        if let Some(old) = nets.insert(address, value.clone()) {
            scope.fault(duplicate("network", net, value, &old));
        }
    }
    Ok(())
}

/// Gives a range of addresses a value, or takes it away. A range inside another takes its part of it
/// (`ngx_http_geo_add_range`).
fn set_range(
    ranges: &mut BTreeMap<u32, (u32, Bytes)>,
    net: &Word,
    value: Option<Bytes>,
    scope: &Scope<'_>,
) -> Result<(), Fault> {
    let range = std::str::from_utf8(&net.value).ok().and_then(|text| text.split_once('-'));
    let parse = |text: &str| text.parse::<Ipv4Addr>().ok().map(u32::from).filter(|ip| *ip != u32::MAX);
    let range = range.and_then(|(start, end)| Some((parse(start)?, parse(end)?))).filter(|(start, end)| start <= end);
    let invalid = || Fault::at(net.span, [b"invalid range \"", &net.value[..], b"\""].concat());
    let (start, end) = range.ok_or_else(invalid)?;
    let Some(value) = value else {
        match ranges.get(&start) {
            Some((last, _)) if *last == end => drop(ranges.remove(&start)),
            _ => {
                let text = [b"no address range \"", &net.value[..], b"\" to delete"].concat();
                scope.fault(Fault::at(net.span, text).warn());
            }
        }
        return Ok(());
    };
    let around = ranges.range(..=end).next_back().map(|(first, (last, old))| (*first, *last, old.clone()));
    if let Some((first, last, old)) = around.filter(|(_, last, _)| *last >= start) {
        if first > start || last < end {
            let [first, last] = [first, last].map(Ipv4Addr::from);
            let text = format!("range \"{}\" overlaps \"{first}-{last}\"", net.text());
            return Err(Fault::at(net.span, text));
        }
        if (first, last) == (start, end) {
            scope.fault(duplicate("range", net, &value, &old));
        }
        ranges.remove(&first);
        if first < start {
            ranges.insert(first, (start - 1, old.clone()));
        }
        if last > end {
            ranges.insert(end + 1, (last, old));
        }
    }
    ranges.insert(start, (end, value));
    Ok(())
}

fn duplicate(what: &str, net: &Word, value: &[u8], old: &[u8]) -> Fault {
    let [value, old] = [value, old].map(String::from_utf8_lossy);
    let text = format!("duplicate {what} \"{}\", value: \"{value}\", old value: \"{old}\"", net.text());
    Fault::at(net.span, text).warn()
}

/// Reads a network: as a set, and its first address with the number of bits.
fn network(net: &Word, scope: &Scope<'_>) -> Result<(Network, (IpAddr, u8)), Fault> {
    let network = Network::parse(&net.value);
    let Some(network @ Network::Net { address, bits, .. }) = network else {
        return Err(Fault::at(net.span, [b"invalid network \"", &net.value[..], b"\""].concat()));
    };
    if network.has_host_bits() {
        let text = [b"low address bits of ", &net.value[..], b" are meaningless"].concat();
        scope.fault(Fault::at(net.span, text).warn());
    }
    Ok((network, (address, bits)))
}

impl FromArgs for Arc<Geo> {
    const TAKES: RangeInclusive<usize> = 1..=2;
    const BLOCK: bool = true;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let (source, word) = match args.words() {
            [source, word] => (Some(args.scope.refer(Kind::Variable, name(source)?, source.span)), word),
            _ => (None, args.word(0)),
        };
        let variable = define_stored(args.scope, name(word)?, word.span)?;
        let mut geo = Geo {
            volatile: false,
            variable,
            source,
            proxies: realip::Trusted::default(),
            recursive: false,
            places: Places::Networks(BTreeMap::new()),
        };
        for row in args.block() {
            if let Err(fault) = geo.row(row, args.scope) {
                args.scope.fault(on_statement_line(fault, row));
            }
        }
        Ok(Self::new(geo))
    }
}

/// A variable's name without its `$`.
fn name(word: &Word) -> Result<&[u8], Fault> {
    match word.value.strip_prefix(b"$") {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(Fault::at(word.span, [b"invalid variable name \"", &word.value[..], b"\""].concat())),
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask_http, http_fault};

    fn value(rows: &str, address: &str) -> String {
        let config = format!("geo $arg_a $v {{ {rows} }} server {{ location / {{ return 200 '$v'; }} }}");
        ask_http(&config, &format!("GET /?a={address} HTTP/1.1\r\nHost: x\r\n\r\n")).text()
    }

    #[test]
    fn the_smallest_network_gives_the_value() {
        let rows = "default d; 10.0.0.0/8 a; 10.1.0.0/16 b; 10.2.0.0/16 c; delete 10.2.0.0/16; 2001:db8::/32 six; \
            255.255.255.255 none;";
        for (address, said) in [
            ("10.9.9.9", "a"),
            ("10.1.9.9", "b"),
            ("10.2.0.0", "a"),
            ("11.0.0.1", "d"),
            ("2001:db8::1", "six"),
            ("::ffff:10.1.1.1", "b"),
            ("2001:db9::1", "d"),
            ("nonsense", "none"),
        ] {
            assert_eq!(value(rows, address), said, "{address}");
        }
        assert_eq!(value("10.0.0.0/8 a;", "1.1.1.1"), "");
    }

    #[test]
    fn a_range_inside_another_takes_its_part() {
        let rows = "ranges; default d; 10.0.0.0-10.0.0.99 a; 10.0.0.10-10.0.0.20 b; 10.0.0.90-10.0.0.99 c; \
            11.0.0.0-11.0.0.1 e; delete 11.0.0.0-11.0.0.1;";
        for (address, said) in [
            ("10.0.0.9", "a"),
            ("10.0.0.10", "b"),
            ("10.0.0.21", "a"),
            ("10.0.0.95", "c"),
            ("11.0.0.0", "d"),
            ("::1", "d"),
        ] {
            assert_eq!(value(rows, address), said, "{address}");
        }
    }

    #[test]
    fn trusted_proxies_name_the_client() {
        let ask = |rows: &str| {
            let config = format!(
                "geo $v {{ 192.0.2.1 one; 192.0.2.2 two; {rows} }} server {{ location / {{ return 200 '$v'; }} }}"
            );
            ask_http(&config, "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n\r\n").text()
        };
        assert_eq!(ask("proxy 127.0.0.1;"), "two");
        assert_eq!(ask("proxy 127.0.0.1; proxy 192.0.2.2; proxy_recursive;"), "one");
        assert_eq!(ask("default d;"), "d");
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("geo v { }", "invalid variable name \"v\""),
            ("geo $v { a; }", "invalid number of the geo parameters"),
            ("geo $v { a b; }", "invalid network \"a\""),
            (
                "geo $v { default a; ranges; }",
                "the \"ranges\" directive must be the first directive inside \"geo\" block",
            ),
            ("geo $v { ranges; 1.1.1.1 b; }", "invalid range \"1.1.1.1\""),
            (
                "geo $v { ranges; 1.0.0.1-1.0.0.9 b; 1.0.0.5-1.0.0.10 c; }",
                "range \"1.0.0.5-1.0.0.10\" overlaps \"1.0.0.1-1.0.0.9\"",
            ),
        ] {
            assert_eq!(http_fault(text), message, "{text}");
        }
    }
}
