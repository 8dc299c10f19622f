//! Bad input: every mistake that a user can make has an exit code and a message that says where it is and what to do,
//! and leaves no half-written file behind.

mod disk;
mod images;
mod interruption;
mod model;
mod numbers;
mod recipe;
mod rows;
mod run;

use crate::*;
use std::collections::BTreeSet;
use std::fmt::Write as _;

pub(crate) const NUMBERS: i32 = 5;
pub(crate) const INTERRUPTED: i32 = 6;

const TEXT_DATA: &str = "text_steps/prefs.jsonl";

/// A folder with a recipe, in which something is wrong.
pub(crate) struct Trial {
    pub(crate) folder: Folder,
}

impl Trial {
    /// A recipe that trains the tiny language model on 20 pairs for six steps, with three checkpoints.
    pub(crate) fn text() -> Self {
        Self::new(&fixture("text/llama"), &fixture(TEXT_DATA), Folder::new())
    }

    /// The same for a copy of the model that can be damaged, in the folder `model`.
    pub(crate) fn text_copy() -> Self {
        let folder = Folder::new();
        let model = folder.copy("text/llama");
        Self::new(&model, &fixture(TEXT_DATA), folder)
    }

    /// The same for the tiny Stable Diffusion model on three pairs of images, `chosen0.png` to `rejected2.png`.
    pub(crate) fn image() -> Self {
        let folder = Folder::new();
        let mut rows = String::new();
        for row in 0..3u8 {
            for (side, tint) in [("chosen", 40), ("rejected", 90)] {
                let picture = ::image::RgbImage::from_fn(32, 32, |x, y| {
                    ::image::Rgb([x as u8 * 7, y as u8 * 5 + row, tint + 60 * row])
                });
                picture.save(folder.path(&format!("{side}{row}.png"))).unwrap();
            }
            writeln!(
                rows,
                r#"{{"prompt":"picture {row}","chosen":"chosen{row}.png","rejected":"rejected{row}.png"}}"#
            )
            .unwrap();
        }
        let data = folder.text("pairs.jsonl", &rows);
        Self::new(&fixture("diffusion/sd1"), &data, folder)
    }

    fn new(model: &str, data: &str, folder: Folder) -> Self {
        let recipe = format!(
            "[model]\npath = {model:?}\n[data]\npath = {data:?}\n[objective.dpo]\nbeta = 0.1\n\
             [optimizer]\nlr = 1e-3\n[train]\nsteps = 6\nbatch_size = 2\nseed = 11\nsave_every = 2\n"
        );
        folder.text("recipe.toml", &recipe);
        Self { folder }
    }

    /// The trial's recipe replaced.
    pub(crate) fn with_recipe(self, recipe: &str) -> Self {
        self.folder.text("recipe.toml", recipe);
        self
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path(name)
    }

    /// Arguments of a training run into the folder `run`, with `key=value` settings.
    pub(crate) fn training(&self, settings: &[&str]) -> Vec<String> {
        let mut args = vec!["train".to_owned(), self.path("recipe.toml")];
        args.extend(["--quiet", "--out", &self.path("run")].map(str::to_owned));
        settings.iter().for_each(|setting| args.extend(["--set".to_owned(), (*setting).to_owned()]));
        args
    }

    pub(crate) fn resuming(&self) -> Vec<String> {
        ["resume", "--quiet", &self.path("run")].map(str::to_owned).to_vec()
    }

    /// Checks that training is refused with this exit code and these words, and leaves nothing.
    #[track_caller]
    pub(crate) fn refused(&self, settings: &[&str], code: i32, parts: &[&str]) {
        self.untouched(&self.training(settings), code, parts);
    }

    /// Checks that a command fails with this exit code and these words, and that every file is what it was.
    #[track_caller]
    pub(crate) fn untouched(&self, args: &[impl AsRef<str>], code: i32, parts: &[&str]) {
        let before = self.files();
        fails(&args.iter().map(AsRef::as_ref).collect::<Vec<_>>(), code, parts);
        let after = self.files();
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&before), names(&after), "files were left behind");
        assert!(before == after, "a file was changed");
    }

    /// Runs a command that must work, and returns what it says on stderr.
    #[track_caller]
    pub(crate) fn works(&self, args: &[impl AsRef<str>]) -> String {
        let output = votive(args.iter().map(AsRef::as_ref)).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output)
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        contents(Path::new(&self.path("")))
    }

    /// The finished model of a run, file by file.
    pub(crate) fn finished(&self, run: &str) -> BTreeMap<String, Vec<u8>> {
        contents(Path::new(&self.path(&format!("{run}/final"))))
    }

    /// The model that the recipe gives when nothing goes wrong.
    #[track_caller]
    pub(crate) fn undisturbed(&self, settings: &[&str]) -> BTreeMap<String, Vec<u8>> {
        let mut args = self.training(settings);
        let out = args.iter().position(|arg| *arg == self.path("run")).unwrap();
        args[out] = self.path("undisturbed");
        self.works(&args);
        self.finished("undisturbed")
    }
}

/// Every file below a folder, and every folder as an empty file with a slash at its end.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let inner = contents(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes));
            files.extend(inner);
            files.insert(format!("{name}/"), Vec::new());
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
    files
}

/// Replaces a part of a text file, which must be there.
#[track_caller]
pub(crate) fn replace_in(file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from:?} is not in\n{text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

/// Flips a bit of a file.
pub(crate) fn flip(file: &str, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x40;
    fs::write(file, bytes).unwrap();
}

/// A command under the limits of the shell's `ulimit`.
#[cfg(target_os = "linux")]
pub(crate) fn limited(limit: &str, args: &[String]) -> Output {
    let script = format!("ulimit {limit} && exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_votive")]).args(args);
    command.stdin(Stdio::null()).output().unwrap()
}
