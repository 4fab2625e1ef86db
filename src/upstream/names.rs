//! Names of servers that join a group while the server runs: each is looked up as one with `resolve`, and has a number of
//! its own besides those of the addresses it stands for.

use super::{
    edit::Refused,
    group::Group,
    peer::{Peer, ServerLine},
    resolve::Resolved,
};
use crate::lock;
use std::{
    ops::Deref,
    sync::{Arc, MutexGuard},
};

/// A name of a group: one that is written, or one that joined.
#[derive(Debug)]
pub enum Name<'g> {
    Written(&'g Resolved),
    Joined(Arc<Resolved>),
}

impl Deref for Name<'_> {
    type Target = Resolved;

    fn deref(&self) -> &Resolved {
        match self {
            Self::Written(name) => name,
            Self::Joined(name) => name,
        }
    }
}

impl Group {
    /// A name by its place: those that are written come first, then those that joined. One that was removed keeps its
    /// place, so that an answer that comes late finds nobody else there.
    pub fn name(&self, at: usize) -> Option<Name<'_>> {
        match self.resolving.names.get(at) {
            Some(name) => Some(Name::Written(name)),
            None => self.joined().get(at - self.resolving.names.len()).cloned().map(Name::Joined),
        }
    }

    /// The name a server was found by, where that is looked up at run time.
    pub fn name_of(&self, peer: &Peer) -> Option<Name<'_>> {
        self.name(peer.found_by?)
    }

    /// The names that joined and were not removed, with their places.
    pub fn joined_names(&self) -> Vec<(usize, Arc<Resolved>)> {
        let first = self.resolving.names.len();
        let names = self.joined();
        let there = names.iter().enumerate().filter(|(_, name)| !name.is_gone());
        there.map(|(at, name)| (first + at, Arc::clone(name))).collect()
    }

    /// The name of a number.
    pub fn joined_name(&self, id: u32) -> Option<(usize, Arc<Resolved>)> {
        self.joined_names().into_iter().find(|(_, name)| name.id == Some(id))
    }

    /// The group begins with a name as if it had joined (`state`): it can be removed. To be called before anybody has to do
    /// with the group.
    pub fn begin_with(&self, mut name: Resolved) {
        name.id = Some(self.take_id());
        self.joined().push(Arc::new(name));
    }

    /// Adds a name, unless the same is there already: then nothing changes. Its servers come when it is looked up.
    ///
    /// # Errors
    /// [`Refused::NoBackup`], [`Refused::Superseded`].
    pub fn add_name(&self, mut name: Resolved) -> Result<Option<Arc<Resolved>>, Refused> {
        self.allows(&name.line)?;
        self.edit_if(|_| {
            let same = |other: &Resolved| other.is_same_name(&name) && other.port == name.port;
            let mut joined = self.joined();
            if self.resolving.names.iter().any(same) || joined.iter().any(|other| !other.is_gone() && same(other)) {
                return Ok((false, None));
            }
            name.id = Some(self.take_id());
            let name = Arc::new(name);
            joined.push(Arc::clone(&name));
            Ok((true, Some(name)))
        })
    }

    /// Removes a name and its servers. Requests they serve go on to their end.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::Superseded`].
    pub fn remove_name(&self, id: u32) -> Result<(), Refused> {
        self.edit(|sets| {
            let (at, name) = self.joined_name(id).ok_or(Refused::NotFound)?;
            name.leave();
            let mut removed = Vec::new();
            for set in sets {
                removed.extend(set.extract_if(.., |peer| peer.found_by == Some(at)));
            }
            self.note_removed(removed);
            Ok(())
        })
    }

    /// Gives a name, and the servers it stands for, other parameters.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::Superseded`].
    pub fn change_name(&self, id: u32, change: impl FnOnce(&mut ServerLine)) -> Result<Arc<Resolved>, Refused> {
        self.edit(|sets| {
            let (at, before) = self.joined_name(id).ok_or(Refused::NotFound)?;
            let mut line = before.line.clone();
            change(&mut line);
            line.backup = before.line.backup;
            let name = Arc::new(before.with_line(line));
            for peer in sets.iter_mut().flatten().filter(|peer| peer.found_by == Some(at)) {
                let mut line = name.line.clone();
                if name.service.is_some() {
                    // What the name server says of each goes before what is said of all, as it did at first.
                    line.server.clone_from(&peer.line.server);
                    line.weight = if name.line.weight == 1 { peer.line.weight } else { line.weight };
                }
                let changed = Arc::new(peer.with_line(Arc::new(line), None));
                self.weigh_anew(peer, &changed);
                *peer = changed;
            }
            self.joined()[at - self.resolving.names.len()] = Arc::clone(&name);
            Ok(name)
        })
    }

    pub(super) fn joined(&self) -> MutexGuard<'_, Vec<Arc<Resolved>>> {
        lock(&self.joined)
    }

    /// Takes over the names that joined the generation before; each is to be looked up anew by this one.
    pub(super) fn keep_names(&self, previous: &Self) {
        *self.joined() = previous.joined().iter().map(|name| Arc::new(name.with_line(name.line.clone()))).collect();
        self.joined().iter().for_each(|name| name.release());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{
        Balance, Client,
        edit::Dynamics,
        resolve::{Found, Resolving},
    };
    use std::time::Duration;

    fn group(written: &str) -> Arc<Group> {
        let line = ServerLine { server: written.into(), ..ServerLine::default() };
        let names = vec![Resolved::new(line, written.into(), None, 80)];
        let names = Resolving::new(names, None, Duration::ZERO);
        let dynamics = Dynamics { keeps: true, begins_empty: true };
        Arc::new(Group::with_names("app", Balance::RoundRobin, Vec::new(), names, dynamics).unwrap())
    }

    fn name(host: &str, service: Option<&str>) -> Resolved {
        let line = ServerLine { server: host.into(), ..ServerLine::default() };
        Resolved::new(line, host.into(), service.map(Into::into), 8080)
    }

    fn found(address: &str) -> Vec<Found> {
        vec![Found { address: format!("{address}:0").parse().unwrap(), server: None, priority: 0, weight: 0 }]
    }

    fn text(group: &Group) -> String {
        let peers = group.peers().map(|peer| format!("{}:{}*{}", peer.id, peer.name, peer.line.weight));
        peers.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_name_joins_changes_with_its_servers_and_leaves_with_them() {
        let group = group("written.example");
        group.update(0, &found("10.0.0.9"));
        let joined = group.add_name(name("app.example", None)).unwrap().unwrap();
        assert_eq!((joined.id, group.joined_names()[0].0), (Some(1), 1));
        assert!(group.add_name(name("app.example", None)).unwrap().is_none(), "it is there already");
        assert!(group.name(1).unwrap().claim() && !group.name(1).unwrap().claim());
        group.update(1, &found("10.0.0.1"));
        assert_eq!(text(&group), "0:10.0.0.9:80*1 2:10.0.0.1:8080*1");
        assert_eq!(group.name_of(&group.peer(2).unwrap()).unwrap().host, "app.example");
        group.change_name(1, |line| line.weight = 4).unwrap();
        group.update(1, &[found("10.0.0.1"), found("10.0.0.2")].concat());
        assert_eq!(text(&group), "0:10.0.0.9:80*1 2:10.0.0.1:8080*4 3:10.0.0.2:8080*4");
        assert_eq!(group.state_text(), "server written.example resolve;\nserver app.example weight=4 resolve;\n");
        let under_way = group.select(Client::default()).next(0);
        group.remove_name(1).unwrap();
        assert_eq!(group.remove_name(1).unwrap_err(), Refused::NotFound);
        group.update(1, &found("10.0.0.3"));
        assert_eq!(text(&group), "0:10.0.0.9:80*1", "an answer that comes late finds nobody");
        drop(under_way);
    }

    #[test]
    fn names_of_a_file_are_those_of_the_generation_before() {
        let make = |hosts: &[&str]| {
            let dynamics = Dynamics { keeps: true, begins_empty: true };
            let none = Resolving::default();
            let mut group = Group::with_names("app", Balance::RoundRobin, Vec::new(), none, dynamics).unwrap();
            group.state = Some(crate::upstream::state::State::new("/state".into()));
            for host in hosts {
                group.begin_with(name(host, None));
            }
            Arc::new(group)
        };
        let old = make(&["a.example"]);
        old.add_name(name("b.example", None)).unwrap();
        old.update(1, &found("10.0.0.1"));
        let new = make(&["a.example", "b.example"]);
        new.adopt(&old);
        assert_eq!((text(&new), new.state_text()), ("2:10.0.0.1:8080*1".into(), old.state_text()));
        assert_eq!(new.joined_names().len(), 2);
    }

    #[test]
    fn names_that_joined_outlive_a_reload() {
        let (old, same, other) = (group("a.example"), group("a.example"), group("b.example"));
        old.add_name(name("gone.example", None)).unwrap();
        old.add_name(name("app.example", None)).unwrap();
        old.remove_name(0).unwrap();
        old.update(2, &found("10.0.0.1"));
        assert!(old.name(2).unwrap().claim());
        same.adopt(&old);
        assert_eq!(text(&same), "2:10.0.0.1:8080*1");
        assert!(same.name(2).unwrap().claim(), "the new generation looks it up");
        same.update(2, &found("10.0.0.2"));
        assert_eq!(text(&same), "3:10.0.0.2:8080*1");
        other.adopt(&same);
        assert_eq!(text(&other), "3:10.0.0.2:8080*1");
        other.update(2, &[]);
        assert_eq!((text(&other), other.joined_names().len()), (String::new(), 1));
    }
}
