//! A tensor as a view of its storage: whether it fits, and its elements row by row.

use std::rc::Rc;
use std::slice::ChunksExact;

use super::archive::entry_error;
use super::{TorchDtype, TorchError, quoted};

/// More axes than torch or numpy handle.
pub const MAX_RANK: usize = 64;

/// What `torch._utils._rebuild_tensor_v2` was called with; offset and strides count elements.
#[derive(Debug)]
pub struct StridedView {
    pub storage: StorageId,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// A storage the pickle refers to; the torch name of the dtype if it is none of ours.
#[derive(Debug, Clone)]
pub struct StorageId {
    pub dtype: Result<TorchDtype, &'static str>,
    pub key: Rc<str>,
    pub numel: usize,
}

impl StridedView {
    /// Elements of the view and bytes of its storage; `None` if either overflows or they don't fit.
    pub fn checked_sizes(&self, itemsize: usize) -> Option<(usize, usize)> {
        // Empty axes count as one, so that no partial product of the shape overflows later either.
        let ceiling = self.shape.iter().try_fold(itemsize, |n, &axis| n.checked_mul(axis.max(1)))?;
        let count = if self.shape.contains(&0) { 0 } else { ceiling / itemsize };
        let last = self.axes().try_fold(self.offset, |last, (length, stride)| {
            last.checked_add(length.saturating_sub(1).checked_mul(stride)?)
        })?;
        let fits = self.shape.len() == self.strides.len() && (count == 0 || last < self.storage.numel);
        fits.then_some((count, self.storage.numel.checked_mul(itemsize)?))
    }

    /// Length and stride of each axis longer than 1; the strides of the others mean nothing.
    fn axes(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> {
        let axes = self.shape.iter().copied().zip(self.strides.iter().copied());
        axes.filter(|&(length, _)| length != 1)
    }

    pub fn is_contiguous(&self) -> bool {
        let mut run = 1;
        self.axes().rev().all(|(length, stride)| {
            let adjacent = stride == run;
            run *= length;
            adjacent
        })
    }

    /// The `count` elements in row-major order, made little-endian.
    pub fn gather(&self, storage: &[u8], count: usize, itemsize: usize, big_endian: bool) -> Option<Vec<u8>> {
        let elements = storage.chunks_exact(itemsize);
        let axes: Vec<_> = self.axes().collect();
        let mut gathered = Vec::new();
        gathered.try_reserve_exact(count * itemsize).ok()?;
        gather_axes(&elements, &axes, self.offset, &mut gathered)?;
        if big_endian {
            gathered.chunks_exact_mut(itemsize).for_each(<[u8]>::reverse);
        }
        Some(gathered)
    }

    pub fn describe(&self) -> String {
        let Self { storage, offset, shape, strides } = self;
        let numel = storage.numel;
        format!("shape {shape:?}, strides {strides:?}, offset {offset} in a storage of {numel} elements")
    }
}

/// Appends the elements reached from `start` along `axes`. No axis has length 1, so the recursion is
/// at most log2 of their number deep.
fn gather_axes(
    elements: &ChunksExact<'_, u8>,
    axes: &[(usize, usize)],
    start: usize,
    gathered: &mut Vec<u8>,
) -> Option<()> {
    let Some((&(length, stride), inner)) = axes.split_first() else {
        gathered.extend_from_slice(elements.clone().nth(start)?);
        return Some(());
    };
    (0..length).try_for_each(|i| gather_axes(elements, inner, start + i * stride, gathered))
}

impl StorageId {
    pub fn entry(&self) -> Result<String, TorchError> {
        let name = format!("data/{}", quoted(&self.key));
        let numbered = !self.key.is_empty() && self.key.bytes().all(|byte| byte.is_ascii_digit());
        numbered.then_some(()).ok_or_else(|| entry_error(&name, "that name", "data/<number>"))?;
        Ok(name)
    }
}
