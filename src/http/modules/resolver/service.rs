//! Services: the servers that `SRV` records name, with their ports, priorities and shares
//! (`ngx_resolver_resolve_srv_names`).

use super::{Log, NameServers, in_time, lookup_for_a_time, names, question};
use hickory_proto::rr::rdata::SRV;
use question::{Failure, ServiceAnswer};
use std::{net::SocketAddr, rc::Rc, time::Duration};

/// How many aliases in a row are followed (`NGX_RESOLVER_MAX_RECURSION`).
const MAX_ALIASES: usize = 50;

/// One address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// The name of its server.
    pub server: String,
    /// Lower ones are asked first.
    pub priority: u16,
    /// Its share; never 0.
    pub weight: u16,
}

/// What is known of a service.
#[derive(Debug, Default)]
pub struct Service {
    pub targets: Vec<Target>,
    /// For how many seconds it holds.
    pub seconds: u64,
    /// The servers whose addresses are not known.
    pub failed: Vec<(String, Failure)>,
}

/// The servers of a service, lower priorities first. `service` is `http` for `_http._tcp`, or written out. A zero
/// `timeout` waits for ever.
///
/// # Errors
/// What the servers said, beside the names of servers whose addresses are not known.
pub async fn lookup_service(
    servers: &NameServers,
    timeout: Duration,
    service: &str,
    name: &str,
    log: Log,
) -> Result<Service, (Failure, Vec<(String, Failure)>)> {
    let of_service =
        if service.contains('.') { format!("{service}.{name}") } else { format!("_{service}._tcp.{name}") };
    let (records, ttl) =
        in_time(timeout, records(servers, &of_service, &log)).await.map_err(|error| (error, Vec::new()))?;
    let mut found = Service { seconds: servers.valid.unwrap_or(u64::from(ttl)), ..Service::default() };
    for record in records {
        let server = record.target.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        match lookup_for_a_time(servers, timeout, &server, Rc::clone(&log)).await {
            Ok((addresses, seconds)) => {
                found.seconds = found.seconds.min(seconds);
                let (priority, weight) = (record.priority, record.weight.max(1));
                let target =
                    |ip| Target { address: SocketAddr::new(ip, record.port), server: server.clone(), priority, weight };
                found.targets.extend(addresses.into_iter().map(target));
            }
            Err(failure) => found.failed.push((server, failure)),
        }
    }
    if !found.targets.is_empty() {
        return Ok(found);
    }
    // Nobody there: that decides, if anybody says so.
    let missing = found.failed.iter().any(|(_, failure)| *failure == Failure::NotFound);
    let first = found.failed.first().map_or(Failure::NotFound, |(_, failure)| *failure);
    Err((if missing { Failure::NotFound } else { first }, found.failed))
}

/// The records of a service, and for how many seconds they may be kept.
async fn records(servers: &NameServers, name: &str, log: &Log) -> Result<(Vec<SRV>, u32), Failure> {
    let mut name = question::name(name).ok_or(Failure::NotFound)?;
    let names = names::of(servers);
    for _ in 0..=MAX_ALIASES {
        match question::ask_service(names.servers(), names.turn(), &name, log).await? {
            ServiceAnswer::Targets { targets, ttl } => return Ok((targets, ttl)),
            ServiceAnswer::Alias(target) => name = target,
        }
    }
    Err(Failure::NotFound)
}
