//! Sixel: pictures in bands of six rows, of up to 256 colours.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::terminal::{opaque, rounded};
use crate::render::Picture;

/// Colours of a picture: what terminals have registers for.
pub(super) const REGISTERS: usize = 256;

/// Bands of six rows, each as one layer for each of its colours. What is transparent is left as it is (P2 = 1).
pub(super) fn sixel(picture: &Picture, to: &mut impl Write) -> io::Result<()> {
    let (palette, places) = registers(picture);
    write!(to, "\x1bP0;1;0q\"1;1;{};{}", picture.width, picture.height)?;
    for (register, [red, green, blue]) in palette.iter().enumerate() {
        write!(to, "#{register};2;{red};{green};{blue}")?;
    }
    for top in (0..picture.height).step_by(6) {
        let mut layers = vec![Vec::new(); palette.len()];
        for (x, row) in (0..6).flat_map(|row| (0..picture.width).map(move |x| (x, row))) {
            let register = opaque(picture, x, top + row).and_then(|colour| places.get(&percent(colour)));
            let Some(layer) = register.and_then(|&register| layers.get_mut(register)) else { continue };
            layer.resize(picture.width, 0u8);
            layer[x] |= 1 << row;
        }
        if top > 0 {
            write!(to, "-")?;
        }
        let mut first = true;
        for (register, layer) in layers.iter().enumerate().filter(|(_, layer)| !layer.is_empty()) {
            write!(to, "{}#{register}", if first { "" } else { "$" })?;
            first = false;
            let end = layer.iter().rposition(|&bits| bits != 0).map_or(0, |last| last + 1);
            for run in layer[..end].chunk_by(|a, b| a == b) {
                let character = char::from(b'?' + run[0]);
                match run.len() {
                    length @ 4.. => write!(to, "!{length}{character}")?,
                    length => write!(to, "{}", character.to_string().repeat(length))?,
                }
            }
        }
    }
    writeln!(to, "\x1b\\")
}

/// A colour in percent, which is how sixel tells colours.
pub(super) fn percent(colour: [u8; 3]) -> [u8; 3] {
    colour.map(|value| rounded(u64::from(value) * 100, 255))
}

/// The colours to draw with, and which of them stands for each of the picture's: itself, unless there are too many.
/// All in percent.
fn registers(picture: &Picture) -> (Vec<[u8; 3]>, BTreeMap<[u8; 3], usize>) {
    let pixels = (0..picture.height).flat_map(|y| (0..picture.width).map(move |x| (x, y)));
    let colours: BTreeSet<[u8; 3]> = pixels.filter_map(|(x, y)| opaque(picture, x, y)).map(percent).collect();
    let groups = grouped(colours.into_iter().collect());
    let mean = |group: &Vec<[u8; 3]>| {
        let sum = |channel: usize| group.iter().map(|colour| u64::from(colour[channel])).sum();
        [0, 1, 2].map(|channel| rounded(sum(channel), group.len() as u64))
    };
    let places =
        groups.iter().enumerate().flat_map(|(register, group)| group.iter().map(move |&colour| (colour, register)));
    (groups.iter().map(mean).collect(), places.collect())
}

/// Colours in as many groups as there are registers: the group that spans most is halved, until each colour is alone
/// or the registers are used up. So what is rare, as letters are, keeps its colour too.
fn grouped(colours: Vec<[u8; 3]>) -> Vec<Vec<[u8; 3]>> {
    // How much a group spans, in which channel, and half-way.
    let span = |group: &[[u8; 3]]| {
        let of_channel = |channel: usize| {
            let values = || group.iter().map(|colour| colour[channel]);
            let (low, high) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
            (high - low, channel, low.midpoint(high))
        };
        (0..3).map(of_channel).max().unwrap_or_default()
    };
    let mut groups = vec![(span(&colours), colours)];
    while groups.len() < REGISTERS
        && let Some(widest) = groups.iter_mut().max_by_key(|(span, _)| *span)
        && let (1.., channel, middle) = widest.0
    {
        let (low, high): (Vec<_>, Vec<_>) = widest.1.iter().partition(|colour| colour[channel] <= middle);
        *widest = (span(&low), low);
        groups.push((span(&high), high));
    }
    groups.into_iter().map(|(_, group)| group).collect()
}
