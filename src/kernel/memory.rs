//! Memory for whole steps.

use bytemuck::Zeroable;

/// Zeros; `None` if there is no memory for so many. Where the system has huge pages, it is asked for them: giving out a
/// gigabyte in pages of 4 KiB takes longer than decoding it.
pub fn zeroed<T: Zeroable>(len: usize) -> Option<Vec<T>> {
    let zeros: Vec<T> = bytemuck::allocation::try_zeroed_vec(len).ok()?;
    #[cfg(target_os = "linux")]
    advise_huge_pages(zeros.as_ptr().cast(), size_of_val(&zeros[..]));
    Some(zeros)
}

/// Asks for huge pages for the whole pages of a range, if it is worth it.
#[cfg(target_os = "linux")]
fn advise_huge_pages(start: *const u8, bytes: usize) {
    use rustix::mm::{Advice, madvise};
    const WORTH_IT: usize = 4 << 20;
    let page = rustix::param::page_size();
    let skipped = start.align_offset(page);
    if bytes < WORTH_IT || skipped > bytes {
        return;
    }
    let whole = (bytes - skipped) / page * page;
    // SAFETY: the range is of whole pages within one allocation, which its owner has lent; which pages are behind an
    // address is nothing that a program can see, and this advice changes nothing else.
    #[allow(unsafe_code)]
    // Advice that is not taken is no error.
    let _ = unsafe { madvise(start.cast_mut().wrapping_add(skipped).cast(), whole, Advice::LinuxHugepage) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_zeros_however_many() {
        for len in [0, 1, 1000, (4 << 20) / 8, (9 << 20) / 8 + 3] {
            let mut zeros: Vec<u64> = zeroed(len).unwrap();
            assert_eq!(zeros, vec![0; len]);
            zeros.fill(7);
            assert!(zeros.iter().all(|value| *value == 7));
        }
        assert_eq!(zeroed::<u64>(usize::MAX / 16), None);
    }
}
