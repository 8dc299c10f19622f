//! The program `votive`.

mod cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// candle 0.11.1 has a thread pool of its own whose idle threads spin; Votive's operations use rayon's instead.
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

/// The number of mimalloc's option `mi_option_purge_delay`, which its crate does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> std::process::ExitCode {
    // By default pages that were freed go back to the system after 10 ms, to be cleared and mapped again in the next
    // step of a training. The peak of memory is the same without it.
    // SAFETY: the option exists, and any number is a valid value; −1 is "never".
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
    if std::env::var_os(CANDLE_THREADS).is_none() {
        // SAFETY: this is the first thing the program does; no other thread exists that could read the environment.
        unsafe { std::env::set_var(CANDLE_THREADS, "1") };
    }
    cli::main()
}
