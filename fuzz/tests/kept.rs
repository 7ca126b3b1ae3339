//! Every kept input, and what made an earlier version fail, through its target, with any toolchain.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use targets::{TARGETS, run};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("an entry can be read").path();
        path.file_stem().expect("it has a name").to_string_lossy().into_owned()
    };
    entries.map(name).collect()
}

#[test]
fn every_kept_input_passes_its_target() {
    for (name, _) in TARGETS {
        let inputs = fs::read_dir(folder("corpus").join(name)).expect("a target has a corpus");
        let mut count = 0;
        for input in inputs {
            let path = input.expect("an entry can be read").path();
            let data = fs::read(&path).expect("an input can be read");
            if std::panic::catch_unwind(|| run(name, &data)).is_err() {
                panic!("{} fails", path.display());
            }
            count += 1;
        }
        assert!(count > 0, "{name} has no inputs");
    }
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names_in(&folder("fuzz_targets")), names);
    assert_eq!(names_in(&folder("corpus")), names);
}
