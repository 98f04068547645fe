//! What the stories share: a temporary place with a dump and a store, a builder of small dumps, and the program.

#![allow(dead_code)] // each story uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use attnkit::verify::{VerifyOptions, VerifyReport};
use half::f16;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Longer than this nothing takes: a story that hangs fails.
const PATIENCE: Duration = Duration::from_secs(40);

/// Shape of a step array unless a story wants another one; its grid is 2x3x4.
pub const SHAPE: [usize; 4] = [2, 3, 24, 1];

/// The program.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_attnkit")
}

/// Runs a command to its end; fails the story if it takes longer than `patience`.
pub fn finished(mut command: Command, patience: Duration) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Both pipes are drained while it runs, or it would wait for that.
    let drain = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            pipe.read_to_end(&mut text).map(|_| text)
        })
    };
    let out = drain(Box::new(child.stdout.take().unwrap()));
    let err = drain(Box::new(child.stderr.take().unwrap()));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > patience {
            child.kill().unwrap();
            panic!("it took longer than {patience:?}: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Output { status, stdout: out.join().unwrap().unwrap(), stderr: err.join().unwrap().unwrap() }
}

/// A directory of the bundled fixtures.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Names of the format variants among the fixtures.
pub fn variants() -> Vec<String> {
    let mut names: Vec<String> = list(&fixture("variants"))
        .into_iter()
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 10, "{names:?}");
    names
}

/// A temporary directory with a dump and a store in it.
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: TempDir::with_prefix("attnkit-story-").unwrap() }
    }

    /// A path in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        // Canonical, because that is how the program names files.
        self.dir.path().canonicalize().unwrap().join(name)
    }

    /// Where the dump is.
    pub fn dump(&self) -> PathBuf {
        self.path("dump")
    }

    /// Where the store is.
    pub fn store(&self) -> PathBuf {
        self.path("a.store")
    }

    /// One word of one video in the dump.
    pub fn word(&self, video: &str, token: &str) -> Word {
        Word::new(&self.dump(), video, token)
    }

    /// Copies a fixture to be the dump.
    pub fn with_fixture(self, name: &str) -> Self {
        copy_tree(&fixture(name), &self.dump());
        self
    }

    /// Runs the program in this directory.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Told {
        let mut command = Command::new(program());
        command.args(arguments).current_dir(self.dir.path());
        let output = finished(command, PATIENCE);
        Told {
            code: output.status.code().unwrap_or_else(|| panic!("killed: {output:?}")),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Ingests the dump into the store, with a report.
    pub fn ingest(&self, options: &[&str]) -> Ingested {
        self.ingest_from(&[self.dump()], options)
    }

    /// Ingests other dumps into the store, with a report.
    pub fn ingest_from(&self, dumps: &[PathBuf], options: &[&str]) -> Ingested {
        let path = self.path("report.json");
        let _ = fs::remove_file(&path);
        let mut arguments: Vec<PathBuf> = vec!["ingest".into()];
        arguments.extend_from_slice(dumps);
        arguments.extend(["--store".into(), self.store(), "--report".into(), path.clone()]);
        arguments.extend(options.iter().map(PathBuf::from));
        let told = self.run(arguments);
        let report = fs::read(&path).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
        let _ = fs::remove_file(path);
        Ingested { told, report }
    }

    /// What `info --json` says of the store.
    pub fn contents(&self) -> Value {
        let told = self.run(["info".as_ref(), self.store().as_os_str(), "--json".as_ref()]);
        serde_json::from_str(&told.succeeded().out).unwrap()
    }

    /// Ids of the videos in the store.
    pub fn videos(&self) -> Vec<String> {
        let contents = self.contents();
        contents["videos"].as_array().unwrap().iter().map(|video| text(&video["video_id"])).collect()
    }

    /// Words and steps of a video in the store.
    pub fn steps(&self, video: &str) -> BTreeMap<String, Vec<i64>> {
        let contents = self.contents();
        let videos = contents["videos"].as_array().unwrap();
        let found = videos.iter().find(|found| found["video_id"] == video).unwrap_or_else(|| panic!("no {video}"));
        let steps = |word: &Value| word["steps"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
        found["tokens"].as_array().unwrap().iter().map(|word| (text(&word["token"]), steps(word))).collect()
    }

    /// What `info --json` says of one word.
    pub fn series(&self, video: &str, token: &str) -> Value {
        let contents = self.contents();
        let videos = contents["videos"].as_array().unwrap();
        let found = videos.iter().find(|found| found["video_id"] == video).unwrap_or_else(|| panic!("no {video}"));
        let words = found["tokens"].as_array().unwrap();
        words.iter().find(|word| word["token"] == token).unwrap_or_else(|| panic!("no {token}")).clone()
    }

    /// Verifies the store, without a new process.
    pub fn check(&self, against: &[PathBuf]) -> VerifyReport {
        let store = attnkit::store::Store::open(self.store()).unwrap();
        let options = VerifyOptions { against: against.to_vec(), ..VerifyOptions::default() };
        attnkit::verify::run(&store, &options, &attnkit::progress::Silent).unwrap()
    }

    /// Verifies the store alone, and expects no fault.
    #[track_caller]
    pub fn assert_sound(&self) -> VerifyReport {
        let report = self.check(&[]);
        assert_eq!(report.faults, []);
        report
    }

    /// Verifies the store against the dump: all of its steps are there, bit for bit.
    #[track_caller]
    pub fn assert_same_as_dump(&self) {
        self.assert_same_as(&[self.dump()]);
    }

    /// Verifies the store against several dumps that make it up.
    #[track_caller]
    pub fn assert_same_as(&self, dumps: &[PathBuf]) {
        let report = self.check(dumps);
        assert_eq!(report.faults, []);
        assert_eq!((report.compared, report.not_in_dump), (report.steps, 0));
        assert!(report.steps > 0);
    }

    /// Exports the store, and returns the step files and metadata by their paths below `attention_maps`.
    pub fn exported(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let out = TempDir::new().unwrap();
        let arguments = ["export".into(), self.store(), "--out".into(), out.path().join("x")];
        self.run(arguments).succeeded();
        files(&out.path().join("x/attention_maps"))
    }

    /// Paths of everything in this directory but the store.
    pub fn outside_the_store(&self) -> Vec<PathBuf> {
        let store = self.store();
        tree(&self.path("")).into_keys().filter(|path| !path.starts_with(&store)).collect()
    }

    /// Values of an array in the store, as bytes.
    pub fn values(&self, video: &str, token: &str, step: i32) -> Vec<u8> {
        let store = attnkit::store::Store::open(self.store()).unwrap();
        let store = store.snapshot();
        let video = store.read_video(video).unwrap().unwrap();
        let row = video.rows.iter().find(|row| row.token == token && row.step == step).unwrap();
        store.open_array(&row.array).unwrap().read_step(row.row.into()).unwrap()
    }

    /// Directories of generations in the store, of all words.
    pub fn generations(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = list(&self.store().join("maps"))
            .into_iter()
            .filter(|path| path.is_dir())
            .flat_map(|video| list(&video))
            .filter(|path| path.is_dir())
            .collect();
        found.sort();
        found
    }
}

/// What the program said, and its exit code.
#[derive(Debug)]
pub struct Told {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Told {
    /// Expects exit code 0.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        self.ended(0)
    }

    /// Expects an exit code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Expects a text on standard error.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "`{text}` is not in stderr:\n{}", self.err);
        self
    }
}

/// An ingest that ran, and its report (`null` if it wrote none).
#[derive(Debug)]
pub struct Ingested {
    pub told: Told,
    pub report: Value,
}

impl Ingested {
    /// Expects that nothing was left out.
    #[track_caller]
    pub fn clean(self) -> Self {
        self.ended(0)
    }

    /// Expects an exit code.
    #[track_caller]
    pub fn ended(mut self, code: i32) -> Self {
        self.told = self.told.ended(code);
        self
    }

    /// Expects a text on standard error.
    #[track_caller]
    pub fn says(mut self, text: &str) -> Self {
        self.told = self.told.says(text);
        self
    }

    /// Steps ingested and skipped.
    pub fn counts(&self) -> (u64, u64) {
        (self.report["ingested"].as_u64().unwrap(), self.report["skipped"].as_u64().unwrap())
    }

    /// What was left out: path and error.
    pub fn left_out(&self) -> Vec<(PathBuf, String)> {
        let pair = |left: &Value| (PathBuf::from(text(&left["path"])), text(&left["error"]));
        self.report["quarantined"].as_array().unwrap().iter().map(pair).collect()
    }

    /// Messages of the warnings.
    pub fn warnings(&self) -> Vec<String> {
        self.report["warnings"].as_array().unwrap().iter().map(|warning| text(&warning["message"])).collect()
    }
}

/// The text of a JSON string.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// One word of one video in a dump that is being made.
#[derive(Clone)]
pub struct Word {
    pub dir: PathBuf,
    pub shape: [usize; 4],
    video: String,
    token: String,
    keys: Map<String, Value>,
}

impl Word {
    /// In the flat layout, below `root`.
    pub fn new(root: &Path, video: &str, token: &str) -> Self {
        let dir = root.join(video.replace([':', '/', '\\'], "_")).join(format!("token_{token}"));
        Self::at(dir, video, token)
    }

    /// In a directory of any name.
    pub fn at(dir: PathBuf, video: &str, token: &str) -> Self {
        fs::create_dir_all(&dir).unwrap();
        Self { dir, shape: SHAPE, video: video.into(), token: token.into(), keys: Map::new() }
    }

    /// With step arrays of another shape.
    pub fn shaped(mut self, shape: [usize; 4]) -> Self {
        self.shape = shape;
        self
    }

    /// With another value of a metadata key.
    pub fn with_key(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.keys.insert(key.into(), value.into());
        self
    }

    /// Path of a file in the word's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes steps as float16 npy.
    pub fn steps(self, steps: impl IntoIterator<Item = i32>) -> Self {
        for step in steps {
            self.write(step, "npy", &npy_f16(&self.shape, &self.values(step)));
        }
        self
    }

    /// Writes a step file with its metadata. Returns its path.
    pub fn write(&self, step: i32, extension: &str, contents: &[u8]) -> PathBuf {
        let path = self.file(&format!("step_{step:03}.{extension}"));
        fs::write(&path, contents).unwrap();
        self.write_metadata(step);
        path
    }

    /// Writes a step's metadata. Returns its path.
    pub fn write_metadata(&self, step: i32) -> PathBuf {
        let path = self.file(&format!("step_{step:03}_metadata.json"));
        fs::write(&path, serde_json::to_vec_pretty(&self.metadata(step)).unwrap()).unwrap();
        path
    }

    /// The documented keys of a step.
    pub fn metadata(&self, step: i32) -> Value {
        let [blocks, heads, spatial, tokens] = self.shape;
        let mut metadata = json!({
            "video_id": self.video, "step": step, "timestep": 999.0 - 10.0 * f64::from(step), "total_steps": 50,
            "token_word": self.token, "token_ids": [93643], "token_texts": [self.token],
            "aggregation_method": "per_step_full", "attention_shape": self.shape,
            "spatial_resolution": [spatial, tokens], "num_blocks": blocks, "num_heads": heads,
            "threshold_applied": null, "block_idx": null, "head_idx": null, "dtype": "torch.float16",
            "prompt": format!("a beautiful {} near a tree", self.token), "seed": 999, "cfg_scale": 6.5,
            "video_width": 64, "video_height": 48, "video_frames": 5,
        });
        metadata.as_object_mut().unwrap().extend(self.keys.clone());
        metadata
    }

    /// Values like those of real dumps: small, and others for each step of each word.
    pub fn values(&self, step: i32) -> Vec<f16> {
        let name = format!("{}/{}/{step}", self.video, self.token);
        let seed = name.bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let mut random = Random(seed);
        (0..self.shape.iter().product()).map(|_| random.probability()).collect()
    }
}

/// Writes a video's `summary.json`.
pub fn write_summary(video: &Path, steps: &[i32], words: &[&str]) {
    fs::create_dir_all(video).unwrap();
    let targets: Map<String, Value> =
        words.iter().map(|word| ((*word).into(), json!({"token_ids": [7], "positions": [3]}))).collect();
    let summary = json!({
        "video_id": video.file_name().unwrap().to_string_lossy(), "stored_steps": steps, "total_stored": steps.len(),
        "target_tokens": targets, "storage_format": "numpy", "compressed": false,
        "storage_dir": "/somewhere/else", "config": {"storage_interval": 1},
    });
    fs::write(video.join("summary.json"), serde_json::to_vec(&summary).unwrap()).unwrap();
}

/// A small generator of numbers that are the same in each run (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn probability(&mut self) -> f16 {
        let unit = f32::from(u16::try_from(self.next() >> 48).unwrap()) / 65536.0;
        f16::from_f32(unit * unit * 0.01)
    }
}

/// An npy file, version 1, of any descriptor, shape and payload.
pub fn npy(descriptor: &str, shape: &str, payload: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descriptor}', 'fortran_order': False, 'shape': ({shape}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), payload].concat()
}

/// A float16 npy file.
pub fn npy_f16(shape: &[usize], values: &[f16]) -> Vec<u8> {
    npy("<f2", &axes(shape), &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

/// A float32 npy file.
pub fn npy_f32(shape: &[usize], values: &[f32]) -> Vec<u8> {
    npy("<f4", &axes(shape), &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

fn axes(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// Type and shape (as the header spells them, without spaces and commas) and payload of an npy file, version 1.
pub fn npy_parts(file: &[u8]) -> (String, &[u8]) {
    let (header, payload) = file[10..].split_at(usize::from(u16::from_le_bytes([file[8], file[9]])));
    let header = String::from_utf8_lossy(header).replace(", }", "}").replace(",)", ")");
    (header.split_whitespace().collect(), payload)
}

/// A gzip stream.
pub fn gzip(contents: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(contents).unwrap();
    packed.finish().unwrap()
}

/// A gzip stream of `first` and then `zeros` bytes of zeros, without ever holding them.
pub fn gzip_bomb(first: &[u8], zeros: usize) -> Vec<u8> {
    const PIECE: usize = 1 << 24;
    let piece = gzip(&vec![0; PIECE]);
    let mut bomb = gzip(first);
    for _ in 0..zeros.div_ceil(PIECE) {
        bomb.extend_from_slice(&piece);
    }
    bomb
}

/// Entries of a directory, sorted.
pub fn list(dir: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

/// Everything below a directory with its state, without following links: a change of any kind shows.
pub fn tree(dir: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for path in list(dir) {
        let kind = fs::symlink_metadata(&path).unwrap();
        let modified = kind.modified().unwrap();
        let contents = match kind.file_type() {
            kind if kind.is_file() => fs::read(&path).unwrap(),
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            _ => Vec::new(),
        };
        if kind.is_dir() {
            found.extend(tree(&path));
        }
        found.insert(path, (modified, contents));
    }
    found
}

/// Contents of all files below a directory, by their paths below it.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let below = |path: &Path| path.strip_prefix(dir).unwrap().to_owned();
    let all = tree(dir).into_iter().filter(|(path, _)| path.is_file());
    all.map(|(path, (_, contents))| (below(&path), contents)).collect()
}

/// Copies a directory with all it holds.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in list(from) {
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Moves a file's modification time by whole seconds.
pub fn touch(path: &Path, seconds: u64) {
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(file.metadata().unwrap().modified().unwrap() + Duration::from_secs(seconds)).unwrap();
}

/// Makes a named pipe.
pub fn make_fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}
