//! The kinds of drawings: how each is typed, and nothing more.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{DrawArgs, Draws};
use crate::cli::Failure;
use crate::cli::query::map::parse_time;
use crate::draw::{
    Alpha, Arrangement, Axis, Backdrop, Comparison, ContactSheet, Drawing, HeadMatrix, HeadValue, Heatmap, Overlay,
    Profile, Series, SideMatrix, WeightCurve,
};
use crate::kernel::FramePlacement;
use crate::metrics::Metric;
use crate::query::{Across, Align, By};

/// The frames of maps, a map for each video and word: means over all that is not chosen.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit render heatmap maps.store --video v1 --token flower -o flower.png
                                      the mean over steps, blocks and heads
  attnkit render heatmap maps.store --video v1 --token flower --step 9 --block 12 --head 3 \\
      --scale bicubic --colormap magma -o head.svg
  attnkit render heatmap maps.store --where \"token = 'flower'\" --by seed -o seeds.png
                                      a row for each seed")]
pub(super) struct HeatmapArgs {
    #[command(flatten)]
    common: DrawArgs,
    /// What each map is of: any of video, prompt, seed, token, weight, step, block, head; the mean over all else
    #[arg(long, value_enum, value_name = "DIMENSION,…", value_delimiter = ',', hide_possible_values = true)]
    by: Vec<Across>,
    /// The latent frames to show [default: all; eight of many]
    #[arg(long = "frame", value_name = "N,…", value_delimiter = ',')]
    frames: Vec<usize>,
    /// Frames as rows of up to eight, all in a row, or as a grid
    #[arg(long, value_enum, default_value_t)]
    layout: Arrangement,
}

impl Draws for HeatmapArgs {
    fn common(&self) -> &DrawArgs {
        &self.common
    }

    fn drawing(&self) -> Drawing {
        Drawing::Heatmap(Heatmap {
            filter: self.common.filter(),
            reduction: self.common.reduce.reduction(),
            by: self.by.clone(),
            arrangement: self.layout,
            frames: self.frames.clone(),
        })
    }
}

/// Where the frames of the video are, and how maps lie over them.
#[derive(Debug, Args)]
pub(super) struct BackdropArgs {
    /// The frames of the video: a directory of PNG, JPEG or WebP files, in the order of their numbers
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = crate::cli::path())]
    frames_dir: Option<PathBuf>,
    /// The video itself, in any format that ffmpeg reads
    #[arg(
        long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = crate::cli::path(),
        conflicts_with = "frames_dir"
    )]
    video_file: Option<PathBuf>,
    /// Where latent frames lie among those of the video: as a causal VAE decodes them, or evenly
    #[arg(long, value_name = "vae|even", default_value = "vae", value_parser = parse_time, alias = "placement")]
    pub time: FramePlacement,
    /// How opaque maps are: from 0 to 1, or growing with the value up to that (value:0.8)
    #[arg(long, value_name = "ALPHA", default_value = "value:0.8")]
    pub alpha: Alpha,
}

impl BackdropArgs {
    pub fn backdrop(&self) -> Option<Backdrop> {
        let of_dir = self.frames_dir.clone().map(Backdrop::Directory);
        of_dir.or_else(|| self.video_file.clone().map(Backdrop::Video))
    }
}

/// Maps over some frames of their video: a row for each word.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit render overlay maps.store --video v1 --frames-dir frames/v1 -o words.png
  attnkit render overlay maps.store --video v1 --token flower --video-file v1.mp4 \\
      --frame 0,20,40 --alpha 0.6 --colormap turbo -o flower.png")]
pub(super) struct OverlayArgs {
    #[command(flatten)]
    common: DrawArgs,
    #[command(flatten)]
    backdrop: BackdropArgs,
    /// The frames of the video to show [default: five, evenly spread]
    #[arg(long = "frame", value_name = "N,…", value_delimiter = ',')]
    frames: Vec<usize>,
}

impl Draws for OverlayArgs {
    fn common(&self) -> &DrawArgs {
        &self.common
    }

    fn check(&self) -> Result<(), Failure> {
        if self.backdrop.backdrop().is_some() {
            return Ok(());
        }
        let hint = "add --frames-dir DIR or --video-file FILE; `attnkit render heatmap` shows maps alone";
        Err(Failure::usage("no frames of the video are named", hint))
    }

    fn drawing(&self) -> Drawing {
        Drawing::Overlay(Overlay {
            reduction: self.common.reduce.reduction(),
            placement: self.backdrop.time,
            alpha: self.backdrop.alpha,
            frames: self.frames.clone(),
            // That there is one is checked before.
            ..Overlay::new(self.common.filter(), self.backdrop.backdrop().unwrap_or_else(|| Backdrop::at(".".as_ref())))
        })
    }
}

/// A contact sheet: maps in rows and columns by what tells them apart; means over all else.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit render sheet maps.store --video v1 --rows token --cols step -o sheet.png
  attnkit render sheet maps.store --token flower --rows seed --cols frame --range row -o seeds.svg
  attnkit render sheet maps.store --video v1 --token flower --rows block --cols head -o heads.png")]
pub(super) struct SheetArgs {
    #[command(flatten)]
    common: DrawArgs,
    /// What the rows are: token, step, block, head, frame, video, prompt, seed or weight
    #[arg(long, value_name = "DIMENSION", default_value = "token")]
    rows: Axis,
    /// What the columns are: one of the same
    #[arg(long, visible_alias = "columns", value_name = "DIMENSION", default_value = "step")]
    cols: Axis,
    /// The latent frame to show [default: the mean over frames]
    #[arg(long, value_name = "N")]
    frame: Option<usize>,
}

impl Draws for SheetArgs {
    fn common(&self) -> &DrawArgs {
        &self.common
    }

    fn drawing(&self) -> Drawing {
        Drawing::Sheet(ContactSheet {
            filter: self.common.filter(),
            reduction: self.common.reduce.reduction(),
            rows: self.rows,
            columns: self.cols,
            frame: self.frame,
        })
    }
}

/// The matrix of blocks and heads: a statistic of each head, its mean over all maps that are selected, or its map.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit render heads maps.store --token flower -o heads.png
  attnkit render heads maps.store --token flower --value entropy_norm -o entropy.svg
  attnkit render heads maps.store --video v1 --token flower --value map -o thumbnails.png")]
pub(super) struct HeadsArgs {
    #[command(flatten)]
    common: DrawArgs,
    /// A statistic (a column of the table heads, such as top5, gini, spread), or map: a thumbnail
    #[arg(long, value_name = "STATISTIC|map", default_value = "top5")]
    value: String,
    /// The latent frame of thumbnails [default: the mean over frames]
    #[arg(long, value_name = "N")]
    frame: Option<usize>,
}

impl Draws for HeadsArgs {
    fn common(&self) -> &DrawArgs {
        &self.common
    }

    fn drawing(&self) -> Drawing {
        let value = if self.value == "map" { HeadValue::Map } else { HeadValue::Statistic(self.value.clone()) };
        Drawing::Heads(HeadMatrix {
            filter: self.common.filter(),
            reduction: self.common.reduce.reduction(),
            value,
            frame: self.frame,
        })
    }
}

/// A statistic of words' maps through the denoising steps: the mean over videos, with its 95 % interval.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit render evolution maps.store -o entropy.png      a line for each word
  attnkit render evolution maps.store --token flower --value cosine_last --by block -o settled.svg
  attnkit render evolution maps.store --token flower --value top5 --each -o videos.png")]
pub(super) struct EvolutionArgs {
    #[command(flatten)]
    common: DrawArgs,
    /// The statistic: a column of `attnkit query evolution`
    #[arg(long, value_name = "COLUMN", default_value = "entropy_norm")]
    value: String,
    /// Lines for each block or head
    #[arg(long, value_enum)]
    by: Option<By>,
    /// A line for each video instead of their mean
    #[arg(long)]
    each: bool,
}

impl Draws for EvolutionArgs {
    fn common(&self) -> &DrawArgs {
        &self.common
    }

    fn drawing(&self) -> Drawing {
        Drawing::Evolution(Series {
            filter: self.common.filter(),
            reduction: self.common.reduce.reduction(),
            by: self.by,
            value: self.value.clone(),
            each: self.each,
        })
    }
}

/// How a word's attention spreads over the latent frames: the mean over videos, with its 95 % interval.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit render frames maps.store -o frames.png          a line for each word
  attnkit render frames maps.store --token jumps --step 9 --each -o jumps.svg")]
pub(super) struct FramesArgs {
    #[command(flatten)]
    common: DrawArgs,
    /// A line for each video instead of their mean
    #[arg(long)]
    each: bool,
}

impl Draws for FramesArgs {
    fn common(&self) -> &DrawArgs {
        &self.common
    }

    fn drawing(&self) -> Drawing {
        Drawing::Frames(Profile {
            filter: self.common.filter(),
            reduction: self.common.reduce.reduction(),
            each: self.each,
        })
    }
}

/// What a word's weight in the prompt does to its maps: a metric against the weight nearest to 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit render weights maps.store --token flower -o weights.png
  attnkit render weights maps.store --token flower --metric js --against 1 -o weights.svg")]
pub(super) struct WeightsArgs {
    #[command(flatten)]
    common: DrawArgs,
    /// What is measured, as in `attnkit query compare`
    #[arg(long, value_name = "METRIC", default_value = "mass_ratio")]
    metric: Metric,
    /// The weight that all others are compared with [default: the one nearest to 1]
    #[arg(long, value_name = "WEIGHT")]
    against: Option<String>,
}

impl Draws for WeightsArgs {
    fn common(&self) -> &DrawArgs {
        &self.common
    }

    fn drawing(&self) -> Drawing {
        Drawing::Weights(WeightCurve {
            filter: self.common.filter(),
            reduction: self.common.reduce.reduction(),
            metric: self.metric,
            against: self.against.clone(),
        })
    }
}

/// How alike prompts, seeds, words, … are, pair by pair: the square table of a comparison.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit render matrix maps.store --across prompt --token flower --where \"seed = 11\" -o prompts.png
  attnkit render matrix maps.store --across head --token flower --block 12 --metric js --cluster -o heads.svg")]
pub(super) struct MatrixArgs {
    #[command(flatten)]
    common: DrawArgs,
    /// What distinguishes the sides
    #[arg(long, value_enum, value_name = "DIMENSION")]
    across: Across,
    /// What is measured, as in `attnkit query compare`
    #[arg(long, value_name = "METRIC", default_value = "cosine")]
    metric: Metric,
    /// Which steps are compared
    #[arg(long, value_enum, default_value_t)]
    align: Align,
    /// Put beside each other what is alike: the order of average linkage
    #[arg(long)]
    cluster: bool,
}

impl Draws for MatrixArgs {
    fn common(&self) -> &DrawArgs {
        &self.common
    }

    fn drawing(&self) -> Drawing {
        Drawing::Matrix(SideMatrix {
            reduction: self.common.reduce.reduction(),
            align: self.align,
            metric: self.metric,
            clustered: self.cluster,
            ..SideMatrix::new(self.common.filter(), self.across)
        })
    }
}

/// Two sides, their difference, and how alike they are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit render compare maps.store --token flower --across seed --a 11 --b 12 -o seeds.png
  attnkit render compare maps.store --video v1 --across token --a flower --b tree -o words.svg")]
pub(super) struct CompareArgs {
    #[command(flatten)]
    common: DrawArgs,
    /// What distinguishes the sides
    #[arg(long, value_enum, value_name = "DIMENSION")]
    across: Across,
    /// The first side [default: one of the only two]
    #[arg(long, value_name = "SIDE", allow_hyphen_values = true)]
    a: Option<String>,
    /// The other side
    #[arg(long, value_name = "SIDE", allow_hyphen_values = true)]
    b: Option<String>,
}

impl Draws for CompareArgs {
    fn common(&self) -> &DrawArgs {
        &self.common
    }

    fn drawing(&self) -> Drawing {
        Drawing::Compare(Comparison {
            reduction: self.common.reduce.reduction(),
            a: self.a.clone(),
            b: self.b.clone(),
            ..Comparison::new(self.common.filter(), self.across)
        })
    }
}
