//! What checks make of a peer: a plain state machine. It opens no socket and looks at no clock: whoever checks tells it what
//! came of a check, and when.

use std::sync::Arc;

/// One check of a group, as far as its outcomes are judged (`health_check`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What it is known by, in this generation and the next.
    pub name: Arc<str>,
    /// `fails=`: so many in a row make a peer unhealthy.
    pub fails: u32,
    /// `passes=`: so many in a row make it healthy.
    pub passes: u32,
    /// `mandatory`: until then nobody knows, and it is not asked.
    pub mandatory: bool,
    /// `mandatory persistent`: what was healthy before a reload is so behind it.
    pub persistent: bool,
}

/// What a check thinks of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Healthy,
    /// Nothing is known yet, and something has to be.
    Checking,
    Unhealthy,
}

/// What all checks of a peer have come to; for the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were made.
    pub checks: u64,
    /// How many of them failed.
    pub fails: u64,
    /// How often the peer became unhealthy.
    pub unhealthy: u64,
    /// Whether the last one passed; `None` before the first.
    pub last_passed: Option<bool>,
    /// When the last one ended, in milliseconds since the epoch; 0 before the first.
    pub last_at: u64,
    /// Why the last one that failed did so; empty before that, and once one has passed.
    pub why: String,
}

/// One check's view of one peer.
#[derive(Clone, Debug)]
struct Course {
    name: Arc<str>,
    verdict: Verdict,
    /// Passes and failures in a row: one of them is 0.
    row: (u32, u32),
}

/// One peer and everything that checks it.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    courses: Vec<Course>,
    pub tally: Tally,
}

impl Machine {
    /// A generation with these checks begins, or the peer joins a group that has them. What is known of a check that was
    /// there before stays, unless it is `mandatory` without being `persistent`: then it has to be found out anew.
    pub fn begin(&mut self, checks: &[Terms]) {
        let earlier = std::mem::take(&mut self.courses);
        let course = |terms: &Terms| {
            let known = earlier.iter().find(|course| course.name == terms.name);
            let fresh = if terms.mandatory { Verdict::Checking } else { Verdict::Healthy };
            match known {
                Some(known) if !terms.mandatory => known.clone(),
                Some(known) if terms.persistent && known.verdict == Verdict::Healthy => known.clone(),
                _ => Course { name: Arc::clone(&terms.name), verdict: fresh, row: (0, 0) },
            }
        };
        self.courses = checks.iter().map(course).collect();
    }

    /// A check has ended at millisecond `now`; `why` is empty if it passed. Says what the check thinks from now on, where
    /// that is something else than before.
    pub fn note(&mut self, terms: &Terms, why: &str, now: u64) -> Option<Verdict> {
        let passed = why.is_empty();
        let before = self.verdict();
        self.tally.checks += 1;
        self.tally.fails += u64::from(!passed);
        self.tally.last_passed = Some(passed);
        self.tally.last_at = now;
        self.tally.why.clear();
        self.tally.why.push_str(why);
        let course = self.courses.iter_mut().find(|course| course.name == terms.name)?;
        let (wanted, needed) =
            if passed { (Verdict::Healthy, terms.passes) } else { (Verdict::Unhealthy, terms.fails) };
        let (passes, fails) = course.row;
        course.row = if passed { (passes.saturating_add(1), 0) } else { (0, fails.saturating_add(1)) };
        let enough = if passed { course.row.0 } else { course.row.1 } >= needed.max(1);
        if course.verdict == wanted || !enough {
            return None;
        }
        course.verdict = wanted;
        if before != Verdict::Unhealthy && self.verdict() == Verdict::Unhealthy {
            self.tally.unhealthy += 1;
        }
        Some(wanted)
    }

    /// What all of them together think: one that says no is enough.
    pub fn verdict(&self) -> Verdict {
        let any = |verdict| self.courses.iter().any(|course| course.verdict == verdict);
        if any(Verdict::Unhealthy) {
            Verdict::Unhealthy
        } else if any(Verdict::Checking) {
            Verdict::Checking
        } else {
            Verdict::Healthy
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms(name: &str, fails: u32, passes: u32, mandatory: bool, persistent: bool) -> Terms {
        Terms { name: name.into(), fails, passes, mandatory, persistent }
    }

    /// What the verdicts are after each outcome, `+` or `-`: `h`, `c`, `u`.
    fn verdicts(terms: &Terms, outcomes: &str) -> String {
        let mut machine = Machine::default();
        machine.begin(std::slice::from_ref(terms));
        outcomes.chars().map(|outcome| step(&mut machine, terms, outcome == '+')).collect()
    }

    fn step(machine: &mut Machine, terms: &Terms, passed: bool) -> char {
        machine.note(terms, if passed { "" } else { "why" }, 7);
        letter(machine.verdict())
    }

    fn letter(verdict: Verdict) -> char {
        match verdict {
            Verdict::Healthy => 'h',
            Verdict::Checking => 'c',
            Verdict::Unhealthy => 'u',
        }
    }

    #[test]
    fn failures_in_a_row_make_a_peer_unhealthy_and_passes_in_a_row_make_it_healthy() {
        for (fails, passes, mandatory, outcomes, expected) in [
            (1, 1, false, "+-+--+", "huhuuh"),
            (2, 1, false, "-+--+-", "hhhuhh"),
            (1, 3, false, "-++-+++", "uuuuuuh"),
            (1, 1, true, "+-", "hu"),
            (1, 1, true, "-+", "uh"),
            (2, 2, true, "+-+-++--", "ccccchhu"),
            (0, 0, false, "-+", "uh"),
        ] {
            let terms = terms("a", fails, passes, mandatory, false);
            assert_eq!(verdicts(&terms, outcomes), expected, "{fails} {passes} {mandatory} {outcomes}");
        }
    }

    #[test]
    fn one_check_that_says_no_is_enough_and_all_mandatory_ones_must_say_yes() {
        let (one, two) = (terms("1", 1, 1, true, false), terms("2", 1, 1, true, false));
        let mut machine = Machine::default();
        machine.begin(&[one.clone(), two.clone()]);
        let seen: String = [(&one, true), (&two, true), (&two, false), (&one, false), (&two, true), (&one, true)]
            .map(|(check, passed)| step(&mut machine, check, passed))
            .iter()
            .collect();
        assert_eq!(seen, "chuuuh");
        assert_eq!((machine.tally.checks, machine.tally.fails, machine.tally.unhealthy), (6, 2, 1));
    }

    #[test]
    fn a_reload_keeps_what_is_known_unless_the_check_is_mandatory_and_not_persistent() {
        for (mandatory, persistent, before, after) in [
            (false, false, true, Verdict::Healthy),
            (false, false, false, Verdict::Unhealthy),
            (true, false, true, Verdict::Checking),
            (true, false, false, Verdict::Checking),
            (true, true, true, Verdict::Healthy),
            (true, true, false, Verdict::Checking),
        ] {
            let terms = terms("a", 1, 1, mandatory, persistent);
            let mut machine = Machine::default();
            machine.begin(std::slice::from_ref(&terms));
            step(&mut machine, &terms, before);
            machine.begin(std::slice::from_ref(&terms));
            assert_eq!(machine.verdict(), after, "{mandatory} {persistent} {before}");
            machine.begin(&[]);
            assert_eq!(machine.verdict(), Verdict::Healthy, "nobody checks it any more");
        }
    }

    #[test]
    fn a_check_that_belongs_to_no_course_is_counted_and_changes_nothing() {
        let mut machine = Machine::default();
        assert_eq!(machine.note(&terms("gone", 1, 1, false, false), "why", 7), None);
        assert_eq!((machine.tally.fails, machine.verdict()), (1, Verdict::Healthy));
        assert_eq!((&*machine.tally.why, machine.tally.last_passed), ("why", Some(false)));
    }

    /// The rule as it is documented, over the whole history of one check.
    fn reference(terms: &Terms, history: &[bool]) -> Verdict {
        let mut verdict = if terms.mandatory { Verdict::Checking } else { Verdict::Healthy };
        for end in 1..=history.len() {
            let last = history[end - 1];
            let row = history[..end].iter().rev().take_while(|passed| **passed == last).count() as u32;
            if last && row >= terms.passes {
                verdict = Verdict::Healthy;
            } else if !last && row >= terms.fails {
                verdict = Verdict::Unhealthy;
            }
        }
        verdict
    }

    proptest! {
        #[test]
        fn any_history_of_any_checks_is_judged_by_the_rule(
            settings in proptest::collection::vec((1..4_u32, 1..4_u32, any::<bool>()), 1..4),
            history in proptest::collection::vec((0..3_usize, any::<bool>()), 0..60),
        ) {
            let settings = settings.iter().enumerate();
            let checks: Vec<_> = settings.map(|(at, (f, p, m))| terms(&at.to_string(), *f, *p, *m, false)).collect();
            let mut machine = Machine::default();
            machine.begin(&checks);
            let mut histories = vec![Vec::new(); checks.len()];
            let mut unhealthy = 0;
            for (at, passed) in history {
                let (at, before) = (at % checks.len(), machine.verdict());
                histories[at].push(passed);
                let told = machine.note(&checks[at], if passed { "" } else { "why" }, 7);
                let now = reference(&checks[at], &histories[at]);
                let past = &histories[at][..histories[at].len() - 1];
                let was = reference(&checks[at], past);
                prop_assert_eq!(told, (now != was).then_some(now));
                let all: Vec<_> = checks.iter().zip(&histories).map(|(check, past)| reference(check, past)).collect();
                let expected = if all.contains(&Verdict::Unhealthy) {
                    Verdict::Unhealthy
                } else if all.contains(&Verdict::Checking) {
                    Verdict::Checking
                } else {
                    Verdict::Healthy
                };
                prop_assert_eq!(machine.verdict(), expected);
                unhealthy += u64::from(before != Verdict::Unhealthy && expected == Verdict::Unhealthy);
                prop_assert_eq!(machine.tally.unhealthy, unhealthy);
            }
        }
    }
}
