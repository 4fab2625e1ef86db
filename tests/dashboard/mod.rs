//! The dashboard in a real browser, over the real program; and what the API says of itself.

mod browser;
mod description;

use crate::support::backend::Backend;
use crate::support::component::need;
use crate::support::ports::free_port;
use crate::support::scratch::Scratch;
use crate::support::server::Server;
use crate::support::{client, wait};
use crate::support::{machine, project, replaced};
use browser::Browser;
use serde_json::Value;
use std::sync::MutexGuard;
use std::time::Instant;

/// A server with a dashboard over a writable API, two servers to balance between, and somebody who looks at it.
struct Scene {
    browser: Browser,
    server: Server,
    peers: [Backend; 2],
    /// What the page does within its patience is looked at, not what it does where nothing comes in time.
    _machine: MutexGuard<'static, ()>,
}

impl Scene {
    /// Nothing where there is no browser.
    fn new(api: &str) -> Option<Self> {
        if replaced() || !need(&["chromium", "chromedriver"]) {
            return None;
        }
        let machine = machine();
        let (peers, port) = ([Backend::named("a"), Backend::named("b")], free_port());
        let body = Self::body(port, api, &peers);
        Some(Self { browser: Browser::start(), server: Server::http(port, &body), peers, _machine: machine })
    }

    fn body(port: u16, api: &str, peers: &[Backend]) -> String {
        let servers: String = peers.iter().map(|peer| format!("server {};", peer.address())).collect();
        format!(
            "limit_req_zone $uri zone=rate:64k rate=1000r/s; \
             resolver 127.0.0.1:1; resolver_on_start retry; \
             proxy_cache_path kept keys_zone=answers:64k max_size=10m; proxy_cache_path more keys_zone=more:64k; \
             upstream later {{ zone later 64k; server nobody.invalid; }} \
             upstream app {{ zone app 64k; {servers} }} \
             server {{ listen 127.0.0.1:{port}; status_zone '<img src=x onerror=alert(1)>'; \
             limit_req zone=rate burst=99 nodelay; \
             location / {{ status_zone main; proxy_pass http://app; health_check interval=500ms; }} \
             location /kept {{ proxy_pass http://app/; proxy_cache answers; proxy_cache_valid 1h; \
             proxy_cache_bypass $arg_bypass; }} \
             location /api {{ {api} }} location /dashboard {{ dashboard; }} }}"
        )
    }

    fn url(&self) -> String {
        format!("http://{}/dashboard", self.server.address())
    }

    /// Opens the page and waits for its figures.
    fn open(&self, width: u32, colours: &str) {
        self.browser.open(&self.url(), width, colours);
        self.browser.until("the page shows its peers", "document.querySelectorAll('.condition .state').length === 2");
    }

    /// What the API says of the first peer as it is configured.
    fn configured(&self) -> Value {
        client::get(self.server.address(), "/api/9/http/upstreams/app/servers/0").expect(200).json()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, mut condition: impl FnMut(&Value) -> bool) {
        wait::until(what, wait::SOON, || condition(&self.configured()));
    }
}

#[test]
fn the_page_opens_without_complaint_and_asks_nobody_else() {
    let Some(scene) = Scene::new("api write=on;") else { return };
    client::get(scene.server.address(), "/").expect(200);
    scene.open(1280, "light");
    let shown =
        scene.browser.run("return document.body.innerText.replaceAll(String.fromCharCode(160), ' ')").to_string();
    for text in ["Tidegate", "2 of 2 up", "round robin", "rate", "main"] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    // Names are text, whatever stands in them.
    assert!(shown.contains("<img src=x onerror=alert(1)>"), "{shown}");
    assert_eq!(scene.browser.run("return document.images.length"), 0);
    let asked = scene.browser.requests();
    let own = format!("http://{}/", scene.server.address());
    let others: Vec<_> = asked.iter().filter(|url| !url.starts_with(&own) && !url.starts_with("data:")).collect();
    assert!(others.is_empty() && asked.len() > 5, "{others:?} of {asked:?}");
    assert_eq!(scene.browser.complaints(), Vec::<String>::new());
}

/// `nginx-examples/dashboard.conf`, on ports that are free here.
#[test]
fn the_example_shows_its_three_servers() {
    if replaced() {
        return;
    }
    let (dir, port) = (Scratch::new(), free_port());
    let mut text = std::fs::read_to_string(project("nginx-examples/dashboard.conf")).unwrap();
    for written in ["18081", "18082", "18083"] {
        text = text.replace(written, &free_port().to_string());
    }
    text = text.replace("listen 8080;", &format!("listen 127.0.0.1:{port};"));
    text = text.replace("/tmp/tidegate-dashboard", &dir.path().join("example").display().to_string());
    dir.write("nginx.conf", text);
    let server = Server::file_in(dir, port);
    let page = client::get(port, "/dashboard").expect(200);
    assert!(page.header("Content-Security-Policy").is_some());
    let answers: Vec<String> = (0..4).map(|_| client::get(port, "/").expect(200).text()).collect();
    assert_eq!(answers.iter().filter(|answer| *answer == "Server 3\n").count(), 2, "{answers:?}");
    let upstreams = client::get(server.address(), "/api/9/http/upstreams/").expect(200).json();
    let peers = &upstreams["backend"]["peers"];
    assert_eq!(peers.as_array().unwrap().len(), 3, "{upstreams}");
    assert!(client::get(port, "/metrics").expect(200).text().contains("nginxplus_upstream_server_requests"));
}

#[test]
fn what_is_shown_can_be_read_aloud() {
    let Some(scene) = Scene::new("api write=on;") else { return };
    scene.open(1280, "light");
    for (what, expression) in [
        ("every table says what it is", "[...document.querySelectorAll('table')].every(t => t.caption?.textContent)"),
        ("every head has a scope", "[...document.querySelectorAll('th')].every(h => h.scope)"),
        (
            "every row has its own",
            "[...document.querySelectorAll('tbody tr')].every(r => r.querySelector('th[scope=row]'))",
        ),
        ("buttons have names", "[...document.querySelectorAll('button')].every(b => b.textContent || b.ariaLabel)"),
        ("fields have names", "[...document.querySelectorAll('input')].every(i => i.ariaLabel)"),
        ("states are told by words", "[...document.querySelectorAll('.state')].every(s => s.textContent.trim())"),
        ("pictures are passed over", "[...document.querySelectorAll('svg')].every(s => s.ariaHidden === 'true')"),
        ("one text is read aloud at a time", "document.querySelectorAll('[role=status]').length === 1"),
    ] {
        assert_eq!(scene.browser.run(&format!("return {expression}")), true, "{what}");
    }
}

/// The texts of the page whose colour is too near to that of their ground: a ratio below 4.5, as WCAG 2 reckons it.
const PALE: &str = "
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const over = (colour, ground) => {
        for (const paint of [ground, colour]) { canvas.fillStyle = paint; canvas.fillRect(0, 0, 1, 1); }
        return `rgb(${[...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).join(',')})`;
    };
    const groundOf = (node) => node
        ? over(getComputedStyle(node).backgroundColor, groundOf(node.parentElement)) : 'rgb(255,255,255)';
    const light = (colour) => {
        const part = (value) => value <= 10.31475 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4;
        const [red, green, blue] = colour.match(/[0-9]+/g).map(Number).map(part);
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const said = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    return [...document.querySelectorAll('body :not(script, noscript)')]
        .filter((node) => said(node) && node.checkVisibility())
        .map((node) => {
            const ground = groundOf(node);
            const [one, other] = [light(over(getComputedStyle(node).color, ground)), light(ground)];
            const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
            return { ratio, text: `${node.className} ${node.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}` };
        })
        .filter(({ ratio }) => ratio < 4.5).map(({ text }) => text);
";

#[test]
fn every_text_stands_out_from_its_ground() {
    let Some(mut scene) = Scene::new("api write=on;") else { return };
    scene.peers[1].kill();
    for colours in ["light", "dark"] {
        scene.open(1280, colours);
        scene.browser.until("a peer is in trouble", "document.querySelectorAll('#attention li').length === 2");
        scene.browser.click(".switch [data-mode=drain]");
        scene.browser.until("it asks", "document.querySelector('dialog').open");
        scene.browser.click("dialog .risky");
        scene.wait_for("it drains", |peer| peer["drain"] == true);
        scene.browser.until("it is told", "!document.querySelector('#notice').hidden");
        scene.browser.click(".unfold");
        // As many peers as there are colours for.
        scene.browser.run(
            "document.querySelector('.picks').append(...[0, 1, 2, 3, 4, 5, 6, 7].map((hue) => \
             make('li', { class: 'letter', 'data-hue': hue }, 'X')))",
        );
        assert_eq!(scene.browser.run(PALE), serde_json::json!([]), "{colours}");
        scene.browser.click(".switch [data-mode=in]");
        scene.wait_for("it is back", |peer| peer["drain"] != true);
    }
}

#[test]
fn caches_are_shown_with_their_size_and_what_they_give() {
    let Some(scene) = Scene::new("api write=on;") else { return };
    scene.open(1280, "light");
    let cell = |row: usize, head: &str| {
        format!("document.querySelector('#caches tbody tr:nth-child({row}) [data-head=\"{head}\"]').innerText")
    };
    let shows = |row: usize, head: &str, text: &str| {
        let shown = format!("{}.replaceAll(String.fromCharCode(160), ' ') === '{text}'", cell(row, head));
        scene.browser.until(&format!("{head} of {row} is {text}"), &shown);
    };
    scene.browser.until("both are there", "document.querySelectorAll('#caches tbody tr').length === 2");
    shows(1, "Hit ratio", "–");
    for path in ["/kept", "/kept", "/kept", "/kept?bypass=1"] {
        client::get(scene.server.address(), path).expect(200);
    }
    shows(1, "Hit ratio", "50 %\\n50 % in all");
    shows(1, "Hit", "2\\n2 B");
    shows(1, "Miss", "1\\n1 B");
    shows(1, "Bypassed", "1\\n1 B");
    shows(2, "Size", "0 B\\nno limit");
    let size = scene.browser.run(&format!("return {}", cell(1, "Size"))).to_string();
    assert!(size.contains("% of 10 MB"), "{size}");
    assert_eq!(scene.browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_killed_peer_is_shown_as_down() {
    let Some(mut scene) = Scene::new("api write=on;") else { return };
    scene.open(1280, "light");
    let dead = scene.peers[1].address();
    scene
        .browser
        .until("both are up", "[...document.querySelectorAll('.condition .state')].every(s => s.textContent === 'Up')");
    scene.peers[1].kill();
    let killed = Instant::now();
    scene.browser.until("it is shown", "document.querySelectorAll('.condition .state')[1].textContent === 'Unhealthy'");
    println!("a killed peer was shown as unhealthy after {:?}", killed.elapsed());
    let text = scene.browser.run("return document.querySelector('#attention').textContent").to_string();
    for told in [&dead.to_string(), "connection refused", "nobody.invalid in later"] {
        assert!(text.contains(told), "{told} in {text}");
    }
    let news = scene.browser.run("return document.querySelector('#news').textContent").to_string();
    assert!(news.contains(&format!("{dead} in app: unhealthy")), "{news}");
    scene.peers[1].restart();
    scene.browser.until("it is up again", "document.querySelectorAll('.condition .state')[1].textContent === 'Up'");
    scene.browser.until("it needs no attention", "document.querySelectorAll('#attention li').length === 1");
}

#[test]
fn a_peer_is_drained_by_a_click() {
    let Some(scene) = Scene::new("api write=on;") else { return };
    for width in [1280, 360] {
        scene.open(width, "light");
        scene.browser.until("there are switches", "document.querySelector('.switch [data-mode=drain]')");
        scene.browser.click(".switch [data-mode=drain]");
        scene.wait_for("it drains", |peer| peer["drain"] == true);
        scene.browser.until("it is shown", "document.querySelector('.condition .state').textContent === 'Draining'");
        scene.browser.click(".switch [data-mode=down]");
        scene.wait_for("it is down", |peer| peer["down"] == true);
        scene.browser.until("it is shown", "document.querySelector('.condition .state').textContent === 'Down'");
        scene.browser.click(".switch [data-mode=in]");
        scene.wait_for("it is back", |peer| peer["down"] == false && peer["drain"] != true);
        scene.browser.until("it is shown", "document.querySelector('.condition .state').textContent === 'Up'");
    }
    assert_eq!(scene.browser.complaints(), Vec::<String>::new());
}

/// WebDriver's code points of keys without a character.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

#[test]
fn a_peer_is_drained_and_weighed_by_keys_alone() {
    let Some(scene) = Scene::new("api write=on;") else { return };
    scene.open(1280, "dark");
    scene.browser.until("there are switches", "document.querySelector('.switch')");
    let go_to = |selector: &str| {
        let there = format!("return document.activeElement === document.querySelector('{selector}')");
        let reached = (0..60).any(|_| {
            scene.browser.press(TAB);
            scene.browser.run(&there) == true
        });
        assert!(reached, "no way to {selector}");
    };
    go_to(".switch [data-mode=drain]");
    let ring = scene.browser.run("return getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(ring, "solid", "it is seen where the keys go");
    scene.browser.press(" ");
    scene.wait_for("it drains", |peer| peer["drain"] == true);
    go_to("input.weight");
    scene.browser.press(&format!("7{ENTER}"));
    scene.wait_for("it weighs more", |peer| peer["weight"] == 7);
}

#[test]
fn the_last_peer_is_taken_out_only_by_who_means_it() {
    let Some(scene) = Scene::new("api write=on;") else { return };
    scene.open(1280, "light");
    scene.browser.until("there are switches", "document.querySelector('.switch')");
    scene.browser.click("tbody tr:nth-child(2) [data-mode=down]");
    scene.browser.until("it is shown", "document.querySelectorAll('.condition .state')[1].textContent === 'Down'");
    scene.browser.click("tbody tr:nth-child(1) [data-mode=down]");
    scene.browser.until("it asks", "document.querySelector('dialog').open");
    // What has the focus is the harmless answer.
    scene.browser.press(ENTER);
    scene.browser.until("it is answered", "!document.querySelector('dialog').open");
    assert_eq!(scene.configured()["down"], false);
    scene.browser.click("tbody tr:nth-child(1) [data-mode=down]");
    scene.browser.until("it asks again", "document.querySelector('dialog').open");
    scene.browser.click("dialog .risky");
    scene.wait_for("it is down", |peer| peer["down"] == true);
}

#[test]
fn what_may_not_be_changed_has_no_switches() {
    let Some(scene) = Scene::new("api;") else { return };
    scene.open(1280, "light");
    assert_eq!(scene.browser.run("return document.querySelectorAll('.switch, input').length"), 0);
    assert_eq!(scene.browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_name_and_a_password_are_asked_for_when_the_user_wants_to_change_something() {
    let users = Scratch::new();
    users.write("users", "admin:{PLAIN}secret\n");
    let file = users.path().join("users");
    let api = format!("limit_except GET {{ auth_basic api; auth_basic_user_file {}; }} api write=on;", file.display());
    let Some(scene) = Scene::new(&api) else { return };
    scene.open(1280, "light");
    scene.browser.until("it offers to sign in", "!document.querySelector('#sign-in').hidden");
    assert_eq!(scene.browser.run("return document.querySelectorAll('.switch').length"), 0);
    // admin:secret
    scene.browser.sign_in("YWRtaW46c2VjcmV0");
    scene.browser.click("#sign-in");
    scene.browser.until("there are switches", "document.querySelector('.switch')");
    scene.browser.click(".switch [data-mode=drain]");
    scene.wait_for("it drains", |peer| peer["drain"] == true);
}

#[test]
fn a_refused_change_is_told_in_the_words_of_the_api() {
    let Some(scene) = Scene::new("api write=on;") else { return };
    scene.open(1280, "light");
    scene.browser.until("there are fields", "document.querySelector('input.weight')");
    scene.browser.run(
        "const field = document.querySelector('input.weight'); field.value = '0'; \
         field.dispatchEvent(new Event('change'));",
    );
    scene
        .browser
        .until("it is told", "document.querySelector('#notice-text').textContent.includes('UpstreamBadWeight')");
    scene.browser.until("the field is right again", "document.querySelector('input.weight').value === '1'");
}

#[test]
fn no_page_scrolls_sideways_and_both_colours_differ() {
    let Some(scene) = Scene::new("api write=on;") else { return };
    let mut grounds = Vec::new();
    for colours in ["light", "dark"] {
        for width in [320, 360, 768, 1024, 1280, 1920] {
            scene.open(width, colours);
            scene.browser.until("there are switches", "document.querySelector('.switch')");
            scene.browser.click(".unfold");
            let widths = scene
                .browser
                .run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]");
            assert_eq!(widths[0], widths[1], "{colours} {width}");
        }
        grounds.push(scene.browser.run("return getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(grounds[0], grounds[1]);
}

#[test]
fn an_api_that_cannot_be_reached_is_told_and_found_again() {
    let Some(mut scene) = Scene::new("api write=on;") else { return };
    scene.open(1280, "light");
    let body = Scene::body(scene.server.port(), "api write=on;", &scene.peers);
    scene.server.quit();
    scene.browser.until("it is told", "!document.querySelector('#outage').hidden");
    let text = scene.browser.run("return document.querySelector('#outage').textContent").to_string();
    assert!(text.contains("cannot be reached: no connection"), "{text}");
    scene.server = Server::http(scene.server.port(), &body);
    scene.browser.until("it is found again", "document.querySelector('#outage').hidden");
    scene.server.rewrite(&body.replace("location /api { api write=on; }", ""));
    scene.server.cli(&["-s", "reload"]).succeeded();
    scene.browser.until("it is gone", "document.querySelector('#outage').textContent.includes('no JSON at /api/9')");
}
