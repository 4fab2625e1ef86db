//! The program's memory: mimalloc, asked as it is quickest.

#![allow(
    unsafe_code,
    reason = "an allocator hands out memory that nobody has checked; every block says why it is sound"
)]

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};
use std::alloc::{GlobalAlloc, Layout};

/// mimalloc. Its own binding asks for an alignment always, and whoever does that gets anything above 1 KB by a detour: a
/// larger block with a place in it that has to be found again when it is freed. A request has five of those.
pub struct Allocator;

/// What mimalloc's blocks are aligned to without being asked (at least a word; `MI_MAX_ALIGN_SIZE` is 16).
const NATURAL: usize = align_of::<usize>();

// SAFETY: mimalloc's functions do what those of the trait promise: the memory is of at least the size asked for, aligned as
// asked or better, and null means that there is none. All of it comes from one heap, so `mi_free` takes back any of it.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and any power of two will do.
        unsafe {
            match layout.align() <= NATURAL {
                true => mi_malloc(layout.size()).cast(),
                false => mi_malloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            match layout.align() <= NATURAL {
                true => mi_zalloc(layout.size()).cast(),
                false => mi_zalloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        // SAFETY: the caller has it from here, and does not use it any more.
        unsafe { mi_free(memory.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller has it from here, and uses what is returned instead, unless that is null.
        unsafe {
            match layout.align() <= NATURAL {
                true => mi_realloc(memory.cast(), size).cast(),
                false => mi_realloc_aligned(memory.cast(), size, layout.align()).cast(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_as_asked_and_keeps_what_is_in_it() {
        for align in [1, 2, 8, 16, 64, 128, 4096] {
            for size in [1, 7, 8, 9, 24, 100, 1024, 1025, 3000, 70_000] {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: it is written within its size, and freed once.
                unsafe {
                    let memory = Allocator.alloc(layout);
                    assert!(!memory.is_null() && memory.addr().is_multiple_of(align), "{size} by {align}");
                    memory.write_bytes(7, size);
                    let more = Allocator.realloc(memory, layout, 2 * size);
                    assert_eq!(more.addr() % align, 0, "{size} by {align}, once more");
                    assert!((0..size).all(|at| more.add(at).read() == 7));
                    let larger = Layout::from_size_align(2 * size, align).expect("a layout");
                    Allocator.dealloc(more, larger);
                    let zeroed = Allocator.alloc_zeroed(larger);
                    assert!(zeroed.addr().is_multiple_of(align) && (0..2 * size).all(|at| zeroed.add(at).read() == 0));
                    Allocator.dealloc(zeroed, larger);
                }
            }
        }
    }
}
