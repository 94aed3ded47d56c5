//! The only door to atomics: std's in production, loom's under `--cfg dataplane_loom`.
