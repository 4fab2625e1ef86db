//! `auth_basic`: a name and a password, checked against a file.

mod password;

use super::Room;
use crate::{
    config::{Args, Directive, FromArgs, LEVELS, LIMIT_EXCEPT, Module, scope::bytes_to_path},
    http::{exchange::{Exchange, Method}, files, template::Template},
    observe::error_log::Level,
    syntax::Fault,
};
use bytes::Bytes;
use std::{io::Read, os::unix::ffi::OsStrExt};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub realm: Option<Template>,
    pub user_file: Option<UserFile>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("auth_basic", LEVELS.or(LIMIT_EXCEPT), |conf| &mut conf.realm),
        Directive::new("auth_basic_user_file", LEVELS.or(LIMIT_EXCEPT), |conf| &mut conf.user_file),
    ];
}

impl Room for Conf {
    type State = ();
}

/// What the password file says of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody asks for a password here.
    Unasked,
    Allowed,
    /// With this status.
    Denied(u16),
}

/// The access phase (`ngx_http_auth_basic_handler`). The file is read anew each time, as nginx does it.
pub fn check(exchange: &mut Exchange) -> Verdict {
    let conf = &exchange.location.settings.auth_basic;
    let (Some(realm), Some(file)) = (&conf.realm, &conf.user_file) else { return Verdict::Unasked };
    let realm = realm.evaluate_bytes(exchange);
    if &realm[..] == b"off" {
        return Verdict::Unasked;
    }
    let credentials = super::core::basic_credentials(exchange).unwrap_or_default();
    let (user, password) = match memchr::memchr(b':', &credentials) {
        Some(at @ 1..) => (&credentials[..at], until_nul(&credentials[at + 1..])),
        _ => {
            exchange.log(Level::Info, "no user/password was provided for basic authentication");
            return ask(exchange, &realm);
        }
    };
    let path = file.path(exchange);
    let (name, shown) = (String::from_utf8_lossy(user), String::from_utf8_lossy(&path));
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) => {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let (level, status) = if missing { (Level::Err, 403) } else { (Level::Crit, 500) };
            exchange.log(level, &format!("open() \"{shown}\" failed ({})", files::errno(&error)));
            return Verdict::Denied(status);
        }
    };
    match find(&text, user) {
        Some(hash) if password::fits(password, hash) => return Verdict::Allowed,
        Some(_) => exchange.log(Level::Err, &format!("user \"{name}\": password mismatch")),
        None => exchange.log(Level::Err, &format!("user \"{name}\" was not found in \"{shown}\"")),
    }
    ask(exchange, &realm)
}

/// Asks for a password (`ngx_http_auth_basic_set_realm`).
fn ask(exchange: &mut Exchange, realm: &[u8]) -> Verdict {
    let value = [b"Basic realm=\"", realm, b"\""].concat();
    let (field, status) = match exchange.method {
        Method::Connect => (&b"Proxy-Authenticate"[..], 407),
        _ => (&b"WWW-Authenticate"[..], 401),
    };
    exchange.state.error_page.kept.push(Bytes::from_static(field), value);
    Verdict::Denied(status)
}

fn read(path: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    files::open(path)?.file.read_to_end(&mut text)?;
    Ok(text)
}

/// The hashed password in the line of a user: what stands between the first two `:`.
fn find<'t>(text: &'t [u8], user: &[u8]) -> Option<&'t [u8]> {
    let lines = text.split(|byte| *byte == b'\n');
    let mut hashes = lines.filter(|line| !line.starts_with(b"#") && !line.starts_with(b"\r")).filter_map(|line| {
        let rest = line.strip_prefix(user)?.strip_prefix(b":")?;
        rest.split(|byte| matches!(byte, b':' | b'\r')).next()
    });
    hashes.next().map(until_nul)
}

/// A text ends where one of C does.
fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or(text)
}

/// `auth_basic_user_file`: a path, relative to the folder of the main configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFile {
    path: Template,
    folder: Bytes,
}

impl UserFile {
    fn path(&self, exchange: &Exchange) -> Vec<u8> {
        let path = self.path.evaluate(exchange);
        let folder = bytes_to_path(&self.folder);
        folder.join(bytes_to_path(&path)).as_os_str().as_bytes().to_vec()
    }
}

impl FromArgs for UserFile {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let folder = Bytes::copy_from_slice(args.scope.conf_path(b"").as_os_str().as_bytes());
        Ok(Self { path: Template::from_args(args)?, folder })
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::ask;
    use base64::Engine;
    use std::io::Write;

    fn asked(directives: &str, credentials: &str) -> crate::http::testing::Answer {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"# x:{PLAIN}y\nuser1:8uxCGNPhjFqiw\nplain:{PLAIN}pass:comment\r\n").unwrap();
        let coded = base64::engine::general_purpose::STANDARD.encode(credentials);
        let path = file.path().display();
        let server = format!("location / {{ auth_basic \"a b\"; auth_basic_user_file {path}; {directives} }}");
        ask(&server, &format!("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {coded}\r\n\r\n"))
    }

    #[test]
    fn a_user_needs_the_password_of_the_file() {
        for (credentials, status) in
            [("plain:pass", 404), ("plain:pas", 401), ("# x:y", 401), ("plain", 401), (":x", 401), ("", 401)]
        {
            let answer = asked("root /nowhere; index x; try_files $uri =404;", credentials);
            assert_eq!(answer.status, status, "{credentials}");
            let field = answer.header("www-authenticate");
            assert_eq!(field, (status == 401).then_some("Basic realm=\"a b\""), "{credentials}");
        }
    }

    #[test]
    fn any_check_that_lets_in_is_enough_where_any_is_asked_for() {
        let rest = "root /nowhere; try_files $uri =404;";
        for (rules, credentials, status) in [
            ("satisfy any; deny all;", "plain:pass", 404),
            ("satisfy any; deny all;", "plain:x", 401),
            ("satisfy any; allow all;", "plain:x", 404),
            ("deny all;", "plain:pass", 403),
            ("allow all;", "plain:x", 401),
        ] {
            assert_eq!(asked(&format!("{rules} {rest}"), credentials).status, status, "{rules} {credentials}");
        }
    }

    #[test]
    fn a_missing_file_forbids() {
        let server = "location / { auth_basic x; auth_basic_user_file $arg_none-missing; }";
        let answer = ask(server, "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\n\r\n");
        assert_eq!(answer.status, 403);
    }
}
