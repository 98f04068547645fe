//! `attnkit query compare`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::{Args, ValueHint};

use super::select::{ReduceArgs, SelectArgs};
use super::target::{OutputArgs, Target};
use super::{Ask, OUTPUT};
use crate::cli::{Failure, Global};
use crate::dump::named;
use crate::metrics::Metric;
use crate::query::{Across, Align, Answer, Compare, Form, Question};

/// As they are typed.
static USUAL_METRICS: LazyLock<String> = LazyLock::new(|| Metric::DEFAULT.map(String::from).join(","));

/// Groups of maps compared pair by pair: rows of (a, b, step, metric, value, n).
///
/// The maps of each side are averaged, step by step, over all its videos: what else the sides differ in is said. n
/// counts the maps of both sides. Across weights, every weight is compared with the one nearest to 1 (or --against),
/// and slope and trend tell how the metric responds to the weight.
#[derive(Debug, Args)]
#[command(after_help = "\
Metrics (names with @ take a parameter):
  cosine pearson spearman    similarity of the values, or of their ranks
  js kl                      divergence of the maps as distributions, nats
  iou@0.8                    overlap of the positions above each map's 0.8-quantile
  topk@0.1                   overlap of the highest 10 % of positions
  emd centroid               distance that mass has moved, and between centroids, grid cells
  ssim                       structural similarity of the frames
  l2                         Euclidean distance of the raw maps
  mass_ratio                 sum of a over sum of b

Examples:
  attnkit query compare maps.store --across prompt --token flower --where \"seed = 11\"
  attnkit query compare maps.store --across token --video v1 --matrix
  attnkit query compare maps.store --across weight --token flower --align mean \\
      --where \"prompt = 'a flower near a tree'\"
  attnkit query compare maps.store --across head --align last --against 3 \\
      --token flower --video v1 --metric iou@0.9,emd
  attnkit query compare maps.store --across seed --where \"prompt_id = 'prompt_000'\" \\
      --token flower --maps differences.npy")]
pub(super) struct CompareArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// What distinguishes the two sides
    #[arg(long, value_enum)]
    across: Across,
    /// Which steps are compared
    #[arg(long, value_enum, default_value_t)]
    align: Align,
    /// What is measured
    #[arg(
        long,
        value_name = "METRIC,…",
        value_delimiter = ',',
        default_value = USUAL_METRICS.as_str(),
        value_parser = parse_metric
    )]
    metric: Vec<Metric>,
    /// For each metric a square table, of means over the steps
    #[arg(long, conflicts_with = "against")]
    matrix: bool,
    /// Compare all with this one
    #[arg(long, value_name = "GROUP", allow_hyphen_values = true)]
    against: Option<String>,
    /// Also write the difference maps a - b, in a format with maps
    #[arg(
        long, value_name = "FILE", help_heading = OUTPUT, value_hint = ValueHint::FilePath,
        value_parser = crate::cli::path()
    )]
    maps: Option<PathBuf>,
    #[command(flatten)]
    reduce: ReduceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl CompareArgs {
    /// Where the difference maps go, if they are wanted.
    fn target_of_maps(&self) -> Result<Option<Target>, Failure> {
        self.maps.as_ref().map(|path| Target::of_maps(path, &self.select.store)).transpose()
    }
}

impl Ask for CompareArgs {
    fn store(&self) -> &Path {
        &self.select.store
    }

    fn output(&self) -> &OutputArgs {
        &self.output
    }

    fn check(&self) -> Result<(), Failure> {
        self.target_of_maps()?;
        let (Some(maps), Some(output)) = (&self.maps, &self.output.output) else { return Ok(()) };
        // Where a path leads, however it is written.
        let is_output = |path: &Path| named(path).ok().zip(named(output).ok()).is_some_and(|(a, b)| a == b);
        let taken = [
            (maps.clone(), "the difference maps would take the place of the answer"),
            (maps.with_extension("json"), "the rows beside the maps would have the name of the answer"),
        ];
        match taken.into_iter().find(|(path, _)| is_output(path)) {
            Some((_, found)) => Err(Failure::usage(found, "name them differently")),
            None => Ok(()),
        }
    }

    fn question(&self, _: &Target) -> Question {
        Question::Compare(Compare {
            filter: self.select.filter(),
            across: self.across,
            align: self.align,
            metrics: self.metric.clone(),
            reduction: self.reduce.reduction(),
            against: self.against.clone(),
            form: if self.matrix { Form::Matrix } else { Form::Pairs },
            differences: self.maps.is_some(),
            arrange: self.output.arrange(),
        })
    }

    fn write(&self, mut answer: Answer, target: &Target, global: &Global) -> Result<(), Failure> {
        let differences = answer.differences.take();
        target.write(answer, global)?;
        match (self.target_of_maps()?, differences) {
            (Some(target), Some(differences)) => target.write(*differences, global),
            _ => Ok(()),
        }
    }
}

fn parse_metric(text: &str) -> Result<Metric, String> {
    text.trim().parse()
}
