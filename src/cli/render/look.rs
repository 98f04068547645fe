//! How drawings look.

// What stands above these structs would be taken for the description of the commands that they are options of.

use clap::Args;

use crate::cli::query::map::parse_size;
use crate::draw::{Look, Normalise, Threshold};
use crate::render::{Colormap, Filter, Range, Style};

/// Heading of these options.
const LOOK: &str = "Look";

#[derive(Debug, Args)]
#[command(next_help_heading = LOOK)]
pub(in crate::cli) struct LookArgs {
    /// Colours of values: viridis, magma, inferno, plasma, cividis, turbo, gray, coolwarm, rdbu or spectral [default:
    /// viridis; coolwarm around 0 where there are negative values]
    #[arg(long, value_name = "NAME")]
    colormap: Option<Colormap>,
    /// Values that the colours stand for: LOW:HIGH, percentile:LOW:HIGH or shown (lowest to highest) of all that is
    /// shown; or of each frame, word or row alone
    #[arg(long, value_name = "RANGE", default_value = "percentile:1:99", allow_hyphen_values = true)]
    range: Range,
    /// Colours (of curves: the y axis) follow the logarithm
    #[arg(long)]
    log: bool,
    /// Show nothing where values are lower: a number, a percentile of what is shown (p95), or mean
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    threshold: Option<Threshold>,
    /// Divide each map by its sum, by its maximum, or at each position by the sum over the words
    #[arg(long, visible_alias = "normalize", value_enum, value_name = "sum|max|words", hide_possible_values = true)]
    normalise: Option<Normalise>,
    /// What lies between positions: nearest, bilinear, bicubic or lanczos [default: nearest; bilinear over a video]
    #[arg(long, value_name = "FILTER")]
    scale: Option<Filter>,
    /// Height and width of each map, pixels [default: as fits; over a video, its own]
    #[arg(long, value_name = "HxW", value_parser = parse_size)]
    size: Option<(usize, usize)>,
    /// Pixels to an inch
    #[arg(long, value_name = "N", default_value_t = 192.0, value_parser = parse_dpi)]
    dpi: f64,
    /// Height of text, points
    #[arg(long, value_name = "PT", default_value_t = 9.0, value_parser = parse_points)]
    font_size: f64,
    /// What stands above [default: what the data say; "" for nothing]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Light on dark
    #[arg(long)]
    dark: bool,
    /// Without a background
    #[arg(long)]
    transparent: bool,
}

impl LookArgs {
    pub fn look(&self) -> Look {
        let Self { dpi, font_size, dark, transparent, .. } = *self;
        Look {
            colormap: self.colormap,
            range: self.range,
            log: self.log,
            threshold: self.threshold,
            normalise: self.normalise,
            filter: self.scale,
            size: self.size,
            title: self.title.clone(),
            style: Style { font_size, dpi, dark, transparent },
        }
    }
}

fn parse_dpi(text: &str) -> Result<f64, String> {
    within(text, 24.0, 1200.0)
}

fn parse_points(text: &str) -> Result<f64, String> {
    within(text, 3.0, 72.0)
}

fn within(text: &str, low: f64, high: f64) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| format!("`{text}` is no number from {low} to {high}"))
}
