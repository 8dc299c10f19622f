//! A static gallery of what alignment changed: prompt, seed, before, after and verdict side by side.
//!
//! Two things are drawn. A [`Report`] (`report.json`) compares a base with an aligned model on held-out prompts;
//! [`write_gallery`] turns it into `index.html`. A run directory holds samples that a training run drew every so
//! often; [`write_run_gallery`] lays them out with checkpoints as rows and prompts as columns, below the report if
//! the run has one; a [`RunRecord`] is what it reads, for other pages. A [`HeatMap`] shows tokens with a number each, an
//! [`Audit`](audit::Audit) what was measured of a judge.
//!
//! The page is one file with inline style and script, opens from `file://`, is complete without its script, and its
//! content security policy admits only that style, that script and images beside the page. Prompts and completions
//! are untrusted text: markup is made of literals alone, and everything else is escaped on its way in.
//!
//! # Examples
//! ```
//! use votive_gallery::{Report, write_gallery};
//!
//! let dir = std::env::temp_dir().join("votive-gallery-example");
//! std::fs::create_dir_all(&dir)?;
//! let report = Report { title: "Base against aligned".into(), seed: 11, ..Report::default() };
//! report.write(&dir)?;
//! let page = write_gallery(&Report::read(&dir)?, &dir)?;
//! assert!(page.ends_with("index.html"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariant: this crate sees no tensor, no model and no device. It reads JSON and writes HTML, so a gallery can be
//! remade on any machine, and equal input gives equal bytes.

pub mod audit;
mod cards;
mod chart;
mod error;
mod file;
mod grid;
mod heat;
pub mod html;
mod page;
mod policy;
mod report;
mod run;
mod samples;
mod summary;

pub use error::GalleryError;
pub use heat::{HeatCompletion, HeatMap, HeatRow, HeatToken, write_heat_map};
pub use page::{PAGE_FILE, STYLE, write_gallery};
pub use report::{
    CategoryScore, Direction, Entry, Labels, Metric, ModalityReport, Part, REPORT_FILE, Report, Round,
    SCHEMA_VERSION, Settings, Side, TrainingPoint, Verdict,
};
pub use run::{METRICS_FILE, OTHER_LOGS, RunRecord, linked_images, write_run_gallery};
pub use samples::{
    Checkpoint, SAMPLES_DIR, SAMPLES_FILE, Sample, read_checkpoints, step_folder, write_samples,
};
