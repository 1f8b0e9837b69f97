//! JSON, as far as a report needs it.

use std::fmt::{self, Write};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Flag(bool),
    Count(u64),
    /// One that is not finite has no form in JSON, and becomes `null`.
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    pub(super) fn text(text: impl Into<String>) -> Json {
        Json::Text(text.into())
    }

    pub(super) fn list<T>(items: &[T], json: impl Fn(&T) -> Json) -> Json {
        Json::List(items.iter().map(json).collect())
    }

    /// What is not known is `null`.
    pub(super) fn maybe<T>(value: Option<T>, json: impl FnOnce(T) -> Json) -> Json {
        value.map_or(Json::Null, json)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Flag(flag) => write!(f, "{flag}"),
            Json::Count(count) => write!(f, "{count}"),
            Json::Number(number) if number.is_finite() => write!(f, "{number}"),
            Json::Number(_) => f.write_str("null"),
            Json::Text(text) => write_text(text, f),
            Json::List(items) => write_all(f, ['[', ']'], items, |item, f| write!(f, "{item}")),
            Json::Object(fields) => write_all(f, ['{', '}'], fields, |(name, value), f| {
                write_text(name, f)?;
                write!(f, ":{value}")
            }),
        }
    }
}

fn write_all<T>(
    f: &mut fmt::Formatter<'_>,
    [open, close]: [char; 2],
    items: &[T],
    write: impl Fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    f.write_char(open)?;
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_char(',')?;
        }
        write(item, f)?;
    }
    f.write_char(close)
}

/// Quotes, backslashes and control characters cannot stand for themselves.
fn write_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            '\r' => f.write_str("\\r")?,
            '\0'..='\x1f' => write!(f, "\\u{:04x}", u32::from(c))?,
            _ => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_json_has_them() {
        let value = Json::Object(vec![
            ("none", Json::Null),
            ("flags", Json::list(&[true, false], |flag| Json::Flag(*flag))),
            ("count", Json::Count(u64::MAX)),
            ("numbers", Json::list(&[1.5, f64::NAN, f64::INFINITY], |it| Json::Number(*it))),
            ("empty", Json::List(vec![])),
            ("object", Json::Object(vec![])),
        ]);
        assert_eq!(
            value.to_string(),
            r#"{"none":null,"flags":[true,false],"count":18446744073709551615,"#.to_owned()
                + r#""numbers":[1.5,null,null],"empty":[],"object":{}}"#
        );
    }

    #[test]
    fn a_text_keeps_its_characters_whatever_they_are() {
        let text = Json::text("a\"b\\c\n\r\t\0\x1b\x7f/é€🦀").to_string();
        assert_eq!(text, "\"a\\\"b\\\\c\\n\\r\\t\\u0000\\u001b\x7f/é€🦀\"");
    }
}
