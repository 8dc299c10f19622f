//! `votive chat`: a conversation with a language model, on a terminal or line by line through a pipe.

mod command;
mod conversation;

use crate::cli::decoding::DecodingArgs;
use crate::cli::text_model::TextModel;
use crate::cli::{Context, Failure, Outcome};
use command::{Command, HELP, Line};
use conversation::{Conversation, Style};
use serde_json::json;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

/// Talk with a language model.
///
/// Each line of standard input is a turn; the answer is written as it comes, and goes to standard output. The whole
/// conversation is rendered with the model's chat template every time.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The model's folder, in the hub's layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A LoRA adapter to put on the model, in PEFT's format.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// What the system turn at the start says.
    #[arg(long, value_name = "TEXT", conflicts_with = "plain")]
    system: Option<String>,
    /// Use no chat template: the model goes on writing the text of all turns, each ending with a line break.
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    decoding: DecodingArgs,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    args.decoding.check()?;
    let model = TextModel::load(&args.model, args.adapter.as_deref(), &ctx.device()?)?;
    if !args.plain && !model.tokenizer.has_chat_template() {
        let folder = args.model.display();
        let missing = Failure::data(format!("{folder}: the model has no chat template"));
        return Err(missing.hint(
            "add the chat_template.jinja that it was trained with, or use --plain, which lets the model go on writing",
        ));
    }
    let style = if args.plain { Style::Plain } else { Style::Template(args.system.clone()) };
    let decoding = args.decoding.resolve(&args.model, &model.tokenizer)?;
    let is_terminal = io::stdin().is_terminal();
    if is_terminal {
        ctx.output.note(HELP);
    }
    let mut conversation = Conversation::new(&model, style, decoding);
    let mut lines = io::stdin().lock().lines();
    let mut number = 0;
    loop {
        if is_terminal {
            invite();
        }
        let Some(line) = lines.next() else { return Ok(()) };
        number += 1;
        let line = line.map_err(|error| Failure::data(format!("standard input, line {number}: {error}")))?;
        match take(&line, &mut conversation, ctx) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            // A person can try again; a script went wrong.
            Err(failure) if is_terminal && failure.is_about_input() => ctx.output.note(failure.message()),
            Err(failure) => return Err(failure.at(format!("standard input, line {number}"))),
        }
    }
}

/// Shows that a turn is expected.
fn invite() {
    let mut stderr = io::stderr().lock();
    // If nobody can read it, the conversation still goes on.
    let _ = write!(stderr, "> ").and_then(|()| stderr.flush());
}

/// Does what a line says; false ends the conversation.
fn take(line: &str, conversation: &mut Conversation, ctx: &Context) -> Outcome<bool> {
    match command::parse(line)? {
        Line::Nothing => {}
        Line::Turn(text) => answer(text, conversation, ctx)?,
        Line::Command(Command::Quit) => return Ok(false),
        Line::Command(Command::Help) => ctx.output.note(HELP),
        Line::Command(Command::Reset) => conversation.reset(),
        Line::Command(Command::Undo) => {
            if !conversation.undo() {
                return Err(Failure::usage("/undo: there is no turn to take back"));
            }
        }
        Line::Command(Command::Seed(seed)) => conversation.set_seed(seed),
        Line::Command(Command::Save(file)) => {
            votive_model::files::write_json(&file, &conversation.to_json())?;
            ctx.output.note(format!("saved to {}", file.display()));
        }
    }
    Ok(true)
}

fn answer(text: &str, conversation: &mut Conversation, ctx: &Context) -> Outcome {
    let is_json = ctx.output.wants_json();
    let answer = conversation.answer(text, &mut |piece| match is_json {
        true => Ok(()),
        false => ctx.output.piece(piece),
    })?;
    if is_json {
        return ctx.output.json(&json!({
            "user": text,
            "text": answer.text,
            "token_ids": answer.token_ids,
            "finished": answer.finished,
        }));
    }
    ctx.output.line("")?;
    if !answer.finished {
        ctx.output.warn("the answer was cut off by --max-new-tokens or by the end of the model's context");
    }
    Ok(())
}
