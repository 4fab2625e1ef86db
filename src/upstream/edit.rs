//! Changes of a group's membership while the server runs: servers that are added, removed, or get other parameters.
//!
//! A change makes a new set of members: requests under way keep to the one they began with. Numbers of servers are
//! never given to another one.

use super::{
    group::Group,
    peer::{Address, Peer, ServerLine},
    resolve::{Resolved, Resolving},
};
use crate::lock;
use std::{
    collections::HashSet,
    sync::{Arc, MutexGuard, atomic::Ordering::Relaxed},
};

/// How the membership of a group may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dynamics {
    /// Changes outlive a reload: `zone` and its kin.
    pub keeps: bool,
    /// It may begin with nobody: somebody else says who belongs to it (`state`, servers that register themselves).
    pub begins_empty: bool,
}

/// What is written of a group's membership; while it stays the same, changes that were made outlive a reload.
#[derive(Debug)]
pub(super) struct Written {
    servers: Vec<(ServerLine, Vec<Address>)>,
    names: Vec<(ServerLine, String, Option<String>, u16)>,
}

/// A change that could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No server has this number.
    #[error("there is no such server")]
    NotFound,
    /// A reload has put another group in the place of this one: the change is to be made there.
    #[error("the configuration is being replaced")]
    Superseded,
    /// The method of the group has no use for backup servers.
    #[error("the balancing method allows no backup servers")]
    NoBackup,
}

impl Written {
    pub(super) fn new(servers: &[(ServerLine, Vec<Address>)], resolving: &Resolving) -> Self {
        let name = |name: &Resolved| (name.line.clone(), name.host.clone(), name.service.clone(), name.port);
        Self { servers: servers.to_vec(), names: resolving.names.iter().map(name).collect() }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.servers == other.servers && self.names == other.names
    }
}

impl Group {
    /// Whether its method has a place for such a server.
    pub(super) fn allows(&self, line: &ServerLine) -> Result<(), Refused> {
        if line.backup && !self.balance.allows_backup() { Err(Refused::NoBackup) } else { Ok(()) }
    }

    /// Adds a server for each address, with the parameters of one line; they come last among their kind.
    ///
    /// # Errors
    /// [`Refused::NoBackup`], [`Refused::Superseded`].
    pub fn add(&self, line: ServerLine, addresses: &[Address]) -> Result<Vec<Arc<Peer>>, Refused> {
        self.allows(&line)?;
        self.edit(|sets| {
            let (backup, line) = (line.backup, Arc::new(line));
            let join = |address: &Address| Arc::new(Peer::added(self.take_id(), Arc::clone(&line), address.clone()));
            let joined: Vec<_> = addresses.iter().map(join).collect();
            sets[usize::from(backup)].extend(joined.iter().cloned());
            Ok(joined)
        })
    }

    /// The same, unless there is a server of that address already: then nothing changes, and that one is handed out.
    /// The flag says whether it was added.
    ///
    /// # Errors
    /// [`Refused::NoBackup`], [`Refused::Superseded`].
    pub fn add_once(&self, line: ServerLine, address: &Address) -> Result<(Arc<Peer>, bool), Refused> {
        self.add_below(usize::MAX, line, address).transpose().unwrap_or(Err(Refused::NotFound))
    }

    /// The same, unless there are `most` servers already: then there is nothing to hand out.
    ///
    /// # Errors
    /// [`Refused::NoBackup`], [`Refused::Superseded`].
    pub fn add_below(
        &self,
        most: usize,
        line: ServerLine,
        address: &Address,
    ) -> Result<Option<(Arc<Peer>, bool)>, Refused> {
        let found = |peer: &Arc<Peer>| peer.address == *address;
        self.allows(&line)?;
        self.edit_if(|sets| {
            if let Some(there) = sets.iter().flatten().find(|peer| found(peer)) {
                return Ok((false, Some((Arc::clone(there), false))));
            }
            if sets.iter().map(Vec::len).sum::<usize>() >= most {
                return Ok((false, None));
            }
            let set = &mut sets[usize::from(line.backup)];
            let peer = Arc::new(Peer::added(self.take_id(), Arc::new(line), address.clone()));
            set.push(Arc::clone(&peer));
            Ok((true, Some((peer, true))))
        })
    }

    /// Removes a server. Requests it serves go on to their end.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::Superseded`].
    pub fn remove(&self, id: u32) -> Result<Arc<Peer>, Refused> {
        self.edit(|sets| {
            let (set, at) = position(sets, id)?;
            let peer = sets[set].remove(at);
            self.note_removed(vec![Arc::clone(&peer)]);
            Ok(peer)
        })
    }

    /// Gives a server other parameters. It keeps its number, address, place and state, and whether it is `backup`; with
    /// another weight its share begins anew.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::Superseded`].
    pub fn change(&self, id: u32, change: impl FnOnce(&mut ServerLine)) -> Result<Arc<Peer>, Refused> {
        self.change_to(id, None, change)
    }

    /// The same, and it moves to another address: what was known of the old one is forgotten.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::Superseded`].
    pub fn change_to(
        &self,
        id: u32,
        address: Option<Address>,
        change: impl FnOnce(&mut ServerLine),
    ) -> Result<Arc<Peer>, Refused> {
        self.edit(|sets| {
            let (set, at) = position(sets, id)?;
            let before = &sets[set][at];
            let mut line = ServerLine::clone(&before.line);
            change(&mut line);
            line.backup = before.line.backup;
            let changed = Arc::new(before.with_line(Arc::new(line), address));
            self.weigh_anew(before, &changed);
            sets[set][at] = Arc::clone(&changed);
            Ok(changed)
        })
    }

    /// The server of a number.
    pub fn peer(&self, id: u32) -> Option<Arc<Peer>> {
        self.members().sets().into_iter().flatten().find(|peer| peer.id == id).cloned()
    }

    /// How many servers were removed and serve requests still.
    pub fn zombies(&self) -> usize {
        self.removed().iter().filter(|peer| peer.active() > 0).count()
    }

    /// These were removed, and may serve requests still.
    pub(super) fn note_removed(&self, peers: Vec<Arc<Peer>>) {
        let mut removed = self.removed();
        removed.retain(|peer| peer.active() > 0);
        removed.extend(peers);
    }

    fn removed(&self) -> MutexGuard<'_, Vec<Arc<Peer>>> {
        lock(&self.removed)
    }

    /// With another weight its share begins anew.
    pub(super) fn weigh_anew(&self, before: &Peer, changed: &Peer) {
        if changed.weight() != before.weight() {
            let _lock = self.lock();
            changed.live().effective_weight.set(changed.weight());
        }
    }

    pub(super) fn edit<T>(
        &self,
        change: impl FnOnce(&mut [Vec<Arc<Peer>>; 2]) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.edit_if(|sets| change(sets).map(|result| (true, result)))
    }

    /// One change; it says whether it changed anything.
    pub(super) fn edit_if<T>(
        &self,
        change: impl FnOnce(&mut [Vec<Arc<Peer>>; 2]) -> Result<(bool, T), Refused>,
    ) -> Result<T, Refused> {
        let _changing = lock(&self.changing);
        if self.superseded.load(Relaxed) {
            return Err(Refused::Superseded);
        }
        let mut sets = self.members().sets().map(<[_]>::to_vec);
        let (changed, result) = change(&mut sets)?;
        if changed {
            self.bound_debts(&sets);
            self.replace(sets);
            self.note_state();
            if let Some(queue) = &self.queue {
                queue.call_next();
            }
        }
        Ok(result)
    }

    /// Nobody is owed or owes more turns than there are in one round now: else a server whose weight fell, or whose
    /// heavy neighbour left, would be asked by nobody, or by everybody, for long.
    fn bound_debts(&self, sets: &[Vec<Arc<Peer>>; 2]) {
        let _lock = self.lock();
        for set in sets {
            let total: i64 = set.iter().map(|peer| peer.weight()).sum();
            for peer in set {
                let current = &peer.live().current_weight;
                current.set(current.get().clamp(-total, total));
            }
        }
    }

    /// Takes over who belongs to `previous`, where that outlives a reload: everybody as they are if the same servers are
    /// written as before, or else those that were added. Says how many there are and whether they are all.
    pub(super) fn keep_members(&self, previous: &Self) -> Option<usize> {
        if !self.dynamics.keeps {
            return None;
        }
        let _changing = lock(&previous.changing);
        previous.superseded.store(true, Relaxed);
        self.removed().append(&mut previous.removed().clone());
        let same = match (&self.state, &previous.state) {
            // The file follows the members, not they it.
            (Some(own), Some(earlier)) => own.path == earlier.path && self.written.names == previous.written.names,
            (None, None) => self.written.is_same(&previous.written),
            _ => false,
        };
        let mut sets = previous.members().sets().map(<[_]>::to_vec);
        if !self.balance.allows_backup() {
            sets[1].clear();
        }
        self.next_id.fetch_max(previous.next_id.load(Relaxed), Relaxed);
        self.keep_names(previous);
        if same {
            for (own, earlier) in self.resolving.names.iter().zip(&previous.resolving.names) {
                own.copy_validity(earlier);
            }
            let count = sets.iter().map(Vec::len).sum();
            self.replace(sets);
            return Some(count);
        }
        let mut own = self.members().sets().map(<[_]>::to_vec);
        let addresses: HashSet<Address> = own.iter().flatten().map(|peer| peer.address.clone()).collect();
        let taken: HashSet<u32> = own.iter().flatten().map(|peer| peer.id).collect();
        for (own, added) in own.iter_mut().zip(sets) {
            let stays = |peer: &Arc<Peer>| peer.added && !addresses.contains(&peer.address);
            for peer in added {
                // Those of a name that joined follow it to its new place.
                let by = peer.found_by.and_then(|at| at.checked_sub(previous.resolving.names.len()));
                if let Some(by) = by {
                    let at = Some(self.resolving.names.len() + by);
                    let id = if taken.contains(&peer.id) { self.take_id() } else { peer.id };
                    own.push(Arc::new(peer.with_id(id).by(at)));
                } else if stays(&peer) {
                    own.push(if taken.contains(&peer.id) { Arc::new(peer.with_id(self.take_id())) } else { peer });
                }
            }
        }
        self.replace(own);
        None
    }
}

fn position(sets: &[Vec<Arc<Peer>>; 2], id: u32) -> Result<(usize, usize), Refused> {
    let at = |set: usize| sets[set].iter().position(|peer| peer.id == id).map(|at| (set, at));
    at(0).or_else(|| at(1)).ok_or(Refused::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Balance, Client, Outcome};

    const DYNAMIC: Dynamics = Dynamics { keeps: true, begins_empty: true };

    fn address(number: u32) -> Address {
        Address::Unix(format!("/{number}").into())
    }

    fn line(weight: u32) -> ServerLine {
        ServerLine { weight, ..ServerLine::default() }
    }

    /// Servers `/1`, `/2`, … with these weights.
    fn group(weights: &[u32]) -> Arc<Group> {
        let servers = (1..).zip(weights).map(|(number, weight)| (line(*weight), vec![address(number)]));
        let servers = servers.collect();
        let group = Group::with_names("app", Balance::RoundRobin, servers, Resolving::default(), DYNAMIC);
        Arc::new(group.unwrap())
    }

    fn ids(group: &Arc<Group>, count: usize) -> Vec<u32> {
        (0..count).map(|_| group.select(Client::default()).next(5000).unwrap().id).collect()
    }

    fn text(group: &Group) -> String {
        let peers = group.peers().map(|peer| format!("{}:{}*{}", peer.id, peer.name, peer.line.weight));
        peers.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn servers_join_an_empty_group_and_leave_it_and_numbers_are_not_given_again() {
        let group = group(&[]);
        assert!(group.select(Client::default()).next(0).is_err());
        group.add(line(1), &[address(1), address(2)]).unwrap();
        assert_eq!(ids(&group, 4), [0, 1, 0, 1]);
        assert_eq!(group.remove(1).unwrap().name, "unix:/2");
        assert_eq!(group.remove(1).unwrap_err(), Refused::NotFound);
        group.add(line(2), &[address(2)]).unwrap();
        assert_eq!(text(&group), "0:unix:/1*1 2:unix:/2*2");
        group.remove(0).unwrap();
        group.remove(2).unwrap();
        assert!(group.select(Client::default()).next(0).is_err());
    }

    #[test]
    fn an_address_is_added_once() {
        let group = group(&[1]);
        assert!(!group.add_once(line(5), &address(1)).unwrap().1);
        let (peer, added) = group.add_once(line(5), &address(2)).unwrap();
        assert!(added && peer.id == 1);
        assert_eq!(text(&group), "0:unix:/1*1 1:unix:/2*5");
    }

    #[test]
    fn a_request_under_way_ends_with_the_server_that_was_removed() {
        let group = group(&[1, 1]);
        let mut under_way = group.select(Client::default());
        let peer = under_way.next(5000).unwrap();
        let removed = group.remove(peer.id).unwrap();
        assert_eq!(removed.active(), 1);
        assert_eq!(ids(&group, 2), [1, 1]);
        under_way.done(Outcome::Success, 5000);
        assert_eq!(removed.active(), 0);
    }

    #[test]
    fn a_changed_server_keeps_its_number_and_state() {
        let group = group(&[1, 1, 1]);
        let mut under_way = group.select(Client::default());
        under_way.next(5000).unwrap();
        group.change(0, |line| (line.weight, line.max_conns, line.backup) = (3, 1, true)).unwrap();
        let changed = group.peer(0).unwrap();
        assert_eq!((changed.active(), changed.effective_weight(), changed.line.backup), (1, 3, false));
        assert_eq!(ids(&group, 2), [1, 2], "it is at its limit");
        drop(under_way);
        group.change(0, |line| line.max_conns = 0).unwrap();
        let mut counts = [0; 3];
        for id in ids(&group, 50) {
            counts[id as usize] += 1;
        }
        assert_eq!(counts, [30, 10, 10]);
        group.change(0, |line| line.drain = true).unwrap();
        assert!(!ids(&group, 10).contains(&0));
        let moved = group.change_to(1, Some(address(7)), |_| {}).unwrap();
        assert_eq!((moved.id, &*moved.name), (1, "unix:/7"));
    }

    #[test]
    fn who_lost_weight_is_asked_again_soon() {
        let group = group(&[1000, 1, 1]);
        ids(&group, 500);
        group.change(0, |line| line.weight = 1).unwrap();
        let picks = ids(&group, 30);
        for id in 0..3 {
            let times = picks.iter().filter(|pick| **pick == id).count();
            assert!((8..=12).contains(&times), "{id}: {picks:?}");
        }
    }

    #[test]
    fn changes_outlive_a_reload_while_the_same_is_written() {
        let (old, new, other) = (group(&[1, 2]), group(&[1, 2]), group(&[1, 5]));
        old.add(line(7), &[address(9)]).unwrap();
        old.remove(0).unwrap();
        old.change(1, |line| line.weight = 4).unwrap();
        let under_way = old.select(Client::default()).next(5000).unwrap();
        assert_eq!(new.adopt(&old), 2);
        assert_eq!(text(&new), "1:unix:/2*4 2:unix:/9*7");
        assert!(Arc::ptr_eq(&new.peer(under_way.id).unwrap(), &under_way));
        assert_eq!(old.add(line(1), &[address(3)]).unwrap_err(), Refused::Superseded);
        assert_eq!(new.add(line(1), &[address(3)]).unwrap()[0].id, 3);
        other.adopt(&new);
        assert_eq!(text(&other), "0:unix:/1*1 1:unix:/2*5 2:unix:/9*7 3:unix:/3*1", "only who was added stays");
    }

    #[test]
    fn a_group_that_keeps_nothing_is_as_it_is_written() {
        let make = || {
            let servers = vec![(line(1), vec![address(1)])];
            Group::new("app", Balance::RoundRobin, servers).unwrap()
        };
        let (old, new) = (make(), make());
        old.add(line(1), &[address(2)]).unwrap();
        assert_eq!(new.adopt(&old), 1);
        assert_eq!(text(&new), "0:unix:/1*1");
    }

    #[test]
    fn a_method_without_backup_servers_gets_none() {
        let servers = vec![(line(1), vec![address(1)])];
        let group = Group::new("app", Balance::IpHash, servers).unwrap();
        let backup = ServerLine { backup: true, ..line(1) };
        assert_eq!(group.add(backup, &[address(2)]).unwrap_err(), Refused::NoBackup);
    }
}
