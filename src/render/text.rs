//! Text in drawings: the font that comes with attnkit, and how wide words are in it.

use std::sync::{Arc, LazyLock};

use resvg::usvg::fontdb::Database;
use ttf_parser::Face;

/// The family that drawings name.
pub(super) const FAMILY: &str = "DejaVu Sans";

static FACE: LazyLock<Option<Face<'static>>> = LazyLock::new(|| Face::parse(dejavu::sans::regular(), 0).ok());

static BUNDLED: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut fonts = Database::new();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    fonts.load_font_data(dejavu::sans::bold().to_vec());
    fonts.set_sans_serif_family(FAMILY);
    Arc::new(fonts)
});

/// With what the system has, for scripts that the bundled font lacks.
static WITH_SYSTEM: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut fonts = (**BUNDLED).clone();
    fonts.load_system_fonts();
    Arc::new(fonts)
});

/// The fonts to draw text with.
pub(super) fn fonts(text: &str) -> Arc<Database> {
    if text.chars().all(|letter| letter.is_ascii() || has(letter)) { BUNDLED.clone() } else { WITH_SYSTEM.clone() }
}

fn has(letter: char) -> bool {
    FACE.as_ref().is_some_and(|face| face.glyph_index(letter).is_some())
}

/// How wide text is, in the unit of the font's size.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    let Some(face) = FACE.as_ref() else { return 0.6 * size * text.chars().count() as f64 };
    let em = f64::from(face.units_per_em());
    // What the font lacks is about as wide as it is high.
    let advance = |letter: char| match face.glyph_index(letter) {
        Some(glyph) => f64::from(face.glyph_hor_advance(glyph).unwrap_or_default()),
        None => em,
    };
    text.chars().map(advance).sum::<f64>() / em * size
}

/// Text that is no wider than that, with `…` where some of it is left out: at its end.
pub(crate) fn shortened(text: &str, size: f64, most: f64) -> String {
    let text = one_line(text);
    if width(&text, size) <= most {
        return text;
    }
    let room = most - width("…", size);
    let mut taken = 0.0;
    let fits = |letter: &char| {
        taken += width(letter.encode_utf8(&mut [0; 4]), size);
        taken <= room
    };
    let kept: String = text.chars().take_while(fits).collect();
    kept.trim_end().to_owned() + "…"
}

/// What cannot stand in a line of text as spaces.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Text as it stands in markup.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Markup has no such letters, however they are written.
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}
