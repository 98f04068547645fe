//! `attnkit query map`.

use std::path::Path;

use clap::Args;

use super::Ask;
use super::select::{ReduceArgs, SelectArgs};
use super::target::{OutputArgs, Target};
use crate::kernel::FramePlacement;
use crate::query::{Filter, Question, SpatialMap};

/// One spatial map, [frames, height, width]: of one step of one word in one video.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit query map maps.store --video v1 --token flower --step 9 -o map.npy
  attnkit query map maps.store --video v1 --token flower --step 9 -o map.png
  attnkit query map maps.store --video v1 --token flower --step 9 \\
      --block 12 --head 3 --size 480x848 --frames 57 -o overlay.npy
                                      in the pixels and frames of the video")]
pub(super) struct MapArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// The denoising step
    #[arg(long, value_name = "N")]
    step: Option<i64>,
    /// One block [default: the mean over all]
    #[arg(long, value_name = "N")]
    block: Option<i64>,
    /// One head [default: the mean over all]
    #[arg(long, value_name = "N")]
    head: Option<i64>,
    /// Resample to this height and width, pixels
    #[arg(long, value_name = "HxW", value_parser = parse_size)]
    size: Option<(usize, usize)>,
    /// Resample to this number of frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    frames: Option<u32>,
    /// Where latent frames lie among these: as a causal VAE decodes them, or evenly
    #[arg(
        long, value_name = "vae|even", default_value = "vae", value_parser = parse_time, requires = "frames",
        alias = "placement"
    )]
    time: FramePlacement,
    #[command(flatten)]
    reduce: ReduceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Ask for MapArgs {
    fn store(&self) -> &Path {
        &self.select.store
    }

    fn output(&self) -> &OutputArgs {
        &self.output
    }

    fn is_of_maps(&self) -> bool {
        true
    }

    fn question(&self, _: &Target) -> Question {
        let Self { step, block, head, .. } = *self;
        Question::Map(SpatialMap {
            filter: Filter { step, block, head, ..self.select.filter() },
            reduction: self.reduce.reduction(),
            size: self.size,
            frames: self.frames.map(|frames| frames as usize),
            placement: self.time,
            arrange: self.output.arrange(),
        })
    }
}

pub(in crate::cli) fn parse_time(text: &str) -> Result<FramePlacement, String> {
    match text {
        "vae" | "causal" => Ok(FramePlacement::Causal),
        "even" => Ok(FramePlacement::Even),
        _ => Err(format!("`{text}` is neither vae nor even")),
    }
}

pub(in crate::cli) fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let size = |text: &str| text.parse().ok().filter(|&size: &usize| size > 0 && size <= 1 << 15);
    text.split_once('x')
        .and_then(|(height, width)| Some((size(height)?, size(width)?)))
        .ok_or_else(|| format!("`{text}` is not HEIGHTxWIDTH, such as 480x848"))
}
