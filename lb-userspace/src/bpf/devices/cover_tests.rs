//! Covering devices, against a kernel that does as the test says.

use super::{
    super::{Hooks, LOOKS, rules::Device},
    *,
};

#[derive(Default)]
struct FakeAttach {
    left: Vec<u32>,
    fails: Option<String>,
    gone: bool,
    /// Covering takes its time.
    slow: bool,
    log: Vec<String>,
}

fn hooks(tc: &'static str) -> Hooks {
    Hooks {
        tc,
        xdp: None,
        xdp_reason: String::new(),
    }
}

impl Attach for FakeAttach {
    fn bridge(&mut self, device: &Device, role: Role) -> Result<Option<Hooks>, CoverError> {
        if !self.slow {
            return Ok(None);
        }
        self.log.push(format!("bridge {} {role:?}", device.name));
        match self.gone {
            true => Err(CoverError::Gone),
            false => Ok(Some(hooks("clsact"))),
        }
    }
    fn cover(&mut self, device: &Device, role: Role) -> Result<Hooks, CoverError> {
        self.log.push(format!("cover {} {role:?}", device.name));
        if self.gone {
            return Err(CoverError::Gone);
        }
        match &self.fails {
            Some(error) => Err(CoverError::Failed(error.clone())),
            None => Ok(hooks("tcx")),
        }
    }
    fn uncover(&mut self, index: u32, name: Option<&str>) {
        self.log
            .push(format!("uncover {index} {}", name.unwrap_or("-")));
    }
    fn covered(&mut self) -> Vec<u32> {
        self.left.clone()
    }
}

fn cover(attach: FakeAttach, events: &[Event]) -> Cover<FakeAttach> {
    let mut cover = Cover::new(attach, Rules::default(), Arc::default());
    cover.inventory.replace(events.to_vec());
    cover.adopt();
    cover
}

fn pod(index: u32) -> Event {
    Event::Device(Device {
        index,
        name: format!("veth{index}"),
        kind: Some("veth".into()),
        peer_elsewhere: true,
        ..Device::default()
    })
}

fn log(cover: &mut Cover<FakeAttach>) -> Vec<String> {
    std::mem::take(&mut cover.attach.log)
}

fn errors(cover: &Cover<FakeAttach>) -> Vec<Option<String>> {
    lock(&cover.shared.states)
        .values()
        .map(|state| state.error.clone())
        .collect()
}

#[test]
fn each_device_is_covered_once() {
    let mut cover = cover(FakeAttach::default(), &[pod(3)]);
    assert_eq!(log(&mut cover), ["cover veth3 Pod"]);
    cover.inventory.note(pod(3));
    cover.inventory.note(pod(4));
    cover.reconcile();
    assert_eq!(log(&mut cover), ["cover veth4 Pod"]);
}

#[test]
fn hooks_that_an_earlier_agent_left_on_others_are_removed() {
    let attach = FakeAttach {
        left: vec![3, 9],
        ..FakeAttach::default()
    };
    let mut cover = cover(attach, &[pod(3)]);
    assert_eq!(log(&mut cover), ["uncover 9 -", "cover veth3 Pod"]);
}

#[test]
fn a_device_that_becomes_an_uplink_gets_other_hooks() {
    let mut cover = cover(FakeAttach::default(), &[pod(3)]);
    cover.inventory.note(Event::DefaultRoute(3));
    cover.reconcile();
    assert_eq!(log(&mut cover), ["cover veth3 Pod", "cover veth3 Uplink"]);
}

#[test]
fn a_device_that_is_gone_is_uncovered_and_forgotten() {
    let mut cover = cover(FakeAttach::default(), &[pod(3)]);
    cover.inventory.note(Event::Gone(3));
    cover.reconcile();
    assert_eq!(log(&mut cover), ["cover veth3 Pod", "uncover 3 -"]);
    assert!(errors(&cover).is_empty());
}

#[test]
fn a_device_that_vanishes_while_it_is_covered_leaves_no_trace() {
    let attach = FakeAttach {
        gone: true,
        ..FakeAttach::default()
    };
    let mut cover = cover(attach, &[pod(3)]);
    assert!(errors(&cover).is_empty());
    assert_eq!(cover.patience(0), FOREVER);
    // Half of it may have been covered.
    assert_eq!(log(&mut cover), ["cover veth3 Pod", "uncover 3 -"]);
}

#[test]
fn a_failure_is_shown_and_tried_again_until_it_is_over() {
    let attach = FakeAttach {
        fails: Some("lb_egress: no memory".into()),
        ..FakeAttach::default()
    };
    let mut cover = cover(attach, &[pod(3)]);
    assert_eq!(errors(&cover), [Some("lb_egress: no memory".to_owned())]);
    assert_eq!(cover.patience(0), RETRY);
    cover.attach.fails = None;
    cover.reconcile();
    assert_eq!(errors(&cover), [None]);
    assert_eq!(cover.patience(0), FOREVER);
}

#[test]
fn a_pair_with_both_ends_here_is_looked_at_again_soon_but_not_forever() {
    let here = Event::Device(Device {
        index: 3,
        name: "veth3".into(),
        kind: Some("veth".into()),
        ..Device::default()
    });
    let cover = cover(FakeAttach::default(), &[here]);
    assert_eq!(cover.patience(LOOKS), LOOK_AGAIN);
    assert_eq!(cover.patience(0), FOREVER);
}

/// A kernel on which covering a device takes its time, with the device 3.
fn slow() -> Cover<FakeAttach> {
    let attach = FakeAttach {
        slow: true,
        ..FakeAttach::default()
    };
    let mut cover = cover(attach, &[]);
    cover.note(vec![pod(3)]);
    cover.reconcile();
    cover
}

fn served(cover: &Cover<FakeAttach>) -> Vec<(u32, &'static str)> {
    let states = lock(&cover.shared.states);
    let hooks = states
        .values()
        .filter_map(|s| Some((s.index, s.hooks.as_ref()?.tc)));
    hooks.collect()
}

#[test]
fn new_devices_are_bridged_at_once_and_covered_one_by_one_when_it_is_quiet() {
    let mut cover = slow();
    let start = Instant::now();
    cover.note(vec![pod(4)]);
    cover.reconcile();
    assert_eq!(log(&mut cover), ["bridge veth3 Pod", "bridge veth4 Pod"]);
    assert_eq!(served(&cover), [(3, "clsact"), (4, "clsact")]);
    assert_eq!(cover.settles_at(start), Some(start + SETTLED));
    // However much happens, it does not take for ever.
    let late = start + 2 * SETTLED_MAX;
    assert!(cover.settles_at(late).unwrap() <= Instant::now() + SETTLED_MAX);
    cover.settle();
    assert_eq!(log(&mut cover), ["cover veth3 Pod"]);
    assert_eq!(served(&cover), [(3, "tcx"), (4, "clsact")]);
    cover.settle();
    assert_eq!(served(&cover), [(3, "tcx"), (4, "tcx")]);
    assert_eq!(cover.settles_at(start), None);
    cover.note(vec![pod(4)]);
    cover.reconcile();
    assert_eq!(log(&mut cover), ["cover veth4 Pod"]);
}

#[test]
fn everything_is_looked_at_when_an_event_does_not_say_enough() {
    let end = |index: u32, peer| {
        Event::Device(Device {
            index,
            name: format!("veth{index}"),
            kind: Some("veth".into()),
            peer,
            ..Device::default()
        })
    };
    let mut cover = cover(FakeAttach::default(), &[]);
    assert!(cover.note(vec![Event::Lost]));
    assert!(!cover.note(vec![end(3, 0), end(4, 3), Event::Moved(3)]));
    cover.reconcile();
    assert_eq!(log(&mut cover), ["cover veth4 Pod"]);
    // Whose end was the fifth?
    assert!(!cover.note(vec![end(6, 0), Event::Gone(7)]));
    assert!(cover.note(vec![Event::Moved(5)]));
}

#[test]
fn a_bridged_device_that_changes_its_role_or_goes_is_followed() {
    let mut cover = slow();
    cover.note(vec![Event::DefaultRoute(3)]);
    cover.reconcile();
    assert_eq!(log(&mut cover), ["bridge veth3 Pod", "bridge veth3 Uplink"]);
    cover.note(vec![Event::Gone(3)]);
    cover.reconcile();
    assert_eq!(log(&mut cover), ["uncover 3 -"]);
    assert_eq!(cover.settles_at(Instant::now()), None);
    cover.attach.gone = true;
    cover.note(vec![pod(4)]);
    cover.reconcile();
    assert_eq!(log(&mut cover), ["bridge veth4 Pod", "uncover 4 -"]);
    assert!(served(&cover).is_empty());
}

#[test]
fn a_bridged_device_that_cannot_be_covered_stays_served() {
    let mut cover = slow();
    cover.attach.fails = Some("lb_egress: no memory".into());
    cover.settle();
    assert_eq!(served(&cover), [(3, "clsact")]);
    let error = Some("lb_egress: no memory".to_owned());
    assert_eq!(errors(&cover), std::slice::from_ref(&error));
    assert_eq!(cover.patience(0), RETRY);
    // It is tried again, and said again only if it fails in another way.
    cover.reconcile();
    assert_eq!(errors(&cover), [error]);
    cover.attach.fails = None;
    cover.settle();
    assert_eq!(
        (served(&cover), errors(&cover)),
        (vec![(3, "tcx")], vec![None])
    );
}
