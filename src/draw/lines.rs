//! Curves: a statistic through the denoising steps, attention through the frames, a metric over weights.

use std::collections::BTreeMap;

use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use super::maps::{self, number_of, text_of};
use super::{Content, DrawError, Drawn, Look};
use crate::metrics::Metric;
use crate::progress::Progress;
use crate::query::{Across, Align, Average, By, Compare, Evolution, Filter, Reduction};
use crate::remedy::{Note, Remedy};
use crate::render::{Curve, Curves};
use crate::store::Store;

/// Lines in one drawing, at the most.
const MOST_LINES: usize = 21;
/// Of a mean of n numbers with the standard deviation s, 1.96 s / √n is half of its 95 % interval.
const NORMAL: f64 = 1.96;

/// A drawing of a statistic of words' maps through the denoising steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Series {
    /// The maps.
    pub filter: Filter,
    /// How maps of a step become one.
    pub reduction: Reduction,
    /// Lines for each block or head.
    pub by: Option<By>,
    /// The statistic: a column of the answer of an [`Evolution`].
    pub value: String,
    /// A line for each video, instead of their mean and its 95 % interval.
    pub each: bool,
}

impl Default for Series {
    /// The normalised entropy.
    fn default() -> Self {
        let (filter, reduction) = (Filter::all(), Reduction::default());
        Self { filter, reduction, by: None, value: "entropy_norm".to_owned(), each: false }
    }
}

impl Series {
    /// The question behind it.
    #[must_use]
    pub fn question(&self) -> Evolution {
        Evolution { by: self.by, reduction: self.reduction, ..Evolution::new(self.filter.clone()) }
    }

    /// Draws it.
    ///
    /// # Errors
    /// If the question cannot be answered, or its answer has no such number.
    pub fn draw(&self, store: &Store, look: &Look, progress: &dyn Progress) -> Result<Drawn, DrawError> {
        of_lines(look, true)?;
        let answer = self.question().run(store, progress)?;
        let table = &answer.table;
        check_number(table, &self.value)?;
        let by = self.by.map(|by| if by == By::Block { "block" } else { "head" });
        let tokens = distinct(table, "token");
        let mut lines = Lines::default();
        for row in 0..table.height() {
            let token = text_of(table, "token", row);
            let by = by.map(|by| format!("{by} {}", text_of(table, by, row)));
            let word = if tokens > 1 || by.is_none() { token } else { String::new() };
            let name = [Some(word), by].into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>();
            let video = text_of(table, "video_id", row);
            let name = if self.each { format!("{} {video}", name.join(" ")) } else { name.join(" ") };
            lines.add(name, number_of(table, "step", row), video, number_of(table, &self.value, row));
        }
        let mut notes = answer.notes;
        let (curves, mut below) = lines.curves(&mut notes);
        below.insert(
            0,
            match self.by {
                None => "of the mean map over blocks and heads".to_owned(),
                Some(By::Block) => "of the mean map over heads".to_owned(),
                Some(By::Head) => "of the mean map over blocks".to_owned(),
            },
        );
        let word = if tokens == 1 { text_of(table, "token", 0) } else { String::new() };
        let only_video = if distinct(table, "video_id") == 1 { text_of(table, "video_id", 0) } else { String::new() };
        let curves = Curves {
            title: maps::title(look, [word, only_video].into_iter().chain(maps::selected(&self.filter))),
            x: "denoising step".into(),
            y: in_words(&self.value),
            is_whole: true,
            is_log: look.log,
            limits: fixed(look),
            curves,
            notes: below,
            ..Curves::default()
        };
        Drawn::new(Content::Curves(curves), look, notes)
    }
}

/// A drawing of how attention spreads over the latent frames: the share of a map's sum in each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// The maps that are averaged, in each video.
    pub filter: Filter,
    /// How.
    pub reduction: Reduction,
    /// A line for each video, instead of their mean and its 95 % interval.
    pub each: bool,
}

impl Profile {
    /// The question behind it.
    #[must_use]
    pub fn question(&self) -> Average {
        maps::question(&self.filter, self.reduction, &[Across::Video, Across::Token])
    }

    /// Draws it: `f_t` = Σ p over the positions of frame t, with p the shares of a map's sum.
    ///
    /// # Errors
    /// If the question cannot be answered, or the grid is not known.
    pub fn draw(&self, store: &Store, look: &Look, progress: &dyn Progress) -> Result<Drawn, DrawError> {
        of_lines(look, false)?;
        let (drawn, mut notes) = maps::asked(&self.question(), store, look, progress)?;
        if let Some(other) = drawn.iter().find(|map| map.grid.frames != drawn[0].grid.frames) {
            return Err(DrawError::unfit(
                format!("maps of {} and of {} latent frames are selected", drawn[0].grid.frames, other.grid.frames),
                Remedy::of("choose videos of one length with {}", [crate::remedy::OptionName::Where.any()]),
            ));
        }
        let mut lines = Lines::default();
        for map in &drawn {
            let video = map.name(Across::Video);
            let name = map.name(Across::Token);
            let name = if self.each { format!("{name} {video}") } else { name.to_owned() };
            let of_frame = map.values.chunks_exact(map.grid.plane().max(1));
            let sums: Vec<f64> = of_frame.map(|frame| frame.iter().copied().map(f64::from).sum()).collect();
            let whole: f64 = sums.iter().sum();
            for (frame, sum) in sums.iter().enumerate() {
                lines.add(name.clone(), frame as f64, video.to_owned(), sum / whole);
            }
        }
        let (curves, below) = lines.curves(&mut notes);
        let (common, _) = super::heatmap::names(&drawn, &[Across::Token, Across::Video]);
        let parts = common.into_iter().chain(maps::selected(&self.filter)).chain([maps::mean_of(&drawn)]);
        let frames = drawn.first().map_or(1, |map| map.grid.frames);
        let curves = Curves {
            title: maps::title(look, parts),
            x: "latent frame".into(),
            y: "share of attention".into(),
            is_whole: true,
            is_log: look.log,
            limits: fixed(look),
            level: Some(1.0 / frames as f64),
            curves,
            notes: below.into_iter().chain(["dashed: attention that is spread evenly".to_owned()]).collect(),
            ..Curves::default()
        };
        Drawn::new(Content::Curves(curves), look, notes)
    }
}

/// A drawing of what a word's weight in the prompt does to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WeightCurve {
    /// The maps.
    pub filter: Filter,
    /// How the maps of a side become one.
    pub reduction: Reduction,
    /// What is measured against the weight that all others are compared with.
    pub metric: Metric,
    /// That weight; `None`: the one nearest to 1.
    pub against: Option<String>,
}

impl Default for WeightCurve {
    /// The ratio of the masses.
    fn default() -> Self {
        let (filter, reduction) = (Filter::all(), Reduction::default());
        Self { filter, reduction, metric: Metric::MassRatio, against: None }
    }
}

impl WeightCurve {
    /// The question behind it.
    #[must_use]
    pub fn question(&self) -> Compare {
        Compare {
            align: Align::Mean,
            metrics: vec![self.metric],
            reduction: self.reduction,
            against: self.against.clone(),
            ..Compare::new(self.filter.clone(), Across::Weight)
        }
    }

    /// Draws it.
    ///
    /// # Errors
    /// If the question cannot be answered, as where all words have one weight.
    pub fn draw(&self, store: &Store, look: &Look, progress: &dyn Progress) -> Result<Drawn, DrawError> {
        of_lines(look, true)?;
        let answer = self.question().run(store, progress)?;
        let table = &answer.table;
        let mut points: Vec<(f64, f64)> =
            (0..table.height()).map(|row| (number_of(table, "a", row), number_of(table, "value", row))).collect();
        let against = number_of(table, "b", 0);
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let is_ratio = self.metric == Metric::MassRatio;
        let word = self.filter.token.clone().unwrap_or_default();
        let curves = Curves {
            title: maps::title(look, [word].into_iter().chain(maps::selected(&self.filter))),
            x: "weight of the word".into(),
            y: format!("{}, to weight {against}", in_words(&self.metric.to_string())),
            is_log: look.log,
            limits: fixed(look),
            level: is_ratio.then_some(1.0),
            curves: vec![Curve { points, ..Curve::default() }],
            ..Curves::default()
        };
        Drawn::new(Content::Curves(curves), look, answer.notes)
    }
}

/// Numbers of lines by x, each from several videos.
#[derive(Default)]
struct Lines {
    names: Vec<String>,
    /// By line, x and video. A video counts once: what it has of several pieces of a word is averaged before.
    values: Vec<BTreeMap<i64, BTreeMap<String, Vec<f64>>>>,
    undefined: usize,
}

impl Lines {
    fn add(&mut self, name: String, x: f64, video: String, value: f64) {
        let line = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.names.push(name);
            self.values.push(BTreeMap::new());
            self.names.len() - 1
        });
        let at = self.values[line].entry(x as i64).or_default();
        if value.is_finite() {
            at.entry(video).or_default().push(value);
        } else {
            self.undefined += 1;
        }
    }

    /// The means with their intervals, and what is to be written below them.
    fn curves(self, notes: &mut Vec<Note>) -> (Vec<Curve>, Vec<String>) {
        let lines = self.names.len();
        if self.undefined > 0 {
            notes.push(format!("{} values are undefined: they are left out", self.undefined).into());
        }
        if lines > MOST_LINES {
            let text = format!("{} of {lines} lines are not drawn: they could not be told apart", lines - MOST_LINES);
            notes.push(Note::new(text, Remedy::from("choose fewer")));
        }
        let mut counts: Vec<usize> = Vec::new();
        let mean_of = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let of = |(name, values): (String, BTreeMap<i64, BTreeMap<String, Vec<f64>>>)| {
            let mut curve = Curve { name, ..Curve::default() };
            let mut most = 0;
            for (x, videos) in values {
                let values: Vec<f64> = videos.values().map(mean_of).collect();
                let n = values.len() as f64;
                let mean = mean_of(&values);
                let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
                let half = NORMAL * (variance / n).sqrt();
                most = most.max(values.len());
                counts.push(values.len());
                curve.points.push((x as f64, mean));
                curve.band.push((mean - half, mean + half));
            }
            if most > 1 {
                curve.name = format!("{} (n = {most})", curve.name);
            }
            curve
        };
        let curves: Vec<Curve> = self.names.into_iter().zip(self.values).take(MOST_LINES).map(of).collect();
        let (low, high) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
        let below = if high < 2 {
            Vec::new()
        } else {
            let count = if low == high { low.to_string() } else { format!("{low} to {high}") };
            vec![format!("mean and its 95 % interval (normal) over {count} videos")]
        };
        (curves, below)
    }
}

/// Refuses what says nothing of lines: whoever gives it would believe that it did.
fn of_lines(look: &Look, normalise: bool) -> Result<(), DrawError> {
    let given = [
        ("colormap", look.colormap.is_some()),
        ("threshold", look.threshold.is_some()),
        ("size", look.size.is_some()),
        ("scale", look.filter.is_some()),
        ("normalise", normalise && look.normalise.is_some()),
        ("range", matches!(look.range, crate::render::Range::Each(_))),
    ];
    super::refuse(&given, "lines")
}

fn check_number(table: &DataFrame, column: &str) -> Result<(), DrawError> {
    if table.column(column).is_ok_and(|column| column.dtype().is_primitive_numeric()) {
        return Ok(());
    }
    let numbers: Vec<&str> = table
        .columns()
        .iter()
        .filter(|column| column.dtype().is_float())
        .map(|column| column.name().as_str())
        .collect();
    let near = crate::suggest::did_you_mean(column, numbers.iter().copied());
    Err(DrawError::unfit(
        format!("the answer has no number `{column}`{near}"),
        Remedy::from(format!("draw one of {}", numbers.join(", "))),
    ))
}

fn distinct(table: &DataFrame, column: &str) -> usize {
    table.column(column).and_then(polars::prelude::Column::n_unique).unwrap_or(0)
}

/// A range of y that was asked for.
fn fixed(look: &Look) -> Option<(f64, f64)> {
    match look.range {
        crate::render::Range::Values(low, high) => Some((low, high)),
        _ => None,
    }
}

/// What a column or a metric is, for an axis.
pub(crate) fn in_words(column: &str) -> String {
    let (column, parameter) = column.split_once('@').unwrap_or((column, ""));
    match column {
        "sum" => "sum of attention",
        "mean" => "mean attention",
        "std" => "standard deviation of attention",
        "min" => "lowest attention",
        "max" => "highest attention",
        "entropy" => "entropy (nats)",
        "entropy_norm" => "entropy / ln(positions)",
        "gini" => "Gini coefficient",
        "top1" => "share in the highest 1 % of positions",
        "top5" => "share in the highest 5 % of positions",
        "top10" => "share in the highest 10 % of positions",
        "spread" => "spread (grid cells)",
        "centroid_frame" => "centroid: latent frame",
        "centroid_y" => "centroid: row",
        "centroid_x" => "centroid: column",
        "cosine_previous" => "cosine to the step before",
        "cosine_last" => "cosine to the last step",
        "js_previous" => "Jensen–Shannon divergence from the step before",
        "js_last" => "Jensen–Shannon divergence from the last step",
        "centroid_shift_previous" => "shift of the centroid since the step before (cells)",
        "centroid_shift_last" => "shift of the centroid to the last step (cells)",
        "mass_ratio" => "ratio of attention",
        "cosine" => "cosine similarity",
        "js" => "Jensen–Shannon divergence",
        "pearson" => "Pearson correlation",
        "spearman" => "Spearman correlation",
        "ssim" => "SSIM",
        "kl" => "Kullback–Leibler divergence",
        "iou" => return format!("IoU above the quantile {parameter}"),
        "topk" => return format!("overlap of the highest {parameter}"),
        "emd" => "earth mover's distance (cells)",
        "l2" => "Euclidean distance",
        "centroid" => "distance of centroids (cells)",
        other => return other.replace('_', " "),
    }
    .to_owned()
}
