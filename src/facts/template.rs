//! Templates over facts: `/users/{path.id}`; `{{` and `}}` stand for braces.

use std::str::FromStr;

use super::{Fact, Facts, UnknownFact};

/// Text with facts in it, parsed once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Fact(Fact),
}

/// A part of a template, for those who escape by where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'t> {
    Text(&'t str),
    Fact(&'t Fact),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("`{{` without `}}`")]
    Unclosed,
    #[error("`}}` without `{{`")]
    Unopened,
    #[error(transparent)]
    Fact(#[from] UnknownFact),
}

impl TemplateError {
    pub fn help(&self) -> &'static str {
        match self {
            TemplateError::Unclosed | TemplateError::Unopened => {
                "write `{{` and `}}` for braces that are meant as text"
            }
            TemplateError::Fact(_) => UnknownFact::HELP,
        }
    }
}

impl Template {
    /// A page: only braces around the name of a fact mean anything, since styles and scripts are full of others.
    pub fn page(text: &str) -> Template {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, tail)) = rest.split_once('{') {
            plain.push_str(before);
            let fact = tail.split_once('}').and_then(|(name, after)| Some((name.parse::<Fact>().ok()?, after)));
            match fact {
                Some((fact, after)) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain).into()));
                    }
                    parts.push(Part::Fact(fact));
                    rest = after;
                }
                None => {
                    plain.push('{');
                    rest = tail;
                }
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Template { parts }
    }

    /// The text, if there is no fact in it.
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Its text and facts in order.
    pub fn pieces(&self) -> impl DoubleEndedIterator<Item = Piece<'_>> {
        self.parts.iter().map(|part| match part {
            Part::Text(text) => Piece::Text(text),
            Part::Fact(fact) => Piece::Fact(fact),
        })
    }

    /// The facts it needs.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Fact(fact) => Some(fact),
        })
    }

    /// The text with every fact filled in; `None` if one is missing, or a value holds a control character.
    pub fn render(&self, facts: &dyn Facts) -> Option<String> {
        self.render_with(facts, |_, value, out| out.push_str(value))
    }

    /// As `render`, but `write` appends each value, so that it can be escaped for where it goes.
    pub fn render_with(&self, facts: &dyn Facts, mut write: impl FnMut(&Fact, &str, &mut String)) -> Option<String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Fact(fact) => {
                    let value = facts.fact(fact)?;
                    if value.bytes().any(|byte| byte.is_ascii_control()) {
                        return None;
                    }
                    write(fact, &value, &mut out);
                }
            }
        }
        Some(out)
    }
}

impl FromStr for Template {
    type Err = TemplateError;
    fn from_str(text: &str) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(tail) = from.strip_prefix("{{") {
                plain.push('{');
                rest = tail;
            } else if let Some(tail) = from.strip_prefix("}}") {
                plain.push('}');
                rest = tail;
            } else if let Some(tail) = from.strip_prefix('{') {
                let (name, tail) = tail.split_once('}').ok_or(TemplateError::Unclosed)?;
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain).into()));
                }
                parts.push(Part::Fact(name.parse()?));
                rest = tail;
            } else {
                return Err(TemplateError::Unopened);
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Template { parts })
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    struct Fixed;
    impl Facts for Fixed {
        fn fact(&self, fact: &Fact) -> Option<Cow<'_, str>> {
            match fact {
                Fact::Capture(name) if &**name == "id" => Some("7".into()),
                Fact::Cookie(_) => Some("a\r\nb".into()),
                _ => None,
            }
        }
    }

    fn check(text: &str, expect: Option<&str>) {
        let template: Template = text.parse().expect(text);
        assert_eq!(template.render(&Fixed).as_deref(), expect, "{text}");
    }

    #[test]
    fn fills_in_facts() {
        check("/users/{path.id}/x", Some("/users/7/x"));
        check("plain", Some("plain"));
        check("", Some(""));
        check("{{literal}}", Some("{literal}"));
    }

    #[test]
    fn is_silent_when_a_fact_is_missing_or_dangerous() {
        check("/{path.other}", None);
        check("x{cookie.c}", None);
    }

    #[test]
    fn pages_keep_their_other_braces() {
        let page = Template::page("<style>a{color:red} @media(x){b{c:d}}</style>{path.id} {nonsense} {{path.id}} {");
        let rendered = page.render(&Fixed);
        assert_eq!(rendered.as_deref(), Some("<style>a{color:red} @media(x){b{c:d}}</style>7 {nonsense} {7} {"));
    }

    #[test]
    fn refuses_what_is_no_template() {
        assert_eq!("{path.id".parse::<Template>(), Err(TemplateError::Unclosed));
        assert_eq!("a}".parse::<Template>(), Err(TemplateError::Unopened));
        assert!(matches!("{nonsense}".parse::<Template>(), Err(TemplateError::Fact(_))));
    }
}
