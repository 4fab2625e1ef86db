//! One server of an upstream: where it is, what the `server` line says of it, and how it is doing.

use super::{
    health::Health,
    load::Load,
    stats::{Numbers, Stats},
};
pub use crate::config::values::{Address, ip_text};
use md5::{Digest, Md5};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicI64, AtomicU32, Ordering::Relaxed},
};

/// One address that requests can be sent to (`ngx_http_upstream_rr_peer_t`).
#[derive(Debug)]
pub struct Peer {
    /// Position in the group, primary servers first, counted from 0.
    pub id: u32,
    /// As it is logged and shown in `$upstream_addr`: `127.0.0.1:8000`, `[::1]:8000`, `unix:/path`.
    pub name: String,
    /// Where to connect.
    pub address: Address,
    /// The `server` line it comes from; a name with several addresses makes several peers of one line.
    pub line: Arc<ServerLine>,
    /// The line whose name it is an address of, where that is looked up at run time.
    pub(super) found_by: Option<usize>,
    /// It joined while the server ran, and is not written in the configuration.
    pub(super) added: bool,
    /// What is known of it at run time. Set on first use, or taken over from the generation before.
    live: OnceLock<Arc<Live>>,
    sid: OnceLock<Box<[u8]>>,
}

/// The parameters of a `server` line in `upstream {}`, with nginx's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLine {
    /// The server as written: `localhost:8000`.
    pub server: String,
    /// `weight=`: its share of the requests. nginx refuses 0; here 0 counts as 1.
    pub weight: u32,
    /// `max_fails=`: this many failures take it out for `fail_timeout`; 0 never does.
    pub max_fails: u32,
    /// `fail_timeout=` in seconds.
    pub fail_timeout: i64,
    /// `max_conns=`: requests under way at the same time; 0 is no limit.
    pub max_conns: u32,
    /// `backup`: asked only when no primary server can be.
    pub backup: bool,
    /// `down`: never asked.
    pub down: bool,
    /// `drain`: asked by requests that belong to it (`sticky`), and by no others.
    pub drain: bool,
    /// `route=`: what `sticky` knows it by; empty for the MD5 of its name.
    pub route: String,
    /// `slow_start=` in milliseconds: how long it takes to get its whole share again once it has recovered.
    pub slow_start: u64,
}

impl Default for ServerLine {
    fn default() -> Self {
        Self {
            server: String::new(),
            weight: 1,
            max_fails: 1,
            fail_timeout: 10,
            max_conns: 0,
            backup: false,
            down: false,
            drain: false,
            route: String::new(),
            slow_start: 0,
        }
    }
}

/// The state that selection reads and writes. Shared with the same peer of other generations.
#[derive(Debug)]
pub(super) struct Live {
    /// Requests under way (nginx's `conns`). Lowered without the group's lock.
    conns: AtomicU32,
    /// What is known of it by checking it.
    pub(super) health: Health,
    pub(super) current_weight: Guarded,
    pub(super) effective_weight: Guarded,
    /// Failures since it was last found good.
    pub(super) fails: Guarded,
    /// Second of the last failure.
    pub(super) accessed: Guarded,
    /// Second of the last failure or of the probe after it.
    pub(super) checked: Guarded,
    /// How long its answers took; for the methods that mind.
    pub(super) times: Times,
    /// How it recovers; for lines with `slow_start`.
    pub(super) recovery: Recovery,
    /// What it says it has to do; for `least_load`.
    pub(super) load: Load,
    /// What is counted of it; from when it is first asked on, in a group with a `zone`.
    stats: OnceLock<Box<Stats>>,
}

/// How long answers took, in milliseconds: moving averages, and what requests under way add to them
/// (`ngx_http_upstream_least_time_module`).
#[derive(Debug, Default)]
pub(super) struct Times {
    /// Until the head of an answer was there.
    pub(super) header: Guarded,
    /// Until all of it was.
    pub(super) response: Guarded,
    /// What requests under way have taken so far.
    pub(super) inflight: Guarded,
    /// The sum of what they had taken when their number changed last.
    pub(super) inflight_sum: Guarded,
    /// When it changed last.
    pub(super) inflight_changed: Guarded,
    /// Their number.
    pub(super) inflight_count: Guarded,
}

/// `slow_start`: since when, and whether it takes part in the present choice.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// The millisecond it was found good again; 0 when it has its whole share.
    pub(super) since: Guarded,
    /// Its claim to take part, in parts of [`Recovery::WHOLE`].
    claim: Guarded,
    /// It stands back from the present choice.
    rests: Guarded,
}

impl Recovery {
    const WHOLE: i64 = 1024;
}

/// A number that is written only while the group's lock is held, and may be read at any time.
#[derive(Debug, Default)]
pub(super) struct Guarded(AtomicI64);

impl Guarded {
    pub(super) fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }

    pub(super) fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }
}

impl Peer {
    pub(super) fn new(id: u32, line: Arc<ServerLine>, address: Address) -> Self {
        let (name, live, sid) = (address.to_string(), OnceLock::new(), OnceLock::new());
        Self { id, name, address, line, found_by: None, added: false, live, sid }
    }

    /// The same, found by looking up the name of a line.
    pub(super) fn found(id: u32, line: Arc<ServerLine>, address: Address, by: usize) -> Self {
        Self { found_by: Some(by), ..Self::new(id, line, address) }
    }

    /// One that joins while the server runs.
    pub(super) fn added(id: u32, line: Arc<ServerLine>, address: Address) -> Self {
        Self { added: true, ..Self::new(id, line, address) }
    }

    /// The same peer with other parameters. At another address it begins afresh.
    pub(super) fn with_line(&self, line: Arc<ServerLine>, address: Option<Address>) -> Self {
        let moves = address.as_ref().is_some_and(|address| *address != self.address);
        let address = address.unwrap_or_else(|| self.address.clone());
        let (found_by, added) = (self.found_by, self.added);
        let changed = Self { found_by, added, ..Self::new(self.id, line, address) };
        if !moves {
            changed.adopt(self);
        }
        changed
    }

    /// The same peer under another number.
    pub(super) fn with_id(&self, id: u32) -> Self {
        Self { id, ..self.with_line(Arc::clone(&self.line), None) }
    }

    /// The same, of a name at another place.
    pub(super) fn by(self, found_by: Option<usize>) -> Self {
        Self { found_by, ..self }
    }

    /// What `sticky` knows it by: its `route=`, or the MD5 of its name (`ngx_http_upstream_init_round_robin_sid`).
    pub fn sid(&self) -> &[u8] {
        if !self.line.route.is_empty() {
            return self.line.route.as_bytes();
        }
        self.sid.get_or_init(|| {
            let digest = Md5::digest(&self.name);
            digest.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
        })
    }

    /// Requests under way to it, in all generations.
    pub fn active(&self) -> u32 {
        self.live.get().map_or(0, |live| live.conns.load(Relaxed))
    }

    /// Failures since it was last found good.
    pub fn fails(&self) -> i64 {
        self.live.get().map_or(0, |live| live.fails.get())
    }

    /// What is counted of it; `None` where nothing was, yet.
    pub fn stats(&self) -> Option<&Stats> {
        self.live.get().and_then(|live| live.stats.get()).map(|stats| &**stats)
    }

    /// What was counted of it by millisecond `now` since the epoch.
    pub fn numbers(&self, now: u64) -> Numbers {
        self.stats().map(|stats| stats.read(now)).unwrap_or_default()
    }

    /// Where it is counted what it does.
    pub(super) fn counted(&self) -> &Stats {
        self.live().stats.get_or_init(Box::default)
    }

    /// The weight that counts now: lowered by failures, growing back by one at each choice.
    pub fn effective_weight(&self) -> i64 {
        self.live.get().map_or(self.weight(), |live| live.effective_weight.get())
    }

    /// Whether it may be asked at second `now`: not `down`, below `max_conns`, not taken out by failures.
    pub fn is_usable(&self, now: i64) -> bool {
        self.has_room() && !self.is_taken_out(now)
    }

    /// Whether failures keep it out at second `now` (`max_fails`, `fail_timeout`).
    pub fn is_taken_out(&self, now: i64) -> bool {
        let line = &*self.line;
        self.live.get().is_some_and(|live| {
            line.max_fails != 0
                && live.fails.get() >= i64::from(line.max_fails)
                && now - live.checked.get() <= line.fail_timeout
        })
    }

    /// Neither `down` nor held out by checks nor at its `max_conns`: all that is asked of a lone server.
    pub(super) fn has_room(&self) -> bool {
        !self.is_down() && !self.is_held() && self.is_below_max_conns()
    }

    /// What is known of it by checking it, if anything is known of it at all.
    pub(super) fn health(&self) -> Option<&Health> {
        self.live.get().map(|live| &live.health)
    }

    /// Nobody holds it any longer: failures are forgiven, and it gets its whole share bit by bit from millisecond `now`
    /// on.
    pub(super) fn recover(&self, now: u64) {
        let live = self.live();
        live.fails.set(0);
        if self.line.slow_start > 0 {
            live.recovery.since.set(now as i64);
            live.recovery.claim.set(0);
        }
    }

    /// Not for everybody: `down` or `drain`.
    pub(super) fn is_down(&self) -> bool {
        self.line.down || self.line.drain
    }

    fn is_below_max_conns(&self) -> bool {
        self.line.max_conns == 0 || self.active() < self.line.max_conns
    }

    /// Whether a request that belongs to it may ask it at second `now`.
    pub(super) fn is_usable_by_its_own(&self, now: i64) -> bool {
        !self.line.down && !self.is_held() && self.is_below_max_conns() && !self.is_taken_out(now)
    }

    /// The weight of its line, never 0.
    pub(super) fn weight(&self) -> i64 {
        i64::from(self.line.weight.max(1))
    }

    /// What is known of it at run time, if anything is.
    pub(super) fn known(&self) -> Option<&Live> {
        self.live.get().map(|live| &**live)
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        self.live.get_or_init(|| {
            Arc::new(Live {
                conns: AtomicU32::new(0),
                health: Health::default(),
                current_weight: Guarded::default(),
                effective_weight: Guarded(AtomicI64::new(self.weight())),
                fails: Guarded::default(),
                accessed: Guarded::default(),
                checked: Guarded::default(),
                times: Times::default(),
                recovery: Recovery::default(),
                load: Load::default(),
                stats: OnceLock::new(),
            })
        })
    }

    /// Shares the state of `previous` from now on. Says whether it could: not when it has a state already.
    pub(super) fn adopt(&self, previous: &Self) -> bool {
        self.live.set(Arc::clone(previous.live())).is_ok()
    }

    /// One round of smooth weighting: returns what it adds to the total.
    pub(super) fn weigh(&self) -> i64 {
        let live = self.live();
        let effective = live.effective_weight.get();
        live.current_weight.set(live.current_weight.get() + effective);
        if effective < self.weight() {
            live.effective_weight.set(effective + 1);
        }
        effective
    }

    /// Once `fail_timeout` is over, being chosen is a probe: others keep away from it meanwhile.
    pub(super) fn probe(&self, now: i64) {
        let checked = &self.live().checked;
        if now - checked.get() > self.line.fail_timeout {
            checked.set(now);
        }
    }

    /// Counts a failure at second `now`; says whether it is taken out by it.
    pub(super) fn fail(&self, now: i64) -> bool {
        let (live, line) = (self.live(), &*self.line);
        let fails = live.fails.get() + 1;
        live.fails.set(fails);
        live.accessed.set(now);
        live.checked.set(now);
        if line.max_fails == 0 {
            return false;
        }
        let lowered = live.effective_weight.get() - self.weight() / i64::from(line.max_fails);
        live.effective_weight.set(lowered.max(0));
        fails >= i64::from(line.max_fails)
    }

    /// It answered: failures before the last probe are forgiven. If they had taken it out, it recovers from
    /// millisecond `now` on.
    pub(super) fn forgive(&self, now: u64) {
        let live = self.live();
        if self.line.slow_start > 0 && self.line.max_fails > 0 && live.fails.get() >= i64::from(self.line.max_fails) {
            live.recovery.since.set(now as i64);
            live.recovery.claim.set(0);
        }
        live.fails.set(0);
    }

    /// While it recovers it takes part in every so many choices only, in more and more of them: settles whether it does
    /// in the one at millisecond `now`.
    pub(super) fn pace(&self, now: u64) {
        let recovery = &self.live().recovery;
        let since = recovery.since.get();
        let rests = since != 0 && {
            let gone = (now as i64).saturating_sub(since).max(0);
            let whole = self.line.slow_start as i64;
            if gone >= whole {
                recovery.since.set(0);
                false
            } else {
                let claim = recovery.claim.get() + gone * Recovery::WHOLE / whole.max(1);
                let takes_part = claim >= Recovery::WHOLE;
                recovery.claim.set(if takes_part { claim - Recovery::WHOLE } else { claim });
                !takes_part
            }
        };
        recovery.rests.set(i64::from(rests));
    }

    /// Whether it stands back from the present choice.
    pub(super) fn rests(&self) -> bool {
        self.line.slow_start > 0 && self.live().recovery.rests.get() != 0
    }

    /// Takes part in the present choice after all: there is nobody else.
    pub(super) fn wake(&self) {
        self.live().recovery.rests.set(0);
    }

    pub(super) fn begin_request(&self) {
        self.live().conns.fetch_add(1, Relaxed);
    }

    pub(super) fn end_request(&self) {
        self.live().conns.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_named_as_nginx_logs_it() {
        for (address, name) in [
            (Address::Tcp("127.0.0.1:8000".parse().unwrap()), "127.0.0.1:8000"),
            (Address::Tcp("[0:0::1]:80".parse().unwrap()), "[::1]:80"),
            (Address::Tcp("[fe80::1%3]:80".parse().unwrap()), "[fe80::1]:80"),
            (Address::Unix("/run/app.sock".into()), "unix:/run/app.sock"),
        ] {
            assert_eq!(Peer::new(0, Arc::default(), address).name, name);
        }
    }

    #[test]
    fn ipv6_is_written_as_nginx_writes_it() {
        for (address, text) in [
            ("::", "::"),
            ("::1", "::1"),
            ("::102", "::0.0.1.2"),
            ("::101", "::101"),
            ("::7f00:1", "::127.0.0.1"),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
            ("2001:db8:0:1:0:0:0:2", "2001:db8:0:1::2"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(ip_text(address.parse().unwrap()), text);
        }
    }

    #[test]
    fn a_server_line_has_nginx_defaults() {
        let line = ServerLine::default();
        assert_eq!((line.weight, line.max_fails, line.fail_timeout, line.max_conns), (1, 1, 10, 0));
        assert!(!line.backup && !line.down && !line.drain && line.route.is_empty() && line.slow_start == 0);
    }

    #[test]
    fn a_peer_is_known_by_its_route_or_else_by_the_md5_of_its_name() {
        let peer = |route: &str| {
            let line = ServerLine { route: route.into(), ..ServerLine::default() };
            Peer::new(0, Arc::new(line), Address::Tcp("127.0.0.1:8081".parse().unwrap()))
        };
        assert_eq!(peer("a").sid(), b"a");
        assert_eq!(peer("").sid(), b"df2b80dc43705d28db9be6f29fe58da3");
    }

    #[test]
    fn a_peer_with_slow_start_takes_part_more_and_more_often() {
        let line = ServerLine { slow_start: 1000, ..ServerLine::default() };
        let peer = Peer::new(0, Arc::new(line), Address::Unix("/a".into()));
        let part = |from: u64| {
            let takes = |now: &u64| {
                peer.pace(*now);
                !peer.rests()
            };
            (from..from + 100).filter(takes).count()
        };
        assert_eq!(part(0), 100, "it never failed");
        peer.fail(0);
        peer.forgive(10_000);
        assert_eq!([10_000, 10_250, 10_500, 10_900].map(part), [4, 30, 55, 95]);
        assert_eq!(part(11_000), 100);
    }

    #[test]
    fn a_failure_lowers_the_weight_by_its_share_and_never_below_zero() {
        let line = ServerLine { weight: 5, max_fails: 2, ..ServerLine::default() };
        let peer = Peer::new(0, Arc::new(line), Address::Unix("/a".into()));
        let after: Vec<_> = (0..4).map(|now| (peer.fail(now), peer.effective_weight())).collect();
        assert_eq!(after, [(false, 3), (true, 1), (true, 0), (true, 0)]);
    }

    #[test]
    fn a_peer_is_out_until_strictly_more_than_fail_timeout_has_passed() {
        let peer = Peer::new(0, Arc::default(), Address::Unix("/a".into()));
        assert!(peer.fail(100));
        assert_eq!([100, 109, 110, 111].map(|now| peer.is_usable(now)), [false, false, false, true]);
    }
}
