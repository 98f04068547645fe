//! `.npy`: any format version, byte order and memory order. The header is parsed by `ndarray-npy`; the values are
//! used where they lie in the file's bytes whenever they are little-endian and in C order.

use std::borrow::Cow;
use std::io::Write;

use ndarray::{ArrayView, IxDyn, ShapeBuilder};
use ndarray_npy::npy::header::{Header, Layout};

use super::Problem;
use super::array::{FileArray, StepArray};
use crate::dtype::SourceDtype;
use crate::values::{Values, with_values};

/// What a header of an array of floats needs at most (numpy writes 128 bytes).
pub(super) const HEADER_LIMIT: usize = 4096;

/// The header of an npy file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NpyHeader {
    pub dtype: SourceDtype,
    pub big_endian: bool,
    pub fortran: bool,
    pub shape: Vec<usize>,
    /// Bytes of the header itself.
    pub len: usize,
}

impl NpyHeader {
    /// Parses the header at the start of `bytes`, which may be cut off after [`HEADER_LIMIT`] bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        if bytes.is_empty() {
            return Err(Problem::Empty { expected: "an npy header" });
        }
        let head = &bytes[..bytes.len().min(HEADER_LIMIT)];
        // The parser recurses into brackets, and with each one takes twice as long to find out that what is in it is
        // none of what it could be; a plain array's header has two of them.
        if head.starts_with(b"\x93NUMPY")
            && head.iter().take_while(|&&byte| byte != b'\n').filter(|byte| b"([{".contains(byte)).count() > 6
        {
            return Err(Problem::NotFloat { found: "nested or structured".into() });
        }
        let declared = match head {
            [_, _, _, _, _, _, 1, _, a, b, ..] => 10 + usize::from(u16::from_le_bytes([*a, *b])),
            [_, _, _, _, _, _, _, _, a, b, c, d, ..] => {
                12usize.saturating_add(u32::from_le_bytes([*a, *b, *c, *d]) as usize)
            }
            _ => usize::MAX,
        };
        if head.starts_with(b"\x93NUMPY") && declared > head.len() {
            let found = if head.len() < HEADER_LIMIT {
                format!("the header is cut off after {} bytes", head.len())
            } else {
                format!("the header claims {declared} bytes (more than {HEADER_LIMIT})")
            };
            return Err(Problem::NotNpy { found: found.into() });
        }
        let mut rest = head;
        let header = Header::from_reader(&mut rest).map_err(|error| Problem::NotNpy { found: error.into() })?;
        let descriptor =
            header.type_descriptor.as_string().cloned().unwrap_or_else(|| header.type_descriptor.to_string());
        let not_float = || Problem::NotFloat { found: in_words(&descriptor) };
        let (order, kind) = descriptor.split_at_checked(1).ok_or_else(not_float)?;
        let dtype = match kind {
            "f2" => SourceDtype::Float16,
            "f4" => SourceDtype::Float32,
            "f8" => SourceDtype::Float64,
            _ => return Err(not_float()),
        };
        let big_endian = match order {
            "<" => false,
            ">" => true,
            "=" => cfg!(target_endian = "big"),
            _ => return Err(not_float()),
        };
        Ok(Self {
            dtype,
            big_endian,
            fortran: header.layout == Layout::Fortran,
            shape: header.shape,
            len: head.len() - rest.len(),
        })
    }

    fn element_size(&self) -> usize {
        self.dtype.stored().size()
    }

    /// Bytes the whole file has if the header is right.
    pub fn file_bytes(&self) -> u128 {
        let elements = self.shape.iter().fold(1u128, |product, &axis| product.saturating_mul(axis as u128));
        elements.saturating_mul(self.element_size() as u128).saturating_add(self.len as u128)
    }

    /// Checks the header's promise against a file's size and a limit.
    pub fn check_size(&self, found: u64, limit: u64) -> Result<(), Problem> {
        let expected = self.file_bytes();
        if expected != u128::from(found) {
            return Err(Problem::Size { expected, found, shape: self.shape.clone() });
        }
        if expected > u128::from(limit) {
            return Err(Problem::TooLarge { found: expected, limit });
        }
        Ok(())
    }
}

/// Reads the whole content of an npy file.
pub(super) fn read_npy(bytes: &[u8], limit: u64) -> Result<FileArray<'_>, Problem> {
    let header = NpyHeader::parse(bytes)?;
    header.check_size(bytes.len() as u64, limit)?;
    let mut payload = Cow::Borrowed(&bytes[header.len..]);
    if header.big_endian {
        for element in payload.to_mut().chunks_exact_mut(header.element_size()) {
            element.reverse();
        }
    }
    let mut values = Values::from_le_bytes(header.dtype, payload);
    if header.fortran && header.shape.len() > 1 {
        values = match values {
            Values::Float16(values) => Values::Float16(in_c_order(&values, &header.shape).into()),
            Values::Float32(values) => Values::Float32(in_c_order(&values, &header.shape).into()),
            Values::Float64(values) => Values::Float64(in_c_order(&values, &header.shape).into()),
        };
    }
    Ok(FileArray { shape: header.shape, dtype: header.dtype, values })
}

/// A type of numpy's that is no float of 16, 32 or 64 bits.
fn in_words(descriptor: &str) -> String {
    let kind = descriptor.trim_start_matches(['|', '<', '>', '=']);
    let bits = kind.get(1..).and_then(|bytes| bytes.parse::<u32>().ok()).map(|bytes| bytes.saturating_mul(8));
    let bits = bits.map_or_else(String::new, |bits| bits.to_string());
    let name = match kind.chars().next() {
        Some('O') => return "object (a pickle, which is never loaded)".into(),
        Some('f') if matches!(kind, "f12" | "f16") => {
            "longdouble, whose bits differ between machines: save it with .astype('float64')".to_owned()
        }
        Some('i') => format!("int{bits}"),
        Some('u') => format!("uint{bits}"),
        Some('c') => format!("complex{bits}"),
        Some('b') => "bool".to_owned(),
        _ => return format!("`{descriptor}`"),
    };
    format!("`{descriptor}` ({name})")
}

fn in_c_order<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    match ArrayView::from_shape(IxDyn(shape).f(), values) {
        Ok(view) => view.iter().copied().collect(),
        Err(_) => values.to_vec(), // lengths were compared with the shape before
    }
}

/// Writes a step array as npy, version 1, little-endian, C order.
///
/// # Errors
/// If writing fails.
pub fn write_npy(array: &StepArray<'_>, mut writer: impl Write) -> std::io::Result<()> {
    let descriptor = format!("<f{}", array.values.dtype().size());
    let header = Header {
        type_descriptor: py_literal_string(descriptor),
        layout: Layout::Standard,
        shape: array.shape.axes().to_vec(),
    };
    header.write(&mut writer).map_err(std::io::Error::other)?;
    if cfg!(target_endian = "little") {
        return writer.write_all(array.values.bytes());
    }
    with_values!(&array.values, values => {
        let size = array.values.dtype().size();
        for element in bytemuck::cast_slice::<_, u8>(values).chunks_exact(size) {
            let reversed: Vec<u8> = element.iter().rev().copied().collect();
            writer.write_all(&reversed)?;
        }
    });
    Ok(())
}

fn py_literal_string(text: String) -> py_literal::Value {
    py_literal::Value::String(text)
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;
    use crate::shape::StepShape;

    fn npy(header: &str, version: u8, payload: &[u8]) -> Vec<u8> {
        let mut file = b"\x93NUMPY".to_vec();
        file.extend([version, 0]);
        let text = format!("{header}\n");
        if version == 1 {
            file.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
        } else {
            file.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        }
        file.extend(text.as_bytes());
        file.extend(payload);
        file
    }

    #[test]
    fn orders_and_versions_give_the_same_array() {
        let dict = |descr: &str, fortran: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': (1, 2, 3, 1), }}")
        };
        let c: Vec<u8> = [0f32, 1., 2., 3., 4., 5.].iter().flat_map(|v| v.to_le_bytes()).collect();
        let f: Vec<u8> = [0f32, 3., 1., 4., 2., 5.].iter().flat_map(|v| v.to_be_bytes()).collect();
        let little = npy(&dict("<f4", "False"), 1, &c);
        let big = npy(&dict(">f4", "True"), 3, &f);
        let (little, big) = (read_npy(&little, 1 << 20).unwrap(), read_npy(&big, 1 << 20).unwrap());
        assert_eq!(little.shape, [1, 2, 3, 1]);
        assert_eq!(little.values, big.values);
        assert_eq!((little.values.get(1), little.values.get(5)), (1.0, 5.0));
    }

    #[test]
    fn hostile_headers_are_named_and_allocate_nothing() {
        let message = |file: &[u8]| read_npy(file, 1 << 30).unwrap_err().to_string();
        let huge =
            npy("{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000, 1000000000, 1, 1), }", 1, &[0; 64]);
        assert!(message(&huge).contains("promises 2000000000000000"), "{}", message(&huge));
        let object = npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", 1, &[0; 64]);
        assert!(message(&object).contains("object"));
        for (descr, words) in
            [("<f16", "longdouble"), ("<i4", "int32"), ("|u1", "uint8"), ("<c16", "complex128"), ("|b1", "bool")]
        {
            let other = npy(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,), }}"), 1, &[0; 64]);
            assert!(message(&other).contains(words), "{}", message(&other));
        }
        assert!(message(b"").contains("empty"));
        assert!(message(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("cut off"));
        assert!(message(&npy(&"(".repeat(3000), 1, &[])).contains("nested"));
        assert!(
            message(&npy("{'descr': '<f2', 'fortran_order': False, 'shape': (2, 1), }", 1, &[0; 3]))
                .contains("truncated")
        );
        assert!(message(b"hello, world, this is text").contains("not an npy file"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_bit_for_bit(bits in proptest::collection::vec(any::<u16>(), 12)) {
            let shape = StepShape::from_axes(&[2, 3, 2, 1]).unwrap();
            let values: Vec<f16> = bits.iter().copied().map(f16::from_bits).collect();
            let array = StepArray { shape, source_dtype: SourceDtype::Float16, values: Values::Float16(values.into()) };
            let mut file = Vec::new();
            write_npy(&array, &mut file).unwrap();
            let read = read_npy(&file, 1 << 20).unwrap();
            prop_assert_eq!(read.shape, shape.axes());
            prop_assert_eq!(read.values.bytes(), array.values.bytes());
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), magic: bool) {
            if magic {
                bytes.splice(0..0, *b"\x93NUMPY\x01\x00");
            }
            let _ = read_npy(&bytes, 1 << 20);
        }
    }
}
