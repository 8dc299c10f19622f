//! Ctrl-C and SIGTERM ask a run to save and stop; a second one ends the program at once. A file that outgrows the
//! limit of `ulimit -f` ends nothing: writing it fails as on a full disk.

use super::{Failure, Outcome};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A flag that is set by the first SIGINT or SIGTERM.
pub(crate) fn stop_flag() -> &'static AtomicBool {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // In this order: the second signal finds the flag set and ends the program.
            let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag));
            let _ = signal_hook::flag::register(signal, Arc::clone(&flag));
        }
        flag
    })
}

/// Makes writing beyond the limit on the size of files an error of that write.
#[cfg(unix)]
pub(crate) fn ignore_file_size_limit() {
    // SAFETY: no handler is installed; the signal is only ignored.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Ends work that has nothing to save, once the first signal has come.
pub(crate) fn go_on() -> Outcome {
    if stop_flag().load(Ordering::Relaxed) {
        return Err(Failure::interrupted("stopped"));
    }
    Ok(())
}
