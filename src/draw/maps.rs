//! The maps of an answer as they are drawn: on their grid, normalised, with the scales of their colours.

use std::collections::BTreeMap;

use polars::prelude::{AnyValue, DataFrame};

use super::{DrawError, Look, Normalise, Threshold};
use crate::grid::Grid;
use crate::query::{Across, Answer, Average, Filter, Reduction};
use crate::remedy::{OptionName, Remedy};
use crate::render::{Cell, Colormap, Limits, Part, Plane, Range, Scale, number};
use crate::store::Store;

/// A map with what tells it apart.
#[derive(Debug, Clone)]
pub(super) struct DrawnMap {
    /// Its values of the keys, in words, by what they are.
    pub names: BTreeMap<&'static str, String>,
    pub grid: Grid,
    /// Whether that is a row of all positions, as none is known.
    pub is_flat: bool,
    /// `[frame, height, width]`, C order.
    pub values: Vec<f32>,
    /// Maps that it is the mean of.
    pub count: u64,
}

impl DrawnMap {
    /// One of its frames.
    pub fn plane(&self, frame: usize) -> Plane {
        let Grid { height, width, .. } = self.grid;
        Plane { height, width, values: self.values[frame * self.grid.plane()..][..self.grid.plane()].to_vec() }
    }

    pub fn name(&self, of: Across) -> &str {
        self.names.get(of.key().column()).map_or("", String::as_str)
    }
}

/// The question for one map for each combination of these.
pub(super) fn question(filter: &Filter, reduction: Reduction, by: &[Across]) -> Average {
    Average { by: by.to_vec(), reduction, ..Average::new(filter.clone()) }
}

/// The maps of an answer, and what is to be said of them.
pub(super) fn maps_of(answer: &Answer, by: &[Across]) -> Result<Vec<DrawnMap>, DrawError> {
    let drawn = flat_maps_of(answer, by);
    if let Some(flat) = drawn.iter().find(|map| map.is_flat) {
        return Err(DrawError::unfit(
            format!("the grid of these {} positions is not known", flat.values.len()),
            Remedy::of("ingest the dump again with {}", [OptionName::Grid.any()]),
        ));
    }
    Ok(drawn)
}

/// The same; those whose grid is not known are one row of positions.
pub(super) fn flat_maps_of(answer: &Answer, by: &[Across]) -> Vec<DrawnMap> {
    let Some(maps) = &answer.maps else { return Vec::new() };
    let counts = answer.table.column("n").ok();
    let drawn = |row: usize| {
        let names = by.iter().map(|by| (by.key().column(), text_of(&answer.table, by.key().column(), row)));
        let count = counts.and_then(|counts| counts.get(row).ok()?.extract()).unwrap_or(0);
        let values = maps.get(row).to_vec();
        let (grid, is_flat) = match maps.maps[row].1[..] {
            [frames, height, width] => (Grid { frames, height, width }, false),
            _ => (Grid { frames: 1, height: 1, width: values.len() }, true),
        };
        DrawnMap { names: names.collect(), grid, is_flat, values, count }
    };
    (0..maps.maps.len()).map(drawn).collect()
}

/// What is said where there is no value: no name is written so.
pub(crate) const NONE: &str = "(none)";

/// A value of a table, in words.
pub(crate) fn text_of(table: &DataFrame, column: &str, row: usize) -> String {
    match table.column(column).and_then(|column| column.get(row).map(AnyValue::into_static)) {
        Ok(AnyValue::Null) | Err(_) => NONE.to_owned(),
        Ok(value) => value.str_value().into_owned(),
    }
}

/// A number of a table; NaN where there is none.
pub(super) fn number_of(table: &DataFrame, column: &str, row: usize) -> f64 {
    let value = table.column(column).and_then(|column| column.get(row).map(AnyValue::into_static));
    value.ok().and_then(|value| value.extract::<f64>()).unwrap_or(f64::NAN)
}

/// Divides the maps as the look says.
pub(super) fn normalised(mut maps: Vec<DrawnMap>, look: &Look) -> Vec<DrawnMap> {
    let finite = |map: &DrawnMap| map.values.clone().into_iter().filter(|value| value.is_finite());
    let divided = |map: &mut DrawnMap, by: f64| {
        map.values.iter_mut().for_each(|value| *value = (f64::from(*value) / by) as f32);
    };
    match look.normalise {
        None => {}
        Some(Normalise::Sum) => {
            for map in &mut maps {
                let sum = finite(map).map(f64::from).sum();
                divided(map, sum);
            }
        }
        Some(Normalise::Max) => {
            for map in &mut maps {
                let most = finite(map).fold(f32::NEG_INFINITY, f32::max);
                divided(map, most.into());
            }
        }
        Some(Normalise::Words) => {
            let token = Across::Token.key().column();
            let of = |map: &DrawnMap| {
                let mut names = map.names.clone();
                names.remove(token);
                // Positions are the same on one grid only.
                (names, map.grid)
            };
            let mut sums: BTreeMap<(BTreeMap<&str, String>, Grid), Vec<f64>> = BTreeMap::new();
            for map in &maps {
                let sum = sums.entry(of(map)).or_insert_with(|| vec![0.0; map.values.len()]);
                sum.iter_mut().zip(&map.values).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            for map in &mut maps {
                let sum = &sums[&of(map)];
                map.values.iter_mut().zip(sum).for_each(|(value, sum)| *value = (f64::from(*value) / sum) as f32);
            }
        }
    }
    maps
}

/// What the values are, for a colour bar.
pub(super) const fn label(look: &Look) -> &'static str {
    match look.normalise {
        None => "attention",
        Some(Normalise::Sum) => "share of the map's attention",
        Some(Normalise::Max) => "attention / its maximum",
        Some(Normalise::Words) => "share among the words",
    }
}

/// What is below this is not shown.
pub(super) fn threshold<'a>(look: &Look, shown: impl Iterator<Item = &'a f32>) -> Option<f32> {
    let mut finite: Vec<f32> = shown.copied().filter(|value| value.is_finite()).collect();
    match look.threshold? {
        Threshold::Value(value) => Some(value as f32),
        Threshold::Mean => {
            let sum: f64 = finite.iter().copied().map(f64::from).sum();
            Some((sum / finite.len().max(1) as f64) as f32)
        }
        Threshold::Percentile(percent) => {
            (!finite.is_empty()).then(|| crate::render::percentile(&mut finite, percent) as f32)
        }
    }
}

/// Planes with their words, in rows and columns.
pub(super) type Planes = Vec<Vec<Option<(Plane, String)>>>;

/// Gives planes their scales: one for all, or for each part that has its own.
pub(super) fn scaled(planes: Planes, look: &Look, centred: bool) -> (Vec<Vec<Cell>>, Vec<Scale>) {
    let part = |row: usize, column: usize, word: &str| match look.range {
        Range::Each(Part::Frame) => format!("{row} {column}"),
        Range::Each(Part::Word) => word.to_owned(),
        Range::Each(Part::Row) => row.to_string(),
        _ => String::new(),
    };
    let mut order: Vec<String> = Vec::new();
    let mut values: Vec<Vec<f32>> = Vec::new();
    let mut cells = Vec::new();
    for (row, planes) in planes.into_iter().enumerate() {
        let of_row = planes.into_iter().enumerate().map(|(column, plane)| {
            let Some((plane, word)) = plane else { return Cell::default() };
            let part = part(row, column, &word);
            let scale = order.iter().position(|known| *known == part).unwrap_or_else(|| {
                order.push(part);
                values.push(Vec::new());
                order.len() - 1
            });
            values[scale].extend(&plane.values);
            Cell { plane: Some(plane), scale, ..Cell::default() }
        });
        cells.push(of_row.collect());
    }
    let scales = values.into_iter().map(|values| scale(look, values.into_iter(), centred)).collect();
    (cells, scales)
}

/// The values of all planes in some cells.
pub(super) fn values_of(cells: &[Vec<Cell>]) -> impl Iterator<Item = &f32> {
    cells.iter().flatten().filter_map(|cell| cell.plane.as_ref()).flat_map(|plane| &plane.values)
}

/// The scale of values that are shown together.
pub(super) fn scale(look: &Look, values: impl Iterator<Item = f32> + Clone, centred: bool) -> Scale {
    let is_signed = centred || values.clone().any(|value| value.is_finite() && value < 0.0);
    let limits = Limits::of(values, look.range, look.log, is_signed && !look.log);
    // White is 0, or nothing.
    let is_centred = is_signed && limits.low == -limits.high;
    let usual = if is_centred { Colormap::Coolwarm } else { Colormap::Viridis };
    Scale::new(look.colormap.unwrap_or(usual), limits)
}

/// What is to be said of values that are drawn.
pub(super) fn remarks<'a>(shown: impl Iterator<Item = &'a f32>, scales: &[Scale], look: &Look) -> Vec<String> {
    let (mut all, mut odd, mut low) = (0_usize, 0_usize, 0_usize);
    for value in shown {
        all += 1;
        odd += usize::from(!value.is_finite());
        low += usize::from(look.log && value.is_finite() && *value <= 0.0);
    }
    let mut remarks = Vec::new();
    let of = match look.range {
        Range::Percentiles(low, high) => Some(format!("percentile {low} to {high} of what is shown")),
        Range::Each(Part::Frame) => Some("percentile 1 to 99 of each map".to_owned()),
        Range::Each(Part::Row) => Some("percentile 1 to 99 of each row".to_owned()),
        Range::Each(Part::Word) => Some("percentile 1 to 99 of each word".to_owned()),
        Range::Shown | Range::Values(..) => None,
    };
    let is_clipped = scales.iter().any(|scale| scale.limits().clips != (false, false));
    remarks.extend(of.filter(|_| is_clipped).map(|of| format!("colours from {of}")));
    if odd > 0 {
        remarks.push(format!("{odd} of {all} values are not finite: gray"));
    }
    if low > 0 {
        remarks.push(format!("{low} of {all} values are not above 0: they have no logarithm, and the lowest colour"));
    }
    for limits in scales.iter().map(Scale::limits) {
        use crate::render::Odd;
        match limits.odd {
            Some(Odd::NotFinite) => remarks.push("no value is finite: there is no range of colours".to_owned()),
            Some(Odd::Constant(value)) => {
                remarks.push(format!("all values are {}: there is no range of colours", number(value, 3)));
            }
            _ => {}
        }
    }
    remarks.dedup();
    remarks
}

/// What is selected, in words: the words and numbers that a filter names, and what its condition is.
pub(super) fn selected(filter: &Filter) -> Vec<String> {
    let number = |name: &str, number: Option<i64>| number.map(|number| format!("{name} {number}"));
    let named = [number("step", filter.step), number("block", filter.block), number("head", filter.head)];
    named.into_iter().flatten().chain(filter.condition.as_ref().map(|sql| format!("where {sql}"))).collect()
}

/// A title: what is shown, each part once.
pub(super) fn title(look: &Look, parts: impl IntoIterator<Item = String>) -> String {
    match &look.title {
        Some(title) => title.clone(),
        None => parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · "),
    }
}

/// Of how many maps a mean is.
pub(super) fn mean_of(maps: &[DrawnMap]) -> String {
    let counts = || maps.iter().map(|map| map.count);
    match (counts().min(), counts().max()) {
        (Some(1), Some(1)) | (None, _) => String::new(),
        (Some(low), Some(high)) if low == high => format!("mean of {low} maps"),
        (Some(low), Some(high)) => format!("means of {low} to {high} maps"),
        _ => String::new(),
    }
}

/// The maps that a question is answered with, ready to be drawn, and what is to be said of the answer.
pub(super) fn asked(
    question: &Average,
    store: &Store,
    look: &Look,
    progress: &dyn crate::progress::Progress,
) -> Result<(Vec<DrawnMap>, Vec<crate::remedy::Note>), DrawError> {
    let answer = question.run(store, progress)?;
    let maps = normalised(maps_of(&answer, &question.by)?, look);
    Ok((maps, answer.notes))
}
