//! A program without sense: everything is started, dropped, aborted, closed and panicked at random.
//!
//! It checks nothing itself. That the runtime keeps its invariants, leaves nothing behind and comes
//! to an end is checked by the simulator.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use quoit::fs::File;
use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{Builder, Core, Handle};
use quoit::sim::{Faults, Sim};
use quoit::task::{JoinHandle, yield_now};
use quoit::time::{Instant, interval, sleep, timeout};

use crate::numbers::Random;

/// What all tasks of a core draw from: bytes that somebody chose, and then random numbers.
#[derive(Clone)]
struct Dice(Rc<RefCell<Source>>);

struct Source {
    chosen: std::vec::IntoIter<u8>,
    random: Random,
}

impl Dice {
    fn new(seed: u64) -> Self {
        Dice::chosen(Vec::new(), seed)
    }

    fn chosen(bytes: Vec<u8>, seed: u64) -> Self {
        let (chosen, random) = (bytes.into_iter(), Random::new(seed));
        Dice(Rc::new(RefCell::new(Source { chosen, random })))
    }

    fn below(&self, end: usize) -> usize {
        let source = &mut *self.0.borrow_mut();
        match source.chosen.next() {
            Some(low) if end <= 256 => usize::from(low) % end,
            Some(low) => {
                let high = source.chosen.next().unwrap_or(0);
                usize::from(u16::from_le_bytes([low, high])) % end
            }
            None => source.random.below(end),
        }
    }

    fn moment(&self) -> Duration {
        Duration::from_micros(1 << self.below(14))
    }
}

type Handles = Rc<RefCell<Vec<Handle>>>;

/// The program of a seed: each core draws numbers of its own.
pub(crate) fn program(seed: u64, faults: Faults, acts: usize) -> Sim {
    make(seed, faults, acts, Dice::new)
}

/// The program that bytes choose, and what happens to it: they are the seed (8 bytes), how often each
/// fault strikes (1 byte each), the number of acts, and then every choice that the program makes.
pub(crate) fn of_bytes(bytes: &[u8]) -> Sim {
    let (seed, rest) = bytes.split_at(bytes.len().min(8));
    let mut number = [0; 8];
    number[..seed.len()].copy_from_slice(seed);
    // Seeds of hosts that start anew are made by shifting it.
    let seed = u64::from_le_bytes(number) >> 21;
    let (levels, rest) = rest.split_at(rest.len().min(KNOBS.len()));
    let turned = KNOBS.iter().zip(levels).filter(|(_, level)| **level >= 128);
    let faults = turned.fold(Faults::none(), |faults, (&(knob, usual), &level)| {
        knob(faults, (usual * f64::from(level % 16) / 2.0).min(1.0))
    });
    let (&acts, choices) = rest.split_first().unwrap_or((&0, &[]));
    let dice = Dice::chosen(choices.to_vec(), seed);
    make(seed, faults, 1 + usize::from(acts) % 30, move |_| dice.clone())
}

/// A knob, and how often it strikes among all of them.
type Turned = (fn(Faults, f64) -> Faults, f64);

const KNOBS: [Turned; 26] = [
    (Faults::partial_submits, 0.3),
    (Faults::refused_enters, 0.03),
    (Faults::small_queues, 0.5),
    (Faults::ended_multishots, 0.03),
    (Faults::late_cancels, 0.5),
    (Faults::interrupts, 0.02),
    (Faults::shuffle, 0.5),
    (Faults::spurious_wakes, 0.05),
    (Faults::scribble, 0.2),
    (Faults::delays, 0.1),
    (Faults::late_notices, 0.5),
    (Faults::sends_at_once, 0.3),
    (Faults::short_reads, 0.2),
    (Faults::short_writes, 0.2),
    (Faults::slow_network, 0.02),
    (Faults::partition, 0.005),
    (Faults::resets, 0.003),
    (Faults::vanishing_peers, 0.001),
    (Faults::refused_connects, 0.05),
    (Faults::no_buffers, 0.02),
    (Faults::no_memory, 0.01),
    (Faults::no_descriptors, 0.02),
    (Faults::disk_errors, 0.01),
    (Faults::full_disk, 0.01),
    (Faults::clock_jumps, 0.0005),
    (Faults::crashes, 0.0005),
];

fn make(seed: u64, faults: Faults, acts: usize, dice: impl Fn(u64) -> Dice + 'static) -> Sim {
    let dice = Rc::new(dice);
    let handles = Handles::default();
    let starts = Rc::new(Cell::new(seed << 20));
    let of_host = dice.clone();
    let limit = [2, 5, 1_000][seed as usize % 3];
    let mut sim = Sim::new(seed)
        .faults(faults)
        .steps(3_000)
        .builder(Builder::new().max_live_ops(limit))
        .host_with_cores("server", 2, async move |core: Core| {
            starts.set(starts.get() + 1);
            let dice = of_host(starts.get());
            handles.borrow_mut().push(core.handle());
            let host = dice.clone();
            drop(quoit::spawn(async move { serve_for_ever(&host).await }));
            loop {
                act(&dice, &handles).await;
            }
        });
    for (number, name) in ["one", "two"].into_iter().enumerate() {
        let dice = dice.clone();
        sim = sim.client(name, async move || {
            let dice = dice(seed * 2 + number as u64);
            let mut tasks = Vec::new();
            for _ in 0..acts {
                let (dice, none) = (dice.clone(), Handles::default());
                tasks.push(quoit::spawn(async move { act(&dice, &none).await }));
                sleep(dice_moment(&tasks)).await;
                yield_now().await;
            }
            for task in tasks {
                match timeout(Duration::from_secs(2), task).await {
                    Ok(Err(error)) => resume_unwind(error.try_into_panic().expect("a panic")),
                    Ok(Ok(())) => {}
                    Err(_) => sleep(Duration::from_millis(1)).await,
                }
            }
        });
    }
    sim
}

fn dice_moment(tasks: &[JoinHandle<()>]) -> Duration {
    Duration::from_micros(tasks.len() as u64 * 37 % 500)
}

/// Does one thing.
async fn act(dice: &Dice, handles: &Handles) {
    match dice.below(12) {
        0..=2 => serve_a_while(dice).await,
        3..=5 => drop(converse(dice).await),
        6 => drop(write_and_read(dice).await),
        7 => tasks(dice).await,
        8 => timers(dice).await,
        9 => crowd(dice).await,
        10 => line(dice).await,
        _ => send_away(dice, handles).await,
    }
    yield_now().await;
}

/// Polls a few times, with moments in between, and then drops the future.
async fn glance<F: Future>(dice: &Dice, future: F) -> Option<F::Output> {
    let future = pin!(future);
    match dice.below(4) {
        0 => Glance { future, polls: 1 + dice.below(3) }.await,
        1 => timeout(dice.moment(), future).await.ok(),
        _ => timeout(Duration::from_secs(1), future).await.ok(),
    }
}

/// Ends with nothing after so many polls.
struct Glance<'a, F> {
    future: Pin<&'a mut F>,
    polls: usize,
}

impl<F: Future> Future for Glance<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        self.polls -= 1;
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// There is always somebody to talk to, on a port of its own.
async fn serve_for_ever(dice: &Dice) {
    loop {
        let Ok(listener) = TcpListener::bind("0.0.0.0:7002").await else {
            sleep(dice.moment()).await;
            continue;
        };
        while let Ok((stream, _)) = listener.accept().await {
            let dice = dice.clone();
            let task = quoit::spawn(async move { abuse(&dice, stream).await });
            drop(task);
        }
    }
}

async fn serve_a_while(dice: &Dice) {
    let port = 7000 + dice.below(2) as u16;
    let Ok(listener) =
        TcpListener::bind(("0.0.0.0".parse::<std::net::IpAddr>().unwrap(), port)).await
    else {
        return sleep(dice.moment()).await;
    };
    for _ in 0..dice.below(6) {
        if let Some(Ok((stream, _))) = glance(dice, listener.accept()).await {
            let dice = dice.clone();
            let task = quoit::spawn(async move { abuse(&dice, stream).await });
            drop(task);
        }
    }
    if dice.below(2) == 0 {
        let _ = listener.close().await;
    }
}

async fn converse(dice: &Dice) -> io::Result<()> {
    let port = 7000 + dice.below(4).min(2);
    let connect = TcpStream::connect(format!("server:{port}"));
    if let Some(stream) = glance(dice, connect).await {
        abuse(dice, stream?).await;
    }
    Ok(())
}

/// Uses a connection in every way, and gives most of it up.
async fn abuse(dice: &Dice, stream: TcpStream) {
    let stream = Rc::new(stream);
    let mut kept = Vec::new();
    for _ in 0..dice.below(12) {
        let len = 1 << dice.below(16);
        match dice.below(12) {
            0 | 1 => {
                if let Some(Ok(Some(bytes))) = glance(dice, stream.recv()).await {
                    kept.push(bytes);
                }
            }
            2 => drop(glance(dice, stream.read(vec![0; len])).await),
            3 => drop(glance(dice, stream.read_exact(vec![0; len])).await),
            4 | 5 => drop(glance(dice, stream.write_all(vec![7; len])).await),
            6 => drop(glance(dice, stream.write_vectored((vec![7; len], "tail"))).await),
            7 => {
                let (stream, dice) = (stream.clone(), dice.clone());
                let task = quoit::spawn(async move {
                    let _ = glance(&dice, stream.read(vec![0; 100])).await;
                });
                if dice_of_task(&task) {
                    task.abort();
                }
            }
            8 => kept.clear(),
            10 => {
                // They wait for each other, and some are given up meanwhile.
                let bufs = (vec![8; len], "tail");
                quoit::join!(
                    glance(dice, stream.write_all(vec![7; len])),
                    glance(dice, stream.write_all_vectored(bufs)),
                    glance(dice, stream.write(vec![9; 100])),
                    glance(dice, stream.write_all("last"))
                );
            }
            9 => stream.set_zero_copy([None, Some(4096)][dice.below(2)]),
            _ => {
                let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][dice.below(3)];
                let _ = stream.shutdown(how);
            }
        }
    }
    let _ = stream.set_reset_on_close(dice.below(4) == 0);
    if let Some(stream) = Rc::into_inner(stream)
        && dice.below(2) == 0
    {
        drop(glance(dice, stream.close()).await);
    }
}

fn dice_of_task(task: &JoinHandle<()>) -> bool {
    !task.is_finished()
}

async fn write_and_read(dice: &Dice) -> io::Result<()> {
    let name = ["a", "b"][dice.below(2)];
    let mut options = File::options();
    let open = options.read(true).write(true).create(true).open(name);
    let Some(file) = glance(dice, open).await else { return Ok(()) };
    let file = file?;
    for _ in 0..dice.below(6) {
        let (len, offset) = (1 << dice.below(14), dice.below(10_000) as u64);
        match dice.below(6) {
            0 => drop(glance(dice, file.write_all_at(vec![1; len], offset)).await),
            1 => drop(glance(dice, file.read_at(vec![0; len], offset)).await),
            2 => drop(glance(dice, file.read_exact_at(vec![0; len], offset)).await),
            3 => drop(glance(dice, file.sync_all()).await),
            4 => drop(glance(dice, file.write_vectored_at(("head", vec![2; len]), offset)).await),
            _ => drop(file.len().await?),
        }
    }
    if dice.below(2) == 0 { file.close().await } else { Ok(()) }
}

async fn tasks(dice: &Dice) {
    let mut handles = Vec::new();
    for _ in 0..dice.below(8) {
        let dice = dice.clone();
        handles.push(quoit::spawn(async move {
            for _ in 0..dice.below(5) {
                match dice.below(3) {
                    0 => yield_now().await,
                    1 => sleep(dice.moment()).await,
                    _ => drop(converse(&dice).await),
                }
            }
        }));
    }
    for handle in handles {
        match dice.below(3) {
            0 => handle.abort(),
            1 => drop(handle),
            _ => drop(glance(dice, handle).await),
        }
    }
}

async fn timers(dice: &Dice) {
    let mut ticks = interval(dice.moment());
    let mut nap = pin!(sleep(dice.moment()));
    let due = Instant::now() + dice.moment();
    let called = Rc::new(Cell::new(due));
    let note = called.clone();
    let later = quoit::call_at(due, move || note.set(Instant::now()));
    let (start, moment) = (Instant::now(), dice.moment());
    sleep(moment).await;
    assert!(start.elapsed() >= moment, "a sleep of {moment:?} took {:?}", start.elapsed());
    for _ in 0..dice.below(5) {
        let _ = glance(dice, ticks.tick()).await;
        let _ = glance(dice, nap.as_mut()).await;
        let before = Instant::now();
        nap.as_mut().get_mut().reset(before + dice.moment());
        assert!(Instant::now() >= before);
    }
    if dice.below(2) == 0 {
        later.cancel();
    }
    assert!(called.get() >= due, "a callback was called before its time");
}

/// Has many wait at once, and gives all of them up in one moment.
async fn crowd(dice: &Dice) {
    let mut tasks = Vec::new();
    for _ in 0..dice.below(24) {
        tasks.push(quoit::spawn(async {
            let stream = TcpStream::connect("server:7002").await?;
            stream.recv().await.map(drop)
        }));
    }
    sleep(dice.moment()).await;
    tasks.iter().for_each(JoinHandle::abort);
}

/// Has many take turns at one connection, and some leave the line in the lap in which they are called.
/// The others are served: nobody who has left keeps the turn.
async fn line(dice: &Dice) {
    let connect = TcpStream::connect("server:7002");
    let Some(Ok(stream)) = glance(dice, connect).await else { return };
    let stream = Rc::new(stream);
    let write = |byte| {
        let stream = stream.clone();
        quoit::spawn(async move { drop(stream.write_all(vec![byte]).await) })
    };
    let mut waiting: Vec<_> = (0..2 + dice.below(7) as u8).map(write).collect();
    for _ in 0..dice.below(40) {
        yield_now().await;
        if dice.below(4) == 0 && !waiting.is_empty() {
            waiting.swap_remove(dice.below(waiting.len())).abort();
        }
    }
    // Not by the clock: it may jump.
    for _ in 0..50 {
        if waiting.iter().all(JoinHandle::is_finished) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("a write waits for a turn that nobody has");
}

async fn send_away(dice: &Dice, handles: &Handles) {
    let all: Vec<Handle> = handles.borrow().clone();
    if all.is_empty() {
        return;
    }
    let handle = &all[dice.below(all.len())];
    let moment = dice.moment();
    // A core that has crashed takes nothing any more.
    if let Ok(task) = handle.spawn_on(async move || sleep(moment).await) {
        drop(glance(dice, task).await);
    }
    let _ = handle.call_soon(|| ());
}
