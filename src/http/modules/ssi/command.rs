//! The commands a directive may give.

use super::{
    condition,
    page::{Page, Piece},
    parse::Directive,
    text::{self, Fault},
};
use crate::{
    http::{
        body::BodyError,
        regex::Regex,
        subrequest::{self, Kept, Stub, Subrequest},
        uri::{self, Escape, escape, escape_html},
    },
    observe::error_log::Level,
};
use bytes::Bytes;

/// A command by name, with what it may be given (`ngx_http_ssi_commands`).
struct Command {
    name: &'static str,
    params: &'static [Param],
    /// Where in an `if` it stands: it needs one, before its `else` or behind it.
    place: Place,
    run: fn(&mut Page, &Params<'_>) -> Result<(), Failure>,
}

struct Param {
    name: &'static str,
    needed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Anywhere,
    /// In an `if` whose `else` has not come.
    If,
    /// In an `if`, behind its `else` or before it.
    Else,
    /// It ends a block.
    EndBlock,
}

const fn must(name: &'static str) -> Param {
    Param { name, needed: true }
}

const fn may(name: &'static str) -> Param {
    Param { name, needed: false }
}

const fn command(
    name: &'static str,
    params: &'static [Param],
    place: Place,
    run: fn(&mut Page, &Params<'_>) -> Result<(), Failure>,
) -> Command {
    Command { name, params, place, run }
}

const COMMANDS: &[Command] = &[
    command("include", &[may("virtual"), may("file"), may("wait"), may("set"), may("stub")], Place::Anywhere, include),
    command("echo", &[must("var"), may("default"), may("encoding")], Place::Anywhere, echo),
    command("config", &[may("errmsg"), may("timefmt")], Place::Anywhere, config),
    command("set", &[must("var"), must("value")], Place::Anywhere, set),
    command("if", &[must("expr")], Place::Anywhere, begin_if),
    command("elif", &[must("expr")], Place::If, condition),
    command("else", &[], Place::If, begin_else),
    command("endif", &[], Place::Else, end_if),
    command("block", &[must("name")], Place::Anywhere, begin_block),
    command("endblock", &[], Place::EndBlock, end_block),
];

/// More than this many parameters are an error (`NGX_HTTP_SSI_MAX_PARAMS`).
const MAX_PARAMS: usize = 16;

/// Why a command was not carried out.
#[derive(Debug)]
pub(super) enum Failure {
    /// The page says so in its place.
    Directive,
    /// The request ends.
    Request(BodyError),
}

/// Where in `if` and `block` a page is.
#[derive(Debug)]
pub(super) struct Flow {
    /// What stands here is put out.
    pub output: bool,
    /// What stands here belongs to the last block.
    pub block: bool,
    /// One of the conditions held.
    chosen: bool,
    branch: Option<Branch>,
    encoding: Encoding,
}

/// The part of an `if` that was begun last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Branch {
    If,
    Else,
}

/// `encoding` of `echo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    None,
    Url,
    Entity,
}

impl Default for Flow {
    fn default() -> Self {
        Self { output: true, block: false, chosen: false, branch: None, encoding: Encoding::Entity }
    }
}

/// What a command was given.
struct Params<'d>(Vec<(&'static str, &'d [u8])>);

impl<'d> Params<'d> {
    fn get(&self, name: &str) -> Option<&'d [u8]> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// One that must be there, and so is.
    fn needed(&self, name: &str) -> &'d [u8] {
        self.get(name).unwrap_or_default()
    }
}

/// Does what a directive says, if it is to be done here (`ngx_http_ssi_body_filter`).
pub(super) fn run(page: &mut Page, directive: &Directive) -> Result<(), Failure> {
    let Some(command) = COMMANDS.iter().find(|command| command.name.as_bytes() == directive.command) else {
        return match page.flow.output {
            true => Err(page.fail(&format!("invalid SSI command: \"{}\"", show(&directive.command)))),
            false => Ok(()),
        };
    };
    if !page.flow.output && command.place != Place::EndBlock {
        if page.flow.block {
            let mut text = Vec::new();
            directive.write(&mut text);
            page.keep(&text);
            return Ok(());
        }
        if command.place == Place::Anywhere {
            return Ok(());
        }
    }
    let in_place = match command.place {
        Place::Anywhere | Place::EndBlock => true,
        Place::If => page.flow.branch == Some(Branch::If),
        Place::Else => page.flow.branch.is_some(),
    };
    if !in_place {
        return Err(page.fail(&format!("invalid context of SSI command: \"{}\"", command.name)));
    }
    let params = params(page, command, directive)?;
    (command.run)(page, &params)
}

/// What a directive gives its command, each at most once.
fn params<'d>(page: &Page, command: &Command, directive: &'d Directive) -> Result<Params<'d>, Failure> {
    if directive.params.len() > MAX_PARAMS {
        return Err(page.fail(&format!("too many SSI command parameters: \"{}\"", command.name)));
    }
    let mut given = Params(Vec::new());
    for (name, value) in &directive.params {
        let Some(param) = command.params.iter().find(|param| param.name.as_bytes() == name) else {
            let text = format!("invalid parameter name: \"{}\" in \"{}\" SSI command", show(name), command.name);
            return Err(page.fail(&text));
        };
        if given.get(param.name).is_some() {
            return Err(
                page.fail(&format!("duplicate \"{}\" parameter in \"{}\" SSI command", param.name, command.name))
            );
        }
        given.0.push((param.name, value));
    }
    for param in command.params.iter().filter(|param| param.needed) {
        if given.get(param.name).is_none() {
            let text = format!("mandatory \"{}\" parameter is absent in \"{}\" SSI command", param.name, command.name);
            return Err(page.fail(&text));
        }
    }
    Ok(given)
}

/// `include`: the answer of another path in this place (`ngx_http_ssi_include`).
fn include(page: &mut Page, params: &Params<'_>) -> Result<(), Failure> {
    let (set, stub) = (params.get("set"), params.get("stub"));
    let (target, mut wait) = match (params.get("virtual"), params.get("file")) {
        (Some(path), Some(file)) => {
            let (path, file) = (show(path), show(file));
            return Err(page.fail(&format!("inclusion may be either virtual=\"{path}\" or file=\"{file}\"")));
        }
        (None, None) => return Err(page.fail("no parameter in \"include\" SSI command")),
        (Some(path), None) => (path, false),
        (None, Some(file)) => (file, true),
    };
    if set.is_some() && stub.is_some() {
        return Err(page.fail("\"set\" and \"stub\" cannot be used together in \"include\" SSI command"));
    }
    if let Some(said) = params.get("wait") {
        if wait {
            return Err(page.fail(&format!("\"wait\" cannot be used with file=\"{}\"", show(target))));
        }
        wait = said.eq_ignore_ascii_case(b"yes");
        if !wait && !said.eq_ignore_ascii_case(b"no") {
            return Err(page.fail(&format!("invalid value \"{}\" in the \"wait\" parameter", show(said))));
        }
    }
    let target = address(page, target)?;
    let Ok((path, args)) = uri::parse_unsafe(&target) else {
        let (path, _) = uri::split_args(&target);
        return Err(page.fail(&format!("unsafe URI \"{}\" was detected", show(path))));
    };
    let (path, args) = (Bytes::copy_from_slice(&path), Bytes::copy_from_slice(args));
    let stub = stub.map(|name| block(page, name)).transpose()?;
    let body = page.exchange.body.share();
    let mut child = match subrequest::try_begin(&page.exchange, &path, &args, body) {
        Ok(child) => child,
        Err(refused) => {
            page.log(refused.level(), &refused.to_string());
            return Err(Failure::Directive);
        }
    };
    child.terms.stub = stub.map(|text| Stub { text, content_type: page.content_type.clone() });
    page.waiting |= wait || set.is_some();
    page.put(match set {
        None => Piece::Subrequest(Subrequest::new(child)),
        Some(name) => {
            let name = text::lower(name).into_owned();
            let common = page.exchange.state.ssi.common();
            let known = common.borrow().get(&name).is_some();
            if !known {
                // It is there from now on.
                common.borrow_mut().set(&name, Bytes::new());
            }
            Piece::Set(Kept::new(child), name)
        }
    });
    Ok(())
}

/// The path that is included: beside the page if it is not a whole one.
fn address(page: &Page, target: &[u8]) -> Result<Vec<u8>, Failure> {
    let path = evaluate(page, target)?;
    if path.starts_with(b"/") || path.is_empty() && !target.is_empty() {
        return Ok(path);
    }
    let folder = memchr::memrchr(b'/', &page.exchange.path).map_or(0, |slash| slash + 1);
    Ok([&page.exchange.path[..folder], &path].concat())
}

/// The text of a block.
fn block(page: &Page, name: &[u8]) -> Result<Bytes, Failure> {
    let common = page.exchange.state.ssi.common().borrow();
    match common.blocks.iter().find(|(known, _)| **known == *name) {
        Some((_, text)) => Ok(Bytes::copy_from_slice(text)),
        None => {
            page.log(Level::Err, &format!("\"stub\"=\"{}\" for \"include\" not found", show(name)));
            Err(Failure::Directive)
        }
    }
}

/// `echo`: the value of a variable (`ngx_http_ssi_echo`).
fn echo(page: &mut Page, params: &Params<'_>) -> Result<(), Failure> {
    // Here, too, a variable that cannot be had is no reason to end the request.
    let found = text::variable(&page.exchange, params.needed("var")).map_err(|_| Failure::Directive)?;
    let value = found.unwrap_or_else(|| {
        let default = params.get("default");
        default.map_or(Bytes::from_static(b"(none)"), Bytes::copy_from_slice)
    });
    if value.is_empty() {
        return Ok(());
    }
    match params.get("encoding") {
        None => {}
        Some(b"none") => page.flow.encoding = Encoding::None,
        Some(b"url") => page.flow.encoding = Encoding::Url,
        Some(b"entity") => page.flow.encoding = Encoding::Entity,
        Some(other) => {
            page.log(Level::Err, &format!("unknown encoding \"{}\" in the \"echo\" command", show(other)));
        }
    }
    let mut out = Vec::new();
    match page.flow.encoding {
        Encoding::None => out.extend_from_slice(&value),
        Encoding::Url => escape(&value, Escape::Html, &mut out),
        Encoding::Entity => escape_html(&value, &mut out),
    }
    page.put(Piece::Text(out.into()));
    Ok(())
}

/// `config`: the text of errors and the format of dates (`ngx_http_ssi_config`).
fn config(page: &mut Page, params: &Params<'_>) -> Result<(), Failure> {
    if let Some(format) = params.get("timefmt") {
        page.exchange.state.ssi.set_timefmt(Bytes::copy_from_slice(format));
    }
    if let Some(message) = params.get("errmsg") {
        page.errmsg = Bytes::copy_from_slice(message);
    }
    Ok(())
}

/// `set`: gives a variable a value (`ngx_http_ssi_set`).
fn set(page: &mut Page, params: &Params<'_>) -> Result<(), Failure> {
    let value = evaluate(page, params.needed("value"))?;
    let name = text::lower(params.needed("var"));
    page.exchange.state.ssi.common().borrow_mut().set(&name, value.into());
    Ok(())
}

/// `if` (`ngx_http_ssi_if`).
fn begin_if(page: &mut Page, params: &Params<'_>) -> Result<(), Failure> {
    if page.flow.branch.is_some() {
        return Err(page.fail("the \"if\" command inside the \"if\" command"));
    }
    condition(page, params)
}

/// `elif`, and what it has in common with `if`.
fn condition(page: &mut Page, params: &Params<'_>) -> Result<(), Failure> {
    if page.flow.chosen {
        page.flow.output = false;
        return Ok(());
    }
    let condition = match condition::split(params.needed("expr")) {
        Ok(condition) => condition,
        Err(fault) => return Err(page.fail(&fault)),
    };
    let left = evaluate(page, &condition.left)?;
    let holds = match condition.right {
        None => !left.is_empty(),
        Some(right) => {
            let value = evaluate(page, right.text)?;
            let same = if right.regex { matches(page, &value, left)? } else { value == left };
            same != right.negative
        }
    };
    page.flow.output = holds;
    page.flow.chosen |= holds;
    page.flow.branch = Some(Branch::If);
    Ok(())
}

/// Whether an expression matches, which leaves its groups behind (`ngx_http_ssi_regex_match`).
fn matches(page: &Page, pattern: &[u8], text: Vec<u8>) -> Result<bool, Failure> {
    let regex = Regex::compile(pattern, false).map_err(|error| {
        page.log(Level::Err, &error.to_string());
        Failure::Directive
    })?;
    let captures = regex.captures(&text).map_err(|error| {
        page.log(Level::Alert, &error.to_string());
        Failure::Directive
    })?;
    let Some(captures) = captures else { return Ok(false) };
    let text = Bytes::from(text);
    let group = |group| captures.get(group).map(|range| text.slice(range));
    let mut common = page.exchange.state.ssi.common().borrow_mut();
    // Groups behind the last that took part are none.
    let last = (0..captures.len()).rev().find(|number| captures.get(*number).is_some()).unwrap_or(0);
    common.groups = (0..=last).map(|number| group(number).unwrap_or_default()).collect();
    for (name, number) in regex.names() {
        common.set(name.to_ascii_lowercase().as_bytes(), group(number).unwrap_or_default());
    }
    Ok(true)
}

/// `else` (`ngx_http_ssi_else`).
fn begin_else(page: &mut Page, _params: &Params<'_>) -> Result<(), Failure> {
    page.flow.output = !page.flow.chosen;
    page.flow.branch = Some(Branch::Else);
    Ok(())
}

/// `endif` (`ngx_http_ssi_endif`).
fn end_if(page: &mut Page, _params: &Params<'_>) -> Result<(), Failure> {
    page.flow.output = true;
    page.flow.chosen = false;
    page.flow.branch = None;
    Ok(())
}

/// `block` (`ngx_http_ssi_block`).
fn begin_block(page: &mut Page, params: &Params<'_>) -> Result<(), Failure> {
    let name = params.needed("name").to_vec();
    page.exchange.state.ssi.common().borrow_mut().blocks.push((name, Vec::new()));
    page.flow.output = false;
    page.flow.block = true;
    Ok(())
}

/// `endblock` (`ngx_http_ssi_endblock`).
fn end_block(page: &mut Page, _params: &Params<'_>) -> Result<(), Failure> {
    page.flow.output = true;
    page.flow.block = false;
    Ok(())
}

fn evaluate(page: &Page, text: &[u8]) -> Result<Vec<u8>, Failure> {
    text::evaluate(&page.exchange, text).map_err(|fault| match fault {
        Fault::Page(message) => {
            page.log(Level::Err, &message);
            Failure::Directive
        }
        Fault::Variable => Failure::Request(BodyError::Subrequest(0)),
    })
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
