//! The variations of a template, computed one by one from their numbers: a million of them takes no more memory than
//! one.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::collapse_spaces;
use super::error::PromptError;
use super::template::{Alternatives, Emphasis, Item, Template, escaped};

/// One of the prompts that a template stands for.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Variation {
    /// Its number among the template's variations, from 0. The leftmost choice changes slowest.
    pub variation: u64,
    /// The prompt without any syntax.
    pub prompt: String,
    /// The prompt with its emphasis: `a (flower:2.5)`.
    pub weighted_prompt: String,
    /// The words in parentheses, in order.
    pub tokens: Vec<TrackedWord>,
    /// The choice made at each bracket that has a part in it, in order of appearance.
    pub choices: Vec<Choice>,
}

/// A tracked word and its weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackedWord {
    /// One word or several, without spaces around.
    pub word: String,
    /// 1 if none is written.
    #[serde(with = "crate::json::exact")]
    pub weight: f64,
}

/// The choice made at a bracket.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// Number of the bracket in the template, from 0.
    pub bracket: usize,
    /// Number of the option in its bracket, from 0.
    pub option: usize,
    /// What the option has become, with its emphasis.
    pub text: String,
    /// Weight of the option; 1 if none is written.
    pub weight: f64,
}

impl Template {
    /// All variations: the product of all choices, the leftmost slowest. Computed as they are asked for.
    #[must_use]
    pub fn variations(&self) -> Variations<'_> {
        Variations { template: self, next: 0, count: self.count() }
    }

    /// The variation of a number; `None` if there are not so many.
    #[must_use]
    pub fn variation(&self, number: u64) -> Option<Variation> {
        (number < self.count()).then(|| {
            let mut writer = Writer::default();
            writer.items(&self.items, number);
            writer.finish(number)
        })
    }
}

/// Iterates over the variations of a template.
#[derive(Debug, Clone)]
pub struct Variations<'a> {
    template: &'a Template,
    next: u64,
    count: u64,
}

impl Iterator for Variations<'_> {
    type Item = Variation;

    fn next(&mut self) -> Option<Variation> {
        let variation = self.template.variation(self.next)?;
        self.next += 1;
        Some(variation)
    }

    fn nth(&mut self, n: usize) -> Option<Variation> {
        self.next = self.next.saturating_add(n as u64);
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.count.saturating_sub(self.next)).ok();
        (left.unwrap_or(usize::MAX), left)
    }
}

/// Parses a prompt in which choices are made already: `a (flower:2.5) near a tree`.
///
/// # Errors
/// If it does not parse, or has brackets.
pub fn parse_weighted(prompt: &str) -> Result<Variation, PromptError> {
    if let Some(at) = prompt.find('[') {
        return Err(PromptError::new(prompt, at, "expected a prompt, found a template: it has brackets".into()));
    }
    let template = Template::parse(prompt)?;
    Ok(Variation { weighted_prompt: prompt.to_owned(), ..Variation::of_items(template.items()) })
}

impl Variation {
    /// The prompt and the words of items without choices.
    fn of_items(items: &[Item]) -> Self {
        let mut variation = Self::default();
        for item in items {
            let start = variation.prompt.len();
            match item {
                Item::Text { text } => variation.prompt.push_str(text),
                Item::Word(word) => {
                    // Only texts: no emphasis is in another one.
                    for item in &word.items {
                        if let Item::Text { text } = item {
                            variation.prompt.push_str(text);
                        }
                    }
                    let text = collapse_spaces(&variation.prompt[start..]);
                    variation.tokens.push(TrackedWord { word: text, weight: word.weight.unwrap_or(1.0) });
                }
                Item::Choice(_) => {}
            }
        }
        variation
    }
}

/// Writes down one variation.
#[derive(Default)]
struct Writer {
    weighted: String,
    /// The same with the emphasis of the template taken as it is written there, for what does not parse once it is put
    /// together.
    words: Vec<TrackedWord>,
    prompt: String,
    choices: Vec<Choice>,
}

impl Writer {
    /// Writes variation `number` of a sequence. Its choices are the digits of that number; the radix of each is the
    /// number of variations behind it. A radix that is too large to be counted is larger than any number.
    fn items(&mut self, items: &[Item], number: u64) {
        let behind = |product: &mut u64, item: &Item| {
            let of_item = item.count();
            Some(std::mem::replace(product, product.saturating_mul(of_item)))
        };
        let mut radices: Vec<u64> = items.iter().rev().scan(1, behind).collect();
        radices.reverse();
        let mut rest = number;
        for (item, radix) in items.iter().zip(radices) {
            let digit = rest / radix;
            rest %= radix;
            match item {
                Item::Text { text } => {
                    self.prompt.push_str(text);
                    self.weighted.push_str(&escaped(text));
                }
                Item::Word(word) => self.word(word, digit),
                Item::Choice(choice) => self.choice(choice, digit),
            }
        }
    }

    fn word(&mut self, word: &Emphasis, number: u64) {
        let (start, open) = (self.prompt.len(), self.weighted.len());
        self.weighted.push('(');
        self.items(&word.items, number);
        let text = collapse_spaces(&self.prompt[start..]);
        if text.is_empty() {
            // Its choices are all empty ones: there is no word.
            self.weighted.remove(open);
            return;
        }
        // Writing into a string cannot fail.
        let _ = word.weight.map(|weight| write!(self.weighted, ":{weight}"));
        self.weighted.push(')');
        self.words.push(TrackedWord { word: text, weight: word.weight.unwrap_or(1.0) });
    }

    fn choice(&mut self, choice: &Alternatives, number: u64) {
        let Some((index, number)) = choice.option_of(number) else { return };
        let option = &choice.options[index];
        let (start, place) = (self.weighted.len(), self.choices.len());
        let weight = option.weight.unwrap_or(1.0);
        self.choices.push(Choice { bracket: choice.bracket, option: index, text: String::new(), weight });
        self.items(&option.items, number);
        self.choices[place].text = self.weighted[start..].to_owned();
    }

    /// What was written is read as a prompt of its own: `(flower:[1.5|2.5])` has a weight only now.
    fn finish(self, number: u64) -> Variation {
        let read = parse_weighted(&self.weighted).ok();
        let (prompt, tokens) = read.map_or((self.prompt, self.words), |read| (read.prompt, read.tokens));
        Variation { variation: number, prompt, weighted_prompt: self.weighted, tokens, choices: self.choices }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighted(template: &str) -> Vec<String> {
        Template::parse(template).unwrap().variations().map(|variation| variation.weighted_prompt).collect()
    }

    #[test]
    fn variations_come_in_order_of_appearance_leftmost_slowest() {
        assert_eq!(weighted("a [x|y] [1|2]"), ["a x 1", "a x 2", "a y 1", "a y 2"]);
        assert_eq!(weighted("[x|y [1|2]] z"), ["x z", "y 1 z", "y 2 z"]);
    }

    #[test]
    fn options_are_trimmed_and_spaces_around_a_bracket_stay() {
        assert_eq!(weighted("[|very] red"), [" red", "very red"]);
        assert_eq!(weighted("a [ x | y ] b"), ["a x b", "a y b"]);
        assert_eq!(
            (weighted("a []b"), weighted("[a|]"), weighted("[a| ]")),
            (vec!["a b".to_owned()], vec!["a".to_owned()], vec!["a".to_owned(), String::new()])
        );
    }

    #[test]
    fn a_variation_tracks_the_words_that_are_parenthesised_in_it() {
        let template = Template::parse("a beautiful [(flower:2.5) near a tree|(tree:3) next to a flower:2]").unwrap();
        let [first, second] = template.variations().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(first.prompt, "a beautiful flower near a tree");
        assert_eq!(first.tokens, [TrackedWord { word: "flower".into(), weight: 2.5 }]);
        assert_eq!(second.weighted_prompt, "a beautiful (tree:3) next to a flower");
        assert_eq!(second.tokens, [TrackedWord { word: "tree".into(), weight: 3.0 }]);
        let text = "(tree:3) next to a flower".to_owned();
        assert_eq!(second.choices, [Choice { bracket: 0, option: 1, text, weight: 2.0 }]);
    }

    #[test]
    fn a_word_may_be_chosen() {
        let template = Template::parse("a ([red|blue|] ball:2)").unwrap();
        let words: Vec<String> = template.variations().map(|variation| variation.tokens[0].word.clone()).collect();
        assert_eq!(words, ["red ball", "blue ball"]);
    }

    #[test]
    fn a_weight_may_be_chosen_and_a_word_left_out() {
        let template = Template::parse("a (flower:[1.5|2.5]) here").unwrap();
        let weights: Vec<f64> = template.variations().map(|variation| variation.tokens[0].weight).collect();
        assert_eq!(weights, [1.5, 2.5]);
        assert_eq!(template.variation(1).unwrap().prompt, "a flower here");
        assert_eq!(weighted("a ([|red]:2.5) ball"), ["a  ball", "a (red:2.5) ball"]);
        assert_eq!(
            Template::parse("a (small  [|red] dog:2)").unwrap().variation(0).unwrap().tokens[0].word,
            "small dog"
        );
    }

    #[test]
    fn parentheses_of_the_text_itself_are_escaped() {
        let only = |template: &str| Template::parse(template).unwrap().variation(0).unwrap();
        let smiling = only(r"a (cat :1.4) smiling \(happy\) in (a box \(red\):2)");
        assert_eq!(smiling.prompt, "a cat smiling (happy) in a box (red)");
        let words: Vec<(&str, f64)> = smiling.tokens.iter().map(|token| (token.word.as_str(), token.weight)).collect();
        assert_eq!(words, [("cat", 1.4), ("a box (red)", 2.0)]);
        assert_eq!(smiling.weighted_prompt, r"a (cat:1.4) smiling \(happy\) in (a box \(red\):2)");
        assert_eq!(parse_weighted(&smiling.weighted_prompt).unwrap().prompt, smiling.prompt);
        assert_eq!(only(r"C:\dir \\(x\)").prompt, r"C:\dir \(x)");
    }

    #[test]
    fn more_variations_than_can_be_counted_are_still_enumerated() {
        let template = Template::parse(&"[a|b]".repeat(70)).unwrap();
        assert_eq!(template.count(), u64::MAX);
        let third = template.variation(2).unwrap();
        assert_eq!(third.prompt, "a".repeat(68) + "ba");
        assert_eq!(template.variations().nth(5).unwrap().prompt, "a".repeat(67) + "bab");
    }
}
