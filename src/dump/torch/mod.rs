//! Reads one bare tensor out of the bytes of a `torch.save` zip archive, without torch itself.
//!
//! The pickle inside is interpreted, never executed: it may mention tensors, storages and an ordered
//! dict; anything else is an error that names it. Opening and gunzipping files is left to the caller.

mod archive;
mod pickle;
mod view;

use std::borrow::Cow;

use zip::result::ZipError;

use crate::dtype::SourceDtype;
use archive::{PICKLE_LIMIT, TorchArchive, entry_error};
use pickle::{Unpickler, Value};

/// Element type of a tensor as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TorchDtype {
    /// IEEE 754 half precision, 2 bytes.
    Float16,
    /// The upper half of a `float32`, 2 bytes.
    BFloat16,
    /// IEEE 754 single precision, 4 bytes.
    Float32,
    /// IEEE 754 double precision, 8 bytes.
    Float64,
}

/// A tensor as found: row-major contents, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorchTensor<'a> {
    /// Element type of `bytes`.
    pub dtype: TorchDtype,
    /// Length of each axis, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The product of `shape` in elements; borrowed if the file holds them in this very order.
    pub bytes: Cow<'a, [u8]>,
}

/// Why a file is not a tensor this reader takes; the caller adds the file's name.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// There are no bytes at all.
    #[error("the file is empty; expected a zip archive written by torch.save")]
    Empty,
    /// A pickle without an archive around it, as torch wrote before 1.6.
    #[error(
        "found a bare pickle, the legacy format of torch.save; expected the zip format: load it in \
         torch and save it again with torch.save(tensor, path)"
    )]
    Legacy,
    /// Neither an archive nor a pickle; the first bytes.
    #[error("starts with the bytes {0}; expected a zip archive (50 4b 03 04) written by torch.save")]
    NotZip(String),
    /// A zip archive without a readable directory.
    #[error("cannot read the zip archive ({0}); expected a whole one: it may be cut off")]
    Archive(ZipError),
    /// An entry of the archive is missing, damaged or contradicts the pickle.
    #[error("archive entry `{entry}`: found {found}, expected {expected}")]
    Entry {
        /// Path of the entry below the archive's one directory.
        entry: String,
        /// What the archive holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// The tensor, or an entry to inflate, needs more memory than allowed.
    #[error("{what} takes {found} bytes; expected at most {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Bytes it takes.
        found: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The pickle is damaged, or builds something `torch.save` never writes for a tensor.
    #[error("data.pkl, before byte {offset}: found {found}, expected {expected}")]
    Pickle {
        /// Where in `data.pkl`.
        offset: usize,
        /// What stands there.
        found: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// The pickle mentions a Python name other than those of a plain tensor.
    #[error("the pickle calls {0}; attnkit reads tensors only and never runs code")]
    Global(String),
    /// The archive holds an object of this Python type.
    #[error("found a Python {0}; expected one bare tensor: torch.save(tensor, path)")]
    NotTensor(&'static str),
    /// A tensor of this type, which is not a float type.
    #[error("found a tensor of {0}; expected float16, bfloat16, float32 or float64")]
    Dtype(&'static str),
    /// The tensor reaches outside its storage, or is larger than anything addressable.
    #[error("found {0}; expected a view within its storage")]
    View(String),
}

/// Reads the tensor that `torch.save(tensor, path)` wrote, from the file's `bytes`.
///
/// A transposed, sliced or expanded tensor comes back row-major. Checksums are verified. Memory is
/// never taken on a header's word: neither the tensor nor an inflated storage may exceed `limit` bytes.
///
/// # Errors
/// When `bytes` is not a whole archive of one float tensor that fits its storage and `limit`.
pub fn read_tensor(bytes: &[u8], limit: u64) -> Result<TorchTensor<'_>, TorchError> {
    let whole = bytes;
    let mut archive = TorchArchive::open(whole)?;
    let view = match Unpickler::load(&archive.entry("data.pkl", None, PICKLE_LIMIT)?)? {
        Value::Tensor(view) => view,
        other => return Err(TorchError::NotTensor(other.kind())),
    };
    let dtype = view.storage.dtype.map_err(TorchError::Dtype)?;
    let itemsize = dtype.itemsize();
    let outside = || TorchError::View(view.describe());
    let (count, storage_size) = view.checked_sizes(itemsize).ok_or_else(outside)?;
    within("the tensor", (count * itemsize) as u64, limit)?;

    let big_endian = archive.is_big_endian()?;
    let storage = archive.entry(&view.storage.entry()?, Some(storage_size as u64), limit)?;
    let bytes = match storage {
        _ if count == 0 => Some(Cow::default()),
        Cow::Borrowed(storage) if view.is_contiguous() && !big_endian => {
            let bytes = storage.get(view.offset * itemsize..);
            bytes.and_then(|bytes| bytes.get(..count * itemsize)).map(Cow::Borrowed)
        }
        storage => view.gather(&storage, count, itemsize, big_endian).map(Cow::Owned),
    };
    let bytes = bytes.ok_or_else(outside)?;
    let shape = view.shape.clone();
    if peek_tensor(whole).is_some_and(|in_front| in_front != (shape.clone(), dtype)) {
        return Err(entry_error("data.pkl", "another one in front of it", "one"));
    }
    Ok(TorchTensor { dtype, shape, bytes })
}

/// Shape and type of the tensor of a file, from its first bytes: `torch.save` writes what describes a tensor before its
/// values. `None` if they do not tell it; reading the whole file does, or says what is wrong.
#[must_use]
pub fn peek_tensor(head: &[u8]) -> Option<(Vec<usize>, TorchDtype)> {
    /// A local file header: signature, version, flags, method, …, lengths of the name and of what is behind it.
    const HEADER: usize = 30;
    let number = |at: usize| Some(usize::from(u16::from_le_bytes([*head.get(at)?, *head.get(at + 1)?])));
    let (method, name, extra) = (number(8)?, number(26)?, number(28)?);
    let is_stored = head.starts_with(b"PK\x03\x04") && method == 0;
    if !is_stored || !head.get(HEADER..HEADER + name)?.ends_with(b"data.pkl") {
        return None;
    }
    let Value::Tensor(view) = Unpickler::load(head.get(HEADER + name + extra..)?).ok()? else { return None };
    Some((view.shape.clone(), view.storage.dtype.ok()?))
}

impl From<TorchDtype> for SourceDtype {
    fn from(dtype: TorchDtype) -> Self {
        match dtype {
            TorchDtype::Float16 => Self::Float16,
            TorchDtype::BFloat16 => Self::BFloat16,
            TorchDtype::Float32 => Self::Float32,
            TorchDtype::Float64 => Self::Float64,
        }
    }
}

impl TorchDtype {
    /// Bytes per element.
    #[must_use]
    pub const fn itemsize(self) -> usize {
        match self {
            Self::Float16 | Self::BFloat16 => 2,
            Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }
}

fn within(what: &str, found: u64, limit: u64) -> Result<(), TorchError> {
    let what = what.to_owned();
    (found <= limit).then_some(()).ok_or(TorchError::TooLarge { what, found, limit })
}

/// Text from the file made fit for an error message: short, and without control characters.
fn quoted(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use proptest::prelude::*;
    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;

    const LIMIT: u64 = 1 << 20;
    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
    const STEP: &str = "attention_maps/prompt_000_vid001/token_circle/step_000";

    /// A tensor's pickle as torch writes it, sizes as LONG1.
    struct Pickled {
        class: &'static str,
        key: &'static str,
        numel: i64,
        offset: i64,
        shape: Vec<i64>,
        strides: Vec<i64>,
    }

    impl Pickled {
        fn floats(numel: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Self {
            let (shape, strides) = (shape.to_vec(), strides.to_vec());
            Self { class: "FloatStorage", key: "0", numel, offset, shape, strides }
        }

        fn opcodes(&self) -> Vec<u8> {
            let tuple =
                |sizes: &[i64]| [b"(".to_vec(), sizes.iter().flat_map(|&n| int(n)).collect(), b"t".into()].concat();
            [
                &b"ctorch._utils\n_rebuild_tensor_v2\nq\0((X\x07\0\0\0storageq\x01"[..],
                &global("torch", self.class),
                &text(self.key),
                &text("cuda:0"),
                &int(self.numel),
                b"tq\x02Q",
                &int(self.offset),
                &tuple(&self.shape),
                &tuple(&self.strides),
                b"\x89ccollections\nOrderedDict\n)RtR",
            ]
            .concat()
        }

        fn pickle(&self) -> Vec<u8> {
            pickle(&[&self.opcodes()])
        }

        /// The archive of a tensor over the floats 0, 1, 2, ….
        fn file(&self, method: CompressionMethod) -> Vec<u8> {
            let storage = le_floats(0..usize::try_from(self.numel).unwrap());
            archive(&[("data.pkl", &self.pickle()), ("byteorder", b"little"), ("data/0", &storage)], method)
        }
    }

    fn pickle(opcodes: &[&[u8]]) -> Vec<u8> {
        [b"\x80\x02", opcodes.concat().as_slice(), b"."].concat()
    }

    fn int(value: i64) -> Vec<u8> {
        [b"\x8a\x08".as_slice(), &value.to_le_bytes()].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        [b"X".as_slice(), &u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat()
    }

    fn global(module: &str, name: &str) -> Vec<u8> {
        format!("c{module}\n{name}\n").into_bytes()
    }

    fn le_floats(values: impl IntoIterator<Item = usize>) -> Vec<u8> {
        values.into_iter().flat_map(|value| f32::from(u16::try_from(value).unwrap()).to_le_bytes()).collect()
    }

    fn archive(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, contents) in entries {
            let options = SimpleFileOptions::default().compression_method(method);
            zip.start_file(format!("step_000/{name}"), options).unwrap();
            zip.write_all(contents).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn archive_of(pickle: &[u8]) -> Vec<u8> {
        archive(&[("data.pkl", pickle), ("data/0", &le_floats(0..6))], CompressionMethod::Stored)
    }

    fn refusal(file: &[u8]) -> String {
        read_tensor(file, LIMIT).expect_err("a refusal").to_string()
    }

    fn fixture(variant: &str, extension: &str) -> Vec<u8> {
        let path = format!("{FIXTURES}/{variant}/{STEP}.{extension}");
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Replaces each little-endian u32 `from` in the zip headers by `to`.
    fn forge(file: &mut [u8], from: u32, to: u32) {
        for at in 0..file.len() - 3 {
            if file[at..at + 4] == from.to_le_bytes() {
                file[at..at + 4].copy_from_slice(&to.to_le_bytes());
            }
        }
    }

    #[test]
    fn float16_step_equals_the_same_step_as_npy_without_a_copy() {
        let (file, npy) = (fixture("variants/torch", "pt"), fixture("dataset", "npy"));
        let tensor = read_tensor(&file, LIMIT).unwrap();
        assert_eq!((tensor.dtype, tensor.shape.as_slice()), (TorchDtype::Float16, &[6, 4, 576, 1][..]));
        assert!(matches!(tensor.bytes, Cow::Borrowed(_)));
        assert_eq!(&*tensor.bytes, &npy[npy.len() - 27648..]);
    }

    #[test]
    fn bfloat16_step_keeps_its_dtype() {
        let file = fixture("variants/torch_bfloat16", "pt");
        let tensor = read_tensor(&file, LIMIT).unwrap();
        assert_eq!((tensor.dtype, tensor.shape.as_slice()), (TorchDtype::BFloat16, &[6, 4, 576, 1][..]));
        assert_eq!(tensor.bytes.len(), 27648);
    }

    #[test]
    fn views_come_back_row_major() {
        let transposed = Pickled::floats(6, 0, &[3, 2], &[1, 3]);
        let column = Pickled::floats(6, 1, &[2], &[3]);
        let expanded = Pickled::floats(6, 4, &[2, 2, 1], &[0, 1, 77]);
        let tail = Pickled::floats(6, 2, &[2, 1, 2], &[2, 9, 1]);
        let scalar = Pickled::floats(6, 5, &[], &[]);
        let empty = Pickled::floats(6, 0, &[3, 0], &[1, 1]);
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            for (view, expected) in [
                (&transposed, &[0, 3, 1, 4, 2, 5][..]),
                (&column, &[1, 4]),
                (&expanded, &[4, 5, 4, 5]),
                (&tail, &[2, 3, 4, 5]),
                (&scalar, &[5]),
                (&empty, &[]),
            ] {
                let file = view.file(method);
                let tensor = read_tensor(&file, LIMIT).unwrap();
                assert_eq!(*tensor.bytes, le_floats(expected.iter().copied()), "{:?} {method}", view.shape);
                assert_eq!(tensor.shape.iter().product::<usize>(), expected.len());
            }
        }
        assert!(matches!(read_tensor(&tail.file(CompressionMethod::Stored), LIMIT).unwrap().bytes, Cow::Borrowed(_)));
    }

    #[test]
    fn every_float_width_and_byte_order_is_read() {
        for (class, dtype, itemsize) in [
            ("HalfStorage", TorchDtype::Float16, 2),
            ("BFloat16Storage", TorchDtype::BFloat16, 2),
            ("FloatStorage", TorchDtype::Float32, 4),
            ("DoubleStorage", TorchDtype::Float64, 8),
        ] {
            let pickle = Pickled { class, ..Pickled::floats(2, 0, &[2], &[1]) }.pickle();
            let little: Vec<u8> = (0..2 * itemsize).collect();
            let big: Vec<u8> =
                little.chunks(itemsize.into()).flat_map(|element| element.iter().rev()).copied().collect();
            for (order, storage) in [(&b"little"[..], &little), (b"big", &big)] {
                let entries = [("data.pkl", &pickle[..]), ("byteorder", order), ("data/0", storage)];
                let file = archive(&entries, CompressionMethod::Stored);
                let tensor = read_tensor(&file, LIMIT).unwrap();
                assert_eq!((tensor.dtype, &*tensor.bytes), (dtype, &little[..]));
            }
            let entries = [("data.pkl", &pickle[..]), ("byteorder", b"middle"), ("data/0", &little)];
            assert!(refusal(&archive(&entries, CompressionMethod::Stored)).contains("`little` or `big`"));
        }
    }

    #[test]
    fn a_parameter_and_a_later_pickle_protocol_are_read() {
        let tensor = Pickled::floats(6, 0, &[6], &[1]).opcodes();
        let parameter = pickle(&[&global("torch._utils", "_rebuild_parameter"), b"(", &tensor, b"\x88}tR"]);
        let names = b"\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93\x94";
        let classic = global("torch._utils", "_rebuild_tensor_v2");
        assert!(tensor.starts_with(&classic));
        let framed = pickle(&[b"\x80\x05\x95\0\0\0\0\0\0\0\0", names, &tensor[classic.len()..]]);
        for pickle in [parameter, framed] {
            let file = archive_of(&pickle);
            assert_eq!(*read_tensor(&file, LIMIT).unwrap().bytes, le_floats(0..6));
        }
    }

    #[test]
    fn what_is_no_zip_is_named() {
        assert!(refusal(b"").contains("empty"));
        assert!(refusal(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").contains("save it again"));
        assert!(refusal(b"\x93NUMPY").contains("93 4e 55 4d"));
        let file = fixture("variants/torch", "pt");
        assert!(refusal(&file[..file.len() / 2]).contains("cut off"));
        assert!(refusal(&archive(&[("version", b"3")], CompressionMethod::Stored)).contains("data.pkl"));
    }

    #[test]
    fn code_is_named_and_never_run() {
        let system = pickle(&[&global("os", "system"), b"(", &text("rm -rf /"), b"tR"]);
        assert!(refusal(&archive_of(&system)).contains("calls os.system; attnkit reads tensors only"));
        let stacked = pickle(&[&text("builtins"), &text("eval"), b"\x93"]);
        assert!(refusal(&archive_of(&stacked)).contains("calls builtins.eval;"));
        let noisy = global("a\x1b[31m", &"n".repeat(10_000));
        assert!(refusal(&archive_of(&pickle(&[&noisy]))).len() < 250);
    }

    #[test]
    fn other_objects_are_named() {
        let tensor = Pickled { class: "LongStorage", ..Pickled::floats(6, 0, &[6], &[1]) };
        assert!(refusal(&archive_of(&tensor.pickle())).contains("a tensor of int64"));
        let ordered =
            pickle(&[b"ccollections\nOrderedDict\n)R(", &text("w"), &tensor.opcodes(), b"u}", &text("v"), b"K\x01sb"]);
        assert!(refusal(&archive_of(&ordered)).contains("a Python OrderedDict; expected one bare tensor"));
        for (found, opcodes) in [
            ("dict", &b"}(K\x01K\x02u"[..]),
            ("list", b"](NG\0\0\0\0\0\0\0\0e"),
            ("tuple", b"K\x01\x85"),
            ("int", b"J\x01\0\0\0"),
        ] {
            let refused = refusal(&archive_of(&pickle(&[opcodes])));
            assert!(refused.contains(&format!("a Python {found};")), "{refused}");
        }
    }

    #[test]
    fn hostile_views_are_refused() {
        let huge = i64::MAX;
        for (view, reason) in [
            (Pickled::floats(6, 0, &[7], &[1]), "within its storage"),
            (Pickled::floats(6, 1, &[6], &[1]), "within its storage"),
            (Pickled::floats(6, 0, &[6], &[1, 1]), "within its storage"),
            (Pickled::floats(6, -1, &[6], &[1]), "found -1, expected a size"),
            (Pickled::floats(6, 0, &[6], &[-1]), "found -1, expected a size"),
            (Pickled::floats(6, huge, &[2], &[huge]), "within its storage"),
            (Pickled::floats(6, 0, &[huge, huge], &[0, 0]), "within its storage"),
            (Pickled::floats(6, 0, &[0, huge, huge], &[0, 0, 0]), "within its storage"),
            (Pickled::floats(6, 0, &[1_000_000_000_000_000_000], &[0]), "expected at most 1048576"),
            (Pickled::floats(huge, 0, &[6], &[1]), "within its storage"),
            (Pickled::floats(7, 0, &[6], &[1]), "found 24 bytes, expected 28"),
            (Pickled::floats(6, 0, &[1; 65], &[1; 65]), "at most 64 sizes"),
            (Pickled { key: "../data.pkl", ..Pickled::floats(6, 0, &[6], &[1]) }, "expected data/<number>"),
            (Pickled { key: "1", ..Pickled::floats(6, 0, &[6], &[1]) }, "no such entry"),
        ] {
            let refused = refusal(&archive_of(&view.pickle()));
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn hostile_pickles_are_refused() {
        let bomb = [b"\x85".repeat(100_000).as_slice(), b"0"].concat();
        for (opcodes, reason) in [
            (b"".to_vec(), "an empty stack"),
            (b"(".to_vec(), "an empty stack"),
            (b"K".to_vec(), "its end"),
            (b"t".to_vec(), "no mark"),
            (b"h\x07".to_vec(), "memo slot 7"),
            (b"X\xff\xff\xff\xffabc".to_vec(), "its end"),
            (b"X\x01\0\0\0\xff".to_vec(), "UTF-8"),
            (b"K\x01K\x02R".to_vec(), "a function and its arguments"),
            (b"cno newline".to_vec(), "a newline"),
            (b"i".to_vec(), "opcode 0x69"),
            ([b")", bomb.as_slice()].concat(), "nested without end"),
            (b"N".repeat(60_000), "objects without end"),
            (b"N\x94".repeat(30_000), "objects without end"),
            (b"(".repeat(300_000), "expected at most 262144"),
        ] {
            let refused = refusal(&archive_of(&pickle(&[&opcodes])));
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn zip_bombs_and_lying_sizes_are_refused() {
        let view = Pickled::floats(30_000, 0, &[1], &[1]);
        let zeros = vec![0; 120_000];
        let mut file = archive(&[("data.pkl", &view.pickle()), ("data/0", &zeros)], CompressionMethod::Deflated);
        assert!(read_tensor(&file, 120_000).is_ok());
        assert!(read_tensor(&file, 119_999).unwrap_err().to_string().contains("expected at most 119999"));
        forge(&mut file, 120_000, 4);
        assert!(refusal(&file).contains("found 4 bytes, expected 120000"));
        let small = Pickled::floats(1, 0, &[1], &[1]);
        let mut file = archive(&[("data.pkl", &small.pickle()), ("data/0", &zeros)], CompressionMethod::Deflated);
        assert!(refusal(&file).contains("found 120000 bytes, expected 4"));
        forge(&mut file, 120_000, 4);
        assert!(refusal(&file).contains("archive entry `data/0`"));
        let mut file = Pickled::floats(6, 0, &[6], &[1]).file(CompressionMethod::Stored);
        forge(&mut file, 24, 0x7fff_fff0);
        assert!(refusal(&file).contains("archive entry `data/0`"));
    }

    #[test]
    fn damaged_values_are_noticed_where_a_checksum_was_kept() {
        let mut file = fixture("variants/torch", "pt");
        let start =
            read_tensor(&file, LIMIT).map(|tensor| tensor.bytes.as_ptr() as usize - file.as_ptr() as usize).unwrap();
        file[start + 100] ^= 1;
        assert!(refusal(&file).contains("archive entry `data/0`"));
    }

    /// Whatever the input: no panic, and a tensor only with as many bytes as its shape says.
    fn assert_sound(file: &[u8]) {
        if let Ok(tensor) = read_tensor(file, LIMIT) {
            assert_eq!(tensor.bytes.len(), tensor.shape.iter().product::<usize>() * tensor.dtype.itemsize());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_files_and_pickles_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            assert_sound(&bytes);
            assert_sound(&[b"PK\x03\x04", bytes.as_slice()].concat());
            assert_sound(&archive_of(&bytes));
        }

        #[test]
        fn a_flipped_byte_in_an_archive_is_survived(at in any::<prop::sample::Index>(), byte: u8, deflate: bool) {
            let method = if deflate { CompressionMethod::Deflated } else { CompressionMethod::Stored };
            let mut file = Pickled::floats(6, 0, &[3, 2], &[1, 3]).file(method);
            let at = at.index(file.len());
            file[at] = byte;
            assert_sound(&file);
        }

        #[test]
        fn a_flipped_byte_in_the_pickle_is_survived(at in any::<prop::sample::Index>(), byte: u8) {
            let mut pickle = Pickled::floats(6, 0, &[3, 2], &[2, 1]).pickle();
            let at = at.index(pickle.len());
            pickle[at] = byte;
            assert_sound(&archive_of(&pickle));
        }
    }
}
