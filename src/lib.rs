//! Votive aligns language models and Stable Diffusion to preferences, with one set of objectives.
//!
//! This library is a door to the crates; each can be used by itself.
//!
//! ```
//! use votive::objective::{Objective, PairInputs, find};
//! use votive::tensor::gradcheck::sample_tensor;
//!
//! let Objective::Pair(dpo) = (find("dpo")?.build)(serde_json::json!({"beta": 0.1}))? else { unreachable!() };
//! let logps = |salt| sample_tensor(&[4], salt);
//! let inputs = PairInputs::new(logps(1)?, logps(2)?).with_reference(logps(1)?, logps(2)?);
//! // A policy that equals its reference has margin 0, and −log σ(0) = log 2.
//! let loss = dpo.evaluate(&inputs)?.per_pair.to_vec1::<f64>()?;
//! assert!(loss.iter().all(|loss| (loss - 2f64.ln()).abs() < 1e-12));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariant: no code of its own.

pub use votive_critic as critic;
pub use votive_data as data;
pub use votive_diffusion as diffusion;
pub use votive_eval as eval;
pub use votive_gallery as gallery;
pub use votive_model as model;
pub use votive_objective as objective;
pub use votive_playground as playground;
pub use votive_serve as serve;
pub use votive_tensor as tensor;
pub use votive_train as train;
