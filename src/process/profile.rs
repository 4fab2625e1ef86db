//! Build profiles: the paths and names that differ between the nginx builds people have.

use std::path::Path;

/// The environment variable that chooses a profile, at run time and when compiling.
pub const VARIABLE: &str = "TIDEGATE_PROFILE";

/// The values a build of nginx has compiled in (`./configure --prefix=… --conf-path=…`).
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// What `TIDEGATE_PROFILE` calls it.
    pub name: &'static str,
    /// `--prefix`, without the slash at its end.
    pub prefix: &'static str,
    /// `--sbin-path`.
    pub sbin: &'static str,
    /// `--modules-path`.
    pub modules: &'static str,
    /// `--conf-path`; relative paths here and below are relative to the prefix.
    pub conf: &'static str,
    /// `--error-log-path`; `stderr` is standard error.
    pub error_log: &'static str,
    /// `--http-log-path`.
    pub access_log: &'static str,
    /// `--pid-path`.
    pub pid: &'static str,
    /// `--lock-path`.
    pub lock: &'static str,
    /// `--http-client-body-temp-path`.
    pub client_body_temp: &'static str,
    /// `--http-proxy-temp-path`.
    pub proxy_temp: &'static str,
    /// `--http-fastcgi-temp-path`.
    pub fastcgi_temp: &'static str,
    /// `--http-uwsgi-temp-path`.
    pub uwsgi_temp: &'static str,
    /// `--http-scgi-temp-path`.
    pub scgi_temp: &'static str,
    /// `--user`.
    pub user: &'static str,
    /// `--group`; the first that exists, as `configure` would have found it.
    pub groups: &'static [&'static str],
}

/// The packages of nginx.org and the Docker image.
pub const NGINX_ORG: Profile = Profile {
    name: "nginx",
    prefix: "/etc/nginx",
    sbin: "/usr/sbin/nginx",
    modules: "/usr/lib/nginx/modules",
    conf: "/etc/nginx/nginx.conf",
    error_log: "/var/log/nginx/error.log",
    access_log: "/var/log/nginx/access.log",
    pid: "/run/nginx.pid",
    lock: "/run/nginx.lock",
    client_body_temp: "/var/cache/nginx/client_temp",
    proxy_temp: "/var/cache/nginx/proxy_temp",
    fastcgi_temp: "/var/cache/nginx/fastcgi_temp",
    uwsgi_temp: "/var/cache/nginx/uwsgi_temp",
    scgi_temp: "/var/cache/nginx/scgi_temp",
    user: "nginx",
    groups: &["nginx"],
};

/// Debian's and Ubuntu's packages.
pub const DEBIAN: Profile = Profile {
    name: "debian",
    prefix: "/usr/share/nginx",
    sbin: "/usr/sbin/nginx",
    modules: "/usr/lib/nginx/modules",
    conf: "/etc/nginx/nginx.conf",
    error_log: "stderr",
    access_log: "/var/log/nginx/access.log",
    pid: "/run/nginx.pid",
    lock: "/var/lock/nginx.lock",
    client_body_temp: "/var/lib/nginx/body",
    proxy_temp: "/var/lib/nginx/proxy",
    fastcgi_temp: "/var/lib/nginx/fastcgi",
    uwsgi_temp: "/var/lib/nginx/uwsgi",
    scgi_temp: "/var/lib/nginx/scgi",
    user: "nobody",
    groups: &["nogroup", "nobody"],
};

/// Homebrew on Intel. Its prefix is a versioned folder whose `html` leads to `/usr/local/var/www`.
pub const HOMEBREW: Profile = Profile {
    name: "homebrew",
    prefix: "/usr/local/opt/nginx",
    sbin: "/usr/local/opt/nginx/bin/nginx",
    modules: "/usr/local/opt/nginx/modules",
    conf: "/usr/local/etc/nginx/nginx.conf",
    error_log: "/usr/local/var/log/nginx/error.log",
    access_log: "/usr/local/var/log/nginx/access.log",
    pid: "/usr/local/var/run/nginx.pid",
    lock: "/usr/local/var/run/nginx.lock",
    client_body_temp: "/usr/local/var/run/nginx/client_body_temp",
    proxy_temp: "/usr/local/var/run/nginx/proxy_temp",
    fastcgi_temp: "/usr/local/var/run/nginx/fastcgi_temp",
    uwsgi_temp: "/usr/local/var/run/nginx/uwsgi_temp",
    scgi_temp: "/usr/local/var/run/nginx/scgi_temp",
    user: "nobody",
    groups: &["nobody", "nogroup"],
};

/// `./configure` without arguments.
pub const SOURCE: Profile = Profile {
    name: "source",
    prefix: "/usr/local/nginx",
    sbin: "sbin/nginx",
    modules: "modules",
    conf: "conf/nginx.conf",
    error_log: "logs/error.log",
    access_log: "logs/access.log",
    pid: "logs/nginx.pid",
    lock: "logs/nginx.lock",
    client_body_temp: "client_body_temp",
    proxy_temp: "proxy_temp",
    fastcgi_temp: "fastcgi_temp",
    uwsgi_temp: "uwsgi_temp",
    scgi_temp: "scgi_temp",
    user: "nobody",
    groups: &["nobody", "nogroup"],
};

/// Every profile; the first is the default.
pub const ALL: [&Profile; 4] = [&NGINX_ORG, &DEBIAN, &HOMEBREW, &SOURCE];

impl Profile {
    /// The profile of that name; `docker` is another word for the default.
    pub fn named(name: &str) -> Option<&'static Self> {
        let name = if name == "docker" { NGINX_ORG.name } else { name };
        ALL.into_iter().find(|profile| profile.name == name)
    }

    /// The one in force: `TIDEGATE_PROFILE` now, or when this was compiled, or the default.
    /// A name that does not exist is an error to tell the user about.
    pub fn selected() -> Result<&'static Self, String> {
        let chosen = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty());
        match chosen.as_deref().or(option_env!("TIDEGATE_PROFILE")) {
            None => Ok(&NGINX_ORG),
            Some(name) => Self::named(name).ok_or_else(|| {
                let known = ALL.map(|profile| profile.name).join(", ");
                format!("unknown profile \"{name}\" in {VARIABLE}, there are: {known}")
            }),
        }
    }

    /// What `nginx -V` prints behind `configure arguments:`; tools look there for `--prefix` and `--conf-path`.
    pub fn configure_arguments(&self) -> String {
        let full = |path: &str| match path {
            "stderr" => path.to_owned(),
            _ => Path::new(self.prefix).join(path).display().to_string(),
        };
        let paths = [
            ("sbin-path", self.sbin),
            ("modules-path", self.modules),
            ("conf-path", self.conf),
            ("error-log-path", self.error_log),
            ("http-log-path", self.access_log),
            ("pid-path", self.pid),
            ("lock-path", self.lock),
            ("http-client-body-temp-path", self.client_body_temp),
            ("http-proxy-temp-path", self.proxy_temp),
            ("http-fastcgi-temp-path", self.fastcgi_temp),
            ("http-uwsgi-temp-path", self.uwsgi_temp),
            ("http-scgi-temp-path", self.scgi_temp),
        ];
        let paths: String = paths.iter().map(|(option, path)| format!(" --{option}={}", full(path))).collect();
        let group = self.groups.first().copied().unwrap_or(self.user);
        format!("--prefix={}{paths} --user={} --group={group}", self.prefix, self.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_found_by_its_name() {
        for profile in ALL {
            assert_eq!(Profile::named(profile.name), Some(profile));
        }
        assert_eq!(Profile::named("docker"), Some(&NGINX_ORG));
        assert_eq!(Profile::named("gentoo"), None);
    }

    #[test]
    fn configure_arguments_hold_full_paths() {
        let arguments = SOURCE.configure_arguments();
        assert!(arguments.starts_with("--prefix=/usr/local/nginx --sbin-path=/usr/local/nginx/sbin/nginx "));
        assert!(DEBIAN.configure_arguments().contains(" --error-log-path=stderr "));
    }
}
