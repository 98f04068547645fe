//! Parsing prompt templates, by the grammar in `docs/prompts.md`.

use super::error::{PromptError, PromptWarning};
use super::template::{Alternatives, Emphasis, Item, OptionItems, Template};

/// How deep brackets may be nested, as generators have it.
pub const MAX_DEPTH: usize = 3;

/// The most bytes of a prompt or template; text encoders read some thousand at the most.
pub const MAX_BYTES: usize = 100_000;

impl Template {
    /// Parses a template. A plain prompt is one too.
    ///
    /// # Errors
    /// If it is empty, brackets or parentheses are not balanced or nested too deep, or a weight is not a number.
    pub fn parse(text: &str) -> Result<Self, PromptError> {
        Self::parse_nested(text, MAX_DEPTH)
    }

    /// As [`parse`](Self::parse), with brackets nested up to `max_depth`, of at most 64.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_nested(text: &str, max_depth: usize) -> Result<Self, PromptError> {
        if text.is_empty() {
            return Err(PromptError::new(text, 0, "expected a prompt or a template, found nothing".into()));
        }
        if text.len() > MAX_BYTES {
            let found = format!(
                "a template has {MAX_BYTES} bytes at the most, this one has {}: several lines can be several templates",
                text.len()
            );
            return Err(PromptError::new(text, 0, found));
        }
        let mut parser =
            Parser { text, at: 0, brackets: 0, depth: 0, max_depth: max_depth.min(64), warnings: Vec::new() };
        let items = parser.items(Inside::Nothing, false)?;
        Ok(Self { items, warnings: parser.warnings })
    }
}

/// What a sequence of items is directly in.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Nothing,
    /// An option, from this `[`.
    Option(usize),
    /// An emphasis, from this `(`.
    Word(usize),
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    brackets: usize,
    depth: usize,
    max_depth: usize,
    warnings: Vec<PromptWarning>,
}

impl Parser<'_> {
    /// Parses up to what ends the sequence, which is left to the caller.
    fn items(&mut self, inside: Inside, in_word: bool) -> Result<Vec<Item>, PromptError> {
        let mut items = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(found) = rest.chars().next() else {
                return match inside {
                    Inside::Nothing => Ok(items),
                    Inside::Option(open) => self.error(open, "this `[` is not closed: expected a `]` behind it"),
                    Inside::Word(open) => self.error(open, "this `(` is not closed: expected a `)` behind it"),
                };
            };
            match (found, inside) {
                ('[', _) => items.push(Item::Choice(self.choice(in_word)?)),
                ('(', _) if in_word => {
                    return self
                        .error(self.at, "expected text or `)`, found `(`: an emphasis cannot be in another one");
                }
                ('(', _) => items.push(Item::Word(self.word()?)),
                ('|' | ']', Inside::Option(_)) | (')', Inside::Word(_)) => return Ok(items),
                (']' | '|', Inside::Word(open)) if self.depth > 0 => {
                    return self.error(open, &format!("this `(` is not closed: expected a `)` before the `{found}`"));
                }
                (']', _) => return self.error(self.at, "expected text, found a `]` without a `[` before it"),
                (')', Inside::Option(_)) if in_word => return self.error(self.at, "expected `|` or `]`, found `)`"),
                (')', _) => return self.error(self.at, "expected text, found a `)` without a `(` before it"),
                ('/', _) if self.depth > 0 => {
                    return self.error(self.at, "expected `|` between options, found `/`, which brackets cannot hold");
                }
                _ => items.push(self.run_of_text()),
            }
        }
    }

    /// The text up to the next character that may mean something.
    fn run_of_text(&mut self) -> Item {
        let rest = &self.text[self.at..];
        let is_special = |c: char| matches!(c, '[' | ']' | '(' | ')') || (self.depth > 0 && matches!(c, '|' | '/'));
        let mut text = String::new();
        let mut characters = rest.char_indices().peekable();
        let len = loop {
            match characters.next() {
                None => break rest.len(),
                // An escaped parenthesis is one of the text.
                Some((_, '\\')) => match characters.next_if(|(_, next)| matches!(next, '(' | ')')) {
                    Some((_, parenthesis)) => text.push(parenthesis),
                    None => text.push('\\'),
                },
                Some((at, special)) if is_special(special) => break at,
                Some((_, other)) => text.push(other),
            }
        };
        self.at += len;
        Item::Text { text }
    }

    fn choice(&mut self, in_word: bool) -> Result<Alternatives, PromptError> {
        let (open, bracket) = (self.at, self.brackets);
        if self.depth == self.max_depth {
            return self.error(open, &format!("brackets are nested {} deep at most: expected text", self.max_depth));
        }
        self.brackets += 1;
        self.depth += 1;
        let mut options = Vec::new();
        loop {
            // Behind the `[` or `|`.
            self.at += 1;
            let start = self.at;
            let option = self.option(open, in_word)?;
            let is_last = self.text[self.at..].starts_with(']');
            if is_last && start == self.at && !options.is_empty() {
                let message = "the empty last option is left out, as generators do: `[|a]` has an empty one and `a`";
                self.warn(start - 1, message);
            } else {
                options.push(option);
            }
            if is_last {
                self.at += 1;
                self.depth -= 1;
                return Ok(Alternatives::new(bracket, options));
            }
        }
    }

    fn option(&mut self, open: usize, in_word: bool) -> Result<OptionItems, PromptError> {
        let mut items = self.items(Inside::Option(open), in_word)?;
        let mut weight = None;
        let is_behind_word = matches!(items[..], [.., Item::Word(_), _]);
        if let Some(Item::Text { text }) = items.last_mut()
            && let Some((head, tail)) = text.rsplit_once(':')
            && looks_like_a_number(tail.trim())
        {
            let at = self.at - tail.trim_start().len();
            let number = tail.trim().parse().ok().filter(|weight: &f64| weight.is_finite());
            weight = match number {
                Some(number) if number > 0.0 => Some(number),
                Some(_) => return self.error(at, "the weight of an option is a number above 0"),
                None => return self.error(at, "expected the weight of an option, a number such as 2 or 0.5"),
            };
            if is_behind_word && head.trim().is_empty() {
                let message =
                    "the weight of the option; generators take it for text there, since it is right behind a `)`";
                self.warn(at - 1, message);
            }
            *text = head.to_owned();
        }
        trim(&mut items);
        Ok(OptionItems { items, weight })
    }

    fn word(&mut self) -> Result<Emphasis, PromptError> {
        let open = self.at;
        self.at += 1;
        let mut items = self.items(Inside::Word(open), true)?;
        let mut weight = None;
        if let Some(Item::Text { text }) = items.last_mut()
            && let Some((head, tail)) = text.rsplit_once(':')
            && looks_like_a_number(tail.trim())
        {
            // What looks like a number has no escapes: it is as long as it was written.
            let written_behind = tail.trim_start().len();
            let (head, tail) = (head.trim_end(), tail.trim());
            let at = self.at - written_behind;
            if !is_plain_number(tail) {
                return self
                    .error(at, "expected the weight of a word, a number such as 2.5, between the `:` and the `)`");
            }
            weight = tail.parse().ok().filter(|weight: &f64| weight.is_finite());
            if weight.is_none() {
                return self.error(at, "this weight is too large");
            }
            *text = head.to_owned();
        }
        items.retain(|item| !matches!(item, Item::Text { text } if text.is_empty()));
        if items.iter().all(|item| matches!(item, Item::Text { text } if text.trim().is_empty())) {
            return self.error(open + 1, "expected the word that the `(` is for");
        }
        // The `)`.
        self.at += 1;
        Ok(Emphasis { items, weight })
    }

    fn error<T>(&self, at: usize, message: &str) -> Result<T, PromptError> {
        Err(PromptError::new(self.text, at, message.to_owned()))
    }

    fn warn(&mut self, at: usize, message: &'static str) {
        self.warnings.push(PromptWarning { at, message });
    }
}

/// Removes the spaces around an option.
fn trim(items: &mut Vec<Item>) {
    if let Some(Item::Text { text }) = items.first_mut() {
        *text = text.trim_start().to_owned();
    }
    if let Some(Item::Text { text }) = items.last_mut() {
        *text = text.trim_end().to_owned();
    }
    items.retain(|item| !matches!(item, Item::Text { text } if text.is_empty()));
}

/// Whether something behind a colon is meant as a weight: in `a sign: open` and `at 10:30 pm` it is not.
fn looks_like_a_number(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | ',' | 'e' | 'E' | '_');
    text.contains(|c: char| c.is_ascii_digit()) && text.chars().all(is_part) && !text.starts_with(['e', 'E'])
}

/// Digits, with a point before the last of them or without.
fn is_plain_number(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or(("", text));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits(whole) && all_digits(fraction) && !fraction.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{collapse_spaces, parse_weighted};
    use unicode_width::UnicodeWidthStr;

    use super::*;

    fn error(text: &str) -> (usize, String) {
        let error = Template::parse(text).unwrap_err();
        (error.at, error.message)
    }

    #[test]
    fn errors_point_at_the_character() {
        assert_eq!(error("a [b|c").0, 2);
        assert_eq!(error("a b] c").0, 3);
        assert_eq!(error("a (b").0, 2);
        assert_eq!(error("a b)").0, 3);
        assert_eq!(error("[a/b]").0, 2);
        assert_eq!(error("[a [b [c [d]]]]").0, 9);
        assert_eq!(error("[a:0|b]").0, 3);
        assert_eq!(error("[a:-1|b]").0, 3);
        assert_eq!(error("[a: 2,5|b]").0, 4);
        assert_eq!(error("(a: 2,5)").0, 4);
        assert_eq!(error(r"(a\)").0, 0);
        assert_eq!(error(r"a\(b)").0, 4);
        assert_eq!(error("(a:1e3)").0, 3);
        assert_eq!(error("(:2)").0, 1);
        assert_eq!(error("()").0, 1);
        assert_eq!(error("((a))").0, 1);
        assert_eq!(error("[(a|b)]").0, 1);
        assert_eq!(error("").0, 0);
    }

    #[test]
    fn the_caret_is_below_the_character_in_any_script() {
        let text = Template::parse("花 [a/b]").unwrap_err().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "  花 [a/b]");
        assert_eq!(lines[2], format!("  {}^", " ".repeat(5)));
        let long = format!("{}[a/b]{}", "x".repeat(500), "y".repeat(500));
        let text = Template::parse(&long).unwrap_err().to_string();
        let lines: Vec<&str> = text.lines().collect();
        let caret = lines[2].chars().count() - 1;
        assert_eq!(lines[1].chars().nth(caret), Some('/'));
        assert!(lines[1].width() < 80, "{text}");
    }

    #[test]
    fn colons_that_are_not_weights_are_text() {
        let prompt = |text: &str| Template::parse(text).unwrap().variation(0).unwrap();
        assert_eq!(prompt("(a sign: open)").tokens[0].word, "a sign: open");
        assert_eq!(prompt("[at 10:30 pm|x]").prompt, "at 10:30 pm");
        assert_eq!(
            (prompt("(a 16:9:1.5)").tokens[0].word.as_str(), prompt("(a 16:9:1.5)").tokens[0].weight),
            ("a 16:9", 1.5)
        );
        assert_eq!(prompt("a/b | c:2").prompt, "a/b | c:2");
    }

    #[test]
    fn an_empty_last_option_is_warned_about() {
        let warnings = |text: &str| Template::parse(text).unwrap().warnings().len();
        assert_eq!(
            (warnings("[a|]"), warnings("[a||]"), warnings("[|a]"), warnings("[]"), warnings("[a| ]")),
            (1, 1, 0, 0, 0)
        );
        assert_eq!(warnings("[(a):2|b]"), 1);
    }

    #[test]
    fn a_thousand_open_brackets_are_an_error_and_no_crash() {
        let deep = "[".repeat(100_000);
        assert_eq!(error(&deep).0, 3);
        assert!(Template::parse_nested(&deep, usize::MAX).is_err());
        let nested = format!("{}a{}", "[".repeat(40), "]".repeat(40));
        assert_eq!(Template::parse_nested(&nested, 40).unwrap().to_string(), nested);
    }

    /// Templates, and what is nearly one.
    fn nearly_a_template() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[a-z ]{0,4}",
            Just("[".to_owned()),
            Just("]".to_owned()),
            Just("|".to_owned()),
            Just("(".to_owned()),
            Just(")".to_owned()),
            Just(":".to_owned()),
            "[0-9]{1,2}(\\.[0-9])?",
            "\\PC{0,3}",
            Just("[a|b".to_owned()),
            Just("(word:2.5)".to_owned()),
            Just("\\(".to_owned()),
            Just("\\)".to_owned()),
            Just("\\".to_owned()),
            Just(" : 1.5)".to_owned()),
            Just("/".to_owned()),
        ];
        proptest::collection::vec(part, 1..24).prop_map(|parts| parts.concat())
    }

    proptest! {
        // More with PROPTEST_CASES.
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(5_000)))]

        #[test]
        fn a_printed_template_parses_to_the_same(text in nearly_a_template()) {
            if let Ok(template) = Template::parse(&text) {
                let printed = template.to_string();
                let again = Template::parse(&printed).unwrap();
                prop_assert_eq!(again.items(), template.items(), "{:?} {:?}", text, printed);
                prop_assert_eq!(again.to_string(), printed);
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused_at_one_of_its_characters(text in "\\PC{0,40}|[\\[\\]()|:./0-9a ]{0,40}") {
            match Template::parse(&text) {
                Ok(template) => {
                    prop_assert_eq!(template.variations().take(50).count() as u64, template.count().min(50));
                }
                Err(error) => {
                    prop_assert!(text.is_char_boundary(error.at), "{:?}", error);
                    prop_assert!(error.to_string().lines().count() == 3);
                }
            }
        }

        #[test]
        fn every_variation_is_a_prompt_with_the_words_it_says(text in nearly_a_template()) {
            let Ok(template) = Template::parse(&text) else { return Ok(()) };
            for variation in template.variations().take(20) {
                for word in &variation.tokens {
                    prop_assert!(collapse_spaces(&variation.prompt).contains(&word.word));
                }
                prop_assert!(!variation.prompt.contains(['[', ']']));
                prop_assert!(text.contains('\\') || !variation.prompt.contains(['(', ')']));
                if let Ok(again) = parse_weighted(&variation.weighted_prompt) {
                    prop_assert_eq!((again.prompt, again.tokens), (variation.prompt, variation.tokens));
                }
            }
        }
    }
}
