//! A drawing: maps as pixels, and around them lines and text, to be made a PNG, a WebP or an SVG.

use std::fmt::Write;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use serde::{Deserialize, Serialize};

use super::picture::{Picture, PictureError, Rgb};
use super::text::{self, FAMILY, escaped};

/// The pixels of a drawing, at the most.
const LARGEST: f64 = 4e8;
const NAMESPACE: &str = "http://www.w3.org/2000/svg";
/// Of lines.
const ROUND: &str = r#" stroke-linejoin="round" stroke-linecap="round""#;
/// Of frames.
const HAIR: &str = r#" stroke-width="0.75""#;
/// Of pixels: each a rectangle.
const AS_IT_IS: &str = r#" preserveAspectRatio="none" style="image-rendering:pixelated""#;
const PNG: &str = "data:image/png;base64,";

/// What all of a drawing has.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Style {
    /// Height of text, points of 1/72 inch.
    pub font_size: f64,
    /// Pixels to an inch.
    pub dpi: f64,
    /// Light on dark.
    pub dark: bool,
    /// Without a background.
    pub transparent: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { font_size: 9.0, dpi: 192.0, dark: false, transparent: false }
    }
}

impl Style {
    /// Height of text in units of a drawing, of which there are 96 to an inch.
    pub(crate) const fn text(&self) -> f64 {
        self.font_size * 96.0 / 72.0
    }

    /// Pixels to a unit.
    pub(crate) const fn ratio(&self) -> f64 {
        self.dpi / 96.0
    }

    pub(crate) const fn ink(&self) -> Rgb {
        if self.dark { [236, 236, 236] } else { [26, 26, 26] }
    }

    pub(crate) const fn faint(&self) -> Rgb {
        if self.dark { [84, 84, 84] } else { [208, 208, 208] }
    }

    pub(crate) const fn background(&self) -> Rgb {
        if self.dark { [24, 24, 27] } else { [255; 3] }
    }
}

/// Where text stands from its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing. Its unit is 1/96 inch; x goes right, y down.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
    /// What all of it has.
    pub style: Style,
    /// What it shows, in a sentence, for those who cannot see it.
    pub description: String,
    panels: Vec<Panel>,
    marks: String,
    letters: String,
}

/// Pixels in a drawing.
#[derive(Debug, Clone)]
struct Panel {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    picture: Arc<Picture>,
}

impl Figure {
    pub(crate) fn new(width: f64, height: f64, style: Style, description: impl Into<String>) -> Self {
        let (panels, marks, letters) = (Vec::new(), String::new(), String::new());
        Self { width, height, style, description: description.into(), panels, marks, letters }
    }

    /// Pixels, in a rectangle whose corner is at whole pixels.
    pub(crate) fn picture(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), picture: Arc<Picture>) {
        self.panels.push(Panel { x, y, width, height, picture });
    }

    pub(crate) fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: Rgb, opacity: f64) {
        let fill = hex(fill);
        let _ = write!(
            self.marks,
            r#"<rect x="{x:.2}" y="{y:.2}" width="{width:.2}" height="{height:.2}" fill="{fill}"{}/>"#,
            opacity_of("fill-opacity", opacity)
        );
    }

    pub(crate) fn frame(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), stroke: Rgb) {
        let _ = write!(
            self.marks,
            r#"<rect x="{x:.2}" y="{y:.2}" width="{width:.2}" height="{height:.2}" fill="none" stroke="{}"{HAIR}/>"#,
            hex(stroke)
        );
    }

    pub(crate) fn line(&mut self, points: &[(f64, f64)], stroke: Rgb, width: f64, dash: &str) {
        if points.len() < 2 {
            return;
        }
        let dash = if dash.is_empty() { String::new() } else { format!(r#" stroke-dasharray="{dash}""#) };
        let _ = write!(
            self.marks,
            r#"<polyline points="{}" fill="none" stroke="{}" stroke-width="{width}"{ROUND}{dash}/>"#,
            path(points),
            hex(stroke)
        );
    }

    pub(crate) fn area(&mut self, points: &[(f64, f64)], fill: Rgb, opacity: f64) {
        let _ = write!(
            self.marks,
            r#"<polygon points="{}" fill="{}"{}/>"#,
            path(points),
            hex(fill),
            opacity_of("fill-opacity", opacity)
        );
    }

    pub(crate) fn dot(&mut self, (x, y): (f64, f64), radius: f64, fill: Rgb) {
        let _ = write!(self.marks, r#"<circle cx="{x:.2}" cy="{y:.2}" r="{radius}" fill="{}"/>"#, hex(fill));
    }

    pub(crate) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, colour: Rgb, size: f64, text: &str) {
        self.turned_text((x, y), anchor, colour, size, 0.0, text);
    }

    /// Text that is turned clockwise around its place, degrees.
    pub(crate) fn turned_text(
        &mut self,
        (x, y): (f64, f64),
        anchor: Anchor,
        colour: Rgb,
        size: f64,
        degrees: f64,
        text: &str,
    ) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let turn =
            if degrees == 0.0 { String::new() } else { format!(r#" transform="rotate({degrees} {x:.2} {y:.2})""#) };
        let text = text::one_line(text);
        let _ = write!(
            self.marks,
            r#"<text x="{x:.2}" y="{y:.2}" font-size="{size:.2}" fill="{}"{anchor}{turn}>{}</text>"#,
            hex(colour),
            escaped(&text)
        );
        self.letters.push_str(&text);
    }

    /// Whether it has pixels beyond those of colour bars.
    #[must_use]
    pub fn is_of_maps(&self) -> bool {
        self.panels.iter().any(|panel| panel.picture.width > 1)
    }

    /// As SVG, text as text.
    ///
    /// # Errors
    /// If a part of it cannot be encoded.
    pub fn to_svg(&self) -> Result<String, PictureError> {
        let (width, height) = (self.width, self.height);
        let mut svg = self.head();
        let _ = write!(svg, "<title>{}</title>", escaped(&self.description));
        if !self.style.transparent {
            let _ = write!(svg, r#"<rect width="{width}" height="{height}" fill="{}"/>"#, hex(self.style.background()));
        }
        for Panel { x, y, width, height, picture } in &self.panels {
            let encoded = BASE64.encode(picture.to_png()?);
            let _ = write!(
                svg,
                r#"<image x="{x}" y="{y}" width="{width}" height="{height}"{AS_IT_IS} href="{PNG}{encoded}"/>"#
            );
        }
        Ok(svg + &self.marks + "</g></svg>\n")
    }

    /// As pixels.
    ///
    /// # Errors
    /// If it would have too many of them.
    pub fn to_picture(&self) -> Result<Picture, PictureError> {
        let background = (!self.style.transparent).then(|| self.style.background());
        let marks = self.marks()?;
        let mut picture = Picture::filled(marks.width, marks.height, background);
        self.lay_panels(&mut picture);
        picture.lay(&marks, (0, 0));
        Ok(picture)
    }

    /// The pixels that its panels take, in order: upper left corner, width and height.
    pub(crate) fn places(&self) -> Vec<[usize; 4]> {
        let ratio = self.style.ratio();
        let pixels = |units: f64| (units * ratio).round() as usize;
        self.panels
            .iter()
            .map(|panel| {
                let (left, top) = (pixels(panel.x), pixels(panel.y));
                let (right, bottom) = (pixels(panel.x + panel.width), pixels(panel.y + panel.height));
                [left, top, right - left, bottom - top]
            })
            .collect()
    }

    fn lay_panels(&self, picture: &mut Picture) {
        for (panel, [x, y, width, height]) in self.panels.iter().zip(self.places()) {
            if (panel.picture.width, panel.picture.height) == (width, height) {
                picture.lay(&panel.picture, (x, y));
            } else {
                picture.lay(&panel.picture.resized((width, height)), (x, y));
            }
        }
    }

    /// Lines and text alone, on nothing.
    pub(crate) fn marks(&self) -> Result<Picture, PictureError> {
        let ratio = self.style.ratio();
        let (width, height) = ((self.width * ratio).ceil(), (self.height * ratio).ceil());
        let refused = |found: String| PictureError::Drawing { width: width as usize, height: height as usize, found };
        if width * height > LARGEST {
            return Err(refused(format!("it has more than {LARGEST} pixels")));
        }
        let svg = self.head() + &self.marks + "</g></svg>";
        let options =
            Options { fontdb: text::fonts(&self.letters), font_family: FAMILY.to_owned(), ..Options::default() };
        let tree = Tree::from_str(&svg, &options).map_err(|error| refused(error.to_string()))?;
        let pixmap = Pixmap::new(width as u32, height as u32);
        let mut pixmap = pixmap.ok_or_else(|| refused("it has no pixels".to_owned()))?;
        resvg::render(&tree, Transform::from_scale(ratio as f32, ratio as f32), &mut pixmap.as_mut());
        let straight = pixmap.pixels().iter().flat_map(|pixel| {
            let colour = pixel.demultiply();
            [colour.red(), colour.green(), colour.blue(), colour.alpha()]
        });
        Ok(Picture { width: width as usize, height: height as usize, pixels: straight.collect() })
    }

    fn head(&self) -> String {
        let (width, height) = (self.width, self.height);
        format!(r#"<svg xmlns="{NAMESPACE}" width="{width}" height="{height}" viewBox="0 0 {width} {height}">"#)
            + &format!(r#"<g font-family="{FAMILY}, Verdana, sans-serif">"#)
    }
}

impl Picture {
    /// On another number of pixels, as a frame of a video is shown: means where it shrinks, straight lines where it
    /// grows.
    #[must_use]
    pub fn resized_to_show(&self, size: (usize, usize)) -> Self {
        if size == (self.width, self.height) { self.clone() } else { self.resized_by(size, true) }
    }

    /// On another number of pixels: those of the nearest places where it grows, means where it shrinks.
    #[must_use]
    pub fn resized(&self, size: (usize, usize)) -> Self {
        self.resized_by(size, false)
    }

    fn resized_by(&self, (width, height): (usize, usize), smooth: bool) -> Self {
        let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
        let algorithm = match width >= self.width && height >= self.height {
            true if smooth => ResizeAlg::Convolution(FilterType::Bilinear),
            true => ResizeAlg::Nearest,
            false => ResizeAlg::Convolution(FilterType::Box),
        };
        let resized = || {
            let from = Image::from_vec_u8(side(self.width), side(self.height), self.pixels.clone(), PixelType::U8x4);
            let mut to = Image::new(side(width), side(height), PixelType::U8x4);
            let options = ResizeOptions::new().resize_alg(algorithm);
            Resizer::new().resize(&from.ok()?, &mut to, &options).ok()?;
            Some(to.into_vec())
        };
        let pixels = resized().unwrap_or_else(|| vec![0; width * height * 4]);
        Self { width, height, pixels }
    }
}

fn hex([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn opacity_of(name: &str, opacity: f64) -> String {
    if opacity >= 1.0 { String::new() } else { format!(r#" {name}="{opacity}""#) }
}

fn path(points: &[(f64, f64)]) -> String {
    points.iter().map(|(x, y)| format!("{x:.2},{y:.2}")).collect::<Vec<_>>().join(" ")
}
