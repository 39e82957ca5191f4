//! Covering devices, against a kernel that does as the test says.

use super::{rules::Device, *};

#[derive(Default)]
struct FakeAttach {
    left: Vec<u32>,
    fails: Option<String>,
    gone: bool,
    log: Vec<String>,
}

impl Attach for FakeAttach {
    fn cover(&mut self, device: &Device, role: Role) -> Result<Hooks, CoverError> {
        self.log.push(format!("cover {} {role:?}", device.name));
        if self.gone {
            return Err(CoverError::Gone);
        }
        match &self.fails {
            Some(error) => Err(CoverError::Failed(error.clone())),
            None => Ok(Hooks {
                tc: "tcx",
                xdp: None,
                xdp_reason: String::new(),
            }),
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
        loopback: false,
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
        fails: Some("lb_pod_egress: no memory".into()),
        ..FakeAttach::default()
    };
    let mut cover = cover(attach, &[pod(3)]);
    assert_eq!(
        errors(&cover),
        [Some("lb_pod_egress: no memory".to_owned())]
    );
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
        peer_elsewhere: false,
        loopback: false,
    });
    let cover = cover(FakeAttach::default(), &[here]);
    assert_eq!(cover.patience(LOOKS), LOOK_AGAIN);
    assert_eq!(cover.patience(0), FOREVER);
}
