//! How alike two maps are: overlap, correlation, divergence, distance on the grid.
//!
//! A [`Metric`] says what is asked; a [`Measured`] map keeps what every comparison of it needs. Which maps are compared
//! is for others to say.

mod formulas;
mod measured;
mod ssim;
mod windows;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use self::formulas::{cosine, divergence, divergence_from_middle, dot, sum_over};
pub use self::measured::Measured;
use self::ssim::structural_similarity;
use crate::suggest::did_you_mean;

/// A measure of how alike two maps a and b of the same positions are.
///
/// Written and read (also by serde) as its name, with its parameter after an `@`: `cosine`, `iou@0.8`.
///
/// Every metric is NaN if a map has a value that is NaN or infinite, or if the maps have different numbers of
/// positions, or none; those that need a grid also if the grids differ. *Mass* below is x / Σ x; what is made of it is
/// NaN for a map with a negative value or without mass.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Metric {
    /// Cosine of the angle between the maps, Σ ab / √(Σ a² Σ b²): 1 − `scipy.spatial.distance.cosine`.
    ///
    /// NaN if a map is zero everywhere.
    Cosine,
    /// Correlation Σ (a − ā)(b − b̄) / √(Σ (a − ā)² Σ (b − b̄)²): `scipy.stats.pearsonr`.
    ///
    /// NaN if a map is constant.
    Pearson,
    /// [`Pearson`](Self::Pearson) of the ranks, equal values sharing the mean of their ranks: `scipy.stats.spearmanr`.
    ///
    /// NaN if a map is constant.
    Spearman,
    /// Jensen–Shannon divergence of the masses p and q, ½ Σ p ln(p / m) + ½ Σ q ln(q / m) with m = (p + q) / 2, in nats
    /// from 0 to ln 2 (Lin, *Divergence Measures Based on the Shannon Entropy*, 1991): the square of
    /// `scipy.spatial.distance.jensenshannon`.
    JensenShannon,
    /// Kullback–Leibler divergence of the masses p of a from the masses q of b, Σ p ln(p / q), in nats (Kullback &
    /// Leibler, *On Information and Sufficiency*, 1951): `scipy.stats.entropy(p, q)`.
    ///
    /// NaN where q = 0 < p anywhere: there it is infinite, which not every format of tables has.
    KullbackLeibler,
    /// Intersection over union |A ∩ B| / |A ∪ B| (Jaccard, 1912) of the positions whose value is above their map's
    /// quantile, with linear interpolation: `map > numpy.quantile(map, quantile)`.
    ///
    /// Equal values are in or out together: of a map whose highest values are all equal, those are in, and of one with
    /// a single value above many equal ones, that alone. NaN if a map is constant.
    Iou {
        /// At least 0 and below 1; NaN is the answer to any other.
        quantile: f64,
    },
    /// Overlap |A ∩ B| / max(|A|, |B|) of the k = ⌈fraction · n⌉ highest positions of each map: precision at k, with
    /// one map as the other's truth.
    ///
    /// Equal values are in or out together: where the k-th value and the next are equal, A has those above it, or if
    /// there are none those equal to it. NaN if a map is constant, unless all positions are meant.
    TopK {
        /// Above 0 and at most 1; NaN is the answer to any other.
        fraction: f64,
    },
    /// Earth mover's distance axis by axis, in grid cells: W₁ of the masses of the frames plus W₁ of the rows plus W₁
    /// of the columns, with W₁ = Σ |difference of the cumulated masses| (`scipy.stats.wasserstein_distance`).
    ///
    /// A lower bound of the earth mover's distance with city-block ground distance (Rubner, Tomasi & Guibas, *The Earth
    /// Mover's Distance as a Metric for Image Retrieval*, 2000), and equal to it where b is a shifted a. Needs a grid.
    Emd,
    /// Structural similarity (2 āb̄ + C₁)(2 cov(a, b) + C₂) / ((ā² + b̄² + C₁)(var a + var b + C₂)), the mean over all
    /// windows of all frames (Wang, Bovik, Sheikh & Simoncelli, *Image Quality Assessment: From Error Visibility to
    /// Structural Similarity*, 2004).
    ///
    /// Windows are 7 × 7, or of the largest odd size that fits a frame; covariances are of the sample; C₁ = (0.01 R)²,
    /// C₂ = (0.03 R)², where R is the range of the values of both maps in all frames: the mean over frames of
    /// `skimage.metrics.structural_similarity(a, b, win_size=size, data_range=R)`, and 1 if R = 0. NaN if a frame is
    /// smaller than 3 × 3. Needs a grid.
    Ssim,
    /// Euclidean distance √ Σ (a − b)² of the values as they are: `numpy.linalg.norm(a - b)`.
    L2,
    /// Distance √(Δy² + Δx²) of the centroids within frames, in grid cells (see [`Location`]). Needs a grid.
    ///
    /// [`Location`]: super::Location
    Centroid,
    /// Σ a / Σ b of the values as they are. NaN if Σ b = 0.
    MassRatio,
}

impl Metric {
    /// What is measured when nothing else is asked for.
    pub const DEFAULT: [Self; 5] =
        [Self::Cosine, Self::JensenShannon, Self::Iou { quantile: QUANTILE }, Self::Centroid, Self::MassRatio];

    /// Every name and what it measures, in one line.
    pub const NAMES: [(&'static str, &'static str); 12] = [
        ("cosine", "cosine of the angle between the maps; 1 for proportional maps"),
        ("pearson", "correlation of the values, -1 to 1"),
        ("spearman", "correlation of the ranks, -1 to 1"),
        ("js", "Jensen-Shannon divergence of the masses in nats, 0 to ln 2"),
        ("kl", "Kullback-Leibler divergence of the masses in nats, of the first map from the second"),
        ("iou", "intersection over union of the positions above each map's quantile (iou@0.8)"),
        ("topk", "shared part of each map's highest positions (topk@0.1: the highest tenth)"),
        ("emd", "earth mover's distance in grid cells, axis by axis"),
        ("ssim", "structural similarity of the frames, at most 1"),
        ("l2", "Euclidean distance of the values as they are"),
        ("centroid", "distance of the centroids within frames, in grid cells"),
        ("mass_ratio", "sum of the first map over the sum of the second"),
    ];

    /// Whether the metric depends on where positions lie, and so is NaN without a grid.
    #[must_use]
    pub const fn needs_grid(self) -> bool {
        matches!(self, Self::Emd | Self::Ssim | Self::Centroid)
    }

    /// Whether it is 1 at the most, of what is alike; others are 0 there, and grow.
    #[must_use]
    pub const fn is_similarity(self) -> bool {
        matches!(
            self,
            Self::Cosine | Self::Pearson | Self::Spearman | Self::Iou { .. } | Self::TopK { .. } | Self::Ssim
        )
    }

    /// The metric of `a` and `b`, in the unit its documentation gives; NaN where undefined.
    #[must_use]
    pub fn between(self, a: &Measured, b: &Measured) -> f64 {
        self.defined_between(a, b).unwrap_or(f64::NAN)
    }

    fn defined_between(self, a: &Measured, b: &Measured) -> Option<f64> {
        if a.values.len() != b.values.len() || (self.needs_grid() && a.grid != b.grid) {
            return None;
        }
        let (of_a, of_b) = (a.totals()?, b.totals()?);
        let value = match self {
            Self::Cosine => cosine(dot(a.values, b.values), of_a.squares, of_b.squares),
            Self::Pearson => {
                let products = sum_over(a.values, b.values, |x, y| (x - of_a.mean) * (y - of_b.mean));
                cosine(products, a.squared_deviations()?, b.squared_deviations()?)
            }
            Self::Spearman => {
                let (a, b) = (a.ranks()?, b.ranks()?);
                cosine(dot(&a.centred, &b.centred), a.squares, b.squares)
            }
            Self::JensenShannon => {
                let (mass_a, mass_b) = (of_a.mass()?, of_b.mass()?);
                sum_over(a.values, b.values, |x, y| divergence_from_middle(x / mass_a, y / mass_b))
            }
            Self::KullbackLeibler => {
                let (mass_a, mass_b) = (of_a.mass()?, of_b.mass()?);
                let sum = sum_over(a.values, b.values, |x, y| divergence(x / mass_a, y / mass_b));
                if sum.is_infinite() {
                    return None;
                }
                sum.max(0.0)
            }
            Self::Iou { quantile } => {
                let (a, b) = (a.above_quantile(quantile)?, b.above_quantile(quantile)?);
                let shared = a.shared(&b);
                f64::from(shared) / f64::from(a.count + b.count - shared)
            }
            Self::TopK { fraction } => {
                let (a, b) = (a.highest(fraction)?, b.highest(fraction)?);
                f64::from(a.shared(&b)) / f64::from(a.count.max(b.count))
            }
            Self::Emd => {
                let (a, b) = (a.placement()?, b.placement()?);
                let axes = a.cumulated.iter().zip(&b.cumulated);
                axes.map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>()).sum()
            }
            Self::Ssim => structural_similarity(a, b)?,
            Self::L2 => sum_over(a.values, b.values, |x, y| (x - y) * (x - y)).sqrt(),
            Self::Centroid => {
                let (a, b) = (a.placement()?, b.placement()?);
                let (a, b) = (a.location, b.location);
                (a.centroid_y - b.centroid_y).hypot(a.centroid_x - b.centroid_x)
            }
            Self::MassRatio if of_b.sum == 0.0 => return None,
            Self::MassRatio => of_a.sum / of_b.sum,
        };
        Some(value)
    }
}

const QUANTILE: f64 = 0.8;
const FRACTION: f64 = 0.1;

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cosine => f.write_str("cosine"),
            Self::Pearson => f.write_str("pearson"),
            Self::Spearman => f.write_str("spearman"),
            Self::JensenShannon => f.write_str("js"),
            Self::KullbackLeibler => f.write_str("kl"),
            Self::Iou { quantile } => write!(f, "iou@{quantile}"),
            Self::TopK { fraction } => write!(f, "topk@{fraction}"),
            Self::Emd => f.write_str("emd"),
            Self::Ssim => f.write_str("ssim"),
            Self::L2 => f.write_str("l2"),
            Self::Centroid => f.write_str("centroid"),
            Self::MassRatio => f.write_str("mass_ratio"),
        }
    }
}

impl FromStr for Metric {
    type Err = String;

    /// Reads a name of [`Metric::NAMES`], for `iou` and `topk` with or without a parameter: `iou@0.8`, `topk@0.1`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, parameter) = match text.split_once('@') {
            Some((name, parameter)) => (name, Some(parameter)),
            None => (text, None),
        };
        let metric = match name {
            "iou" => {
                let quantile = number(parameter, QUANTILE).filter(|q| (0.0..1.0).contains(q)).ok_or_else(|| {
                    format!("`{text}`: the quantile of iou is a number from 0 to below 1, such as iou@{QUANTILE}")
                })?;
                return Ok(Self::Iou { quantile });
            }
            "topk" => {
                let fraction = number(parameter, FRACTION).filter(|&f| f > 0.0 && f <= 1.0).ok_or_else(|| {
                    format!("`{text}`: the fraction of topk is a number above 0 and up to 1, such as topk@{FRACTION}")
                })?;
                return Ok(Self::TopK { fraction });
            }
            "cosine" => Self::Cosine,
            "pearson" => Self::Pearson,
            "spearman" => Self::Spearman,
            "js" => Self::JensenShannon,
            "kl" => Self::KullbackLeibler,
            "emd" => Self::Emd,
            "ssim" => Self::Ssim,
            "l2" => Self::L2,
            "centroid" => Self::Centroid,
            "mass_ratio" => Self::MassRatio,
            _ => return Err(unknown(text, name)),
        };
        match parameter {
            None => Ok(metric),
            Some(_) => Err(format!("`{text}`: {metric} takes no parameter; only iou and topk do")),
        }
    }
}

fn number(parameter: Option<&str>, default: f64) -> Option<f64> {
    parameter.map_or(Some(default), |text| text.parse().ok())
}

fn unknown(text: &str, name: &str) -> String {
    let names = Metric::NAMES.map(|(name, _)| name);
    format!("`{text}` is not a similarity metric{}; there are {}", did_you_mean(name, names), names.join(", "))
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.to_string()
    }
}

impl TryFrom<String> for Metric {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Grid;

    const LINE: Grid = Grid { frames: 1, height: 1, width: 4 };

    fn metric(name: &str) -> Metric {
        name.parse().unwrap()
    }

    fn between(name: &str, a: &[f32], b: &[f32], grid: Grid) -> f64 {
        metric(name).between(&Measured::new(a, Some(grid)), &Measured::new(b, Some(grid)))
    }

    fn on_line(name: &str, a: [f32; 4], b: [f32; 4]) -> f64 {
        between(name, &a, &b, LINE)
    }

    fn assert_close(value: f64, expected: f64) {
        assert!((value - expected).abs() <= 1e-12 * expected.abs(), "{value} is not {expected}");
    }

    /// 0, 1, 2, … in a shuffled order, with ties if `modulus` is smaller than the grid.
    fn shuffled(grid: Grid, modulus: u16) -> Vec<f32> {
        (0_u16..).take(grid.spatial()).map(|i| f32::from(i * 37 % 101 % modulus)).collect()
    }

    #[test]
    fn a_map_is_most_like_itself() {
        let grid = Grid { frames: 2, height: 8, width: 9 };
        let map = shuffled(grid, 50);
        for (name, _) in Metric::NAMES {
            let best = if ["js", "kl", "emd", "l2", "centroid"].contains(&name) { 0.0 } else { 1.0 };
            assert_eq!(between(name, &map, &map, grid), best, "{name}");
        }
    }

    #[test]
    fn a_shift_by_two_cells_costs_two() {
        let grid = Grid { frames: 3, height: 4, width: 5 };
        let spike = |position: usize| {
            let mut map = vec![0.0; grid.spatial()];
            map[position] = 0.25;
            map
        };
        let moved = |to: usize| ["emd", "centroid"].map(|name| between(name, &spike(0), &spike(to), grid));
        assert_eq!(moved(2), [2.0, 2.0]);
        assert_eq!(moved(2 * 5), [2.0, 2.0]);
        assert_eq!(moved(2 * 20), [2.0, 0.0]);
        assert_eq!(moved(20 + 3 * 5 + 4), [8.0, 5.0]);
    }

    #[test]
    fn angles_and_correlations_follow_their_formulas() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]);
        assert_close(on_line("cosine", a, b), 29.0 / 30.0);
        assert_close(on_line("pearson", a, b), 4.0 / 5.0);
        assert_close(on_line("cosine", a, a.map(|x| 7.0 * x)), 1.0);
        assert_close(on_line("pearson", a, a.map(|x| 3.0 - x)), -1.0);
        // Ranks 1 2 3 4 and 1 2.5 2.5 4.
        assert_close(on_line("spearman", a.map(|x| x * x * x), [1.0, 3.0, 3.0, 9.0]), 4.5 / 22.5_f64.sqrt());
        assert_close(on_line("l2", a, b), 2f64.sqrt());
        assert_close(on_line("mass_ratio", a, [1.0, 2.0, 0.0, -0.5]), 4.0);
    }

    #[test]
    fn divergences_are_of_masses_in_nats() {
        let (a, b) = ([1.0, 1.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]);
        assert_close(on_line("kl", a, b), 0.5 * (4.0_f64 / 3.0).ln());
        assert_close(on_line("kl", a.map(|x| 5.0 * x), b), 0.5 * (4.0_f64 / 3.0).ln());
        let js =
            0.25 * 0.8_f64.ln() + 0.25 * (4.0_f64 / 3.0).ln() + 0.375 * 1.2_f64.ln() + 0.125 * (2.0_f64 / 3.0).ln();
        assert_close(on_line("js", a, b), js);
        // p = (1 ± d) / 4, q = (1 ∓ d) / 4: ½ d² + O(d⁴), of which logarithms alone leave few digits.
        let d: f64 = 2f64.powi(-20);
        let (high, low) = (1.0 + 2f32.powi(-20), 1.0 - 2f32.powi(-20));
        assert_close(on_line("js", [high, low, high, low], [low, high, low, high]), d * d / 2.0);
        assert_close(on_line("kl", [1.0; 4], [3.0; 4]), 0.0);
        let apart = [0.0, 0.0, 2.0, 0.0];
        assert_close(on_line("js", a, apart), 2f64.ln());
        assert!(on_line("kl", a, apart).is_nan() && on_line("kl", apart, a).is_nan());
    }

    #[test]
    fn the_highest_positions_overlap_and_equal_ones_are_in_or_out_together() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0], [4.0, 1.0, 2.0, 3.0]);
        assert_eq!(on_line("topk@0.5", a, b), 0.5);
        assert_eq!(on_line("topk@0.25", a, b), 0.0);
        assert_eq!(on_line("topk@1", a, b), 1.0);
        assert!(on_line("topk@0.5", [1.0; 4], a).is_nan() && on_line("iou", [1.0; 4], a).is_nan());
        // A quantile between the second and the third value, and one that is a value.
        assert_eq!(on_line("iou@0.5", a, b), 1.0 / 3.0);
        assert_eq!(on_line("iou@0", a, b), 0.5);
        // Of one value above many, of many highest ones, and of three values.
        let (first, last) = ([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]);
        for name in ["iou@0.5", "iou@0.8", "topk@0.5", "topk@0.25"] {
            assert_eq!((on_line(name, first, last), on_line(name, first, first)), (0.0, 1.0), "{name}");
            assert_eq!(
                on_line(name, [1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0]),
                if name.starts_with("iou") { 0.5 } else { 2.0 / 3.0 }
            );
            assert_eq!(on_line(name, [0.0, 1.0, 1.0, 2.0], [2.0, 1.0, 1.0, 0.0]), 0.0, "{name}");
        }
    }

    #[test]
    fn a_tenth_of_thirty_is_three() {
        let rising: Vec<f32> = (0_u8..30).map(f32::from).collect();
        for (fraction, expected) in [(0.1, 3), (0.11, 4), (1e-9, 1), (0.7, 21), (1.0, 30)] {
            assert_eq!(Measured::new(&rising, None).highest(fraction).unwrap().count, expected, "{fraction}");
        }
    }

    #[test]
    fn structure_is_compared_window_by_window() {
        // One window: means 1/9 and 2/9, variances 1/9 and 4/9, covariance 2/9, range 2.
        let grid = Grid { frames: 1, height: 3, width: 4 };
        let mut a = [0.0; 12];
        a[5] = 1.0;
        let b = a.map(|x| 2.0 * x);
        let (c1, c2) = (0.0004, 0.0036);
        let expected = (4.0 / 81.0 + c1) * (4.0 / 9.0 + c2) / ((5.0 / 81.0 + c1) * (5.0 / 9.0 + c2));
        assert_close(between("ssim", &a, &b, grid), expected);
        assert_eq!(between("ssim", &[3.0; 12], &[3.0; 12], grid), 1.0);
        assert!(between("ssim", &a, &b, Grid { frames: 1, height: 2, width: 6 }).is_nan());
    }

    #[test]
    fn what_is_undefined_is_nan() {
        let map = [1.0, 2.0, 3.0, 5.0];
        let undefined = |b: [f32; 4]| {
            let names = Metric::NAMES.iter().map(|(name, _)| *name);
            names.filter(|name| *name != "ssim" && on_line(name, map, b).is_nan()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(undefined(map), "");
        assert_eq!(undefined([0.0; 4]), "cosine pearson spearman js kl iou topk emd centroid mass_ratio");
        assert_eq!(undefined([0.1; 4]), "pearson spearman iou topk");
        assert_eq!(undefined([-1.0, 1.0, 1.0, 1.0]), "js kl emd centroid");
        for value in [f32::NAN, f32::INFINITY] {
            assert_eq!(undefined([value, 1.0, 1.0, 1.0]).split(' ').count(), Metric::NAMES.len() - 1);
        }

        let nan = |metric: Metric, a: &Measured, b: &Measured| metric.between(a, b).is_nan();
        let (on_grid, flat) = (Measured::new(&map, Some(LINE)), Measured::new(&map, None));
        let elsewhere = Measured::new(&map, Some(Grid { frames: 2, height: 1, width: 2 }));
        for (name, _) in Metric::NAMES.into_iter().filter(|(name, _)| *name != "ssim") {
            assert_eq!(nan(metric(name), &flat, &flat), metric(name).needs_grid());
            assert_eq!(nan(metric(name), &on_grid, &elsewhere), metric(name).needs_grid());
            assert!(nan(metric(name), &on_grid, &Measured::new(&map[1..], None)));
            assert!(nan(metric(name), &Measured::new(&[], None), &Measured::new(&[], None)));
        }
        assert!(nan(Metric::Iou { quantile: 1.0 }, &flat, &flat) && nan(Metric::TopK { fraction: 0.0 }, &flat, &flat));
    }

    #[test]
    fn names_come_back_as_they_were_given() {
        for (name, _) in Metric::NAMES {
            let canonical = metric(name).to_string();
            assert_eq!(canonical.split('@').next(), Some(name));
            assert_eq!(metric(&canonical), metric(name));
        }
        assert_eq!(serde_json::to_value(metric("iou")).unwrap(), "iou@0.8");
        assert_eq!(serde_json::from_value::<Metric>("l2".into()).unwrap(), Metric::L2);
        assert_eq!(metric("topk@0.050").to_string(), "topk@0.05");
        assert_eq!(Metric::DEFAULT.map(String::from), ["cosine", "js", "iou@0.8", "centroid", "mass_ratio"]);
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_nearest_and_all() {
        let error = |text: &str| text.parse::<Metric>().unwrap_err();
        let names = "cosine, pearson, spearman, js, kl, iou, topk, emd, ssim, l2, centroid, mass_ratio";
        assert_eq!(
            error("Cosin"),
            format!("`Cosin` is not a similarity metric (did you mean `cosine`?); there are {names}")
        );
        assert_eq!(error("xyz"), format!("`xyz` is not a similarity metric; there are {names}"));
        assert!(error("mass").contains("`mass_ratio`") && error("top_k@0.2").contains("`topk`"));
        assert_eq!(error("js@2"), "`js@2`: js takes no parameter; only iou and topk do");
        for text in ["iou@1", "iou@-0.1", "iou@", "iou@NaN", "topk@0", "topk@1.1", "topk@a", "topk@0.1@2"] {
            assert!(error(text).contains("such as"), "{text}");
        }
    }

    #[test]
    fn maps_can_be_compared_from_several_threads() {
        let grid = Grid { frames: 2, height: 8, width: 9 };
        let (a, b) = (shuffled(grid, 50), shuffled(grid, 7));
        let expected = Metric::NAMES.map(|(name, _)| between(name, &a, &b, grid).to_bits());
        let (a, b) = (Measured::new(&a, Some(grid)), Measured::new(&b, Some(grid)));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    assert_eq!(Metric::NAMES.map(|(name, _)| metric(name).between(&a, &b).to_bits()), expected);
                });
            }
        });
    }
}
