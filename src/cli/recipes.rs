//! `votive recipes`: what editors need to complete and check recipes.

use crate::cli::{Context, Outcome};

/// What editors need to complete and check recipes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write the JSON schema of recipes
    ///
    /// An editor with a language server for TOML, such as Taplo or VS Code's Even Better TOML, reads it if a recipe begins
    /// with `#:schema PATH`: keys are completed and explained, and what no recipe may have is underlined.
    #[command(after_help = "Example:\n  votive recipes schema > recipe.schema.json")]
    Schema,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    match args.action {
        Action::Schema => ctx.output.json(&votive_train::recipe_schema()?),
    }
}
