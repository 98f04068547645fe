//! Drawings: figures, films and reports of a store.

use std::path::PathBuf;

use attnkit::draw::{self, Drawing, Look, Moving};
use attnkit::query::Filter;
use attnkit::remedy::Note;
use attnkit::render::{self, FilmFormat};
use attnkit::report::{Made, Report};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::de::DeserializeOwned;

use crate::answer::Answer;
use crate::error::OrRaise;
use crate::spelling::Arguments;
use crate::store::Store;
use crate::work;

/// A drawing.
#[pyclass(frozen, module = "attnkit._native")]
pub struct Figure(render::Figure);

#[pymethods]
impl Figure {
    /// As the bytes of a PNG file.
    fn png<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.encoded(py, |figure| figure.to_picture()?.to_png())
    }

    /// As the bytes of a WebP file.
    fn webp<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.encoded(py, |figure| figure.to_picture()?.to_webp())
    }

    /// As SVG.
    fn svg(&self, py: Python<'_>) -> PyResult<String> {
        let svg = work::detached(py, || self.0.to_svg())?;
        svg.map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// What it shows, in a sentence.
    #[getter]
    fn description(&self) -> String {
        self.0.description.clone()
    }
}

impl Figure {
    fn encoded<'py>(
        &self,
        py: Python<'py>,
        encode: impl FnOnce(&render::Figure) -> Result<Vec<u8>, render::PictureError> + Send,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = work::detached(py, || encode(&self.0))?;
        Ok(PyBytes::new(py, &bytes.map_err(|error| PyValueError::new_err(error.to_string()))?))
    }
}

/// Draws what a store has. Returns the figure, and what the user should know.
#[pyfunction]
pub fn figure(
    py: Python<'_>,
    store: &Store,
    drawing: &str,
    look: &str,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<(Figure, Vec<String>)> {
    let (drawing, look) = (Drawing::from_json(drawing).or_raise()?, read::<Look>(look)?);
    let drawn = work::run(py, progress.as_ref(), |watch| drawing.draw(store.inner(), &look, watch))?;
    store.warn_of_damage(py)?;
    let drawn = drawn.or_raise()?;
    Ok((Figure(drawn.figure), spelled(&drawn.notes)))
}

/// Draws the maps of an answer.
#[pyfunction]
pub fn figure_of(py: Python<'_>, answer: &Answer, look: &str) -> PyResult<Figure> {
    let (look, answer) = (read::<Look>(look)?, answer.whole(py)?);
    Ok(Figure(work::detached(py, || draw::figure_of(&answer, &look))?.or_raise()?))
}

/// Writes a film to exactly this path. Returns how many pictures it has and how many a second, and what the user should
/// know.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn film(
    py: Python<'_>,
    store: &Store,
    film: &str,
    look: &str,
    path: PathBuf,
    name: &str,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<(usize, f64, Vec<String>)> {
    let (film, look, format) = (read::<Moving>(film)?, read::<Look>(look)?, format_of(name)?);
    let drawn = work::run(py, progress.as_ref(), |watch| {
        let film = film.begin(store.inner(), &look, &attnkit::progress::Silent)?;
        film.write(&path, format, watch)?;
        Ok::<_, draw::DrawError>((film.len(), film.fps, spelled(&film.notes)))
    })?;
    store.warn_of_damage(py)?;
    drawn.or_raise()
}

/// Writes a film of the maps of an answer to exactly this path.
#[pyfunction]
pub fn film_of(
    py: Python<'_>,
    answer: &Answer,
    look: &str,
    path: PathBuf,
    name: &str,
    fps: Option<f64>,
) -> PyResult<()> {
    let (look, answer, format) = (read::<Look>(look)?, answer.whole(py)?, format_of(name)?);
    let write = |_: &work::Watch| draw::film_of(&answer, &look, fps)?.write(&path, format, &attnkit::progress::Silent);
    work::run(py, None, write)?.or_raise()
}

fn format_of(name: &str) -> PyResult<FilmFormat> {
    FilmFormat::of_path(name.as_ref()).ok_or_else(|| {
        PyValueError::new_err(format!(
            "{name}: the extension names no format for films: .gif, .png, .webp, .mp4 or .webm"
        ))
    })
}

/// Writes a report.
#[pyfunction]
pub fn report(
    py: Python<'_>,
    store: &Store,
    filter: &str,
    path: PathBuf,
    frames: Option<PathBuf>,
    title: Option<String>,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<()> {
    let report = Report { filter: read::<Filter>(filter)?, frames, title, spelled: &in_python };
    let written = work::run(py, progress.as_ref(), |watch| report.draw(store.inner(), watch))?;
    store.warn_of_damage(py)?;
    let written = written.or_raise()?;
    let write = || -> std::io::Result<()> {
        let mut page = Vec::new();
        written.write(&mut page)?;
        std::fs::write(&path, page)
    };
    Ok(work::detached(py, write)??)
}

fn read<T: DeserializeOwned>(json: &str) -> PyResult<T> {
    serde_json::from_str(json).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn spelled(notes: &[Note]) -> Vec<String> {
    notes.iter().map(|note| note.spelled(&Arguments)).collect()
}

/// What made a figure of a report, as Python has it.
fn in_python(made: Made<'_>) -> String {
    let fields = |value: serde_json::Value| match value {
        serde_json::Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    let (call, asked) = match made {
        Made::Sql(statement) => return format!("store.sql({statement:?})"),
        Made::Film(film) => ("store.film(".to_owned(), fields(serde_json::to_value(film).unwrap_or_default())),
        Made::Drawing(drawing) => {
            let call = if drawing.name() == "overlay" {
                "store.overlay(".to_owned()
            } else {
                format!("store.render({:?}", drawing.name())
            };
            (call, fields(serde_json::to_value(drawing).unwrap_or_default()))
        }
    };
    let mut arguments: Vec<String> = Vec::new();
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => Some(format!("{text:?}")),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let of_frames = asked.get("backdrop").and_then(|backdrop| text(backdrop.as_object()?.values().next()?));
    arguments.extend(of_frames.map(|place| format!("frames={place}")));
    for (name, value) in asked.get("filter").and_then(serde_json::Value::as_object).into_iter().flatten() {
        arguments.extend(text(value).map(|value| format!("{name}={value}")));
    }
    for name in ["across", "metric", "align", "value"] {
        let value = asked.get(name).and_then(|value| text(value.get("statistic").unwrap_or(value)));
        arguments.extend(value.map(|value| format!("{name}={value}")));
    }
    if asked.get("placement").and_then(serde_json::Value::as_str) == Some("even") {
        arguments.push("time=\"even\"".to_owned());
    }
    let comma = if call.ends_with('(') || arguments.is_empty() { "" } else { ", " };
    format!("{call}{comma}{})", arguments.join(", "))
}
