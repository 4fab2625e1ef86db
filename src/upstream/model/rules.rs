//! nginx's rules of balancing, as plainly as they can be said: nothing is shared with what serves.

use std::rc::Rc;

use crate::upstream::{Balance, ServerLine, health::State};

/// What is known of a peer while the server runs, in whichever sets of members it stands: the rules say what each
/// number is.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    pub(super) current: i64,
    pub(super) effective: i64,
    pub(super) conns: u32,
    pub(super) fails: u32,
    accessed: i64,
    checked: i64,
    /// Somebody who checks it holds it out.
    pub(super) held: bool,
    /// The millisecond it was found good again, its claim to take part in 1024ths, and whether it stands back.
    since: u64,
    claim: u64,
    rests: bool,
}

/// A peer in one set of members.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) id: u32,
    pub(super) line: ServerLine,
    pub(super) live: usize,
}

/// Who belongs to the group at one moment: primary and backup servers, and the points of the servers, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    pub(super) sets: [Vec<Peer>; 2],
    ring: Vec<(u32, String)>,
}

/// A request of the model.
#[derive(Clone, Debug)]
pub(super) struct Request {
    members: Rc<Members>,
    set: usize,
    tried: Vec<usize>,
    peer: Option<usize>,
    pub(super) tries: usize,
    key: String,
    route: String,
    /// How far the hash has got: its value or point, how often it was made, and how often in vain.
    hash: u64,
    rehash: u32,
    misses: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) method: Balance,
    pub(super) members: Rc<Members>,
    pub(super) lives: Vec<Live>,
    pub(super) next_id: u32,
}

impl Model {
    pub(super) fn new(method: Balance, lines: &[ServerLine]) -> Self {
        let mut model = Self { method, members: Rc::default(), lives: Vec::new(), next_id: 0 };
        let sets = [false, true].map(|backup| {
            let of_set = lines.iter().filter(|line| line.backup == backup);
            of_set.map(|line| model.join(line)).collect()
        });
        model.replace(sets);
        model
    }

    /// A new peer that nothing is known of.
    fn join(&mut self, line: &ServerLine) -> Peer {
        self.lives.push(Live { effective: i64::from(line.weight), ..Live::default() });
        self.next_id += 1;
        Peer { id: self.next_id - 1, line: line.clone(), live: self.lives.len() - 1 }
    }

    fn replace(&mut self, sets: [Vec<Peer>; 2]) {
        let consistent = self.method == Balance::Hash { consistent: true };
        let ring = if consistent { ring(&sets[0]) } else { Vec::new() };
        self.members = Rc::new(Members { sets, ring });
    }

    /// A change of the membership: requests under way keep theirs, and nobody owes or is owed more than one round.
    fn edit(&mut self, change: impl FnOnce(&mut Self, &mut [Vec<Peer>; 2])) {
        let mut sets = self.members.sets.clone();
        change(self, &mut sets);
        for set in &sets {
            let total: i64 = set.iter().map(|peer| i64::from(peer.line.weight)).sum();
            for peer in set {
                let current = &mut self.lives[peer.live].current;
                *current = (*current).max(-total).min(total);
            }
        }
        self.replace(sets);
    }

    pub(super) fn add(&mut self, line: &ServerLine) {
        self.edit(|model, sets| sets[usize::from(line.backup)].push(model.join(line)));
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.edit(|_, sets| sets.iter_mut().for_each(|set| set.retain(|peer| peer.id != id)));
    }

    /// Another weight begins anew; everything else stays.
    pub(super) fn change(&mut self, id: u32, change: impl Fn(&mut ServerLine)) {
        self.edit(|model, sets| {
            for peer in sets.iter_mut().flatten().filter(|peer| peer.id == id) {
                let before = peer.line.weight;
                change(&mut peer.line);
                if peer.line.weight != before {
                    model.lives[peer.live].effective = i64::from(peer.line.weight);
                }
            }
        });
    }

    /// A reload with the same lines, where changes do not outlive it: whoever is the same as before keeps its state.
    /// How many these are.
    pub(super) fn reload(&mut self, lines: &[ServerLine]) -> usize {
        let mut before: Vec<Peer> = self.members.sets.concat();
        let mut new = Self::new(self.method, lines);
        let (mut sets, mut kept) = (new.members.sets.clone(), 0);
        for peer in sets.iter_mut().flatten() {
            let same = |old: &Peer| {
                (&old.line.server, &old.line.route, old.line.weight, old.line.backup)
                    == (&peer.line.server, &peer.line.route, peer.line.weight, peer.line.backup)
            };
            peer.live = match before.iter().position(same) {
                Some(at) => {
                    kept += 1;
                    before.remove(at).live
                }
                None => {
                    self.lives.push(new.lives[peer.live].clone());
                    self.lives.len() - 1
                }
            };
        }
        new.lives = std::mem::take(&mut self.lives);
        new.replace(sets);
        *self = new;
        kept
    }

    pub(super) fn hold(&mut self, peer: &Peer) {
        self.lives[peer.live].held = true;
    }

    /// Found good again: failures are forgiven, and with `slow_start` it comes back bit by bit.
    pub(super) fn release(&mut self, peer: &Peer, now: u64) {
        let live = &mut self.lives[peer.live];
        if std::mem::take(&mut live.held) {
            live.fails = 0;
            if peer.line.slow_start > 0 {
                (live.since, live.claim) = (now, 0);
            }
        }
    }

    fn is_out(&self, peer: &Peer, second: i64) -> bool {
        let live = &self.lives[peer.live];
        let line = &peer.line;
        line.max_fails > 0 && live.fails >= line.max_fails && second - live.checked <= line.fail_timeout
    }

    pub(super) fn state(&self, peer: &Peer, second: i64) -> State {
        match () {
            () if peer.line.down => State::Down,
            () if self.lives[peer.live].held => State::Unhealthy,
            () if peer.line.drain => State::Draining,
            () if self.is_out(peer, second) => State::Unavail,
            () => State::Up,
        }
    }

    pub(super) fn start(&self, key: &str, route: &str) -> Request {
        let members = Rc::clone(&self.members);
        let tries = members.sets.iter().flatten().filter(|peer| !peer.line.down && !peer.line.drain).count();
        let hash = match self.method {
            Balance::IpHash => 89,
            Balance::Hash { consistent: true } => {
                let hash = crc32(key.as_bytes());
                members.ring.iter().take_while(|(point, _)| *point < hash).count() as u64
            }
            _ => 0,
        };
        let (key, route) = (key.to_owned(), route.to_owned());
        Request { members, set: 0, tried: Vec::new(), peer: None, tries, key, route, hash, rehash: 0, misses: 0 }
    }

    /// Neither `down` nor held nor full: all that a lone server has to be.
    fn has_room(&self, peer: &Peer, own: bool) -> bool {
        let (line, live) = (&peer.line, &self.lives[peer.live]);
        !line.down && (own || !line.drain) && !live.held && (line.max_conns == 0 || live.conns < line.max_conns)
    }

    fn usable(&self, request: &Request, index: usize, own: bool, second: i64) -> bool {
        let peer = &request.peers()[index];
        let rests = !own && peer.line.slow_start > 0 && self.lives[peer.live].rests;
        self.has_room(peer, own) && !self.is_out(peer, second) && !rests && !request.tried.contains(&index)
    }

    fn candidates(&self, request: &Request, second: i64) -> Vec<usize> {
        (0..request.peers().len()).filter(|index| self.usable(request, *index, false, second)).collect()
    }

    fn own(&self, request: &Request, second: i64) -> Option<usize> {
        let of_route = |peer: &Peer| !request.route.is_empty() && peer.line.route == request.route;
        let index = request.peers().iter().position(of_route)?;
        self.usable(request, index, true, second).then_some(index)
    }

    /// The number of the chosen peer.
    pub(super) fn next(&mut self, request: &mut Request, now: u64) -> Option<u32> {
        let mut chosen = self.choose(request, self.method, now);
        if chosen.is_none() && request.set == 0 && !request.members.sets[1].is_empty() {
            (request.set, request.tried) = (1, Vec::new());
            let method = if self.method == Balance::LeastConn { Balance::LeastConn } else { Balance::RoundRobin };
            chosen = self.choose(request, method, now);
        }
        let index = chosen?;
        let peer = request.peers()[index].clone();
        let live = &mut self.lives[peer.live];
        live.conns += 1;
        if !request.single() {
            request.tried.push(index);
            let second = (now / 1000) as i64;
            if second - live.checked > peer.line.fail_timeout {
                live.checked = second;
            }
        }
        request.peer = Some(index);
        Some(peer.id)
    }

    /// A choice in the present set: those who recover take part in every so many; if nobody else is left, all do.
    fn choose(&mut self, request: &mut Request, method: Balance, now: u64) -> Option<usize> {
        let recovering: Vec<_> = request.peers().iter().filter(|peer| peer.line.slow_start > 0).cloned().collect();
        for peer in &recovering {
            self.pace(peer, now);
        }
        let second = (now / 1000) as i64;
        let chosen = self.choose_awake(request, method, second);
        if chosen.is_some() || recovering.is_empty() {
            return chosen;
        }
        for peer in &recovering {
            self.lives[peer.live].rests = false;
        }
        self.choose_awake(request, method, second)
    }

    fn pace(&mut self, peer: &Peer, now: u64) {
        let live = &mut self.lives[peer.live];
        live.rests = false;
        if live.since == 0 {
            return;
        }
        let gone = now.saturating_sub(live.since);
        if gone >= peer.line.slow_start {
            live.since = 0;
            return;
        }
        live.claim += gone * 1024 / peer.line.slow_start;
        match live.claim.checked_sub(1024) {
            Some(rest) => live.claim = rest,
            None => live.rests = true,
        }
    }

    fn choose_awake(&mut self, request: &mut Request, method: Balance, second: i64) -> Option<usize> {
        match method {
            Balance::LeastConn => self.least_conn(request, second),
            Balance::IpHash | Balance::Hash { .. } => self.hashed(request, second),
            _ => self.round_robin(request, second),
        }
    }

    fn round_robin(&mut self, request: &Request, second: i64) -> Option<usize> {
        let own = self.own(request, second);
        let peers = request.peers();
        if request.single() {
            return own.or_else(|| self.has_room(&peers[0], false).then_some(0));
        }
        if let Some(own) = own {
            let all: i64 = peers.iter().map(|peer| i64::from(peer.line.weight)).sum();
            if self.lives[peers[own].live].current <= i64::from(peers[own].line.weight) - all {
                return Some(own);
            }
        }
        let candidates = self.candidates(request, second);
        self.turn(request, &candidates, own)
    }

    /// One turn among some peers of a set; whoever is named beforehand is chosen, and pays.
    fn turn(&mut self, request: &Request, candidates: &[usize], named: Option<usize>) -> Option<usize> {
        let peers = request.peers();
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for &index in candidates {
            let live = &mut self.lives[peers[index].live];
            live.current += live.effective;
            total += live.effective;
            if live.effective < i64::from(peers[index].line.weight) {
                live.effective += 1;
            }
            if best.is_none_or(|(_, most)| live.current > most) {
                best = Some((index, live.current));
            }
        }
        let chosen = named.or(best.map(|(index, _)| index))?;
        self.lives[peers[chosen].live].current -= total;
        Some(chosen)
    }

    fn least_conn(&mut self, request: &Request, second: i64) -> Option<usize> {
        if request.single() {
            return self.round_robin(request, second);
        }
        if let Some(own) = self.own(request, second) {
            return Some(own);
        }
        let peers = request.peers();
        let candidates = self.candidates(request, second);
        // Weights are below eight: a common multiple of all makes shares of them whole.
        let share = |index: &usize| self.lives[peers[*index].live].conns * 840 / peers[*index].line.weight;
        let least = candidates.iter().map(share).min()?;
        let equal: Vec<_> = candidates.into_iter().filter(|index| share(index) == least).collect();
        match equal[..] {
            [only] => Some(only),
            _ => self.turn(request, &equal, None),
        }
    }

    fn hashed(&mut self, request: &mut Request, second: i64) -> Option<usize> {
        let consistent = self.method == Balance::Hash { consistent: true };
        let few = if consistent { request.single() } else { request.peers().len() < 2 };
        let keyless = request.key.is_empty() && self.method != Balance::IpHash;
        if request.misses > 20 || few || keyless {
            return self.round_robin(request, second);
        }
        if request.peers().is_empty() {
            return None;
        }
        if let Some(own) = self.own(request, second) {
            return Some(own);
        }
        let before = request.hash;
        while request.misses <= 20 {
            let candidates = self.step(request, second);
            if consistent {
                if let Some(chosen) = self.turn(request, &candidates, None) {
                    return Some(chosen);
                }
                request.hash += 1;
            } else if let [chosen] = candidates[..] {
                return Some(chosen);
            }
            request.misses += 1;
        }
        if self.method == Balance::IpHash {
            request.hash = before;
        }
        self.round_robin(request, second)
    }

    /// The usable peers at the next step of a hash.
    fn step(&self, request: &mut Request, second: i64) -> Vec<usize> {
        let members = Rc::clone(&request.members);
        let peers = &members.sets[request.set];
        if self.method == (Balance::Hash { consistent: true }) {
            let (_, server) = &members.ring[request.hash as usize % members.ring.len()];
            let here = |index: &usize| peers[*index].line.server == *server;
            return self.candidates(request, second).into_iter().filter(here).collect();
        }
        if self.method == Balance::IpHash {
            // Requests come from 10.0.N.1, where N is the length of the key.
            for byte in [10, 0, request.key.len() as u64] {
                request.hash = (request.hash * 113 + byte) % 6271;
            }
        } else {
            let number = if request.rehash > 0 { request.rehash.to_string() } else { String::new() };
            request.hash += u64::from((crc32((number + &request.key).as_bytes()) >> 16) & 0x7fff);
            request.rehash += 1;
        }
        let owners: Vec<_> = (0..peers.len()).flat_map(|at| vec![at; peers[at].line.weight as usize]).collect();
        let index = owners[request.hash as usize % owners.len()];
        [index].into_iter().filter(|index| self.usable(request, *index, false, second)).collect()
    }

    /// What became of a try; `now` is nothing where the request was cut short. Whether its peer is taken out by it.
    pub(super) fn done(&mut self, request: &mut Request, failed: bool, now: Option<u64>) -> bool {
        let single = request.single();
        let Some(index) = request.peer.take() else { return false };
        let Peer { line, live, .. } = request.peers()[index].clone();
        let live = &mut self.lives[live];
        live.conns -= 1;
        request.tries = if single { 0 } else { request.tries.saturating_sub(1) };
        if let Some(now) = now.filter(|_| failed && !single) {
            live.fails += 1;
            (live.accessed, live.checked) = ((now / 1000) as i64, (now / 1000) as i64);
            let share = line.weight.checked_div(line.max_fails).unwrap_or(0);
            if line.max_fails > 0 {
                live.effective = (live.effective - i64::from(share)).max(0);
            }
            return line.max_fails > 0 && live.fails >= line.max_fails;
        }
        if live.fails > 0 && (single || live.accessed < live.checked) {
            if line.slow_start > 0 && line.max_fails > 0 && live.fails >= line.max_fails {
                (live.since, live.claim) = (now.unwrap_or(live.checked as u64 * 1000), 0);
            }
            live.fails = 0;
        }
        false
    }
}

impl Request {
    fn peers(&self) -> &[Peer] {
        &self.members.sets[self.set]
    }

    fn single(&self) -> bool {
        self.set == 0 && self.members.sets[0].len() == 1 && self.members.sets[1].is_empty()
    }
}

/// The circle of servers written `HOST:PORT`.
fn ring(peers: &[Peer]) -> Vec<(u32, String)> {
    let mut ring: Vec<(u32, String)> = Vec::new();
    for peer in peers {
        let server = peer.line.server.replace(':', "\0");
        let mut previous = [0; 4];
        for _ in 0..peer.line.weight * 160 {
            let hash = crc32(&[server.as_bytes(), &previous].concat());
            ring.push((hash, peer.line.server.clone()));
            previous = hash.to_le_bytes();
        }
    }
    ring.sort_by_key(|(hash, _)| *hash);
    ring.dedup_by_key(|(hash, _)| *hash);
    ring
}

/// Bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        let shift = |sum: u32, _| if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 };
        (0..8).fold(sum ^ u32::from(*byte), shift)
    };
    !bytes.iter().fold(u32::MAX, step)
}
