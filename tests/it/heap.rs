//! Counts the bytes of the heap that are in use, and runs a test in a process of its own, whose heap is nobody else's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::program::Ended;

const ALONE: &str = "SEBS_LITE_TEST_ALONE";

#[global_allocator]
static HEAP: Counting = Counting { in_use: AtomicUsize::new(0) };

/// The system's allocator, with a count of what is in use.
struct Counting {
    in_use: AtomicUsize,
}

#[expect(unsafe_code, reason = "an allocator is unsafe; this one only counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.in_use.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: what the caller promises is what the system's allocator asks for; so in all three.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        self.in_use.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.in_use.fetch_add(size, Ordering::Relaxed);
        self.in_use.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// Bytes of the heap that this process has in use.
pub(crate) fn bytes_in_use() -> usize {
    HEAP.in_use.load(Ordering::Relaxed)
}

/// Whether this process runs the test alone. If not, the test is run in a process of its own, which must succeed.
pub(crate) fn is_alone() -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let thread = std::thread::current();
    let test = thread.name().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ended::from(output).expect(0, &["1 passed"]);
    false
}
