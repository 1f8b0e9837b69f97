//! Telling many at once that they should end.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::sys::guard;

/// Asks those to end who look at it, and everybody who looks at one of its children.
///
/// It is asked, not forced: a task that does not look goes on. What is cancelled stays so. Clones are the
/// same token; dropping them cancels nothing, see [`drop_guard`](CancelToken::drop_guard).
///
/// ```
/// use quoit::sync::CancelToken;
///
/// # quoit::runtime::run(async {
/// let all = CancelToken::new();
/// let one = all.child();
/// let task = quoit::spawn({
///     let one = one.clone();
///     async move { one.run_until(std::future::pending::<()>()).await }
/// });
/// all.cancel();
/// assert!(one.is_cancelled());
/// assert_eq!(task.await.unwrap(), None);
/// # }).unwrap();
/// ```
///
/// It is for one core, and nothing in it is atomic. From another thread it is cancelled by the end of a
/// task that holds its guard:
///
/// ```
/// use quoit::sync::CancelToken;
///
/// # quoit::runtime::run(async {
/// let token = CancelToken::new();
/// let guard = token.clone().drop_guard();
/// let holder = quoit::spawn(async move {
///     let _guard = guard;
///     std::future::pending::<()>().await
/// });
/// let cancel = holder.abort_handle(); // it is Send
/// std::thread::spawn(move || cancel.abort());
/// token.cancelled().await;
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct CancelToken(Rc<Node>);

impl CancelToken {
    /// A token that is not cancelled and has no parent.
    #[must_use]
    pub fn new() -> Self {
        CancelToken(Rc::default())
    }

    /// A token that is cancelled with this one, or by itself alone. Of one that is cancelled already, it
    /// is cancelled from the start.
    ///
    /// ```
    /// use quoit::sync::CancelToken;
    ///
    /// let parent = CancelToken::new();
    /// let (one, two) = (parent.child(), parent.child());
    /// one.cancel();
    /// assert!(!parent.is_cancelled() && !two.is_cancelled());
    /// parent.cancel();
    /// assert!(two.is_cancelled() && parent.child().is_cancelled());
    /// ```
    #[must_use]
    pub fn child(&self) -> CancelToken {
        let (parent, child) = (&self.0, CancelToken::new());
        if parent.cancelled.get() {
            child.0.cancelled.set(true);
        } else {
            let place = parent.children.borrow_mut().insert(Rc::downgrade(&child.0));
            child.0.parent.set(Some((Rc::clone(parent), place)));
        }
        child
    }

    /// Cancels this token, its children, theirs, and so on, and wakes all who wait for that. The second
    /// time it does nothing.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Whether it was cancelled, or a token that it is a child of.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.get()
    }

    /// Ends when the token is cancelled; at once if that has happened. Dropping it loses nothing.
    ///
    /// ```
    /// use quoit::sync::CancelToken;
    ///
    /// # quoit::runtime::run(async {
    /// let token = CancelToken::new();
    /// let stop = token.clone();
    /// quoit::call_soon(move || stop.cancel());
    /// quoit::select! {
    ///     _ = token.cancelled() => {}
    ///     _ = quoit::time::sleep(std::time::Duration::MAX) => unreachable!(),
    /// }
    /// # }).unwrap();
    /// ```
    pub fn cancelled(&self) -> Cancelled {
        Cancelled { node: Rc::clone(&self.0), place: None }
    }

    /// Awaits `future` until the token is cancelled: `None` then, and the future is dropped.
    ///
    /// The future is polled first, so an output that is there wins.
    pub async fn run_until<F: IntoFuture>(&self, future: F) -> Option<F::Output> {
        let (mut future, mut cancelled) = (pin!(future.into_future()), self.cancelled());
        std::future::poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            Pin::new(&mut cancelled).poll(context).map(|()| None)
        })
        .await
    }

    /// Cancels the token when the guard is dropped, be it by a panic or an early return.
    ///
    /// ```
    /// use quoit::sync::CancelToken;
    ///
    /// let token = CancelToken::new();
    /// let guard = token.clone().drop_guard();
    /// drop(guard);
    /// assert!(token.is_cancelled());
    /// ```
    #[must_use = "it cancels the token when it is dropped"]
    pub fn drop_guard(self) -> DropGuard {
        DropGuard(Some(self))
    }
}

impl Default for CancelToken {
    fn default() -> Self {
        CancelToken::new()
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("is_cancelled", &self.is_cancelled()).finish()
    }
}

/// Cancels a token when it is dropped: see [`CancelToken::drop_guard`].
#[derive(Debug)]
pub struct DropGuard(Option<CancelToken>);

impl DropGuard {
    /// Gives the token back, which is not cancelled by that.
    #[must_use]
    pub fn disarm(mut self) -> CancelToken {
        self.0.take().expect("it is there until the drop")
    }
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        if let Some(token) = &self.0 {
            token.cancel();
        }
    }
}

/// One token. It is kept by its clones and its children, and knows its children without keeping them.
#[derive(Default)]
struct Node {
    cancelled: Cell<bool>,
    /// Until it is cancelled: the parent, and the place among its children.
    parent: Cell<Option<(Rc<Node>, usize)>>,
    children: RefCell<Slab<Weak<Node>>>,
    waiting: RefCell<Slab<Waker>>,
}

impl Node {
    fn cancel(self: &Rc<Self>) {
        // Tokens may be nested as deep as one likes, so this goes round, not down.
        let (mut nodes, mut wakers) = (vec![Rc::clone(self)], Vec::new());
        let mut parents = Vec::new();
        while let Some(node) = nodes.pop() {
            if node.cancelled.replace(true) {
                continue;
            }
            if let Some((parent, place)) = node.parent.take() {
                parent.children.borrow_mut().try_remove(place);
                parents.push(parent);
            }
            let children = std::mem::take(&mut *node.children.borrow_mut());
            nodes.extend(children.into_iter().filter_map(|(_, child)| child.upgrade()));
            let waiting = std::mem::take(&mut *node.waiting.borrow_mut());
            wakers.extend(waiting.into_iter().map(|(_, waker)| waker));
        }
        // A waker may do anything, so all of them find what is cancelled so.
        wakers.into_iter().for_each(guard::wake);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A child that goes may be the last to keep its parent, and so on: this goes round as well.
        let mut parent = self.parent.take();
        while let Some((node, place)) = parent {
            node.children.borrow_mut().try_remove(place);
            parent = Rc::into_inner(node).and_then(|node| node.parent.take());
        }
    }
}

/// The future of [`CancelToken::cancelled`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Cancelled {
    node: Rc<Node>,
    /// Where its waker is.
    place: Option<usize>,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.node.cancelled.get() {
            this.place = None;
            return Poll::Ready(());
        }
        let known = this
            .place
            .is_some_and(|place| this.node.waiting.borrow()[place].will_wake(context.waker()));
        if !known {
            // Cloning and dropping a waker runs its code, so not under the borrow.
            let waker = context.waker().clone();
            if this.node.cancelled.get() {
                // By that code. Those who waited have been woken, and the places are gone.
                this.place = None;
                guard::discard(Some(waker));
                return Poll::Ready(());
            }
            let mut waiting = this.node.waiting.borrow_mut();
            let displaced = match this.place {
                Some(place) => Some(std::mem::replace(&mut waiting[place], waker)),
                None => {
                    this.place = Some(waiting.insert(waker));
                    None
                }
            };
            drop(waiting);
            guard::discard(displaced);
        }
        Poll::Pending
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let Some(place) = self.place.take()
            && !self.node.cancelled.get()
        {
            let waker = self.node.waiting.borrow_mut().remove(place);
            guard::discard(Some(waker));
        }
    }
}

impl fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancelled").field("is_ready", &self.node.cancelled.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_is_cancelled_leaves_no_place_behind() {
        let parent = CancelToken::new();
        let children = [parent.child(), parent.child()];
        assert_eq!(parent.0.children.borrow().len(), 2);
        children[0].cancel();
        assert_eq!(parent.0.children.borrow().len(), 1);
        drop(children);
        assert!(parent.0.children.borrow().is_empty());
    }
}
