//! What a core may run: the shapes of a main, and of what it returns.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Future;

use super::core::Core;
use super::error::BoxError;

/// Keeps [`Main`] and [`Outcome`] from being implemented elsewhere: its name cannot be said there.
#[derive(Debug)]
pub struct Seal;

/// What [`start_per_core`](super::start_per_core) runs on every core: an `async fn()` or an
/// `async fn(Core)`, or an async closure of either form.
///
/// It returns an [`Outcome`]. Each core calls it for itself, so what it makes need not be `Send`.
/// The type of a closure's parameter has to be written: `async |core: Core| ..`. It cannot be
/// implemented elsewhere; the parameter `Form` is found by the compiler.
#[diagnostic::on_unimplemented(
    message = "a core cannot run `{Self}`",
    label = "neither an `async fn()` nor an `async fn(Core)` that returns an `Outcome`",
    note = "write the type of a closure's parameter: `async |core: quoit::runtime::Core| ..`",
    note = "it returns `()` or `Result<(), E>`, and is `'static`"
)]
pub trait Main<Form>: 'static {
    /// Whether it is told that it shall stop, or is dropped then.
    #[doc(hidden)]
    const TAKES_CORE: bool;

    #[doc(hidden)]
    fn call(&self, core: Core, seal: Seal) -> impl Future<Output = Result<(), BoxError>>;
}

impl<F, R, M> Main<(fn() -> R, M)> for F
where
    F: AsyncFn() -> R + 'static,
    R: Outcome<M>,
{
    const TAKES_CORE: bool = false;

    async fn call(&self, _: Core, seal: Seal) -> Result<(), BoxError> {
        self().await.into_result(seal)
    }
}

impl<F, R, M> Main<(fn(Core) -> R, M)> for F
where
    F: AsyncFn(Core) -> R + 'static,
    R: Outcome<M>,
{
    const TAKES_CORE: bool = true;

    async fn call(&self, core: Core, seal: Seal) -> Result<(), BoxError> {
        self(core).await.into_result(seal)
    }
}

/// What a [`Main`] may return: `()`, a `Result` whose value is `()`, [`Infallible`] or `!`, or `!`.
///
/// The error is whatever converts into a `Box<dyn Error + Send + Sync>` ([`std::io::Error`] and
/// most others), or a `Box<dyn Error>`, of which only the text reaches the caller. It cannot be
/// implemented elsewhere; the parameter `Form` is found by the compiler.
#[diagnostic::on_unimplemented(
    message = "a main cannot return `{Self}`",
    label = "return `()`, or a `Result<(), E>` whose error can be boxed"
)]
pub trait Outcome<Form> {
    #[doc(hidden)]
    fn into_result(self, seal: Seal) -> Result<(), BoxError>;
}

/// The form of an outcome whose error goes to the caller as it is.
#[derive(Debug)]
pub struct AsItIs;

/// The form of an outcome of whose error the caller gets the text.
#[derive(Debug)]
pub struct AsText;

/// The type `!`, which has no name of its own yet.
type Never = <fn() -> ! as Returns>::Type;

#[doc(hidden)]
pub trait Returns {
    type Type;
}

impl<R> Returns for fn() -> R {
    type Type = R;
}

impl Outcome<AsItIs> for () {
    fn into_result(self, _: Seal) -> Result<(), BoxError> {
        Ok(())
    }
}

impl Outcome<AsItIs> for Never {
    fn into_result(self, _: Seal) -> Result<(), BoxError> {
        self
    }
}

impl<E: Into<BoxError>> Outcome<AsItIs> for Result<(), E> {
    fn into_result(self, _: Seal) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

impl<E: Into<BoxError>> Outcome<AsItIs> for Result<Infallible, E> {
    fn into_result(self, _: Seal) -> Result<(), BoxError> {
        match self {
            Ok(never) => match never {},
            Err(error) => Err(error.into()),
        }
    }
}

impl<E: Into<BoxError>> Outcome<AsItIs> for Result<Never, E> {
    fn into_result(self, _: Seal) -> Result<(), BoxError> {
        match self {
            Ok(never) => never,
            Err(error) => Err(error.into()),
        }
    }
}

impl Outcome<AsText> for Result<(), Box<dyn StdError>> {
    fn into_result(self, _: Seal) -> Result<(), BoxError> {
        self.map_err(|error| {
            // It may not leave its thread, so its text does, with those of its causes.
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text.into()
        })
    }
}
