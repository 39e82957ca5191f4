//! The dry program, `lb_dry`: what it answers must be what the host's dry run says, and
//! what then becomes of the packet.

use anyhow::{Context as _, Result};
use aya::{
    TestRun as _,
    programs::{SchedClassifier, TestRunOptions},
};
use lb_common::trace::{self, from, how, verdict, word};
use lb_datapath::{Outcome, Step, Verdict};

use super::{
    kernel::{Kernel, SKB_WORDS, skb},
    net::POD0,
    run::{Host, Ran, hex_diff},
    vector::{At, Exchange, Lane},
};

/// Words of `struct __sk_buff`: `mark`, and the first of `cb`.
const SKB_MARK: usize = 2;
const SKB_CB: usize = 12;

/// What the dry program answered.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    returned: u32,
    ifindex: u32,
    words: [u32; word::COUNT],
}

impl Answer {
    /// What it should have answered.
    fn of(ran: &Ran) -> Self {
        let verdict = match ran.outcome.verdict {
            Verdict::Pass => verdict::PASS,
            Verdict::Drop => verdict::DROP,
            Verdict::TurnAround => verdict::TURN_AROUND,
            Verdict::Redirect => verdict::REDIRECT,
            Verdict::RedirectNeigh => verdict::REDIRECT_NEIGH,
            Verdict::Portless => verdict::PORTLESS,
        };
        let mut words = [trace::NONE; word::COUNT];
        for step in &ran.steps {
            match *step {
                Step::Conntrack(service, backend) => {
                    words = [how::CONNTRACK, service, trace::NONE, backend, trace::NONE];
                }
                Step::Frontend(service) => words[word::SERVICE] = service,
                Step::Affinity(backend) => {
                    (words[word::HOW], words[word::BACKEND]) = (how::AFFINITY, backend);
                }
                Step::Slot(slot) => words[word::SLOT] = slot,
                Step::Backend(backend) => {
                    (words[word::HOW], words[word::BACKEND]) = (how::TABLE, backend);
                }
                Step::Snat(port) => words[word::SNAT] = u32::from(port),
            }
        }
        let Outcome {
            reason, ifindex, ..
        } = ran.outcome;
        Self {
            returned: trace::answer(verdict, reason),
            ifindex,
            words,
        }
    }
}

/// Where the dry program is told that a packet comes from; `None` where it answers nothing.
fn origin(x: &Exchange, lane: Lane) -> Option<u32> {
    match (x.at, lane) {
        (At::Pod, Lane::Tc) => Some(from::POD),
        (At::Uplink, Lane::Tc) => Some(from::UPLINK),
        _ => None,
    }
}

fn ask(kernel: &Kernel, x: &Exchange, origin: u32) -> Result<(Answer, Vec<u8>)> {
    let mut ctx = skb(x);
    ctx[SKB_MARK] = origin;
    let mut told = vec![0u32; SKB_WORDS];
    let mut out = vec![0; x.input.len() + 256];
    let mut options = TestRunOptions::new();
    options.data_in = Some(&x.input);
    options.data_out = Some(&mut out);
    options.ctx_in = Some(bytemuck::cast_slice(&ctx));
    options.ctx_out = Some(bytemuck::cast_slice_mut(&mut told));
    let program = kernel.program("lb_dry")?;
    let result = <&SchedClassifier>::try_from(program)?.test_run(options)?;
    out.truncate(result.data_size_out as usize);
    let words = told[SKB_CB..]
        .first_chunk()
        .context("cb is of five words")?;
    let answer = Answer {
        returned: result.return_value,
        ifindex: told[SKB_MARK],
        words: *words,
    };
    Ok((answer, out))
}

/// What the kernel's dry program gets wrong about a packet. The packet's own run comes later:
/// whatever this leaves in the maps is found there.
pub fn differences(x: &Exchange, lane: Lane, host: &Host, kernel: &Kernel) -> Vec<String> {
    let Some(origin) = origin(x, lane) else {
        return Vec::new();
    };
    let ours = matches!(x.input.get(12..14), Some([8, 0] | [0x86, 0xdd]));
    if !ours || !super::kernel::takes(x, lane) {
        return Vec::new();
    }
    let mut x = x.clone();
    if x.at == At::Pod {
        // The other program takes what a pod sends to anyone's link address.
        x.input[..6].copy_from_slice(&POD0.mac);
    }
    let ran = host.ask(&x);
    let (answer, bytes) = match ask(kernel, &x, origin) {
        Ok(answered) => answered,
        Err(error) => return vec![format!("lb_dry cannot be run: {error:#}")],
    };
    let mut failures = Vec::new();
    let expected = Answer::of(&ran);
    if answer != expected {
        failures.push(format!("lb_dry: {answer:?} instead of {expected:?}"));
    }
    if ran.outcome.verdict != Verdict::Drop && bytes != ran.bytes {
        let diff = hex_diff(&ran.bytes, &bytes);
        failures.push(format!("lb_dry: the frame differs:\n{diff}"));
    }
    failures
}
