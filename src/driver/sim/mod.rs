//! An invented kernel: every answer, and its time, comes out of one seed.
//!
//! All simulated cores share one [`World`], with one clock, on one thread. The clock does not tick
//! by itself: a turn of a core takes a moment, and when no core has anything to do, it goes to the
//! next event. What a request points at is touched when it is answered, not when it is handed over.
//!
//! ```text
//!   push ──▶ queue ──take (a prefix)──▶ pending ──attempt, at its time──▶ answers ──reap──▶ enter
//!                                         ▲  │                              overflow
//!                                touch ───┘  └── blocked (at a socket)
//! ```

mod call;
mod core;
mod datagrams;
mod disk;
mod faults;
mod ledger;
mod memory;
mod net;
mod opcodes;
mod perform;
mod power;
mod random;
mod signals;
mod unix;
mod world;

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use self::core::Request;
pub use self::faults::Faults;
pub(crate) use self::faults::Knob;
pub(crate) use self::random::Random;
pub(crate) use self::signals::Told;
use self::world::Sleep;
pub(crate) use self::world::World;
use super::pad::provided::Provided;
use super::{Call, Counters, Cqe, Driver, Fields, Register, Sqe, Unparker, Wait};

/// Sends that a core may make at once between two enters.
const AT_ONCE: u32 = 4;

/// The world, as each of its cores holds it.
pub(crate) type Shared = Rc<RefCell<World>>;

/// One core's kernel in a simulated world.
pub(crate) struct Simulated {
    world: Shared,
    core: usize,
}

impl Simulated {
    pub(crate) fn new(world: &Shared, core: usize) -> Self {
        Simulated { world: Rc::clone(world), core }
    }

    /// A core that is alone in a world without faults, in which time passes only in its sleeps.
    pub(crate) fn paused() -> Self {
        let alone = Simulated::alone(0, Faults::default());
        alone.world.borrow_mut().pause();
        alone
    }

    /// A core that is alone in its world, and drives it.
    pub(crate) fn alone(seed: u64, faults: Faults) -> Self {
        let mut world = World::new(seed, faults);
        let host = world.add_host("here", false);
        let core = world.add_core(host);
        Simulated { world: Rc::new(RefCell::new(world)), core }
    }
}

// SAFETY: each request gets one last answer (`World::answer` takes it out of what is pending, and
// `push` and `take` put it there once), results are those of the model, and `memory` is used for
// pending requests only.
unsafe impl Driver for Simulated {
    unsafe fn push(&mut self, sqe: Sqe) {
        let fields = Fields::of(&sqe);
        let mut world = self.world.borrow_mut();
        let object = match opcodes::names_a_descriptor(fields.opcode) {
            true => world.object(self.core, fields.fd),
            false => None,
        };
        let number = world.number_of(self.core, &fields);
        world.push(self.core, Request::new(fields, object, number));
    }

    unsafe fn attempt(&mut self, sqe: Sqe) -> Option<Cqe> {
        self.world.borrow_mut().send_at_once(self.core, Fields::of(&sqe))
    }

    fn attempts(&self) -> u32 {
        AT_ONCE
    }

    fn enter(&mut self, wait: Wait, answers: &mut Vec<Cqe>) -> io::Result<()> {
        let sleep = self.world.borrow_mut().enter(self.core, wait, answers);
        if sleep == Sleep::ForReal {
            let bell = self.world.borrow().bell(self.core);
            bell.wait();
        }
        Ok(())
    }

    fn call(&mut self, call: Call<'_>) -> io::Result<i32> {
        let answer = self.world.borrow_mut().call(self.core, call);
        answer.map_err(io::Error::from_raw_os_error)
    }

    unsafe fn register(&mut self, resource: Register) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        if let Register::RemoveBuffers { group } = resource {
            world.withdraw(self.core, group);
        }
        // SAFETY: the caller's promise, and what is registered goes with this driver.
        if let Some(provided) = unsafe { Provided::new(resource) } {
            world.provide(self.core, provided);
        }
        Ok(())
    }

    fn supports(&self, opcode: u8) -> bool {
        opcodes::name(opcode).is_some()
    }

    fn unparker(&self) -> Unparker {
        self.world.borrow().unparker(self.core)
    }

    fn now(&self) -> u64 {
        self.world.borrow().now()
    }

    fn counters(&self) -> Counters {
        self.world.borrow().counters(self.core)
    }

    fn resolve(&self, name: &str) -> Option<IpAddr> {
        self.world.borrow().resolve(name)
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn advance(&mut self, time: u64) -> bool {
        self.world.borrow_mut().advance_to(time);
        true
    }

    fn name(&self) -> &'static str {
        "simulator"
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.world.borrow_mut().retire(self.core);
    }
}
