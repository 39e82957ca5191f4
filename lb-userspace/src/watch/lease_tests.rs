use super::*;
use proptest::prelude::*;

fn at(start: Instant, seconds: f64) -> Instant {
    start + Duration::from_secs_f64(seconds)
}

fn wall(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// Looks, and writes at once. Whether it leads then.
fn looks(one: &mut Election, lease: &mut Option<LeaseSpec>, now: Instant, clock: i64) -> bool {
    if let Some(claim) = one.claim(lease.as_ref(), now, wall(clock)) {
        *lease = Some(claim.clone());
        one.claimed(claim, now);
    }
    one.until.is_some_and(|until| now < until)
}

#[test]
fn one_holds_it_until_it_is_silent_for_as_long_as_it_said() {
    let start = Instant::now();
    let [mut a, mut b] = ["a", "b"].map(|name| Election::new(name.into()));
    let mut lease = None;
    assert!(looks(&mut a, &mut lease, start, 1000));
    let first = lease.clone().unwrap();
    assert_eq!(first.lease_duration_seconds, Some(15));
    assert_eq!(first.lease_transitions, Some(1));
    // A clock that is years ahead changes nothing.
    assert!(!looks(&mut b, &mut lease, at(start, 1.0), 900_000_000));
    assert!(looks(&mut a, &mut lease, at(start, 4.0), 1004));
    let second = lease.clone().unwrap();
    assert_eq!(second.acquire_time, first.acquire_time);
    assert_eq!(second.lease_transitions, Some(1));
    assert_eq!(second.renew_time, Some(MicroTime(wall(1004))));
    // `a` is silent from here on: `b` counts from when it saw the last change.
    assert!(!looks(&mut b, &mut lease, at(start, 6.0), 0));
    assert!(!looks(&mut b, &mut lease, at(start, 20.9), 0));
    assert!(a.until.unwrap() < at(start, 20.9));
    assert!(looks(&mut b, &mut lease, at(start, 21.0), 0));
    let third = lease.clone().unwrap();
    assert_eq!(third.holder_identity.as_deref(), Some("b"));
    assert_eq!(third.lease_transitions, Some(2));
    assert_eq!(third.acquire_time, Some(MicroTime(wall(0))));
    assert!(!looks(&mut a, &mut lease, at(start, 22.0), 0));
    assert_eq!(a.until, None);
}

#[test]
fn a_lease_that_was_given_up_is_taken_at_once() {
    let start = Instant::now();
    let [mut a, mut b] = ["a", "b"].map(|name| Election::new(name.into()));
    let mut lease = None;
    looks(&mut a, &mut lease, start, 0);
    assert_eq!(b.release(lease.as_ref().unwrap(), wall(1)), None);
    lease = a.release(lease.as_ref().unwrap(), wall(1));
    assert_eq!(a.until, None);
    let released = lease.clone().unwrap();
    assert_eq!(released.holder_identity.as_deref(), Some(""));
    assert_eq!(released.lease_duration_seconds, Some(1));
    assert!(looks(&mut b, &mut lease, at(start, 0.5), 1));
}

#[test]
fn fields_that_others_set_stay() {
    let mut a = Election::new("a".into());
    let found = LeaseSpec {
        preferred_holder: Some("x".into()),
        ..LeaseSpec::default()
    };
    let claim = a.claim(Some(&found), Instant::now(), wall(0)).unwrap();
    assert_eq!(claim.preferred_holder.as_deref(), Some("x"));
}

/// A server that takes what was made from its newest version, and those who ask it.
#[derive(Default)]
struct World {
    version: usize,
    lease: Option<LeaseSpec>,
    /// Of each candidate, a write that is on its way.
    writes: Vec<Option<Write>>,
}

struct Write {
    /// The tick in which it arrives.
    arrives: usize,
    /// What it was made from.
    version: usize,
    sent: Instant,
    /// Whether its answer is lost.
    lost: bool,
    claim: LeaseSpec,
}

impl World {
    fn arrive(&mut self, tick: usize, candidates: &mut [Election]) {
        for (one, write) in candidates.iter_mut().zip(&mut self.writes) {
            let Some(write) = write.take_if(|write| write.arrives <= tick) else {
                continue;
            };
            if write.version == self.version {
                self.version += 1;
                self.lease = Some(write.claim.clone());
                if !write.lost {
                    one.claimed(write.claim, write.sent);
                }
            }
        }
    }
}

/// What a candidate does in a tick: looks or not, how many ticks its write takes, and whether
/// the answer is lost.
type Move = (bool, usize, bool);

/// Half a second.
const TICK: f64 = 0.5;

/// Plays moves; who leads after each tick.
fn play(candidates: &mut [Election], moves: &[[Move; 3]]) -> Vec<Vec<usize>> {
    let start = Instant::now();
    let mut world = World::default();
    world.writes.resize_with(candidates.len(), || None);
    let mut led = Vec::new();
    for (tick, moves) in moves.iter().enumerate() {
        let now = at(start, tick as f64 * TICK);
        world.arrive(tick, candidates);
        for (number, (looks, ticks, lost)) in moves.iter().enumerate() {
            if !looks || world.writes[number].is_some() {
                continue;
            }
            // Everyone's clock says something else.
            let clock = wall(tick as i64 * 7 + number as i64 * 1_000_000);
            if let Some(claim) = candidates[number].claim(world.lease.as_ref(), now, clock) {
                world.writes[number] = Some(Write {
                    arrives: tick + ticks,
                    version: world.version,
                    sent: now,
                    lost: *lost,
                    claim,
                });
            }
        }
        world.arrive(tick, candidates);
        let leads = |one: &Election| one.until.is_some_and(|until| now < until);
        let numbers = (0..candidates.len()).filter(|number| leads(&candidates[*number]));
        led.push(numbers.collect());
    }
    led
}

fn any_move() -> impl Strategy<Value = Move> {
    (
        prop::bool::weighted(0.3),
        0..9_usize,
        prop::bool::weighted(0.2),
    )
}

/// A while in which some of them are cut off, and the rest look now and then.
fn any_while() -> impl Strategy<Value = Vec<[Move; 3]>> {
    let moves = prop::collection::vec([any_move(), any_move(), any_move()], 1..60);
    (moves, any::<[bool; 3]>()).prop_map(|(mut moves, cut_off)| {
        for (number, _) in cut_off.iter().enumerate().filter(|(_, cut_off)| **cut_off) {
            moves.iter_mut().for_each(|moves| moves[number].0 = false);
        }
        moves
    })
}

proptest! {
    /// Whatever is late or lost, no two lead at a time; and when all is well, one leads soon.
    #[test]
    fn never_two_and_soon_one(
        whiles in prop::collection::vec(any_while(), 1..12)
    ) {
        let mut moves = whiles.concat();
        let troubled = moves.len();
        // Long enough for the last write of before, and for who made it to be silent no more.
        let well = (0..80).map(|tick| [0, 1, 2].map(|n| (tick % 4 == n, 0, false)));
        moves.extend(well);
        let mut candidates = ["a", "b", "c"].map(|name| Election::new(name.into()));
        let led = play(&mut candidates, &moves);
        for (tick, led) in led.iter().enumerate() {
            prop_assert!(led.len() <= 1, "tick {tick}: {led:?}");
        }
        let last = &led[troubled + 40..];
        prop_assert!(last.iter().all(|led| led.len() == 1), "{last:?}");
    }
}
