//! What becomes of a request: one arm for each opcode that this kernel knows.

use super::core::Request;
use super::faults::Knob;
use super::memory::{self, Region, Shape};
use super::net::{MICROSECOND, MILLISECOND, Moved, State};
use super::opcodes::*;
use super::random::mix;
use super::world::{OpenFile, World};
use crate::driver::sqe::flag;
use crate::driver::{Cqe, Fields};

/// Bytes of a buffer for datagrams that a small one fills.
const SMALL: usize = 4096;

/// What looking at a request came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its last answer: a result and flags.
    Last(i32, u32),
    /// One of many.
    More(i32, u32),
    /// Nothing, until something changes at this socket.
    Blocked(u64),
    /// Nothing, until then.
    At(u64),
    /// It has been answered already.
    Answered,
}

use Outcome::{Answered, At, Blocked, Last, More};

pub(super) fn failed(errno: i32) -> Outcome {
    Last(-errno, 0)
}

/// Whether a send is answered at once if there is no room.
pub(super) fn does_not_wait(fields: &Fields) -> bool {
    fields.op_flags & libc::MSG_DONTWAIT.cast_unsigned() != 0
}

/// What the memory of a request holds that the kernel will read.
pub(super) fn fingerprint(fields: &Fields) -> u64 {
    let bytes = match fields.opcode {
        CONNECT => memory::address(fields).map(|it| it.to_string().into_bytes()),
        OPENAT => Some(memory::path(fields)),
        _ => sent(fields).map(|shape| {
            let regions = memory::regions(fields, shape);
            memory::gather(&regions, 0, memory::total(&regions))
        }),
    };
    let mut hash = 0;
    for piece in bytes.unwrap_or_default().chunks(8) {
        let mut word = [0; 8];
        word[..piece.len()].copy_from_slice(piece);
        hash = mix(hash ^ u64::from_ne_bytes(word)).wrapping_add(piece.len() as u64);
    }
    hash
}

impl World {
    /// A request was taken: says when it is first looked at.
    pub(super) fn begin(&mut self, core: usize, serial: u64, mut request: Request) {
        let fields = request.fields;
        let mut time = self.now + self.random.between(100, 10 * MICROSECOND);
        if is_of_files(fields.opcode) {
            time += self.random.magnitude(5 * MICROSECOND, 500 * MICROSECOND);
        }
        if !is_of_the_ring(fields.opcode) && self.chaos.strikes(Knob::Delay) {
            time += self.chaos.how(Knob::Delay).magnitude(100 * MICROSECOND, 5 * MILLISECOND);
        }
        if fields.opcode == TIMEOUT {
            // The real kernel copies it now, so it may be overwritten from here on.
            let deadline = memory::deadline(fields.addr);
            let relative = fields.op_flags & flag::TIMEOUT_ABS == 0;
            time = if relative { self.now + deadline } else { deadline.max(self.now) };
            request.deadline = time;
        }
        if fields.opcode == TIMEOUT_REMOVE {
            request.deadline = memory::deadline(fields.off);
            self.move_timeout(core, serial, request);
            return;
        }
        if let Some(shape) = filled(&fields)
            && self.chaos.strikes(Knob::Scribble)
        {
            memory::scribble(&memory::regions(&fields, shape));
        }
        self.cores[core].pending.insert(serial, request);
        self.schedule(core, serial, time);
    }

    fn move_timeout(&mut self, core: usize, serial: u64, request: Request) {
        let target = self.cores[core].pending.iter_mut().find(|(_, other)| {
            other.fields.opcode == TIMEOUT && other.fields.user_data == request.fields.addr
        });
        let Some((&timeout, other)) = target else {
            return self.answer(core, serial, -libc::ENOENT, 0);
        };
        other.deadline = request.deadline;
        self.schedule(core, timeout, request.deadline.max(self.now));
        self.answer(core, serial, 0, 0);
    }

    /// Looks at a request, and answers it if it has come to something.
    pub(super) fn attempt(&mut self, core: usize, serial: u64) {
        let Some(request) = self.cores[core].pending.get_mut(&serial) else { return };
        if request.attempt.is_none_or(|attempt| attempt > self.now) {
            // It was moved; another event stands for its new time.
            return;
        }
        request.attempt = None;
        let request = *request;
        let outcome = self.perform(core, serial, &request);
        self.settle(core, serial, outcome);
    }

    /// Does as an outcome says. True: that was the last answer.
    pub(super) fn settle(&mut self, core: usize, serial: u64, outcome: Outcome) -> bool {
        match outcome {
            Last(result, flags) => self.answer(core, serial, result, flags),
            Answered => {}
            More(result, flags) => {
                if !self.answer_more(core, serial, result, flags) {
                    return true;
                }
                let time = self.now + self.random.between(50, 2 * MICROSECOND);
                self.schedule(core, serial, time);
                return false;
            }
            Blocked(socket) => {
                self.block(socket, (core, serial));
                return false;
            }
            At(time) => {
                self.schedule(core, serial, time);
                return false;
            }
        }
        true
    }

    pub(super) fn perform(&mut self, core: usize, serial: u64, request: &Request) -> Outcome {
        let fields = &request.fields;
        let is_fresh = request.done == 0 && !request.told;
        if is_fresh && is_interruptible(fields.opcode) && self.chaos.strikes(Knob::Interrupt) {
            // The second: the kernel could not start the thread that was to do it.
            let errnos = [libc::EINTR, libc::ECANCELED];
            return failed(errnos[self.chaos.how(Knob::Interrupt).index(errnos.len())]);
        }
        if fingerprint(fields) != request.fingerprint {
            let name = name(fields.opcode).unwrap_or("request");
            self.violation(format!("I1: what a {name} pointed at changed while it was in flight"));
        }
        let object = request.object.unwrap_or(0);
        match fields.opcode {
            NOP => Last(0, 0),
            SEND_ZC if request.told => self.notify(object),
            TIMEOUT if self.now < request.deadline => At(request.deadline),
            TIMEOUT => failed(libc::ETIME),
            CANCEL => self.cancel(core, serial, request),
            OPENAT => self.open(core, request),
            CONNECT | ACCEPT | POLL | SEND | SEND_ZC | SENDMSG | RECV | RECVMSG => {
                self.perform_on_socket(core, serial, object, request)
            }
            _ => match self.files.get(&object).copied() {
                Some(file) => self.perform_on_file(core, file, request),
                None => failed(libc::EINVAL),
            },
        }
    }

    // ---- Sockets ----

    /// Makes a send that was not pushed, if the kernel takes the liberty and it does not have to wait.
    pub(super) fn send_at_once(&mut self, core: usize, fields: Fields) -> Option<Cqe> {
        let is_plain = matches!(fields.opcode, SEND | SENDMSG) && fields.flags == 0;
        let waits_for_all = fields.op_flags & libc::MSG_WAITALL.cast_unsigned() != 0;
        if !is_plain || waits_for_all || !self.chaos.strikes(Knob::AtOnce) {
            return None;
        }
        let id = self.object(core, fields.fd)?;
        let request = Request::new(fields, Some(id), 0);
        if self.refusal(core, &request).is_some() {
            return None;
        }
        let Last(result, flags) = self.perform_on_socket(core, 0, id, &request) else {
            return None;
        };
        let counters = &mut self.cores[core].counters;
        (counters.sqes, counters.cqes) = (counters.sqes + 1, counters.cqes + 1);
        let outcome = u64::from(result.cast_unsigned()) << 32 | u64::from(flags);
        self.trace.note(8, id, outcome);
        Some(Cqe { user_data: fields.user_data, result, flags })
    }

    fn perform_on_socket(
        &mut self,
        core: usize,
        serial: u64,
        id: u64,
        request: &Request,
    ) -> Outcome {
        let fields = &request.fields;
        let Some(socket) = self.sockets.get(&id) else { return failed(libc::ENOTSOCK) };
        let (is_unix, keeps_messages) = (socket.unix.is_some(), socket.has_messages());
        let of_datagrams = socket.mailbox.is_some();
        match fields.opcode {
            CONNECT if is_unix => self.connect_unix(id, fields),
            CONNECT => self.connect_to(id, request),
            ACCEPT => self.accept(core, id, request),
            POLL => self.poll_writable(id),
            RECV if picks_buffers(fields) => self.receive_provided(core, id, fields),
            RECV => self.receive_into(id, request),
            RECVMSG if of_datagrams && picks_buffers(fields) => {
                self.receive_message_provided(core, id, fields)
            }
            RECVMSG if of_datagrams => self.receive_message(id, fields),
            RECVMSG if picks_buffers(fields) => failed(libc::EOPNOTSUPP),
            RECVMSG => self.receive_unix_message(id, fields),
            _ if of_datagrams => self.send_message(id, fields),
            // Descriptors would go along.
            SENDMSG if !memory::envelope(fields).1.is_empty() => failed(libc::EOPNOTSUPP),
            // As on the real kernel.
            SEND_ZC if is_unix => failed(libc::EOPNOTSUPP),
            SEND_ZC => match self.send(core, serial, id, request) {
                Last(sent, _) if sent >= 0 => self.tell(core, serial, sent),
                other => other,
            },
            _ if keeps_messages => self.send_unix_message(id, fields),
            _ => self.send(core, serial, id, request),
        }
    }

    /// Nothing is there; a multishot may end over that, as if somebody had cancelled it.
    fn idle_multishot(&mut self, socket: u64, fields: &Fields) -> Outcome {
        if is_multishot(fields) && self.chaos.strikes(Knob::EndedMultishot) {
            return failed(libc::ECANCELED);
        }
        Blocked(socket)
    }

    fn connect_to(&mut self, socket: u64, request: &Request) -> Outcome {
        let Some(to) = memory::address(&request.fields) else { return failed(libc::EAFNOSUPPORT) };
        let connected = match self.is_of_datagrams(socket) {
            true => self.connect_datagrams(socket, to),
            false => self.connect(socket, to),
        };
        match connected {
            Moved::Count(_) => Last(0, 0),
            Moved::Failed(errno) => failed(errno),
            Moved::NotYet => Blocked(socket),
        }
    }

    fn accept(&mut self, core: usize, id: u64, request: &Request) -> Outcome {
        let socket = &self.sockets[&id];
        if !socket.is_listening() {
            return failed(libc::EINVAL);
        }
        let Some(&connection) = socket.waiting.front() else {
            return self.idle_multishot(id, &request.fields);
        };
        if self.chaos.strikes(Knob::NoMemory) {
            return failed(libc::ENOMEM);
        }
        // The connection stays where it is when there is no descriptor for it.
        let fd = match self.open_descriptor(core, connection) {
            Ok(fd) => fd,
            Err(errno) => return failed(errno),
        };
        self.sockets.get_mut(&id).expect("it is there").waiting.pop_front();
        // A Unix socket that connects waits for room here.
        self.touch(id);
        if is_multishot(&request.fields) { More(fd, 0) } else { Last(fd, 0) }
    }

    fn receive_into(&mut self, id: u64, request: &Request) -> Outcome {
        let regions = memory::regions(&request.fields, Shape::Plain);
        if self.chaos.strikes(Knob::Scribble) {
            memory::scribble(&regions);
        }
        let mut bytes = Vec::new();
        match self.receive(id, memory::total(&regions), &mut bytes) {
            Moved::Count(count) => {
                memory::scatter(&regions, &bytes);
                Last(count as i32, 0)
            }
            Moved::Failed(errno) => failed(errno),
            Moved::NotYet => Blocked(id),
        }
    }

    /// The buffer is picked when the bytes are there, not before.
    fn receive_provided(&mut self, core: usize, id: u64, fields: &Fields) -> Outcome {
        let offer = self.cores[core].provided(fields.buf_index).and_then(|it| it.peek());
        let region = offer.map(|offer| memory::provided(offer.start, offer.len as usize));
        if let Some(region) = region
            && self.chaos.strikes(Knob::Scribble)
        {
            memory::scribble(&[region]);
        }
        if let Moved::NotYet = self.peek(id) {
            return self.idle_multishot(id, fields);
        }
        let Some((offer, region)) = offer.zip(region) else { return failed(libc::ENOBUFS) };
        if self.chaos.strikes(Knob::NoBuffers) {
            return failed(libc::ENOBUFS);
        }
        let mut bytes = Vec::new();
        match self.receive(id, region.len, &mut bytes) {
            Moved::Count(0) => Last(0, 0),
            Moved::Count(count) => {
                let provided = self.cores[core].provided(fields.buf_index);
                provided.expect("it made an offer").pick();
                memory::scatter(&[region], &bytes);
                More(count as i32, Cqe::picked(offer.bid))
            }
            Moved::Failed(errno) => failed(errno),
            Moved::NotYet => Blocked(id),
        }
    }

    /// As [`receive_provided`](Self::receive_provided), of a datagram and what comes with it.
    fn receive_message_provided(&mut self, core: usize, id: u64, fields: &Fields) -> Outcome {
        let offer = self.cores[core].provided(fields.buf_index).and_then(|it| it.peek());
        if let Some(offer) = offer
            && self.chaos.strikes(Knob::Scribble)
        {
            // Only as far as a small datagram comes: the buffers are large.
            memory::scribble(&[memory::provided(offer.start, SMALL.min(offer.len as usize))]);
        }
        if !self.has_datagram(id) {
            return self.idle_multishot(id, fields);
        }
        let Some(offer) = offer else { return failed(libc::ENOBUFS) };
        if self.chaos.strikes(Knob::NoBuffers) {
            return failed(libc::ENOBUFS);
        }
        match self.receive_datagram(id) {
            Ok(Some(received)) => match memory::fill_offer(fields, offer, &received) {
                Some(result) => {
                    let provided = self.cores[core].provided(fields.buf_index);
                    provided.expect("it made an offer").pick();
                    More(result, Cqe::picked(offer.bid))
                }
                None => failed(libc::EFAULT),
            },
            Ok(None) => Blocked(id),
            Err(errno) => failed(errno),
        }
    }

    fn receive_message(&mut self, id: u64, fields: &Fields) -> Outcome {
        match self.receive_datagram(id) {
            Ok(Some(received)) => Last(memory::fill_message(fields, &received), 0),
            Ok(None) => Blocked(id),
            Err(errno) => failed(errno),
        }
    }

    fn send_message(&mut self, id: u64, fields: &Fields) -> Outcome {
        let shape = if fields.opcode == SENDMSG { Shape::Message } else { Shape::Plain };
        let regions = memory::regions(fields, shape);
        let payload = memory::gather(&regions, 0, memory::total(&regions));
        match self.send_datagrams(id, fields, payload) {
            Ok(count) => Last(count as i32, 0),
            Err(errno) => failed(errno),
        }
    }

    fn send(&mut self, core: usize, serial: u64, id: u64, request: &Request) -> Outcome {
        let fields = &request.fields;
        let shape = if fields.opcode == SENDMSG { Shape::Message } else { Shape::Plain };
        let regions = memory::regions(fields, shape);
        let left = memory::total(&regions) - request.done;
        let room = match self.room_to_send(id) {
            Moved::Count(room) => room,
            // What was sent before the error counts, and the error is for the next.
            Moved::Failed(errno) if request.done > 0 => {
                let socket = self.sockets.get_mut(&id).expect("it is there");
                socket.error = Some(errno).filter(|&errno| errno != libc::EPIPE);
                return Last(request.done as i32, 0);
            }
            Moved::Failed(errno) => return failed(errno),
            Moved::NotYet if does_not_wait(fields) => return failed(libc::EAGAIN),
            Moved::NotYet => return Blocked(id),
        };
        let count = self.shortened(room.min(left));
        if count > 0 {
            self.transmit(id, memory::gather(&regions, request.done, count));
        }
        let done = request.done + count;
        let waits_for_all = fields.op_flags & libc::MSG_WAITALL.cast_unsigned() != 0;
        if waits_for_all && count < left {
            self.cores[core].pending.get_mut(&serial).expect("it is looked at").done = done;
            return Blocked(id);
        }
        Last(done as i32, 0)
    }

    /// Sends of a file what is in memory, which is not always all that was read or written before.
    pub(super) fn send_file(
        &mut self,
        core: usize,
        id: u64,
        open: OpenFile,
        offset: u64,
        len: usize,
    ) -> Result<i32, i32> {
        if open.flags & libc::O_ACCMODE == libc::O_WRONLY {
            return Err(libc::EBADF);
        }
        let host = self.cores[core].host;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let left = self.hosts[host].disk.bytes(open.file).len().saturating_sub(offset).min(len);
        if left == 0 || self.random.chance(0.2) {
            return Err(libc::ENODATA);
        }
        let room = match self.room_to_send(id) {
            Moved::Count(room) => room,
            Moved::Failed(errno) => return Err(errno),
            Moved::NotYet => return Err(libc::EAGAIN),
        };
        let count = self.shortened(left.min(room));
        let bytes = self.hosts[host].disk.bytes(open.file)[offset..offset + count].to_vec();
        self.transmit(id, bytes);
        Ok(count as i32)
    }

    /// How much of `count` bytes a socket takes.
    fn shortened(&mut self, count: usize) -> usize {
        if count <= 1 || !self.chaos.strikes(Knob::ShortWrite) {
            return count;
        }
        let how = self.chaos.how(Knob::ShortWrite);
        // One byte is the smallest step that a loop can make.
        if how.chance(0.2) { 1 } else { how.between(1, count as u64 - 1) as usize }
    }

    /// Says how much a send without a copy has sent; its memory is read for a while longer.
    fn tell(&mut self, core: usize, serial: u64, sent: i32) -> Outcome {
        let request = self.cores[core].pending.get_mut(&serial).expect("it is looked at");
        request.told = true;
        let user_data = request.fields.user_data;
        self.trace.note(7, user_data, u64::from(sent.cast_unsigned()));
        self.cores[core].post(Cqe { user_data, result: sent, flags: Cqe::MORE });
        let late = match self.chaos.strikes(Knob::LateNotice) {
            true => self.chaos.how(Knob::LateNotice).magnitude(50 * MICROSECOND, 50 * MILLISECOND),
            false => self.random.between(0, 2 * MICROSECOND),
        };
        At(self.now + late)
    }

    /// Its memory is no longer read. Within a machine it was copied.
    fn notify(&self, socket: u64) -> Outcome {
        let copied = self.sockets.get(&socket).is_none_or(|socket| {
            let ends = socket.local.zip(socket.peer);
            ends.is_none_or(|(local, peer)| local.ip() == peer.ip() || peer.ip().is_loopback())
        });
        Last(if copied { Cqe::COPIED } else { 0 }, Cqe::NOTIFICATION)
    }

    // ---- Files ----

    fn open(&mut self, core: usize, request: &Request) -> Outcome {
        if self.chaos.strikes(Knob::DiskError) {
            return failed(libc::EIO);
        }
        let flags = request.fields.op_flags.cast_signed();
        let host = self.cores[core].host;
        let path = memory::path(&request.fields);
        let file = match self.hosts[host].disk.open(path, flags) {
            Ok(file) => file,
            Err(errno) => return failed(errno),
        };
        let object = self.next_serial();
        match self.open_descriptor(core, object) {
            Ok(fd) => {
                self.files.insert(object, OpenFile { file, flags });
                Last(fd, 0)
            }
            Err(errno) => failed(errno),
        }
    }

    fn perform_on_file(&mut self, core: usize, open: OpenFile, request: &Request) -> Outcome {
        let (fields, host) = (&request.fields, self.cores[core].host);
        if self.chaos.strikes(Knob::DiskError) {
            return failed(libc::EIO);
        }
        let mode = open.flags & libc::O_ACCMODE;
        let shape =
            if matches!(fields.opcode, READV | WRITEV) { Shape::Iovecs } else { Shape::Plain };
        match fields.opcode {
            FSYNC => {
                self.hosts[host].disk.sync(open.file);
                Last(0, 0)
            }
            READ | READV if mode != libc::O_WRONLY => {
                self.read(host, open, fields.off, &memory::regions(fields, shape))
            }
            WRITE | WRITEV if mode != libc::O_RDONLY => {
                self.write(host, open, fields.off, &memory::regions(fields, shape))
            }
            READ | READV | WRITE | WRITEV => failed(libc::EBADF),
            _ => failed(libc::EOPNOTSUPP),
        }
    }

    fn read(&mut self, host: usize, open: OpenFile, offset: u64, regions: &[Region]) -> Outcome {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = self.hosts[host].disk.bytes(open.file).len().saturating_sub(offset);
        let mut count = there.min(memory::total(regions));
        if count > 1 && self.chaos.strikes(Knob::ShortRead) {
            count = self.chaos.how(Knob::ShortRead).between(1, count as u64 - 1) as usize;
        }
        if count > 0 {
            let bytes = &self.hosts[host].disk.bytes(open.file)[offset..offset + count];
            memory::scatter(regions, bytes);
        }
        Last(count as i32, 0)
    }

    fn write(&mut self, host: usize, open: OpenFile, offset: u64, regions: &[Region]) -> Outcome {
        /// Files are in memory, and no larger than this.
        const LARGEST: usize = 1 << 30;
        let mut count = memory::total(regions);
        let end = self.hosts[host].disk.bytes(open.file).len();
        let offset = if open.flags & libc::O_APPEND != 0 { end as u64 } else { offset };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if offset.checked_add(count).is_none_or(|end| end > LARGEST) {
            return failed(libc::EFBIG);
        }
        if self.chaos.strikes(Knob::DiskFull) {
            return failed(libc::ENOSPC);
        }
        if count > 1 && self.chaos.strikes(Knob::ShortWrite) {
            count = self.chaos.how(Knob::ShortWrite).between(1, count as u64 - 1) as usize;
        }
        if count > 0 {
            let bytes = memory::gather(regions, 0, count);
            self.hosts[host].disk.write(open.file, offset, bytes);
        }
        Last(count as i32, 0)
    }

    // ---- Cancels ----

    /// A cancel may come in time, or late; its own answer says nothing, and comes when it likes.
    fn cancel(&mut self, core: usize, serial: u64, request: &Request) -> Outcome {
        let target = self.cores[core].pending.iter().find(|(_, other)| {
            let is_it = other.fields.user_data == request.fields.addr && other.is_operation();
            is_it && !other.told
        });
        let Some((&target, &found)) = target else { return failed(libc::ENOENT) };
        if found.number != request.number {
            let name = name(found.fields.opcode).unwrap_or("request");
            self.violation(format!("I4: a cancel met a {name} that it was not pushed for"));
        }
        if !self.chaos.strikes(Knob::LateCancel) {
            self.end_cancelled(core, target, &found);
            return Last(0, 0);
        }
        match self.chaos.how(Knob::LateCancel).below(5) {
            0 if request.deadline == 0 => {
                let late = self.chaos.how(Knob::LateCancel).magnitude(MICROSECOND, MILLISECOND);
                let place = self.cores[core].pending.get_mut(&serial).expect("it is looked at");
                place.deadline = self.now + late;
                At(self.now + late)
            }
            1 => {
                // The cancel is answered first.
                self.answer(core, serial, 0, 0);
                self.end_cancelled(core, target, &found);
                Answered
            }
            // The request is on its way from one try to the next.
            2 => failed(libc::ENOENT),
            _ => {
                // Too late: what is there is delivered, bytes or a descriptor.
                let outcome = self.perform(core, target, &found);
                if self.cores[core].pending.get(&target).is_some_and(|request| request.told) {
                    self.settle(core, target, outcome);
                    return failed(libc::EALREADY);
                }
                if matches!(outcome, Last(..) | More(..)) && self.settle(core, target, outcome) {
                    return failed(libc::EALREADY);
                }
                let found = self.cores[core].pending[&target];
                self.end_cancelled(core, target, &found);
                Last(0, 0)
            }
        }
    }

    fn end_cancelled(&mut self, core: usize, target: u64, request: &Request) {
        match request.done {
            done if done > 0 && request.fields.opcode == SEND_ZC => {
                let outcome = self.tell(core, target, done as i32);
                self.settle(core, target, outcome);
            }
            0 => self.answer(core, target, -libc::ECANCELED, 0),
            done => self.answer(core, target, done as i32, 0),
        }
    }

    /// Whether a receive would bring something.
    fn peek(&self, id: u64) -> Moved {
        let socket = &self.sockets[&id];
        let idle = socket.state == State::Connected && socket.has_nothing_to_read();
        if idle { Moved::NotYet } else { Moved::Count(0) }
    }
}
