//! Votive.
