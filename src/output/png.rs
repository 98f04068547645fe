//! One map as a picture.

use std::path::Path;

use super::{Format, OutputError, maps_of, write_whole};
use crate::draw::{self, Look};
use crate::query::{Answer, AnswerKind};
use crate::render::Picture;

/// The picture of an answer that is one map, or one for each piece of a word.
///
/// # Errors
/// If the answer has no maps, or others.
pub fn picture(answer: &Answer) -> Result<Picture, OutputError> {
    let maps = maps_of(answer, Format::Png)?;
    if maps.common_shape().is_none() || answer.kind != AnswerKind::Map && maps.maps.len() != 1 {
        return Err(OutputError::Unfit {
            found: format!("a picture is of one map; the answer has {}", maps.maps.len()).into(),
            remedy: "ask for a single one, or write all as npy or zarr".into(),
        });
    }
    let drawn = draw::figure_of(answer, &Look::default()).and_then(|figure| Ok(figure.to_picture()?));
    drawn.map_err(|error| OutputError::Unfit { found: error.into(), remedy: "write it as npy".into() })
}

pub(super) fn write(answer: &Answer, path: &Path) -> Result<(), OutputError> {
    let encoded = picture(answer)?
        .to_png()
        .map_err(|error| OutputError::Unfit { found: error.into(), remedy: "write it as npy".into() })?;
    write_whole(path, &encoded)
}
