//! The program `votive`.

mod cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// candle 0.11.1 has a thread pool of its own whose idle threads spin; Votive's operations use rayon's instead.
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

fn main() -> std::process::ExitCode {
    if std::env::var_os(CANDLE_THREADS).is_none() {
        // SAFETY: this is the first thing the program does; no other thread exists that could read the environment.
        unsafe { std::env::set_var(CANDLE_THREADS, "1") };
    }
    cli::main()
}
