//! From values to colours.

use std::str::FromStr;

use colorous::Gradient;
use serde::{Deserialize, Serialize};

use super::picture::Rgb;
use super::range::Limits;

/// Colours of a scale.
const STEPS: usize = 1024;
/// Where a value is NaN or infinite.
pub(super) const NOT_A_NUMBER: Rgb = [160; 3];

#[rustfmt::skip]
/// Moreland's cool to warm (2009, "Diverging Color Maps for Scientific Visualization"), evenly spaced.
const COOLWARM: [Rgb; 33] = [
    [59, 76, 192], [68, 90, 204], [77, 104, 215], [87, 117, 225], [98, 130, 234], [108, 142, 241], [119, 154, 247],
    [130, 165, 251], [141, 176, 254], [152, 185, 255], [163, 194, 254], [174, 201, 252], [184, 208, 249],
    [194, 213, 244], [204, 217, 238], [213, 219, 230], [221, 221, 221], [229, 216, 209], [236, 211, 197],
    [241, 204, 185], [244, 196, 173], [247, 187, 160], [247, 177, 148], [247, 166, 135], [244, 154, 123],
    [241, 141, 111], [236, 127, 99], [229, 112, 88], [222, 96, 77], [213, 80, 66], [203, 62, 56], [192, 40, 47],
    [180, 4, 38],
];

#[rustfmt::skip]
/// Nuñez, Anderton and Renslow's cividis (2018), evenly spaced.
const CIVIDIS: [Rgb; 86] = [
    [0, 34, 78], [0, 37, 83], [0, 39, 88], [0, 41, 93], [0, 43, 98], [0, 45, 104], [0, 47, 109], [0, 49, 112],
    [5, 51, 113], [15, 53, 112], [22, 55, 112], [28, 57, 111], [33, 59, 110], [38, 61, 110], [42, 63, 109],
    [46, 65, 109], [50, 67, 109], [53, 69, 108], [57, 72, 108], [60, 74, 108], [63, 76, 108], [66, 78, 108],
    [69, 80, 108], [72, 82, 108], [75, 84, 108], [78, 86, 108], [81, 88, 109], [84, 90, 109], [86, 92, 109],
    [89, 94, 110], [92, 97, 110], [94, 99, 111], [97, 101, 111], [100, 103, 112], [102, 105, 112], [105, 107, 113],
    [108, 109, 114], [110, 111, 115], [113, 114, 116], [115, 116, 117], [118, 118, 118], [120, 120, 119],
    [123, 122, 120], [126, 124, 120], [128, 127, 120], [131, 129, 121], [134, 131, 121], [137, 133, 120],
    [140, 136, 120], [143, 138, 120], [146, 140, 120], [148, 142, 119], [151, 145, 119], [154, 147, 118],
    [157, 149, 118], [160, 152, 117], [163, 154, 116], [166, 156, 116], [169, 159, 115], [172, 161, 114],
    [175, 164, 113], [179, 166, 112], [182, 169, 111], [185, 171, 109], [188, 174, 108], [191, 176, 107],
    [194, 179, 105], [197, 181, 104], [200, 184, 102], [204, 186, 100], [207, 189, 98], [210, 192, 96],
    [213, 194, 94], [217, 197, 92], [220, 200, 89], [223, 202, 87], [226, 205, 84], [230, 208, 81], [233, 211, 78],
    [237, 213, 74], [240, 216, 70], [243, 219, 66], [247, 222, 62], [251, 225, 56], [254, 228, 52], [254, 232, 56],
];

#[rustfmt::skip]
/// Mikhailov's turbo (2019), evenly spaced.
const TURBO: [Rgb; 52] = [
    [48, 18, 59], [54, 33, 95], [59, 47, 128], [63, 62, 156], [66, 75, 181], [69, 89, 203], [70, 102, 221],
    [71, 115, 235], [70, 128, 246], [69, 140, 253], [64, 153, 255], [56, 165, 251], [47, 178, 244], [39, 190, 233],
    [31, 201, 221], [26, 212, 208], [24, 221, 194], [26, 228, 182], [34, 235, 170], [47, 241, 155], [63, 246, 138],
    [82, 250, 122], [101, 253, 105], [121, 254, 89], [139, 255, 75], [156, 254, 64], [169, 251, 57], [183, 247, 53],
    [195, 241, 52], [208, 234, 52], [219, 226, 54], [229, 217, 56], [238, 207, 58], [245, 197, 58], [250, 186, 57],
    [253, 174, 53], [254, 161, 48], [254, 147, 42], [252, 132, 35], [249, 117, 29], [244, 102, 23], [239, 88, 17],
    [232, 75, 12], [225, 65, 9], [216, 55, 6], [206, 45, 4], [195, 37, 3], [183, 29, 2], [169, 22, 1], [155, 15, 1],
    [139, 9, 2], [122, 4, 3],
];

/// The colours of words, lines and bands that are told apart: Okabe and Ito's (2008), which people see apart whatever
/// colours they see.
pub(super) const DISTINCT: [Rgb; 7] =
    [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [230, 159, 0], [86, 180, 233], [130, 130, 130]];

/// How many words can be told apart by their colours.
pub(crate) const DISTINCT_COLOURS: usize = DISTINCT.len();

/// Colours in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // their names are what is known of them
pub enum Colormap {
    Viridis,
    Magma,
    Inferno,
    Plasma,
    Cividis,
    Turbo,
    Gray,
    Coolwarm,
    Rdbu,
    Spectral,
}

impl Colormap {
    /// All, by their names.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Viridis, "viridis"),
        (Self::Magma, "magma"),
        (Self::Inferno, "inferno"),
        (Self::Plasma, "plasma"),
        (Self::Cividis, "cividis"),
        (Self::Turbo, "turbo"),
        (Self::Gray, "gray"),
        (Self::Coolwarm, "coolwarm"),
        (Self::Rdbu, "rdbu"),
        (Self::Spectral, "spectral"),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(own, _)| *own == self).map_or("", |(_, name)| name)
    }

    /// The colour at a share of its length, from 0 to 1. Diverging ones go from blue through white to red.
    #[must_use]
    pub fn at(self, share: f64) -> [u8; 3] {
        let of = |gradient: Gradient, share: f64| {
            let colorous::Color { r, g, b } = gradient.eval_continuous(share);
            [r, g, b]
        };
        let share = share.clamp(0.0, 1.0);
        match self {
            Self::Viridis => of(colorous::VIRIDIS, share),
            Self::Magma => of(colorous::MAGMA, share),
            Self::Inferno => of(colorous::INFERNO, share),
            Self::Plasma => of(colorous::PLASMA, share),
            Self::Cividis => between(&CIVIDIS, share),
            Self::Turbo => between(&TURBO, share),
            Self::Gray => [(share * 255.0).round() as u8; 3],
            Self::Coolwarm => between(&COOLWARM, share),
            Self::Rdbu => of(colorous::RED_BLUE, 1.0 - share),
            Self::Spectral => of(colorous::SPECTRAL, 1.0 - share),
        }
    }
}

impl FromStr for Colormap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = || Self::ALL.map(|(_, name)| name);
        let found = Self::ALL.into_iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        found.map(|(colormap, _)| colormap).ok_or_else(|| format!("`{text}` is none of {}", names().join(", ")))
    }
}

/// The colour of one of several words or lines.
pub(crate) const fn distinct(number: usize) -> Rgb {
    DISTINCT[number % DISTINCT.len()]
}

fn between(colours: &[Rgb], share: f64) -> Rgb {
    let place = share * (colours.len() - 1) as f64;
    let low = (place as usize).min(colours.len() - 2);
    let part = place - low as f64;
    std::array::from_fn(|channel| {
        let [low, high] = [colours[low], colours[low + 1]].map(|colour| f64::from(colour[channel]));
        (low + (high - low) * part).round() as u8
    })
}

/// Colours of values.
#[derive(Debug, Clone)]
pub struct Scale {
    colours: Vec<Rgb>,
    limits: Limits,
    first: f64,
    per_unit: f64,
}

impl Scale {
    /// The colours of a map over a range of values.
    #[must_use]
    pub fn new(colormap: Colormap, limits: Limits) -> Self {
        let colours = (0..STEPS).map(|step| colormap.at(step as f64 / (STEPS - 1) as f64)).collect();
        let (first, last) = (limits.place(limits.low), limits.place(limits.high));
        let per_unit = if last > first { (STEPS - 1) as f64 / (last - first) } else { 0.0 };
        Self { colours, limits, first, per_unit }
    }

    /// The colour at a share of its length, from 0 to 1.
    #[must_use]
    pub fn at(&self, share: f64) -> [u8; 3] {
        self.colours[((share.clamp(0.0, 1.0) * (STEPS - 1) as f64).round() as usize).min(STEPS - 1)]
    }

    /// The colour of its high or its low end.
    pub(super) fn end(&self, high: bool) -> Rgb {
        if high { self.colours[STEPS - 1] } else { self.colours[0] }
    }

    /// Its range.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How far along the scale a value is, from 0 to 1; beyond its ends, at them. NaN is NaN.
    #[must_use]
    pub fn share(&self, value: f32) -> f64 {
        let place = (self.limits.place(f64::from(value)) - self.first) * self.per_unit / (STEPS - 1) as f64;
        if value.is_nan() { f64::NAN } else { place.clamp(0.0, 1.0) }
    }

    /// The colour of a value. Beyond the range it is that of its end; that of NaN and infinities is gray.
    #[must_use]
    pub fn colour(&self, value: f32) -> [u8; 3] {
        if !value.is_finite() {
            return NOT_A_NUMBER;
        }
        let step = (self.limits.place(f64::from(value)) - self.first) * self.per_unit;
        // What is not above 0 has no place on a logarithmic scale: it is below all that has.
        self.colours[(step.max(0.0).round() as usize).min(STEPS - 1)]
    }
}
