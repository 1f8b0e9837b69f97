//! An io_uring ring with its enter call, and a ring of provided buffers.

use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue, squeue};

/// Opens a ring for one thread: completions are run inside enter calls only, and the
/// completion queue has `cq_entries`.
pub fn open(sq_entries: u32, cq_entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_no_sqarray()
        .setup_cqsize(cq_entries)
        .setup_clamp()
        .build(sq_entries)
}

/// The queues of an open ring, whose descriptor is registered for as long as this lives.
pub struct Ring<'a> {
    submitter: Submitter<'a>,
    submissions: SubmissionQueue<'a>,
    completions: CompletionQueue<'a>,
}

impl<'a> Ring<'a> {
    pub fn new(uring: &'a mut IoUring) -> io::Result<Ring<'a>> {
        let (mut submitter, submissions, completions) = uring.split();
        submitter.register_ring_fd()?;
        Ok(Ring { submitter, submissions, completions })
    }

    pub fn submitter(&self) -> &Submitter<'a> {
        &self.submitter
    }

    /// Queues an operation for the next enter; a full queue is submitted first.
    ///
    /// # Safety
    ///
    /// What the entry points to stays valid until its last completion has come.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller's promise is the one that the queue asks for.
        while unsafe { self.submissions.push(entry) }.is_err() {
            self.submit()?;
        }
        Ok(())
    }

    /// Submits what is queued, runs what the kernel has deferred and waits for one completion.
    #[inline]
    pub fn turn(&mut self) -> io::Result<()> {
        self.enter(1, EnterFlags::GETEVENTS)
    }

    /// Like [`Ring::turn`], but returns without a completion when `timeout` has passed.
    #[inline]
    pub fn turn_within(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&timeout);
        self.completions.sync();
        self.submissions.sync();
        let result = self.submitter.submit_with_args(1, &args);
        self.completions.sync();
        self.submissions.sync();
        retry_later(result)
    }

    /// As [`Ring::turn`], without waiting, and without a system call when there is nothing to do.
    #[inline]
    pub fn poll(&mut self) -> io::Result<()> {
        self.completions.sync();
        self.submissions.sync();
        let idle = self.submissions.is_empty() && !self.submissions.taskrun();
        if idle { Ok(()) } else { self.enter(0, EnterFlags::GETEVENTS) }
    }

    /// Submits what is queued and does not wait.
    pub fn submit(&mut self) -> io::Result<()> {
        self.enter(0, EnterFlags::empty())
    }

    /// The next completion among those that the last turn brought.
    #[inline]
    pub fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.completions.next()
    }

    #[inline]
    fn enter(&mut self, want: u32, flags: EnterFlags) -> io::Result<()> {
        // The head is published before the wait: the kernel would count the entries already
        // taken as new ones and return at once.
        self.completions.sync();
        self.submissions.sync();
        let pending = self.submissions.len() as u32;
        // SAFETY: no argument is passed, and whoever pushed the entries vouched for them.
        let result =
            unsafe { self.submitter.enter::<libc::sigset_t>(pending, want, flags.bits(), None) };
        self.completions.sync();
        self.submissions.sync();
        retry_later(result)
    }
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        // The registration holds the ring open until the thread ends, so a failure here leaks
        // one ring and nothing else.
        self.submitter.unregister_ring_fd().ok();
    }
}

/// Errors after which the next turn simply continues.
fn retry_later(result: io::Result<usize>) -> io::Result<()> {
    match result.map_err(|error| (error.raw_os_error(), error)) {
        Ok(_) | Err((Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ETIME), _)) => Ok(()),
        Err((_, error)) => Err(error),
    }
}

/// Receive buffers that the kernel picks from, registered as one buffer group.
pub struct BufferRing {
    entries: Mapping,
    memory: Mapping,
    count: u16,
    size: usize,
    tail: u16,
}

impl BufferRing {
    /// Registers `count` buffers, a power of two, of `size` bytes each. The ring must be closed,
    /// or have nothing in flight, before the buffers are dropped.
    pub fn new(submitter: &Submitter, group: u16, count: u16, size: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * size)?;
        // SAFETY: the mapping has room for count entries, is page-aligned and lives as long as
        // the buffers do.
        unsafe {
            submitter.register_buf_ring_with_flags(entries.address() as u64, count, group, 0)?;
        }
        let mut buffers = BufferRing { entries, memory, count, size, tail: 0 };
        for id in 0..count {
            buffers.recycle(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The first `length` bytes of buffer `id`.
    #[inline]
    pub fn bytes(&self, id: u16, length: usize) -> &[u8] {
        assert!(id < self.count && length <= self.size);
        let start = self.memory.start.as_ptr().wrapping_add(usize::from(id) * self.size);
        // SAFETY: the range is inside the mapping, and the kernel does not write to a buffer
        // between its completion and its recycling.
        unsafe { slice::from_raw_parts(start, length) }
    }

    /// Gives buffer `id` back; the kernel sees it after the next [`BufferRing::publish`].
    #[inline]
    pub fn recycle(&mut self, id: u16) {
        assert!(id < self.count);
        let address = self.memory.address() + usize::from(id) * self.size;
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: the index is below count, the mapping holds count entries, all-zero bytes are
        // a valid entry, and the kernel does not read entries beyond the published tail.
        let entry = unsafe { &mut *self.entries.start.cast::<BufRingEntry>().as_ptr().add(index) };
        entry.set_addr(address as u64);
        entry.set_len(self.size as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel all recycled buffers.
    #[inline]
    pub fn publish(&self) {
        // SAFETY: the mapping begins with the first entry of the ring.
        let tail = unsafe { BufRingEntry::tail(self.entries.start.cast().as_ptr()) };
        // SAFETY: the tail lies inside the mapping, is aligned, and is written by this thread
        // only.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Private zeroed memory, page-aligned.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(length: usize) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap gave a null address");
        Ok(Mapping { start, length })
    }

    fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by new with this length and is not used after this.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
