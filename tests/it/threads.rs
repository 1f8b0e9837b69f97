//! What may go to another thread, and what may not: the public types, one by one.

use std::rc::Rc;
use std::task::Waker;

use quoit::Forked;
use quoit::buf::{BufError, PooledBuf, Slice};
use quoit::driver::{Counters, Cqe, DriverKind, Fields, Unparker};
use quoit::fs::{File, OpenOptions};
use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{self, Builder, Core, CoreEnded, Handle, RemoteTask, Runtime, Stats};
use quoit::task::{JoinError, JoinHandle};
use quoit::time::{Deadline, Elapsed, Instant, Interval, Sleep, TimerHandle};

/// Whether a type is `Send`, and whether it is `Sync`: the inherent constant wins where its bound holds.
macro_rules! threads {
    ($type:ty) => {{
        #[allow(dead_code, reason = "each is used for the types that are not the other")]
        trait Neither {
            const SEND: bool = false;
            const SYNC: bool = false;
        }
        struct Asked<T: ?Sized>(std::marker::PhantomData<T>);
        impl<T: ?Sized> Neither for Asked<T> {}
        #[allow(dead_code, reason = "as above")]
        impl<T: ?Sized + Send> Asked<T> {
            const SEND: bool = true;
        }
        #[allow(dead_code, reason = "as above")]
        impl<T: ?Sized + Sync> Asked<T> {
            const SYNC: bool = true;
        }
        (Asked::<$type>::SEND, Asked::<$type>::SYNC)
    }};
}

const BOTH: (bool, bool) = (true, true);
const NEITHER: (bool, bool) = (false, false);

#[test]
fn what_names_a_core_goes_anywhere() {
    assert_eq!(threads!(Waker), BOTH);
    assert_eq!(threads!(Handle), BOTH);
    assert_eq!(threads!(Unparker), BOTH);
    assert_eq!(threads!(RemoteTask<u32>), BOTH);
    assert_eq!(threads!(JoinHandle<u32>), BOTH);
    assert_eq!(threads!(Sleep), BOTH);
    assert_eq!(threads!(Interval), BOTH);
    assert_eq!(threads!(TimerHandle), BOTH);
}

#[test]
fn a_handle_goes_where_its_output_may_go() {
    assert_eq!(threads!(JoinHandle<Rc<u32>>), NEITHER);
    assert_eq!(threads!(JoinHandle<std::cell::Cell<u32>>), (true, false));
    assert_eq!(threads!(RemoteTask<Rc<u32>>), NEITHER);
}

#[test]
fn what_a_core_has_stays_there() {
    assert_eq!(threads!(Runtime), NEITHER);
    assert_eq!(threads!(Core), NEITHER);
    assert_eq!(threads!(TcpStream), NEITHER);
    assert_eq!(threads!(TcpListener), NEITHER);
    assert_eq!(threads!(File), NEITHER);
    assert_eq!(threads!(PooledBuf), NEITHER);
    assert_eq!(threads!(Slice<PooledBuf>), NEITHER);
}

#[test]
fn what_is_only_a_value_goes_anywhere() {
    assert_eq!(threads!(Builder), BOTH);
    assert_eq!(threads!(OpenOptions), BOTH);
    assert_eq!(threads!(DriverKind), BOTH);
    assert_eq!(threads!(Stats), BOTH);
    assert_eq!(threads!(Counters), BOTH);
    assert_eq!(threads!(Cqe), BOTH);
    assert_eq!(threads!(Fields), BOTH);
    assert_eq!(threads!(Instant), BOTH);
    assert_eq!(threads!(Deadline), BOTH);
    assert_eq!(threads!(Slice<Vec<u8>>), BOTH);
}

#[test]
fn errors_go_anywhere_so_that_they_can_be_boxed() {
    assert_eq!(threads!(runtime::Error), BOTH);
    assert_eq!(threads!(BufError<Vec<u8>>), BOTH);
    assert_eq!(threads!(Elapsed), BOTH);
    assert_eq!(threads!(CoreEnded), BOTH);
    assert_eq!(threads!(Forked), BOTH);
    // What it panicked with is `Send`, and no more.
    assert!(threads!(JoinError).0);
}

/// The futures of a stream hold its state; no more can be said of an `async fn` than of its value.
#[test]
fn a_future_of_a_handle_stays_with_it() {
    trait Goes<T> {
        fn goes(&self) -> bool;
    }
    struct Ask<T>(std::marker::PhantomData<T>);
    impl<T: Send> Ask<T> {
        fn goes(&self) -> bool {
            true
        }
    }
    impl<T> Goes<T> for &Ask<T> {
        fn goes(&self) -> bool {
            false
        }
    }
    fn of<T>(_: impl FnOnce(&'static TcpStream) -> T) -> Ask<T> {
        Ask(std::marker::PhantomData)
    }
    assert!(of(|_| async { 7 }).goes());
    assert!(!(&of(|stream| stream.recv())).goes());
    assert!(!(&of(|stream| stream.read(Vec::new()))).goes());
    assert!(!(&of(|stream| stream.write_all(Vec::new()))).goes());
}
