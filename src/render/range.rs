//! Which values the colours of a map stand for.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the range of colours is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Range {
    /// From one percentile of the finite values to another, of all that is shown together.
    Percentiles(f64, f64),
    /// The same (1 to 99) of each part that is shown alone.
    Each(Part),
    /// From the lowest to the highest finite value of all that is shown together.
    Shown,
    /// From one value to another.
    Values(f64, f64),
}

/// What has a range of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Every panel.
    Frame,
    /// Every word.
    Word,
    /// Every row of panels.
    Row,
}

impl Default for Range {
    fn default() -> Self {
        Self::Percentiles(1.0, 99.0)
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = |text: &str| {
            let (low, high) = text.split_once(':')?;
            let [low, high] =
                [low, high].map(|number| number.trim().parse::<f64>().ok().filter(|number| number.is_finite()));
            low.zip(high).filter(|(low, high)| low < high)
        };
        match text {
            "frame" | "cell" => return Ok(Self::Each(Part::Frame)),
            "word" => return Ok(Self::Each(Part::Word)),
            "row" => return Ok(Self::Each(Part::Row)),
            "shown" => return Ok(Self::Shown),
            _ => {}
        }
        let refused = || {
            format!(
                "`{text}` is none of frame, word, row, shown, LOW:HIGH and percentile:LOW:HIGH, such as percentile:1:99"
            )
        };
        match text.strip_prefix("percentile:") {
            Some(percentiles) => numbers(percentiles)
                .filter(|(low, high)| *low >= 0.0 && *high <= 100.0)
                .map(|(low, high)| Self::Percentiles(low, high)),
            None => numbers(text).map(|(low, high)| Self::Values(low, high)),
        }
        .ok_or_else(refused)
    }
}

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        match range {
            Range::Percentiles(low, high) => format!("percentile:{low}:{high}"),
            Range::Each(Part::Frame) => "frame".to_owned(),
            Range::Each(Part::Word) => "word".to_owned(),
            Range::Each(Part::Row) => "row".to_owned(),
            Range::Shown => "shown".to_owned(),
            Range::Values(low, high) => format!("{low}:{high}"),
        }
    }
}

/// A range of values, and how they lie in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// The value of the first colour.
    pub low: f64,
    /// The value of the last colour.
    pub high: f64,
    /// Whether colours follow the logarithm of the values.
    pub is_log: bool,
    /// Whether there are values below it, and above it.
    pub clips: (bool, bool),
    /// What is wrong with the values, if they have no range.
    pub odd: Option<Odd>,
}

/// Why values have no range of their own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Odd {
    /// None is finite.
    NotFinite,
    /// All are the same.
    Constant(f64),
    /// None is above 0, as a logarithm needs.
    NotPositive,
}

impl Limits {
    /// Those of values.
    ///
    /// With `is_log`, of those above 0. With `centred`, as far below 0 as above it: for differences.
    #[must_use]
    pub fn of(values: impl Iterator<Item = f32>, range: Range, is_log: bool, centred: bool) -> Self {
        let mut finite: Vec<f32> = values.filter(|value| value.is_finite()).collect();
        let (count, first) = (finite.len(), finite.first().copied());
        let is_constant = finite.iter().all(|value| Some(*value) == first);
        if is_log {
            finite.retain(|value| *value > 0.0);
        }
        let odd = match first {
            None => Some(Odd::NotFinite),
            Some(value) if is_constant => Some(Odd::Constant(value.into())),
            _ if finite.is_empty() && count > 0 => Some(Odd::NotPositive),
            _ => None,
        };
        let (mut low, mut high) = match range {
            Range::Values(low, high) => (low, high),
            _ if finite.is_empty() => (0.0, 1.0),
            Range::Shown => (percentile(&mut finite, 0.0), percentile(&mut finite, 100.0)),
            Range::Percentiles(low, high) => (percentile(&mut finite, low), percentile(&mut finite, high)),
            Range::Each(_) => (percentile(&mut finite, 1.0), percentile(&mut finite, 99.0)),
        };
        // Where nearly all are the same, what is not would not show.
        if low >= high && !finite.is_empty() && !matches!(range, Range::Values(..)) {
            (low, high) = (percentile(&mut finite, 0.0), percentile(&mut finite, 100.0));
        }
        if centred && !matches!(range, Range::Values(..)) {
            high = high.abs().max(low.abs());
            low = -high;
        }
        if is_log && low <= 0.0 {
            low = finite.iter().copied().fold(f32::INFINITY, f32::min).into();
            if !low.is_finite() {
                low = high / 1000.0;
            }
        }
        let clips =
            (finite.iter().any(|value| f64::from(*value) < low), finite.iter().any(|value| f64::from(*value) > high));
        Self { low, high, is_log, clips, odd }
    }

    /// Where a value lies along the scale, in the scale's own units.
    pub(super) fn place(&self, value: f64) -> f64 {
        if self.is_log { value.max(f64::MIN_POSITIVE).log10() } else { value }
    }
}

/// A percentile of values of which there is at least one, between two of them in proportion.
pub(crate) fn percentile(values: &mut [f32], percent: f64) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let place = last as f64 * (percent / 100.0).clamp(0.0, 1.0);
    let low = (place as usize).min(last);
    let (_, at, above) = values.select_nth_unstable_by(low, f32::total_cmp);
    let at = f64::from(*at);
    let next = above.iter().copied().min_by(f32::total_cmp).map_or(at, f64::from);
    at + (next - at) * (place - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f32], range: &str, is_log: bool, centred: bool) -> (f64, f64) {
        let limits = Limits::of(values.iter().copied(), range.parse().unwrap(), is_log, centred);
        (limits.low, limits.high)
    }

    #[test]
    fn ranges_are_what_they_say() {
        let values: Vec<f32> =
            (0..=200).rev().map(|value| value as f32 / 2.0).chain([f32::NAN, f32::INFINITY]).collect();
        assert_eq!(of(&values, "percentile:1:99", false, false), (1.0, 99.0));
        assert_eq!(of(&values, "percentile:0.25:99", false, false), (0.25, 99.0));
        assert_eq!(of(&values, "shown", false, false), (0.0, 100.0));
        assert_eq!(of(&values, "-1:3", false, false), (-1.0, 3.0));
        assert_eq!(of(&values, "shown", true, false), (0.5, 100.0));
        assert_eq!(of(&[-3.0, 1.0], "shown", false, true), (-3.0, 3.0));
        // Where nearly all are the same, what is not must show.
        let mut rare = vec![0.0; 1000];
        rare[7] = 1.0;
        assert_eq!(of(&rare, "percentile:1:99", false, false), (0.0, 1.0));
        for refused in ["", "1", "2:1", "1:1", "nan:1", "percentile:1", "percentile:-1:5", "frames"] {
            assert!(refused.parse::<Range>().unwrap_err().contains("percentile:1:99"), "{refused}");
        }
    }

    #[test]
    fn what_has_no_range_is_told() {
        let odd = |values: &[f32], is_log| Limits::of(values.iter().copied(), Range::Shown, is_log, false).odd;
        assert_eq!(odd(&[], false), Some(Odd::NotFinite));
        assert_eq!(odd(&[f32::NAN, f32::INFINITY], false), Some(Odd::NotFinite));
        assert_eq!(odd(&[0.5, f32::NAN, 0.5], false), Some(Odd::Constant(0.5)));
        assert_eq!(odd(&[0.0, -1.0], true), Some(Odd::NotPositive));
        assert_eq!(odd(&[0.5, 0.25], false), None);
    }
}
