//! The table of methods. Lists, documentation and recipe checks are all made from it.

use crate::error::{ObjectiveError, Result};
use crate::spec::MethodSpec;
use crate::{game, pair, unpaired};

/// Every method, sorted by id.
pub static METHODS: &[&MethodSpec] = &[
    &unpaired::apo_action::SPEC,
    &pair::cardinal::SPEC,
    &pair::d3po::SPEC,
    &pair::discopop_aqfl::SPEC,
    &pair::discopop_aql::SPEC,
    &pair::discopop_cell::SPEC,
    &pair::discopop_dbaql::SPEC,
    &pair::discopop_padll::SPEC,
    &pair::discopop_pfl::SPEC,
    &pair::dpo::SPEC,
    &pair::dspo::SPEC,
    &game::egpo::SPEC,
    &game::general_preference::SPEC,
    &pair::ilr_dpo::SPEC,
    &game::inpo_nash::SPEC,
    &pair::ipo::SPEC,
    &unpaired::kto::SPEC,
    &pair::ld_dpo::SPEC,
    &pair::mapo::SPEC,
    &pair::mixdpo_gamma::SPEC,
    &pair::mixdpo_lognormal::SPEC,
    &unpaired::pmpo::SPEC,
    &pair::rwr::SPEC,
    &unpaired::sft::SPEC,
    &pair::simpo::SPEC,
    &pair::smpo::SPEC,
    &pair::sparsepo::SPEC,
    &pair::spo_sequential::SPEC,
    &game::sppo::SPEC,
    &pair::svpo::SPEC,
    &pair::tdpo::SPEC,
    &pair::upo::SPEC,
    &pair::vpo::SPEC,
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
