//! SQL as people write it, for polars' parser: integers beyond 64 bits, scientific notation, lists of integers and
//! floats, names of columns in any case, `is_nan`.

use std::borrow::Cow;
use std::collections::HashMap;

use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::catalog::BOTH;
use super::exact::LONGEST_INTEGER;

/// Names of tables.
const TABLES: [&str; 2] = ["steps", "heads"];
/// Names of the function that tells whether a number is NaN, which is null in questions.
const IS_NAN: [&str; 2] = ["is_nan", "isnan"];
/// Floats below this have all their digits before the point.
const MOST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// SQL in the words that polars' parser reads.
///
/// # Errors
/// In words, if an integer is too long.
pub(super) fn for_polars(sql: &str) -> Result<Cow<'_, str>, String> {
    // What cannot be cut into tokens is the parser's to complain of.
    let Some(tokens) = tokens(sql) else { return Ok(sql.into()) };
    check_bounds(&tokens)?;
    let mut changes = Changes { sql, places: Places::new(sql), made: Vec::new() };
    for at in 0..tokens.len() {
        match &tokens[at].token {
            Token::Number(number, _) => changes.number(&tokens, at, number)?,
            Token::Word(word) if word.quote_style.is_none() => changes.word(&tokens, at, &word.value)?,
            _ => {}
        }
    }
    Ok(changes.applied())
}

/// The first word of a statement, behind comments and in capitals; a parenthesis, if it begins with one.
pub(super) fn first_word(sql: &str) -> Option<String> {
    Some(tokens(sql)?.first()?.token.to_string().to_uppercase())
}

/// How aliases are written whose names are put into lower case, by these.
pub(super) fn aliases(sql: &str) -> HashMap<String, String> {
    let tokens = tokens(sql).unwrap_or_default();
    let alias = |pair: &[TokenWithSpan]| match (&pair[0].token, &pair[1].token) {
        (Token::Word(keyword), Token::Word(alias)) if keyword.keyword == Keyword::AS && alias.quote_style.is_none() => {
            Some((alias.value.to_lowercase(), alias.value.clone()))
        }
        _ => None,
    };
    tokens
        .windows(2)
        .filter_map(alias)
        .filter(|(lower, alias)| lower != alias && BOTH.contains(lower.as_str()))
        .collect()
}

/// The words of a statement, in capitals.
pub(super) fn words(sql: &str) -> Vec<String> {
    let word = |token: TokenWithSpan| match token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_uppercase()),
        _ => None,
    };
    tokens(sql).into_iter().flatten().filter_map(word).collect()
}

/// Operators in one condition or statement, at most: what evaluates them nests as deeply as there are.
const MOST_OPERATORS: usize = 400;
/// Parentheses within each other, at most.
const MOST_DEPTH: usize = 64;

/// Refuses what would read files, and what would need more than a stack or a memory holds.
fn check_bounds(tokens: &[TokenWithSpan]) -> Result<(), String> {
    let (mut operators, mut depth) = (0, 0_usize);
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| &tokens[before].token);
        let next = tokens.get(at + 1).map(|next| &next.token);
        match &token.token {
            Token::Word(word) if next == Some(&Token::LParen) && is_reader(&word.value) => {
                return Err(format!("`{}` reads files; there are the tables `steps` and `heads` alone", word.value));
            }
            Token::SingleQuotedString(file) if before.is_some_and(is_before_a_table) => {
                return Err(format!("'{file}' is a text, and no table; there are `steps` and `heads` alone"));
            }
            // A sign of a value in a list.
            Token::Minus if matches!(before, Some(Token::Comma | Token::LParen)) => {}
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            token => operators += usize::from(is_operator(token)),
        }
        if depth > MOST_DEPTH {
            return Err(format!("more than {MOST_DEPTH} parentheses are within each other"));
        }
    }
    if operators > MOST_OPERATORS {
        return Err(format!(
            "it has {operators} operators, and at most {MOST_OPERATORS} can be asked for at once: lists of values are \
             written as x IN (…)"
        ));
    }
    Ok(())
}

fn is_reader(function: &str) -> bool {
    let function = function.to_lowercase();
    ["read_", "scan_", "glob"].iter().any(|start| function.starts_with(start))
}

fn is_before_a_table(token: &Token) -> bool {
    matches!(token, Token::Word(word) if matches!(word.keyword, Keyword::FROM | Keyword::JOIN))
}

fn is_operator(token: &Token) -> bool {
    const WORDS: [Keyword; 8] = [
        Keyword::AND,
        Keyword::OR,
        Keyword::NOT,
        Keyword::XOR,
        Keyword::LIKE,
        Keyword::ILIKE,
        Keyword::CASE,
        Keyword::UNION,
    ];
    let is_sign = |text: &str| text.chars().all(|c| "+-*/%=<>!|&^".contains(c));
    match token {
        Token::Word(word) => WORDS.contains(&word.keyword),
        token => is_sign(&token.to_string()),
    }
}

/// All but spaces and comments.
fn tokens(sql: &str) -> Option<Vec<TokenWithSpan>> {
    let tokens = Tokenizer::new(&GenericDialect, sql).tokenize_with_location().ok()?;
    Some(tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect())
}

/// What is written otherwise.
struct Changes<'a> {
    sql: &'a str,
    places: Places<'a>,
    /// Bytes, and what stands there instead; in any order.
    made: Vec<(std::ops::Range<usize>, String)>,
}

impl<'a> Changes<'a> {
    fn number(&mut self, tokens: &[TokenWithSpan], at: usize, number: &str) -> Result<(), String> {
        let list = list_around(tokens, at);
        let in_list = |is: fn(&Token) -> bool| list.iter().any(|other| is(&other.token));
        // In a list, either all are large or none, and all integers or none.
        if is_integer(number) && (is_large(&tokens[at].token) || in_list(is_large)) {
            if number.len() > LONGEST_INTEGER {
                return Err(format!("the integer {number} is too long: of {LONGEST_INTEGER} digits at most"));
            }
            let behind = |place: usize| at.checked_sub(place).and_then(|place| tokens.get(place));
            let is_sign = behind(1).is_some_and(|token| token.token == Token::Minus)
                && behind(2).is_some_and(|token| matches!(token.token, Token::Comma | Token::LParen));
            let (first, sign) = match behind(1) {
                Some(minus) if is_sign => (minus, "-"),
                _ => (&tokens[at], ""),
            };
            let start = self.places.byte(first.span.start);
            let end = self.places.byte(tokens[at].span.start) + number.len();
            self.made.push((start..end, format!("CAST('{sign}{number}' AS INT128)")));
            return Ok(());
        }
        if is_integer(number) && in_list(is_fraction) {
            self.replace(&tokens[at], number.len(), format!("{number}.0"));
        }
        let Some(float) = number.parse::<f64>().ok().filter(|_| !is_integer(number)) else { return Ok(()) };
        let is_scientific = number.contains(['e', 'E']);
        let whole = match number.split_once('.') {
            _ if is_scientific => (float.fract() == 0.0 && float < MOST_WHOLE).then(|| format!("{float:.0}")),
            Some((whole, fraction)) => fraction.bytes().all(|digit| digit == b'0').then(|| whole.to_owned()),
            None => None,
        };
        let is_beside_integers = in_list(|token| matches!(token, Token::Number(number, _) if is_integer(number)));
        let is_of_integers =
            (is_beside_integers && !in_list(is_fraction)) || (!list.is_empty() && is_list_of_seeds(tokens, at));
        if let Some(whole) = whole.filter(|whole| is_of_integers && whole.parse::<i64>().is_ok()) {
            let whole = if in_list(is_large) { format!("CAST('{whole}' AS INT128)") } else { whole };
            self.replace(&tokens[at], number.len(), whole);
        } else if is_scientific && float.is_finite() {
            let digits = float.to_string();
            let point = if digits.contains('.') { "" } else { ".0" };
            self.replace(&tokens[at], number.len(), digits + point);
        }
        Ok(())
    }

    fn word(&mut self, tokens: &[TokenWithSpan], at: usize, word: &str) -> Result<(), String> {
        let lower = word.to_lowercase();
        let is_called = tokens.get(at + 1).is_some_and(|next| next.token == Token::LParen);
        if IS_NAN.contains(&lower.as_str()) && is_called {
            if let Some(end) = closing(tokens, at + 1) {
                let end = self.places.byte(tokens[end].span.start) + 1;
                let asked = &self.sql[self.places.byte(tokens[at].span.start) + word.len()..end];
                let or_nan = format!(" IS NULL OR {} = CAST('NaN' AS DOUBLE))", for_polars(asked)?);
                self.replace(&tokens[at], word.len(), "(".to_owned());
                self.made.push((end..end, or_nan));
            }
            return Ok(());
        }
        // Aliases too, so that what refers to them finds them; `aliases` tells how they were written.
        let is_known = TABLES.contains(&lower.as_str()) || BOTH.contains(lower.as_str());
        if lower != word && is_known && !is_called {
            self.replace(&tokens[at], word.len(), lower);
        }
        if word.eq_ignore_ascii_case("count") && is_called {
            self.name_count(tokens, at);
        }
        Ok(())
    }

    /// Calls `COUNT(*)` in a list of what is selected `count`, as SQL does; polars would call it `len`.
    fn name_count(&mut self, tokens: &[TokenWithSpan], at: usize) {
        let is = |place: usize, wanted: &[Token]| tokens.get(place).is_some_and(|token| wanted.contains(&token.token));
        let is_word = |place: usize, wanted: Keyword| {
            let token = tokens.get(place).map(|token| &token.token);
            matches!(token, Some(Token::Word(word)) if word.keyword == wanted)
        };
        let is_selected = at > 0 && (is_word(at - 1, Keyword::SELECT) || is(at - 1, &[Token::Comma]));
        let is_of_rows = is(at + 1, &[Token::LParen]) && is(at + 2, &[Token::Mul]) && is(at + 3, &[Token::RParen]);
        let is_without_alias =
            at + 4 == tokens.len() || is_word(at + 4, Keyword::FROM) || is(at + 4, &[Token::Comma, Token::RParen]);
        if is_selected && is_of_rows && is_without_alias {
            let end = self.places.byte(tokens[at + 3].span.start) + 1;
            self.made.push((end..end, " AS count".to_owned()));
        }
    }

    fn replace(&mut self, token: &TokenWithSpan, len: usize, by: String) {
        let start = self.places.byte(token.span.start);
        self.made.push((start..start + len, by));
    }

    fn applied(mut self) -> Cow<'a, str> {
        if self.made.is_empty() {
            return self.sql.into();
        }
        self.made.sort_by_key(|(range, _)| (range.start, range.end));
        let mut written = String::with_capacity(self.sql.len() + 64);
        let mut copied = 0;
        for (range, by) in &self.made {
            written += &self.sql[copied..range.start];
            written += by;
            copied = range.end;
        }
        written += &self.sql[copied..];
        written.into()
    }
}

/// The parenthesis that closes the one at a place.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn is_integer(number: &str) -> bool {
    number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether it is a number that is no integer, however it is written.
fn is_fraction(token: &Token) -> bool {
    matches!(token, Token::Number(number, _) if number.parse::<f64>().is_ok_and(|number| number.fract() != 0.0))
}

fn is_large(token: &Token) -> bool {
    matches!(token, Token::Number(number, _) if is_integer(number) && number.parse::<i64>().is_err())
}

/// The tokens of the list in parentheses that one of them is in, if it is in one of plain values.
fn list_around(tokens: &[TokenWithSpan], at: usize) -> &[TokenWithSpan] {
    let is_plain = |token: &&TokenWithSpan| {
        matches!(token.token, Token::Number(..) | Token::Comma | Token::Minus | Token::SingleQuotedString(_))
    };
    let before = tokens[..at].iter().rev().take_while(is_plain).count();
    let behind = tokens[at..].iter().take_while(is_plain).count();
    let (start, end) = (at - before, at + behind);
    let is_token = |place: Option<usize>, token: Token| {
        place.and_then(|place| tokens.get(place)).is_some_and(|found| found.token == token)
    };
    let is_in_list = is_token(start.checked_sub(1), Token::LParen) && is_token(Some(end), Token::RParen);
    if is_in_list { &tokens[start..end] } else { &[] }
}

/// Whether the list that a token is in stands behind `seed IN`.
fn is_list_of_seeds(tokens: &[TokenWithSpan], at: usize) -> bool {
    let before = tokens[..at].iter().rev().skip_while(|token| token.token != Token::LParen).skip(1);
    let words: Vec<String> = before.take(3).map(|token| token.token.to_string().to_lowercase()).collect();
    match &words[..] {
        [within, not, seed] if within == "in" && not == "not" => seed == "seed",
        [within, seed, ..] => within == "in" && seed == "seed",
        _ => false,
    }
}

/// Places of characters, by line and column from 1, as bytes.
struct Places<'a> {
    sql: &'a str,
    lines: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(sql: &'a str) -> Self {
        let behind = sql.match_indices('\n').map(|(at, _)| at + 1);
        Self { sql, lines: std::iter::once(0).chain(behind).collect() }
    }

    fn byte(&self, at: Location) -> usize {
        let place = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
        let line = self.lines.get(place(at.line)).copied().unwrap_or(self.sql.len());
        let rest = &self.sql[line..];
        line + rest.char_indices().nth(place(at.column)).map_or(rest.len(), |(byte, _)| byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_integers_are_read_wherever_they_stand() {
        let readable = |sql| for_polars(sql).unwrap().into_owned();
        assert_eq!(readable("seed = 7 AND x IN (1, 2)"), "seed = 7 AND x IN (1, 2)");
        assert_eq!(readable("seed = 18446744073709551615"), "seed = CAST('18446744073709551615' AS INT128)");
        assert_eq!(
            readable("é = 'x' AND\n seed IN (-5, 18446744073709551615) AND step = 3"),
            "é = 'x' AND\n seed IN (CAST('-5' AS INT128), CAST('18446744073709551615' AS INT128)) AND step = 3"
        );
        assert_eq!(readable("'99999999999999999999'"), "'99999999999999999999'");
        assert!(for_polars(&format!("seed = {}", "9".repeat(40))).is_err());
    }

    #[test]
    fn numbers_names_and_nan_are_read_as_people_write_them() {
        let readable = |sql| for_polars(sql).unwrap().into_owned();
        assert_eq!(readable("a < 1e-6 AND b > -2.5E3"), "a < 0.000001 AND b > -2500.0");
        assert_eq!(readable("seed IN (11, 22.0)"), "seed IN (11, 22)");
        assert_eq!(readable("weight IN (1.5, 2.0)"), "weight IN (1.5, 2.0)");
        assert_eq!(
            readable("SELECT Token, MAX(Top5) AS Top5 FROM Heads WHERE BLOCK = 'BLOCK'"),
            "SELECT token, MAX(top5) AS top5 FROM heads WHERE block = 'BLOCK'"
        );
        assert_eq!(
            readable("NOT is_nan(a + (b)) AND ISNAN(c)"),
            "NOT ((a + (b)) IS NULL OR (a + (b)) = CAST('NaN' AS DOUBLE)) AND ((c) IS NULL OR (c) = CAST('NaN' AS \
             DOUBLE))"
        );
        assert_eq!(readable("weight IN (1, 2.5, 1e1)"), "weight IN (1.0, 2.5, 10.0)");
        assert_eq!(readable("SELECT COUNT(*) FROM steps"), "SELECT COUNT(*) AS count FROM steps");
        assert_eq!(
            readable("SELECT COUNT(*) AS n FROM a ORDER BY COUNT(*)"),
            "SELECT COUNT(*) AS n FROM a ORDER BY COUNT(*)"
        );
        for refused in [
            "SELECT * FROM read_csv('a.csv')",
            "SELECT * FROM steps JOIN READ_PARQUET ('a') AS a ON true",
            "SELECT * FROM 'a.csv'",
            &vec!["step = 1"; 5000].join(" OR "),
            &"(".repeat(100),
        ] {
            assert!(for_polars(refused).is_err(), "{refused}");
        }
        let many: Vec<String> = (0..20_000).map(|number| format!("-{number}")).collect();
        assert!(for_polars(&format!("step IN ({})", many.join(", "))).is_ok());
        assert_eq!(first_word("-- a comment\n /* another */ select 1").as_deref(), Some("SELECT"));
    }
}
