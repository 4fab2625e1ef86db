//! The committed corpus of every fuzz target, and every configuration of the project, as plain tests: what fuzzing once
//! found stays found where nobody fuzzes.

use crate::support::project;
use std::path::{Path, PathBuf};
use tidegate::fuzzing::{TARGETS, run};

#[test]
fn every_target_holds_over_its_corpus() {
    for (name, target) in TARGETS {
        let files = files(&project("fuzz/corpus").join(name));
        assert!(files.len() >= 5, "{name} has hardly any corpus");
        for file in files {
            println!("{name}: {}", file.display());
            target(&std::fs::read(file).unwrap());
        }
    }
}

#[test]
fn every_configuration_of_the_project_holds_as_a_text() {
    let mut seen = 0;
    for file in ["fixtures", "nginx-examples"].iter().flat_map(|folder| files(&project(folder))) {
        let text = std::fs::read(&file).unwrap();
        if text.len() < 8192 {
            println!("{}", file.display());
            run("syntax", &text);
            run("config", &text);
            seen += 1;
        }
    }
    assert!(seen > 100);
}

#[test]
fn every_target_is_one_that_cargo_fuzz_knows() {
    let manifest = std::fs::read_to_string(project("fuzz/Cargo.toml")).unwrap();
    let listed: Vec<_> = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")).collect();
    let expected: Vec<_> = TARGETS.iter().map(|(name, _)| format!("{name}.rs\"")).collect();
    assert_eq!(listed, expected);
    for (name, _) in TARGETS {
        let text = std::fs::read_to_string(project(&format!("fuzz/fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("run(\"{name}\", data)")), "{name}");
    }
}

/// Every file below a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
