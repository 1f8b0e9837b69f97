//! Wakers whose clone and drop run code, as those of a user may: whoever waits with one is woken all
//! the same.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use quoit::io::{AsyncRead, AsyncWrite, pipe};
use quoit::mesh;
use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::run;
use quoit::sync::{
    Barrier, CancelToken, Condvar, Event, Gate, Mutex, Notify, OnceCell, RwLock, Semaphore,
    broadcast, mpsc, oneshot, watch,
};
use quoit::task::{gather, scope};

use crate::support::on_every_driver;

type Waiting = Pin<Box<dyn Future<Output = ()>>>;
type Code = Box<dyn FnOnce()>;

thread_local! {
    static ON_CLONE: RefCell<Option<Code>> = const { RefCell::new(None) };
    static ON_DROP: RefCell<Option<Code>> = const { RefCell::new(None) };
    /// How often each waker was woken.
    static WAKES: [Cell<usize>; 2] = const { [Cell::new(0), Cell::new(0)] };
}

fn run_code(place: &RefCell<Option<Code>>) {
    let code = place.borrow_mut().take();
    code.into_iter().for_each(|code| code());
}

static HOOKED: RawWakerVTable = RawWakerVTable::new(
    |number| {
        ON_CLONE.with(run_code);
        RawWaker::new(number, &HOOKED)
    },
    wake,
    wake,
    |_| ON_DROP.with(run_code),
);

fn wake(number: *const ()) {
    WAKES.with(|wakes| wakes[number.addr()].update(|wakes| wakes + 1));
}

/// One of two wakers, which run code if there is some; its own drop runs none.
struct Hooked(std::mem::ManuallyDrop<Waker>);

impl Hooked {
    fn new(number: usize) -> Self {
        WAKES.with(|wakes| wakes[number].set(0));
        let waker = RawWaker::new(std::ptr::without_provenance(number), &HOOKED);
        // SAFETY: what the waker points at is a number, and its functions look at thread-locals.
        Hooked(std::mem::ManuallyDrop::new(unsafe { Waker::from_raw(waker) }))
    }

    fn poll<F: Future + ?Sized>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&self.0))
    }

    fn was_woken(&self) -> bool {
        WAKES.with(|wakes| wakes[self.0.data().addr()].get() > 0)
    }
}

/// When the code runs that lets whoever waits go on.
#[derive(Debug, Clone, Copy)]
enum When {
    /// When the waker of the first poll is cloned.
    FirstClone,
    /// When that of the second poll is, which is another one.
    SecondClone,
    /// When that of the first poll is dropped, because there is a second.
    Displaced,
    Afterwards,
}

fn is_heard(name: &str, when: When, mut future: Waiting, event: Code) {
    let (first, second) = (Hooked::new(0), Hooked::new(1));
    let place = if let When::FirstClone | When::SecondClone = when { &ON_CLONE } else { &ON_DROP };
    let set = |event| place.with(|place| *place.borrow_mut() = Some(event));
    let mut event = Some(event);
    if let When::FirstClone = when {
        event.take().into_iter().for_each(set);
    }
    let mut is_ready = first.poll(future.as_mut()).is_ready();
    assert!(!is_ready || matches!(when, When::FirstClone), "{name} waits at first");
    if !is_ready && !matches!(when, When::FirstClone) {
        if let When::SecondClone | When::Displaced = when {
            event.take().into_iter().for_each(set);
        }
        is_ready = second.poll(future.as_mut()).is_ready();
    }
    // What keeps the waker of another place needs no clone of this one.
    place.with(run_code);
    event.into_iter().for_each(|event| event());
    let newest = if let When::FirstClone = when { &first } else { &second };
    assert!(is_ready || newest.was_woken(), "{name} waits for ever: {when:?}");
    assert!(
        is_ready || newest.poll(future.as_mut()).is_ready(),
        "{name} was woken for nothing: {when:?}"
    );
}

/// Whoever waits for `future` is told of `event`, whenever that happens.
fn hears<F: Future + 'static, E: FnOnce() + 'static>(name: &str, make: impl Fn() -> (F, E)) {
    for when in [When::FirstClone, When::SecondClone, When::Displaced, When::Afterwards] {
        let (future, event) = make();
        let future = Box::pin(async move { drop(future.await) });
        is_heard(name, when, future, Box::new(event));
    }
}

/// Polls once, for what is to wait.
fn begun<F: Future>(future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    future
}

/// Two to have one and the same.
fn shared<T>(value: T) -> (Rc<T>, Rc<T>) {
    let value = Rc::new(value);
    (value.clone(), value)
}

#[test]
fn locks_are_got_whenever_they_are_given() {
    hears("a semaphore", || {
        let semaphore = Rc::new(Semaphore::new(1));
        let permit = semaphore.clone().try_acquire_owned().unwrap();
        (semaphore.acquire_owned(), || drop(permit))
    });
    hears("a semaphore that is closed", || {
        let semaphore = Rc::new(Semaphore::new(0));
        (semaphore.clone().acquire_owned(), move || semaphore.close())
    });
    hears("a mutex", || {
        let (waits, holds) = shared(Mutex::new(7));
        let holder = begun(async move {
            let _held = holds.lock().await;
            pending::<()>().await;
        });
        (async move { *waits.lock().await }, || drop(holder))
    });
    hears("a reader", || {
        let (waits, holds) = shared(RwLock::new(7));
        let holder = begun(async move {
            let _held = holds.write().await;
            pending::<()>().await;
        });
        (async move { *waits.read().await }, || drop(holder))
    });
    hears("a writer", || {
        let (waits, holds) = shared(RwLock::new(7));
        let holder = begun(async move {
            let _held = holds.read().await;
            pending::<()>().await;
        });
        (async move { *waits.write().await }, || drop(holder))
    });
    hears("who needs a value", || {
        let (waits, makes) = shared(OnceCell::new());
        let maker = begun(async move { *makes.get_or_init(pending::<i32>).await });
        (async move { *waits.get_or_init(async || 7).await }, || drop(maker))
    });
}

#[test]
fn notifications_arrive_whenever_they_are_sent() {
    hears("who is notified alone", || {
        let (waits, notify) = shared(Notify::new());
        (async move { waits.notified().await }, move || notify.notify_one())
    });
    hears("who is notified with all", || {
        let (waits, notify) = shared(Notify::new());
        (async move { waits.notified().await }, move || notify.notify_waiters())
    });
    hears("who waits for an event", || {
        let (waits, event) = shared(Event::new());
        (async move { waits.wait().await }, move || event.set())
    });
    hears("who waits under a lock", || {
        let (waits, pair) = shared((Mutex::new(7), Condvar::new()));
        let waits = async move { *waits.1.wait(waits.0.lock().await).await };
        (waits, move || pair.1.notify_one())
    });
    hears("who waits at a barrier", || {
        let (waits, barrier) = shared(Barrier::new(2));
        let last = move || {
            let mut last = pin!(barrier.wait());
            assert!(last.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        };
        (async move { waits.wait().await }, last)
    });
    hears("who closes a gate", || {
        let gate = Gate::new();
        let pass = gate.enter().unwrap();
        (gate.close(), || drop(pass))
    });
    hears("who waits for a cancel", || {
        let token = CancelToken::new();
        (token.cancelled(), move || token.cancel())
    });
    hears("who waits for the cancel of a parent", || {
        let token = CancelToken::new();
        (token.child().cancelled(), move || token.cancel())
    });
    hears("who gathers", || {
        let (waits, notify) = shared(Notify::new());
        (gather([async move { waits.notified().await }]), move || notify.notify_one())
    });
}

#[test]
fn messages_arrive_whenever_they_are_sent() {
    hears("the receiver of one value", || {
        let (sender, receiver) = oneshot::channel();
        (receiver, || sender.send(7).unwrap())
    });
    hears("the receiver of no value", || {
        let (sender, receiver) = oneshot::channel::<i32>();
        (receiver, || drop(sender))
    });
    hears("the sender of a value that nobody wants", || {
        let (mut sender, receiver) = oneshot::channel::<i32>();
        (async move { sender.closed().await }, || drop(receiver))
    });
    hears("a receiver", || {
        let (sender, mut receiver) = mpsc::channel(1);
        (async move { receiver.recv().await }, move || sender.try_send(7).unwrap())
    });
    hears("a receiver whose senders go", || {
        let (sender, mut receiver) = mpsc::channel::<i32>(1);
        (async move { receiver.recv().await }, || drop(sender))
    });
    hears("the receiver of many", || {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        (async move { receiver.recv_many(&mut Vec::new(), 9).await }, move || {
            sender.send(7).unwrap()
        })
    });
    hears("a sender without room", || {
        let (sender, mut receiver) = mpsc::channel(1);
        sender.try_send(7).unwrap();
        (async move { sender.reserve_owned().await.is_ok() }, move || {
            receiver.try_recv().unwrap();
        })
    });
    hears("a sender whose receiver goes", || {
        let (sender, receiver) = mpsc::channel::<i32>(1);
        (async move { sender.closed().await }, || drop(receiver))
    });
    hears("the receiver of a broadcast", || {
        let (sender, mut receiver) = broadcast::channel(1);
        (async move { receiver.recv().await }, move || assert_eq!(sender.send(7), Ok(1)))
    });
    hears("the sender of a broadcast", || {
        let (sender, receiver) = broadcast::channel::<i32>(1);
        (async move { sender.closed().await }, || drop(receiver))
    });
    hears("a watcher", || {
        let (sender, mut receiver) = watch::channel(7);
        (async move { receiver.changed().await }, move || sender.send(8).unwrap())
    });
    hears("who is watched", || {
        let (sender, receiver) = watch::channel(7);
        (async move { sender.closed().await }, || drop(receiver))
    });
    hears("the receiver of another core", || {
        let (mut sender, mut receiver) = mesh::channel(1);
        (async move { receiver.recv().await }, move || sender.try_send(7).unwrap())
    });
    hears("the sender to another core", || {
        let (mut sender, mut receiver) = mesh::channel(1);
        sender.try_send(7).unwrap();
        (async move { sender.ready().await }, move || assert_eq!(receiver.try_recv(), Ok(7)))
    });
}

#[test]
fn bytes_arrive_whenever_they_are_written() {
    hears("the reader of a pipe", || {
        let (reader, writer) = pipe(4);
        (async move { drop(reader.recv().await) }, move || {
            let mut write = pin!(writer.write_all("byte"));
            let written = write.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(written.is_ready());
        })
    });
    hears("the reader of a pipe that ends", || {
        let (reader, writer) = pipe(4);
        (async move { drop(reader.recv().await) }, || drop(writer))
    });
    hears("the writer of a pipe that is full", || {
        let (reader, writer) = pipe(4);
        (async move { drop(writer.write_all("too long").await) }, move || {
            let mut first = pin!(reader.recv());
            assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        })
    });
    hears("the writer of a pipe that nobody reads", || {
        let (reader, writer) = pipe(4);
        (async move { drop(writer.write_all("too long").await) }, || drop(reader))
    });
}

#[test]
fn the_end_of_a_task_is_told_whenever_it_comes() {
    run(async {
        hears("who awaits a task of a scope", || {
            let handle = Rc::new(Cell::new(None));
            let place = handle.clone();
            let whole = begun(scope(async move |scope| {
                place.set(Some(scope.spawn(pending::<Result<(), ()>>())));
                pending::<Result<(), ()>>().await
            }));
            (handle.take().unwrap(), || drop(whole))
        });
    })
    .unwrap();
}

#[test]
fn a_turn_is_got_whenever_it_is_passed_on() {
    on_every_driver(|| async {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let accept = || {
            let listener = listener.clone();
            async move { listener.accept().await.unwrap().1 }
        };
        // It is passed on while the next comes to wait for it.
        let first = begun(accept());
        let mut second = Box::pin(accept());
        ON_CLONE.with(|place| *place.borrow_mut() = Some(Box::new(|| drop(first))));
        assert!(Hooked::new(0).poll(second.as_mut()).is_pending());
        assert!(ON_CLONE.take().is_none(), "the waker was cloned");
        let client = TcpStream::connect(address).await.unwrap();
        assert_eq!(second.await, client.local_addr().unwrap());

        // Whoever gets it brings a waker that panics when it is dropped.
        let (first, mut second, third) = (begun(accept()), begun(accept()), begun(accept()));
        drop(first);
        ON_DROP.with(|place| *place.borrow_mut() = Some(Box::new(|| panic!("on purpose"))));
        let polled = catch_unwind(AssertUnwindSafe(|| Hooked::new(0).poll(second.as_mut())));
        ON_DROP.take();
        drop(second);
        let client = TcpStream::connect(address).await.unwrap();
        assert_eq!(third.await, client.local_addr().unwrap());
        assert!(polled.is_ok_and(|polled| polled.is_pending()), "the panic is its own");
    });
}
