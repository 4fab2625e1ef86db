//! What the house promises of itself: the walls between rooms, the size of files, the table of directives.

mod directives;

use crate::support::project;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Lines a file may have before its room is to be split.
const LONGEST: usize = 600;

/// A wall: what must not be said in the code of some files, and why.
struct Wall {
    /// Beginnings of paths.
    inside: &'static [&'static str],
    /// Files the wall does not go around.
    except: &'static [&'static str],
    /// `crate::` may be followed by these only; none says that anything may.
    knows: &'static [&'static str],
    /// What must not be written at all.
    never: &'static [&'static str],
    because: &'static str,
}

const WALLS: &[Wall] = &[
    Wall {
        inside: &["src/syntax/"],
        except: &[],
        knows: &["syntax"],
        never: &["std::fs", "std::net", "tokio"],
        because: "syntax knows nothing but text: no directive, no file that it was not handed",
    },
    Wall {
        inside: &["src/config/"],
        except: &[],
        knows: &["syntax", "config"],
        never: &["std::fs", "tokio::", "hyper::"],
        because: "config knows how directives are declared and read, not what any of them means",
    },
    Wall {
        inside: &["src/"],
        // The file of `state` is part of the same reading: lines of `server`, and nothing else. What answers without
        // sockets, in tests and under the fuzzer, reads texts of its own.
        except: &[
            "src/syntax/",
            "src/generation.rs",
            "src/fuzzing/",
            "src/http/modules/upstream/state.rs",
            "src/http/in_memory.rs",
        ],
        knows: &[],
        never: &["syntax::parse", "syntax::load", "syntax::Loader", "parser::parse"],
        because: "text is read in one place, before http::level; nothing behind it reads text again",
    },
    Wall {
        inside: &["src/http/connection/", "src/http/heads/", "src/http/pipeline.rs", "src/http/exchange.rs"],
        except: &[],
        knows: &[],
        never: &["crate::syntax", "Scope", "FromArgs"],
        because: "a request meets settings, never the words they were written in",
    },
    Wall {
        inside: &["src/upstream/wire/"],
        except: &[],
        // Of http, the heads: an answer of any protocol becomes one.
        knows: &["upstream", "http"],
        never: &[
            "http::body",
            "http::worker",
            "Exchange",
            "tokio",
            "hyper",
            "socket2",
            "TcpStream",
            "UdpSocket",
            "UnixStream",
            "std::time",
            "Instant",
            "SystemTime",
        ],
        because: "wire formats are bytes in and bytes out: no socket, no clock",
    },
    Wall {
        inside: &["src/process/"],
        except: &[],
        knows: &["process", "cli"],
        never: &["hyper", "http::", "known::"],
        because: "the process room drives a Program and knows no directive and no protocol",
    },
    Wall {
        inside: &["src/"],
        except: &["src/process/"],
        knows: &[],
        never: &[
            "unsafe {",
            "unsafe fn",
            "unsafe impl",
            "unsafe extern",
            "allow(unsafe_code",
            "libc::fork",
            "libc::kill",
            "libc::signal",
            "libc::sigaction",
            "process::Command",
            "tokio::signal",
            "TcpListener::bind",
            "UnixListener::bind",
        ],
        because: "only process holds unsafe code, forks, handles signals and binds",
    },
];

#[test]
fn every_wall_stands() {
    let mut holes = String::new();
    for source in sources() {
        for wall in WALLS.iter().filter(|wall| wall.is_around(&source.path)) {
            for (number, line) in source.code() {
                for word in wall.never.iter().filter(|word| line.contains(**word)) {
                    let _ = writeln!(holes, "{}:{number}: `{word}`: {}", source.path, wall.because);
                }
            }
            for room in source.rooms() {
                if !wall.knows.is_empty() && !wall.knows.contains(&room.as_str()) {
                    let _ = writeln!(holes, "{}: `crate::{room}`: {}", source.path, wall.because);
                }
            }
        }
    }
    assert!(holes.is_empty(), "\n{holes}");
}

#[test]
fn every_wall_goes_around_something() {
    let paths: Vec<_> = sources().into_iter().map(|source| source.path).collect();
    let names = WALLS.iter().flat_map(|wall| wall.inside.iter().chain(wall.except));
    for name in names {
        assert!(paths.iter().any(|path| path.starts_with(name)), "{name} is no longer there");
    }
}

#[test]
fn no_file_is_too_long() {
    let long = sources().into_iter().filter(|source| source.text.lines().count() > LONGEST);
    let long: Vec<_> = long.map(|source| source.path).collect();
    assert!(long.is_empty(), "more than {LONGEST} lines, split them: {long:?}");
}

#[test]
fn every_file_says_first_what_it_is() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    let silent: Vec<_> = silent.map(|source| source.path).collect();
    assert!(silent.is_empty(), "no `//!` sentence at the top: {silent:?}");
}

#[test]
fn nothing_outside_tests_panics_for_convenience() {
    let mut found = String::new();
    for source in sources() {
        for (number, line) in source.code() {
            if [".unwrap()", ".expect(\"", "todo!(", "unimplemented!(", "dbg!("].iter().any(|word| line.contains(word))
            {
                let _ = writeln!(found, "{}:{number}: {}", source.path, line.trim());
            }
        }
    }
    assert!(found.is_empty(), "\n{found}");
}

#[test]
fn a_test_that_is_not_run_says_why() {
    for folder in ["src", "tests"] {
        for path in files(&project(folder)) {
            let text = std::fs::read_to_string(&path).unwrap();
            let silent = ["#[ignore", "]"].concat();
            assert!(!text.contains(&silent), "{}: ignored without a reason", path.display());
        }
    }
}

/// One file of the program.
struct Source {
    /// From the project's folder on.
    path: String,
    text: String,
    /// The whole file is a test.
    test: bool,
}

impl Source {
    /// Numbers and lines of what is compiled into the program: no comments, no tests. A test module stands last.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = [
            "#[cfg(test)]\nmod tests {",
            "#[cfg(test)]\npub(super) mod tests {",
            "#[cfg(test)]\npub(crate) mod tests {",
        ];
        let end = tests.iter().filter_map(|tests| self.text.find(tests)).min().unwrap_or(self.text.len());
        let own = if self.test { "" } else { &self.text[..end] };
        let lines = own.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The rooms it names: what follows `crate::`, also in braces.
    fn rooms(&self) -> Vec<String> {
        let code: String = self.code().map(|(_, line)| line).fold(String::new(), |all, line| all + line + "\n");
        let mut rooms = Vec::new();
        for rest in code.split("crate::").skip(1) {
            match rest.strip_prefix('{') {
                Some(list) => rooms.extend(names_in_braces(list)),
                None => rooms.push(name_of(rest)),
            }
        }
        rooms
    }
}

/// The names at the outer level of `a::b, c::{d, e}};`.
fn names_in_braces(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut fresh) = (0, Vec::new(), true);
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            _ if character.is_whitespace() => {}
            _ if fresh => {
                names.push(name_of(&list[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn name_of(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

impl Wall {
    fn is_around(&self, path: &str) -> bool {
        let starts = |names: &[&str]| names.iter().any(|name| path.starts_with(name));
        starts(self.inside) && !starts(self.except)
    }
}

/// Every file of the program.
fn sources() -> Vec<Source> {
    let root = project("");
    let mut sources = Vec::new();
    for file in files(&project("src")) {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        sources.push(Source { test: is_test(&file), path, text });
    }
    assert!(sources.len() > 100);
    sources
}

/// Whether the file that declares this one as a module does so for tests only, or one of those that this one is inside of.
fn is_test(file: &Path) -> bool {
    let stem = file.file_stem().unwrap().to_str().unwrap();
    let parent = file.parent().unwrap();
    let (name, folder) = match stem {
        "mod" => (parent.file_name().unwrap().to_str().unwrap(), parent.parent().unwrap()),
        name => (name, parent),
    };
    let declared_in = [folder.join("mod.rs"), folder.with_extension("rs"), folder.join("lib.rs")];
    let texts = declared_in.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    let declared = texts.into_iter().any(|text| {
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let declares = |line: &str| line.ends_with(&format!("mod {name};"));
        lines.windows(2).any(|pair| pair[0] == "#[cfg(test)]" && declares(pair[1]))
    });
    declared || folder != project("src") && is_test(&folder.join("mod.rs"))
}

/// Every Rust file below a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}
