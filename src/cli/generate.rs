//! `votive generate`: text from a language model.

use crate::cli::best_of::Judge;
use crate::cli::decoding::{Decoding, DecodingArgs};
use crate::cli::prompts::{Prompt, Prompts};
use crate::cli::text_model::TextModel;
use crate::cli::{Context, Failure, Outcome};
use serde_json::json;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use votive_data::{ImageSource, Place, TextStream};
use votive_model::{Generated, ImageInput, Request, generate_watched};

/// Generate text with a language model.
///
/// A completion depends on its prompt, the prompt's number, the sample's number and the seed, not on the other prompts or
/// the batch size.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  votive generate --model Qwen2.5-0.5B-Instruct --chat --prompt 'Name a colour.' --temperature 0
  votive generate --model Qwen3-VL-2B-Instruct --chat --image cat.jpg --prompt 'What is this?'
  votive generate --model models/tiny-lm --prompts prompts.jsonl --num-samples 4 --top-p 0.9 --json > out.jsonl
  votive generate --model models/tiny-lm --prompt 'Name a colour.' --best-of 8 --reward runs/reward/final

With --json each completion is a line with `prompt`, `sample`, `text`, `token_ids` (all new tokens, those of a stop string \
included), `finished` (false if the limit of tokens ended it) and `stop`, the stop string that ended it; with --best-of also \
`reward`.")]
pub(crate) struct Args {
    /// The model's folder, in the hub's layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A LoRA adapter to put on the model, in PEFT's format.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    prompts: Prompts,
    /// Render each prompt with the model's chat template; a text is a user's turn.
    #[arg(long)]
    chat: bool,
    /// An image that every prompt shows, to a model that sees images; repeat the option for several. With --chat they stand
    /// before the first turn; without, the prompt has the model's image token where each stands: <image> in a LLaVA,
    /// <|vision_start|><|image_pad|><|vision_end|> in a Qwen3-VL.
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    decoding: DecodingArgs,
    /// Completions of each prompt.
    #[arg(long, value_name = "N", default_value = "1")]
    num_samples: NonZeroUsize,
    /// Make N completions of each prompt and write the one with the greatest reward.
    #[arg(long, value_name = "N", requires = "reward", conflicts_with_all = ["num_samples", "stream"])]
    best_of: Option<NonZeroUsize>,
    /// The reward model's folder, with the model's own tokens.
    #[arg(long, value_name = "DIR", requires = "best_of")]
    reward: Option<PathBuf>,
    /// Completions that are worked on at once [default: 8, or 1 with --stream].
    #[arg(long, value_name = "N")]
    batch: Option<NonZeroUsize>,
    /// Write each completion as it comes, one after the other.
    #[arg(long, conflicts_with = "batch")]
    stream: bool,
}

/// Completions at once, unless the user says otherwise.
const BATCH: usize = 8;

/// One completion to make: a prompt and the number of its sample.
struct Task<'a> {
    prompt: &'a Prompt,
    ids: &'a [u32],
    images: &'a [ImageInput],
    sample: u64,
    /// What keys its draws.
    key: u64,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    if args.stream && ctx.output.wants_json() {
        return Err(Failure::usage("--stream and --json: a line of JSON is written when it is complete"));
    }
    args.decoding.check()?;
    let prompts = args.prompts.read_any()?;
    let model = TextModel::load(&args.model, args.adapter.as_deref(), &ctx.device()?)?;
    let decoding = args.decoding.resolve(&args.model, &model.tokenizer)?;
    let (images, vectors) = read_images(&args.images, &model)?;
    let ids = prompts
        .iter()
        .map(|prompt| prompt.encode(&model.tokenizer, args.chat, &vectors))
        .collect::<Outcome<Vec<_>>>()?;
    let samples = args.best_of.unwrap_or(args.num_samples).get();
    let tasks = tasks((&prompts, &ids), &images, samples as u64);
    if args.stream {
        return tasks.iter().try_for_each(|task| stream(task, &model, &decoding, ctx));
    }
    let judge = args.reward.as_ref().map(|folder| judge(folder, &model, &decoding, ctx)).transpose()?;
    let batch = args.batch.map_or(BATCH, NonZeroUsize::get);
    let progress = ctx.output.progress("generating", "completions", tasks.len() as u64);
    // All of a prompt are there before one of them is chosen.
    for tasks in tasks.chunks(if judge.is_some() { samples } else { batch }) {
        let (mut completions, mut streams) = (Vec::new(), Vec::new());
        for tasks in tasks.chunks(batch) {
            let made = complete(tasks, &model, &decoding, &mut |_| Ok(()))?;
            completions.extend(made.0);
            streams.extend(made.1);
            progress.add(tasks.len() as u64);
        }
        let best = judge.as_ref().map(|judge| {
            let whole = |(task, made): (&Task, &Generated)| [task.ids, &made.token_ids].concat();
            judge.best(&tasks.iter().zip(&completions).map(whole).collect::<Vec<_>>(), batch)
        });
        let best = best.transpose()?;
        for (i, ((task, completion), stream)) in tasks.iter().zip(&completions).zip(&streams).enumerate() {
            let reward = best.filter(|(chosen, _)| *chosen == i).map(|(_, reward)| reward);
            if best.is_none() || reward.is_some() {
                progress.pause(|| show(ctx, task, completion, stream, reward))?;
            }
        }
    }
    progress.finish();
    Ok(())
}

/// The reward model that chooses among completions.
fn judge(folder: &Path, model: &TextModel, decoding: &Decoding, ctx: &Context) -> Outcome<Judge> {
    if !decoding.stops.is_empty() {
        let message = "--best-of: a completion that a stop string cut off does not end as texts do that a reward model learns from";
        return Err(Failure::usage(message).hint("leave out --stop"));
    }
    Judge::open(folder, &model.tokenizer, ctx)
}

/// A prompt's samples stand together, so that it is read once; their first has the prompt's number as its key, so that
/// it is the same however many are asked for.
fn tasks<'a>(
    (prompts, ids): (&'a [Prompt], &'a [Vec<u32>]),
    images: &'a [ImageInput],
    samples: u64,
) -> Vec<Task<'a>> {
    let of_prompt = |(number, (prompt, ids)): (u64, (&'a Prompt, &'a Vec<u32>))| {
        let task = move |sample| Task { prompt, ids, images, sample, key: number | (sample << 32) };
        (0..samples).map(task)
    };
    (0..).zip(prompts.iter().zip(ids)).flat_map(of_prompt).collect()
}

/// What the model reads of images, and how many vectors each has.
fn read_images(files: &[PathBuf], model: &TextModel) -> Outcome<(Vec<ImageInput>, Vec<usize>)> {
    // A model that sees none refuses the prompts next.
    let Some(images) = &model.images else { return Ok((Vec::new(), vec![0; files.len()])) };
    let read = |(index, file): (usize, &PathBuf)| {
        let place = Place::new(Path::new("the command line"), 1, format!("--image ({})", index + 1));
        Ok(images.read(&ImageSource::File(file.clone()), &place)?)
    };
    let read = files.iter().enumerate().map(read).collect::<Outcome<Vec<_>>>()?;
    let vectors = images.vectors(&read);
    Ok((read, vectors))
}

/// Makes completions; `write` gets the text of the first one as it becomes certain.
fn complete<'a>(
    tasks: &[Task],
    model: &'a TextModel,
    decoding: &'a Decoding,
    write: &mut (dyn FnMut(&str) -> Outcome + Send),
) -> Outcome<(Vec<Generated>, Vec<TextStream<'a>>)> {
    let requests: Vec<Request> = tasks
        .iter()
        .map(|task| Request { prompt: task.ids, images: task.images, sample: task.key })
        .collect();
    let mut streams: Vec<TextStream> =
        tasks.iter().map(|_| TextStream::new(&model.tokenizer, &decoding.stops)).collect();
    let mut watch = |row: usize, id: u32| {
        let piece = streams[row].push(id)?;
        if row == 0 {
            write(piece)?;
        }
        Ok::<_, Failure>(match streams[row].stopped_by() {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        })
    };
    let completions = generate_watched(&model.network, &requests, &decoding.options, &mut watch)?;
    for (row, stream) in streams.iter_mut().enumerate() {
        let rest = stream.finish()?;
        if row == 0 {
            write(rest)?;
        }
    }
    Ok((completions, streams))
}

fn stream(task: &Task, model: &TextModel, decoding: &Decoding, ctx: &Context) -> Outcome {
    ctx.output.note(format!("\n> {}", task.prompt.last_words()));
    complete(std::slice::from_ref(task), model, decoding, &mut |piece| ctx.output.piece(piece))?;
    ctx.output.line("")
}

fn show(
    ctx: &Context,
    task: &Task,
    completion: &Generated,
    stream: &TextStream,
    reward: Option<f32>,
) -> Outcome {
    let Generated { token_ids, finished } = completion;
    if ctx.output.wants_json() {
        let mut row = json!({
            "prompt": task.prompt.to_json(),
            "sample": task.sample,
            "text": stream.text(),
            "token_ids": token_ids,
            "finished": finished,
            "stop": stream.stopped_by(),
        });
        if let Some(reward) = reward {
            row["reward"] = json!(reward);
        }
        return ctx.output.json(&row);
    }
    ctx.output.note(format!("\n> {}", task.prompt.last_words()));
    ctx.output.line(stream.text())
}
