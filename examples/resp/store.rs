//! One core's share of the keys.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use quoit::time::Instant;

use crate::wire::Reply;

/// What is done to one key, where the key lives.
#[derive(Debug)]
pub(crate) enum Action {
    Get,
    Set(Vec<u8>, Option<Duration>),
    Delete,
    Add(i64),
    Expire(Duration),
    TimeLeft,
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

    pub(crate) fn perform(&mut self, key: Vec<u8>, action: Action) -> Reply {
        self.expire();
        match action {
            Action::Get => Reply::Bulk(self.keys.get(&key).map(|value| value.bytes.clone())),
            Action::Set(bytes, lives) => {
                let expires = lives.map(|lives| Instant::now() + lives);
                let old = match self.keys.get_mut(&key) {
                    Some(value) => {
                        value.bytes = bytes;
                        std::mem::replace(&mut value.expires, expires)
                    }
                    None => {
                        self.keys.insert(key.clone(), Value { bytes, expires });
                        None
                    }
                };
                if let Some(at) = old {
                    self.deadlines.remove(&(at, key.clone()));
                }
                if let Some(at) = expires {
                    self.deadlines.insert((at, key));
                }
                Reply::Simple("OK")
            }
            Action::Delete => Reply::Integer(i64::from(self.remove(&key))),
            Action::Add(number) => self.add(key, number),
            Action::Expire(lives) => {
                let Some(value) = self.keys.get_mut(&key) else { return Reply::Integer(0) };
                let at = Instant::now() + lives;
                let old = value.expires.replace(at);
                old.map(|old| self.deadlines.remove(&(old, key.clone())));
                self.deadlines.insert((at, key));
                Reply::Integer(1)
            }
            Action::TimeLeft => Reply::Integer(match self.keys.get(&key) {
                None => -2,
                Some(Value { expires: None, .. }) => -1,
                Some(Value { expires: Some(at), .. }) => {
                    // A second that has begun counts.
                    at.duration_since(Instant::now()).as_millis().div_ceil(1000) as i64
                }
            }),
        }
    }

    fn add(&mut self, key: Vec<u8>, number: i64) -> Reply {
        let entry = self.keys.entry(key);
        let old = match &entry {
            Entry::Vacant(_) => Some(0),
            Entry::Occupied(entry) => {
                let text = std::str::from_utf8(&entry.get().bytes).ok();
                text.and_then(|text| text.parse::<i64>().ok())
            }
        };
        let Some(new) = old.and_then(|old| old.checked_add(number)) else {
            return Reply::Error("ERR value is not an integer or out of range".into());
        };
        let value = entry.or_insert(Value { bytes: Vec::new(), expires: None });
        value.bytes = new.to_string().into_bytes();
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
