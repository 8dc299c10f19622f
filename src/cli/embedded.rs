//! Where the shipped models lie.

use super::{Failure, Outcome};
use std::path::{Path, PathBuf};

/// The folder of the shipped model `name`: in the working directory, beside the program, or in the source tree.
pub(crate) fn folder(name: &str) -> Outcome<PathBuf> {
    let program = std::env::current_exe().ok();
    let beside = program.iter().flat_map(|path| path.ancestors().skip(1).map(Path::to_path_buf));
    let roots = [PathBuf::new()].into_iter().chain(beside).chain([PathBuf::from(env!("CARGO_MANIFEST_DIR"))]);
    let mut candidates = roots.map(|root| root.join("models").join(name));
    candidates.find(|folder| folder.join("config.json").exists() || folder.join("model_index.json").exists()).ok_or_else(
        || {
            Failure::data(format!("the shipped model models/{name} is not here"))
                .hint("run the program from the root of the source tree, or copy its `models` folder beside the program")
        },
    )
}
