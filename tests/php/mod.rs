//! Sites over PHP-FPM: the configurations of `nginx-examples/{wordpress,laravel,nextcloud,drupal}` as they are, in a
//! container laid out as Debian, before a real PHP-FPM that runs `fixtures/apps/php/tell.php` as every script.

use crate::support::client::{self, Answer, Connection, Request};
use crate::support::component::{find, missing};
use crate::support::container::{Build, Container};
use crate::support::program::Program;
use crate::support::wait;

/// PHP-FPM's programs, by the names that Debian's releases give them.
const PHP_FPM: [&str; 5] = ["php-fpm", "php-fpm8.2", "php-fpm8.4", "php-fpm8.3", "php-fpm8.1"];

const SOCKET: &str = "/run/php/php-fpm.sock";

/// A site with everything that runs it.
struct Site {
    host: &'static str,
    /// Ends before PHP does.
    _nginx: Program,
    php: Program,
    container: Container,
}

impl Site {
    /// The site of that folder, with these scripts and these files below its root. None, said aloud, where there is no
    /// PHP-FPM or no container.
    fn new(name: &str, host: &'static str, scripts: &[&str], files: &[(&str, &str)]) -> Option<Self> {
        let Some(fpm) = PHP_FPM.into_iter().find(|name| find(name).is_some()) else {
            missing("php-fpm");
            return None;
        };
        let container = Container::new(Build::Debian)?;
        let root = match name {
            "laravel" => "/var/www/laravel/public",
            "drupal" => "/var/www/drupal/web",
            _ => &format!("/var/www/{name}"),
        };
        for script in scripts {
            container.copy("fixtures/apps/php/tell.php", &format!("{root}/{script}"));
        }
        for (file, text) in files {
            container.write(&format!("{root}/{file}"), text);
        }
        container.copy(&format!("nginx-examples/{name}/site.conf"), &format!("/etc/nginx/sites-enabled/{name}"));
        container.copy("fixtures/apps/php/php-fpm.conf", "/etc/php-fpm.conf");
        container.make_dir("/run/php");
        let php = container.start_as_init("PHP-FPM", &[fpm, "-n", "-F", "-R", "-y", "/etc/php-fpm.conf"]);
        wait::until("PHP-FPM answers", wait::SOON, || container.listens_at(SOCKET));
        let nginx = container.start_as_init("nginx", &container.nginx_words(&["-g", "daemon off;"]));
        container.wait_for_port(80);
        Some(Self { host, _nginx: nginx, php, container })
    }

    fn ask(&self, request: Request) -> Answer {
        client::ask(80, &request.header("Host", self.host))
    }

    /// # Panics
    /// Unless the answer has this status.
    #[track_caller]
    fn get(&self, path: &str, status: u16) -> Answer {
        self.ask(Request::get(path)).expect(status)
    }

    /// What a script was told: of each of these names.
    #[track_caller]
    fn told(&self, path: &str, names: &[&str]) -> Vec<String> {
        let text = self.get(path, 200).text();
        names.iter().map(|name| line(&text, name)).collect()
    }

    /// # Panics
    /// Unless all these paths are answered with this status.
    #[track_caller]
    fn all(&self, status: u16, paths: &[&str]) {
        for path in paths {
            let answer = self.ask(Request::get(path));
            assert_eq!(answer.status, status, "{path}: {answer:?}");
        }
    }

    fn log(&self, name: &str) -> String {
        self.container.read(&format!("/var/log/nginx/{name}"))
    }
}

/// What stands behind `NAME=`.
#[track_caller]
fn line(text: &str, name: &str) -> String {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in:\n{text}")).to_owned()
}

/// A form with a file in it, as a browser sends it.
fn upload(path: &str, name: &str, content: &str) -> Request {
    let body = format!(
        "--limit\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\na title\r\n--limit\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: image/png\r\n\r\n\
         {content}\r\n--limit--\r\n"
    );
    Request::post(path, "multipart/form-data; boundary=limit", body)
}

#[test]
fn a_wordpress_blog() {
    let scripts =
        ["index.php", "wp-login.php", "wp-admin/index.php", "wp-config.php", "xmlrpc.php", "wp-includes/load.php"];
    let uploaded = ["wp-content/uploads/evil.php", "wp-content/uploads/2024/photo.PNG.php"];
    let style = "body { color: black }\n".repeat(50);
    let files = [
        ("wp-content/themes/plain/style.css", &*style),
        ("wp-content/uploads/2024/photo.png", "no real image"),
        ("readme.html", "version"),
        (".htaccess", "secret"),
        (".well-known/security.txt", "Contact: us"),
        ("about/notes.txt", "notes"),
    ];
    let Some(site) = Site::new("wordpress", "blog.example", &[&scripts[..], &uploaded].concat(), &files) else {
        return;
    };
    // The front page, pretty addresses, and those that look like files.
    let names = ["SCRIPT_NAME", "REQUEST_URI", "QUERY_STRING"];
    assert_eq!(site.told("/", &names), ["/index.php", "/", ""]);
    assert_eq!(site.told("/2024/05/a-title/?page=2", &names), ["/index.php", "/2024/05/a-title/?page=2", "page=2"]);
    assert_eq!(site.told("/robots.txt", &names), ["/index.php", "/robots.txt", ""]);
    assert_eq!(site.told("/wp-login.php?a=b", &names), ["/wp-login.php", "/wp-login.php?a=b", "a=b"]);
    assert_eq!(site.told("/wp-admin/", &["SCRIPT_FILENAME"]), ["/var/www/wordpress/wp-admin/index.php"]);
    assert_eq!(site.get("/wp-admin", 301).header("Location"), Some("http://blog.example/wp-admin/"));
    let other = client::ask(80, &Request::get("/x?y").header("Host", "www.blog.example")).expect(301);
    assert_eq!(other.header("Location"), Some("http://blog.example/x?y"));
    // What is denied.
    site.all(403, &["/wp-config.php", "/xmlrpc.php", "/readme.html", "/.htaccess", "/.git/config"]);
    site.all(403, &["/wp-content/uploads/evil.php", "/wp-content/uploads/2024/photo.PNG.php", "/about/"]);
    site.all(404, &["/wp-includes/load.php", "/no.php", "/wp-content/uploads/2024/photo.png/x.gif"]);
    site.get("/.well-known/security.txt", 200);
    // Files may be kept.
    let style = site.get("/wp-content/themes/plain/style.css", 200);
    assert_eq!(style.headers("Cache-Control"), ["max-age=2592000", "public, no-transform"]);
    assert_eq!(style.header("Content-Type"), Some("text/css"));
    assert!(style.header("Expires").is_some() && style.header("ETag").is_some());
    let packed = site.ask(Request::get("/wp-content/themes/plain/style.css").header("Accept-Encoding", "gzip"));
    assert_eq!((packed.header("Content-Encoding"), packed.header("Vary")), (Some("gzip"), Some("Accept-Encoding")));
    let part = site.ask(Request::get("/wp-content/uploads/2024/photo.png").header("Range", "bytes=3-6")).expect(206);
    assert_eq!(part.text(), "real");
    // Forms, uploads, and what is too large.
    let content = "picture".repeat(30_000);
    let text = site.ask(upload("/wp-admin/index.php", "a.png", &content)).expect(200).text();
    assert_eq!(line(&text, "POST"), "title=a+title");
    assert!(line(&text, "FILE").starts_with("a.png 210000 "), "{text}");
    let huge = Request::new("POST", "/wp-admin/index.php").header("Content-Length", "16777217");
    assert_eq!(site.ask(huge.header("Connection", "close")).status, 413);
    // What PHP says in its own way.
    site.get("/?do=missing", 404);
    assert_eq!(site.get("/?do=moved", 302).header("Location"), Some("/elsewhere"));
    assert_eq!(site.get("/?do=gone", 410).line(), "HTTP/1.1 410 Gone For Good");
    assert_eq!(site.get("/?do=large", 200).body.len(), 1_700_000);
    site.get("/?do=warning", 200);
    site.get("/?do=fatal", 500);
    let said = "FastCGI sent in stderr: \"PHP message: something is odd\" while reading response header from upstream, client: ";
    wait::until("the warning is in the log", wait::SOON, || site.log("blog.error.log").contains(said));
    wait::until("the error is in the log", wait::SOON, || site.log("blog.error.log").contains("PHP Fatal error:"));
}

#[test]
fn a_laravel_shop() {
    let files = [
        ("build/app.js", "let a;"),
        ("favicon.ico", "icon"),
        (".env", "secret"),
        (".well-known/x", "public"),
        ("other.php", "<?php echo 'never';"),
        ("docs/readme", "text"),
    ];
    let Some(site) = Site::new("laravel", "shop.example", &["index.php"], &files) else { return };
    let names = ["SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SCRIPT_FILENAME"];
    let script = "/var/www/laravel/public/index.php";
    assert_eq!(site.told("/", &names), ["/index.php", "", "", script]);
    assert_eq!(site.told("/cart/items/7?sort=up", &names), ["/index.php", "", "sort=up", script]);
    assert_eq!(site.told("/index.php/cart/7?a", &names), ["/index.php", "/cart/7", "a", script]);
    assert_eq!(site.told("/index.php", &["REQUEST_URI"]), ["/index.php"]);
    let page = site.get("/", 200);
    assert_eq!(page.header("X-Frame-Options"), Some("SAMEORIGIN"));
    assert_eq!(page.header("X-Powered-By"), None);
    // Other scripts are pages that do not exist, which the front controller makes.
    assert!(site.get("/other.php", 404).text().contains("SCRIPT_NAME=/index.php\n"));
    assert!(site.get("/build/no.js", 404).text().contains("REQUEST_URI=/build/no.js\n"));
    site.all(403, &["/.env", "/docs/"]);
    site.get("/.well-known/x", 200);
    let script = site.get("/build/app.js", 200);
    assert_eq!(script.headers("Cache-Control"), ["max-age=315360000", "public, immutable"]);
    assert_eq!(script.header("Content-Type"), Some("application/javascript; charset=utf-8"));
    // A form over a connection that is used again, to a PHP-FPM that keeps its own.
    let mut connection = Connection::open(80);
    for times in 1..=5 {
        let form = format!("item={times}&count=2");
        let request = Request::post("/order", "application/x-www-form-urlencoded", form.as_bytes());
        let text = connection.ask(&request.header("Host", "shop.example")).expect(200).text();
        assert_eq!((line(&text, "POST"), line(&text, "REQUEST_METHOD")), (form, "POST".to_owned()));
    }
    let chunked = Request::new("POST", "/order")
        .header("Host", "shop.example")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Transfer-Encoding", "chunked");
    let mut bytes = chunked.bytes();
    bytes.extend_from_slice(b"4\r\na=1&\r\n3\r\nb=2\r\n0\r\n\r\n");
    connection.send(bytes);
    assert_eq!(line(&connection.answer("POST").expect(200).text(), "POST"), "a=1&b=2");
    let file = site.ask(upload("/upload", "b.png", "tiny")).expect(200).text();
    assert!(line(&file, "FILE").starts_with("b.png 4 "), "{file}");
    let head = site.ask(Request::new("HEAD", "/")).expect(200);
    assert!(head.body.is_empty());
}

#[test]
fn a_nextcloud_server() {
    let scripts =
        ["index.php", "remote.php", "status.php", "ocs/v1.php", "occ.php", "lib/base.php", "apps/files/page.php"];
    let files = [
        ("core/css/main.css", "body {}"),
        ("core/img/logo.wasm", "\0asm"),
        ("core/fonts/a.woff2", "font"),
        ("config/config.php", "<?php secret"),
        ("data/alice/file.txt", "secret"),
        (".htaccess", "secret"),
        ("robots.txt", "User-agent: *"),
        (".well-known/acme-challenge/token", "answer"),
    ];
    let Some(site) = Site::new("nextcloud", "cloud.example", &scripts, &files) else { return };
    let names = ["SCRIPT_NAME", "PATH_INFO", "REQUEST_URI"];
    assert_eq!(site.told("/", &names), ["/index.php", "", "/"]);
    assert_eq!(site.told("/apps/calendar?x=1", &names), ["/index.php", "/apps/calendar", "/apps/calendar?x=1"]);
    assert_eq!(site.told("/index.php/s/abc%20d", &names), ["/index.php", "/s/abc d", "/index.php/s/abc%20d"]);
    assert_eq!(site.told("/remote.php/dav/files/a.txt", &names[..2]), ["/remote.php", "/dav/files/a.txt"]);
    assert_eq!(site.told("/ocs/v1.php/cloud/user", &names[..2]), ["/ocs/v1.php", "/cloud/user"]);
    assert_eq!(site.told("/status.php", &names[..2]), ["/status.php", ""]);
    // A script that is no entrance is the front controller's.
    assert_eq!(site.told("/apps/files/page.php", &names[..2]), ["/index.php", "/apps/files/page.php"]);
    site.all(404, &["/config/config.php", "/data/alice/file.txt", "/lib/base.php", "/.htaccess", "/occ.php", "/data"]);
    for (path, to) in [
        ("/remote/webdav", "http://cloud.example/remote.php/remote/webdav"),
        ("/.well-known/carddav", "http://cloud.example/remote.php/dav/"),
        ("/.well-known/webfinger?a", "http://cloud.example/index.php/.well-known/webfinger?a"),
    ] {
        assert_eq!(site.get(path, 301).header("Location"), Some(to));
    }
    assert_eq!(site.get("/.well-known/acme-challenge/token", 200).text(), "answer");
    let windows = site.ask(Request::get("/").header("User-Agent", "DavClnt")).expect(302);
    assert_eq!(windows.header("Location"), Some("http://cloud.example/remote.php/webdav/"));
    // Files by their versions, and what only looks like one.
    let plain = site.get("/core/css/main.css", 200);
    assert_eq!(plain.header("Cache-Control"), Some("public, max-age=15778463"));
    let versioned = site.get("/core/css/main.css?v=1", 200);
    assert_eq!(versioned.header("Cache-Control"), Some("public, max-age=15778463, immutable"));
    assert_eq!(site.get("/core/img/logo.wasm", 200).header("Content-Type"), Some("application/wasm"));
    assert_eq!(site.get("/core/fonts/a.woff2", 200).header("Cache-Control"), Some("max-age=604800"));
    assert_eq!(site.told("/avatar/alice.png", &names[..2]), ["/index.php", "/avatar/alice.png"]);
    assert_eq!(site.get("/status.php", 200).header("X-Robots-Tag"), Some("noindex, nofollow"));
    // WebDAV, with a body that goes through as it comes.
    let body = "0123456789".repeat(100_000);
    let put = Request::post("/remote.php/dav/files/big.bin", "application/octet-stream", &body).with_method("PUT");
    let text = site.ask(put).expect(200).text();
    assert!(line(&text, "BODY").starts_with("1000000 "), "{text}");
    let found = site.ask(Request::new("PROPFIND", "/remote.php/dav/").header("Depth", "1")).expect(200).text();
    assert_eq!(line(&found, "REQUEST_METHOD"), "PROPFIND");
    site.get("/index.php/missing", 404);
}

#[test]
fn a_drupal_museum() {
    let scripts = ["index.php", "update.php", "core/install.php", "vendor/x/y.php", "sites/default/files/evil.php"];
    let files = [
        ("core/misc/drupal.js", "let d;"),
        ("sites/default/files/styles/large/made.png", "image"),
        ("sites/default/private/plan.pdf", "secret"),
        ("core/CHANGELOG.txt", "version"),
        ("modules/a.module", "<?php source"),
        ("sites/default/settings.php~", "secret"),
        (".git/config", "secret"),
        ("robots.txt", "User-agent: *"),
    ];
    let Some(mut site) = Site::new("drupal", "museum.example", &scripts, &files) else { return };
    let names = ["SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"];
    assert_eq!(site.told("/node/7?page=1", &names), ["/index.php", "", "page=1"]);
    assert_eq!(site.told("/update.php/selection", &names), ["/update.php", "", ""]);
    assert_eq!(site.told("/core/install.php?a", &names), ["/core/install.php", "", "a"]);
    assert_eq!(site.told("/system/files/private.pdf", &names), ["/index.php", "", ""]);
    assert_eq!(site.get("/index.php/node/7", 307).header("Location"), Some("http://museum.example/node/7"));
    site.all(403, &["/.git/config", "/sites/default/private/plan.pdf", "/core/CHANGELOG.txt"]);
    site.all(403, &["/sites/default/files/evil.php", "/core/a.b/c.php"]);
    site.all(404, &["/modules/a.module", "/vendor/x/none.php", "/no.php"]);
    site.get("/robots.txt", 200);
    // Images are files once they are made; before, Drupal makes them.
    assert_eq!(site.get("/sites/default/files/styles/large/made.png", 200).text(), "image");
    assert_eq!(site.told("/sites/default/files/styles/large/new.png?t=1", &names[..1]), ["/index.php"]);
    let script = site.get("/core/misc/drupal.js", 200);
    assert_eq!(script.header("Cache-Control"), Some("max-age=315360000"));
    assert_eq!(script.header("Expires"), Some("Thu, 31 Dec 2037 23:55:55 GMT"));
    let form = Request::post("/user/login", "application/x-www-form-urlencoded", "name=a&pass=b");
    assert_eq!(line(&site.ask(form).expect(200).text(), "POST"), "name=a&pass=b");
    // A script that dies is not heard out, and then PHP is not there at all.
    site.get("/?do=warning", 200);
    site.get("/?do=fatal", 502);
    site.php.kill();
    wait::until("nobody listens any more", wait::SOON, || !site.container.listens_at(SOCKET));
    site.get("/node/7", 502);
    site.get("/robots.txt", 200);
    let refused = "failed (111: Connection refused) while connecting to upstream";
    wait::until("the log tells", wait::SOON, || site.log("museum.error.log").contains(refused));
}
