//! `syslog:server=…,facility=…,tag=…` of `access_log` and `error_log` (`ngx_syslog_parse_args`).

use crate::{
    config::{
        Handle, Kind, Scope,
        values::{Address, Wants, parse_url},
    },
    process::{
        Lost, Syslog,
        needs::{self, Endpoint, Transport},
    },
    syntax::{Fault, Word},
};
use std::sync::{Arc, OnceLock};

/// What the destination of such a log begins with.
pub const PREFIX: &[u8] = b"syslog:";

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv", "ftp", "ntp",
    "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"];

/// A syslog server in a configuration: known when it is read, sent to when the generation serves.
#[derive(Debug)]
pub struct SyslogSlot {
    pub need: needs::Syslog,
    sender: OnceLock<Arc<Syslog>>,
}

impl SyslogSlot {
    /// Gives it who sends.
    pub fn attach(&self, sender: Arc<Syslog>) {
        // There is only one for each need.
        let _ = self.sender.set(sender);
    }

    /// Sends a line without its end, with its own severity or the directive's. Lines before anybody sends are lost;
    /// nothing serves before.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn send(&self, severity: Option<u8>, line: &[u8]) -> Result<(), Lost> {
        self.sender.get().map_or(Ok(()), |sender| sender.send(severity, line))
    }

    /// `127.0.0.1:514`, for messages.
    pub fn server(&self) -> String {
        self.need.endpoint.to_string()
    }
}

/// Notes the destination that a word names.
///
/// # Errors
/// nginx's faults.
pub fn refer(word: &Word, scope: &Scope<'_>) -> Result<Handle, Fault> {
    let text = word.value.strip_prefix(PREFIX).unwrap_or(&word.value);
    parse(text, scope).map_err(|message| Fault::at(word.span, message))?;
    Ok(scope.refer(Kind::Syslog, text, word.span))
}

/// All destinations that were noted, by their handles, for [`crate::http::Http`].
pub fn slots(scope: &Scope<'_>) -> Vec<Arc<SyslogSlot>> {
    let names = scope.names(Kind::Syslog);
    // Each was read without a fault when it was noted, and the world answers as it did then.
    let needs = names.iter().filter_map(|named| parse(&named.name, scope).ok());
    needs.map(|need| Arc::new(SyslogSlot { need, sender: OnceLock::new() })).collect()
}

fn parse(text: &[u8], scope: &Scope<'_>) -> Result<needs::Syslog, Vec<u8>> {
    let (mut server, mut facility, mut severity, mut tag, mut nameless) = (None, None, None, None, false);
    let once = |known: bool, name: &str| match known {
        true => Err(format!("duplicate syslog \"{name}\"").into_bytes()),
        false => Ok(()),
    };
    let number = |value: &[u8], names: &[&str], what: &str| {
        let found = names.iter().position(|name| name.as_bytes() == value).and_then(|at| u8::try_from(at).ok());
        found.ok_or_else(|| [b"unknown syslog ", what.as_bytes(), b" \"", value, b"\""].concat())
    };
    for part in text.split(|byte| *byte == b',') {
        if let Some(value) = part.strip_prefix(b"server=") {
            once(server.is_some(), "server")?;
            server = Some(address(value, scope)?);
        } else if let Some(value) = part.strip_prefix(b"facility=") {
            once(facility.is_some(), "facility")?;
            facility = Some(number(value, &FACILITIES, "facility")?);
        } else if let Some(value) = part.strip_prefix(b"severity=") {
            once(severity.is_some(), "severity")?;
            severity = Some(number(value, &SEVERITIES, "severity")?);
        } else if let Some(value) = part.strip_prefix(b"tag=") {
            once(tag.is_some(), "tag")?;
            if value.len() > 32 {
                return Err(b"syslog tag length exceeds 32".to_vec());
            }
            if !value.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
                return Err(b"syslog \"tag\" only allows alphanumeric characters and underscore".to_vec());
            }
            tag = Some(value.to_vec());
        } else if part == b"nohostname" {
            nameless = true;
        } else {
            return Err([b"unknown syslog parameter \"", part, b"\""].concat());
        }
    }
    Ok(needs::Syslog {
        endpoint: server.ok_or_else(|| b"no syslog server specified".to_vec())?,
        facility: facility.unwrap_or(23),
        severity: severity.unwrap_or(6),
        tag: tag.unwrap_or_else(|| b"nginx".to_vec()),
        host_name: (!nameless).then(|| scope.surroundings.host_name.clone().into_bytes()),
    })
}

fn address(text: &[u8], scope: &Scope<'_>) -> Result<Endpoint, Vec<u8>> {
    let wrong = |what: &str| [what.as_bytes(), b" in syslog server \"", text, b"\""].concat();
    let wants = Wants { resolve: true, default_port: 514, ..Wants::default() };
    let url = parse_url(text, wants, scope).map_err(wrong)?;
    let address = match url.addresses.into_iter().next().ok_or_else(|| wrong("host not found"))? {
        Address::Tcp(address) => needs::Address::Ip(address),
        Address::Unix(path) => needs::Address::Unix(path),
    };
    Ok(Endpoint { transport: Transport::Datagram, address })
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{http, http_fault};

    #[test]
    fn a_destination_is_data() {
        let http = http(
            "access_log syslog:server=127.0.0.1; error_log syslog:server=unix:/dev/log,facility=mail,tag=a_1,severity=warn,nohostname;
             server { access_log syslog:server=[::1]:12,severity=debug; access_log syslog:server=127.0.0.1; }",
        );
        let text = |slot: &super::SyslogSlot| {
            let need = &slot.need;
            let tag = String::from_utf8_lossy(&need.tag).into_owned();
            format!("{} {} {} {tag} {}", slot.server(), need.facility, need.severity, need.host_name.is_some())
        };
        let all: Vec<String> = http.syslogs.iter().map(|slot| text(slot)).collect();
        assert_eq!(
            all,
            ["127.0.0.1:514 23 6 nginx true", "unix:/dev/log 2 4 a_1 false", "[::1]:12 23 7 nginx true"],
            "the same is noted once"
        );
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("", "unknown syslog parameter \"\""),
            ("tag=a", "no syslog server specified"),
            ("server=127.0.0.1,server=127.0.0.1", "duplicate syslog \"server\""),
            ("server=", "no host in syslog server \"\""),
            ("server=nowhere", "host not found in syslog server \"nowhere\""),
            ("server=127.0.0.1:99999", "invalid port in syslog server \"127.0.0.1:99999\""),
            ("facility=x", "unknown syslog facility \"x\""),
            ("facility=user,facility=user", "duplicate syslog \"facility\""),
            ("severity=err", "unknown syslog severity \"err\""),
            ("severity=error,severity=warn", "duplicate syslog \"severity\""),
            ("tag=a-b", "syslog \"tag\" only allows alphanumeric characters and underscore"),
            ("tag=a,tag=b", "duplicate syslog \"tag\""),
            ("tag=abcdefghijklmnopqrstuvwxyz0123456", "syslog tag length exceeds 32"),
            ("server=127.0.0.1,x=y", "unknown syslog parameter \"x=y\""),
            ("server=127.0.0.1,nohostname", ""),
        ] {
            assert_eq!(http_fault(&format!("access_log syslog:{text};")), message, "{text}");
            assert_eq!(http_fault(&format!("error_log syslog:{text};")), message, "{text}");
        }
    }
}
