//! One function for each kind of input. Each takes any bytes and panics where attnkit would have been wrong: not only where it does.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use attnkit::dump::{
    Dump, FileFormat, FileSignature, ReadOptions, StepFiles, StepReader, read_step_metadata, read_summary, write_npy,
};
use attnkit::ingest::{self, IngestOptions, Silent, read_settings};
use attnkit::json::Json;
use attnkit::prompt::Template;
use attnkit::shape::AxisNumbers;
use attnkit::store::Store;
use xxhash_rust::xxh3::xxh3_128;

/// What a step of a fuzzed file may take.
const STEP_BYTES: u64 = 16 << 20;
/// Variations of a template that are looked at.
const VARIATIONS: u64 = 20;

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// A directory with a dump of one step in it, and a store of that.
struct Place {
    _dir: tempfile::TempDir,
    word: PathBuf,
    step: StepFiles,
    store: PathBuf,
    part: PathBuf,
    array: String,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let word = dir.path().join("dump/prompt_000_vid001/token_flower");
        fs::create_dir_all(&word).expect("a directory");
        let mut npy =
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f2', 'fortran_order': False, 'shape': (1, 2, 12, 1), }".to_vec();
        npy.resize(127, b' ');
        npy.push(b'\n');
        npy.extend((0..24_u8).flat_map(|value| [value, 0x30]));
        fs::write(word.join("step_000.npy"), npy).expect("a file");
        fs::write(word.join("step_000_metadata.json"), r#"{"video_frames": 5, "video_height": 32, "video_width": 48}"#)
            .expect("a file");
        let dump = dir.path().join("dump");
        let store = dir.path().join("store");
        ingest::run(&[&dump], &store, &IngestOptions::default(), &Silent).expect("an ingest");
        let step = Dump::find(&[&dump]).expect("a dump").videos[0].series[0].steps[0].clone();
        let video =
            Store::open(&store).expect("a store").read_video("prompt_000_vid001").expect("a part").expect("a video");
        let part = store.join("index/steps/prompt_000_vid001.parquet");
        Self { _dir: dir, word, step, part, array: video.rows[0].array.clone(), store }
    }
}

fn on_place(work: impl FnOnce(&Place)) {
    PLACE.with(|place| work(place.borrow_mut().get_or_insert_with(Place::new)));
}

/// Replaces a file for as long as `work` takes.
fn with_file(path: &Path, contents: &[u8], work: impl FnOnce()) {
    let before = fs::read(path).ok();
    fs::write(path, contents).expect("a file");
    work();
    match before {
        Some(before) => fs::write(path, before).expect("a file"),
        None => fs::remove_file(path).expect("a file"),
    }
}

/// A step file of a format: what its head says is what is read, and it has as many values as its shape says.
fn step(data: &[u8], name: &str, format: FileFormat) {
    on_place(|place| {
        let path = place.word.join(name);
        with_file(&path, data, || {
            let mut files = place.step.clone();
            files.parts[0].tensor = FileSignature::of(&path).expect("a signature");
            files.parts[0].format = format;
            files.parts[0].path.clone_from(&path);
            let split = AxisNumbers::default();
            let options = ReadOptions { max_step_bytes: STEP_BYTES, ..ReadOptions::default() };
            let mut reader = StepReader::new(options.clone());
            let peek = reader.peek(&files, &split);
            let Ok(step) = reader.read(&files, &split) else { return };
            assert_eq!(step.array.values.len(), step.array.shape.len());
            if let Ok(Some(peek)) = peek {
                assert_eq!(peek, step.array.peek(), "the head says something else");
            }
            // Written and read again, it is the same.
            let mut npy = Vec::new();
            write_npy(&step.array, &mut npy).expect("written");
            let (shape, bytes) = (step.array.shape, step.array.values.bytes().to_vec());
            fs::write(&path, &npy).expect("a file");
            files.parts[0].tensor = FileSignature::of(&path).expect("a signature");
            files.parts[0].format = FileFormat::Npy;
            let options = ReadOptions { max_step_bytes: 8 * STEP_BYTES, ..options };
            let mut again = StepReader::new(options);
            let again = again.read(&files, &split).expect("what was written can be read");
            assert_eq!((again.array.shape, again.array.values.bytes()), (shape, &bytes[..]));
        });
    });
}

/// A step as `numpy.save` writes it.
pub fn npy(data: &[u8]) {
    step(data, "step_001.npy", FileFormat::Npy);
}

/// The same, gzipped.
pub fn npy_gzip(data: &[u8]) {
    step(data, "step_001.npy.gz", FileFormat::NpyGzip);
}

/// A step as `numpy.savez` writes it.
pub fn npz(data: &[u8]) {
    step(data, "step_001.npz", FileFormat::Npz);
}

/// A step as `torch.save` writes it.
pub fn torch(data: &[u8]) {
    step(data, "step_001.pt", FileFormat::Torch);
}

/// The same, gzipped.
pub fn torch_gzip(data: &[u8]) {
    step(data, "step_001.pt.gz", FileFormat::TorchGzip);
}

/// JSON that is written and read again is the same.
fn json(data: &[u8]) {
    if let Ok(read) = Json::parse(data) {
        let again = Json::parse(&read.value.to_pretty()).expect("what was written can be read");
        assert_eq!(again.value, read.value);
    }
}

/// The metadata of a step.
pub fn metadata(data: &[u8]) {
    json(data);
    on_place(|place| {
        let path = place.word.join("step_001_metadata.json");
        with_file(&path, data, || {
            let Ok((metadata, _)) = read_step_metadata(&path) else { return };
            let mut reader = StepReader::new(ReadOptions::default());
            let step = reader.read(&place.step, &AxisNumbers::default()).expect("the step");
            let _ = metadata.grid(step.array.shape.spatial);
            let _ = metadata.grid(usize::MAX);
            let _ = metadata.numbers(step.array.shape, &AxisNumbers::default());
            let _ = metadata.disagreements(i32::MAX, Some(step.array.peek()));
        });
    });
}

/// The summary of a video.
pub fn summary(data: &[u8]) {
    json(data);
    on_place(|place| {
        let path = place.word.join("summary.json");
        with_file(&path, data, || drop(read_summary(&path)));
    });
}

/// A generator's settings in YAML.
pub fn settings(data: &[u8]) {
    on_place(|place| {
        let path = place.word.join("settings.yaml");
        with_file(&path, data, || {
            if let Ok(settings) = read_settings(&path) {
                let mut options = IngestOptions::default();
                settings.apply(&mut options);
                assert!(options.every > 0 && options.downsample > 0);
            }
        });
    });
}

/// A template of prompts: printed and parsed again it is the same, and its variations are prompts.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(template) = Template::parse(text) else { return };
    let printed = template.to_string();
    if let Ok(again) = Template::parse(&printed) {
        assert_eq!(again.items(), template.items(), "printed: {printed}");
    }
    let count = template.count();
    for number in (0..count.min(VARIATIONS)).chain(count.checked_sub(1)) {
        let variation = template.variation(number).expect("there are so many");
        assert_eq!(variation.variation, number);
    }
    assert_eq!(template.variation(count), None);
}

/// The `zarr.json` of an array.
pub fn document(data: &[u8]) {
    on_place(|place| {
        let path = place.store.join(&place.array).join("zarr.json");
        with_file(&path, data, || read_array(place));
    });
}

/// The shard of an array, with the checksums of its index and chunks put right.
pub fn shard(data: &[u8]) {
    on_place(|place| {
        let path = place.store.join(&place.array).join("c/0/0/0/0/0");
        let mut shard = data.to_vec();
        mend_shard(&mut shard);
        with_file(&path, &shard, || read_array(place));
    });
}

fn read_array(place: &Place) {
    let Ok(array) = Store::open(&place.store).and_then(|store| store.open_array(&place.array)) else { return };
    let size = if array.dtype() == "float64" {
        8
    } else if array.dtype() == "float32" {
        4
    } else {
        2
    };
    for row in 0..array.shape().first().copied().unwrap_or(0).min(3) {
        if let Ok(step) = array.read_step(row) {
            assert_eq!(step.len() as u64, array.shape().iter().skip(1).product::<u64>() * size);
        }
    }
}

/// The `steps` part of a video, with its checksum put right.
pub fn part(data: &[u8]) {
    on_place(|place| {
        let mut part = data.to_vec();
        mend_part(&mut part);
        with_file(&place.part, &part, || {
            let Ok(store) = Store::open(&place.store) else { return };
            for video in store.read_index().unwrap_or_default() {
                for row in &video.rows {
                    assert_eq!(row.video_id, video.record.video_id);
                    let _ = video.metadata_of(row).len();
                }
                let _ = store.read_heads(&video);
            }
            let _ = store.garbage();
        });
    });
}

/// A condition of a query.
#[cfg(feature = "query")]
pub fn condition(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(filter) = attnkit::query::Filter::parse(text) else { return };
    on_place(|place| {
        let store = Store::open(&place.store).expect("a store");
        let _ = attnkit::query::StepSet::find(&store, &filter);
    });
}

/// Puts the checksums of a shard right, so that what is wrong with it reaches what is behind them.
fn mend_shard(shard: &mut [u8]) {
    /// One chunk: start, length, and the checksum of both.
    const INDEX: usize = 16;
    let Some(index) = shard.len().checked_sub(INDEX + 4) else { return };
    let number = |at: usize| {
        let bytes = shard.get(index + at..index + at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(usize::MAX, |bytes| usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX))
    };
    let (start, len) = (number(0), number(8));
    if len > 4
        && let Some(chunk) = start.checked_add(len).and_then(|end| shard.get_mut(start..end))
    {
        let (values, checksum) = chunk.split_at_mut(len - 4);
        checksum.copy_from_slice(&crc32c(values).to_le_bytes());
    }
    let (entries, checksum) = shard[index..].split_at_mut(INDEX);
    checksum.copy_from_slice(&crc32c(entries).to_le_bytes());
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

/// Puts the checksum of a part right.
fn mend_part(part: &mut [u8]) {
    const KEY: &[u8] = b"attnkit.checksum\x18\x20";
    let Some(at) = part.windows(KEY.len()).rposition(|window| window == KEY).map(|at| at + KEY.len()) else { return };
    if part.len() < at + 32 {
        return;
    }
    part[at..at + 32].fill(b'0');
    let checksum = format!("{:032x}", xxh3_128(part));
    part[at..at + 32].copy_from_slice(checksum.as_bytes());
}
