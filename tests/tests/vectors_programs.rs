//! Every program of the object, before the verifier.

use bascule_tests::vectors::kernel::{in_namespace, load};

/// Instructions that the verifier may look at, a program: it gives up at a
/// million (BPF_COMPLEXITY_LIMIT_INSNS), and other kernels look at more than this
/// one does.
const LIMIT: u32 = 300_000;

/// Programs that the agent loads.
const PROGRAMS: [&str; 13] = [
    "lb_connect4",
    "lb_connect6",
    "lb_dry",
    "lb_egress",
    "lb_getpeer4",
    "lb_getpeer6",
    "lb_pod_ingress",
    "lb_recvmsg4",
    "lb_recvmsg6",
    "lb_sendmsg4",
    "lb_sendmsg6",
    "lb_up_ingress",
    "lb_xdp",
];

#[test]
fn the_verifier_takes_every_program() {
    let rows = in_namespace(|_| {
        let ebpf = load()?;
        let mut rows = Vec::new();
        for (name, program) in ebpf.programs() {
            let info = program.info()?;
            let verified = info.verified_instruction_count().unwrap_or(0);
            let translated = info.size_translated().unwrap_or(0);
            rows.push((name.to_owned(), verified, translated, info.size_jitted()));
        }
        rows.sort();
        Ok(rows)
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
    println!(
        "{:16} {:>14} {:>14} {:>14}",
        "program", "verified insns", "xlated bytes", "jited bytes"
    );
    for (name, verified, translated, jited) in &rows {
        println!("{name:16} {verified:>14} {translated:>14} {jited:>14}");
    }
    let names: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
    assert_eq!(names, PROGRAMS, "the programs of the object");
    for (name, verified, ..) in &rows {
        assert!(
            *verified > 0,
            "{name}: the kernel tells no verified_insns (Linux 5.16)"
        );
        assert!(
            *verified <= LIMIT,
            "{name}: {verified} verified instructions"
        );
    }
}
