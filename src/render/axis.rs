//! Numbers along axes and colour bars.

/// Where the marks of an axis are, and what is written at them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ticks {
    /// Values, ascending, each with its text.
    pub marks: Vec<(f64, String)>,
    /// What the numbers are to be multiplied with, as `×10⁻⁴`; empty: with nothing.
    pub factor: String,
}

impl Ticks {
    /// About `count` round numbers from `low` to `high`.
    pub fn linear(low: f64, high: f64, count: usize) -> Self {
        let span = high - low;
        if !span.is_finite() || span <= 0.0 {
            let (factor, exponent) = factor_of(low.abs());
            return Self { marks: vec![(low, number(low / 10_f64.powi(exponent), 3))], factor };
        }
        let step = round_step(span / count.max(1) as f64);
        let (factor, exponent) = factor_of(low.abs().max(high.abs()));
        let unit = 10_f64.powi(exponent);
        let places = (-(step / unit).log10().floor()).max(0.0) as usize;
        let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        let marks = (first..=last).map(|at| {
            let value = at as f64 * step;
            let text = format!("{:.places$}", value / unit);
            (value, if text.trim_start_matches(['-', '0', '.']).is_empty() { "0".to_owned() } else { minus(&text) })
        });
        Self { marks: marks.collect(), factor }
    }

    /// The powers of ten from `low` to `high`, both above 0; of less than two, round numbers.
    pub fn logarithmic(low: f64, high: f64, count: usize) -> Self {
        if !(low > 0.0 && high >= low && high.is_finite()) {
            return Self::linear(low, high, count);
        }
        let (first, last) = ((low.log10() - 1e-9).ceil() as i32, (high.log10() + 1e-9).floor() as i32);
        if last - first < 1 {
            return Self::linear(low, high, count);
        }
        let every = ((last - first) / i32::try_from(count).unwrap_or(i32::MAX).max(1) + 1).max(1);
        let marks = (first..=last).filter(|power| (power - first) % every == 0);
        let marks = marks.map(|power| (10_f64.powi(power), format!("10{}", raised(power)))).collect();
        Self { marks, factor: String::new() }
    }

    /// Whole numbers from `low` to `high`, about `count` of them.
    pub fn whole(low: i64, high: i64, count: usize) -> Self {
        let step = round_step((high - low) as f64 / count.max(1) as f64).ceil().max(1.0) as i64;
        let first = low.div_euclid(step) * step;
        let marks =
            (0..).map(|at| first + at * step).skip_while(|value| *value < low).take_while(|value| *value <= high);
        Self { marks: marks.map(|value| (value as f64, minus(&value.to_string()))).collect(), factor: String::new() }
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let unit = 10_f64.powf(least.max(f64::MIN_POSITIVE).log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|times| times * unit).find(|step| *step >= least * 0.999_999).unwrap_or(10.0 * unit)
}

fn factor_of(largest: f64) -> (String, i32) {
    if largest == 0.0 || !largest.is_finite() || (1e-3..1e5).contains(&largest) {
        return (String::new(), 0);
    }
    let exponent = largest.log10().floor() as i32;
    (format!("×10{}", raised(exponent)), exponent)
}

fn raised(power: i32) -> String {
    power
        .to_string()
        .chars()
        .map(|digit| match digit {
            '-' => '⁻',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            digit => char::from_u32(digit as u32 - '0' as u32 + '⁰' as u32).unwrap_or(digit),
        })
        .collect()
}

fn minus(text: &str) -> String {
    text.replace('-', "−")
}

/// A number of some significant digits, as short as it is.
pub(crate) fn number(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return if value.is_nan() { "NaN".to_owned() } else { minus(&value.to_string()).replace("inf", "∞") };
    }
    // Rounded before its size is looked at: 9.999 has one digit more than it seems.
    let rounded: f64 = format!("{value:.*e}", digits.saturating_sub(1)).parse().unwrap_or(value);
    let exponent = rounded.abs().log10().floor() as i32;
    if !(-4..6).contains(&exponent) {
        let mantissa = rounded / 10_f64.powi(exponent);
        let mantissa = trimmed(&format!("{mantissa:.*}", digits.saturating_sub(1)));
        return minus(&format!("{mantissa}×10{}", raised(exponent)));
    }
    let places = usize::try_from(i32::try_from(digits).unwrap_or(3) - 1 - exponent).unwrap_or(0);
    minus(&trimmed(&format!("{rounded:.places$}")))
}

fn trimmed(text: &str) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(ticks: &Ticks) -> Vec<&str> {
        ticks.marks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn marks_are_round_numbers_within_the_range() {
        assert_eq!(
            texts(&Ticks::linear(0.0, 1.0, 5)),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"].map(|text| if text == "0.0" { "0" } else { text })
        );
        assert_eq!(texts(&Ticks::linear(-0.31, 0.29, 4)), ["−0.2", "0", "0.2"]);
        let small = Ticks::linear(0.000_012, 0.000_087, 4);
        assert_eq!((texts(&small), small.factor.as_str()), (vec!["2", "4", "6", "8"], "×10⁻⁵"));
        let large = Ticks::linear(0.0, 2.5e7, 5);
        assert_eq!((texts(&large), large.factor.as_str()), (vec!["0", "0.5", "1.0", "1.5", "2.0", "2.5"], "×10⁷"));
        assert_eq!(texts(&Ticks::linear(0.25, 0.25, 5)), ["0.25"]);
        assert_eq!(texts(&Ticks::whole(0, 9, 8)), ["0", "2", "4", "6", "8"]);
        assert_eq!(texts(&Ticks::whole(3, 3, 8)), ["3"]);
        assert_eq!(texts(&Ticks::logarithmic(2e-4, 0.5, 5)), ["10⁻³", "10⁻²", "10⁻¹"]);
        assert_eq!(texts(&Ticks::logarithmic(1.0, 5.0, 4)), ["1", "2", "3", "4", "5"]);
    }

    #[test]
    fn numbers_have_as_many_digits_as_asked_for() {
        let cases = [
            (0.0, "0"),
            (0.25, "0.25"),
            (1.0, "1"),
            (0.123_456, "0.123"),
            (9.999_9, "10"),
            (123_456.0, "123000"),
            (1_234_567.0, "1.23×10⁶"),
            (0.000_012_34, "1.23×10⁻⁵"),
            (-2.5, "−2.5"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "∞"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value, 3), expected);
        }
    }
}
