//! The function under an attribute, taken apart as far as is needed.

use proc_macro::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};

use crate::error::Error;
use crate::options::{Kind, Options};

/// `#[attributes] pub async fn name(parameters) -> Result { body }`
pub(crate) struct Function {
    attributes: TokenStream,
    visibility: TokenStream,
    /// From `async` to the end of the body.
    whole: TokenStream,
    name: Ident,
    parameters: Group,
    /// `-> Result`, if that is there.
    result: TokenStream,
    body: Span,
}

impl Function {
    pub(crate) fn parse(item: TokenStream) -> Result<Self, Error> {
        let tokens: Vec<TokenTree> = item.into_iter().collect();
        let mut at = 0;
        while is_mark(tokens.get(at), '#') {
            at += 2;
        }
        let attributes = at;
        if is_word(tokens.get(at), "pub") {
            at += 1;
            if matches!(tokens.get(at), Some(TokenTree::Group(group))
                if group.delimiter() == Delimiter::Parenthesis)
            {
                at += 1;
            }
        }
        let visibility = at;
        let here = |at: usize| tokens.get(at).map_or_else(Span::call_site, TokenTree::span);
        if is_word(tokens.get(at), "fn") {
            let text = "the function has to be async: write `async fn`";
            return Err(Error::new(here(at), text));
        }
        if !is_word(tokens.get(at), "async") || !is_word(tokens.get(at + 1), "fn") {
            return Err(Error::new(here(at), "this attribute is for an `async fn`"));
        }
        let Some(TokenTree::Ident(name)) = tokens.get(at + 2) else {
            return Err(Error::new(here(at + 1), "the function needs a name"));
        };
        let parameters = match tokens.get(at + 3) {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => group,
            _ => return Err(Error::new(here(at + 3), "the function may not be generic")),
        };
        let body = match tokens.last() {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => group,
            _ => return Err(Error::new(name.span(), "the function needs a body")),
        };
        let part = |from: usize, to: usize| tokens[from..to].iter().cloned().collect();
        Ok(Function {
            attributes: part(0, attributes),
            visibility: part(attributes, visibility),
            whole: part(visibility, tokens.len()),
            name: name.clone(),
            parameters: parameters.clone(),
            result: part(at + 4, tokens.len() - 1),
            body: body.span(),
        })
    }

    pub(crate) fn forbid_parameters(&self, text: &str) -> Result<(), Error> {
        match self.parameters.stream().is_empty() {
            true => Ok(()),
            false => Err(Error::new(self.parameters.span(), text)),
        }
    }

    /// The function in one that is not async, and calls it.
    pub(crate) fn on_a_runtime(self, options: &Options) -> TokenStream {
        let call = options.call(&self.name.to_string());
        let mut body = self.whole;
        // Its tokens have the place of the user's body: what is wrong with the result is shown there.
        let call = tokens(&call).into_iter().map(|mut token| {
            token.set_span(token.span().located_at(self.body));
            token
        });
        body.extend(call);
        let mut body = Group::new(Delimiter::Brace, body);
        body.set_span(self.body);
        let mut item = TokenStream::new();
        if options.kind == Kind::Test {
            item.extend(tokens("#[::core::prelude::v1::test]"));
        }
        item.extend(self.attributes);
        item.extend(self.visibility);
        item.extend(tokens("fn"));
        item.extend([
            TokenTree::Ident(self.name),
            TokenTree::Group(Group::new(Delimiter::Parenthesis, TokenStream::new())),
        ]);
        match options.result() {
            Some(result) => item.extend(tokens(&format!("-> {result}"))),
            None => item.extend(self.result),
        }
        item.extend([TokenTree::Group(body)]);
        item
    }
}

/// What this crate wrote itself, as tokens.
fn tokens(text: &str) -> TokenStream {
    text.parse().expect("this crate writes tokens")
}

fn is_word(token: Option<&TokenTree>, word: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident.to_string() == word)
}

fn is_mark(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}
