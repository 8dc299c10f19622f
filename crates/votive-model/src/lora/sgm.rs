//! How sgm, the code that SDXL was released with, calls the modules of a U-Net; kohya's SDXL files have its names.
//!
//! sgm counts residual blocks through all levels, and with each what follows it: `input_blocks.4.1` is the attention
//! after the fourth. How many there are in a level is read off the network's own modules.

use std::collections::BTreeMap;

/// What one level has on its way down or up.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    resnets: usize,
    attends: bool,
    /// A convolution to the next size.
    resizes: bool,
}

/// The levels of a U-Net, as its modules tell of them.
#[derive(Debug, Default)]
pub(super) struct Sgm {
    down: BTreeMap<usize, Level>,
    up: BTreeMap<usize, Level>,
}

impl Sgm {
    /// Counts blocks; of modules that are no U-Net's there are none.
    pub(super) fn of<'a>(paths: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for path in paths {
            let names: Vec<&str> = path.split('.').collect();
            let [way, level, kind, index, ..] = names.as_slice() else { continue };
            let levels = match *way {
                "down_blocks" => &mut found.down,
                "up_blocks" => &mut found.up,
                _ => continue,
            };
            let (Ok(level), Ok(index)) = (level.parse::<usize>(), index.parse::<usize>()) else { continue };
            let level = levels.entry(level).or_default();
            match *kind {
                "resnets" => level.resnets = level.resnets.max(index + 1),
                "attentions" => level.attends = true,
                "downsamplers" | "upsamplers" => level.resizes = true,
                _ => {}
            }
        }
        found
    }

    /// sgm's name of a module; None if it has no counterpart there.
    pub(super) fn name(&self, path: &str) -> Option<String> {
        let names: Vec<&str> = path.split('.').collect();
        let around = [
            ("conv_in", "input_blocks.0.0"),
            ("conv_out", "out.2"),
            ("time_embedding.linear_1", "time_embed.0"),
            ("time_embedding.linear_2", "time_embed.2"),
            ("add_embedding.linear_1", "label_emb.0.0"),
            ("add_embedding.linear_2", "label_emb.0.2"),
        ];
        if let Some((_, name)) = around.iter().find(|(own, _)| *own == path) {
            return Some((*name).to_owned());
        }
        match names.as_slice() {
            ["mid_block", "resnets", index, rest @ ..] => {
                Some(format!("middle_block.{}.{}", 2 * number(index)?, of_resnet(rest)?))
            }
            ["mid_block", "attentions", "0", rest @ ..] => Some(format!("middle_block.1.{}", rest.join("."))),
            ["down_blocks", level, kind, index, rest @ ..] => {
                self.down_name(number(level)?, kind, number(index)?, rest)
            }
            ["up_blocks", level, kind, index, rest @ ..] => {
                self.up_name(number(level)?, kind, number(index)?, rest)
            }
            _ => None,
        }
    }

    fn down_name(&self, level: usize, kind: &str, index: usize, rest: &[&str]) -> Option<String> {
        // The first convolution is number 0, and every change of size has a number of its own.
        let before: usize =
            self.down.range(..level).map(|(_, level)| level.resnets + usize::from(level.resizes)).sum();
        let number = 1 + before + index;
        match kind {
            "resnets" => Some(format!("input_blocks.{number}.0.{}", of_resnet(rest)?)),
            "attentions" => Some(format!("input_blocks.{number}.1.{}", rest.join("."))),
            "downsamplers" if rest == ["conv"] => {
                Some(format!("input_blocks.{}.0.op", number + self.down.get(&level)?.resnets))
            }
            _ => None,
        }
    }

    fn up_name(&self, level: usize, kind: &str, index: usize, rest: &[&str]) -> Option<String> {
        let before: usize = self.up.range(..level).map(|(_, level)| level.resnets).sum();
        let own = self.up.get(&level)?;
        let number = before + index;
        match kind {
            "resnets" => Some(format!("output_blocks.{number}.0.{}", of_resnet(rest)?)),
            "attentions" => Some(format!("output_blocks.{number}.1.{}", rest.join("."))),
            // It follows the last residual block of its level, and that one's attention.
            "upsamplers" if rest == ["conv"] => {
                let last = (before + own.resnets).checked_sub(1)?;
                Some(format!("output_blocks.{last}.{}.conv", 1 + usize::from(own.attends)))
            }
            _ => None,
        }
    }
}

fn number(name: &str) -> Option<usize> {
    name.parse().ok()
}

fn of_resnet(rest: &[&str]) -> Option<&'static str> {
    match rest {
        ["conv1"] => Some("in_layers.2"),
        ["time_emb_proj"] => Some("emb_layers.1"),
        ["conv2"] => Some("out_layers.3"),
        ["conv_shortcut"] => Some("skip_connection"),
        _ => None,
    }
}
