//! The books of a run: held against each other after each turn, and closed at the end.

use std::time::Duration;

use super::machine::{Core, Machine};
use super::report::FailureKind;
use super::run::Fault;
use crate::driver::sim::Shared;

/// In virtual time, how long the end of a core may wait for its last answers.
const DRAIN: Duration = Duration::from_secs(3_600);

fn broken(text: String) -> Fault {
    (FailureKind::Runtime, format!("an invariant of the runtime is broken: {text}"))
}

/// After a turn: nothing is lost, and nothing is there twice.
pub(super) fn audit(world: &Shared, core: &Core) -> Result<(), Fault> {
    let stats = core.runtime.stats();
    let mut world = world.borrow_mut();
    world.audit(core.number, stats.live_ops, stats.leases, core.runtime.published());
    if stats.stray > 0 {
        return Err(broken("I4: an answer named no operation".to_owned()));
    }
    world.take_violation().map_or(Ok(()), |text| Err(broken(text)))
}

/// When every core sleeps: none has a reason to be awake that nobody will tell it of.
pub(super) fn quiescence(world: &Shared, machines: &[Machine]) -> Result<(), Fault> {
    let now = world.borrow().now();
    for (machine, core) in
        machines.iter().flat_map(|it| it.cores.iter().map(move |core| (it, core)))
    {
        let name = &machine.spec.name;
        if !core.runtime.is_quiet() {
            return Err(broken(format!("{name} sleeps although a task of it was woken")));
        }
        if core.runtime.next_timer().is_some_and(|due| due < now) {
            return Err(broken(format!("{name} sleeps although a timer of it is due")));
        }
    }
    Ok(())
}

/// Ends a core, and looks whether it leaves anything in flight. What it waits for may take time, which
/// passes for all.
pub(super) fn end(core: &mut Core, name: &str) -> Result<(), Fault> {
    let left = core.runtime.shutdown(DRAIN);
    let stats = core.runtime.stats();
    let levels = [left, stats.live_ops, stats.orphans, stats.leases];
    if levels != [0; 4] || stats.tasks + stats.timers > 0 || stats.stray > 0 {
        return Err(broken(format!("something is left on {name}: {stats:?}")));
    }
    Ok(())
}

/// Ends every core that has not, clients first, and looks whether anything is left.
pub(super) fn close(world: &Shared, machines: Vec<Machine>) -> Result<(), Fault> {
    let (clients, hosts): (Vec<_>, Vec<_>) =
        machines.into_iter().partition(|machine| machine.spec.is_client);
    let mut closed = Ok(());
    for machine in clients.into_iter().chain(hosts) {
        for mut core in machine.cores {
            closed = closed.and(end(&mut core, &machine.spec.name));
        }
    }
    let mut world = world.borrow_mut();
    if let Some(text) = world.take_violation() {
        closed = closed.and(Err(broken(text)));
    }
    for (name, count) in world.open_descriptors() {
        let text = format!("I7: {count} descriptors of {name} are open after its end");
        closed = closed.and(Err(broken(text)));
    }
    closed
}
