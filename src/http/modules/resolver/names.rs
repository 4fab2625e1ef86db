//! The names one thread knows from its name servers: answers kept for their time, and questions under way,
//! which all who want the same name share (`ngx_resolve_name_locked`).

use super::{Log, NameServers, question};
use hickory_proto::rr::Name;
use question::{Answer, Failure};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    net::IpAddr,
    rc::Rc,
    time::Instant,
};
use tokio::sync::watch;

/// Kept answers for the same `resolver`; nginx bounds them by forgetting what nobody used for 30 seconds.
const MAX_NAMES: usize = 1024;
/// Different `resolver` lines remembered, those of earlier generations among them.
const MAX_RESOLVERS: usize = 32;
/// How many aliases in a row are followed (`NGX_RESOLVER_MAX_RECURSION`).
const MAX_ALIASES: usize = 50;

thread_local! {
    static RESOLVERS: RefCell<HashMap<NameServers, Rc<Names>>> = RefCell::default();
}

/// What this thread knows from these servers. A reload that leaves a `resolver` as it was keeps its answers.
pub(super) fn of(servers: &NameServers) -> Rc<Names> {
    RESOLVERS.with_borrow_mut(|resolvers| {
        if let Some(names) = resolvers.get(servers) {
            return Rc::clone(names);
        }
        if resolvers.len() >= MAX_RESOLVERS {
            resolvers.retain(|_, names| Rc::strong_count(names) > 1);
        }
        let names = Rc::new(Names::new(servers.clone()));
        resolvers.insert(servers.clone(), Rc::clone(&names));
        names
    })
}

/// What is known from one set of servers (`ngx_resolver_t`).
pub(super) struct Names {
    servers: NameServers,
    /// The server that the next question goes to first.
    next: Cell<usize>,
    nodes: RefCell<HashMap<Name, Node>>,
    born: Instant,
}

type Outcome = Result<Rc<Answer>, Failure>;

/// What is known about one name (`ngx_resolver_node_t`).
enum Node {
    Asking(watch::Sender<Option<Outcome>>),
    Known {
        answer: Rc<Answer>,
        /// The last second, as [`Names::now`] counts them, in which the answer may be used.
        valid: u64,
        /// When it was used last.
        used: u64,
    },
}

impl Names {
    fn new(servers: NameServers) -> Self {
        Self { servers, next: Cell::new(0), nodes: RefCell::default(), born: Instant::now() }
    }

    /// Whom to ask.
    pub(super) fn servers(&self) -> &NameServers {
        &self.servers
    }

    /// The server whose turn it is to be asked first.
    pub(super) fn turn(&self) -> usize {
        let first = self.next.get();
        self.next.set((first + 1) % self.servers.servers.len().max(1));
        first
    }

    /// The addresses of a name, and for how many seconds they hold: as the server listed them when it was asked for this, rotated by chance when
    /// they were known. Has to run inside a `LocalSet`.
    ///
    /// # Errors
    /// What the servers said.
    pub(super) async fn addresses(self: Rc<Self>, mut name: Name, log: Log) -> Result<(Vec<IpAddr>, u64), Failure> {
        for _ in 0..=MAX_ALIASES {
            let (answer, left) = match self.known(&name) {
                Some((answer, left)) => (answer, Some(left)),
                None => (self.ask(&name, &log).await?, None),
            };
            match &*answer {
                Answer::Alias { target, .. } => name = target.clone(),
                Answer::Addresses { v4, v6, .. } => {
                    let turns = if left.is_some() { chance() } else { [0; 3] };
                    return Ok((rotate(v4, v6, turns), left.unwrap_or_else(|| self.kept(&answer))));
                }
            }
        }
        Err(Failure::NotFound)
    }

    /// Whole seconds, as nginx counts time for answers: one of no TTL lasts until the second is over.
    fn now(&self) -> u64 {
        self.born.elapsed().as_secs()
    }

    /// For how many seconds a new answer is kept.
    fn kept(&self, answer: &Answer) -> u64 {
        self.servers.valid.unwrap_or_else(|| u64::from(answer.ttl()))
    }

    /// What is known of a name, and for how many seconds yet.
    fn known(&self, name: &Name) -> Option<(Rc<Answer>, u64)> {
        let now = self.now();
        match self.nodes.borrow_mut().get_mut(name) {
            Some(Node::Known { answer, valid, used }) if *valid >= now => {
                *used = now;
                Some((Rc::clone(answer), *valid - now))
            }
            _ => None,
        }
    }

    /// Waits for the servers' answer, together with all who asked before for the same.
    async fn ask(self: &Rc<Self>, name: &Name, log: &Log) -> Outcome {
        let shared = match self.nodes.borrow().get(name) {
            Some(Node::Asking(answer)) => Some(answer.subscribe()),
            _ => None,
        };
        let mut answered = shared.unwrap_or_else(|| self.start(name, log));
        // The question ends without an outcome only with the thread it runs on.
        let outcome = answered.wait_for(Option::is_some).await.map_err(|_| Failure::TimedOut)?;
        outcome.clone().unwrap_or(Err(Failure::TimedOut))
    }

    fn start(self: &Rc<Self>, name: &Name, log: &Log) -> watch::Receiver<Option<Outcome>> {
        let (answer, answered) = watch::channel(None);
        self.make_room();
        self.nodes.borrow_mut().insert(name.clone(), Node::Asking(answer.clone()));
        let first = self.turn();
        let question = Question { names: Rc::clone(self), name: name.clone() };
        tokio::task::spawn_local(question.run(first, answer, Rc::clone(log)));
        answered
    }

    /// Forgets answers that are too old and, if that is not enough, the one unused for longest.
    fn make_room(&self) {
        let now = self.now();
        let mut nodes = self.nodes.borrow_mut();
        if nodes.len() < MAX_NAMES {
            return;
        }
        nodes.retain(|_, node| !matches!(node, Node::Known { valid, .. } if *valid < now));
        if nodes.len() < MAX_NAMES {
            return;
        }
        let used = |node: &Node| match node {
            Node::Known { used, .. } => Some(*used),
            Node::Asking(_) => None,
        };
        let oldest = nodes.iter().filter_map(|(name, node)| Some((used(node)?, name))).min_by_key(|(used, _)| *used);
        if let Some(name) = oldest.map(|(_, name)| name.clone()) {
            nodes.remove(&name);
        }
    }
}

/// A question under way. However it ends, its node does not stay.
struct Question {
    names: Rc<Names>,
    name: Name,
}

impl Question {
    /// Asks until there is an answer or nobody waits for one any more.
    async fn run(self, first: usize, answer: watch::Sender<Option<Outcome>>, log: Log) {
        let mut asking = std::pin::pin!(question::ask(&self.names.servers, first, &self.name, &log));
        let outcome = loop {
            tokio::select! {
                outcome = &mut asking => break outcome.map(Rc::new),
                () = answer.closed() => if answer.receiver_count() == 0 { return },
            }
        };
        if let Ok(answer) = &outcome {
            let now = self.names.now();
            let valid = now.saturating_add(self.names.kept(answer));
            let node = Node::Known { answer: Rc::clone(answer), valid, used: now };
            self.names.nodes.borrow_mut().insert(self.name.clone(), node);
        }
        answer.send_replace(Some(outcome));
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let mut nodes = self.names.nodes.borrow_mut();
        if matches!(nodes.get(&self.name), Some(Node::Asking(_))) {
            nodes.remove(&self.name);
        }
    }
}

/// All addresses, IPv4 before IPv6, each family turned by its own number and then all by the first
/// (`ngx_resolver_export`).
fn rotate<A: Copy + Into<IpAddr>, B: Copy + Into<IpAddr>>(
    v4: &[A],
    v6: &[B],
    [all, by4, by6]: [usize; 3],
) -> Vec<IpAddr> {
    let turned4 = v4.iter().cycle().skip(by4 % v4.len().max(1)).take(v4.len()).map(|ip| (*ip).into());
    let turned6 = v6.iter().cycle().skip(by6 % v6.len().max(1)).take(v6.len()).map(|ip| (*ip).into());
    let mut addresses: Vec<IpAddr> = turned4.chain(turned6).collect();
    let all = all % addresses.len().max(1);
    addresses.rotate_right(all);
    addresses
}

/// Three small numbers that nobody can tell before.
fn chance() -> [usize; 3] {
    let random = RandomState::new().build_hasher().finish().to_le_bytes();
    [0, 2, 4].map(|at| usize::from(u16::from_le_bytes([random[at], random[at + 1]])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn names() -> Names {
        Names::new(NameServers { servers: Vec::new(), valid: None, ipv4: true, ipv6: true, zone: None })
    }

    fn name(text: &str) -> Name {
        question::name(text).unwrap()
    }

    fn keep(names: &Names, text: &str, valid: u64, used: u64) {
        let answer = Rc::new(Answer::Addresses { v4: vec![Ipv4Addr::LOCALHOST], v6: Vec::new(), ttl: 1 });
        names.nodes.borrow_mut().insert(name(text), Node::Known { answer, valid, used });
    }

    #[test]
    fn addresses_are_turned_within_their_family_and_then_together() {
        let v4 = [1, 2, 3].map(|last| Ipv4Addr::new(10, 0, 0, last));
        let v6 = [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED];
        let text = |turn| rotate(&v4, &v6, turn).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(text([0, 0, 0]), "10.0.0.1 10.0.0.2 10.0.0.3 ::1 ::");
        assert_eq!(text([0, 1, 0]), "10.0.0.2 10.0.0.3 10.0.0.1 ::1 ::");
        assert_eq!(text([0, 5, 1]), "10.0.0.3 10.0.0.1 10.0.0.2 :: ::1");
        assert_eq!(text([1, 0, 0]), ":: 10.0.0.1 10.0.0.2 10.0.0.3 ::1");
        assert_eq!(rotate(&v4[..1], &v6[..0], [7, 8, 9]), [IpAddr::from(v4[0])]);
    }

    #[test]
    fn an_answer_is_known_in_its_last_second_and_not_after() {
        let names = names();
        keep(&names, "a", 60, 0);
        assert!(names.known(&name("A")).is_some());
        let later = Names { born: Instant::now().checked_sub(std::time::Duration::from_secs(61)).unwrap(), ..names };
        assert!(later.known(&name("a")).is_none());
    }

    #[test]
    fn a_full_memory_forgets_what_is_old_then_what_was_used_longest_ago() {
        let later = |names| Names { born: Instant::now().checked_sub(std::time::Duration::from_secs(100)).unwrap(), ..names };
        let names = later(names());
        (0..MAX_NAMES as u64).for_each(|n| keep(&names, &format!("n{n}"), 1000, 10 + n));
        names.make_room();
        assert_eq!(names.nodes.borrow().len(), MAX_NAMES - 1);
        assert!(!names.nodes.borrow().contains_key(&name("n0")));
        keep(&names, "old", 99, 99);
        keep(&names, "n1", 1000, 10);
        names.make_room();
        assert!(!names.nodes.borrow().contains_key(&name("old")));
        assert!(names.nodes.borrow().contains_key(&name("n1")));
    }

    #[test]
    fn a_question_nobody_waits_for_is_given_up() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let servers = vec![silent.local_addr().unwrap()];
        let names = Rc::new(Names::new(NameServers { servers, valid: None, ipv4: true, ipv6: true, zone: None }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let log: Log = Rc::new(|_| {});
            let mut first = Box::pin(Rc::clone(&names).addresses(name("a"), Rc::clone(&log)));
            let mut second = Box::pin(Rc::clone(&names).addresses(name("a"), log));
            let asking = || names.nodes.borrow().len();
            tokio::select! { biased; _ = &mut first => {}, _ = &mut second => {}, () = tokio::task::yield_now() => {} }
            assert_eq!(asking(), 1);
            drop(first);
            settle().await;
            assert_eq!(asking(), 1);
            drop(second);
            settle().await;
            assert_eq!(asking(), 0);
        });
    }

    /// Lets every other task of the thread have its turns.
    async fn settle() {
        for _ in 0..32 {
            tokio::task::yield_now().await;
        }
    }
}
