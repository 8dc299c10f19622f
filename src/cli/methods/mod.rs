//! `votive methods`: the objectives, and any of them evaluated on given numbers.

mod eval;
mod inputs;

use crate::cli::{Context, Outcome};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use votive_objective::{Header, METHODS, MethodSpec, Needs, OptionDoc, WITH, WRAPPERS, WrapperSpec};

/// List the objectives, show one, or evaluate one on given numbers.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show an objective: source, options, and what it reads and returns.
    Show {
        /// The objective.
        #[arg(value_name = "ID", value_parser = method())]
        method: &'static MethodSpec,
    },
    Eval(eval::Args),
}

/// Parses a method's id; clap suggests the nearest for one that does not exist.
fn method() -> impl TypedValueParser<Value = &'static MethodSpec> {
    PossibleValuesParser::new(METHODS.iter().map(|spec| spec.id)).try_map(|id| votive_objective::find(&id))
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    match &args.action {
        None => list(ctx),
        Some(Action::Show { method }) => show(method, ctx),
        Some(Action::Eval(args)) => eval::run(args, ctx),
    }
}

fn list(ctx: &Context) -> Outcome {
    if ctx.output.wants_json() {
        return ctx.output.json(&METHODS.iter().map(|spec| summary(spec)).collect::<Vec<_>>());
    }
    let header = ["id", "title", "domains", "needs", "options", "paper"].map(str::to_owned);
    let row = |spec: &&MethodSpec| {
        let options =
            defaults(spec).iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        let cells = [spec.id, spec.title].map(str::to_owned);
        let [id, title] = cells;
        [id, title, domains(spec).join(", "), needs(spec.needs), options.join(" "), spec.paper.to_owned()]
    };
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(METHODS.iter().map(row)).collect();
    ctx.output.line(table(&rows).trim_end())
}

fn show(spec: &MethodSpec, ctx: &Context) -> Outcome {
    let objective = (spec.build)((spec.defaults)())?;
    let (inputs, outputs) = (inputs::of(&objective), inputs::outputs_of(&objective));
    let is_needed = |need: Needs| spec.needs.contains(need);
    if ctx.output.wants_json() {
        let mut value = summary(spec);
        let input = |input: &inputs::Input| json!({"name": input.name, "needed": is_needed(input.need), "doc": input.doc});
        value["inputs"] = inputs.iter().map(input).collect();
        value["described"] = described(&spec.header())
            .into_iter()
            .map(|(name, said)| (name, said.into()))
            .collect::<Map<_, _>>()
            .into();
        value["with"] = wrappers(spec).into();
        value["outputs"] = outputs.iter().map(|(name, doc)| json!({"name": name, "doc": doc})).collect();
        return ctx.output.json(&value);
    }
    let docs =
        |name: &str| spec.options.iter().find(|option| option.name == name).map_or("", |option| option.doc);
    let mut text = format!("{}: {}\n\n", spec.id, spec.title);
    let facts = [
        ("paper", spec.paper.to_owned()),
        ("domains", domains(spec).join(", ")),
        ("needs", needs(spec.needs)),
    ];
    text += &table(&facts.map(|(name, value)| [format!("  {name}"), value]));
    for (name, said) in described(&spec.header()) {
        text += &format!("\n{name}\n{}", wrapped(&said));
    }
    text += &format!(
        "\nIn a recipe (`weight = 1.0`, `reduction = \"{}\"`)\n  [objective.{}]\n",
        spec.reduction.name(),
        spec.id
    );
    let options = defaults(spec).into_iter();
    let option =
        |(name, value): (String, Value)| [format!("  {name} = {value}"), format!("# {}", docs(&name))];
    text += &table(&options.map(option).collect::<Vec<_>>());
    let around = wrappers(spec);
    if !around.is_empty() {
        text += &format!("\nWrappers that go around it, as [objective.{}.with.<wrapper>]\n", spec.id);
        text += &wrapped(&around.join(", "));
    }
    text += &format!("\nInputs of `votive methods eval {}`, f64 or f32\n", spec.id);
    let needed = |input: &&inputs::Input| is_needed(input.need);
    text += &table(
        &inputs
            .iter()
            .filter(needed)
            .map(|input| [format!("  {}", input.name), input.doc.to_owned()])
            .collect::<Vec<_>>(),
    );
    text += "\nOutputs, in the type of the inputs\n";
    text += &table(
        &outputs.iter().map(|(name, doc)| [format!("  {name}"), (*doc).to_owned()]).collect::<Vec<_>>(),
    );
    ctx.output.line(text.trim_end())
}

/// What a method's file says of it, in its order.
fn described(header: &Header) -> Vec<(String, String)> {
    let mut said = vec![
        ("What it is".to_owned(), header.summary.clone()),
        ("Source".to_owned(), header.source.clone()),
        ("Minimises".to_owned(), header.loss.clone()),
    ];
    said.extend(header.against.iter().map(|(method, text)| (format!("Against {method}"), text.clone())));
    said.push(("Departures".to_owned(), header.departures.clone()));
    said.push(("Checked against".to_owned(), header.checked.clone()));
    said
}

/// The wrappers that go around a method.
fn wrappers(spec: &MethodSpec) -> Vec<&'static str> {
    let goes_around = |wrapper: &&&WrapperSpec| {
        let mut options = (spec.defaults)();
        options[WITH] = json!({ wrapper.name: (wrapper.defaults)() });
        votive_objective::build(spec, options).is_ok()
    };
    WRAPPERS.iter().filter(goes_around).map(|wrapper| wrapper.name).collect()
}

/// Columns of a terminal that running text may take.
const WIDTH: usize = 100;

/// A text in indented lines.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < WIDTH => *line += &format!(" {word}"),
            _ => lines.push(format!(" {word}")),
        }
    }
    lines.iter().map(|line| format!(" {line}\n")).collect()
}

/// A method as one row of JSON.
fn summary(spec: &MethodSpec) -> Value {
    let doc = |name: &str| spec.options.iter().find(|option| option.name == name).map(|option| option.doc);
    let option = |(name, default): (String, Value)| {
        let found = spec.options.iter().find(|option| option.name == name).and_then(OptionDoc::range);
        let bound = |bound: Option<(f64, bool)>| {
            bound.map(|(at, is_allowed)| json!({"at": at, "allowed": is_allowed}))
        };
        let range = found
            .map(|range| json!({"symbol": range.symbol, "low": bound(range.low), "high": bound(range.high)}));
        let entry = json!({"default": default, "doc": doc(&name), "range": range});
        (name, entry)
    };
    json!({
        "id": spec.id,
        "title": spec.title,
        "paper": spec.paper,
        "domains": domains(spec),
        "needs": spec.needs.names().collect::<Vec<_>>(),
        "reduction": spec.reduction.name(),
        "options": defaults(spec).into_iter().map(option).collect::<Map<_, _>>(),
    })
}

fn defaults(spec: &MethodSpec) -> Map<String, Value> {
    match (spec.defaults)() {
        Value::Object(options) => options,
        _ => Map::new(),
    }
}

fn domains(spec: &MethodSpec) -> Vec<&'static str> {
    spec.domains.iter().map(|domain| domain.name()).collect()
}

fn needs(needs: Needs) -> String {
    let names: Vec<&str> = needs.names().collect();
    if names.is_empty() { "nothing more".to_owned() } else { names.join(", ") }
}

/// Rows with each column as wide as its widest cell.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}
