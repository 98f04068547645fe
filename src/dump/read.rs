//! Reading the files of one step into one array, whatever their format, and fingerprinting what was read.

use std::collections::HashSet;
use std::fs::File;
#[cfg(not(unix))]
use std::io::Seek;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
#[cfg(unix)]
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::array::{FileArray, without_batch};
use super::error::describe;
use super::gzip::Gunzip;
use super::npy::{HEADER_LIMIT, NpyHeader, read_npy};
use super::npz::{Npz, NpzArray, read_promised};
use super::torch::{peek_tensor, read_tensor};
use super::{Batch, DumpError, FileFormat, FileSignature, Problem, StepArray, StepFile, StepFiles, StepShape};
use crate::dtype::{Dtype, SourceDtype};
use crate::shape::AxisNumbers;
use crate::values::Values;

/// A gzipped torch file may always unpack to this,
const UNPACKED_FLOOR: u64 = 64 << 20;
/// and to this many times its size: attention maps do not shrink so far.
const UNPACKED_RATIO: u64 = 16;

/// A part of a file that one thread reads: some large pages of memory.
#[cfg(unix)]
const READ_PART: usize = 4 << 20;

/// How step files are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOptions {
    /// Which element of a batch axis is taken; `None`: a batch axis larger than 1 is an error.
    pub batch: Option<Batch>,
    /// Which array of an `.npz` is taken; `None`: `attention`, or the only one that can be a step.
    pub array: Option<String>,
    /// The most bytes one file may hold once decompressed. Default: 2 GiB.
    pub max_step_bytes: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { batch: None, array: None, max_step_bytes: 2 << 30 }
    }
}

/// Shape and type of a step, known without reading its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StepPeek {
    /// Shape of the step array.
    pub shape: StepShape,
    /// Type in the file.
    pub dtype: SourceDtype,
}

impl std::fmt::Display for StepPeek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&describe(self.shape, self.dtype))
    }
}

impl StepArray<'_> {
    /// Shape and type.
    #[must_use]
    pub const fn peek(&self) -> StepPeek {
        StepPeek { shape: self.shape, dtype: self.source_dtype }
    }
}

/// A step as it was read.
#[derive(Debug)]
pub struct Step<'a> {
    /// Its array.
    pub array: StepArray<'a>,
    /// Fingerprint of its files: see [`content_hash`].
    pub content_hash: String,
}

/// Reads steps one after the other, reusing its buffers.
#[derive(Debug, Default)]
pub struct StepReader {
    options: ReadOptions,
    file: Vec<u8>,
    unpacked: Vec<u8>,
}

impl StepReader {
    /// A reader with empty buffers.
    #[must_use]
    pub fn new(options: ReadOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Reads one step. The array may borrow this reader's buffers.
    ///
    /// # Errors
    /// If a file cannot be read, is not what its name says, or the parts of a split step do not make a whole.
    pub fn read(&mut self, files: &StepFiles, split: &AxisNumbers) -> Result<Step<'_>, DumpError> {
        let mut hash = Xxh3::new();
        let array = self.read_files(files, split, Some(&mut hash))?;
        hash_metadata(files, &mut hash)?;
        Ok(Step { array, content_hash: digest(&hash) })
    }

    /// The array alone, for who does not ask whether it is the same as before.
    pub(crate) fn read_array(&mut self, files: &StepFiles, split: &AxisNumbers) -> Result<StepArray<'_>, DumpError> {
        self.read_files(files, split, None)
    }

    /// Reads the array straight to where its bytes are wanted: that of one plain npy file, whose values lie there as
    /// they do in memory. Returns whether it is, and of this shape and type; if not, `target` is as it was.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_into(
        &self,
        file: &StepFile,
        shape: StepShape,
        dtype: Dtype,
        target: &mut [u8],
    ) -> Result<bool, DumpError> {
        if file.format != FileFormat::Npy || file.is_part() || cfg!(target_endian = "big") {
            return Ok(false);
        }
        let read = read_plain(&file.path, shape, dtype, self.options.max_step_bytes, target);
        read.map_err(|problem| problem.at(&file.path))
    }

    fn read_files(
        &mut self,
        files: &StepFiles,
        split: &AxisNumbers,
        mut hash: Option<&mut Xxh3>,
    ) -> Result<StepArray<'_>, DumpError> {
        match &files.parts[..] {
            [only] if !only.is_part() => self.read_file(only, &mut hash),
            parts => self.assemble(parts, split, &mut hash),
        }
    }

    fn read_file(&mut self, file: &StepFile, hash: &mut Option<&mut Xxh3>) -> Result<StepArray<'_>, DumpError> {
        let options = &self.options;
        let failed = |problem: Problem| problem.at(&file.path);
        read_whole(&file.path, options.max_step_bytes, &mut self.file).map_err(failed)?;
        if let Some(hash) = hash {
            hash.update(&self.file);
        }
        if unpack(file.format, &self.file, &mut self.unpacked, options).map_err(failed)? {
            // Never held beside what is made of the unpacked: a step takes at most three times its size.
            self.file = std::mem::take(&mut self.unpacked);
        }
        let decoded = match file.format {
            FileFormat::Npy | FileFormat::NpyGzip | FileFormat::Npz => read_npy(&self.file, options.max_step_bytes),
            FileFormat::Torch | FileFormat::TorchGzip => torch(&self.file, options.max_step_bytes),
        };
        decoded.and_then(|array| array.into_step_array(options.batch)).map_err(failed)
    }

    /// Puts the parts of a split step together.
    fn assemble(
        &mut self,
        parts: &[StepFile],
        split: &AxisNumbers,
        hash: &mut Option<&mut Xxh3>,
    ) -> Result<StepArray<'static>, DumpError> {
        check_complete(parts, split)?;
        let mut whole: Option<(StepPeek, StepArray<'static>)> = None;
        for part in parts {
            let array = self.read_file(part, hash)?;
            let shape = whole_shape(array.shape, split);
            let (first, target) = whole.get_or_insert_with(|| {
                let values = Values::compute(array.values.dtype(), shape.len(), |_| f64::NAN);
                (array.peek(), StepArray { shape, source_dtype: array.source_dtype, values })
            });
            let whole_axis = |size: usize, index: Option<usize>| index.is_none() || size == 1;
            let fits = whole_axis(array.shape.blocks, part.block) && whole_axis(array.shape.heads, part.head);
            if array.peek() != *first || !fits {
                let problem = Problem::SplitMismatch { found: array.peek().to_string(), expected: first.to_string() };
                return Err(problem.at(&part.path));
            }
            place(&array, part, split, target);
        }
        let first = parts.first().map(|part| part.path.clone()).unwrap_or_default();
        whole.map(|(_, array)| array).ok_or_else(|| Problem::Empty { expected: "step files" }.at(first))
    }

    /// Shape and type from the file's head where it has them: npy, plain, gzipped or in an npz, and what `torch.save`
    /// writes. `None` for other tensors.
    ///
    /// # Errors
    /// If the head is damaged, or a plain file's size is not what it promises.
    pub fn peek(&self, files: &StepFiles, split: &AxisNumbers) -> Result<Option<StepPeek>, DumpError> {
        let Some(first) = files.parts.first() else { return Ok(None) };
        if first.is_part() {
            check_complete(&files.parts, split)?;
        }
        let peek = self.peek_file(first).map_err(|problem| problem.at(&first.path))?;
        let whole = |shape| if first.is_part() { whole_shape(shape, split) } else { shape };
        Ok(peek.map(|peek| StepPeek { shape: whole(peek.shape), ..peek }))
    }

    /// Which array of the step's files is read, if they are npz archives.
    ///
    /// # Errors
    /// If the archive cannot be used, or it is not told which of its arrays is meant.
    pub fn npz_array(&self, files: &StepFiles) -> Result<Option<NpzArray>, DumpError> {
        let Some(first) = files.parts.first().filter(|part| part.format == FileFormat::Npz) else { return Ok(None) };
        let choose = || Npz::open(BufReader::new(File::open(&first.path)?))?.choose(self.options.array.as_deref());
        choose().map(Some).map_err(|problem: Problem| problem.at(&first.path))
    }

    fn peek_file(&self, file: &StepFile) -> Result<Option<StepPeek>, Problem> {
        let mut head = Vec::with_capacity(HEADER_LIMIT);
        let open = File::open(&file.path)?;
        let limit = self.options.max_step_bytes;
        let header = match file.format {
            FileFormat::Npy => {
                open.take(HEADER_LIMIT as u64).read_to_end(&mut head)?;
                let header = NpyHeader::parse(&head)?;
                header.check_size(file.tensor.bytes, limit)?;
                header
            }
            FileFormat::NpyGzip => {
                let mut start = [0; 8];
                let len = (&open).read(&mut start)?;
                Gunzip::new(&start[..len])?;
                let packed = Cursor::new(&start[..len]).chain(&open);
                let stream = MultiGzDecoder::new(BufReader::with_capacity(8192, packed));
                let read = stream.take(HEADER_LIMIT as u64).read_to_end(&mut head);
                match (NpyHeader::parse(&head), read) {
                    // What is wrong behind the header is found when the file is read.
                    (Ok(header), _) => header,
                    (Err(_), Err(source)) => return Err(Problem::Gzip { read: head.len(), source }),
                    (Err(problem), Ok(_)) => return Err(problem),
                }
            }
            FileFormat::Npz if file.tensor.bytes == 0 => return Err(Problem::Empty { expected: "an npz archive" }),
            FileFormat::Npz => Npz::open(BufReader::new(open))?.choose(self.options.array.as_deref())?.header,
            FileFormat::Torch | FileFormat::TorchGzip => {
                let is_packed = file.format == FileFormat::TorchGzip;
                let stream: Box<dyn Read> =
                    if is_packed { Box::new(MultiGzDecoder::new(BufReader::new(open))) } else { Box::new(open) };
                // What is wrong with it is found, and said, when the file is read.
                let read = stream.take(HEADER_LIMIT as u64).read_to_end(&mut head);
                let Some((shape, dtype)) = read.ok().and_then(|_| peek_tensor(&head)) else { return Ok(None) };
                return self.peeked(shape, dtype.into()).map(Some);
            }
        };
        self.peeked(header.shape, header.dtype).map(Some)
    }

    fn peeked(&self, axes: Vec<usize>, dtype: SourceDtype) -> Result<StepPeek, Problem> {
        let (shape, batch) = without_batch(&axes)?;
        if batch > 1 && self.options.batch.is_none() {
            return Err(Problem::BatchAxis { found: axes, batch });
        }
        Ok(StepPeek { shape, dtype })
    }

    /// Checks that the step's files are still those that were found.
    ///
    /// # Errors
    /// If one has gone or has another size or modification time.
    pub fn check_unchanged(files: &StepFiles) -> Result<(), DumpError> {
        for part in &files.parts {
            for (path, known) in [(&part.path, part.tensor), (&part.metadata, part.described)] {
                let current = FileSignature::of(path).map_err(|error| Problem::from(error).at(path))?;
                if current != known {
                    return Err(Problem::Changed.at(&part.path));
                }
            }
        }
        Ok(())
    }
}

/// XXH3-128 over the bytes of a step's tensor files and then of its metadata files, as 32 hexadecimal digits.
///
/// # Errors
/// If a file cannot be read.
pub fn content_hash(files: &StepFiles) -> Result<String, DumpError> {
    let mut hash = Xxh3::new();
    for part in &files.parts {
        hash_file(&part.path, &mut hash)?;
    }
    hash_metadata(files, &mut hash)?;
    Ok(digest(&hash))
}

fn hash_metadata(files: &StepFiles, hash: &mut Xxh3) -> Result<(), DumpError> {
    files.parts.iter().try_for_each(|part| hash_file(&part.metadata, hash))
}

fn digest(hash: &Xxh3) -> String {
    format!("{:032x}", hash.digest128())
}

fn read_whole(path: &Path, limit: u64, buffer: &mut Vec<u8>) -> Result<(), Problem> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    // A header's worth of slack: the limit is for the values.
    if len > limit.saturating_add(HEADER_LIMIT as u64) {
        return Err(Problem::TooLarge { found: len.into(), limit });
    }
    buffer.clear();
    buffer.reserve(usize::try_from(len).unwrap_or(0) + 1);
    file.take(len + 1).read_to_end(buffer)?;
    if buffer.len() as u64 != len {
        return Err(Problem::Changed);
    }
    Ok(())
}

/// Reads the values of an npy file to `target`, if they are of this shape and type and lie as in memory.
fn read_plain(path: &Path, shape: StepShape, dtype: Dtype, limit: u64, target: &mut [u8]) -> Result<bool, Problem> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut head = Vec::with_capacity(HEADER_LIMIT);
    (&file).take(HEADER_LIMIT as u64).read_to_end(&mut head)?;
    let header = NpyHeader::parse(&head)?;
    header.check_size(len, limit)?;
    let is_plain = !header.big_endian && (!header.fortran || header.shape.len() < 2);
    // The size was checked: what is of the same shape and type has as many bytes as there is room for.
    let fits = header.dtype.stored() == dtype && header.len as u64 + target.len() as u64 == len;
    if !is_plain || !fits || without_batch(&header.shape)? != (shape, 1) {
        return Ok(false);
    }
    let own = &head[header.len..];
    let (start, rest) = target.split_at_mut(own.len().min(target.len()));
    start.copy_from_slice(&own[..start.len()]);
    match read_from(&mut file, (header.len + start.len()) as u64, rest) {
        Ok(()) if file.metadata()?.len() == len => Ok(true),
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error.into()),
        _ => Err(Problem::Changed),
    }
}

/// Fills `target` with what is in a file from `start` on, in parts that are read in parallel: a single thread does not
/// copy as fast as memory takes it.
#[cfg(unix)]
fn read_from(file: &mut File, start: u64, target: &mut [u8]) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let parts = target.par_chunks_mut(READ_PART).enumerate();
    parts.try_for_each(|(number, part)| file.read_exact_at(part, start + (number * READ_PART) as u64))
}

#[cfg(not(unix))]
fn read_from(file: &mut File, start: u64, target: &mut [u8]) -> std::io::Result<()> {
    file.seek(std::io::SeekFrom::Start(start))?;
    file.read_exact(target)
}

/// Unpacks a file of a packed format. Returns false, and does nothing, if it is a plain one.
fn unpack(format: FileFormat, file: &[u8], unpacked: &mut Vec<u8>, options: &ReadOptions) -> Result<bool, Problem> {
    let limit = options.max_step_bytes;
    match format {
        FileFormat::Npy | FileFormat::Torch => return Ok(false),
        FileFormat::Npz if file.is_empty() => return Err(Problem::Empty { expected: "an npz archive" }),
        FileFormat::Npz => {
            let mut archive = Npz::open(Cursor::new(file))?;
            let array = archive.choose(options.array.as_deref())?;
            archive.extract(&array, limit, unpacked)?;
        }
        FileFormat::NpyGzip => {
            let mut stream = Gunzip::new(file)?;
            read_promised(&mut stream, limit, unpacked).map_err(|problem| match problem {
                Problem::Io(source) => stream.problem(source),
                other => other,
            })?;
        }
        FileFormat::TorchGzip => {
            unpacked.clear();
            let mut stream = Gunzip::new(file)?;
            // An archive says how large it is at its end only, so its packed size must bound it.
            let bound = limit.min(UNPACKED_FLOOR + UNPACKED_RATIO * file.len() as u64).saturating_add(1 << 20);
            let read = stream.by_ref().take(bound.saturating_add(1)).read_to_end(unpacked);
            read.map_err(|source| stream.problem(source))?;
            if unpacked.len() as u64 > bound {
                return Err(Problem::Bomb { packed: file.len(), unpacked: unpacked.len() });
            }
        }
    }
    Ok(true)
}

fn torch(bytes: &[u8], limit: u64) -> Result<FileArray<'_>, Problem> {
    if bytes.is_empty() {
        return Err(Problem::Empty { expected: "a file of torch.save" });
    }
    let tensor = read_tensor(bytes, limit)?;
    let dtype = SourceDtype::from(tensor.dtype);
    Ok(FileArray { shape: tensor.shape, dtype, values: Values::from_le_bytes(dtype, tensor.bytes) })
}

fn hash_file(path: &Path, hash: &mut Xxh3) -> Result<(), DumpError> {
    let mut update = || -> std::io::Result<()> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                read => hash.update(&buffer[..read]),
            }
        }
    };
    update().map_err(|error| Problem::from(error).at(path))
}

/// The shape of a step of which one part has `shape`.
fn whole_shape(shape: StepShape, split: &AxisNumbers) -> StepShape {
    StepShape {
        blocks: split.blocks.as_ref().map_or(shape.blocks, |blocks| blocks.len()),
        heads: split.heads.as_ref().map_or(shape.heads, |heads| heads.len()),
        ..shape
    }
}

/// Checks that a split step has one file for each of the word's blocks and heads, and no other.
fn check_complete(parts: &[StepFile], split: &AxisNumbers) -> Result<(), DumpError> {
    /// Missing files that are named.
    const NAMED: usize = 5;
    let axis = |numbers: &Option<Arc<[i32]>>| -> Vec<Option<usize>> {
        let own = numbers.iter().flat_map(|numbers| numbers.iter());
        let own: Vec<Option<usize>> = own.map(|&number| usize::try_from(number).ok()).collect();
        if own.is_empty() { vec![None] } else { own }
    };
    let name = |(block, head): (Option<usize>, Option<usize>)| {
        let axis = |axis: &str, index: Option<usize>| index.map(|index| format!("{axis}_{index:02}"));
        [axis("block", block), axis("head", head)].into_iter().flatten().collect::<Vec<_>>().join("_")
    };
    let (blocks, heads) = (axis(&split.blocks), axis(&split.heads));
    let place_of = |part: &StepFile| (part.block, part.head);
    if let Some(beyond) = parts.iter().find(|part| !blocks.contains(&part.block) || !heads.contains(&part.head)) {
        return Err(Problem::SplitBeyond { found: name(place_of(beyond)) }.at(&beyond.path));
    }
    let expected = blocks.len() * heads.len();
    let there: HashSet<_> = parts.iter().map(place_of).collect();
    let places = blocks.iter().flat_map(|&block| heads.iter().map(move |&head| (block, head)));
    let missing: Vec<String> = places.filter(|place| !there.contains(place)).map(name).collect();
    if missing.is_empty() && parts.len() == expected {
        return Ok(());
    }
    let more = if missing.len() > NAMED { " and more" } else { "" };
    let named = missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let problem = Problem::SplitIncomplete { found: parts.len(), expected, missing: named + more };
    Err(problem.at(parts.first().map(|part| part.path.clone()).unwrap_or_default()))
}

/// Copies a part into its place in the whole.
fn place(part: &StepArray<'_>, file: &StepFile, split: &AxisNumbers, whole: &mut StepArray<'static>) {
    fn copy<T: Copy>(from: &[T], part: StepShape, to: &mut [T], whole: StepShape, block: usize, head: usize) {
        let len = part.head_len();
        for b in 0..part.blocks {
            for h in 0..part.heads {
                let source = (b * part.heads + h) * len;
                let target = ((block + b) * whole.heads + head + h) * len;
                to[target..target + len].copy_from_slice(&from[source..source + len]);
            }
        }
    }
    let at = |numbers: &Option<Arc<[i32]>>, own: Option<usize>| {
        let own = own.and_then(|own| i32::try_from(own).ok());
        own.zip(numbers.as_ref()).and_then(|(own, numbers)| numbers.binary_search(&own).ok()).unwrap_or(0)
    };
    let (block, head) = (at(&split.blocks, file.block), at(&split.heads, file.head));
    match (&part.values, &mut whole.values) {
        (Values::Float16(from), Values::Float16(to)) => copy(from, part.shape, to.to_mut(), whole.shape, block, head),
        (Values::Float32(from), Values::Float32(to)) => copy(from, part.shape, to.to_mut(), whole.shape, block, head),
        (Values::Float64(from), Values::Float64(to)) => copy(from, part.shape, to.to_mut(), whole.shape, block, head),
        _ => unreachable!("types were compared before"),
    }
}
