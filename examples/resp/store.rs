//! One core's share of the keys.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use quoit::time::Instant;

use crate::wire::Reply;

/// What is done to one key, where the key lives.
#[derive(Debug)]
pub(crate) enum Action<'a> {
    Get,
    Set(Cow<'a, [u8]>, Option<Duration>),
    Delete,
    Add(i64),
    Expire(Duration),
    TimeLeft,
}

impl Action<'_> {
    pub(crate) fn into_owned(self) -> Action<'static> {
        match self {
            Action::Get => Action::Get,
            Action::Set(bytes, lives) => Action::Set(bytes.into_owned().into(), lives),
            Action::Delete => Action::Delete,
            Action::Add(number) => Action::Add(number),
            Action::Expire(lives) => Action::Expire(lives),
            Action::TimeLeft => Action::TimeLeft,
        }
    }
}

#[derive(Default)]
pub(crate) struct Store {
    keys: HashMap<Vec<u8>, Value>,
    /// The keys that expire, the first one first.
    deadlines: BTreeSet<(Instant, Vec<u8>)>,
}

struct Value {
    bytes: Vec<u8>,
    expires: Option<Instant>,
}

impl Store {
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn perform(&mut self, key: &[u8], action: Action<'_>) -> Reply<'_> {
        self.expire();
        match action {
            Action::Get => Reply::Bulk(self.keys.get(key).map(|value| Cow::from(&value.bytes))),
            Action::Set(bytes, lives) => {
                self.set(key, &bytes, lives.map(|lives| Instant::now() + lives));
                Reply::Simple("OK")
            }
            Action::Delete => Reply::Integer(i64::from(self.remove(key))),
            Action::Add(number) => self.add(key, number),
            Action::Expire(lives) => {
                let Some(value) = self.keys.get_mut(key) else { return Reply::Integer(0) };
                let at = Instant::now() + lives;
                if let Some(old) = value.expires.replace(at) {
                    self.deadlines.remove(&(old, key.to_vec()));
                }
                self.deadlines.insert((at, key.to_vec()));
                Reply::Integer(1)
            }
            Action::TimeLeft => Reply::Integer(match self.keys.get(key) {
                None => -2,
                Some(Value { expires: None, .. }) => -1,
                Some(Value { expires: Some(at), .. }) => {
                    // A second that has begun counts.
                    at.duration_since(Instant::now()).as_millis().div_ceil(1000) as i64
                }
            }),
        }
    }

    fn set(&mut self, key: &[u8], bytes: &[u8], expires: Option<Instant>) {
        let old = match self.keys.get_mut(key) {
            Some(value) => {
                value.write(bytes);
                std::mem::replace(&mut value.expires, expires)
            }
            None => {
                self.keys.insert(key.to_vec(), Value { bytes: bytes.to_vec(), expires });
                None
            }
        };
        if let Some(at) = old {
            self.deadlines.remove(&(at, key.to_vec()));
        }
        if let Some(at) = expires {
            self.deadlines.insert((at, key.to_vec()));
        }
    }

    fn add(&mut self, key: &[u8], number: i64) -> Reply<'static> {
        let old = match self.keys.get(key) {
            None => Some(0),
            Some(value) => {
                let text = std::str::from_utf8(&value.bytes).ok();
                text.and_then(|text| text.parse::<i64>().ok())
            }
        };
        let Some(new) = old.and_then(|old| old.checked_add(number)) else {
            return Reply::Error("ERR value is not an integer or out of range".into());
        };
        let bytes = new.to_string().into_bytes();
        match self.keys.get_mut(key) {
            Some(value) => value.write(&bytes),
            None => _ = self.keys.insert(key.to_vec(), Value { bytes, expires: None }),
        }
        Reply::Integer(new)
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let Some(value) = self.keys.remove(key) else { return false };
        if let Some(at) = value.expires {
            self.deadlines.remove(&(at, key.to_vec()));
        }
        true
    }

    /// Removes the keys whose time has come.
    pub(crate) fn expire(&mut self) {
        if self.deadlines.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.deadlines.first().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.deadlines.pop_first().expect("it was looked at");
            self.keys.remove(&key);
        }
    }
}

impl Value {
    /// Takes the place of what was there, in its memory unless that is far too much.
    fn write(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        if self.bytes.capacity() / 2 > bytes.len().max(64) {
            self.bytes = Vec::new();
        }
        self.bytes.extend_from_slice(bytes);
    }
}
