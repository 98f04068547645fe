//! The square table of a comparison.

use kodama::{Method, linkage};
use serde::{Deserialize, Serialize};

use super::lines::in_words;
use super::maps::{self, number_of, text_of};
use super::{Content, DrawError, Drawn, Look};
use crate::metrics::Metric;
use crate::progress::Progress;
use crate::query::{Across, Align, Compare, Filter, Form, Reduction};
use crate::remedy::{OptionName, Remedy};
use crate::render::{Matrix, Range};
use crate::store::Store;

/// Sides, at the most.
const MOST: usize = 128;

/// A drawing of how alike the sides of a comparison are, pair by pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SideMatrix {
    /// The maps.
    #[serde(default)]
    pub filter: Filter,
    /// How the maps of a side become one.
    #[serde(default)]
    pub reduction: Reduction,
    /// What distinguishes the sides.
    pub across: Across,
    /// Which steps are compared.
    #[serde(default)]
    pub align: Align,
    /// What is measured.
    pub metric: Metric,
    /// Whether sides that are alike stand beside each other: the order of the leaves of average linkage.
    #[serde(default)]
    pub clustered: bool,
}

impl SideMatrix {
    /// By the cosine.
    #[must_use]
    pub fn new(filter: Filter, across: Across) -> Self {
        let (reduction, align) = (Reduction::default(), Align::default());
        Self { filter, reduction, across, align, metric: Metric::Cosine, clustered: false }
    }

    /// The question behind it.
    #[must_use]
    pub fn question(&self) -> Compare {
        Compare {
            align: self.align,
            metrics: vec![self.metric],
            reduction: self.reduction,
            form: Form::Matrix,
            ..Compare::new(self.filter.clone(), self.across)
        }
    }

    /// Draws it.
    ///
    /// # Errors
    /// If the question cannot be answered, or there are too many sides.
    pub fn draw(&self, store: &Store, look: &Look, progress: &dyn Progress) -> Result<Drawn, DrawError> {
        let given = [
            ("threshold", look.threshold.is_some()),
            ("normalise", look.normalise.is_some()),
            ("size", look.size.is_some()),
            ("scale", look.filter.is_some()),
        ];
        super::refuse(&given, "a matrix")?;
        let answer = self.question().run(store, progress)?;
        let table = &answer.table;
        let count = table.height();
        if count > MOST {
            return Err(DrawError::unfit(
                format!("{count} sides are selected, and {MOST} at the most are drawn"),
                Remedy::of("choose fewer with {}", [OptionName::Where.any()]),
            ));
        }
        let columns: Vec<String> = table.get_column_names().iter().skip(2).map(ToString::to_string).collect();
        let value = |a: usize, b: usize| number_of(table, &columns[b], a);
        let mut order: Vec<usize> = (0..count).collect();
        if self.clustered && count > 2 {
            let is_alike = self.metric.is_similarity();
            let distance = |a: usize, b: usize| {
                let mean = f64::midpoint(value(a, b), value(b, a));
                // What cannot be told apart by it is like nothing.
                if !mean.is_finite() {
                    return 1e9;
                }
                if is_alike { 1.0 - mean } else { mean }
            };
            order = leaves(count, distance);
        }
        // Long names stand once, and are known by their letters.
        let full: Vec<String> = order.iter().map(|&side| text_of(table, "a", side)).collect();
        let is_long = full.iter().any(|name| name.chars().count() > 12);
        let (rows, names) = if is_long {
            let numbered = |(number, name): (usize, &String)| format!("{}  {name}", number + 1);
            (full.iter().enumerate().map(numbered).collect(), (1..=count).map(|number| number.to_string()).collect())
        } else {
            (full.clone(), full.clone())
        };
        let values: Vec<f64> =
            order.iter().flat_map(|&a| order.iter().map(move |&b| (a, b))).map(|(a, b)| value(a, b)).collect();
        // What is compared with itself would fill the range, where there is another one.
        let is_off = |index: usize| index / count != index % count;
        let mut off: Vec<f32> =
            (0..values.len()).filter(|index| is_off(*index)).map(|index| values[index] as f32).collect();
        if off.iter().all(|value| *value == off[0]) {
            off = values.iter().map(|value| *value as f32).collect();
        }
        let range = if look.range == Range::default() { Range::Shown } else { look.range };
        let scale = maps::scale(&Look { range, ..look.clone() }, off.into_iter(), false);
        let what = in_words(&self.metric.to_string());
        let word = self.filter.token.clone().unwrap_or_default();
        let parts = [format!("{what} across {}s", self.across.name()), word];
        let matrix = Matrix {
            title: maps::title(look, parts.into_iter().chain(maps::selected(&self.filter))),
            of_rows: String::new(),
            of_columns: self.across.name().into(),
            rows,
            columns: names,
            values,
            scale,
            label: what,
            notes: if matches!(self.metric, Metric::KullbackLeibler | Metric::MassRatio) {
                vec!["each row against its columns".to_owned()]
            } else {
                Vec::new()
            },
        };
        Drawn::new(Content::Matrix(matrix), look, answer.notes)
    }
}

/// Numbers below `count` in the order of the leaves of average linkage.
pub(super) fn leaves(count: usize, distance: impl Fn(usize, usize) -> f64) -> Vec<usize> {
    let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
    let mut condensed: Vec<f64> = pairs.map(|(a, b)| distance(a, b)).collect();
    let tree = linkage(&mut condensed, count, Method::Average);
    let mut clusters: Vec<Vec<usize>> = (0..count).map(|one| vec![one]).collect();
    for step in tree.steps() {
        let merged = [std::mem::take(&mut clusters[step.cluster1]), std::mem::take(&mut clusters[step.cluster2])];
        clusters.push(merged.concat());
    }
    clusters.pop().unwrap_or_default()
}
