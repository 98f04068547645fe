//! One function for each kind of input. Each takes any bytes and panics where attnkit would have been wrong: not only
//! where it does.

mod mend;
mod place;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use attnkit::contents::Contents;
use attnkit::dump::{
    FileFormat, FileSignature, ReadOptions, StepPeek, StepReader, read_step_metadata, read_summary, write_npy,
};
use attnkit::ingest::{IngestOptions, read_settings};
use attnkit::json::Json;
use attnkit::progress::Silent;
use attnkit::prompt::{Template, parse_weighted};
use attnkit::shape::{AxisNumbers, StepShape};
use attnkit::source::{Over, Source};
use attnkit::store::{Store, StoredArray};

use place::{Place, VIDEO, files, with_file};

/// What a step of a fuzzed file may take.
const STEP_BYTES: u64 = 16 << 20;
/// Variations of a template that are looked at.
const VARIATIONS: u64 = 20;
/// The most bytes of a template.
const TEMPLATE_BYTES: usize = 100_000;
/// Steps of a fuzzed array that are read, and what one may take to be compared piece by piece.
const ROWS: u64 = 3;
const PIECED_BYTES: usize = 1 << 16;

thread_local! {
    static ONE_STEP: RefCell<Option<Place>> = const { RefCell::new(None) };
    static TWO_WORDS: RefCell<Option<Stored>> = const { RefCell::new(None) };
}

fn on_place(work: impl FnOnce(&Place)) {
    ONE_STEP.with(|place| work(place.borrow_mut().get_or_insert_with(Place::of_one_step)));
}

/// What is read of a step file: its shape and type, and its values.
type Read = Option<(StepPeek, Vec<u8>)>;

/// Reads a step file: it has as many values as its shape says, what its head says is what is read, and written as npy
/// it is the same.
fn read_step(place: &Place, contents: &[u8], format: FileFormat) -> Read {
    let mut read = None;
    let path = place.word.join(format!("step_001{}", format.extension()));
    with_file(&path, Some(contents), || {
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
        let mut npy = Vec::new();
        write_npy(&step.array, &mut npy).expect("written");
        let (peek, bytes) = (step.array.peek(), step.array.values.bytes().to_vec());
        fs::write(&path, &npy).expect("a file");
        files.parts[0].tensor = FileSignature::of(&path).expect("a signature");
        files.parts[0].format = FileFormat::Npy;
        let options = ReadOptions { max_step_bytes: 8 * STEP_BYTES, ..options };
        let mut again = StepReader::new(options);
        let again = again.read(&files, &split).expect("what was written can be read");
        assert_eq!((again.array.shape, again.array.values.bytes()), (peek.shape, &bytes[..]));
        read = Some((peek, bytes));
    });
    read
}

/// A step file as it is, and once more with its checksums put right.
fn step(data: &[u8], format: FileFormat, mend: fn(&mut [u8])) {
    on_place(|place| {
        read_step(place, data, format);
        let mut mended = data.to_vec();
        mend(&mut mended);
        if mended != data {
            read_step(place, &mended, format);
        }
    });
}

/// A step as `numpy.save` writes it.
pub fn npy(data: &[u8]) {
    step(data, FileFormat::Npy, |_| ());
}

/// The same, gzipped.
pub fn npy_gzip(data: &[u8]) {
    step(data, FileFormat::NpyGzip, mend::gzip);
}

/// A step as `numpy.savez` writes it.
pub fn npz(data: &[u8]) {
    step(data, FileFormat::Npz, mend::zip);
}

/// A step as `torch.save` writes it.
pub fn torch(data: &[u8]) {
    step(data, FileFormat::Torch, mend::zip);
}

/// The same, gzipped.
pub fn torch_gzip(data: &[u8]) {
    step(data, FileFormat::TorchGzip, mend::gzip);
}

/// What a step file holds, in one or two gzip streams: `[length of the first, zeros behind each, how well they are
/// packed]`, and the file. Packed it is read as it is without.
pub fn gzip(data: &[u8]) {
    let [first, zeros, level, file @ ..] = data else { return };
    let (first, second) = file.split_at(usize::from(*first).min(file.len()));
    let mut packed = Vec::new();
    for piece in [first, second].into_iter().filter(|piece| !piece.is_empty()) {
        let level = flate2::Compression::new(u32::from(level % 10));
        let mut stream = flate2::write::GzEncoder::new(&mut packed, level);
        stream.write_all(piece).and_then(|()| stream.finish()).expect("packed");
        packed.resize(packed.len() + usize::from(zeros % 4), 0);
    }
    let is_zip = file.starts_with(b"PK");
    let (plain, gzipped) =
        if is_zip { (FileFormat::Torch, FileFormat::TorchGzip) } else { (FileFormat::Npy, FileFormat::NpyGzip) };
    on_place(|place| assert_eq!(read_step(place, &packed, gzipped), read_step(place, file, plain)));
}

/// JSON that is written and read again is the same.
fn json(data: &[u8]) {
    if let Ok(read) = Json::parse(data) {
        let again = Json::parse(&read.value.to_pretty()).expect("what was written can be read");
        assert_eq!(again.value, read.value);
        assert!(again.remarks.is_empty(), "{:?}", again.remarks);
    }
}

/// The metadata of a step.
pub fn metadata(data: &[u8]) {
    json(data);
    on_place(|place| {
        let path = place.word.join("step_001_metadata.json");
        with_file(&path, Some(data), || {
            let Ok((metadata, _)) = read_step_metadata(&path) else { return };
            let shape = StepShape { blocks: 1, heads: 2, spatial: 12, tokens: 1 };
            if let Ok(grid) = metadata.grid(shape.spatial) {
                assert_eq!(grid.spatial(), shape.spatial);
            }
            let _ = metadata.grid(usize::MAX);
            let (numbers, _) = metadata.numbers(shape, &AxisNumbers::default());
            assert!(numbers.fit(shape), "{numbers:?}");
            let peek = StepPeek { shape, dtype: attnkit::dtype::SourceDtype::Float16 };
            let _ = metadata.disagreements(i32::MAX, Some(peek));
        });
    });
}

/// The summary of a video.
pub fn summary(data: &[u8]) {
    json(data);
    on_place(|place| {
        let path = place.word.join("summary.json");
        with_file(&path, Some(data), || drop(read_summary(&path)));
    });
}

/// A generator's settings in YAML.
pub fn settings(data: &[u8]) {
    on_place(|place| {
        let path = place.word.join("settings.yaml");
        with_file(&path, Some(data), || {
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
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(error) => {
            assert!(error.at <= text.len() && !error.to_string().is_empty());
            return;
        }
    };
    for warning in template.warnings() {
        assert!(!warning.of(text).to_string().is_empty());
    }
    let printed = template.to_string();
    match Template::parse(&printed) {
        Ok(again) => assert_eq!(again.items(), template.items(), "printed: {printed}"),
        Err(error) => assert!(printed.len() > TEMPLATE_BYTES, "printed: {printed}: {error}"),
    }
    let count = template.count();
    for number in (0..count.min(VARIATIONS)).chain(count.checked_sub(1)) {
        let variation = template.variation(number).expect("there are so many");
        assert_eq!(variation.variation, number);
        let number = usize::try_from(number).expect("64 bits");
        assert_eq!(template.variations().nth(number).as_ref(), Some(&variation));
        if let Ok(prompt) = parse_weighted(&variation.weighted_prompt) {
            assert_eq!(
                (prompt.prompt, prompt.tokens),
                (variation.prompt, variation.tokens),
                "{}",
                variation.weighted_prompt
            );
        }
    }
    assert_eq!(template.variation(count), None);
}

/// A `zarr.json`: the root's, a word's, a coordinate's or that of its maps, by what is in it. The root's with its
/// checksum put right.
pub fn document(data: &[u8]) {
    let says = |word: &str| data.windows(word.len()).any(|window| window == word.as_bytes());
    on_place(|place| {
        let array = place.array.as_str();
        let word = array.trim_end_matches("attention");
        let mut document = data.to_vec();
        mend::root(&mut document);
        let file = |path: &str| place.store.join(path).join("zarr.json");
        if says("store_version") {
            with_file(&file(""), Some(&document), || {
                let is_one = Store::is_at(&place.store);
                assert!(is_one || Store::open(&place.store).is_err());
            });
        } else if says("\"group\"") {
            with_file(&file(word), Some(data), || {
                drop(Store::open(&place.store).map(|store| Contents::of_store(&store, &Silent)));
            });
        } else if says("int32") {
            let step = format!("{word}step");
            with_file(&file(&step), Some(data), || {
                read_array(place, &step);
            });
        } else {
            with_file(&file(array), Some(data), || {
                if read_array(place, array) {
                    let _ = read_source(&place.store, data.len());
                }
            });
        }
    });
}

/// The shard of an array, with the checksums of its index and chunk put right.
pub fn shard(data: &[u8]) {
    on_place(|place| {
        let array = place.array.as_str();
        let mut shard = data.to_vec();
        mend::shard(&mut shard, 1);
        with_file(&place.store.join(array).join("c.0.0.0.0.0"), Some(&shard), || {
            read_array(place, array);
        });
    });
}

/// Reads an array of a store, and says whether a step of it could be read.
fn read_array(place: &Place, array: &str) -> bool {
    let array = Store::open(&place.store).and_then(|store| store.snapshot().open_array(array));
    array.is_ok_and(|array| read_rows(&array))
}

/// Reads some steps of an array, whole and in pieces, or the values of a coordinate: as many as its shape says, and the
/// same. Says whether a step could be read.
fn read_rows(array: &StoredArray) -> bool {
    let size = match array.dtype() {
        "float64" => 8_u64,
        "float32" | "int32" => 4,
        _ => 2,
    };
    let shape = array.shape();
    if let Ok(values) = array.read_coordinate()
        && array.chunks_of_step().is_err()
        && shape.len() == 1
        && ["int32", "float64"].contains(&array.dtype())
    {
        assert_eq!(Some(values.len() as u64), shape[0].checked_mul(size));
    }
    let rows = shape.first().copied().unwrap_or(0);
    let read = |row: u64| {
        let Ok(step) = array.read_step(row) else { return false };
        assert_eq!(step.len() as u64, shape.iter().skip(1).product::<u64>() * size);
        let (chunks, len) = array.chunks_of_step().expect("it was read by chunks");
        for chunk in 0..chunks.min(8) {
            array.stored_bytes(row, chunk).expect("it was read");
        }
        if step.len() <= PIECED_BYTES {
            let size = usize::try_from(size).expect("a size");
            for end in [0, len / 2, len, chunks * len].into_iter().filter(|&end| end <= chunks * len) {
                let piece = array.read_range(row, end / 2..end).expect("it was read");
                assert_eq!(piece, step[end / 2 * size..end * size]);
            }
        }
        true
    };
    assert!(array.read_step(rows).is_err(), "a step behind the last is read");
    // Of what cannot be read, too.
    for row in 0..rows.min(ROWS) {
        let _ = array.stored_bytes(row, 0);
    }
    (0..rows.min(ROWS)).map(read).fold(false, |any, one| any | one)
}

/// A part of a video, `steps` or `heads` by what is in it, with its checksum put right.
pub fn part(data: &[u8]) {
    const OF_STEPS: &[u8] = b"attnkit.video";
    let over = usize::from(data.iter().fold(0, |over, byte| over ^ byte));
    let table = if data.windows(OF_STEPS.len()).any(|window| window == OF_STEPS) { "steps" } else { "heads" };
    on_place(|place| {
        let mut part = data.to_vec();
        mend::part(&mut part);
        let path = place.store.join("index").join(table).join(format!("{VIDEO}.parquet"));
        with_file(&path, Some(&part), || drop(read_store(&place.store, over)));
    });
}

/// A store of two words, of which one file is changed: `[file, how, edits]`, an edit being `[what, place, place,
/// value]`. The file is changed by mistake (0 and 1), or by somebody who puts the checksums right (2 and 3), or gone
/// (4), or another one is in its place (5).
///
/// What is changed by mistake is never read otherwise, and always found.
pub fn store(data: &[u8]) {
    let [file, how, edits @ ..] = data else { return };
    TWO_WORDS.with(|stored| {
        let mut stored = stored.borrow_mut();
        let stored = stored.get_or_insert_with(Stored::new);
        let (path, before) = &stored.files[usize::from(*file) % stored.files.len()];
        let (mut contents, over) = (before.clone(), usize::from(how / 6));
        let is_shard = path.extension().is_none();
        edits.as_chunks::<4>().0.iter().take(8).for_each(|edit| change(&mut contents, *edit));
        match how % 6 {
            2 | 3 => {
                let others = stored.mend(path, &mut contents);
                let read = || drop(read_store(&stored.place.store, over));
                with_file(path, Some(&contents), || match others {
                    Some((part, mended)) => with_file(&part, Some(&mended), read),
                    None => read(),
                });
            }
            4 => with_file(path, None, || stored.check_reading(path, over)),
            5 => {
                let other = &stored.files[usize::from(edits.first().copied().unwrap_or(0)) % stored.files.len()].1;
                if other != before {
                    // Whose chunks a shard holds, no checksum of theirs says: that it is the wrong one is found.
                    with_file(path, Some(other), || {
                        if is_shard {
                            read_store(&stored.place.store, over);
                        } else {
                            stored.check_reading(path, over);
                        }
                        stored.check_verifying(path);
                    });
                }
            }
            _ if contents == *before => {}
            _ => with_file(path, Some(&contents), || {
                stored.check_reading(path, over);
                // What is between its chunks and its index is not of a shard.
                if !is_shard || contents.len() <= before.len() {
                    stored.check_verifying(path);
                }
            }),
        }
    });
}

/// One change of a file.
fn change(file: &mut Vec<u8>, [what, high, low, value]: [u8; 4]) {
    /// Numbers at the ends of what they can be.
    const NUMBERS: [&str; 8] =
        ["0", "1", "-1", "255", "4294967296", "9223372036854775807", "18446744073709551615", "1e400"];
    let at = usize::from(u16::from_be_bytes([high, low])) % (file.len() + 1);
    let end = (at + usize::from(value)).min(file.len());
    match what % 8 {
        0 if at < file.len() => file[at] = value,
        1 if at < file.len() => file[at] ^= 1 << (value % 8),
        2 => drop(file.drain(at..end)),
        3 => {
            let piece = file[at..end].to_vec();
            file.splice(at..at, piece);
        }
        4 => file.truncate(at),
        5 => file[at..(at + 8).min(end)].fill(0xFF),
        6 => file[at..(at + 8).min(end)].fill(0),
        7 => {
            // The next number of a document.
            let digits = |byte: &u8| byte.is_ascii_digit();
            if let Some(start) = file[at..].iter().position(digits).map(|start| at + start) {
                let len = file[start..].iter().take_while(|byte| digits(byte)).count();
                file.splice(start..start + len, NUMBERS[usize::from(value) % NUMBERS.len()].bytes());
            }
        }
        _ => {}
    }
}

/// The values of each step, by video, word and step.
type Values = BTreeMap<(String, String, i32), Vec<u8>>;

/// A store that is sound, and what is in it.
struct Stored {
    place: Place,
    files: Vec<(PathBuf, Vec<u8>)>,
    values: Values,
}

impl Stored {
    fn new() -> Self {
        let place = Place::of_two_words();
        let values = read_store(&place.store, 0).expect("a store");
        assert_eq!(values.len(), 5);
        let files = files(&place.store).into_iter().filter(|path| !path.starts_with(place.store.join(".writers")));
        let files = files.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect();
        Self { place, files, values }
    }

    /// What is read of a store with an accident in one file is what was written.
    fn check_reading(&self, path: &Path, over: usize) {
        let read = read_store(&self.place.store, over).unwrap_or_default();
        // How values lie in an array, its document says, and its checksum is `verify`'s to look at.
        if !path.ends_with("zarr.json") {
            for (step, values) in read {
                assert_eq!(self.values.get(&step), Some(&values), "{step:?} with {} changed", path.display());
            }
        }
    }

    /// An accident in a file is found; what finds it comes with questions.
    #[cfg(feature = "query")]
    fn check_verifying(&self, path: &Path) {
        let Ok(store) = Store::open(&self.place.store) else { return };
        let verified = attnkit::verify::run(&store, &attnkit::verify::VerifyOptions::default(), &Silent);
        let is_found = verified.map_or(true, |report| !report.faults.is_empty());
        assert!(is_found, "{} is changed, and verify finds nothing", path.display());
    }

    #[cfg(not(feature = "query"))]
    #[allow(clippy::unused_self)]
    fn check_verifying(&self, _: &Path) {}

    /// Puts the checksums of a changed file right; of a document, in the part that has its hash, which is returned.
    fn mend(&self, path: &Path, contents: &mut [u8]) -> Option<(PathBuf, Vec<u8>)> {
        let below = path.strip_prefix(&self.place.store).ok()?.to_str()?;
        let (_, before) = self.files.iter().find(|file| file.0 == path)?;
        match below {
            "zarr.json" => mend::root(contents),
            _ if below.ends_with(".parquet") => mend::part(contents),
            _ if below.ends_with("zarr.json") => {
                let (part, mut mended) =
                    self.files.iter().find(|file| file.0.starts_with(self.place.store.join("index/steps")))?.clone();
                let (old, new) = (mend::hash(before), mend::hash(contents));
                let at = mended.windows(old.len()).position(|window| window == old.as_bytes())?;
                mended[at..at + new.len()].copy_from_slice(new.as_bytes());
                mend::part(&mut mended);
                return Some((part, mended));
            }
            _ if below.ends_with("/c.0") => mend::crc32c_behind(contents),
            // A step is a chunk.
            _ => mend::shard(contents, if below.contains("flower") { 4 } else { 1 }),
        }
        None
    }
}

/// Reads all of a store that can be read, in every way there is, means over axes that `over` tells.
fn read_store(root: &Path, over: usize) -> Option<Values> {
    let store = Store::open(root).ok()?;
    let mut values = Values::new();
    let snapshot = store.snapshot();
    for video in snapshot.read_index().unwrap_or_default() {
        for row in &video.rows {
            assert_eq!(row.video_id, video.record.video_id);
            let _ = video.metadata_of(row).len();
            let Ok(array) = snapshot.open_array(&row.array) else { continue };
            let step = array.read_step(row.row.into()).ok();
            if let Some(step) = step {
                values.insert((row.video_id.clone(), row.token.clone(), row.step), step);
            }
        }
        for rows in video.series() {
            let word = rows[0].series_path();
            for name in ["attention", "mean_head", "mean_block", "mean", "step", "timestep", "head"] {
                let _ = snapshot.open_array(&format!("{word}/{name}")).map(|array| read_rows(&array));
            }
        }
        let _ = snapshot.read_heads(&video);
    }
    let _ = Contents::of_store(&store, &Silent);
    let _ = read_source(root, over);
    #[cfg(feature = "query")]
    ask(&store);
    Some(values)
}

/// Loads the words of a store as those of a dump are, and averages them.
fn read_source(root: &Path, over: usize) -> Result<(), attnkit::source::SourceError> {
    let source = Source::open(root, ReadOptions::default())?;
    let over = Over { steps: over & 1 > 0, blocks: over & 2 > 0, heads: over & 4 > 0 };
    for video in source.videos()? {
        for word in source.tokens(&video)? {
            let (all, mean) =
                (source.load(&video, &word, None, &Silent), source.mean(&video, &word, None, over, &Silent));
            for stack in [all, mean].into_iter().flatten() {
                assert_eq!(stack.shape.iter().product::<usize>(), stack.values.len());
            }
        }
    }
    Ok(())
}

/// Asks a store for rows of both tables, and for averages.
#[cfg(feature = "query")]
fn ask(store: &Store) {
    use attnkit::query::{Average, Filter, List, TableName};

    for table in [TableName::Steps, TableName::Heads] {
        let _ = List { table, ..List::default() }.run(store);
    }
    let _ = Average::new(Filter::all()).run(store, &Silent);
}

/// A condition of a query, asked of both tables.
#[cfg(feature = "query")]
pub fn condition(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(filter) = attnkit::query::Filter::parse(text) else { return };
    assert_eq!(filter.text().as_deref(), Some(text));
    on_place(|place| {
        let store = Store::open(&place.store).expect("a store");
        let _ = attnkit::query::StepSet::find(&store, &filter);
    });
}

/// A question as JSON: what it is printed as is the same one, and it is planned and asked.
#[cfg(feature = "query")]
pub fn question(data: &[u8]) {
    use attnkit::query::Question;

    /// A larger map takes long to resample.
    const LARGEST: usize = 1 << 10;
    let Some(question) = std::str::from_utf8(data).ok().and_then(|text| Question::from_json(text).ok()) else { return };
    let json = serde_json::to_string(&question).expect("a question is JSON");
    assert_eq!(Question::from_json(&json).ok().as_ref(), Some(&question), "{json}");
    if let Question::Map(map) = &question
        && [map.frames, map.size.map(|size| size.0), map.size.map(|size| size.1)]
            .into_iter()
            .flatten()
            .any(|n| n > LARGEST)
    {
        return;
    }
    on_place(|place| {
        let store = Store::open(&place.store).expect("a store");
        let _ = question.explain(&store);
        if let Ok(answer) = question.run(&store, &Silent) {
            let sent = attnkit::query::Answer::from_bytes(&answer.to_bytes().expect("bytes")).expect("an answer");
            assert_eq!(sent.table.height(), answer.table.height());
        }
    });
}

/// A message of any kind, with its length and hash put right: what it holds is read, and run or merged.
#[cfg(feature = "query")]
pub fn message(data: &[u8]) {
    use attnkit::ingest::{Done, Job};
    use attnkit::query::{Answer, Average, Filter, Grain, Partial, Task};

    on_place(|place| {
        let snapshot = Store::open(&place.store).expect("a store").snapshot();
        let plan = Average::new(Filter::all()).plan(&snapshot).expect("a plan");
        let own = plan.tasks(Grain::Coarse).next().expect("a task").run(&snapshot).expect("what it leaves");
        let own = own.to_bytes().expect("bytes");
        let name = own.windows(32).find(|bytes| bytes.iter().all(u8::is_ascii_hexdigit)).expect("the plan's name");
        let bytes = sealed(data, &place.array, &String::from_utf8_lossy(name));
        if let Ok(task) = Task::from_bytes(&bytes) {
            assert_eq!(Task::from_bytes(&task.to_bytes().expect("bytes")).ok(), Some(task.clone()));
            if let Ok(left) = task.run(&snapshot) {
                Partial::from_bytes(&left.to_bytes().expect("bytes")).expect("what it leaves");
            }
        }
        if let Ok(partial) = Partial::from_bytes(&bytes) {
            let mut merger = plan.merger();
            if merger.accept(partial).is_ok() && merger.missing() == 0 {
                merger.finish().expect("an answer");
            }
        }
        if let Ok(answer) = Answer::from_bytes(&bytes) {
            answer.to_bytes().expect("bytes");
        }
        if let Ok(job) = Job::from_bytes(&bytes) {
            job.to_bytes().expect("bytes");
        }
        if let Ok(done) = Done::from_bytes(&bytes) {
            done.to_bytes().expect("bytes");
        }
    });
}

/// A message as it is kept, of an array and a plan.
#[cfg(feature = "query")]
pub fn sealed(data: &[u8], array: &str, plan: &str) -> Vec<u8> {
    mend::message(&replaced(&replaced(data, b"ARRAY", array.as_bytes()), b"PLAN", plan.as_bytes()))
}

/// Bytes with others in the place of some of them.
#[cfg(feature = "query")]
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match bytes.windows(from.len()).position(|window| window == from) {
        Some(at) => [&bytes[..at], to, &bytes[at + from.len()..]].concat(),
        None => bytes.to_vec(),
    }
}
