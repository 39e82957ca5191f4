//! All inputs that are kept. What a fuzzer has found once is found again at once.

use std::{fs, path::Path};

use bascule_fuzz::TARGETS;

#[test]
fn all_that_is_kept_is_as_it_has_to_be() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, target) in TARGETS {
        let files = |kind: &str| fs::read_dir(here.join(kind).join(name));
        let seeds = files("seeds").unwrap();
        // There is none as long as nothing was found beside the seeds.
        let found = files("corpus").into_iter().flatten();
        let files: Vec<_> = seeds
            .chain(found)
            .map(|file| file.unwrap().path())
            .collect();
        assert!(files.len() >= 10, "{} inputs of {name}", files.len());
        for file in &files {
            // Shown if it fails.
            println!("{}", file.display());
            target(&fs::read(file).unwrap());
        }
    }
}
