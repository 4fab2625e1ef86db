//! Locations as the real nginx (1.22.1 and 1.31.5 agree) finds them, and a model that reads its rules aloud.

use proptest::prelude::*;

use super::*;

/// A location a line, inner ones indented; `->` behind one that passes requests on.
const SITE: &str = r"
= /
/
/images/ ->
^~ /images/raw/
~* \.(gif|png)$
/api/ ->
  = /api/health
  /api/v1/ ->
    ~ /(\d+)$
  ~ ^/api/(?<kind>[a-z]+)/x$
  ^~ /api/files/
    ~ \.bin$
/app
= /app/login
= /exact/ ->
/docs/ ->
= /docs
^~ /down/ ->
~ ^/old(/.*)?$
  ~ \.php$
~ /quirk
  /quirk/inside/ ->
    ~ deep
  = /quirk/exact
  ~ in.*\.x
~ \.php$
/a/
/a/b
/a/b/
/ab
/caseA
";

/// Path; the line of [`SITE`] that answers it, or the redirect; `$1`.
const SITE_ANSWERS: &[(&str, &str, &str)] = &[
    ("/", "= /", ""),
    ("/x", "/", ""),
    ("/index.html", "/", ""),
    ("/images/", "/images/ ->", ""),
    ("/images", "301 /images/", ""),
    ("/images/a.jpg", "/images/ ->", ""),
    ("/images/a.PNG", "~* \\.(gif|png)$", "PNG"),
    ("/images/a.png", "~* \\.(gif|png)$", "png"),
    ("/images/raw/a.png", "^~ /images/raw/", ""),
    ("/images/raw", "/images/ ->", ""),
    ("/images/raw/", "^~ /images/raw/", ""),
    ("/a.gif", "~* \\.(gif|png)$", "gif"),
    ("/a.gifx", "/", ""),
    ("/api", "301 /api/", ""),
    ("/api/", "/api/ ->", ""),
    ("/api/health", "= /api/health", ""),
    ("/api/healthy", "/api/ ->", ""),
    ("/api/v1", "301 /api/v1/", ""),
    ("/api/v1/", "/api/v1/ ->", ""),
    ("/api/v1/users", "/api/v1/ ->", ""),
    ("/api/v1/users/17", "~ /(\\d+)$", "17"),
    ("/api/v1/17", "~ /(\\d+)$", "17"),
    ("/api/v1/a.png", "~* \\.(gif|png)$", "png"),
    ("/api/v1/a.php", "~ \\.php$", ""),
    ("/api/user/x", "~ ^/api/(?<kind>[a-z]+)/x$", "user"),
    ("/api/user/y", "/api/ ->", ""),
    ("/api/USER/x", "/api/ ->", ""),
    ("/api/files", "/api/ ->", ""),
    ("/api/files/", "^~ /api/files/", ""),
    ("/api/files/a.bin", "~ \\.bin$", ""),
    ("/api/files/a.png", "~* \\.(gif|png)$", "png"),
    ("/api/files/user/x", "^~ /api/files/", ""),
    ("/api/a.php", "~ \\.php$", ""),
    ("/app", "/app", ""),
    ("/app/", "/app", ""),
    ("/app/login", "= /app/login", ""),
    ("/app/login/", "/app", ""),
    ("/app/a.php", "~ \\.php$", ""),
    ("/apple", "/app", ""),
    ("/exact", "301 /exact/", ""),
    ("/exact/", "= /exact/ ->", ""),
    ("/exact/a", "/", ""),
    ("/docs", "= /docs", ""),
    ("/docs/", "/docs/ ->", ""),
    ("/docs/a", "/docs/ ->", ""),
    ("/down", "301 /down/", ""),
    ("/down/", "^~ /down/ ->", ""),
    ("/down/a.php", "^~ /down/ ->", ""),
    ("/down.php", "~ \\.php$", ""),
    ("/old", "~ ^/old(/.*)?$", ""),
    ("/old/", "~ ^/old(/.*)?$", "/"),
    ("/old/a", "~ ^/old(/.*)?$", "/a"),
    ("/old/a.php", "~ \\.php$", ""),
    ("/quirk", "~ /quirk", ""),
    ("/quirk/inside", "~ /quirk", ""),
    ("/quirk/inside/", "~ /quirk", ""),
    ("/quirk/inside/deep", "~ /quirk", ""),
    ("/quirk/exact", "~ /quirk", ""),
    ("/quirk/inside/a.x", "~ in.*\\.x", ""),
    ("/my/quirk", "~ /quirk", ""),
    ("/older", "/", ""),
    ("/OLD", "/", ""),
    ("/old.php", "~ \\.php$", ""),
    ("/a.php", "~ \\.php$", ""),
    ("/a.PHP", "/", ""),
    ("/a", "/", ""),
    ("/a/", "/a/", ""),
    ("/a/b", "/a/b", ""),
    ("/a/b/", "/a/b/", ""),
    ("/a/bc", "/a/b", ""),
    ("/a/b/c", "/a/b/", ""),
    ("/a/c", "/a/", ""),
    ("/ab", "/ab", ""),
    ("/ab/", "/ab", ""),
    ("/abc", "/ab", ""),
    ("/a.b", "/", ""),
    ("/b", "/", ""),
    ("/caseA", "/caseA", ""),
    ("/casea", "/", ""),
    ("/caseAb", "/caseA", ""),
];

const BARE: &str = r"
/only/ ->
= /one
~ ^/re
";

const BARE_ANSWERS: &[(&str, &str, &str)] = &[
    ("/", "404", ""),
    ("/only", "301 /only/", ""),
    ("/only/", "/only/ ->", ""),
    ("/only/x", "/only/ ->", ""),
    ("/onlyx", "404", ""),
    ("/one", "= /one", ""),
    ("/one/", "404", ""),
    ("/re", "~ ^/re", ""),
    ("/rest", "~ ^/re", ""),
    ("/x/re", "404", ""),
];

/// The blocks of such a text; the value of each is its line.
fn entries(text: &str) -> Vec<Entry<String>> {
    let mut root: Vec<Entry<String>> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let label = line.trim_start();
        let words: Vec<&[u8]> = label.trim_end_matches(" ->").split(' ').map(str::as_bytes).collect();
        let entry = Entry {
            pattern: Pattern::parse(&words).unwrap(),
            value: label.to_owned(),
            nested: Vec::new(),
            auto_redirect: label.ends_with("->"),
        };
        let mut level = &mut root;
        for _ in 0..(line.len() - label.len()) / 2 {
            let last: &mut Entry<String> = level.last_mut().unwrap();
            level = &mut last.nested;
        }
        level.push(entry);
    }
    root
}

fn tree(text: &str) -> Tree<String> {
    let (tree, duplicates) = Tree::build(entries(text));
    assert_eq!(duplicates, []);
    tree
}

/// The answer as the tables have it.
fn answer(tree: &Tree<String>, path: &str) -> (String, String) {
    let found = tree.find(path.as_bytes()).unwrap();
    let group = found.regexes.last().and_then(|(_, captures)| captures.get(1));
    let answer = match found.outcome {
        Outcome::AutoRedirect(_) => format!("301 {path}/"),
        outcome => outcome.location().map_or("404".to_owned(), String::clone),
    };
    (answer, group.map_or(String::new(), |range| path[range].to_owned()))
}

#[test]
fn paths_lead_where_nginx_leads_them() {
    for (text, answers) in [(SITE, SITE_ANSWERS), (BARE, BARE_ANSWERS)] {
        let tree = tree(text);
        for &(path, location, group) in answers {
            assert_eq!(answer(&tree, path), (location.to_owned(), group.to_owned()), "{path}");
        }
    }
}

#[test]
fn the_way_a_location_was_found_is_told() {
    let tree = tree("= /a\n/\n~ ^/r\n/p/ ->");
    let outcome = |path: &[u8]| tree.find(path).unwrap().outcome;
    assert_eq!(outcome(b"/a"), Outcome::Exact(&"= /a".to_owned()));
    assert_eq!(outcome(b"/b"), Outcome::Prefix(&"/".to_owned()));
    assert_eq!(outcome(b"/r"), Outcome::Regex(&"~ ^/r".to_owned()));
    assert_eq!(outcome(b"/p"), Outcome::AutoRedirect(&"/p/ ->".to_owned()));
    assert_eq!(outcome(b"x"), Outcome::None);
}

#[test]
fn every_regex_on_the_way_leaves_its_groups() {
    let tree = tree("~ ^/(?<first>[^/]+)\n  ~ (?<last>[^/]+)$");
    let found = tree.find(b"/a/b/c").unwrap();
    let names: Vec<_> = found.regexes.iter().flat_map(|(regex, _)| regex.names()).collect();
    assert_eq!(names, [("first", 1), ("last", 1)]);
    let places: Vec<_> = found.regexes.iter().map(|(_, captures)| captures.get(1)).collect();
    assert_eq!(places, [Some(1..2), Some(5..6)]);
}

#[test]
fn a_second_location_of_the_same_name_is_reported() {
    for (text, expected) in [
        ("/a\n= /a", &[][..]),
        ("/a\n/a", &["/a"]),
        ("/a\n^~ /a", &["^~ /a"]),
        ("= /a\n/a\n= /a\n/a ->", &["= /a", "/a ->"]),
        ("/a\n  /a/b\n  /a/b\n/b\n  /b/c", &["/a/b"]),
        ("~ a\n~ a\n@x\n@x", &[]),
        ("~ a\n  a/\n  a/", &[]),
    ] {
        let duplicates = Tree::build(entries(text)).1;
        assert_eq!(duplicates.iter().map(|duplicate| duplicate.value.as_str()).collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn a_named_location_is_found_by_its_name_only() {
    let tree = tree("/\n@fallback\n@other");
    assert_eq!(tree.named(b"@other"), Some(&"@other".to_owned()));
    assert_eq!(tree.named(b"@none"), None);
    assert_eq!(answer(&tree, "/@other").0, "/");
    assert_eq!(answer(&tree, "@other").0, "404");
}

#[test]
fn a_regex_that_cannot_be_finished_is_an_error() {
    assert!(tree("/\n~ (*UTF8)x").find(b"/\xff").is_err());
    assert!(tree("^~ /\n~ (*UTF8)x").find(b"/\xff").is_ok());
}

#[test]
fn heads_are_read_with_and_without_a_space() {
    for (words, expected) in [
        (&["/a"][..], "Prefix /a"),
        (&["=/a"], "Exact /a"),
        (&["=", "/a"], "Exact /a"),
        (&["=", "@a"], "Exact @a"),
        (&["^~/a"], "PrefixNoRegex /a"),
        (&["^~", "/a"], "PrefixNoRegex /a"),
        (&["~a"], "Regex a"),
        (&["~*a"], "Regex* a"),
        (&["~", "*a?"], "pcre2_compile() failed: quantifier does not follow a repeatable item in \"*a?\" at \"*a?\""),
        (&["~*", "a"], "Regex* a"),
        (&["@a"], "Named @a"),
        (&["^a"], "Prefix ^a"),
        (&["!", "/a"], "invalid location modifier \"!\""),
        (&["=~", "/a"], "invalid location modifier \"=~\""),
    ] {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let got = match Pattern::parse(&words) {
            Err(error) => error.to_string(),
            Ok(pattern) => {
                let kind = match &pattern {
                    Pattern::Exact(_) => "Exact",
                    Pattern::Prefix(_) => "Prefix",
                    Pattern::PrefixNoRegex(_) => "PrefixNoRegex",
                    Pattern::Regex(regex) if regex.caseless() => "Regex*",
                    Pattern::Regex(_) => "Regex",
                    Pattern::Named(_) => "Named",
                };
                format!("{kind} {}", String::from_utf8_lossy(pattern.name()))
            }
        };
        assert_eq!(got, expected);
    }
}

#[test]
fn a_location_inside_another_one_continues_it() {
    for (outer, inner, refusal) in [
        ("/a", "/a/b", None),
        ("/a", "/a", None),
        ("/a", "= /ab", None),
        ("/a", "~ x", None),
        ("^~ /a", "/a/", None),
        ("~ /a", "/a/b", None),
        ("/a", "/b", Some("location \"/b\" is outside location \"/a\"")),
        ("~ ^/a", "/a/b", Some("location \"/a/b\" is outside location \"^/a\"")),
        ("= /a", "~ x", Some("location \"x\" cannot be inside the exact location \"/a\"")),
        ("@a", "/b", Some("location \"/b\" cannot be inside the named location \"@a\"")),
        ("/a", "@b", Some("named location \"@b\" can be on the server level only")),
    ] {
        let pattern = |text: &str| Pattern::parse(&text.split(' ').map(str::as_bytes).collect::<Vec<_>>()).unwrap();
        let got = pattern(inner).check_inside(&pattern(outer)).err().map(|error| error.to_string());
        assert_eq!(got.as_deref(), refusal, "{inner} in {outer}");
    }
}

/// A location for the model: kind, name, number, redirects, inner ones.
#[derive(Clone, Debug)]
struct Block {
    modifier: &'static str,
    name: String,
    redirects: bool,
    inner: Vec<Block>,
}

impl Block {
    fn label(&self) -> String {
        format!("{} {}", self.modifier, self.name)
    }

    fn entry(&self) -> Entry<String> {
        Entry {
            pattern: match self.modifier {
                "" => Pattern::Prefix(self.name.clone().into()),
                modifier => Pattern::parse(&[modifier.as_bytes(), self.name.as_bytes()]).unwrap(),
            },
            value: self.label(),
            nested: self.inner.iter().map(Block::entry).collect(),
            auto_redirect: self.redirects,
        }
    }
}

/// What answers, and whether that is settled. Reads every location in turn, as the documentation does.
fn model(blocks: &[Block], path: &str, inside_regex: bool) -> (Option<String>, bool) {
    let by_name = || blocks.iter().filter(|block| !inside_regex && !block.modifier.starts_with('~'));
    if let Some(block) = by_name().find(|block| block.modifier == "=" && block.name == path) {
        return (Some(block.label()), true);
    }
    let missing_slash = |block: &&Block| block.name == format!("{path}/");
    let prefixes = || by_name().filter(|block| block.modifier != "=" && path.starts_with(&block.name));
    if prefixes().all(|block| block.name != path) && by_name().filter(missing_slash).any(|block| block.redirects) {
        return (Some(format!("301 {path}/")), true);
    }
    let mut best: Option<&Block> = None;
    for block in prefixes() {
        if best.is_none_or(|best| block.name.len() > best.name.len()) {
            best = Some(block);
        }
    }
    let mut answer = None;
    if let Some(block) = best {
        let (inner, settled) = model(&block.inner, path, false);
        answer = Some(inner.unwrap_or_else(|| block.label()));
        if settled || block.modifier == "^~" {
            return (answer, settled);
        }
    }
    for block in blocks.iter().filter(|block| block.modifier.starts_with('~')) {
        if Regex::compile(block.name.as_bytes(), block.modifier == "~*").unwrap().is_match(path.as_bytes()).unwrap() {
            let inner = model(&block.inner, path, true).0;
            return (Some(inner.unwrap_or_else(|| block.label())), true);
        }
    }
    (answer, false)
}

fn blocks(depth: u32) -> BoxedStrategy<Vec<Block>> {
    let inner = if depth == 0 { Just(Vec::new()).boxed() } else { blocks(depth - 1) };
    let by_name = (prop::sample::select(vec!["", "", "^~", "="]), "/([ab]{1,2}/?){0,3}");
    let by_regex = (prop::sample::select(vec!["~", "~*"]), "\\^?/?[abB]\\.?[ab]?\\$?");
    let block = (prop_oneof![2 => by_name, 1 => by_regex], any::<bool>(), inner);
    let block = block.prop_map(|((modifier, name), redirects, inner)| Block { modifier, name, redirects, inner });
    prop::collection::vec(block, 0..6).boxed()
}

proptest! {
    #[test]
    fn the_tree_agrees_with_the_model(blocks in blocks(2), paths in prop::collection::vec("/([ab]{1,2}/?){0,4}", 1..20)) {
        let (tree, duplicates) = Tree::build(blocks.iter().map(Block::entry).collect());
        if !duplicates.is_empty() {
            // Nobody serves such a configuration: it is refused.
            return Ok(());
        }
        for path in paths {
            let got = match tree.find(path.as_bytes()).unwrap().outcome {
                Outcome::AutoRedirect(_) => Some(format!("301 {path}/")),
                outcome => outcome.location().cloned(),
            };
            prop_assert_eq!(got, model(&blocks, &path, false).0, "{}", path);
        }
    }
}
