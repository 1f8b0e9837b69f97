//! A program without sense: everything is started, dropped, aborted, closed and panicked at random.
//!
//! It checks nothing itself. That the runtime keeps its invariants, leaves nothing behind and comes
//! to an end is checked by the simulator.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::Shutdown;
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

use crate::loopback::Random;

/// Random numbers that all tasks of a core draw from.
#[derive(Clone)]
struct Dice(Rc<RefCell<Random>>);

impl Dice {
    fn new(seed: u64) -> Self {
        Dice(Rc::new(RefCell::new(Random::new(seed))))
    }

    fn below(&self, end: usize) -> usize {
        self.0.borrow_mut().below(end)
    }

    fn moment(&self) -> Duration {
        Duration::from_micros(1 << self.below(14))
    }
}

type Handles = Rc<RefCell<Vec<Handle>>>;

pub(super) fn program(seed: u64, faults: Faults, acts: usize) -> Sim {
    let handles = Handles::default();
    let starts = Rc::new(Cell::new(seed << 20));
    let limit = [2, 5, 1_000][seed as usize % 3];
    let mut sim = Sim::new(seed)
        .faults(faults)
        .steps(3_000)
        .builder(Builder::new().max_live_ops(limit))
        .host_with_cores("server", 2, async move |core: Core| {
            starts.set(starts.get() + 1);
            let dice = Dice::new(starts.get());
            handles.borrow_mut().push(core.handle());
            let host = dice.clone();
            drop(quoit::spawn(async move { serve_for_ever(&host).await }));
            loop {
                act(&dice, &handles).await;
            }
        });
    for (number, name) in ["one", "two"].into_iter().enumerate() {
        sim = sim.client(name, async move || {
            let dice = Dice::new(seed * 2 + number as u64);
            let mut tasks = Vec::new();
            for _ in 0..acts {
                let (dice, none) = (dice.clone(), Handles::default());
                tasks.push(quoit::spawn(async move { act(&dice, &none).await }));
                sleep(dice_moment(&tasks)).await;
            }
            for task in tasks {
                if timeout(Duration::from_secs(2), task).await.is_err() {
                    sleep(Duration::from_millis(1)).await;
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
    match dice.below(10) {
        0..=2 => serve_a_while(dice).await,
        3..=5 => drop(converse(dice).await),
        6 => drop(write_and_read(dice).await),
        7 => tasks(dice).await,
        8 => timers(dice).await,
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
        match dice.below(10) {
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
    let later = quoit::call_later(dice.moment(), || ());
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
