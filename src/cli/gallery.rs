//! `votive gallery`: the page of a run or of a demo, made again from what lies on disk.

use crate::cli::{Context, Failure, Outcome};
use serde_json::json;
use std::path::PathBuf;
use votive_gallery::write_run_gallery;

/// Make index.html of a run or demo folder again.
///
/// The page shows what the folder holds: report.json (before and after), metrics.jsonl (training curves) and samples/.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder; index.html is written into it.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    if !args.dir.is_dir() {
        let missing = Failure::data(format!("{}: there is no such folder", args.dir.display()));
        return Err(missing.hint("name the output folder of `votive train` or `votive demo`"));
    }
    let page = write_run_gallery(&args.dir)?;
    if ctx.output.wants_json() {
        return ctx.output.json(&json!({ "page": page }));
    }
    ctx.output.line(page.display())
}
