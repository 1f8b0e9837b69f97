//! Several futures of which the first to end is acted upon: `select!`.
//!
//! It is a macro because its handlers are code of the function around it: they may `return`, `break`
//! and use `?`. It is made of declarations only, so that nothing is compiled for it beforehand.

use super::Scheduler;
use crate::sys::current;

/// Waits for the first of several futures, drops the others, and runs the code that is written for it.
///
/// ```text
/// select! {
///     biased;                                          // optional
///     <pattern> = <future> (, if <condition>)? => <handler>,
///     ...
///     else => <expression>                             // optional
/// }
/// ```
///
/// 1. All conditions are evaluated. A branch whose condition is false is disabled. Its future is made,
///    as all others are, but not polled.
/// 2. The futures are polled inside this task, so nothing is spawned or allocated, and they may borrow,
///    also the same value mutably if their handlers do not.
/// 3. The output of the first that ends is compared with its pattern. If it does not match, then this
///    branch is disabled as well, and the others go on. If it does, all futures are dropped, and then
///    the handler runs, with what the pattern has bound. Its value is that of the `select!`.
/// 4. When all branches are disabled, the value is that of `else`.
///
/// A handler is an expression with a comma behind it, or a block, where the comma may be left out. It
/// is code of the function around it: `?`, `break`, `continue`, `return` and `await` do there what they
/// do outside. There may be 64 branches.
///
/// # Which comes first
///
/// Where several have ended, it is up to chance which counts: each poll begins at another branch, so
/// that one that is always ready does not starve the rest. (In the simulator the chance is the seed's.
/// Outside of a runtime it begins at the first.) With `biased;` in front they are polled in the order in
/// which they are written; then see to it that the first ones leave something to the others.
///
/// # What the losers lose
///
/// A future that is dropped here is dropped as anywhere. With those of this crate nothing is lost: what
/// arrives for a read, a receive or an accept that has lost goes to the next on its stream or listener.
/// A write may have been sent in part. An `async fn` of your own loses what it keeps in variables
/// between two awaits. To go on with a future in the next round of a loop instead, make it outside of
/// the loop and write `&mut future` in the branch.
///
/// # Panics
/// When all branches are disabled and there is no `else`.
///
/// ```
/// use quoit::time::sleep;
/// use std::time::Duration;
///
/// # quoit::runtime::run(async {
/// let mut slow = sleep(Duration::from_secs(3600));
/// let mut words = ["one", "two"].into_iter();
/// let mut heard = Vec::new();
/// loop {
///     quoit::select! {
///         _ = &mut slow => unreachable!("an hour has not passed"),
///         // The pattern of this branch fails when there are no words left.
///         Some(word) = async { words.next() } => heard.push(word),
///         _ = quoit::task::yield_now(), if heard.len() == 2 => break,
///     }
/// }
/// assert_eq!(heard, ["one", "two"]);
/// # }).unwrap();
/// ```
///
/// A server that stops when it is told to, and loses no connection by that:
///
/// ```no_run
/// use quoit::net::TcpListener;
/// use quoit::runtime::Core;
/// use quoit::task::JoinSet;
/// # async fn serve(_: quoit::net::TcpStream) {}
///
/// async fn main_of_a_core(core: Core) -> std::io::Result<()> {
///     let listener = TcpListener::bind("127.0.0.1:7000").await?;
///     let mut connections = JoinSet::new();
///     loop {
///         quoit::select! {
///             accepted = listener.accept() => { connections.spawn(serve(accepted?.0)); }
///             Some(_) = connections.join_next() => {}
///             _ = core.shutdown() => break,
///         }
///     }
///     connections.join_all_by(core.deadline()).await;
///     Ok(())
/// }
/// ```
#[macro_export]
macro_rules! select {
    () => { ::std::compile_error!("select! needs at least one branch") };
    ($(biased;)? else => $else:expr $(,)?) => { $else };
    (biased; $($branches:tt)+) => { $crate::select!(@names in_order $($branches)+) };

    // At most so many branches: their names in `Selected`.
    (@names $order:ident $($branches:tt)+) => {
        $crate::select!(@read $order [] [
            B0 B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11 B12 B13 B14 B15 B16 B17 B18 B19 B20 B21 B22 B23 B24
            B25 B26 B27 B28 B29 B30 B31 B32 B33 B34 B35 B36 B37 B38 B39 B40 B41 B42 B43 B44 B45 B46
            B47 B48 B49 B50 B51 B52 B53 B54 B55 B56 B57 B58 B59 B60 B61 B62 B63
        ] $($branches)+)
    };

    // One branch a step. `part` will be its future, `on` whether it is enabled: an identifier that a
    // macro makes is new in each step.
    (@read $order:ident $read:tt $names:tt) => {
        $crate::select!(@all $order $read
            ::std::panic!("all branches of a select! are disabled, and it has no `else`"))
    };
    (@read $order:ident $read:tt $names:tt else => $else:expr $(,)?) => {
        $crate::select!(@all $order $read $else)
    };
    (@read $order:ident $read:tt [] $($rest:tt)+) => {
        ::std::compile_error!("select! takes 64 branches at most")
    };
    (@read $order:ident [$($read:tt)*] [$name:ident $($names:ident)*]
        $pattern:pat = $future:expr $(, if $condition:expr)? => $handler:block, $($rest:tt)*
    ) => {
        $crate::select!(@read $order [$($read)*
            [part on _ $name $pattern, $future, [$($condition)?], $handler]
        ] [$($names)*] $($rest)*)
    };
    (@read $order:ident [$($read:tt)*] [$name:ident $($names:ident)*]
        $pattern:pat = $future:expr $(, if $condition:expr)? => $handler:block $($rest:tt)*
    ) => {
        $crate::select!(@read $order [$($read)*
            [part on _ $name $pattern, $future, [$($condition)?], $handler]
        ] [$($names)*] $($rest)*)
    };
    (@read $order:ident [$($read:tt)*] [$name:ident $($names:ident)*]
        $pattern:pat = $future:expr $(, if $condition:expr)? => $handler:expr $(, $($rest:tt)*)?
    ) => {
        $crate::select!(@read $order [$($read)*
            [part on _ $name $pattern, $future, [$($condition)?], $handler]
        ] [$($names)*] $($($rest)*)?)
    };

    (@all $order:ident [$([
        $part:ident $on:ident $any:tt $name:ident
        $pattern:pat, $future:expr, [$($condition:expr)?], $handler:expr
    ])+] $else:expr) => {{
        $(let $on = true $(&& $condition)?;)+
        // What the futures borrow for the length of a statement lives until they are dropped, which is
        // before a handler runs.
        #[allow(unused_mut, reason = "a pattern may bind to change")]
        let mut output: $crate::task::Selected<$($any),+> = match (
            $(::std::future::IntoFuture::into_future($future),)+
        ) {
            ($($part,)+) => {
                $(
                    let $part = ::std::pin::pin!($part);
                    let mut $part = $on.then_some($part);
                )+
                ::std::future::poll_fn(|context| {
                    let start = $crate::task::Start::$order([$($on),+].len());
                    let mut waits = false;
                    for round in start.rounds() {
                        let mut number = 0;
                        $(
                            if start.has_turn(number, round)
                                && let ::std::option::Option::Some(future) = &mut $part
                            {
                                match ::std::future::Future::poll(future.as_mut(), context) {
                                    ::std::task::Poll::Pending => waits = true,
                                    #[allow(unused_mut, unreachable_code, reason = "it may end in no way")]
                                    ::std::task::Poll::Ready(mut output) => {
                                        $part = ::std::option::Option::None;
                                        let mut is_match = false;
                                        // It looks and moves nothing: a guard that says no.
                                        #[allow(
                                            unused_variables,
                                            unused_mut,
                                            unreachable_patterns,
                                            reason = "it only looks"
                                        )]
                                        match output {
                                            $pattern if { is_match = true; false } => {
                                                ::std::unreachable!("the guard says no")
                                            }
                                            _ => {}
                                        }
                                        if is_match {
                                            let output = $crate::task::Selected::$name(output);
                                            return ::std::task::Poll::Ready(output);
                                        }
                                    }
                                }
                            }
                            number += 1;
                        )+
                        let _ = number;
                    }
                    if waits {
                        ::std::task::Poll::Pending
                    } else {
                        ::std::task::Poll::Ready($crate::task::Selected::Disabled)
                    }
                })
                .await
            }
        };
        match output {
            $(
                #[allow(unreachable_patterns, reason = "the future may end in no way")]
                $crate::task::Selected::$name($pattern) => $handler,
            )+
            $crate::task::Selected::Disabled => $else,
            #[allow(unreachable_patterns, reason = "most patterns match everything")]
            _ => ::std::unreachable!("what matched its pattern matches it again"),
        }
    }};

    ($($branches:tt)+) => { $crate::select!(@names from_anywhere $($branches)+) };
}

/// Where a poll of a `select!` begins, and in which order it goes on. For the macro only.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Start {
    first: usize,
    rounds: usize,
}

#[doc(hidden)]
impl Start {
    /// As the branches are written.
    #[inline]
    pub fn in_order(_branches: usize) -> Start {
        Start { first: 0, rounds: 1 }
    }

    /// By chance.
    #[inline]
    pub fn from_anywhere(branches: usize) -> Start {
        let first = current::with(|scheduler: &Scheduler| scheduler.choose(branches));
        Start { first: first.unwrap_or(0), rounds: 2 }
    }

    /// First those from the start on, then those before it.
    #[inline]
    pub fn rounds(self) -> std::ops::Range<usize> {
        0..self.rounds
    }

    #[inline]
    pub fn has_turn(self, number: usize, round: usize) -> bool {
        (number < self.first) == (round == 1)
    }
}

/// Which branch of a `select!` has ended, and with what. For the macro only: it names the types of the
/// branches that it has, and the others have no value.
macro_rules! selected {
    ($($name:ident)+) => {
        #[doc(hidden)]
        #[derive(Debug)]
        pub enum Selected<$($name = std::convert::Infallible),+> {
            $($name($name),)+
            Disabled,
        }
    };
}

selected! {
    B0 B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11 B12 B13 B14 B15 B16 B17 B18 B19 B20 B21 B22 B23 B24 B25 B26
    B27 B28 B29 B30 B31 B32 B33 B34 B35 B36 B37 B38 B39 B40 B41 B42 B43 B44 B45 B46 B47 B48 B49 B50 B51
    B52 B53 B54 B55 B56 B57 B58 B59 B60 B61 B62 B63
}
