//! A place for the files of a test, gone when the test is.

#![allow(dead_code, reason = "each test file uses its own part of the harness")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder that no other test has. It ends, with all that lies in it, when this is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// An empty one, where the system keeps such things.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        loop {
            let nth = NEXT.fetch_add(1, Ordering::Relaxed);
            let folder = std::env::temp_dir().join(format!("threadbare-{}-{nth}", std::process::id()));
            match fs::create_dir(&folder) {
                Ok(()) => return Self(folder),
                // A process that was killed has left it, and this one has got its number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", folder.display()),
            }
        }
    }

    /// A path in it, as text, for flags and files. Nothing need be there.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file in it. Returns its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{path}: {error}"));
        path
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What can't be removed lies where such things are removed in time.
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// A file alone in such a folder.
pub(crate) struct TempFile {
    path: String,
    _folder: Folder,
}

impl TempFile {
    /// A file that says this.
    pub(crate) fn new(content: impl AsRef<[u8]>) -> Self {
        let folder = Folder::new();
        Self { path: folder.file("threadbare.toml", content), _folder: folder }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}
