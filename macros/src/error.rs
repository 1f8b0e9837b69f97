//! What is wrong, and the place in the program where it is.

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// A mistake of the user's.
pub(crate) struct Error {
    at: Span,
    text: String,
}

impl Error {
    pub(crate) fn new(at: Span, text: impl Into<String>) -> Self {
        Error { at, text: text.into() }
    }

    /// `::core::compile_error! { "text" }`, which the compiler reports at the place of its tokens.
    pub(crate) fn into_tokens(self) -> TokenStream {
        let mut text = Literal::string(&self.text);
        text.set_span(self.at);
        let mut group = Group::new(Delimiter::Brace, TokenTree::Literal(text).into());
        group.set_span(self.at);
        let mark = |mark, spacing| {
            let mut mark = Punct::new(mark, spacing);
            mark.set_span(self.at);
            TokenTree::Punct(mark)
        };
        let colons = || [mark(':', Spacing::Joint), mark(':', Spacing::Alone)];
        let word = |word| [TokenTree::Ident(Ident::new(word, self.at))];
        let path = colons().into_iter().chain(word("core")).chain(colons());
        let call = word("compile_error").into_iter().chain([mark('!', Spacing::Alone)]);
        path.chain(call).chain([TokenTree::Group(group)]).collect()
    }
}
