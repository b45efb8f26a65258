//! Writes what the tests' tables hold as corpora for the five targets: `seeds FOLDER`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use threadbare_fuzz::mutate;

fn main() -> io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("a folder to write the corpora to"));
    let seeds = mutate::seeds(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let for_forwarding: Vec<Vec<u8>> = (0..)
        .zip(&seeds.requests)
        .map(|(nth, seed): (u32, _)| [&[b'0' + (nth % 8) as u8][..], seed].concat())
        .collect();
    let corpora = [
        ("request_head", &seeds.requests),
        ("response_head", &seeds.responses),
        ("framing", &seeds.lines),
        ("chunks", &seeds.bodies),
        ("forwarding", &for_forwarding),
    ];
    for (target, seeds) in corpora {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        for (nth, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{nth:04}")), seed)?;
        }
    }
    let words = mutate::SNIPPETS.iter().map(|word| {
        let word: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("\"{word}\"\n")
    });
    fs::write(folder.join("words"), words.collect::<String>())
}
