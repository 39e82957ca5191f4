//! Every packet vector on the host and in the kernel.

use std::collections::BTreeMap;

use bascule_tests::vectors::{
    kernel::{Kernel, in_namespace},
    run::run,
    themes,
};

#[test]
fn host_xdp_and_tc_agree_with_every_vector() {
    let failures = in_namespace(|namespace| {
        let mut kernel = Kernel::new(namespace)?;
        let mut themes: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
        let mut failures = Vec::new();
        for vector in themes::all() {
            let count = themes.entry(vector.theme).or_default();
            count.0 += 1;
            for lane in vector.lanes() {
                count.1 += 1;
                let found = run(&vector, *lane, &mut kernel);
                count.2 += usize::from(!found.is_empty());
                failures.extend(found);
            }
        }
        for (theme, (vectors, runs, failed)) in &themes {
            println!(
                "{theme:24} {vectors:4} vectors, {runs:4} runs in the kernel, {failed} differ"
            );
        }
        Ok(failures)
    });
    match failures {
        Ok(failures) => assert!(
            failures.is_empty(),
            "{} differences:\n{}",
            failures.len(),
            failures.join("\n")
        ),
        Err(error) => panic!("{error:#}"),
    }
}
