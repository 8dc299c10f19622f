//! votive-eval
