//! Step arrays from wherever they are: a store, or a dump as it is. One way to list, load and average them, for those
//! who look at data before they have ingested it. Questions with conditions and metrics are [`query`](crate::query)'s,
//! and need a store.

mod array;
mod dumped;
mod error;
mod many;
mod origin;
mod stored;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

pub use array::Array;
use dumped::Dumped;
pub use error::SourceError;
pub use many::ValuesMut;
use many::{Folded, Steps};
use origin::{Origin, Word, read};

use crate::dtype::Dtype;
use crate::dump::{Dump, DumpError, Problem, ReadOptions, composed};
use crate::grid::Grid;
use crate::json::Object;
use crate::kernel::Accumulator;
use crate::progress::{Meter, Progress, Silent, Unit};
use crate::shape::StepShape;
use crate::store::Store;
use crate::values::Values;

/// Steps of a word that are named one by one.
const FEW_STEPS: usize = 12;

/// A store or a dump.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    origin: Box<dyn Origin>,
}

/// Which axes a mean is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Over {
    /// Denoising steps.
    pub steps: bool,
    /// Transformer blocks.
    pub blocks: bool,
    /// Attention heads.
    pub heads: bool,
}

/// Step arrays, one behind the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    /// `[step, block, head, spatial, token]`; a mean has size 1 where it was taken.
    pub shape: [usize; 5],
    /// The values, C order.
    pub values: Values<'static>,
}

impl Source {
    /// Opens a store, or finds the dump below a directory.
    ///
    /// # Errors
    /// If `path` is neither, or cannot be read.
    pub fn open(path: impl AsRef<Path>, options: ReadOptions) -> Result<Self, SourceError> {
        Self::open_unless_cancelled(path, options, &Silent)
    }

    /// The same, for long searches: a large dump has many directories.
    ///
    /// # Errors
    /// The same, and [`SourceError::Cancelled`].
    pub fn open_unless_cancelled(
        path: impl AsRef<Path>,
        options: ReadOptions,
        progress: &dyn Progress,
    ) -> Result<Self, SourceError> {
        let path = path.as_ref().to_owned();
        if path.join("zarr.json").exists() {
            let store = Store::open(&path)?;
            return Ok(Self { path, origin: Box::new(store) });
        }
        let neither = |found| Err(SourceError::Neither { path: path.clone(), found });
        match path.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return neither("nothing"),
            Ok(metadata) if !metadata.is_dir() => return neither("a file"),
            _ => {}
        }
        let dump = match Dump::find_unless_cancelled(&[&path], progress) {
            Err(DumpError { problem: Problem::Cancelled, .. }) => return Err(SourceError::Cancelled),
            found => found?,
        };
        if dump.videos.is_empty() && dump.problems.is_empty() {
            return neither("no attention maps");
        }
        Ok(Self { path, origin: Box::new(Dumped::new(dump, options)) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ids of the videos, sorted.
    ///
    /// # Errors
    /// If a store's index cannot be read.
    pub fn videos(&self) -> Result<Vec<String>, SourceError> {
        self.origin.videos()
    }

    /// The tracked words of a video, sorted.
    ///
    /// # Errors
    /// If there is no such video.
    pub fn tokens(&self, video: &str) -> Result<Vec<String>, SourceError> {
        self.origin.tokens(video)?.ok_or_else(|| self.no_video(video))
    }

    /// The steps of a word, ascending.
    ///
    /// # Errors
    /// If there is no such video or word.
    pub fn steps(&self, video: &str, token: &str) -> Result<Vec<i32>, SourceError> {
        Ok(self.word(video, token)?.steps())
    }

    /// The metadata of a step, with the keys of its JSON file; of a step that is split into files, as that of the
    /// whole.
    ///
    /// # Errors
    /// If there is no such step, or its metadata cannot be read.
    pub fn metadata(&self, video: &str, token: &str, step: i32) -> Result<Object, SourceError> {
        let word = self.word(video, token)?;
        word.metadata(place_of(&*word, step)?)
    }

    /// The `summary.json` of a video, if it has one.
    ///
    /// # Errors
    /// If there is no such video, or the summary cannot be read.
    pub fn summary(&self, video: &str) -> Result<Option<Object>, SourceError> {
        self.origin.summary(video)?.ok_or_else(|| self.no_video(video))
    }

    /// The shape of a word's step arrays: of the first that can be read. `None` if none can.
    ///
    /// # Errors
    /// If there is no such video or word.
    pub fn shape(&self, video: &str, token: &str) -> Result<Option<StepShape>, SourceError> {
        Ok(self.word(video, token)?.shape())
    }

    /// The grid that a word's positions unflatten to, where it is known.
    ///
    /// # Errors
    /// If there is no such video or word.
    pub fn grid(&self, video: &str, token: &str) -> Result<Option<Grid>, SourceError> {
        Ok(self.word(video, token)?.grid())
    }

    /// The array of one step.
    ///
    /// # Errors
    /// If it is not there, or damaged.
    pub fn step(&self, video: &str, token: &str, step: i32) -> Result<Array, SourceError> {
        let word = self.word(video, token)?;
        read(&mut *word.reader(Over::default())?, place_of(&*word, step)?, Array::of)
    }

    /// The arrays of some steps (`None`: all), in the order given and the type that they are stored in; bfloat16 as
    /// float32.
    ///
    /// # Errors
    /// If something is not there or damaged, or the steps are not of one shape and type.
    pub fn load(
        &self,
        video: &str,
        token: &str,
        steps: Option<&[i32]>,
        progress: &dyn Progress,
    ) -> Result<Stack, SourceError> {
        let word = self.word(video, token)?;
        let (numbers, places) = places_of(&*word, steps)?;
        let all = Meter::new(progress, Unit::Steps, places.len() as u64);
        if let Some((shape, values)) = word.load(&places, &all)? {
            return Ok(Stack { shape: stacked_axes(places.len(), shape), values });
        }
        let mut reader = word.reader(Over::default())?;
        let steps = |reader, shape| Steps { reader, numbers: &numbers, places: &places, shape, all: &all };
        let (values, shape) = if let Some((shape, dtype)) = reader.outline(&places)? {
            let steps = steps(&*reader, shape);
            let values = match dtype {
                Dtype::Float16 => Values::Float16(steps.stacked()?.into()),
                Dtype::Float32 => Values::Float32(steps.stacked()?.into()),
                Dtype::Float64 => Values::Float64(steps.stacked()?.into()),
            };
            (values, shape)
        } else {
            let (first, shape) = read(&mut *reader, places[0], |values, shape| (values.into_owned(), shape))?;
            all.add(1)?;
            let steps = steps(&*reader, shape);
            let values = match first {
                first if places.len() == 1 => first,
                Values::Float16(first) => Values::Float16(steps.behind(&first)?.into()),
                Values::Float32(first) => Values::Float32(steps.behind(&first)?.into()),
                Values::Float64(first) => Values::Float64(steps.behind(&first)?.into()),
            };
            (values, shape)
        };
        Ok(Stack { shape: stacked_axes(places.len(), shape), values })
    }

    /// Shape and type of what [`load`](Self::load) gives, if it is known without reading steps that it takes as much
    /// memory as their files do: of plain npy files. Then [`load_into`](Self::load_into) reads it to anywhere.
    ///
    /// # Errors
    /// If something is not there, or the first file is damaged.
    pub fn outline(
        &self,
        video: &str,
        token: &str,
        steps: Option<&[i32]>,
    ) -> Result<Option<([usize; 5], Dtype)>, SourceError> {
        let word = self.word(video, token)?;
        let (_, places) = places_of(&*word, steps)?;
        let outline = word.reader(Over::default())?.outline(&places)?;
        Ok(outline.map(|(shape, dtype)| (stacked_axes(places.len(), shape), dtype)))
    }

    /// What [`load`](Self::load) gives, into memory for it: files are read straight to where they belong.
    ///
    /// # Errors
    /// As [`load`](Self::load), and if it is another shape or type than that of the memory.
    pub fn load_into(
        &self,
        video: &str,
        token: &str,
        steps: Option<&[i32]>,
        target: ValuesMut<'_>,
        progress: &dyn Progress,
    ) -> Result<(), SourceError> {
        let word = self.word(video, token)?;
        let (numbers, places) = places_of(&*word, steps)?;
        let reader = word.reader(Over::default())?;
        let all = Meter::new(progress, Unit::Steps, places.len() as u64);
        let (len, dtype) = target.outline();
        let outline = reader.outline(&places)?;
        let Some((shape, _)) = outline.filter(|(shape, own)| *own == dtype && shape.len() * places.len() == len) else {
            let found = outline.map_or_else(|| "packed".to_owned(), |(shape, dtype)| format!("{dtype} {shape}"));
            let first = format!("memory for {len} values of {dtype}");
            return Err(SourceError::Mixed { step: numbers[0], found, first_step: numbers[0], first });
        };
        let steps = Steps { reader: &*reader, numbers: &numbers, places: &places, shape, all: &all };
        match target {
            ValuesMut::Float16(target) => steps.read(0, target),
            ValuesMut::Float32(target) => steps.read(0, target),
            ValuesMut::Float64(target) => steps.read(0, target),
        }
    }

    /// The mean of some steps (`None`: all) over steps, blocks and heads as asked, float32. Sums accumulate in float64.
    /// Only a few steps are held at a time; a store's rollups are read where they answer.
    ///
    /// # Errors
    /// As [`load`](Self::load); steps may differ in type.
    pub fn mean(
        &self,
        video: &str,
        token: &str,
        steps: Option<&[i32]>,
        over: Over,
        progress: &dyn Progress,
    ) -> Result<Stack, SourceError> {
        let word = self.word(video, token)?;
        let (numbers, places) = places_of(&*word, steps)?;
        let all = Meter::new(progress, Unit::Steps, places.len() as u64);
        let reader = word.reader(over)?;
        let mut values = Vec::new();
        let mut found: Option<Folded> = None;
        // A window at a time, merged in order: the same bits whatever the number of threads.
        let numbered: Vec<(i32, usize)> = numbers.into_iter().zip(places).collect();
        for window in numbered.chunks(rayon::current_num_threads() * 2) {
            let folded: Vec<Folded> = window
                .par_iter()
                .map_init(
                    || reader.another(),
                    |reader, &(step, place)| {
                        let fold = |values: Values<'_>, shape| Folded::of(step, &values, shape, over);
                        let folded = read(&mut **reader, place, fold)?;
                        all.add(1)?;
                        Ok(folded)
                    },
                )
                .collect::<Result<_, SourceError>>()?;
            for mut step in folded {
                if !over.steps {
                    values.extend(std::mem::take(&mut step.maps).into_iter().flat_map(Accumulator::finish));
                }
                match &mut found {
                    None => found = Some(step),
                    Some(first) => first.merge(step)?,
                }
            }
        }
        let Some(found) = found else { return Err(SourceError::Cancelled) };
        values.extend(found.maps.into_iter().flat_map(Accumulator::finish));
        let StepShape { blocks, heads, spatial, tokens } = found.kept;
        let steps = if over.steps { 1 } else { numbered.len() };
        Ok(Stack { shape: [steps, blocks, heads, spatial, tokens], values: Values::Float32(values.into()) })
    }

    fn no_video(&self, video: &str) -> SourceError {
        SourceError::NotFound {
            what: format!("video `{video}`"),
            place: self.path.display().to_string(),
            known: few(&self.videos().unwrap_or_default()),
        }
    }

    fn word(&self, video: &str, token: &str) -> Result<Box<dyn Word + '_>, SourceError> {
        let composed_token = composed(token);
        let is_word = |own: &str| own == token || composed(own) == composed_token;
        match self.origin.word(video, &is_word)? {
            Some(word) => Ok(word),
            None => Err(SourceError::NotFound {
                what: format!("word `{token}`"),
                place: format!("video `{video}`"),
                known: few(&self.tokens(video)?),
            }),
        }
    }
}

/// The axes of so many steps of a shape.
fn stacked_axes(steps: usize, shape: StepShape) -> [usize; 5] {
    let [blocks, heads, spatial, tokens] = shape.axes();
    [steps, blocks, heads, spatial, tokens]
}

/// Where a step is among those of a word.
fn place_of(word: &dyn Word, step: i32) -> Result<usize, SourceError> {
    let steps = word.steps();
    steps.binary_search(&step).map_err(|_| match word.problem_of(step) {
        Some(problem) => SourceError::Unusable { step, problem },
        None => SourceError::NotFound {
            what: format!("step {step}"),
            place: "this word".into(),
            known: match &steps[..] {
                [] => "none".into(),
                [first, .., last] if steps.len() > FEW_STEPS => {
                    format!("{} steps from {first} to {last}", steps.len())
                }
                few => few.iter().map(i32::to_string).collect::<Vec<_>>().join(", "),
            },
        },
    })
}

/// Numbers and places of the steps asked for (`None`: all): at least one.
fn places_of(word: &dyn Word, steps: Option<&[i32]>) -> Result<(Vec<i32>, Vec<usize>), SourceError> {
    let numbers = steps.map_or_else(|| word.steps(), <[i32]>::to_vec);
    if numbers.is_empty() {
        return Err(SourceError::NotFound {
            what: "step".to_owned(),
            place: "what is asked for".to_owned(),
            known: few(&word.steps().iter().map(i32::to_string).collect::<Vec<_>>()),
        });
    }
    let places = numbers.iter().map(|&step| place_of(word, step)).collect::<Result<_, _>>()?;
    Ok((numbers, places))
}

/// A list for people: not more than they would read.
fn few(names: &[String]) -> String {
    const MOST: usize = 8;
    match names.len() {
        0 => "none".into(),
        1..=MOST => names.join(", "),
        all => format!("{} and {} more", names[..MOST].join(", "), all - MOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{self, IngestOptions};
    use crate::progress::Stopped;

    const VARIANTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants");

    #[test]
    fn a_dump_and_its_store_give_the_same_arrays_and_means() {
        for variant in ["gzip", "torch", "split"] {
            let dir = tempfile::tempdir().unwrap();
            let path = Path::new(VARIANTS).join(variant);
            ingest::run(&[&path], dir.path().join("store"), &IngestOptions::default(), &Silent).unwrap();
            let dump = Source::open(&path, ReadOptions::default()).unwrap();
            let store = Source::open(dir.path().join("store"), ReadOptions::default()).unwrap();
            assert_eq!(dump.videos().unwrap(), store.videos().unwrap());
            for video in &dump.videos().unwrap() {
                assert_eq!(dump.summary(video).unwrap(), store.summary(video).unwrap());
                for token in &dump.tokens(video).unwrap() {
                    let of = |source: &Source| source.load(video, token, None, &Silent).unwrap();
                    assert_eq!(of(&dump), of(&store));
                    assert_eq!(dump.outline(video, token, None).unwrap(), None);
                    assert_eq!(dump.grid(video, token).unwrap(), store.grid(video, token).unwrap());
                    let step = dump.steps(video, token).unwrap()[0];
                    let metadata = |source: &Source| source.metadata(video, token, step).unwrap();
                    assert_eq!(metadata(&dump)["prompt"], metadata(&store)["prompt"]);
                    for over in [
                        Over { blocks: true, ..Over::default() },
                        Over { heads: true, ..Over::default() },
                        Over { blocks: true, heads: true, steps: false },
                    ] {
                        let of = |source: &Source| source.mean(video, token, None, over, &Silent).unwrap();
                        assert_eq!(of(&dump), of(&store), "{over:?}");
                    }
                }
            }
        }
    }

    /// Steps of a word as npy files, `[1, 2, 3, 1]`, each with what its header says of type and order.
    fn npy_dump(dir: &Path, files: &[(&str, &str, Vec<u8>)]) {
        let dir = dir.join("attention_maps/prompt_000_vid001/token_w");
        std::fs::create_dir_all(&dir).unwrap();
        for (step, (descr, fortran, values)) in files.iter().enumerate() {
            let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': (1, 2, 3, 1), }}\n");
            let len = u16::try_from(header.len()).unwrap().to_le_bytes();
            let file = [b"\x93NUMPY\x01\x00".as_slice(), &len, header.as_bytes(), values].concat();
            std::fs::write(dir.join(format!("step_{step:03}.npy")), file).unwrap();
            std::fs::write(dir.join(format!("step_{step:03}_metadata.json")), r#"{"attention_shape": [1, 2, 3, 1]}"#)
                .unwrap();
        }
    }

    #[test]
    fn plain_files_are_read_straight_to_where_they_are_wanted_and_others_too() {
        let values = |step: u8| -> Vec<f32> { (0..6).map(|place| f32::from(step * 10 + place)).collect() };
        let little = |values: Vec<f32>| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let transposed = |values: Vec<f32>| [0, 3, 1, 4, 2, 5].map(|place| values[place]).to_vec();
        let big = |values: Vec<f32>| values.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<u8>>();
        let dir = tempfile::tempdir().unwrap();
        npy_dump(
            dir.path(),
            &[
                ("<f4", "False", little(values(0))),
                (">f4", "False", big(values(1))),
                ("<f4", "True", little(transposed(values(2)))),
                ("<f4", "False", little(values(3))),
                ("<f2", "False", vec![0; 12]),
            ],
        );
        let dump = Source::open(dir.path(), ReadOptions::default()).unwrap();
        let video = dump.videos().unwrap().remove(0);
        let expected = [values(3), values(1), values(2), values(0)].concat();
        let chosen = Some([3, 1, 2, 0].as_slice());
        let loaded = dump.load(&video, "w", chosen, &Silent).unwrap();
        assert_eq!(loaded, Stack { shape: [4, 1, 2, 3, 1], values: Values::Float32(expected.clone().into()) });
        assert_eq!(dump.outline(&video, "w", chosen).unwrap(), Some(([4, 1, 2, 3, 1], Dtype::Float32)));
        let mut target = vec![0.0; 24];
        dump.load_into(&video, "w", chosen, ValuesMut::Float32(&mut target), &Silent).unwrap();
        assert_eq!(target, expected);
        let into = |steps: Option<&[i32]>, target: ValuesMut<'_>| {
            dump.load_into(&video, "w", steps, target, &Silent).unwrap_err().to_string()
        };
        assert!(into(chosen, ValuesMut::Float32(&mut target[1..])).contains("memory for 23 values"));
        assert!(into(chosen, ValuesMut::Float64(&mut [0.0; 24])).contains("memory for 24 values of float64"));
        let mixed = dump.load(&video, "w", None, &Silent).unwrap_err().to_string();
        assert!(mixed.contains("step 4 is float16") && mixed.contains("step 0 is float32"), "{mixed}");
        // What has changed since it was found.
        let path = dir.path().join("attention_maps/prompt_000_vid001/token_w/step_003.npy");
        let file = std::fs::read(&path).unwrap();
        std::fs::write(&path, &file[..file.len() - 4]).unwrap();
        assert!(dump.load(&video, "w", chosen, &Silent).unwrap_err().to_string().contains("step_003.npy"));
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let dump = Source::open(Path::new(VARIANTS).join("gzip"), ReadOptions::default()).unwrap();
        let said = |error: SourceError| error.to_string();
        assert!(said(dump.tokens("nope").unwrap_err()).contains("prompt_000_vid001"));
        assert!(said(dump.steps("prompt_000_vid001", "nope").unwrap_err()).contains("circle"));
        let missing = dump.load("prompt_000_vid001", "circle", Some(&[7]), &Silent).unwrap_err();
        assert!(said(missing).contains("there are 0, "));
        let empty = tempfile::tempdir().unwrap();
        let nothing = Source::open(empty.path(), ReadOptions::default()).unwrap_err();
        assert!(matches!(nothing, SourceError::Neither { .. }));
        let stopped = dump.load("prompt_000_vid001", "circle", None, &Stopped);
        assert!(matches!(stopped, Err(SourceError::Cancelled)));
        let stopped = Source::open_unless_cancelled(VARIANTS, ReadOptions::default(), &Stopped);
        assert!(matches!(stopped, Err(SourceError::Cancelled)));
    }
}
