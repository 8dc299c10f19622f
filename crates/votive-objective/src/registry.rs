//! The table of methods. Lists, documentation and recipe checks are all made from it.

use crate::error::{ObjectiveError, Result};
use crate::header::Header;
use crate::spec::MethodSpec;
use crate::{game, list, pair, reward, unpaired};

/// Makes the table, and takes the head of each file along.
macro_rules! methods {
    ($(&$folder:ident::$file:ident::SPEC),* $(,)?) => {
        /// Every method, sorted by id.
        pub static METHODS: &[&MethodSpec] = &[$(&$folder::$file::SPEC),*];

        /// The file of each.
        static FILES: &[&str] =
            &[$(include_str!(concat!(stringify!($folder), "/", stringify!($file), ".rs"))),*];
    };
}

methods![
    &pair::alphapo::SPEC,
    &pair::aot::SPEC,
    &pair::aot_unpaired::SPEC,
    &unpaired::apo_action::SPEC,
    &pair::apo_down::SPEC,
    &pair::apo_zero::SPEC,
    &unpaired::apo_zero_unpaired::SPEC,
    &unpaired::bco::SPEC,
    &pair::bco_pair::SPEC,
    &reward::bradley_terry::SPEC,
    &pair::cardinal::SPEC,
    &pair::cdpo::SPEC,
    &pair::cpo::SPEC,
    &pair::d3po::SPEC,
    &pair::discopop::SPEC,
    &pair::discopop_aqfl::SPEC,
    &pair::discopop_aql::SPEC,
    &pair::discopop_cell::SPEC,
    &pair::discopop_dbaql::SPEC,
    &pair::discopop_padll::SPEC,
    &pair::discopop_pfl::SPEC,
    &pair::dpo::SPEC,
    &pair::dpop::SPEC,
    &pair::dspo::SPEC,
    &game::egpo::SPEC,
    &pair::exo_pair::SPEC,
    &pair::f_dpo::SPEC,
    &game::general_preference::SPEC,
    &pair::hinge::SPEC,
    &pair::ilr_dpo::SPEC,
    &game::inpo_nash::SPEC,
    &pair::ipo::SPEC,
    &pair::iterpref::SPEC,
    &unpaired::kto::SPEC,
    &pair::ld_dpo::SPEC,
    &pair::mapl::SPEC,
    &pair::mapo::SPEC,
    &list::mc_po::SPEC,
    &pair::mixdpo_gamma::SPEC,
    &pair::mixdpo_lognormal::SPEC,
    &pair::nca_pair::SPEC,
    &pair::odpo::SPEC,
    &pair::orpo::SPEC,
    &unpaired::pmpo::SPEC,
    &pair::preflexor::SPEC,
    &pair::r_dpo::SPEC,
    &pair::rdpo_rationale::SPEC,
    &pair::robust::SPEC,
    &pair::rorpo::SPEC,
    &pair::rpo_regularized::SPEC,
    &pair::rwr::SPEC,
    &reward::scaled_bradley_terry::SPEC,
    &pair::selm::SPEC,
    &unpaired::sft::SPEC,
    &pair::sigmoid_norm::SPEC,
    &pair::simpo::SPEC,
    &pair::slic::SPEC,
    &pair::smpo::SPEC,
    &pair::sparsepo::SPEC,
    &pair::spo_self_supervised::SPEC,
    &pair::spo_sequential::SPEC,
    &game::sppo::SPEC,
    &pair::sppo_hard::SPEC,
    &pair::svpo::SPEC,
    &pair::tdpo::SPEC,
    &list::tpo_tree::SPEC,
    &pair::tpo_triple::SPEC,
    &pair::typo::SPEC,
    &pair::upo::SPEC,
    &pair::vpo::SPEC,
    &pair::wpo::SPEC,
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

impl MethodSpec {
    /// What the head of its file says.
    #[must_use]
    pub fn header(&self) -> Header {
        let place = METHODS.iter().position(|spec| spec.id == self.id);
        Header::of(place.and_then(|place| FILES.get(place)).copied().unwrap_or_default())
    }
}
