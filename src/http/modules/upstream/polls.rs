//! Asks peers how loaded they are: `load_check` and `agent_check` at work. One thread does it for all.

use crate::{
    http::{
        Http,
        clock::wall_millis,
        worker::Worker,
    },
    observe::error_log::Level,
    upstream::{
        Address, Group, Peer,
        health::Hold,
        load::{self, Admin, Agent, Check, OnFail, Operation, Said},
        probe::{self, Target},
    },
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    task::AbortHandle,
    time::{MissedTickBehavior, interval, timeout},
};

/// The most that is read of what a peer says. Bytes.
const MOST: usize = 64 << 10;

/// How often it is looked who has joined and left, and whether the generation still is in force, if nobody tells.
const LOOK: Duration = Duration::from_secs(1);

/// Begins to ask the peers of a generation, unless another thread has begun before. Has to run inside a `LocalSet`.
pub fn poll(http: &Arc<Http>, worker: &Rc<Worker>) {
    for (at, group) in http.upstreams.iter().enumerate() {
        let Some(group) = group.as_ref().filter(|group| group.loads.claim()) else { continue };
        for (source, present) in
            [(Source::Check, group.loads.check.is_some()), (Source::Agent, group.loads.agent.is_some())]
        {
            if present {
                tokio::task::spawn_local(attend(
                    Of { worker: Rc::clone(worker), http: Arc::downgrade(http), at },
                    source,
                ));
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Check,
    Agent,
}

/// A group of a generation that may be gone.
#[derive(Clone)]
struct Of {
    worker: Rc<Worker>,
    http: Weak<Http>,
    at: usize,
}

impl Of {
    /// The generation and the group, as long as it is in force and the process goes on.
    fn get(&self) -> Option<(Arc<Http>, Arc<Group>)> {
        let http = self.http.upgrade().filter(|_| !self.worker.quitting.get())?;
        let group = http.upstreams.get(self.at)?.clone().filter(|group| !group.loads.has_ended())?;
        Some((http, group))
    }
}

/// Sees to it that everybody who belongs to a group is asked, from the moment they join.
async fn attend(of: Of, source: Source) {
    let mut asked: HashMap<u32, AbortHandle> = HashMap::new();
    while let Some((_, group)) = of.get() {
        let changed = Arc::clone(&group.changed).notified_owned();
        let present: Vec<_> = group.peers().map(|peer| peer.id).collect();
        drop(group);
        asked.retain(|id, task| {
            let stays = present.contains(id);
            if !stays {
                task.abort();
            }
            stays
        });
        for id in present {
            let task = || tokio::task::spawn_local(follow(of.clone(), id, source)).abort_handle();
            asked.entry(id).or_insert_with(task);
        }
        let _ = timeout(LOOK, changed).await;
    }
}

/// Asks one peer again and again.
async fn follow(of: Of, id: u32, source: Source) {
    let every = |group: &Group| match source {
        Source::Check => group.loads.check.as_ref().map(|check| check.interval),
        Source::Agent => group.loads.agent.as_ref().map(|agent| agent.interval),
    };
    let Some(period) = of.get().and_then(|(_, group)| every(&group)) else { return };
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut course = Course::default();
    loop {
        ticks.tick().await;
        let Some((http, group)) = of.get() else { return };
        let Some(peer) = group.peer(id) else { return };
        let goes_on = match source {
            Source::Check => check(&http, &group, &peer, &mut course).await,
            Source::Agent => agent(&http, &group, &peer, &mut course).await,
        };
        if !goes_on {
            return;
        }
    }
}

/// What is remembered of a peer between two questions.
#[derive(Debug, Default)]
struct Course {
    /// Failures in a row.
    fails: u32,
    /// It has been told what it said.
    told: bool,
}

/// One question of `load_check`. Says whether there are to be others.
async fn check(http: &Http, group: &Group, peer: &Peer, course: &mut Course) -> bool {
    let Some(check) = &group.loads.check else { return false };
    let answer = timeout(check.timeout, question(check, group, peer)).await;
    let failure = match answer.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
        Ok(load) => {
            course.fails = 0;
            peer.report_load(load);
            let back = group.release(peer, Hold::Load, wall_millis());
            if back {
                http.log(Level::Notice, &about(group, peer, "is up again"));
            }
            tell_load(http, group, peer, load, !std::mem::replace(&mut course.told, true) || back);
            return true;
        }
        Err(failure) => failure,
    };
    course.fails = course.fails.saturating_add(1);
    if course.fails < check.fails {
        http.log(Level::Info, &about(group, peer, &format!("does not say how loaded it is: {failure}")));
        return true;
    }
    match check.on_fail {
        OnFail::Down => {
            if group.hold(peer, Hold::Load, &failure, wall_millis()) {
                http.log(Level::Notice, &about(group, peer, &format!("is down: {failure}")));
            }
            true
        }
        OnFail::Remove => {
            // Else somebody else has done it, or a new generation sees to it.
            if group.remove(peer.id).is_ok() {
                http.log(Level::Notice, &about(group, peer, &format!("dropped: {failure}")));
            }
            false
        }
    }
}

/// What a peer says, or why it says nothing.
async fn question(check: &Check, group: &Group, peer: &Peer) -> Result<Option<f64>, String> {
    let target = Target { body_size: MOST, ..Target::new(peer.address.clone()).within(check.timeout) };
    let request = probe::get(group.name.as_bytes(), &check.uri);
    let reply = probe::ask(&target, &request).await.map_err(|failure| failure.to_string())?;
    match reply.head.status {
        200..400 => Ok(load::in_body(&reply.body, &check.member)),
        status => Err(format!("status {status}")),
    }
}

fn tell_load(http: &Http, group: &Group, peer: &Peer, load: Option<f64>, news: bool) {
    let level = if news { Level::Notice } else { Level::Info };
    let text = match load {
        Some(load) => format!("reports load {load}"),
        None => "reports no load".to_owned(),
    };
    http.log(level, &about(group, peer, &text));
}

/// One question of `agent_check`. An agent that cannot be reached says nothing, and that changes nothing.
async fn agent(http: &Http, group: &Group, peer: &Peer, course: &mut Course) -> bool {
    let Some(agent) = &group.loads.agent else { return false };
    let Address::Tcp(address) = &peer.address else { return false };
    let said = timeout(agent.timeout, ask_agent(agent, *address)).await;
    let said = match said.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
        Ok(said) => said,
        Err(failure) => {
            // Once, until it is there again.
            let level = if std::mem::replace(&mut course.told, true) { Level::Info } else { Level::Notice };
            http.log(level, &about(group, peer, &format!("has an agent that says nothing: {failure}")));
            return true;
        }
    };
    course.told = false;
    obey(http, group, peer, &said);
    true
}

async fn ask_agent(agent: &Agent, server: SocketAddr) -> Result<Said, String> {
    let address = Address::Tcp(SocketAddr::new(server.ip(), agent.port));
    let target = Target { body_size: 1024, ..Target::new(address).within(agent.timeout) };
    let line = probe::read_line(&target, &agent.send).await.map_err(|failure| failure.to_string())?;
    load::read_agent(&line)
        .ok_or_else(|| format!("\"{}\" means nothing", String::from_utf8_lossy(&line).escape_debug()))
}

/// Does what an agent says.
fn obey(http: &Http, group: &Group, peer: &Peer, said: &Said) {
    match &said.operation {
        Some(Operation::Down(why)) if group.hold(peer, Hold::Agent, why, wall_millis()) => {
            http.log(Level::Notice, &about(group, peer, &format!("is down, as its agent says: {why}")));
        }
        Some(Operation::Up) if group.release(peer, Hold::Agent, wall_millis()) => {
            http.log(Level::Notice, &about(group, peer, "is up again, as its agent says"));
        }
        _ => {}
    }
    if let Some(load) = said.weight.and_then(load::Weight::load) {
        peer.report_load(Some(load));
    }
    let mut line = (*peer.line).clone();
    match said.admin {
        Some(Admin::Ready) => (line.drain, line.down) = (false, false),
        Some(Admin::Drain) => (line.drain, line.down) = (true, false),
        Some(Admin::Maintenance) => (line.drain, line.down) = (false, true),
        None => {}
    }
    if let Some(most) = said.max_conns {
        line.max_conns = most;
    }
    if let Some(weight) = said.weight {
        peer.weigh_by_agent(&mut line, weight);
    }
    if line == *peer.line {
        return;
    }
    let (weight, most) = (line.weight, line.max_conns);
    let state = if line.down {
        " down"
    } else if line.drain {
        " drain"
    } else {
        ""
    };
    if group.change(peer.id, |present| *present = line).is_ok() {
        let text = format!("has weight={weight} max_conns={most}{state}, as its agent says");
        http.log(Level::Info, &about(group, peer, &text));
    }
}

/// A line of the log about a peer of a group.
pub fn about(group: &Group, peer: &Peer, what: &str) -> String {
    format!("node {} of upstream \"{}\" {what}", peer.name, group.name)
}
