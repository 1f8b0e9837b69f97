//! The cores of one start, by index: how each of them finds the others.

use std::error::Error as StdError;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, PipeWriter, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::handle::Handle;
use super::local::Local;
use super::shard::next_number;
use crate::sys::atomic::Arc;
use crate::sys::signal_streams::Invented;

/// Each core enters itself when its ring is open; none runs its main before all have.
pub(crate) struct Roll {
    /// The cores of a start share this number.
    pub(super) group: u64,
    pub(super) count: usize,
    /// The signals of a process that is simulated.
    pub(crate) signals: Arc<Invented>,
    entries: Mutex<Vec<(usize, Handle)>>,
    /// The first of them that asked for a stop.
    asked_to_stop: OnceLock<usize>,
    /// What then rings, for whoever stands by.
    bell: Option<Arc<PipeWriter>>,
}

impl Roll {
    pub(crate) fn new(count: usize, bell: Option<Arc<PipeWriter>>) -> Arc<Self> {
        let (group, signals) = (next_number(), Arc::default());
        let (entries, asked_to_stop) = (Mutex::default(), OnceLock::new());
        Arc::new(Roll { group, count, signals, entries, asked_to_stop, bell })
    }

    /// Core `index` asks for a stop of all.
    pub(super) fn ask_to_stop(&self, index: usize) {
        if self.asked_to_stop.set(index).is_ok()
            && let Some(mut bell) = self.bell.as_deref()
        {
            // It fails only if nobody hears any more.
            let _ = bell.write(&[0]);
        }
    }

    /// Which core has asked for a stop.
    pub(crate) fn asked_to_stop(&self) -> Option<usize> {
        self.asked_to_stop.get().copied()
    }

    pub(super) fn enter(&self, handle: Handle) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push((handle.index(), handle));
    }

    /// The ways in to all cores, in their order.
    pub(super) fn handles(&self) -> Box<[Handle]> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = entries.clone();
        entries.sort_by_key(|(index, _)| *index);
        assert_eq!(entries.len(), self.count, "a core looks for others before all are there");
        entries.into_iter().map(|(_, handle)| handle).collect()
    }
}

/// The cores that were started together, this one included, in the order of their indices.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// use quoit::runtime::{self, Core};
///
/// runtime::start_per_core(async |core: Core| {
///     let cores = runtime::cores();
///     assert_eq!(cores.len(), core.count());
///     assert_eq!(cores[core.index()].id(), core.id());
/// })?;
/// # runtime::Result::Ok(())
/// ```
#[must_use]
#[track_caller]
pub fn cores() -> Vec<Handle> {
    here("cores").handles().to_vec()
}

/// The core that has this index among those that were started together.
///
/// # Errors
/// There are not so many.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// use quoit::runtime;
///
/// runtime::run(async {
///     let first = runtime::core_at(0).unwrap();
///     assert_eq!(first.call(async || 6 * 7).await.unwrap(), 42);
///     assert_eq!(runtime::core_at(1).unwrap_err().count(), 1);
/// })?;
/// # runtime::Result::Ok(())
/// ```
#[track_caller]
pub fn core_at(index: usize) -> Result<Handle, NoSuchCore> {
    let local = here("core_at");
    let found = local.handles().get(index).cloned();
    found.ok_or(NoSuchCore { index, count: local.count })
}

/// The core that a key belongs to: the same for equal keys, whichever core of the start asks, and
/// about as many keys for each core.
///
/// Where a key belongs may be another core in another start, and in another version of the program:
/// do not write it down. A client that chooses its keys can choose them all for one core.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// use quoit::runtime::{self, PerCore};
/// use std::cell::RefCell;
/// use std::collections::BTreeMap;
///
/// static SHARD: PerCore<RefCell<BTreeMap<String, u64>>> = PerCore::new(RefCell::default);
///
/// async fn set(key: &str, value: u64) -> Result<(), runtime::Gone> {
///     let key = key.to_owned();
///     let core = runtime::core_for(&key);
///     core.call(async move || SHARD.with(|map| drop(map.borrow_mut().insert(key, value)))).await
/// }
///
/// async fn get(key: &str) -> Result<Option<u64>, runtime::Gone> {
///     let key = key.to_owned();
///     let core = runtime::core_for(&key);
///     core.call(async move || SHARD.with(|map| map.borrow().get(&key).copied())).await
/// }
///
/// runtime::run(async {
///     set("answer", 42).await.unwrap();
///     assert_eq!(get("answer").await.unwrap(), Some(42));
/// })?;
/// # runtime::Result::Ok(())
/// ```
#[must_use]
#[track_caller]
pub fn core_for<K: Hash + ?Sized>(key: &K) -> Handle {
    let local = here("core_for");
    let handles = local.handles();
    if let [only] = handles {
        return only.clone();
    }
    // Its keys are fixed, unlike those of a `HashMap`: every core finds the same.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let share = u128::from(hasher.finish()) * handles.len() as u128;
    handles[(share >> 64) as usize].clone()
}

#[track_caller]
fn here(what: &str) -> std::rc::Rc<Local> {
    match Local::current() {
        Some(local) => local,
        None => panic!(
            "runtime::{what} was called outside of a runtime; start one with \
             `quoit::runtime::start_per_core`"
        ),
    }
}

/// There is no core of this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSuchCore {
    index: usize,
    count: usize,
}

impl NoSuchCore {
    /// The index that was asked for.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many cores there are. Their indices begin at 0.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

impl fmt::Display for NoSuchCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.count - 1;
        write!(f, "there is no core {}: those of this start are 0 to {last}", self.index)
    }
}

impl StdError for NoSuchCore {}

impl From<NoSuchCore> for io::Error {
    fn from(none: NoSuchCore) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, none)
    }
}
