//! Undoing what makes floats compress well: the bytes, or the bits, of the same place of all elements one behind the
//! other (Blosc's "shuffle"; Masui et al., Astronomy and Computing 12, 2015, for "bitshuffle").

/// Elements whose bits make a byte of a row.
const EIGHT: usize = 8;

/// How the elements of a block lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shuffle {
    /// A row for each byte of an element, lowest address first: `[byte, element]`.
    Bytes,
    /// A row for each bit of an element, lowest bit of the lowest address first: `[bit, element]`, eight elements a
    /// byte, the first one lowest.
    Bits,
}

/// Puts the elements of `from`, of `SIZE` bytes each, back together in `to`.
///
/// Both are of one length: whole elements; for [`Shuffle::Bits`], a multiple of eight of them. Elements beyond that are
/// left as they are.
pub fn unshuffle<const SIZE: usize>(shuffle: Shuffle, from: &[u8], to: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if matches!(SIZE, 2 | 4 | 8) && is_x86_feature_detected!("avx2") {
        let has_gfni = is_x86_feature_detected!("gfni");
        // SAFETY: each function needs AVX2, the second one GFNI, too, and nothing else: and the processor has them.
        #[allow(unsafe_code)]
        return unsafe {
            match shuffle {
                Shuffle::Bytes => avx2::bytes::<SIZE>(from, to),
                Shuffle::Bits if has_gfni => avx2::bits_by_gfni::<SIZE>(from, to),
                Shuffle::Bits => avx2::bits::<SIZE>(from, to),
            }
        };
    }
    match shuffle {
        Shuffle::Bytes => unshuffle_bytes::<SIZE>(from, to, 0),
        Shuffle::Bits => unshuffle_bits::<SIZE>(from, to, 0),
    }
}

/// Elements from `first` on, one by one.
fn unshuffle_bytes<const SIZE: usize>(from: &[u8], to: &mut [u8], first: usize) {
    let (elements, _) = to.as_chunks_mut::<SIZE>();
    let count = elements.len();
    let rows: [&[u8]; SIZE] = std::array::from_fn(|byte| row(from, byte, count));
    for (index, element) in elements.iter_mut().enumerate().skip(first) {
        for (byte, row) in element.iter_mut().zip(rows) {
            *byte = row.get(index).copied().unwrap_or_default();
        }
    }
}

/// Elements from the eight at `first` on, eight at a time.
fn unshuffle_bits<const SIZE: usize>(from: &[u8], to: &mut [u8], first: usize) {
    let (elements, _) = to.as_chunks_mut::<SIZE>();
    let (eights, _) = elements.as_chunks_mut::<EIGHT>();
    let count = eights.len();
    for byte in 0..SIZE {
        let rows: [&[u8]; 8] = std::array::from_fn(|bit| row(from, byte * 8 + bit, count));
        for (index, eight) in eights.iter_mut().enumerate().skip(first) {
            let column = rows.map(|row| row.get(index).copied().unwrap_or_default());
            for (element, value) in eight.iter_mut().zip(transposed(column)) {
                element[byte] = value;
            }
        }
    }
}

/// One of the rows, all of one length.
fn row(rows: &[u8], number: usize, len: usize) -> &[u8] {
    rows.get(number * len..).and_then(|rest| rest.get(..len)).unwrap_or_default()
}

/// An 8 x 8 matrix of bits, mirrored: bit k of byte m is bit m of byte k (Warren, Hacker's Delight, section 7-3).
fn transposed(bytes: [u8; 8]) -> [u8; 8] {
    let mut bits = u64::from_le_bytes(bytes);
    for (shift, mask) in [(7, 0x00AA_00AA_00AA_00AA), (14, 0x0000_CCCC_0000_CCCC), (28, 0x0000_0000_F0F0_F0F0)] {
        let changed = (bits ^ (bits >> shift)) & mask;
        bits ^= changed ^ (changed << shift);
    }
    bits.to_le_bytes()
}

/// The same, 32 bytes of each row at a time.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_and_si256, _mm256_gf2p8affine_epi64_epi8, _mm256_permute2x128_si256, _mm256_set1_epi8,
        _mm256_set1_epi64x, _mm256_slli_epi16, _mm256_srli_epi16, _mm256_unpackhi_epi8, _mm256_unpackhi_epi16,
        _mm256_unpackhi_epi32, _mm256_unpacklo_epi8, _mm256_unpacklo_epi16, _mm256_unpacklo_epi32, _mm256_xor_si256,
    };

    use bytemuck::Zeroable;

    use super::{EIGHT, unshuffle_bits, unshuffle_bytes};

    const WIDTH: usize = size_of::<__m256i>();

    // Loops are written out: what is passed closures is not compiled for AVX2.

    #[target_feature(enable = "avx2")]
    pub fn bytes<const SIZE: usize>(from: &[u8], to: &mut [u8]) {
        let count = to.len() / SIZE;
        for (index, target) in to.chunks_exact_mut(WIDTH * SIZE).enumerate() {
            let mut rows = [__m256i::zeroed(); SIZE];
            for (byte, row) in rows.iter_mut().enumerate() {
                *row = load(from, byte * count + index * WIDTH);
            }
            let (low, high) = target.split_at_mut(WIDTH / 2 * SIZE);
            weave(rows, low, high);
        }
        unshuffle_bytes::<SIZE>(from, to, count / WIDTH * WIDTH);
    }

    macro_rules! bits {
        ($name:ident, $features:literal, $of_columns:ident) => {
            #[target_feature(enable = $features)]
            pub fn $name<const SIZE: usize>(from: &[u8], to: &mut [u8]) {
                let len = to.len() / SIZE / EIGHT;
                for (index, target) in to.chunks_exact_mut(WIDTH * EIGHT * SIZE).enumerate() {
                    // Of each byte of the elements: those of elements 16 q and after in the lower half of number q, of
                    // elements 128 + 16 q and after in the upper one.
                    let mut of_bytes = [[__m256i::zeroed(); 8]; SIZE];
                    for (byte, of_byte) in of_bytes.iter_mut().enumerate() {
                        let mut rows = [__m256i::zeroed(); 8];
                        for (bit, row) in rows.iter_mut().enumerate() {
                            *row = load(from, (byte * 8 + bit) * len + index * WIDTH);
                        }
                        *of_byte = $of_columns(rows);
                    }
                    let (low, high) = target.split_at_mut(WIDTH / 2 * EIGHT * SIZE);
                    let targets = low.chunks_exact_mut(16 * SIZE).zip(high.chunks_exact_mut(16 * SIZE));
                    for (number, (low, high)) in targets.enumerate() {
                        let mut pieces = [__m256i::zeroed(); SIZE];
                        for (piece, of_byte) in pieces.iter_mut().zip(&of_bytes) {
                            *piece = of_byte[number % 8];
                        }
                        weave(pieces, low, high);
                    }
                }
                unshuffle_bits::<SIZE>(from, to, len / WIDTH * WIDTH);
            }
        };
    }
    bits!(bits, "avx2", of_columns);
    bits!(bits_by_gfni, "avx2,gfni", of_columns_by_gfni);

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(rows: &[u8], at: usize) -> __m256i {
        match rows.get(at..at + WIDTH).map(<[u8; WIDTH]>::try_from) {
            Some(Ok(bytes)) => bytemuck::cast(bytes),
            _ => Zeroable::zeroed(),
        }
    }

    /// Bytes of eight elements for each column of eight rows of bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn of_columns(rows: [__m256i; 8]) -> [__m256i; 8] {
        in_order(transposed(rows))
    }

    /// The same. With the bytes of a column as rows of a matrix, the last first, its product with the vector whose bit
    /// m alone is set is the byte of element m.
    #[inline]
    #[target_feature(enable = "avx2,gfni")]
    fn of_columns_by_gfni(mut rows: [__m256i; 8]) -> [__m256i; 8] {
        let unit_vectors = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
        rows.reverse();
        let mut columns = in_order(rows);
        for column in &mut columns {
            *column = _mm256_gf2p8affine_epi64_epi8::<0>(unit_vectors, *column);
        }
        columns
    }

    /// At each byte: bit k of number m is bit m of number k.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn transposed(mut rows: [__m256i; 8]) -> [__m256i; 8] {
        macro_rules! exchange {
            ($shift:literal, $mask:literal, $($number:literal),+) => {
                let mask = _mm256_set1_epi8($mask);
                $(
                    let (a, b) = (rows[$number], rows[$number + $shift]);
                    let changed = _mm256_and_si256(_mm256_xor_si256(_mm256_srli_epi16::<$shift>(a), b), mask);
                    rows[$number] = _mm256_xor_si256(a, _mm256_slli_epi16::<$shift>(changed));
                    rows[$number + $shift] = _mm256_xor_si256(b, changed);
                )+
            };
        }
        exchange!(4, 0x0F, 0, 1, 2, 3);
        exchange!(2, 0x33, 0, 1, 4, 5);
        exchange!(1, 0x55, 0, 2, 4, 6);
        rows
    }

    /// Bytes of eight elements in eight numbers: those of one column one behind the other. A half of number q has
    /// columns 2 q and 2 q + 1 of that half.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn in_order(of: [__m256i; 8]) -> [__m256i; 8] {
        let mut of_two = of;
        for (pair, of) in of_two.as_chunks_mut::<2>().0.iter_mut().zip(of.as_chunks::<2>().0) {
            *pair = [_mm256_unpacklo_epi8(of[0], of[1]), _mm256_unpackhi_epi8(of[0], of[1])];
        }
        let mut of_four = of_two;
        for (half, of) in of_four.as_chunks_mut::<4>().0.iter_mut().zip(of_two.as_chunks::<4>().0) {
            let (low, high) = (_mm256_unpacklo_epi16(of[0], of[2]), _mm256_unpackhi_epi16(of[0], of[2]));
            *half = [low, high, _mm256_unpacklo_epi16(of[1], of[3]), _mm256_unpackhi_epi16(of[1], of[3])];
        }
        let mut of_eight = of_four;
        for (index, pair) in of_eight.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let (first, second) = (of_four[index], of_four[index + 4]);
            *pair = [_mm256_unpacklo_epi32(first, second), _mm256_unpackhi_epi32(first, second)];
        }
        of_eight
    }

    /// Elements of their bytes, each half by itself: sixteen of the lower ones, sixteen of the upper ones.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn weave<const SIZE: usize>(of: [__m256i; SIZE], low: &mut [u8], high: &mut [u8]) {
        let mut woven = of;
        let mut step = 1;
        // Pieces of `step` bytes become twice as long.
        while step < SIZE {
            let halves = woven;
            for (index, target) in woven.iter_mut().enumerate() {
                // Number i of the next round: pieces of neighbours, the round's lower halves first.
                let (group, within) = (index / (2 * step), index % (2 * step));
                let (a, b) = (halves[group * 2 * step + within / 2], halves[group * 2 * step + within / 2 + step]);
                *target = match (step, within % 2) {
                    (1, 0) => _mm256_unpacklo_epi8(a, b),
                    (1, _) => _mm256_unpackhi_epi8(a, b),
                    (2, 0) => _mm256_unpacklo_epi16(a, b),
                    (2, _) => _mm256_unpackhi_epi16(a, b),
                    (_, 0) => _mm256_unpacklo_epi32(a, b),
                    (_, _) => _mm256_unpackhi_epi32(a, b),
                };
            }
            step *= 2;
        }
        let targets = low.as_chunks_mut::<WIDTH>().0.iter_mut().zip(high.as_chunks_mut::<WIDTH>().0);
        for (pair, (low, high)) in woven.as_chunks::<2>().0.iter().zip(targets) {
            *low = bytemuck::cast(_mm256_permute2x128_si256::<0x20>(pair[0], pair[1]));
            *high = bytemuck::cast(_mm256_permute2x128_si256::<0x31>(pair[0], pair[1]));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, bit by bit.
    fn plain(shuffle: Shuffle, size: usize, from: &[u8]) -> Vec<u8> {
        let count = from.len() / size;
        let mut to = vec![0; from.len()];
        for element in 0..count {
            for byte in 0..size {
                to[element * size + byte] = match shuffle {
                    Shuffle::Bytes => from[byte * count + element],
                    Shuffle::Bits => (0..8).fold(0, |value, bit| {
                        let row = byte * 8 + bit;
                        value | (from[row * count / 8 + element / 8] >> (element % 8) & 1) << bit
                    }),
                };
            }
        }
        to
    }

    fn check<const SIZE: usize>(bytes: &[u8]) {
        for (shuffle, group) in [(Shuffle::Bytes, SIZE), (Shuffle::Bits, SIZE * EIGHT)] {
            let from = &bytes[..bytes.len() / group * group];
            let expected = plain(shuffle, SIZE, from);
            let mut to = vec![0xA5; from.len()];
            unshuffle::<SIZE>(shuffle, from, &mut to);
            assert_eq!(to, expected, "{shuffle:?} of {SIZE}");
            let mut to = vec![0xA5; from.len()];
            match shuffle {
                Shuffle::Bytes => unshuffle_bytes::<SIZE>(from, &mut to, 0),
                Shuffle::Bits => unshuffle_bits::<SIZE>(from, &mut to, 0),
            }
            assert_eq!(to, expected, "{shuffle:?} of {SIZE}, one by one");
            #[cfg(target_arch = "x86_64")]
            if shuffle == Shuffle::Bits && matches!(SIZE, 2 | 4 | 8) && is_x86_feature_detected!("avx2") {
                let mut to = vec![0xA5; from.len()];
                // SAFETY: the function needs AVX2 and nothing else, and the processor has it.
                #[allow(unsafe_code)]
                unsafe {
                    avx2::bits::<SIZE>(from, &mut to);
                };
                assert_eq!(to, expected, "{shuffle:?} of {SIZE}, without GFNI");
            }
        }
    }

    proptest! {
        #[test]
        fn elements_are_what_they_were_bit_by_bit(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
            check::<1>(&bytes);
            check::<2>(&bytes);
            check::<4>(&bytes);
            check::<8>(&bytes);
        }
    }
}
