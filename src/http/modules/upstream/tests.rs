//! Tests as texts.
