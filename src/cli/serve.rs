//! `votive serve`: local pages on which people compare pairs and watch runs, and an endpoint through which other programs ask models.

use crate::cli::speaker::LocalSpeaker;
use crate::cli::{Context, Failure, Outcome, signal};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use votive_critic::{Speaker, Store};
use votive_serve::{Options, ServeError, Server};

/// Serve pages on which people compare pairs and watch runs, and an OpenAI-compatible endpoint for models
///
/// All of it is for this machine alone: the server listens on 127.0.0.1. The pages open at the address that is printed; what people
/// answer is kept in the store, beside what judges and critics have said, word by word. Runs show their progress, alarms, curves and
/// samples while they are trained, and their galleries afterwards. Programs find the models below /v1, with the token as their key.
/// Ctrl-C ends the server.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  votive serve --store pairs.sqlite\n  votive serve --runs runs\n  votive serve --model models/tiny-lm --port 8000"
)]
pub(crate) struct Args {
    /// Pairs and judgments.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["model", "runs"])]
    store: Option<PathBuf>,
    /// A folder of training runs and galleries, or one of them, to be watched. May be given several times.
    #[arg(long, value_name = "DIR")]
    runs: Vec<PathBuf>,
    /// A language model's folder, with or without eyes; its name is the folder's. May be given several times.
    #[arg(long, value_name = "DIR")]
    model: Vec<PathBuf>,
    /// The port; 0 for one that is free.
    #[arg(long, value_name = "N", default_value_t = 8787)]
    port: u16,
    /// Share of the pairs that a person is shown a second time, mirrored.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    repeat: f64,
    /// Key of the order in which people are shown pairs, and of the sides.
    #[arg(long, value_name = "K", default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    if !(0.0..=1.0).contains(&args.repeat) {
        return Err(Failure::usage(format!("--repeat is {}, expected a share from 0 to 1", args.repeat)));
    }
    let store = args.store.as_deref().map(open).transpose()?;
    if let Some(missing) = args.runs.iter().find(|folder| !folder.is_dir()) {
        let missing = Failure::data(format!("{}: there is no such folder", missing.display()));
        return Err(
            missing.hint("name an output folder of `votive train` or `votive demo`, or a folder of them")
        );
    }
    let speakers = args.model.iter().map(|folder| load(folder, ctx)).collect::<Outcome<Vec<_>>>()?;
    let names: Vec<String> = speakers.iter().map(|(name, _)| name.clone()).collect();
    let options = Options {
        port: args.port,
        store,
        seed: args.seed,
        repeats: args.repeat,
        runs: args.runs.clone(),
        speakers,
    };
    let server = Server::bind(options).map_err(failed)?;
    if ctx.output.wants_json() {
        ctx.output.json(&json!({
            "url": server.url(), "api": server.api_url(), "token": server.token(), "models": names,
        }))?;
    } else {
        ctx.output.line(server.url())?;
        if !names.is_empty() {
            ctx.output.note(format!("models: {}", names.join(", ")));
            ctx.output.note(format!(
                "OPENAI_BASE_URL={} OPENAI_API_KEY={}",
                server.api_url(),
                server.token()
            ));
        }
    }
    let flag = signal::stop_flag();
    server.run(|| flag.load(Ordering::Relaxed)).map_err(failed)
}

/// A store that is there: one that was mistyped would be empty.
fn open(path: &Path) -> Outcome<Store> {
    if !path.is_file() {
        let missing = Failure::data(format!("{}: there is no such store", path.display()));
        return Err(missing.hint("a store is a file of pairs and judgments that votive has written"));
    }
    Ok(Store::open(path)?)
}

/// A model under the name of its folder.
fn load(folder: &Path, ctx: &Context) -> Outcome<(String, Arc<dyn Speaker>)> {
    let absolute = std::path::absolute(folder).map_err(|error| Failure::file(folder, error))?;
    let name = absolute.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
    let speaker = LocalSpeaker::load(folder, name.clone(), &ctx.device()?)?;
    Ok((name, Arc::new(speaker)))
}

fn failed(error: ServeError) -> Failure {
    match error {
        ServeError::SameName(_) => Failure::usage(error).hint("a model is called by the name of its folder"),
        ServeError::Bind { .. } => Failure::resources(error).hint("--port 0 takes one that is free"),
        ServeError::Random(_) | ServeError::Ended(_) => Failure::resources(error),
    }
}
