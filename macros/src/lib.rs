//! The attributes `#[quoit::main]` and `#[quoit::test]`, which quoit re-exports and documents.
//!
//! Both leave the function as it is written, put it into one of the same name that is not async, and
//! call it there, on a runtime:
//!
//! ```text
//!   #[quoit::main(cores = 2)]              fn main() -> ::quoit::runtime::Result<()> {
//!   async fn main() -> io::Result<()> {        async fn main() -> io::Result<()> { .. }
//!       ..                         ───▶        ::quoit::runtime::Builder::new()
//!   }                                              .cores(2).start_per_core(main)
//!                                          }
//! ```
//!
//! So every error of the compiler in it points at what the user wrote, and nothing of the language
//! has to be understood here but where a signature ends.

mod error;
mod function;
mod options;

use proc_macro::TokenStream;

use self::error::Error;
use self::function::Function;
use self::options::{Kind, Options};

/// Runs an async `main` on a runtime.
#[proc_macro_attribute]
pub fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(Kind::Main, options, item).unwrap_or_else(Error::into_tokens)
}

/// Makes a test of an async function.
#[proc_macro_attribute]
pub fn test(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(Kind::Test, options, item).unwrap_or_else(Error::into_tokens)
}

fn expand(kind: Kind, options: TokenStream, item: TokenStream) -> Result<TokenStream, Error> {
    let function = Function::parse(item)?;
    let options = Options::parse(kind, options)?;
    if kind == Kind::Test {
        function.forbid_parameters("a test has no parameters; nobody would pass them")?;
    } else if !options.is_per_core() {
        function.forbid_parameters(
            "a main on one core has no parameters; with `cores = ..` or `per_core` it may take a \
             `quoit::runtime::Core`",
        )?;
    }
    Ok(function.on_a_runtime(&options))
}
