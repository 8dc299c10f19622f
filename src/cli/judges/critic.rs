//! Critics: whoever says in words what is wrong with one candidate; and the exact checker for the truth.

use super::{Chosen, EMBEDDED, Grader, JudgeArgs, Subject, checker};
use crate::cli::{Context, Failure, Outcome};
use std::path::Path;
use std::sync::Arc;
use votive_critic::protocol::ByGrade;
use votive_critic::{Asked, Sampling, Speaker, Template};

/// Somebody who is asked for critiques.
pub(crate) struct Critic {
    /// As a judge whose evidence holds the words, and whose grade is minus the number of things that are wrong.
    pub(crate) chosen: Chosen,
    /// How it is asked, and what is done about its answers.
    pub(crate) template: Template,
    asked: Arc<Asked>,
}

impl Critic {
    /// Who is asked.
    pub(crate) fn speaker(&self) -> &dyn Speaker {
        self.asked.speaker()
    }
}

impl JudgeArgs {
    /// The critic of a name that `--judge` would take too; `template` is a file or the name of one that comes with the program.
    ///
    /// # Errors
    /// As [`JudgeArgs::choose`]; if it does not speak, or the template asks for no critique.
    pub(crate) fn critic(
        &self,
        name: &str,
        template: Option<&str>,
        (subject, seed): (Subject, u64),
        ctx: &Context,
    ) -> Outcome<Critic> {
        let own = Path::new(name).join("critique.toml");
        let template = match (template, subject) {
            (Some(template), _) => template.to_owned(),
            (None, Subject::Images) if name == EMBEDDED => "picture-critique".to_owned(),
            (None, Subject::Images) if own.exists() => own.display().to_string(),
            (None, Subject::Images) => "image-critique".to_owned(),
            (None, Subject::Texts) => "text-critique".to_owned(),
        };
        let one = Self { template: Some(template), ..self.clone() }.one(name, subject, seed, ctx)?;
        let (Some(asked), Some(template)) = (one.asked, one.template) else {
            let silent = Failure::usage(format!("{name} only gives grades, and a critic says what is wrong"));
            return Err(
                silent.hint("name a language model's folder, with vision for images, or a server's model")
            );
        };
        if template.critique("").is_none() {
            let message = format!("the template {} asks for no critique", template.name());
            return Err(Failure::usage(message).hint("a critic's template has `read = \"critique\"`"));
        }
        let kept = Template::parse(template.name(), template.text())?;
        let open_questions = one.is_remote.then_some(self.at_once.get());
        let chosen =
            Chosen { judge: asked.clone(), bare: asked.clone(), templates: vec![template], open_questions };
        Ok(Critic { chosen, template: kept, asked })
    }

    /// How answers in words are drawn.
    pub(crate) fn sampling(&self, seed: u64) -> Sampling {
        Sampling { temperature: self.temperature, top_p: 1.0, max_tokens: self.max_tokens, seed }
    }
}

impl Chosen {
    /// The playground's exact checker, which needs no protocol.
    ///
    /// # Errors
    /// As [`ByGrade::new`].
    pub(crate) fn exact() -> Outcome<Self> {
        let Grader { judge, scale, .. } = checker();
        let judge = Arc::new(ByGrade::new(judge, scale)?);
        Ok(Self { judge: judge.clone(), bare: judge, templates: Vec::new(), open_questions: None })
    }
}
