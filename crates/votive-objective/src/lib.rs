//! votive-objective
