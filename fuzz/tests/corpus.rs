//! All inputs that are kept. What a fuzzer has found once is found again at once.

use std::{fs, path::Path, time::Instant};

use bascule_fuzz::TARGETS;

#[test]
fn all_that_is_kept_is_as_it_has_to_be() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let begun = Instant::now();
        let files = fs::read_dir(corpus.join(name)).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        assert!(files.len() >= 10, "{name} has {} inputs", files.len());
        for file in &files {
            // The name of the input, if it fails.
            println!("{}", file.display());
            target(&fs::read(file).unwrap());
        }
        println!("{name}: {} inputs in {:?}", files.len(), begun.elapsed());
    }
}
