//! A directory that stands for `/` in tests of what reads /proc and /sys.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

static MADE: Mutex<u32> = Mutex::new(0);

/// A directory that stands for `/` and goes with its owner.
pub(crate) struct FakeRoot(PathBuf);

impl FakeRoot {
    pub(crate) fn new() -> Self {
        // Tests run in one process or in many, and may need several: both numbers are needed.
        let number = {
            let mut made = MADE.lock().unwrap();
            *made += 1;
            *made
        };
        let name = format!("quoit-root-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        FakeRoot(path)
    }

    /// Has the file `path` hold `text`.
    pub(crate) fn with(self, path: &str, text: &str) -> Self {
        let path = self.place(path);
        fs::write(path, text).unwrap();
        self
    }

    /// Has `path` be a link to `target`, which need not exist.
    pub(crate) fn with_link(self, path: &str, target: &str) -> Self {
        let path = self.place(path);
        std::os::unix::fs::symlink(target, path).unwrap();
        self
    }

    fn place(&self, path: &str) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }
}

impl Deref for FakeRoot {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for FakeRoot {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}
