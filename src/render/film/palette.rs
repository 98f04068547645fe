//! A picture in at most 256 colours: its own if it has no more, or else the means of as many boxes of them, between
//! which smooth colours are dithered. The pattern stays where it is from picture to picture, so that films do not
//! flicker.

use std::collections::BTreeMap;

/// A picture as numbers of colours.
pub(super) struct Indexed {
    /// Of each pixel.
    pub indices: Vec<u8>,
    /// Red, green, blue of each colour.
    pub palette: Vec<u8>,
    /// The number that is not seen.
    pub transparent: Option<u8>,
}

/// Indexes pixels of red, green, blue, opacity, in rows of `width` that begin at `corner` of the film.
pub(super) fn indexed(pixels: &[u8], width: usize, corner: (usize, usize)) -> Indexed {
    let pixels = pixels.as_chunks::<4>().0;
    let any_unseen = pixels.iter().any(|pixel| pixel[3] == 0);
    let most = if any_unseen { 255 } else { 256 };
    let (seen, mut palette) = exact(pixels, most).unwrap_or_else(|| dithered(pixels, width, corner, most));
    let transparent = any_unseen.then(|| index(palette.len()));
    palette.extend(transparent.map(|_| [0; 3]));
    let number = |(pixel, seen): (&[u8; 4], u8)| transparent.filter(|_| pixel[3] == 0).unwrap_or(seen);
    let indices = pixels.iter().zip(seen).map(number).collect();
    Indexed { indices, palette: palette.into_flattened(), transparent }
}

/// The picture's own colours, if there are few.
fn exact(pixels: &[[u8; 4]], most: usize) -> Option<(Vec<u8>, Vec<[u8; 3]>)> {
    let mut numbers = BTreeMap::new();
    let mut palette = Vec::new();
    let mut last = None;
    let mut number_of = |&[red, green, blue, opacity]: &[u8; 4]| {
        let colour = [red, green, blue];
        let number = match last {
            Some((same, number)) if same == colour => number,
            _ if opacity == 0 => 0,
            _ => *numbers.entry(colour).or_insert_with(|| {
                palette.push(colour);
                index(palette.len() - 1)
            }),
        };
        last = Some((colour, number)).filter(|_| opacity > 0);
        (palette.len() <= most).then_some(number)
    };
    let indices = pixels.iter().map(&mut number_of).collect::<Option<_>>()?;
    Some((indices, palette))
}

/// Colours that are alike to six bits.
#[derive(Clone, Copy, Default)]
struct Bin {
    pixels: f64,
    mean: [f64; 3],
}

/// Bins that get one colour.
struct Cell {
    bins: std::ops::Range<usize>,
    pixels: f64,
    mean: [f64; 3],
    /// The axis on which they differ most, and the sum of their squared distances from the mean on all.
    axis: usize,
    spread: f64,
}

impl Cell {
    fn of(all: &[Bin], bins: std::ops::Range<usize>) -> Self {
        let (mut pixels, mut sums, mut squares) = (0.0, [0.0; 3], [0.0; 3]);
        for bin in &all[bins.clone()] {
            pixels += bin.pixels;
            for axis in 0..3 {
                sums[axis] += bin.pixels * bin.mean[axis];
                squares[axis] += bin.pixels * bin.mean[axis] * bin.mean[axis];
            }
        }
        let spreads = [0, 1, 2].map(|axis| squares[axis] - sums[axis] * sums[axis] / pixels);
        let axis = (0..3).max_by(|a, b| spreads[*a].total_cmp(&spreads[*b])).unwrap_or(0);
        let mean = sums.map(|sum| sum / pixels);
        Self { bins, pixels, mean, axis, spread: spreads.iter().sum() }
    }
}

/// The colours of `most` cells: always the one that spreads most is cut at its mean (variance-based splitting after
/// Wan, Prusinkiewicz and Wong, 1990).
fn dithered(pixels: &[[u8; 4]], width: usize, corner: (usize, usize), most: usize) -> (Vec<u8>, Vec<[u8; 3]>) {
    let mut bins = bins_of(pixels);
    let mut cells = vec![Cell::of(&bins, 0..bins.len())];
    while cells.len() < most {
        let Some(widest) = (0..cells.len()).max_by(|a, b| cells[*a].spread.total_cmp(&cells[*b].spread)) else { break };
        let Cell { bins: ref range, axis, mean, .. } = cells[widest];
        let range = range.clone();
        let (mut middle, cut) = (range.start, mean[axis]);
        for bin in range.clone() {
            if bins[bin].mean[axis] < cut {
                bins.swap(bin, middle);
                middle += 1;
            }
        }
        if middle == range.start || middle == range.end {
            break;
        }
        cells[widest] = Cell::of(&bins, range.start..middle);
        cells.push(Cell::of(&bins, middle..range.end));
    }
    let palette: Vec<[u8; 3]> = cells.iter().map(|cell| cell.mean.map(byte)).collect();
    let spread: f64 = cells.iter().map(|cell| cell.spread).sum();
    let seen: f64 = bins.iter().map(|bin| bin.pixels).sum();
    // What lies evenly between neighbours on a lattice is off by their distance / √12; bins are 4 apart.
    let distance = (spread.max(0.0) / seen / 3.0 * 12.0).sqrt().max(4.0);
    let mut nearest = Nearest { palette: &palette, known: vec![None; PLACES] };
    // Where colours of the palette are as alike, the one of most pixels is found.
    let mut by_pixels: Vec<usize> = (0..cells.len()).collect();
    by_pixels.sort_by(|a, b| cells[*a].pixels.total_cmp(&cells[*b].pixels));
    for number in by_pixels {
        nearest.known[place(palette[number])] = Some(index(number));
    }
    let row = |(y, row): (usize, &[[u8; 4]])| -> Vec<u8> {
        let pixel = |(x, pixel): (usize, &[u8; 4])| {
            let (x, y) = (x + corner.0, y + corner.1);
            // Flat areas stay flat.
            let [red, green, blue, _] = *pixel;
            let number = nearest.to([red, green, blue]);
            if palette[usize::from(number)] == [red, green, blue] {
                return number;
            }
            let offsets = [threshold(x, y), threshold(x + 3, y + 5), threshold(x + 6, y + 2)];
            nearest.to([0, 1, 2].map(|axis| byte(f64::from(pixel[axis]) + offsets[axis] * distance)))
        };
        row.iter().enumerate().map(pixel).collect()
    };
    (pixels.chunks(width).enumerate().flat_map(row).collect(), palette)
}

/// The bins with pixels.
fn bins_of(pixels: &[[u8; 4]]) -> Vec<Bin> {
    let mut bins = vec![(0_u32, [0_u32; 3]); PLACES];
    for &[red, green, blue, opacity] in pixels {
        if opacity > 0 {
            let colour = [red, green, blue];
            let (count, sums) = &mut bins[place(colour)];
            *count += 1;
            sums.iter_mut().zip(colour).for_each(|(sum, part)| *sum += u32::from(part & 3));
        }
    }
    let mean = |place: usize, count: u32, sums: [u32; 3]| {
        let parts = [place >> 12, place >> 6 & 63, place & 63].map(|part| f64::from(index(part * 4)));
        [0, 1, 2].map(|axis| parts[axis] + f64::from(sums[axis]) / f64::from(count))
    };
    let some = bins.into_iter().enumerate().filter(|(_, (count, _))| *count > 0);
    some.map(|(place, (count, sums))| Bin { pixels: f64::from(count), mean: mean(place, count, sums) }).collect()
}

/// How many bins there can be.
const PLACES: usize = 1 << 18;

/// The bin of a colour.
fn place(colour: [u8; 3]) -> usize {
    colour.iter().fold(0, |place, part| place << 6 | usize::from(part >> 2))
}

/// Finds the colours of the palette, once for each bin.
struct Nearest<'a> {
    palette: &'a [[u8; 3]],
    known: Vec<Option<u8>>,
}

impl Nearest<'_> {
    fn to(&mut self, colour: [u8; 3]) -> u8 {
        let known = &mut self.known[place(colour)];
        *known.get_or_insert_with(|| {
            let distance = |other: &[u8; 3]| -> i32 {
                let part = |axis: usize| i32::from(colour[axis] & !3 | 2) - i32::from(other[axis]);
                part(0) * part(0) + part(1) * part(1) + part(2) * part(2)
            };
            index((0..self.palette.len()).min_by_key(|number| distance(&self.palette[*number])).unwrap_or(0))
        })
    }
}

/// Between -1/2 and 1/2, spread evenly over every 8 x 8 pixels (Bayer, 1973).
fn threshold(x: usize, y: usize) -> f64 {
    let bit = |number: usize, bit: usize| u8::from(number >> bit & 1 == 1);
    let order: u8 = (0..3).fold(0, |order, level| order << 2 | (bit(x ^ y, level) << 1 | bit(y, level)));
    (f64::from(order) + 0.5) / 64.0 - 0.5
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it saturates
fn byte(part: f64) -> u8 {
    part.round() as u8
}

/// A number below 256.
fn index(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
