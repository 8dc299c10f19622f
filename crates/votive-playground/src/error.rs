//! What a checker cannot judge.

/// Why a checker returned no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaygroundError {
    /// The caption is not a sentence of the image world.
    #[error(
        "`{caption}` is not a caption of the image world; expected for example \"a small red circle on a white \
         background\", \"two blue squares on a gray background\" or \"a red circle left of a blue square on a black \
         background\""
    )]
    UnknownCaption {
        /// The caption as given.
        caption: String,
    },
    /// The picture does not have the size of the image world's pictures.
    #[error(
        "picture is {width}×{height} with {bytes} bytes, expected {side}×{side} with {expected} bytes of RGB; resize it \
         before it is checked"
    )]
    PictureSize {
        /// Width in pixels, as given.
        width: usize,
        /// Height in pixels, as given.
        height: usize,
        /// Number of bytes, as given.
        bytes: usize,
        /// Expected width and height in pixels.
        side: usize,
        /// Expected number of bytes.
        expected: usize,
    },
    /// The prompt is not an instruction of the text world.
    #[error(
        "`{prompt}` is not an instruction of the text world; `text::prompts` lists instructions that are"
    )]
    UnknownPrompt {
        /// The prompt as given.
        prompt: String,
    },
}
