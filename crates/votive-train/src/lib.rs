//! votive-train
