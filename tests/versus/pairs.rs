//! Every `fixtures/versus/NAME.conf` with its `NAME.requests`, through nginx and through us, one after the other on the
//! same ports, in the same directory and with the same backends.
//!
//! A configuration whose first line is `# differs: WHY` uses what is not built: told, and not compared.

use super::backend::{Backend, Speech};
use super::cases::{Case, parse};
use super::compare::{differences, marked, shapes, shown};
use super::support::{oracle, shows, whole_file, workdir};
use super::wire::{Conversation, converse};
use crate::support::ports::free_port;
use crate::support::scratch::Scratch;
use crate::support::server;
use crate::support::{binary, project};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What one binary did with one configuration.
struct Run {
    conversations: Vec<(Case, Conversation)>,
    /// Log files by name, their lines sorted: a line is written after its answer, so the order of two is not promised.
    logs: BTreeMap<String, Vec<Vec<u8>>>,
}

/// The surroundings of a configuration: what its placeholders stand for.
struct Stage {
    dir: Scratch,
    ports: Vec<u16>,
    refused: u16,
    backends: Vec<Backend>,
}

impl Stage {
    fn new() -> Self {
        let dir = workdir();
        let mut backends: Vec<Backend> =
            (1..=4).map(|number| Backend::tcp(&format!("backend{number}"), Speech::Http)).collect();
        backends.push(Backend::unix("unix1", Speech::Http, &dir.path().join("backend.sock")));
        for (name, speech) in [("uwsgi", Speech::Uwsgi), ("fastcgi", Speech::FastCgi), ("scgi", Speech::Scgi)] {
            backends.extend((1..=2).map(|number| Backend::tcp(&format!("{name}{number}"), speech)));
            backends.push(Backend::unix(&format!("{name}3"), speech, &dir.path().join(format!("{name}.sock"))));
        }
        backends.extend((1..=2).map(|number| Backend::tcp(&format!("memcached{number}"), Speech::Memcached)));
        Self { ports: (0..3).map(|_| free_port()).collect(), refused: free_port(), dir, backends }
    }

    fn fill(&self, text: &str) -> String {
        let mut text = text
            .replace("%%PORT%%", &self.ports[0].to_string())
            .replace("%%PORT2%%", &self.ports[1].to_string())
            .replace("%%PORT3%%", &self.ports[2].to_string())
            .replace("%%REFUSED%%", &format!("127.0.0.1:{}", self.refused))
            .replace("%%DIR%%", &self.dir.path().display().to_string());
        for backend in &self.backends {
            text = text.replace(&format!("%%{}%%", backend.name().to_ascii_uppercase()), &backend.address());
        }
        text
    }

    fn run(&self, program: &Path, conf: &str, requests: &str) -> Run {
        let dir = self.dir.path();
        fs::create_dir(dir.join("cache")).expect("mkdir");
        fs::write(dir.join("nginx.conf"), whole_file(&self.fill(conf), dir)).expect("write");
        let mut server = server::start(program, dir, self.ports[0]);
        let mut conversations = Vec::new();
        for case in parse(&self.fill(requests)) {
            self.set_scripts(&case);
            let port = if case.title.starts_with('@') { self.ports[1] } else { self.ports[0] };
            for _ in 0..case.repeat {
                conversations.push((case.clone(), converse(port, &without_mark(&case).exchange)));
            }
        }
        server.finish();
        // What one has kept is nothing to the other.
        fs::remove_dir_all(dir.join("cache")).expect("remove");
        Run { conversations, logs: take_logs(dir) }
    }

    fn set_scripts(&self, case: &Case) {
        for speech in Speech::ALL {
            let backends = self.backends.iter().filter(|backend| backend.speech() == speech);
            for (index, backend) in backends.enumerate() {
                let own = case
                    .scripts
                    .iter()
                    .find(|(number, other, _)| *other == speech && (*number == 0 || *number == index + 1));
                backend.script(own.map(|(_, _, steps)| steps.clone()));
            }
        }
    }
}

/// A request line that begins with `@` goes to the second port.
fn without_mark(case: &Case) -> Case {
    let mut case = case.clone();
    if case.title.starts_with('@') {
        case.exchange.pieces[0].remove(0);
    }
    case
}

/// Reads and removes the logs the configuration asked for.
fn take_logs(dir: &Path) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut logs = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("list").map_while(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".log") {
            let text = fs::read(entry.path()).expect("read");
            fs::remove_file(entry.path()).expect("remove");
            if name != "error.log" {
                let mut lines: Vec<Vec<u8>> = shapes(&text).split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
                lines.sort();
                logs.insert(name, lines);
            }
        }
    }
    logs
}

/// What is wrong with an answer that has a fixed expectation.
fn expected(conversation: &Conversation, status: u16, text: &str) -> Vec<String> {
    let last = conversation.responses.last().cloned().unwrap_or_default();
    let body = String::from_utf8_lossy(&last.body).into_owned();
    if last.status() == status && body.contains(text) {
        return Vec::new();
    }
    vec![format!("expected {status} with {text:?} <> {} {}", last.status(), shown(&last.body))]
}

/// Compares one configuration; says how many pairs were equal, and fails with every difference.
fn compare(name: &str) {
    let Some(nginx) = oracle() else { return };
    let conf = fs::read_to_string(project(&format!("fixtures/versus/{name}.conf"))).expect("the configuration");
    let requests = fs::read_to_string(project(&format!("fixtures/versus/{name}.requests"))).expect("the requests");
    if let Some(why) = conf.strip_prefix("# differs: ").filter(|_| binary() != nginx) {
        eprintln!("known to differ: {name}.conf: {}", why.lines().next().unwrap_or_default());
        return;
    }
    let stage = Stage::new();
    let theirs = stage.run(&nginx, &conf, &requests);
    let mine = stage.run(&binary(), &conf, &requests);
    let mut told = Vec::new();
    let (mut equal, mut known) = (0, 0);
    for ((case, a), (_, b)) in theirs.conversations.iter().zip(&mine.conversations) {
        let found = match &case.expect {
            Some((status, text)) if binary() != nginx => expected(b, *status, text),
            _ if case.shape => differences(&marked(a), &marked(b), &case.headers),
            _ => differences(a, b, &case.headers),
        };
        let place = format!("{name}.requests:{}: {}", case.line, case.title);
        match (&case.differs, found.is_empty()) {
            (_, true) => equal += 1,
            (Some(why), false) => {
                known += 1;
                eprintln!("known to differ: {place}: {why}");
            }
            (None, false) => told.push(format!("{place}\n    {}", found.join("\n    "))),
        }
        if shows() {
            eprintln!("--- {place}");
            for response in &a.responses {
                eprintln!("{} {:?}\n{}", response.line, response.headers, shown(&response.body));
            }
            eprintln!("{:?}", a.end);
        }
    }
    for (log, lines) in &theirs.logs {
        let own = mine.logs.get(log).cloned().unwrap_or_default();
        if shows() {
            eprintln!("--- {log}\n{}", String::from_utf8_lossy(&lines.join(&b'\n')));
        }
        let lacking: Vec<_> = lines.iter().filter(|line| !own.contains(line)).map(|line| shown(line)).collect();
        let foreign: Vec<_> = own.iter().filter(|line| !lines.contains(line)).map(|line| shown(line)).collect();
        if *lines != own {
            told.push(format!("{name}: {log}\n    {}\n    <>\n    {}", lacking.join("\n    "), foreign.join("\n    ")));
        }
    }
    let all = theirs.conversations.len();
    eprintln!("versus {name}: {all} pairs, {equal} equal, {known} known to differ, {} differences", told.len());
    assert!(told.is_empty(), "{} of {all} pairs differ, nginx <> ours:\n{}", told.len(), told.join("\n"));
}

/// One test for each configuration, so that they run side by side and are told apart.
macro_rules! configurations {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            compare(stringify!($name));
        })*

        #[test]
        fn every_configuration_has_its_test() {
            let mut known = vec![$(stringify!($name)),*];
            known.sort_unstable();
            let mut present: Vec<String> = fs::read_dir(project("fixtures/versus")).expect("list").map_while(Result::ok)
                .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".conf").map(str::to_owned)).collect();
            present.sort_unstable();
            assert_eq!(known, present);
        }
    };
}

configurations! {
    access,
    add_header,
    balancing,
    body_size,
    browser,
    cache,
    changed_variables,
    core,
    dav,
    error_pages,
    fastcgi,
    files,
    gunzip,
    gzip,
    hash,
    keepalive,
    locations,
    logs,
    maps,
    memcached,
    normalise,
    proxy_answers,
    proxy_buffering,
    proxy_errors,
    proxy_headers,
    proxy_switches,
    proxy_uri,
    redirects,
    returns,
    scgi,
    server_names,
    slash_redirect,
    slice,
    ssi,
    static_files,
    static_switches,
    stub_status,
    types_charset,
    userid,
    uwsgi,
    variables,
}
