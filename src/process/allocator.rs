//! The program's memory: mimalloc's, and on serving threads what was freed last is handed out first.
//!
//! mimalloc hands out every block of a page once before it hands one out again, so each of the twenty blocks a small
//! request takes was last touched long ago. A serving thread keeps a few blocks of each size by itself: the next request
//! gets the memory of the one before it, which the processor still has at hand. jemalloc has caches of that kind, but
//! building it takes more than a C compiler.

#![allow(
    unsafe_code,
    reason = "an allocator hands out memory that nobody has checked; every block says why it is sound"
)]
#![allow(clippy::cast_ptr_alignment, reason = "every block of mimalloc's is aligned to a word")]

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};
use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    ptr,
};

/// mimalloc. Its own binding asks for an alignment always, and whoever does that gets anything above 1 KB by a detour: a
/// larger block with a place in it that has to be found again when it is freed. A request has five of those.
pub struct Allocator;

/// What mimalloc's blocks are aligned to without being asked (at least a word; `MI_MAX_ALIGN_SIZE` is 16).
const NATURAL: usize = align_of::<usize>();

/// The largest size of which blocks are kept. Bytes.
const LARGEST: usize = 8 << 10;

/// What tasks and sockets are aligned to, so that no two threads share a line of the processor's cache.
const LINES: usize = 128;

/// How many sizes blocks are rounded up to: see [`shelf`].
const SHELVES: usize = 32 + 8 + 28 + 8;

/// How many blocks of a size are kept, so that they last for the requests that come and go together: 256 KB of the large
/// ones.
const fn most(size: usize) -> usize {
    let blocks = (256 << 10) / size;
    if blocks < 256 { blocks } else { 256 }
}

/// Blocks of one size that were freed, the last one on top. Each holds the address of the one below it in its first word.
struct Shelf {
    top: Cell<*mut u8>,
    count: Cell<usize>,
}

thread_local! {
    /// This thread keeps what it frees.
    static KEEPS: Cell<bool> = const { Cell::new(false) };
    static KEPT: [Shelf; SHELVES] =
        const { [const { Shelf { top: Cell::new(ptr::null_mut()), count: Cell::new(0) } }; SHELVES] };
}

/// From here on this thread keeps some of what it frees, until the guard is dropped.
pub(super) fn keep() -> Keeping {
    KEEPS.set(true);
    Keeping(())
}

/// While this is there, its thread keeps some of what it frees.
pub(super) struct Keeping(());

impl Drop for Keeping {
    fn drop(&mut self) {
        KEEPS.set(false);
        KEPT.with(|shelves| {
            for shelf in shelves {
                while let Some(memory) = shelf.take() {
                    // SAFETY: it came from mimalloc, and nobody has it any more.
                    unsafe { mi_free(memory.cast()) }
                }
            }
        });
    }
}

/// Where blocks of a size are kept, and the size that all of them there have: steps of 16 bytes up to 512, of 64 up to
/// 1 KB, of 256 up to 8 KB; and of 128 up to 1 KB for those that are aligned so. `None` if they are not kept.
const fn shelf(size: usize, align: usize) -> Option<(usize, usize)> {
    let (from, step, before) = match (size, align) {
        (1..=512, ..=NATURAL) => (0, 16, 0),
        (513..=1024, ..=NATURAL) => (512, 64, 32),
        (1025..=LARGEST, ..=NATURAL) => (1024, 256, 40),
        (1..=1024, LINES) => (0, LINES, 68),
        _ => return None,
    };
    let at = (size - from - 1) / step;
    Some((before + at, from + (at + 1) * step))
}

impl Shelf {
    fn take(&self) -> Option<*mut u8> {
        let top = self.top.get();
        if top.is_null() {
            return None;
        }
        // SAFETY: a kept block holds the address of the one below it in its first word, and is aligned to a word at least.
        self.top.set(unsafe { top.cast::<*mut u8>().read() });
        self.count.set(self.count.get() - 1);
        Some(top)
    }

    /// Whether there was room for it.
    ///
    /// # Safety
    /// The block is of this shelf's size, aligned to a word, and nobody else has it.
    unsafe fn put(&self, memory: *mut u8, size: usize) -> bool {
        if self.count.get() >= most(size) {
            return false;
        }
        // SAFETY: by the caller's promise there is room for a word, which is the smallest a block can be.
        unsafe { memory.cast::<*mut u8>().write(self.top.get()) };
        self.top.set(memory);
        self.count.set(self.count.get() + 1);
        true
    }
}

/// A kept block.
fn kept(at: usize) -> Option<*mut u8> {
    KEPT.with(|shelves| shelves[at].take())
}

// SAFETY: mimalloc's functions do what those of the trait promise: the memory is of at least the size asked for, aligned as
// asked or better, and null means that there is none. All of it comes from one heap, so `mi_free` takes back any of it. A
// size that has a shelf is rounded up to the shelf's wherever memory of it is asked for, so that any block there will do.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and any power of two will do.
        unsafe {
            match shelf(layout.size(), layout.align()) {
                Some((at, size)) if layout.align() <= NATURAL => kept(at).unwrap_or_else(|| mi_malloc(size).cast()),
                Some((at, size)) => kept(at).unwrap_or_else(|| mi_malloc_aligned(size, layout.align()).cast()),
                None if layout.align() <= NATURAL => mi_malloc(layout.size()).cast(),
                None => mi_malloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above; a kept block has at least the size that is written.
        unsafe {
            match shelf(layout.size(), layout.align()) {
                Some((at, size)) => match kept(at) {
                    Some(memory) => {
                        memory.write_bytes(0, layout.size());
                        memory
                    }
                    None => mi_zalloc_aligned(size, layout.align()).cast(),
                },
                None if layout.align() <= NATURAL => mi_zalloc(layout.size()).cast(),
                None => mi_zalloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller has it from here, by the same layout, and does not use it any more.
        unsafe {
            if KEEPS.get()
                && let Some((at, size)) = shelf(layout.size(), layout.align())
                && KEPT.with(|shelves| shelves[at].put(memory, size))
            {
                return;
            }
            mi_free(memory.cast());
        }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (old, new) = (shelf(layout.size(), layout.align()), shelf(size, layout.align()));
        if old.is_some() && old == new {
            return memory;
        }
        // SAFETY: the caller has it from here, and uses what is returned instead, unless that is null. What is copied is
        // within both blocks.
        unsafe {
            if old.is_none() && new.is_none() {
                return match layout.align() <= NATURAL {
                    true => mi_realloc(memory.cast(), size).cast(),
                    false => mi_realloc_aligned(memory.cast(), size, layout.align()).cast(),
                };
            }
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(memory, moved, layout.size().min(size));
                self.dealloc(memory, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_as_asked_and_keeps_what_is_in_it() {
        let _keeping = keep();
        for align in [1, 2, 8, 16, 64, 128, 4096] {
            for size in [1, 7, 8, 9, 24, 100, 512, 513, 1024, 1025, 3000, 4096, 4097, 8192, 8193, 70_000] {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: it is written within its size, and freed once.
                unsafe {
                    let memory = Allocator.alloc(layout);
                    assert!(!memory.is_null() && memory.addr().is_multiple_of(align), "{size} by {align}");
                    memory.write_bytes(7, size);
                    let more = Allocator.realloc(memory, layout, 2 * size);
                    assert_eq!(more.addr() % align, 0, "{size} by {align}, once more");
                    assert!((0..size).all(|at| more.add(at).read() == 7));
                    more.write_bytes(8, 2 * size);
                    let larger = Layout::from_size_align(2 * size, align).expect("a layout");
                    let less = Allocator.realloc(more, larger, size);
                    assert!((0..size).all(|at| less.add(at).read() == 8));
                    Allocator.dealloc(less, layout);
                    let zeroed = Allocator.alloc_zeroed(layout);
                    assert!(zeroed.addr().is_multiple_of(align) && (0..size).all(|at| zeroed.add(at).read() == 0));
                    Allocator.dealloc(zeroed, layout);
                }
            }
        }
    }

    #[test]
    fn every_size_up_to_the_largest_has_a_shelf_of_blocks_that_are_large_enough() {
        let mut before = 0;
        for size in 1..=LARGEST {
            let (at, block) = shelf(size, 8).expect("a shelf");
            assert!(at < SHELVES && block >= size && at >= before, "{size}");
            assert_eq!(shelf(block, 8), Some((at, block)), "{size}");
            before = at;
        }
        let aligned = [1, 128, 129, 500, 1024].map(|size| shelf(size, LINES));
        let places = [(before + 1, 128), (before + 1, 128), (before + 2, 256), (before + 4, 512), (SHELVES - 1, 1024)];
        assert_eq!(aligned, places.map(Some));
        assert_eq!([shelf(0, 1), shelf(LARGEST + 1, 8), shelf(64, 16), shelf(1025, LINES)], [None; 4]);
    }

    #[test]
    fn what_was_freed_last_is_handed_out_first_while_its_thread_keeps_it() {
        let layout = Layout::from_size_align(7000, 8).expect("a layout");
        std::thread::spawn(move || {
            // SAFETY: nothing is written, and every block is freed once.
            unsafe {
                let keeping = keep();
                let blocks: Vec<_> = (0..60).map(|_| Allocator.alloc(layout)).collect();
                for block in &blocks {
                    Allocator.dealloc(*block, layout);
                }
                let again: Vec<_> = (0..36).map(|_| Allocator.alloc(layout)).collect();
                assert!(again.iter().eq(blocks[..36].iter().rev()));
                for block in again {
                    Allocator.dealloc(block, layout);
                }
                drop(keeping);
                KEPT.with(|shelves| assert!(shelves.iter().all(|shelf| shelf.top.get().is_null())));
            }
        })
        .join()
        .expect("no panic");
    }
}
