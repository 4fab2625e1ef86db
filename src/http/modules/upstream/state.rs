//! `state`: the servers of an upstream are in a file that the server itself writes.

use super::lines::Lines;
use crate::{
    config::{Args, FromArgs, Scope, Slot, UPSTREAM},
    syntax::{self, Fault, Span, Stage, Statement},
};
use std::path::{Path, PathBuf};

/// Where the file is.
#[derive(Clone, Debug)]
pub(super) struct StateFile {
    pub(super) path: PathBuf,
    pub(super) span: Span,
}

impl FromArgs for StateFile {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        if word.value.is_empty() {
            return Err(args.invalid(word));
        }
        Ok(Self { path: args.scope.path(&word.value), span: word.span })
    }
}

impl StateFile {
    /// Reads the servers. A file that is not there yet has none. `args` are those of the upstream around it.
    ///
    /// # Errors
    /// The first thing that is wrong, with the line of the file it is on.
    pub(super) fn read(&self, lines: &mut Lines, args: &Args<'_>) -> Result<(), Fault> {
        let text = match args.scope.read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                let (path, errno) = (self.path.display(), crate::process::Errno::from(error));
                return Err(Fault::at(self.span, format!("open() \"{path}\" failed ({errno})")));
            }
        };
        let here = |fault: &Fault, at: Span| self.fault(&text, &fault.message, fault.reported().unwrap_or(at));
        let mut faults = Vec::new();
        let block = syntax::parse(self.span.file, &text, &mut faults);
        if let Some(fault) = faults.first() {
            return Err(here(fault, Span::default()));
        }
        for statement in &block.statements {
            let Statement { name, block, args: words, end } = statement;
            if name.value != b"server" || block.is_some() || words.is_empty() {
                let unknown = [b"unknown directive \"", &name.value[..], b"\""].concat();
                return Err(self.fault(&text, &unknown, *end));
            }
            let line = Args { statement, scope: args.scope, here: UPSTREAM, first: false };
            lines.fill(&line).map_err(|fault| self.fault(&text, &fault.message, *end))?;
        }
        Ok(())
    }

    /// A fault at a place of the file, told at the directive: the file is no part of the configuration's text.
    fn fault(&self, text: &[u8], message: &[u8], at: Span) -> Fault {
        let end = text.len().min(at.start as usize);
        let line = 1 + memchr::memchr_iter(b'\n', &text[..end]).count();
        let place = format!(" in {}:{line}", shown(&self.path));
        let fault = Fault::at(self.span, [message, place.as_bytes()].concat());
        fault.unnamed().help("the server writes this file itself; remove the line, or the file")
    }
}

/// Two upstreams cannot write the same file.
pub(super) fn check<'s>(files: impl Iterator<Item = (&'s str, &'s StateFile)>, scope: &Scope<'_>) {
    let mut known: Vec<(&str, &StateFile)> = Vec::new();
    for (upstream, file) in files {
        match known.iter().find(|(_, earlier)| earlier.path == file.path) {
            None => known.push((upstream, file)),
            Some((owner, earlier)) => {
                let text = format!("state file \"{}\" is already used in upstream \"{owner}\"", shown(&file.path));
                scope.fault(Fault::at(file.span, text).when(Stage::Settling).also(earlier.span, "here"));
            }
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use crate::{
        generation::read_text,
        upstream::{Address, Balance, Group, ServerLine, edit::Dynamics, resolve::Resolving},
    };
    use proptest::{collection::vec, prelude::*};

    /// What is said of an upstream with this state file, or who belongs to it.
    fn read(upstream: &str, state: Option<&[u8]>) -> String {
        let main = format!("events {{}} http {{ upstream u {{ {upstream} }} server {{ listen 80; }} }}");
        let mut files = vec![("nginx.conf", main.as_bytes())];
        files.extend(state.map(|text| ("u.state", text)));
        let reading = read_text(&files);
        let Some(ready) = reading.ready else { return String::from_utf8_lossy(&reading.reports[0].text).into_owned() };
        let group = ready.generation.http.upstreams[0].clone().unwrap();
        assert_eq!(ready.needs.kept, [std::path::PathBuf::from("/texts/u.state")]);
        group.state_text()
    }

    #[test]
    fn the_file_says_who_belongs_to_the_upstream() {
        let (upstream, whole) =
            ("zone u 64k; state u.state;", "server 10.0.0.1;\nserver \"unix:/a b\" weight=3 drain;\n");
        assert_eq!(read(upstream, Some(whole.as_bytes())), whole);
        assert_eq!(read(upstream, Some(b"")), "");
        assert_eq!(read(upstream, None), "", "it is not there yet");
    }

    #[test]
    fn what_is_wrong_with_it_is_told_with_its_line() {
        for (upstream, state, text) in [
            ("zone u 64k; state u.state; server 10.0.0.1;", "", "\"state\" directive is incompatible with \"server\""),
            ("state u.state;", "", "\"state\" requires upstream \"u\" to be in shared memory"),
            (
                "zone u 64k; ip_hash; state u.state;",
                "server 10.0.0.1 backup;",
                "balancing method does not support parameter \"backup\" in /texts/u.state:1",
            ),
            (
                "zone u 64k; state u.state;",
                "server 10.0.0.1;\nserver 10.0.0.2 wait=1;",
                "invalid parameter \"wait=1\" in /texts/u.state:2",
            ),
            ("zone u 64k; state u.state;", "include x;", "unknown directive \"include\" in /texts/u.state:1"),
            (
                "zone u 64k; state u.state;",
                "\n\nserver 10.0.0.1",
                "unexpected end of file, expecting \";\" or \"}\" in /texts/u.state:3",
            ),
        ] {
            let said = read(upstream, Some(state.as_bytes()));
            assert!(said.starts_with(text), "{said}");
        }
    }

    /// Any server that the API takes.
    fn servers() -> impl Strategy<Value = (ServerLine, String)> {
        let numbers = (1..70_000u32, 0..9u32, 0..9u32, 0..99i64, 0..5000u64);
        let flags = (any::<bool>(), any::<bool>(), any::<bool>());
        (numbers, flags, "[^\\p{Cc}]{0,10}", "[^\\p{Cc}]{1,20}").prop_map(|(numbers, flags, route, path)| {
            let (weight, max_conns, max_fails, fail_timeout, slow_start) = numbers;
            let (down, drain) = (flags.1 && !flags.2, flags.2);
            let server = format!("unix:/{path}");
            let line = ServerLine {
                server: server.clone(),
                weight,
                max_fails,
                fail_timeout,
                max_conns,
                backup: flags.0,
                down,
                drain,
                route: if route.len() <= 32 { route } else { String::new() },
                slow_start,
            };
            (line, path)
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(servers in vec(servers(), 0..5)) {
            let given = servers.iter().map(|(line, path)| (line.clone(), vec![Address::Unix(format!("/{path}").into())]));
            let dynamics = Dynamics { keeps: true, begins_empty: true };
            let given = given.collect();
            let group = Group::with_names("u", Balance::RoundRobin, given, Resolving::default(), dynamics).unwrap();
            let text = group.state_text();
            let main = b"events {} http { upstream u { zone u 64k; state u.state; } server { listen 80; } }".as_slice();
            let reading = read_text(&[("nginx.conf", main), ("u.state", text.as_bytes())]);
            prop_assert!(reading.ready.is_some(), "{}: {}", text, String::from_utf8_lossy(&reading.reports[0].text));
            let again = reading.ready.unwrap().generation.http.upstreams[0].clone().unwrap();
            prop_assert_eq!(again.state_text(), text);
            let lines = |group: &Group| group.peers().map(|peer| (*peer.line).clone()).collect::<Vec<_>>();
            prop_assert_eq!(lines(&again), lines(&group));
        }
    }

    #[test]
    fn a_file_belongs_to_one_upstream() {
        let one = |name: &str| format!("upstream {name} {{ zone {name} 64k; state s; }}");
        let main = format!("events {{}} http {{ {} {} }}", one("a"), one("b"));
        let reading = read_text(&[("nginx.conf", main.as_bytes())]);
        let text = String::from_utf8_lossy(&reading.reports[0].text).into_owned();
        assert!(text.starts_with("state file \"/texts/s\" is already used in upstream \"a\""), "{text}");
    }
}
