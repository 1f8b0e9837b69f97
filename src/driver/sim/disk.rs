//! Files in memory, and what is left of them when the power fails.

use std::collections::BTreeMap;

use super::random::Random;

/// A torn write is torn between two sectors.
const SECTOR: usize = 512;

/// The files of one host, by path.
#[derive(Debug, Default)]
pub(super) struct Disk {
    names: BTreeMap<Vec<u8>, u64>,
    files: BTreeMap<u64, Stored>,
    next: u64,
}

/// One file: what reads see, what is certain, and what was written in between.
#[derive(Debug, Default)]
struct Stored {
    bytes: Vec<u8>,
    /// What a crash leaves; `None` while the file's name itself is not certain.
    durable: Option<Vec<u8>>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate,
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Change::Truncate => file.clear(),
            Change::Write { offset, bytes } => put(file, *offset, bytes),
        }
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

impl Disk {
    /// Opens `path` as `flags` say. Errors are errnos.
    pub(super) fn open(&mut self, path: Vec<u8>, flags: i32) -> Result<u64, i32> {
        let found = self.names.get(&path).copied();
        let file = match found {
            Some(_) if flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0 => {
                return Err(libc::EEXIST);
            }
            Some(file) => file,
            None if flags & libc::O_CREAT == 0 => return Err(libc::ENOENT),
            None if path.is_empty() => return Err(libc::ENOENT),
            None => {
                self.next += 1;
                self.names.insert(path, self.next);
                self.files.insert(self.next, Stored::default());
                self.next
            }
        };
        if flags & libc::O_TRUNC != 0 {
            let stored = self.stored(file);
            stored.bytes.clear();
            stored.unsynced.push(Change::Truncate);
        }
        Ok(file)
    }

    fn stored(&mut self, file: u64) -> &mut Stored {
        self.files.get_mut(&file).expect("an open file is on the disk")
    }

    pub(super) fn bytes(&self, file: u64) -> &[u8] {
        &self.files[&file].bytes
    }

    pub(super) fn write(&mut self, file: u64, offset: usize, bytes: Vec<u8>) {
        let stored = self.stored(file);
        put(&mut stored.bytes, offset, &bytes);
        stored.unsynced.push(Change::Write { offset, bytes });
    }

    /// Makes a file certain, its name included.
    pub(super) fn sync(&mut self, file: u64) {
        let stored = self.stored(file);
        stored.durable = Some(stored.bytes.clone());
        stored.unsynced.clear();
    }

    /// The power fails: what was not synced may be there, be lost, or be torn.
    pub(super) fn crash(&mut self, random: &mut Random) {
        let files = &mut self.files;
        self.names.retain(|_, file| {
            let stored = files.get_mut(file).expect("a name has a file");
            let is_certain = stored.durable.is_some();
            if !is_certain && random.chance(0.5) {
                files.remove(file);
                return false;
            }
            let mut left = stored.durable.take().unwrap_or_default();
            for mut change in std::mem::take(&mut stored.unsynced) {
                match random.below(3) {
                    0 => continue,
                    1 => {}
                    _ => tear(&mut change, random),
                }
                change.apply(&mut left);
            }
            stored.bytes.clone_from(&left);
            stored.durable = Some(left);
            true
        });
    }
}

/// Leaves the first sectors of a write, or none.
fn tear(change: &mut Change, random: &mut Random) {
    if let Change::Write { offset, bytes } = change {
        let first = SECTOR - *offset % SECTOR;
        let sectors = bytes.len().saturating_sub(first).div_ceil(SECTOR);
        let kept = match random.below(sectors as u64 + 1) as usize {
            0 => 0,
            kept => first + (kept - 1) * SECTOR,
        };
        bytes.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: i32 = libc::O_RDWR | libc::O_CREAT;

    #[test]
    fn what_was_synced_survives_every_crash_and_the_rest_may_not() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut disk = Disk::default();
            let file = disk.open(b"log".to_vec(), NEW).unwrap();
            disk.write(file, 0, vec![1; 1000]);
            disk.sync(file);
            disk.write(file, 1000, vec![2; 2000]);
            disk.crash(&mut Random::new(seed));
            let file = disk.open(b"log".to_vec(), libc::O_RDWR).unwrap();
            let bytes = disk.bytes(file);
            assert_eq!(bytes[..1000], vec![1; 1000]);
            assert!(bytes[1000..].iter().all(|&byte| byte == 2));
            lost += usize::from(bytes.len() < 3000);
        }
        assert!((20..90).contains(&lost), "{lost}");
    }

    #[test]
    fn a_file_that_was_never_synced_may_be_gone() {
        let gone = |seed| {
            let mut disk = Disk::default();
            disk.open(b"new".to_vec(), NEW).unwrap();
            disk.crash(&mut Random::new(seed));
            disk.open(b"new".to_vec(), libc::O_RDONLY) == Err(libc::ENOENT)
        };
        let count = (0..100).filter(|&seed| gone(seed)).count();
        assert!((20..80).contains(&count), "{count}");
    }
}
