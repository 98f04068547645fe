//! Pictures in a terminal: what it can show, and how that is written. What to show is the caller's.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

#[cfg(unix)]
use super::asking::{ask, window};
use super::environment::{Answers, Environment, Window};
use super::sixel::sixel;
use crate::render::Picture;

/// Columns and rows of a terminal that does not tell.
const USUAL_SIZE: (usize, usize) = (80, 24);
/// Pixels of a character cell, width and height, where the terminal does not tell.
const USUAL_CELL: (usize, usize) = (8, 16);
/// Rows that a picture leaves to text.
const TEXT_ROWS: usize = 2;
/// Bytes of base64 in one command, at most (kitty graphics protocol, "Remote client").
const CHUNK: usize = 4096;

/// How a terminal shows pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graphics {
    /// Characters, each two pixels high: any terminal with colours.
    HalfBlocks,
    /// Pixels, of 256 colours at most (DEC, STD 070).
    Sixel,
    /// Pixels, as PNG (kitty graphics protocol).
    Kitty,
}

/// A name that is none of [`Graphics`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no way to show pictures: \"blocks\", \"sixel\" and \"kitty\" are")]
pub struct UnknownGraphics(String);

impl Graphics {
    /// What it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HalfBlocks => "blocks",
            Self::Sixel => "sixel",
            Self::Kitty => "kitty",
        }
    }
}

impl FromStr for Graphics {
    type Err = UnknownGraphics;

    fn from_str(name: &str) -> Result<Self, UnknownGraphics> {
        let all = [Self::HalfBlocks, Self::Sixel, Self::Kitty];
        all.into_iter().find(|graphics| graphics.name() == name).ok_or_else(|| UnknownGraphics(name.into()))
    }
}

/// A terminal, as far as pictures go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// How it shows pictures.
    pub graphics: Graphics,
    /// Characters of a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
    /// Pixels of a character cell, width and height; 8 x 16 where the terminal does not tell.
    pub cell: (usize, usize),
    /// Whether it shows 24-bit colours; 256 otherwise.
    pub true_color: bool,
}

impl Terminal {
    /// The terminal that standard output is: what the environment says, and what the terminal answers when asked, which
    /// takes as long as its answers, 200 ms where it gives none. It is asked where standard input is a terminal too,
    /// and nothing was typed ahead, and left in the mode it was in.
    ///
    /// Once a terminal was asked, SIGINT, SIGQUIT and SIGTERM end the process as by default, whoever else listens to
    /// them; those ignored before stay so, on Linux.
    #[must_use]
    pub fn detect() -> Self {
        let environment = Environment::read(|name| std::env::var(name).ok());
        let shown = io::stdout().is_terminal();
        let answers = if shown && environment.may_ask { ask() } else { Answers::default() };
        Self::of(&environment, shown.then(window), &answers)
    }

    fn of(environment: &Environment, window: Option<Window>, answers: &Answers) -> Self {
        let graphics = match answers {
            _ if window.is_none() => Graphics::HalfBlocks,
            Answers { kitty: true, .. } => Graphics::Kitty,
            Answers { sixel: true, .. } => Graphics::Sixel,
            Answers { complete: true, .. } => Graphics::HalfBlocks,
            _ => environment.guess,
        };
        let window = window.unwrap_or_default();
        let size = |told: usize, variable: Option<usize>, usual: usize| match told {
            0 => variable.unwrap_or(usual),
            told => told,
        };
        let columns = size(window.columns, environment.columns, USUAL_SIZE.0);
        let rows = size(window.rows, environment.rows, USUAL_SIZE.1);
        let cell = answers.cell.or(window.cell()).unwrap_or(USUAL_CELL);
        Self { graphics, columns, rows, cell, true_color: environment.true_color || answers.kitty }
    }

    /// The largest size in pixels, width and height, of a picture that is shown whole, with two lines left for text.
    #[must_use]
    pub fn room(&self) -> (usize, usize) {
        let (width, height) = self.pixels_of_cell();
        let rows = self.rows.saturating_sub(TEXT_ROWS).max(1);
        (self.columns.max(1).saturating_mul(width), rows.saturating_mul(height))
    }

    /// Writes a picture, and ends the line. One that is too wide is made smaller, none is made larger.
    ///
    /// # Errors
    /// If it cannot be written, or encoded.
    pub fn draw(&self, picture: &Picture, to: &mut impl Write) -> io::Result<()> {
        if picture.width == 0 || picture.height == 0 {
            return Ok(());
        }
        let picture = fitted(picture, self.room().0);
        let mut to = BufWriter::new(to);
        match self.graphics {
            Graphics::HalfBlocks => half_blocks(&picture, self.true_color, &mut to)?,
            Graphics::Sixel => sixel(&picture, &mut to)?,
            Graphics::Kitty => kitty(&picture, self.pixels_of_cell(), &mut to)?,
        }
        to.flush()
    }

    fn pixels_of_cell(&self) -> (usize, usize) {
        match self.graphics {
            Graphics::HalfBlocks => (1, 2),
            Graphics::Sixel | Graphics::Kitty => (self.cell.0.max(1), self.cell.1.max(1)),
        }
    }
}

/// A picture as it is or, where it is wider, with that width and its aspect: each pixel the mean of those it covers,
/// by area and opacity.
fn fitted(picture: &Picture, most: usize) -> Cow<'_, Picture> {
    let (from_width, from_height) = (picture.width, picture.height);
    if from_width <= most {
        return Cow::Borrowed(picture);
    }
    let (width, height) = (most, ((from_height * most + from_width / 2) / from_width).max(1));
    let mut pixels = Vec::with_capacity(width * height * 4);
    for y in 0..height {
        for x in 0..width {
            let (mut area, mut opacity, mut colour) = (0, 0, [0; 3]);
            for (row, high) in covered(y, height, from_height) {
                for (column, wide) in covered(x, width, from_width) {
                    let [channels @ .., alpha] = pixel(picture, column, row).map(u64::from);
                    area += high * wide;
                    opacity += high * wide * alpha;
                    for (sum, channel) in colour.iter_mut().zip(channels) {
                        *sum += high * wide * alpha * channel;
                    }
                }
            }
            pixels.extend(colour.map(|sum| rounded(sum, opacity)));
            pixels.push(rounded(opacity, area));
        }
    }
    Cow::Owned(Picture { width, height, pixels })
}

/// The pixels of `from` that one of `to` pixels covers, each with how much of it, in parts of `to`.
fn covered(index: usize, to: usize, from: usize) -> impl Iterator<Item = (usize, u64)> {
    let (start, end) = (index * from, (index + 1) * from);
    (start / to..end.div_ceil(to)).map(move |place| (place, (end.min((place + 1) * to) - start.max(place * to)) as u64))
}

pub(super) fn rounded(sum: u64, weight: u64) -> u8 {
    u8::try_from((sum + weight / 2).checked_div(weight).unwrap_or(0)).unwrap_or(u8::MAX)
}

/// A pixel, transparent outside of the picture.
fn pixel(picture: &Picture, x: usize, y: usize) -> [u8; 4] {
    let inside = x < picture.width && y < picture.height;
    let pixels = picture.pixels.as_chunks().0;
    pixels.get(y * picture.width + x).filter(|_| inside).copied().unwrap_or_default()
}

/// The colour of a pixel, where a pixel can only be opaque or not there.
pub(super) fn opaque(picture: &Picture, x: usize, y: usize) -> Option<[u8; 3]> {
    let [red, green, blue, opacity] = pixel(picture, x, y);
    (opacity >= 128).then_some([red, green, blue])
}

/// A colour as a terminal is told it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ink {
    /// The terminal's own.
    Own,
    /// One of 256.
    Indexed(u8),
    True([u8; 3]),
}

impl Ink {
    /// The parameters that select it, for the foreground (38) or the background (48).
    fn parameters(self, ground: u8) -> String {
        match self {
            Self::Own => format!("{}", ground + 1),
            Self::Indexed(index) => format!("{ground};5;{index}"),
            Self::True([red, green, blue]) => format!("{ground};2;{red};{green};{blue}"),
        }
    }
}

/// What sets the background, and a text colour that is read on it.
pub(super) fn background(colour: Option<[u8; 3]>, true_color: bool) -> String {
    let Some(colour) = colour else { return String::new() };
    let ink = |colour: [u8; 3]| if true_color { Ink::True(colour) } else { Ink::Indexed(nearest_of_256(colour)) };
    let [red, green, blue] = colour.map(u32::from);
    let text = if 299 * red + 587 * green + 114 * blue > 140_000 { [26; 3] } else { [245; 3] };
    format!("\x1b[{};{}m", ink(text).parameters(38), ink(colour).parameters(48))
}

fn half_blocks(picture: &Picture, true_color: bool, to: &mut impl Write) -> io::Result<()> {
    let ink = |x: usize, y: usize| match opaque(picture, x, y) {
        None => Ink::Own,
        Some(colour) if true_color => Ink::True(colour),
        Some(colour) => Ink::Indexed(nearest_of_256(colour)),
    };
    for y in (0..picture.height).step_by(2) {
        let (mut front, mut back) = (Ink::Own, Ink::Own);
        for x in 0..picture.width {
            let (character, above, below) = match (ink(x, y), ink(x, y + 1)) {
                (Ink::Own, Ink::Own) => (' ', front, Ink::Own),
                (Ink::Own, below) => ('▄', below, Ink::Own),
                (above, below) => ('▀', above, below),
            };
            let changes = [(38, front, above), (48, back, below)].into_iter().filter(|(_, old, new)| old != new);
            let changes: Vec<String> = changes.map(|(ground, _, new)| new.parameters(ground)).collect();
            (front, back) = (above, below);
            if !changes.is_empty() {
                write!(to, "\x1b[{}m", changes.join(";"))?;
            }
            write!(to, "{character}")?;
        }
        let reset = if (front, back) == (Ink::Own, Ink::Own) { "" } else { "\x1b[0m" };
        writeln!(to, "{reset}")?;
    }
    Ok(())
}

/// The nearest of xterm's 6 x 6 x 6 cube (from 16) and 24 greys (from 232). The first 16 are whatever a user likes.
fn nearest_of_256(colour: [u8; 3]) -> u8 {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let shown = |index: u8| match index - 16 {
        grey @ 216.. => [8 + 10 * (grey - 216); 3],
        place => [place / 36, place / 6 % 6, place % 6].map(|step| LEVELS[usize::from(step)]),
    };
    let distance = |index: &u8| -> u32 {
        colour.iter().zip(shown(*index)).map(|(mine, other)| u32::from(mine.abs_diff(other)).pow(2)).sum()
    };
    (16..=255).min_by_key(distance).unwrap_or(16)
}

/// As PNG, filled up with transparent pixels to whole cells, so that a terminal with other cells keeps the aspect.
fn kitty(picture: &Picture, cell: (usize, usize), to: &mut impl Write) -> io::Result<()> {
    let (columns, rows) = (picture.width.div_ceil(cell.0), picture.height.div_ceil(cell.1));
    let (width, height) = (columns * cell.0, rows * cell.1);
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let pixels = places.flat_map(|(x, y)| pixel(picture, x, y)).collect();
    let png = Picture { width, height, pixels }.to_png().map_err(io::Error::other)?;
    let mut keys = format!("a=T,f=100,q=2,c={columns},r={rows},");
    let mut rest = STANDARD.encode(png);
    while !rest.is_empty() {
        let later = rest.split_off(rest.len().min(CHUNK));
        write!(to, "\x1b_G{keys}m={};{rest}\x1b\\", u8::from(!later.is_empty()))?;
        keys.clear();
        rest = later;
    }
    writeln!(to)
}

#[cfg(not(unix))]
fn ask() -> Answers {
    Answers::default()
}

#[cfg(not(unix))]
fn window() -> Window {
    Window::default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::sixel::{REGISTERS, percent};
    use super::*;

    const KITTY: &[u8] = b"\x1b_Gi=31;OK\x1b\\\x1b[6;20;10t\x1b[?62;4;22c";

    fn terminal(graphics: Graphics) -> Terminal {
        Terminal { graphics, columns: 20, rows: 10, cell: (4, 8), true_color: true }
    }

    fn drawn(terminal: &Terminal, picture: &Picture) -> String {
        let mut text = Vec::new();
        terminal.draw(picture, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Colours of all sorts; some pixels are transparent.
    fn picture(width: usize, height: usize) -> Picture {
        let value = |index: usize| u8::try_from(index * index * 7 % 251).unwrap();
        let of_pixel =
            |place: usize| [value(place), value(place + 1), value(place + 2), u8::from(!place.is_multiple_of(5)) * 255];
        Picture { width, height, pixels: (0..width * height).flat_map(of_pixel).collect() }
    }

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Environment::read(value)
    }

    /// The colours of each cell's upper and lower half, by a terminal that knows just what is written here.
    fn halves(text: &str) -> Vec<Vec<[Option<[u8; 3]>; 2]>> {
        let of_line = |line: &str| {
            let (mut front, mut back, mut cells) = (None, None, Vec::new());
            let mut rest = line;
            while let Some(character) = rest.chars().next() {
                rest = &rest[character.len_utf8()..];
                match character {
                    '\x1b' => {
                        let (body, after) = rest[1..].split_once('m').unwrap();
                        rest = after;
                        let mut numbers = body.split(';').map(|number| number.parse::<u8>().unwrap());
                        while let Some(number) = numbers.next() {
                            let mut colour = || {
                                assert_eq!(numbers.next(), Some(2));
                                Some([0; 3].map(|_: u8| numbers.next().unwrap()))
                            };
                            match number {
                                0 => (front, back) = (None, None),
                                38 => front = colour(),
                                48 => back = colour(),
                                39 => front = None,
                                49 => back = None,
                                other => panic!("{other}"),
                            }
                        }
                    }
                    '▀' => cells.push([front, back]),
                    '▄' => cells.push([back, front]),
                    ' ' => cells.push([back, back]),
                    other => panic!("{other}"),
                }
            }
            assert_eq!((front, back), (None, None), "a line leaves no colours behind");
            cells
        };
        text.lines().map(of_line).collect()
    }

    #[test]
    fn half_blocks_show_each_pixel() {
        let shown = picture(19, 7);
        let cells = halves(&drawn(&terminal(Graphics::HalfBlocks), &shown));
        assert_eq!((cells.len(), cells[0].len()), (4, 19));
        for (y, x) in (0..8).flat_map(|y| (0..19).map(move |x| (y, x))) {
            assert_eq!(cells[y / 2][x][y % 2], opaque(&shown, x, y), "{x} {y}");
        }
    }

    #[test]
    fn equal_colours_are_told_once() {
        let flat = Picture { width: 3, height: 2, pixels: [1, 2, 3, 255].repeat(6) };
        let blocks = terminal(Graphics::HalfBlocks);
        assert_eq!(drawn(&blocks, &flat), "\x1b[38;2;1;2;3;48;2;1;2;3m▀▀▀\x1b[0m\n");
        let few = Terminal { true_color: false, ..blocks };
        assert_eq!(drawn(&few, &flat), "\x1b[38;5;16;48;5;16m▀▀▀\x1b[0m\n");
        assert_eq!([[255, 0, 0], [128; 3], [95, 135, 175]].map(nearest_of_256), [196, 244, 67]);
    }

    #[test]
    fn a_picture_too_wide_is_shrunk_by_the_mean() {
        let checks = [[0, 0, 0, 255], [200, 100, 50, 255]].as_flattened().repeat(40);
        let shrunk = fitted(&Picture { width: 40, height: 2, pixels: checks }, 20).into_owned();
        assert_eq!(shrunk, Picture { width: 20, height: 1, pixels: [100, 50, 25, 255].repeat(20) });
        let thirds =
            Picture { width: 3, height: 1, pixels: [[0, 0, 0, 255], [90; 4], [9, 9, 9, 0]].as_flattened().to_vec() };
        let shrunk = fitted(&thirds, 2).into_owned();
        // Half of the second pixel on either side, and nothing of what cannot be seen.
        assert_eq!(shrunk.pixels, [14, 14, 14, 200, 90, 90, 90, 30]);
        assert_eq!(drawn(&terminal(Graphics::HalfBlocks), &picture(400, 10)).lines().count(), 1);
    }

    #[test]
    fn pictures_of_the_room_are_shown_as_they_are() {
        assert_eq!(terminal(Graphics::HalfBlocks).room(), (20, 16));
        assert_eq!(terminal(Graphics::Kitty).room(), (80, 64));
        let shown = picture(80, 64);
        assert_eq!(fitted(&shown, terminal(Graphics::Sixel).room().0).as_ref(), &shown);
        let none = Terminal { columns: 0, rows: 0, cell: (0, 0), ..terminal(Graphics::Kitty) };
        assert_eq!(none.room(), (1, 1));
        assert_eq!(drawn(&none, &Picture { width: 0, height: 3, pixels: Vec::new() }), "");
        drawn(&none, &picture(5, 5));
    }

    /// Colours of pixels in percent, and how many registers there are.
    fn unsixel(text: &str) -> (BTreeMap<(usize, usize), [u8; 3]>, usize) {
        let body = text.strip_prefix("\x1bP0;1;0q").unwrap().strip_suffix("\x1b\\\n").unwrap();
        let (mut pixels, mut palette, mut colour) = (BTreeMap::new(), BTreeMap::new(), [0; 3]);
        let (mut x, mut y, mut rest) = (0, 0, body);
        while let Some(command) = rest.chars().next() {
            let end =
                rest[1..].find(|next: char| !next.is_ascii_digit() && next != ';').map_or(rest.len(), |end| end + 1);
            let numbers: Vec<usize> = rest[1..end].split(';').filter_map(|number| number.parse().ok()).collect();
            rest = &rest[end..];
            let mut count = 1;
            let character = match (command, numbers.as_slice()) {
                ('"', [1, 1, _, _]) => continue,
                ('#', [register, 2, values @ ..]) => {
                    palette.insert(*register, [0, 1, 2].map(|channel| u8::try_from(values[channel]).unwrap()));
                    continue;
                }
                ('#', [register]) => {
                    colour = palette[register];
                    continue;
                }
                ('$', []) => {
                    x = 0;
                    continue;
                }
                ('-', []) => {
                    (x, y) = (0, y + 6);
                    continue;
                }
                ('!', [length]) => {
                    count = *length;
                    let character = rest.chars().next().unwrap();
                    rest = &rest[1..];
                    character
                }
                (character, []) => character,
                other => panic!("{other:?}"),
            };
            let bits = u32::from(character) - 63;
            for _ in 0..count {
                for row in (0..6).filter(|row| bits >> row & 1 == 1) {
                    assert_eq!(pixels.insert((x, y + row), colour), None);
                }
                x += 1;
            }
        }
        (pixels, palette.len())
    }

    #[test]
    fn sixels_show_each_pixel() {
        let few = Picture { pixels: picture(4, 4).pixels.repeat(40), width: 16, height: 40 };
        let (pixels, registers) = unsixel(&drawn(&terminal(Graphics::Sixel), &few));
        assert!(registers <= 16);
        for (y, x) in (0..42).flat_map(|y| (0..20).map(move |x| (y, x))) {
            assert_eq!(pixels.get(&(x, y)).copied(), opaque(&few, x, y).map(percent), "{x} {y}");
        }
    }

    #[test]
    fn sixels_of_many_colours_come_near() {
        let colour = |place: usize| [place % 64 * 4, place / 64 * 4, 0, 255].map(|value| u8::try_from(value).unwrap());
        let many = Picture { width: 64, height: 64, pixels: (0..4096).flat_map(colour).collect() };
        let (pixels, registers) = unsixel(&drawn(&terminal(Graphics::Sixel), &many));
        assert_eq!((pixels.len(), registers), (4096, REGISTERS));
        for (&(x, y), shown) in &pixels {
            let wanted = percent(opaque(&many, x, y).unwrap());
            assert!(
                shown.iter().zip(wanted).all(|(shown, wanted)| shown.abs_diff(wanted) <= 6),
                "{shown:?} {wanted:?}"
            );
        }
    }

    #[test]
    fn kitty_gets_a_png_of_whole_cells() {
        let shown = picture(78, 60);
        let text = drawn(&terminal(Graphics::Kitty), &shown);
        let commands: Vec<(&str, &str)> = text
            .trim_end()
            .split_terminator("\x1b\\")
            .map(|command| command.strip_prefix("\x1b_G").unwrap().split_once(';').unwrap())
            .collect();
        assert!(commands.len() > 1 && commands.iter().all(|(_, payload)| payload.len() <= CHUNK));
        assert_eq!(commands[0].0, "a=T,f=100,q=2,c=20,r=8,m=1");
        assert_eq!(commands.last().unwrap().0, "m=0");
        let payload: String = commands.iter().map(|(_, payload)| *payload).collect();
        let png = io::Cursor::new(STANDARD.decode(payload).unwrap());
        let mut reader = png::Decoder::new(png).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((frame.width, frame.height, frame.color_type), (80, 64, png::ColorType::Rgba));
        let received = Picture { width: 80, height: 64, pixels };
        for (y, x) in (0..64).flat_map(|y| (0..80).map(move |x| (y, x))) {
            assert_eq!(pixel(&received, x, y), pixel(&shown, x, y));
        }
    }

    #[test]
    fn answers_are_found_among_keys() {
        let all = Answers { kitty: true, sixel: true, cell: Some((10, 20)), complete: true };
        assert_eq!(Answers::parse(KITTY), all);
        let keys = [b"[6;1;1tab\x1b[A\x1bOP\x1b", KITTY, b"\x1b[1;5Cq\x1b[6;"].concat();
        assert_eq!(Answers::parse(&keys), all);
        let plain = b"\x1b_Gi=31;EINVAL:no\x1b\\\x1b[6;0;0t\x1b[?4;1c\x1b[>4c";
        assert_eq!(Answers::parse(plain), Answers { complete: true, ..Answers::default() });
    }

    #[test]
    fn answers_may_end_anywhere_and_hold_anything() {
        for end in 0..KITTY.len() {
            assert!(!Answers::parse(&KITTY[..end]).complete);
        }
        let mut random = 1u64;
        for length in 0..2000 {
            let next = |_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                b"\x1b\x1b[_G?;0123456789ctOK\xff\0"[usize::try_from(random >> 33).unwrap() % 23]
            };
            Answers::parse(&(0..length % 64).map(next).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn what_a_terminal_answers_outweighs_the_environment() {
        let window = Window { columns: 100, rows: 30, pixels: (900, 540) };
        let of = |variables: &[(&str, &str)], answers: &Answers| {
            Terminal::of(&environment(variables), Some(window), answers).graphics
        };
        let silent = Answers::default();
        let plain = Answers { complete: true, ..Answers::default() };
        let sixel = Answers { sixel: true, ..plain.clone() };
        assert_eq!(of(&[("TERM", "xterm-kitty")], &silent), Graphics::Kitty);
        assert_eq!(of(&[("TERM", "xterm"), ("KITTY_WINDOW_ID", "1")], &plain), Graphics::HalfBlocks);
        assert_eq!(of(&[("TERM", "xterm")], &sixel), Graphics::Sixel);
        assert_eq!(of(&[("TERM", "xterm"), ("LC_TERMINAL", "iTerm2")], &silent), Graphics::Sixel);
        assert_eq!(of(&[("TERM", "dumb"), ("KITTY_WINDOW_ID", "1")], &silent), Graphics::HalfBlocks);
        assert_eq!(of(&[("TERM", "tmux"), ("TMUX", "1"), ("WEZTERM_PANE", "1")], &silent), Graphics::HalfBlocks);
    }

    #[test]
    fn only_terminals_that_understand_are_asked() {
        let asked = |variables: &[(&str, &str)]| environment(variables).may_ask;
        assert!(asked(&[("TERM", "xterm-256color")]) && asked(&[("TERM", "foot")]));
        assert!(!asked(&[]) && !asked(&[("TERM", "dumb")]) && !asked(&[("TERM", "linux")]));
        assert!(!asked(&[("TERM", "xterm"), ("TMUX", "1")]) && !asked(&[("TERM", "screen.xterm")]));
        assert!(!asked(&[("TERM", "xterm-256color"), ("TERM_PROGRAM", "Apple_Terminal")]));
    }

    #[test]
    fn true_colour_is_used_where_it_is_known() {
        let many = |variables: &[(&str, &str)]| environment(variables).true_color;
        assert!(many(&[("COLORTERM", "truecolor")]) && many(&[("TERM", "xterm-direct")]));
        assert!(many(&[("COLORTERM", "24bit"), ("TERM", "screen"), ("TMUX", "1")]));
        assert!(!many(&[("TERM", "xterm-256color")]) && !many(&[("COLORTERM", "truecolor"), ("STY", "1")]));
    }

    #[test]
    fn sizes_come_from_the_terminal_or_the_environment_or_are_usual() {
        let variables = environment(&[("COLUMNS", "120"), ("LINES", "0"), ("TERM", "xterm-kitty")]);
        let size = |window: Option<Window>| {
            let of = Terminal::of(&variables, window, &Answers::default());
            (of.columns, of.rows, of.cell, of.graphics)
        };
        let known = Window { columns: 100, rows: 30, pixels: (900, 540) };
        assert_eq!(size(Some(known)), (100, 30, (9, 18), Graphics::Kitty));
        assert_eq!(size(Some(Window::default())), (120, 24, (8, 16), Graphics::Kitty));
        assert_eq!(size(None), (120, 24, (8, 16), Graphics::HalfBlocks));
    }

    #[test]
    fn graphics_have_names() {
        for graphics in [Graphics::HalfBlocks, Graphics::Sixel, Graphics::Kitty] {
            assert_eq!(graphics.name().parse(), Ok(graphics));
        }
        assert!("iterm".parse::<Graphics>().unwrap_err().to_string().starts_with("\"iterm\" is no way"));
    }
}
