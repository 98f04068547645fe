//! Writes a synthetic dump, at the scale and in the exact form of a real one, for benchmarks and tests.
//!
//! Every map (one video, token, step, block and head) follows a simple model of cross-attention:
//!
//! ```text
//! l = ln(1e-5) + 2.0 * level(block, head) + 1.0 * field(frame, y, x) + 0.2 * noise
//! v = e^l / (1 + e^l), rounded to bfloat16, stored as float16 or float32
//! ```
//!
//! `level`, `field` and `noise` have mean 0 and standard deviation 1. `field` is Gaussian noise on a coarse
//! lattice (5x8x14 nodes for 15x30x53 positions), interpolated trilinearly with weights of unit length, so that its
//! variance is 1 between the nodes too. `level` and `field` turn by 0.05 rad per denoising step from one
//! realisation to a second one, so neighbouring steps resemble each other; `noise` is drawn anew for every value.
//! As in real dumps, normal float16 values have their three lowest mantissa bits zero; four values in five are
//! subnormal. Nothing here is tuned for compressibility: benchmarks must not flatter us.
//!
//! A map depends on nothing but the seed and its own coordinates, and is computed without the platform's `libm`. So the
//! same arguments give the same bytes, whatever the number of threads (`RAYON_NUM_THREADS`).

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use fastrand::Rng;
use flate2::{Compression, write::GzEncoder};
use half::{f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;
use serde::{Serialize, Serializer};

fn main() -> ExitCode {
    let started = Instant::now();
    match write_dump(&Arguments::parse()) {
        Ok((files, bytes)) => {
            let seconds = started.elapsed().as_secs_f64();
            println!("{files} step files, {bytes} bytes, {seconds:.2} s");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("synth: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Write a synthetic dump of cross-attention maps.
#[derive(Parser)]
#[command(
    name = "synth",
    after_help = "Example (2.06 GB in 120 step files):\n  \
                  cargo run --release --example synth -- --videos 3 --tokens flower,tree --steps 20 --out /tmp/dump"
)]
struct Arguments {
    /// Number of videos, all of one prompt, with consecutive seeds
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    videos: u32,
    /// Tracked words, separated by commas
    #[arg(long, value_delimiter = ',', required = true, value_parser = parse_token)]
    tokens: Vec<String>,
    /// Number of denoising steps
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Number of transformer blocks
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    blocks: u16,
    /// Number of attention heads
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..))]
    heads: u16,
    /// Latent grid: frames x height x width
    #[arg(long, default_value = "15x30x53")]
    grid: Grid,
    /// Directory to write into; `attention_maps` must not exist there yet
    #[arg(long)]
    out: PathBuf,
    /// Seed of all values
    #[arg(long, default_value_t = 0)]
    seed: u32,
    /// Element type of the step files
    #[arg(long, value_enum, default_value_t = Dtype::Float16)]
    dtype: Dtype,
    /// Format of the step files
    #[arg(long, value_enum, default_value_t = Format::Npy)]
    format: Format,
    /// Directories of the videos: `prompt_000_vid001` (flat) or `prompt_000/vid001` (nested)
    #[arg(long, value_enum, default_value_t = Layout::Flat)]
    layout: Layout,
    /// Store every Nth denoising step
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    interval: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    #[value(name = "float16")]
    Float16,
    #[value(name = "float32")]
    Float32,
}

impl Dtype {
    fn torch_name(self) -> &'static str {
        match self {
            Self::Float16 => "torch.float16",
            Self::Float32 => "torch.float32",
        }
    }

    fn npy_descr(self) -> &'static str {
        match self {
            Self::Float16 => "<f2",
            Self::Float32 => "<f4",
        }
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    #[value(name = "npy")]
    Npy,
    #[value(name = "npy.gz")]
    NpyGz,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Self::Npy => "npy",
            Self::NpyGz => "npy.gz",
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Layout {
    Flat,
    Nested,
}

/// How `spatial` unflattens, in C order.
#[derive(Clone, Copy)]
struct Grid {
    frames: u16,
    height: u16,
    width: u16,
}

impl Grid {
    fn spatial(self) -> usize {
        [self.frames, self.height, self.width].into_iter().map(usize::from).product()
    }
}

impl FromStr for Grid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sizes: Option<Vec<u16>> = text.split('x').map(|size| size.parse().ok().filter(|&size| size > 0)).collect();
        match sizes.as_deref() {
            Some(&[frames, height, width]) => Ok(Self { frames, height, width }),
            _ => Err("expected FRAMESxHEIGHTxWIDTH, such as 15x30x53".to_owned()),
        }
    }
}

fn parse_token(word: &str) -> Result<String, String> {
    if word.is_empty() || word.contains(['/', '\\', '\0']) {
        return Err("a token is a word that can be part of a directory name".to_owned());
    }
    Ok(word.to_owned())
}

/// One step file to write.
struct StepJob<'a> {
    video: &'a Video,
    token: &'a str,
    directory: PathBuf,
    step: u32,
}

struct Video {
    /// Counted from 1, as in its id.
    number: u32,
    id: String,
    directory: PathBuf,
}

/// Returns the number of step files and their total size in bytes.
fn write_dump(arguments: &Arguments) -> Result<(usize, u64), String> {
    if arguments.tokens.iter().collect::<BTreeSet<_>>().len() < arguments.tokens.len() {
        return Err("--tokens names a word twice".to_owned());
    }
    let root = arguments.out.join("attention_maps");
    if root.exists() {
        return Err(format!("{} exists; remove it first", root.display()));
    }

    let videos: Vec<Video> = (1..=arguments.videos)
        .map(|number| Video {
            number,
            id: format!("prompt_000_vid{number:03}"),
            directory: root.join(match arguments.layout {
                Layout::Flat => format!("prompt_000_vid{number:03}"),
                Layout::Nested => format!("prompt_000/vid{number:03}"),
            }),
        })
        .collect();
    let mut jobs = Vec::new();
    for video in &videos {
        for token in &arguments.tokens {
            let directory = video.directory.join(format!("token_{token}"));
            fs::create_dir_all(&directory).map_err(at(&directory))?;
            jobs.extend(stored_steps(arguments).map(|step| StepJob {
                video,
                token,
                directory: directory.clone(),
                step,
            }));
        }
    }

    let model = Model::new(arguments);
    let bytes = jobs.par_iter().map(|job| write_step(arguments, &model, job)).sum::<Result<u64, String>>()?;
    for video in &videos {
        write_json(&video.directory.join("summary.json"), &Summary::new(arguments, video))?;
    }
    Ok((jobs.len(), bytes))
}

fn stored_steps(arguments: &Arguments) -> impl Iterator<Item = u32> {
    (0..arguments.steps).step_by(arguments.interval as usize)
}

/// Writes the step array and its metadata; returns the size of the step file.
fn write_step(arguments: &Arguments, model: &Model, job: &StepJob) -> Result<u64, String> {
    let stem = format!("step_{:03}", job.step);
    let metadata = job.directory.join(format!("{stem}_metadata.json"));
    write_json(&metadata, &StepMetadata::new(arguments, job))?;

    let extension = arguments.format.extension();
    let path = job.directory.join(format!("{stem}.{extension}"));
    let file = File::create(&path).map_err(at(&path))?;
    let written = match arguments.format {
        Format::Npy => write_npy(arguments, model, job, &file),
        Format::NpyGz => {
            let mut gz = GzEncoder::new(BufWriter::new(&file), Compression::default());
            write_npy(arguments, model, job, &mut gz).and_then(|()| gz.finish()?.flush())
        }
    };
    written.and_then(|()| Ok(file.metadata()?.len())).map_err(at(&path))
}

fn write_npy(arguments: &Arguments, model: &Model, job: &StepJob, mut out: impl Write) -> io::Result<()> {
    let spatial = arguments.grid.spatial();
    let shape = (arguments.blocks, arguments.heads, spatial, 1);
    out.write_all(&npy_header(arguments.dtype, shape))?;

    let mut scratch = Scratch::new(model);
    let mut narrow = vec![f16::ZERO; spatial];
    let mut bytes = Vec::new();
    for block in 0..arguments.blocks {
        for head in 0..arguments.heads {
            model.fill_map(job, block, head, &mut scratch);
            match arguments.dtype {
                Dtype::Float16 => {
                    narrow.convert_from_f32_slice(&scratch.values);
                    little_endian(&narrow, f16::to_le_bytes, &mut bytes);
                }
                Dtype::Float32 => little_endian(&scratch.values, f32::to_le_bytes, &mut bytes),
            }
            out.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// The header of npy format 1.0, padded to a multiple of 64 bytes as numpy pads it.
fn npy_header(dtype: Dtype, shape: (u16, u16, usize, usize)) -> Vec<u8> {
    let dictionary = format!("{{'descr': '{}', 'fortran_order': False, 'shape': {shape:?}, }}", dtype.npy_descr());
    let length: u16 = 128 - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(length.to_le_bytes());
    header.extend(format!("{dictionary:<117}\n").bytes());
    header
}

fn little_endian<T: Copy, const N: usize>(values: &[T], to_bytes: fn(T) -> [u8; N], bytes: &mut Vec<u8>) {
    bytes.resize(values.len() * N, 0);
    for (target, &value) in bytes.chunks_exact_mut(N).zip(values) {
        target.copy_from_slice(&to_bytes(value));
    }
}

/// What all maps share: see the head of this file for the formula.
struct Model {
    seed: u64,
    normal: NormalTable,
    /// Interpolation along frame, height and width.
    axes: [Axis; 3],
    /// By step: the weights of the first and second realisation of `level` and `field`.
    turns: Vec<(f32, f32)>,
}

/// Buffers that are reused from map to map.
struct Scratch {
    first: Vec<f32>,
    second: Vec<f32>,
    stretched: Vec<f32>,
    field: Vec<f32>,
    values: Vec<f32>,
}

impl Scratch {
    fn new(model: &Model) -> Self {
        let spatial = model.axes.iter().map(|axis| axis.weights.len()).product();
        let coarse = model.axes.iter().map(|axis| axis.nodes).product();
        Self {
            first: vec![0.0; coarse],
            second: vec![0.0; coarse],
            stretched: Vec::new(),
            field: Vec::new(),
            values: vec![0.0; spatial],
        }
    }
}

impl Model {
    fn new(arguments: &Arguments) -> Self {
        let Grid { frames, height, width } = arguments.grid;
        Self {
            seed: u64::from(arguments.seed),
            normal: NormalTable::new(),
            axes: [Axis::new(frames, 3), Axis::new(height, 4), Axis::new(width, 4)],
            turns: turns(arguments.steps),
        }
    }

    /// Computes one map into `scratch.values`.
    fn fill_map(&self, job: &StepJob, block: u16, head: u16, scratch: &mut Scratch) {
        const LN_1E_5: f32 = -11.512_925;
        let (cos, sin) = self.turns[job.step as usize];
        let map = [self.seed, u64::from(job.video.number), hash_word(job.token), u64::from(block), u64::from(head)]
            .into_iter()
            .fold(0, mix);

        let Scratch { first, second, stretched, field, values } = scratch;
        let mut slow = Rng::with_seed(mix(map, 0));
        let mut levels = [0.0; 2];
        self.normal.fill(&mut slow, &mut levels);
        self.normal.fill(&mut slow, first);
        self.normal.fill(&mut slow, second);
        for (a, b) in first.iter_mut().zip(&*second) {
            *a = *a * cos + b * sin;
        }
        let [frame, height, width] = &self.axes;
        frame.stretch(first, height.nodes * width.nodes, field);
        height.stretch(field, width.nodes, stretched);
        width.stretch(stretched, 1, field);

        let mut fast = Rng::with_seed(mix(map, 1 + u64::from(job.step)));
        self.normal.fill(&mut fast, values);
        let level = LN_1E_5 + 2.0 * (levels[0] * cos + levels[1] * sin);
        for (value, field) in values.iter_mut().zip(&*field) {
            let odds = exp(level + field + 0.2 * *value);
            *value = round_to_bfloat16(odds / (1.0 + odds));
        }
    }
}

/// Linear interpolation from a coarse axis to a fine one, ends aligned.
struct Axis {
    nodes: usize,
    /// For each fine position: the coarse node before it and the weights of that node and the next.
    weights: Vec<(usize, f32, f32)>,
}

impl Axis {
    /// One node for every `spacing` positions, rounded up.
    fn new(length: u16, spacing: u16) -> Self {
        let nodes = length.div_ceil(spacing);
        let weights = (0..length)
            .map(|position| {
                let ends = u32::from(length - 1).max(1);
                let place = u32::from(position) * u32::from(nodes - 1);
                let node = (place / ends).min(u32::from(nodes).saturating_sub(2));
                // Both operands are below 2^32, exact in f64.
                let after = f64::from(place - node * ends) / f64::from(ends);
                let norm = (after * after + (1.0 - after) * (1.0 - after)).sqrt();
                #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
                let weights = (((1.0 - after) / norm) as f32, (after / norm) as f32);
                (node as usize, weights.0, weights.1)
            })
            .collect();
        Self { nodes: usize::from(nodes), weights }
    }

    /// Interpolates the middle axis of `coarse`, shaped `[…, nodes, inner]` in C order, into `fine`.
    fn stretch(&self, coarse: &[f32], inner: usize, fine: &mut Vec<f32>) {
        fine.clear();
        for slab in coarse.chunks_exact(self.nodes * inner) {
            for &(node, before, after) in &self.weights {
                let row = &slab[node * inner..][..inner];
                // A single node has no next one; its weight is 0 then.
                let next = slab[node * inner..].get(inner..2 * inner).unwrap_or(row);
                fine.extend(row.iter().zip(next).map(|(a, b)| a * before + b * after));
            }
        }
    }
}

/// 4096 equally likely values of the standard normal distribution (so none lies beyond 3.7).
struct NormalTable([f32; Self::SIZE]);

impl NormalTable {
    const SIZE: usize = 4096;

    /// Walks along the density, noting where the integral passes each quantile `(i + 1/2) / SIZE`.
    fn new() -> Self {
        const PER_UNIT: u32 = 1 << 14;
        const HALF_SIZE: u32 = 2048;
        let pitch = 1.0 / f64::from(PER_UNIT);
        // φ(x + pitch) = φ(x) · ratio(x), and ratio(x + pitch) = ratio(x) · e^(−pitch²).
        let square = pitch * pitch;
        let decay = 1.0 - square + square * square / 2.0;
        let mut ratio = 1.0 - square / 2.0 + square * square / 8.0;
        let mut density = 0.398_942_280_401_432_7;
        let mut integral = 0.0;
        let mut quantiles = Vec::new();
        for position in 0..5 * PER_UNIT {
            let next_density = density * ratio;
            let piece = f64::midpoint(density, next_density) * pitch;
            while let Ok(count) = u32::try_from(quantiles.len())
                && count < HALF_SIZE
                && (f64::from(count) + 0.5) / f64::from(2 * HALF_SIZE) < integral + piece
            {
                let target = (f64::from(count) + 0.5) / f64::from(2 * HALF_SIZE);
                quantiles.push((f64::from(position) + (target - integral) / piece) * pitch);
            }
            integral += piece;
            density = next_density;
            ratio *= decay;
        }
        let squares: f64 = quantiles.iter().map(|x| x * x).sum();
        let scale = (f64::from(HALF_SIZE) / squares).sqrt();

        let mut table = [0.0; Self::SIZE];
        for (pair, quantile) in table.chunks_exact_mut(2).zip(quantiles) {
            #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
            let value = (quantile * scale) as f32;
            pair.copy_from_slice(&[value, -value]);
        }
        Self(table)
    }

    fn fill(&self, rng: &mut Rng, values: &mut [f32]) {
        for four in values.chunks_mut(4) {
            let mut bits = rng.u64(..);
            for value in four {
                *value = self.0[(bits & 0xfff) as usize];
                bits >>= 16;
            }
        }
    }
}

/// `(cos, sin)` of `step` turns by about 0.05 rad, by repeated multiplication.
fn turns(steps: u32) -> Vec<(f32, f32)> {
    // (1599, 80, 1601) is a Pythagorean triple.
    let (cos, sin) = (1599.0 / 1601.0, 80.0 / 1601.0);
    std::iter::successors(Some((1.0_f64, 0.0_f64)), |&(c, s)| Some((c * cos - s * sin, s * cos + c * sin)))
        .take(steps as usize)
        .map(|(c, s)| {
            #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
            (c as f32, s as f32)
        })
        .collect()
}

/// e^x to a relative error of 3e-6, for |x| < 80: far finer than bfloat16, and the compiler vectorises it.
fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2^23 leaves a number rounded to an integer in the lowest mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    let scaled = x * std::f32::consts::LOG2_E;
    let rounded = scaled + ROUND;
    let part = (scaled - (rounded - ROUND)) * std::f32::consts::LN_2;
    let series = 1.0 / 120.0;
    let series = 1.0 / 24.0 + part * series;
    let series = 1.0 / 6.0 + part * series;
    let series = 0.5 + part * series;
    let series = 1.0 + part * (1.0 + part * series);
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits());
    series * f32::from_bits(exponent.wrapping_add(127) << 23)
}

/// To nearest, ties to even; for finite values.
fn round_to_bfloat16(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// The finaliser of `SplitMix64` over a sum: one more coordinate for a seed.
fn mix(seed: u64, coordinate: u64) -> u64 {
    let mut z = (seed ^ coordinate).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a.
fn hash_word(word: &str) -> u64 {
    word.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// `step_000_metadata.json`, keys in the generator's order.
#[derive(Serialize)]
struct StepMetadata<'a> {
    video_id: &'a str,
    step: u32,
    timestep: f64,
    total_steps: u32,
    token_word: &'a str,
    token_ids: [u64; 1],
    token_texts: [&'a str; 1],
    aggregation_method: &'static str,
    attention_shape: (u16, u16, usize, usize),
    spatial_resolution: (usize, usize),
    num_blocks: u16,
    num_heads: u16,
    threshold_applied: Option<f64>,
    block_idx: Option<u16>,
    head_idx: Option<u16>,
    dtype: &'static str,
    prompt: String,
    seed: u64,
    cfg_scale: f64,
    video_width: u32,
    video_height: u32,
    video_frames: u32,
}

impl<'a> StepMetadata<'a> {
    fn new(arguments: &Arguments, job: &StepJob<'a>) -> Self {
        let grid = arguments.grid;
        let spatial = grid.spatial();
        Self {
            video_id: &job.video.id,
            step: job.step,
            timestep: timestep(job.step, arguments.steps),
            total_steps: arguments.steps,
            token_word: job.token,
            token_ids: [token_id(job.token)],
            token_texts: [job.token],
            aggregation_method: "per_step_full",
            attention_shape: (arguments.blocks, arguments.heads, spatial, 1),
            spatial_resolution: (spatial, 1),
            num_blocks: arguments.blocks,
            num_heads: arguments.heads,
            threshold_applied: None,
            block_idx: None,
            head_idx: None,
            dtype: arguments.dtype.torch_name(),
            prompt: format!("a video of {}", arguments.tokens.join(" and ")),
            seed: u64::from(arguments.seed) + u64::from(job.video.number),
            cfg_scale: 6.5,
            video_width: u32::from(grid.width) * 16,
            video_height: u32::from(grid.height) * 16,
            video_frames: (u32::from(grid.frames) - 1) * 4 + 1,
        }
    }
}

/// The flow-matching schedule of WAN 2.1 at 480p: noise level u shifted to 3u / (1 + 2u).
fn timestep(step: u32, steps: u32) -> f64 {
    let u = f64::from(steps - step) / f64::from(steps);
    999.0 * 3.0 * u / (1.0 + 2.0 * u)
}

/// An id within the vocabulary of umt5-xxl.
fn token_id(word: &str) -> u64 {
    hash_word(word) % 256_000
}

/// `summary.json`.
#[derive(Serialize)]
struct Summary<'a> {
    video_id: &'a str,
    stored_steps: Vec<u32>,
    total_stored: usize,
    target_tokens: TargetTokens<'a>,
    storage_format: &'static str,
    compressed: bool,
    config: Config,
}

#[derive(Serialize)]
struct Config {
    store_per_head: bool,
    store_per_block: bool,
    spatial_downsample_factor: u32,
}

#[derive(Serialize)]
struct TokenIds {
    token_ids: [u64; 1],
    positions: [usize; 1],
}

/// A JSON object, word by word in the order in which they are tracked.
struct TargetTokens<'a>(&'a [String]);

impl Serialize for TargetTokens<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The prompt's words before the first token are "a video of".
        let mut position = 3;
        serializer.collect_map(self.0.iter().map(|token| {
            let ids = TokenIds { token_ids: [token_id(token)], positions: [position] };
            position += token.split_whitespace().count() + 1; // "and"
            (token, ids)
        }))
    }
}

impl<'a> Summary<'a> {
    fn new(arguments: &'a Arguments, video: &'a Video) -> Self {
        let stored_steps: Vec<u32> = stored_steps(arguments).collect();
        Self {
            video_id: &video.id,
            total_stored: stored_steps.len(),
            stored_steps,
            target_tokens: TargetTokens(&arguments.tokens),
            storage_format: "numpy",
            compressed: arguments.format == Format::NpyGz,
            config: Config { store_per_head: true, store_per_block: true, spatial_downsample_factor: 1 },
        }
    }
}

fn write_json(path: &Path, document: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_string_pretty(document).map_err(at(path))?;
    fs::write(path, text).map_err(at(path))
}

/// Puts the path before an error's message.
fn at<E: fmt::Display>(path: &Path) -> impl FnOnce(E) -> String {
    move |error| format!("{}: {error}", path.display())
}
