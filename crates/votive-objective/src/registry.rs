//! The table of methods. Lists, documentation and recipe checks are all made from it.

use crate::error::{ObjectiveError, Result};
use crate::spec::MethodSpec;
use crate::{pair, unpaired};

/// Every method, sorted by id.
pub static METHODS: &[&MethodSpec] = &[
    &pair::d3po::SPEC,
    &pair::dpo::SPEC,
    &pair::dspo::SPEC,
    &pair::ipo::SPEC,
    &unpaired::kto::SPEC,
    &pair::ld_dpo::SPEC,
    &pair::mapo::SPEC,
    &pair::rwr::SPEC,
    &unpaired::sft::SPEC,
    &pair::simpo::SPEC,
    &pair::smpo::SPEC,
    &pair::tdpo::SPEC,
];

/// The method with this id.
///
/// # Errors
/// If there is none.
pub fn find(id: &str) -> Result<&'static MethodSpec> {
    METHODS.iter().copied().find(|spec| spec.id == id).ok_or_else(|| ObjectiveError::Unknown {
        id: id.to_owned(),
        known: METHODS.iter().map(|spec| spec.id).collect::<Vec<_>>().join(", "),
    })
}
