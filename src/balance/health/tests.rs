//! What is made of evidence, at times that the tests hand in.

use super::*;
use std::cell::Cell;

const SLOW: Duration = Duration::from_secs(10);
const PASSIVE: PassiveHealth = PassiveHealth {
    enabled: true,
    failures: 3,
    shortest_ejection: Duration::from_secs(1),
    longest_ejection: Duration::from_secs(6),
    stall_in_flight: 8,
    stall: Duration::from_millis(500),
};

/// A backend's health, and a clock that stands where it is put.
struct Scene {
    health: Arc<Health>,
    start: Instant,
    ms: Cell<u64>,
}

impl Scene {
    fn new() -> Scene {
        let start = Instant::now();
        Scene { health: Arc::new(Health::new(start)), start, ms: Cell::new(0) }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms.get())
    }

    fn at(&self, ms: u64) -> &Scene {
        self.ms.set(ms);
        self
    }

    fn standing(&self) -> Standing {
        self.health.standing(self.now(), SLOW)
    }

    fn fail(&self, failure: Failure) -> Option<Flip> {
        self.health.failed(failure, None, self.now(), &PASSIVE, |_| true)
    }

    fn fail_trial(&self, failure: Failure) -> Option<Flip> {
        let trial = self.health.claim_trial(self.now()).expect("a trial is due");
        self.health.failed(failure, Some(trial), self.now(), &PASSIVE, |_| true)
    }

    fn answer(&self) -> Option<Flip> {
        self.health.answered(None, self.now())
    }

    fn refused(self) -> Scene {
        for _ in 0..3 {
            self.fail(Failure::Refused);
        }
        assert!(matches!(self.standing(), Standing::Ejected(Why::Refused, _)), "{:?}", self.standing());
        self
    }

    fn stall(&self, awaited: usize) -> Option<Flip> {
        self.health.stalled(self.now(), awaited, &PASSIVE, |_| true)
    }

    /// Requests come that find so many unanswered.
    fn enters(&self, ms: u64, before: std::ops::Range<usize>) {
        before.for_each(|awaited| self.at(ms).health.entered(self.now(), awaited));
    }

    /// A tick finds so many unanswered.
    fn finds(&self, ms: u64, awaited: usize) {
        self.at(ms).health.note_awaited(self.now(), awaited);
    }

    fn check(&self, is_good: bool) -> Option<Flip> {
        let evidence = "GET / answered".to_owned();
        let verdict = if is_good { Verdict::Good(evidence) } else { Verdict::Bad(evidence) };
        self.health.checked(&verdict, self.now(), &ActiveHealth::default())
    }
}

fn length(flip: Option<Flip>) -> Duration {
    match flip {
        Some(Flip::Ejected { length, .. }) => length,
        other => panic!("no ejection but {other:?}"),
    }
}

fn is_in(standing: Standing) -> bool {
    matches!(standing, Standing::In { .. })
}

#[test]
fn three_failures_in_a_row_eject_and_the_evidence_is_said_once() {
    let rows = [
        ([Failure::Refused; 3], Why::Refused, "ejected for 1s: 3 connections in a row were refused"),
        ([Failure::NoAnswer; 3], Why::NoAnswer, "ejected for 1s: 3 requests in a row were not answered"),
        (
            [Failure::Refused, Failure::NoAnswer, Failure::Refused],
            Why::NoAnswer,
            "ejected for 1s: 3 requests in a row were not answered",
        ),
    ];
    for (failures, why, words) in rows {
        let scene = Scene::new();
        assert_eq!((scene.fail(failures[0]), scene.fail(failures[1])), (None, None), "{words}");
        assert_eq!(scene.standing(), Standing::In { share: 1.0 }, "{words}");
        assert_eq!(scene.fail(failures[2]).map(|flip| flip.to_string()).as_deref(), Some(words));
        assert_eq!(scene.standing(), Standing::Ejected(why, scene.now() + Duration::from_secs(1)), "{words}");
        assert!(scene.health.is_out());
        assert_eq!(scene.fail(failures[2]), None, "the fourth tells nothing new");
    }
}

#[test]
fn where_one_failure_is_enough_it_is_told_as_one() {
    let settings = PassiveHealth { failures: 1, ..PASSIVE };
    for (failure, words) in [
        (Failure::Refused, "ejected for 1s: a connection was refused"),
        (Failure::NoAnswer, "ejected for 1s: a request was not answered"),
    ] {
        let scene = Scene::new();
        let flip = scene.health.failed(failure, None, scene.now(), &settings, |_| true);
        assert_eq!(flip.map(|flip| flip.to_string()).as_deref(), Some(words));
    }
}

#[test]
fn an_answer_after_a_trial_that_failed_for_another_reason_makes_the_next_ejection_short_again() {
    let scene = Scene::new();
    scene.health.entered(scene.now(), 0);
    assert_eq!(length(scene.at(600).stall(8)), Duration::from_secs(1));
    let trial = scene.at(1600).health.claim_trial(scene.now()).unwrap();
    let flip = scene.health.failed(Failure::NoAnswer, Some(trial), scene.now(), &PASSIVE, |_| false);
    assert!(matches!(flip, Some(Flip::Readmitted { .. })), "{flip:?}");
    scene.answer();
    assert_eq!(length(scene.at(2600).stall(8)), Duration::from_secs(1));
}

#[test]
fn an_answer_in_between_forgives_the_failures_before_it() {
    let scene = Scene::new();
    for _ in 0..5 {
        assert_eq!((scene.fail(Failure::Refused), scene.fail(Failure::NoAnswer)), (None, None));
        assert_eq!(scene.answer(), None);
    }
    assert!(is_in(scene.standing()));
    assert_eq!(scene.health.word.load(Ordering::Relaxed), 0, "and nothing is left to look at");
}

#[test]
fn the_caller_may_forbid_an_ejection_and_is_asked_again_with_the_next_failure() {
    let scene = Scene::new();
    let mut asked = Vec::new();
    let failures = [Failure::NoAnswer, Failure::NoAnswer, Failure::NoAnswer, Failure::Refused, Failure::Refused];
    for failure in failures.into_iter().chain([Failure::Refused]) {
        scene.health.failed(failure, None, scene.now(), &PASSIVE, |failure| {
            asked.push(failure);
            failure == Failure::Refused
        });
    }
    let expected = [Failure::NoAnswer, Failure::NoAnswer, Failure::NoAnswer, Failure::Refused];
    assert_eq!(asked, expected, "three refusals in a row are refusals, whatever came before");
    assert!(matches!(scene.standing(), Standing::Ejected(Why::Refused, _)), "{:?}", scene.standing());
}

#[test]
fn passive_evidence_that_is_turned_off_ejects_nobody_and_forgives_who_is_out() {
    let off = PassiveHealth { enabled: false, ..PASSIVE };
    let scene = Scene::new();
    for _ in 0..9 {
        assert_eq!(scene.health.failed(Failure::Refused, None, scene.now(), &off, |_| true), None);
    }
    scene.at(9000);
    assert_eq!(scene.health.stalled(scene.now(), 99, &off, |_| true), None);
    assert!(is_in(scene.standing()));
    let scene = scene.refused();
    assert!(matches!(scene.health.forgive(scene.now()), Some(Flip::Readmitted { .. })));
    assert!(is_in(scene.standing()));
    assert_eq!(scene.health.forgive(scene.now()), None);
}

#[test]
fn each_ejection_without_an_answer_in_between_is_twice_as_long_up_to_the_longest() {
    let scene = Scene::new().refused();
    let mut lengths = Vec::new();
    for _ in 0..4 {
        lengths.push(length(scene.at(scene.ms.get() + 6000).fail_trial(Failure::Refused)).as_secs());
    }
    assert_eq!(lengths, [2, 4, 6, 6]);
    let trial = scene.at(scene.ms.get() + 6000).health.claim_trial(scene.now()).unwrap();
    let flip = scene.health.answered(Some(trial), scene.now()).unwrap();
    assert_eq!(flip.to_string(), "readmitted after 30s: it answered its trial");
    let scene = scene.refused();
    let Standing::Ejected(_, until) = scene.standing() else { panic!("{:?}", scene.standing()) };
    assert_eq!(until - scene.now(), Duration::from_secs(1), "an answer makes the first one short again");
}

#[test]
fn exactly_one_request_gets_the_trial_and_not_before_it_is_due() {
    let scene = Scene::new().refused();
    assert!(scene.at(999).health.claim_trial(scene.now()).is_none());
    assert_eq!(scene.at(1000).standing(), Standing::TrialDue);
    let (now, health) = (scene.now(), &scene.health);
    let claims: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| health.claim_trial(now))).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(claims.len(), 1);
    assert!(matches!(scene.standing(), Standing::Ejected(Why::Refused, _)), "while it is under way");
}

#[test]
fn a_healthy_backend_has_no_trials() {
    assert!(Scene::new().health.claim_trial(Instant::now()).is_none());
}

#[test]
fn a_trial_that_tells_nothing_goes_to_the_next_request() {
    let scene = Scene::new().refused();
    let trial = scene.at(1000).health.claim_trial(scene.now()).unwrap();
    drop(trial); // its client left
    assert_eq!(scene.standing(), Standing::TrialDue);
    assert!(scene.health.claim_trial(scene.now()).is_some());
}

#[test]
fn a_trial_without_end_is_superseded_but_its_answer_still_counts() {
    let scene = Scene::new().refused();
    let first = scene.at(1000).health.claim_trial(scene.now()).unwrap();
    scene.at(1000 + state::TRIAL_PATIENCE - 1);
    assert!(scene.health.claim_trial(scene.now()).is_none());
    scene.at(1000 + state::TRIAL_PATIENCE);
    let second = scene.health.claim_trial(scene.now()).unwrap();
    let third = scene.at(2000 + 2 * state::TRIAL_PATIENCE).health.claim_trial(scene.now()).unwrap();
    assert_eq!(scene.health.failed(Failure::NoAnswer, Some(first), scene.now(), &PASSIVE, |_| true), None);
    assert!(scene.health.answered(Some(second), scene.now()).is_some());
    drop(third);
    assert!(is_in(scene.standing()));
}

#[test]
fn a_late_answer_to_an_older_request_is_no_trial() {
    let scene = Scene::new().refused();
    assert_eq!(scene.answer(), None);
    assert!(scene.health.is_out());
}

#[test]
fn a_last_resort_readmits_or_changes_nothing() {
    let scene = Scene::new().refused();
    let before = scene.standing();
    let resort = scene.health.last_resort();
    assert_eq!(scene.health.failed(Failure::Refused, Some(resort), scene.now(), &PASSIVE, |_| true), None);
    drop(scene.health.last_resort());
    assert_eq!(scene.standing(), before);
    let resort = scene.health.last_resort();
    assert!(matches!(scene.health.answered(Some(resort), scene.now()), Some(Flip::Readmitted { .. })));
}

#[test]
fn a_trial_that_connects_but_is_not_answered_keeps_it_out_only_if_that_is_allowed() {
    for is_allowed in [true, false] {
        let scene = Scene::new().refused();
        let trial = scene.at(1000).health.claim_trial(scene.now()).unwrap();
        let flip =
            scene.health.failed(Failure::NoAnswer, Some(trial), scene.now(), &PASSIVE, |failure| match failure {
                Failure::Refused => true,
                Failure::NoAnswer => is_allowed,
            });
        assert_eq!(matches!(flip, Some(Flip::Ejected { why: Why::NoAnswer, .. })), is_allowed, "{flip:?}");
        assert_eq!(scene.health.is_out(), is_allowed);
    }
}

#[test]
fn a_backend_that_comes_back_gets_its_share_by_and_by() {
    let scene = Scene::new().refused();
    let trial = scene.at(1000).health.claim_trial(scene.now()).unwrap();
    scene.health.answered(Some(trial), scene.now());
    for (ms, percent) in [(1000, 10.0), (6000, 55.0), (10_999, 99.991), (11_000, 100.0), (12_000, 100.0)] {
        let Standing::In { share } = scene.at(ms).standing() else { panic!("{:?}", scene.standing()) };
        assert!((share * 100.0 - percent).abs() < 1e-6, "{share} at {ms} ms");
    }
    assert_eq!(scene.health.word.load(Ordering::Relaxed), 0, "and then it is as if nothing had been");
    assert_eq!(scene.at(1001).health.standing(scene.now(), Duration::ZERO), Standing::In { share: 1.0 });
    assert_eq!(Scene::new().standing(), Standing::In { share: 1.0 }, "not when the process starts");
}

#[test]
fn a_backend_that_answers_none_of_many_gets_no_more() {
    // When it last answered, how many wait, and when: does it stall?
    let rows = [
        (0, 8, 499, false),
        (0, 8, 500, true),
        (0, 7, 9000, false),
        // With more, sooner; but not at once.
        (0, 16, 249, false),
        (0, 16, 250, true),
        (0, 32, 125, true),
        (0, 1000, 124, false),
        (400, 8, 899, false),
        (400, 8, 900, true),
    ];
    for (answered, awaited, ms, stalls) in rows {
        let scene = Scene::new();
        scene.at(answered).answer();
        let flip = scene.at(ms).stall(awaited);
        assert_eq!(flip.is_some(), stalls, "{awaited} wait at {ms}");
        assert_eq!(matches!(scene.standing(), Standing::Ejected(Why::Stalled, _)), stalls, "{awaited} at {ms}");
        assert_eq!(scene.stall(awaited), None, "said once");
    }
    let scene = Scene::new();
    let words = scene.at(600).stall(9).unwrap().to_string();
    assert_eq!(words, "ejected for 1s: 9 requests wait, and none was answered for 600ms");
}

#[test]
fn silence_counts_from_when_it_got_something_to_do() {
    let scene = Scene::new();
    scene.at(60_000).health.entered(scene.now(), 0);
    assert_eq!(scene.at(60_400).stall(8), None);
    scene.health.entered(scene.now(), 3); // it was not idle then, so this renews nothing
    assert!(scene.at(60_500).stall(8).is_some());
}

#[test]
fn the_silence_of_many_counts_from_when_they_were_many() {
    let scene = Scene::new();
    scene.enters(0, 0..1); // slow, and well
    scene.enters(60_000, 1..40);
    assert_eq!((scene.at(60_001).stall(40), scene.at(60_124).stall(40)), (None, None));
    scene.answer();
    // All but two are answered. One more comes, and more by and by.
    scene.enters(70_000, 2..7);
    scene.enters(80_000, 7..8);
    assert_eq!(scene.at(80_499).stall(8), None);
    // Some leave without an answer, and others come.
    scene.enters(80_499, 5..8);
    scene.enters(80_500, 7..9);
    assert!(scene.at(80_500).stall(9).is_some(), "it has been silent all the time");
    let passive = PassiveHealth { stall_in_flight: 2, ..PASSIVE };
    let scene = Scene::new();
    scene.health.heed(&passive, scene.now());
    scene.health.entered(scene.now(), 0);
    scene.at(9000).health.entered(scene.now(), 1);
    let has_stalled = |ms| scene.health.has_stalled(scene.at(ms).now(), 2, &passive);
    assert_eq!([9499, 9500].map(has_stalled), [false, true]);
}

#[test]
fn a_crowd_that_left_long_ago_does_not_count_for_the_next() {
    // When ticks find one left of eight, when seven come again, and since when it is silent then.
    let rows: [(&[u64], u64, u64); 5] = [
        (&[1050, 1150, 1250, 1350, 1450], 1550, 1550),
        (&[1050, 3950], 4000, 4000),
        (&[1050, 1150, 1250, 1350, 1450], 1549, 1000),
        (&[1050], 1060, 1000),
        (&[], 1060, 1000),
    ];
    for (ticks, ms, since) in rows {
        let scene = Scene::new();
        scene.enters(10, 0..1); // slow, and well
        scene.enters(1000, 1..8);
        ticks.iter().for_each(|tick| scene.finds(*tick, 1));
        scene.enters(ms, 1..8);
        let has_stalled = |ms| scene.health.has_stalled(scene.at(ms).now(), 8, &PASSIVE);
        assert_eq!([since + 499, since + 500].map(has_stalled), [false, true], "{ticks:?}, and at {ms} others");
    }
}

#[test]
fn a_backend_is_not_hidden_by_clients_that_leave_and_come() {
    let scene = Scene::new();
    scene.enters(10, 0..8);
    for ms in (100..10_000).step_by(300) {
        scene.finds(ms, 7);
        scene.finds(ms + 100, 7);
        scene.enters(ms + 200, 7..8);
        let has_stalled = scene.health.has_stalled(scene.now(), 8, &PASSIVE);
        assert_eq!(has_stalled, ms + 200 >= 510, "{ms}");
    }
    // Nor by one who leaves after all have stayed for long.
    scene.finds(11_000, 8);
    scene.finds(20_000, 7);
    scene.enters(20_001, 7..8);
    assert!(scene.stall(8).is_some());
}

#[test]
fn the_silence_of_many_goes_on_though_they_came_to_an_idle_backend_in_one_moment() {
    let scene = Scene::new();
    scene.enters(10, 0..8);
    scene.enters(409, 7..8); // one has left, another comes
    assert!(scene.at(510).stall(8).is_some(), "none was answered for 500 ms");
    let scene = Scene::new();
    scene.enters(10, 0..8);
    scene.answer(); // in the same moment
    scene.enters(409, 7..8);
    assert_eq!(scene.at(908).stall(8), None);
}

#[test]
fn who_are_many_by_a_new_number_have_become_so_with_it() {
    let scene = Scene::new();
    let fewer = PassiveHealth { stall_in_flight: 4, ..PASSIVE };
    let has_stalled = |ms, awaited| scene.health.has_stalled(scene.at(ms).now(), awaited, &fewer);
    scene.enters(10, 0..4); // slow, and well
    scene.at(60_000).health.heed(&fewer, scene.now());
    assert_eq!([60_499, 60_500].map(|ms| has_stalled(ms, 4)), [false, true]);
    scene.at(60_600).health.heed(&PASSIVE, scene.now());
    scene.at(61_000).health.heed(&fewer, scene.now());
    // Were they fewer than that, the first who come are another crowd.
    scene.enters(61_400, 3..4);
    assert_eq!([61_899, 61_900].map(|ms| has_stalled(ms, 4)), [false, true]);
    scene.at(62_000).health.heed(&fewer, scene.now());
    assert!(has_stalled(62_000, 4), "the same number changes nothing");
}

#[test]
fn a_backend_whose_every_answer_takes_long_does_not_stall_in_that_time() {
    let scene = Scene::new();
    scene.at(700).health.note_latency(Duration::from_millis(600), scene.now());
    scene.answer();
    assert_eq!((scene.at(1899).stall(8), scene.stall(1000)), (None, None));
    assert!(scene.at(1900).stall(8).is_some(), "twice as long, and no answer");
    let scene = Scene::new();
    for took in [900, 2, 700] {
        scene.at(700).health.note_latency(Duration::from_millis(took), scene.now());
    }
    scene.answer();
    assert!(scene.at(1200).stall(8).is_some(), "one that can be fast is judged by that");
}

#[test]
fn a_backend_that_stalls_again_and_again_does_not_fill_the_log() {
    let scene = Scene::new();
    let is_news = |flip: Option<Flip>| match flip {
        Some(Flip::Ejected { is_news, .. } | Flip::Readmitted { is_news, .. }) => is_news,
        other => panic!("{other:?}"),
    };
    for nth in 0..12 {
        let ms = 1000 * nth;
        let (begins, ends) = (scene.at(ms + 500).stall(8), scene.at(ms + 700).answer());
        assert_eq!((is_news(begins), is_news(ends)), (nth < 5, nth < 5), "{nth}");
    }
    let told = scene.at(60_500).stall(9).map(|flip| flip.to_string());
    let words = "ejected for 1s: 9 requests wait, and none was answered for 48.8s; 7 stalls went untold";
    assert_eq!(told.as_deref(), Some(words));
    // Whatever else happens is told, once.
    assert!(is_news(scene.at(61_500).fail_trial(Failure::Refused)));
    assert!(!is_news(scene.at(63_500).fail_trial(Failure::Refused)));
    assert!(is_news(scene.at(67_500).fail_trial(Failure::NoAnswer)), "another reason");
    let trial = scene.at(75_500).health.claim_trial(scene.now()).unwrap();
    assert!(is_news(scene.health.answered(Some(trial), scene.now())));
}

#[test]
fn any_answer_ends_a_stall_at_once() {
    let scene = Scene::new();
    assert!(scene.at(500).stall(8).is_some());
    let flip = scene.at(600).answer().unwrap();
    assert_eq!(flip.to_string(), "readmitted after 100ms: it answers again");
    assert_eq!((scene.standing(), scene.stall(8)), (Standing::In { share: 1.0 }, None));
}

#[test]
fn a_stalled_backend_is_tried_like_any_other() {
    let scene = Scene::new();
    assert!(scene.at(500).stall(8).is_some());
    assert_eq!(length(scene.at(1500).fail_trial(Failure::NoAnswer)), Duration::from_secs(2));
    let trial = scene.at(3500).health.claim_trial(scene.now()).unwrap();
    assert!(matches!(scene.health.answered(Some(trial), scene.now()), Some(Flip::Readmitted { .. })));
}

#[test]
fn a_stall_ejects_only_who_may_be_ejected() {
    let scene = Scene::new();
    assert_eq!(scene.at(500).health.stalled(scene.now(), 8, &PASSIVE, |_| false), None);
    assert!(is_in(scene.standing()));
}

#[test]
fn checks_need_to_fall_and_rise_in_a_row() {
    // After each check: is it out? By default it takes three bad ones, and two good.
    let rows = [
        (vec![(false, false), (false, false), (false, true), (true, true), (true, false)], "straight"),
        (vec![(false, false), (false, false), (true, false), (false, false), (false, false), (false, true)], "mixed"),
        (
            vec![
                (false, false),
                (false, false),
                (false, true),
                (true, true),
                (false, true),
                (true, true),
                (true, false),
            ],
            "mixed on the way up",
        ),
    ];
    for (checks, what) in rows {
        let scene = Scene::new();
        let mut was_out = false;
        for (nth, (is_good, is_out)) in checks.into_iter().enumerate() {
            let flip = scene.check(is_good);
            assert_eq!(flip.is_some(), is_out != was_out, "{what}, check {nth}: {flip:?}");
            assert_eq!(scene.standing() == Standing::Down, is_out, "{what}, check {nth}");
            was_out = is_out;
        }
    }
    let scene = Scene::new();
    assert_eq!((scene.check(false), scene.check(false)), (None, None));
    let words = scene.check(false).unwrap().to_string();
    assert_eq!(words, "down: GET / answered, the last of 3 bad checks in a row");
}

#[test]
fn down_means_out_whatever_requests_show_and_up_begins_slowly() {
    let scene = Scene::new().refused();
    for _ in 0..3 {
        scene.check(false);
    }
    scene.at(5000);
    assert_eq!(scene.standing(), Standing::Down);
    assert!(scene.health.claim_trial(scene.now()).is_none(), "no trial either");
    assert!(!scene.health.wants_knock(scene.now()));
    scene.check(true);
    scene.check(true);
    assert_eq!(scene.standing(), Standing::TrialDue, "what ejected it has not been disproved");

    let scene = Scene::new();
    for is_good in [false, false, false, true, true] {
        scene.check(is_good);
    }
    assert_eq!(scene.standing(), Standing::In { share: 0.1 });
}

#[test]
fn an_end_of_checks_is_an_end_of_what_they_found() {
    let scene = Scene::new();
    assert_eq!(scene.health.unchecked(scene.now()), None);
    for _ in 0..3 {
        scene.check(false);
    }
    assert!(matches!(scene.health.unchecked(scene.now()), Some(Flip::Up { .. })));
    assert!(is_in(scene.standing()));
}

#[test]
fn a_good_check_makes_the_trial_due_but_takes_it_from_nobody() {
    let scene = Scene::new().refused();
    assert_eq!(scene.at(100).check(true), None);
    assert_eq!(scene.standing(), Standing::TrialDue);
    let trial = scene.health.claim_trial(scene.now()).unwrap();
    scene.check(true);
    assert!(scene.health.claim_trial(scene.now()).is_none());
    assert!(scene.health.answered(Some(trial), scene.now()).is_some());
}

#[test]
fn a_knock_is_wanted_where_nobody_listened_until_somebody_does() {
    let scene = Scene::new();
    assert!(!scene.health.wants_knock(scene.now()));
    let scene = scene.refused();
    assert!(scene.health.wants_knock(scene.now()));
    scene.at(10).health.opened(scene.now());
    assert_eq!(scene.standing(), Standing::TrialDue);
    assert!(!scene.health.wants_knock(scene.now()));
    let flip = scene.fail_trial(Failure::NoAnswer);
    assert!(matches!(flip, Some(Flip::Ejected { why: Why::NoAnswer, .. })), "{flip:?}");
    assert!(!scene.health.wants_knock(scene.now()), "a door that opens is not the trouble now");
}

#[test]
fn nobody_knocks_while_a_request_tries_it_or_where_checks_have_the_word() {
    let scene = Scene::new().refused();
    let trial = scene.at(1000).health.claim_trial(scene.now()).unwrap();
    assert!(!scene.health.wants_knock(scene.now()));
    drop(trial);
    let scene = Scene::new().refused();
    assert!(scene.health.wants_knock(scene.now()));
    scene.health.located(false, scene.now());
    assert!(!scene.health.wants_knock(scene.now()));
}

#[test]
fn a_knock_at_a_healthy_backend_changes_nothing() {
    let scene = Scene::new();
    scene.health.opened(scene.now());
    assert_eq!(scene.standing(), Standing::In { share: 1.0 });
}

#[test]
fn a_name_without_an_address_is_down_whatever_else_is_found() {
    let scene = Scene::new();
    assert_eq!(scene.health.located(true, scene.now()), None, "that is the rule");
    let told = scene.health.located(false, scene.now()).map(|flip| flip.to_string());
    assert_eq!(told.as_deref(), Some("down: its name has no address"));
    assert_eq!(scene.health.located(false, scene.now()), None, "it is said once");
    assert_eq!(scene.standing(), Standing::Down);
    assert!(scene.health.is_out());
    (0..5).for_each(|_| assert_eq!(scene.check(true), None, "nobody can have been asked"));
    assert_eq!(scene.health.unchecked(scene.now()), None);
    assert_eq!(scene.standing(), Standing::Down);
    let told = scene.at(1000).health.located(true, scene.now()).map(|flip| flip.to_string());
    assert_eq!(told.as_deref(), Some("up: its name has an address"));
    assert_eq!(scene.standing(), Standing::In { share: 0.1 });
}

#[test]
fn whoever_looks_from_outside_sees_what_it_is_and_changes_nothing() {
    let condition = |scene: &Scene| scene.health.condition(scene.now());
    let scene = Scene::new();
    scene.fail(Failure::NoAnswer);
    assert_eq!(condition(&scene), Condition::Up, "what is only counted is not seen");
    let scene = Scene::new().refused();
    assert_eq!(condition(scene.at(300)), Condition::Ejected(Why::Refused, Duration::from_millis(700)));
    assert_eq!(condition(scene.at(5000)), Condition::Ejected(Why::Refused, Duration::ZERO), "nobody tries it");
    let trial = scene.health.claim_trial(scene.now()).unwrap();
    assert_eq!(condition(&scene), Condition::OnTrial(Why::Refused));
    scene.health.answered(Some(trial), scene.now());
    assert_eq!(condition(&scene), Condition::Up);
    scene.health.located(false, scene.now());
    assert_eq!(condition(&scene), Condition::Down);
    for _ in 0..3 {
        scene.fail(Failure::NoAnswer);
    }
    assert_eq!(condition(&scene), Condition::Down);
    let scene = Scene::new();
    scene.health.entered(scene.now(), 0);
    scene.at(600).stall(8).unwrap();
    assert_eq!(condition(&scene), Condition::Ejected(Why::Stalled, Duration::from_secs(1)));
}

#[test]
fn who_joins_late_gets_its_share_by_and_by_too() {
    let scene = Scene::new();
    scene.health.joins_late(scene.at(100).now());
    let Standing::In { share } = scene.standing() else { panic!("it is in") };
    assert!((share - 0.1).abs() < 1e-9, "{share}");
    let Standing::In { share } = scene.at(100 + 5_000).standing() else { panic!("it is in") };
    assert!((share - 0.55).abs() < 1e-9, "{share}");
    assert_eq!(scene.at(100 + 10_000).standing(), Standing::In { share: 1.0 });
}

#[test]
fn a_change_that_is_told_is_counted_and_no_change_is_not() {
    let books = crate::balance::Books::default();
    let account = books.open("a");
    let health = Health::of_account(Instant::now(), Some(Arc::clone(&account)));
    health.tell(None);
    health.tell(Some(Flip::Down { evidence: "of a test".to_owned() }));
    assert_eq!((account.read().ejections, account.read().readmissions), (1, 0));
}
